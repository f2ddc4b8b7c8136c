package lifecycle

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/earlyissuance"
	"github.com/perennial-pki/perennial/internal/external"
	"github.com/perennial-pki/perennial/internal/issuer"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// Observation is everything that is known about a Certificate at one moment.
type Observation struct {
	Now         time.Time
	Settings    Settings
	Limits      pki.Limits
	Certificate *cmapi.Certificate

	// Secret is the one that spec.secretName names, nil if it does not exist.
	Secret *corev1.Secret
	// Rivals are the other Certificates of the namespace with the same spec.secretName.
	Rivals []*cmapi.Certificate
	// Issuer is nil if it does not exist or is external.
	Issuer *signer.Issuer

	// CARenewal is when a Certificate renews the CA of the issuer. It is zero if none does.
	CARenewal time.Time

	// External is the state of an external issuer; it is read only if Next has failed.
	External external.State

	// Current is the request that the present revision comes from, Next the one of the revision after
	// it. Either may be nil.
	Current, Next *cmapi.CertificateRequest
	// Rehearsal is the request to the rehearsal issuer, RehearsalIssuer that issuer. Either may be
	// nil.
	Rehearsal       *cmapi.CertificateRequest
	RehearsalIssuer *signer.Issuer
	// Stray is a request of the present revision that has no certificate, so that the one in the
	// Secret does not come from it. Two processes that were both the leader for a moment leave it.
	Stray *cmapi.CertificateRequest
	// Old are the other requests of the Certificate.
	Old []*cmapi.CertificateRequest
	// KeyInMemory is the private key of Next, if this process has it.
	KeyInMemory crypto.Signer
	// NewKey is the private key that was generated for the request that is to be made, nil while it is
	// not there. NewKeySince is since when it is waited for.
	NewKey      crypto.Signer
	NewKeySince time.Time
	// KeySecrets are the next private key Secrets of the Certificate. The first that fits Next counts.
	KeySecrets []*corev1.Secret

	// Issuances is what is known of the issuances of this Certificate, and of earlier Certificates
	// with its name.
	Issuances earlyissuance.Record

	// Passwords of the keystores that the spec asks for.
	JKSPassword, PKCS12Password Password

	// FailedWrites are the writes for this Certificate that failed when they were last tried.
	FailedWrites map[write]*FailedWrite

	signedBy map[*x509.Certificate]bool // answers of signedByCA, which cost a signature check
}

// Password is that of a keystore. Source says where it comes from. Problem, if not empty, says why
// there is none.
type Password struct {
	Value, Source string
	Problem       string
}

// pair is what a Secret holds.
type pair struct {
	key   crypto.Signer
	chain []*x509.Certificate
	// reason and message say what is wrong with it, in cert-manager's words. Empty if it is a key with
	// its certificate.
	reason, message string
}

func decodePair(limits pki.Limits, secret *corev1.Secret) pair {
	switch {
	case secret == nil:
		return pair{reason: reasonDoesNotExist, message: "Issuing certificate as Secret does not exist"}
	case secret.Data == nil:
		return pair{reason: reasonMissingData, message: "Issuing certificate as Secret does not contain any data"}
	case len(secret.Data[corev1.TLSPrivateKeyKey]) == 0:
		return pair{reason: reasonMissingData, message: "Issuing certificate as Secret does not contain a private key"}
	case len(secret.Data[corev1.TLSCertKey]) == 0:
		p := pair{reason: reasonMissingData, message: "Issuing certificate as Secret does not contain a certificate"}
		p.key, _ = limits.DecodeKeyPEM(secret.Data[corev1.TLSPrivateKeyKey])
		return p
	}
	var p pair
	var err error
	if p.key, err = limits.DecodeKeyPEM(secret.Data[corev1.TLSPrivateKeyKey]); err != nil {
		p.reason, p.message = reasonInvalidKeyPair, fmt.Sprintf(
			"Issuing certificate as Secret contains invalid private key data: %v",
			err,
		)
		return p
	}
	if p.chain, err = limits.DecodeChainPEM(secret.Data[corev1.TLSCertKey]); err != nil {
		p.reason, p.message = reasonInvalidCertificate, fmt.Sprintf(
			"Issuing certificate as Secret contains an invalid certificate: %v",
			err,
		)
		return p
	}
	if !pki.SamePublicKey(p.chain[0].PublicKey, p.key.Public()) {
		p.reason, p.message = reasonInvalidKeyPair, "Issuing certificate as Secret contains a private key that does not "+
			"match the certificate"
	}
	return p
}

