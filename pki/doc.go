// Package pki makes and reads what a certificate consists of: private keys, certificate
// requests (CSRs), certificates and their chains, and the files that programs load them from.
// It knows nothing of Kubernetes.
//
// A [Request] says what a certificate is to contain. [Request.CSR] turns it into a PKCS #10
// request, [Template.Certificate] and [Sign] turn such a request into a certificate, and
// [Request.CSRDifferences] and [Request.CertificateDifferences] say whether something that
// exists already is what the Request asks for. What is written here and what cert-manager
// writes mean the same, so that either can go on with what the other made. Errors and differences
// name fields by their path in a Certificate ("spec.dnsNames[2]").
//
// Everything that reads input from outside has a size limit, see [Limits], and takes time in
// proportion to the size. Private keys and passwords never appear in errors.
package pki
