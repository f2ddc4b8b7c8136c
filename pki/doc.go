// Package pki creates and parses private keys, certificate requests (CSRs), certificates and their
// chains, and the keystore files that programs load them from. It does not depend on Kubernetes.
//
// A [Request] says what a certificate is to contain. [Request.CSR] turns it into a PKCS #10
// request, [Template.Certificate] and [Sign] turn such a request into a certificate, and
// [Request.CSRDifferences] and [Request.CertificateDifferences] say whether an existing CSR or
// certificate matches the Request. The output has the same meaning as cert-manager's, so that each
// program can continue with the objects of the other. Errors and differences name fields by their
// path in a Certificate ("spec.dnsNames[2]").
//
// All functions that parse untrusted input limit its size, see [Limits], and take time in
// proportion to the size. Private keys and passwords never appear in errors.
package pki