// keySpec is what spec.privateKey asks for.
func keySpec(spec *cmapi.CertificateSpec) (pki.KeySpec, pki.KeyEncoding) {
	if spec.PrivateKey == nil {
		return pki.KeySpec{}, ""
	}
	return pki.KeySpec{
			Algorithm: pki.KeyAlgorithm(spec.PrivateKey.Algorithm),
			Size:      spec.PrivateKey.Size,
		}, pki.KeyEncoding(
			spec.PrivateKey.Encoding,
		)
}

// reuseKey reports whether renewal keeps the private key.
func reuseKey(spec *cmapi.CertificateSpec) bool {
	return spec.PrivateKey != nil && spec.PrivateKey.RotationPolicy == cmapi.RotationPolicyNever
}

// RequestOf returns what a spec asks for: the certificate, the private key, and the form in which
// that is stored.
func RequestOf(spec *cmapi.CertificateSpec) (pki.Request, pki.KeySpec, pki.KeyEncoding) {
	ks, encoding := keySpec(spec)
	return requestOf(spec), ks, encoding
}

// requestOf is what a spec asks for.
func requestOf(spec *cmapi.CertificateSpec) pki.Request {
	r := pki.Request{
		CommonName: spec.CommonName, LiteralSubject: spec.LiteralSubject,
		DNSNames: spec.DNSNames, IPAddresses: spec.IPAddresses, URIs: spec.URIs, EmailAddresses: spec.EmailAddresses,
		IsCA: spec.IsCA, EncodeUsages: spec.EncodeUsagesInRequest == nil || *spec.EncodeUsagesInRequest,
		SignatureAlgorithm: string(spec.SignatureAlgorithm),
	}
	if s := spec.Subject; s != nil {
		r.Subject = pki.Subject{
			Organizations: s.Organizations, Countries: s.Countries, OrganizationalUnits: s.OrganizationalUnits,
			Localities: s.Localities, Provinces: s.Provinces, StreetAddresses: s.StreetAddresses, PostalCodes: s.PostalCodes,
			SerialNumber: s.SerialNumber,
		}
	}
	for _, u := range spec.Usages {
		r.Usages = append(r.Usages, string(u))
	}
	for _, n := range spec.OtherNames {
		r.OtherNames = append(r.OtherNames, pki.OtherName{OID: n.OID, UTF8Value: n.UTF8Value})
	}
	if n := spec.NameConstraints; n != nil {
		c := &pki.NameConstraints{Critical: n.Critical}
		if p := n.Permitted; p != nil {
			c.PermittedDNSDomains, c.PermittedIPRanges = p.DNSDomains, p.IPRanges
			c.PermittedEmailAddresses, c.PermittedURIDomains = p.EmailAddresses, p.URIDomains
		}
		if e := n.Excluded; e != nil {
			c.ExcludedDNSDomains, c.ExcludedIPRanges = e.DNSDomains, e.IPRanges
			c.ExcludedEmailAddresses, c.ExcludedURIDomains = e.EmailAddresses, e.URIDomains
		}
		r.NameConstraints = c
	}
	return r
}

// asks is what the spec asks for. For an ACME issuer, names that a wildcard covers may be missing:
// the server refuses to certify both. An issuer that does not exist yet may become an ACME issuer.
func (o *Observation) asks(spec *cmapi.CertificateSpec) pki.Request {
	r := requestOf(spec)
	r.LeaveOutCovered = o.Issuer == nil && !signer.External(spec.IssuerRef) || ofACME(o.Issuer) ||
		ofACME(o.RehearsalIssuer)
	return r
}

func ofACME(issuer *signer.Issuer) bool { return issuer != nil && issuer.Type() == signer.TypeACME }

// revisionOf is the revision that a request is made for, or 0.
func revisionOf(cr *cmapi.CertificateRequest) int {
	n, err := strconv.Atoi(cr.Annotations[cmapi.CertificateRequestRevisionAnnotationKey])
	if err != nil || n < 1 {
		return 0
	}
	return n
}

// setStrayAside takes a request of the present revision that has no certificate out of the history:
// compared with the Secret, it would be a reason to issue again.
func (o *Observation) setStrayAside() {
	if o.Current != nil && !issued(o.Current) {
		o.Stray, o.Current = o.Current, nil
	}
}

// revision is the present revision of the Certificate, 0 before the first.
func (o *Observation) revision() int {
	if o.Certificate.Status.Revision == nil {
		return 0
	}
	return *o.Certificate.Status.Revision
}

// nextKey returns the private key of the request, and the Secret that it is in, if it is in one of
// its own.
func (o *Observation) nextKey(csr *x509.CertificateRequest, present pair) (crypto.Signer, *corev1.Secret) {
	for _, secret := range o.KeySecrets {
		key, err := o.Limits.DecodeKeyPEM(secret.Data[corev1.TLSPrivateKeyKey])
		if err == nil && pki.SamePublicKey(key.Public(), csr.PublicKey) {
			return key, secret
		}
	}
	if o.KeyInMemory != nil && pki.SamePublicKey(o.KeyInMemory.Public(), csr.PublicKey) {
		return o.KeyInMemory, nil
	}
	// The key is in use already: it is to be kept, or its certificate was stored and only the status
	// is behind.
	if present.key != nil && pki.SamePublicKey(present.key.Public(), csr.PublicKey) {
		return present.key, nil
	}
	return nil, nil
}

// ca returns the status of the CA of an issuer of type ca, or nil.
func (o *Observation) ca() *cmapi.CAIssuerStatus {
	if o.Issuer == nil || o.Issuer.GetSpec().CA == nil {
		return nil
	}
	return o.Issuer.GetStatus().CA
}

// signedByCA reports whether the issuer's CA of today signed the chain.
func (o *Observation) signedByCA(chain []*x509.Certificate) bool {
	ca := o.ca()
	if ca == nil {
		return false
	}
	if by, ok := o.signedBy[chain[0]]; ok {
		return by
	}
	anchor, err := o.Limits.DecodeCertificatePEM([]byte(ca.Certificate))
	by := err == nil && issuer.SignedBy(chain, ca.Fingerprint, anchor)
	if o.signedBy == nil {
		o.signedBy = map[*x509.Certificate]bool{}
	}
	o.signedBy[chain[0]] = by
	return by
}

// trust returns ca.crt for a chain. The certificate above the chain comes first, as some clients
// read only one. While the issuer changes its CA, the other CAs follow, so that each client trusts
// servers of both. issued is the CA that came with the chain.
func (o *Observation) trust(chain []*x509.Certificate, issued []byte) []byte {
	if o.Issuer != nil && o.Issuer.GetSpec().ACME != nil {
		return o.Issuer.CAFromChain(chain) // the setting of the issuer may change at any time
	}
	ca := o.ca()
	if ca == nil {
		return issued
	}
	current, previous := issuer.Anchors(ca, o.Limits, o.Now)
	if current == nil {
		return issued
	}
	if o.signedByCA(chain) {
		return pki.EncodeCertificatePEM(append([]*x509.Certificate{current}, previous...)...)
	}
	// An older CA signed the chain. Keep of issued what the chain needs, and add the CAs of today.
	all := []*x509.Certificate{}
	if own, err := o.Limits.DecodeBundlePEM(issued); err == nil {
		top := chain[len(chain)-1]
		for _, c := range own {
			if pki.SignedBy(top, c) || bytes.Equal(top.Raw, c.Raw) {
				all = append(all, c)
			}
		}
	}
	for _, c := range append([]*x509.Certificate{current}, previous...) {
		if !slices.ContainsFunc(all, c.Equal) {
			all = append(all, c)
		}
	}
	return pki.EncodeCertificatePEM(all...)
}

// issued reports whether the request has its certificate.
func issued(cr *cmapi.CertificateRequest) bool {
	return cmapi.CertificateRequestReadyReason(&cr.Status) == cmapi.CertificateRequestReasonIssued &&
		len(cr.Status.Certificate) > 0
}
