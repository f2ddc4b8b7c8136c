package pki_test

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"sync"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmpki "github.com/cert-manager/cert-manager/pkg/util/pki"

	"github.com/perennial-pki/perennial/pki"
)

var keys = sync.OnceValue(func() map[string]crypto.Signer {
	made := make(map[string]crypto.Signer)
	for name, spec := range keySpecs {
		key, err := spec.Generate(rand.Reader)
		if err != nil {
			panic(err)
		}
		made[name] = key
	}
	return made
})

var keySpecs = map[string]pki.KeySpec{
	"RSA":     {Algorithm: pki.RSA, Size: 2048},
	"RSA3072": {Algorithm: pki.RSA, Size: 3072},
	"P256":    {Algorithm: pki.ECDSA, Size: 256},
	"P384":    {Algorithm: pki.ECDSA, Size: 384},
	"P521":    {Algorithm: pki.ECDSA, Size: 521},
	"Ed25519": {Algorithm: pki.Ed25519},
}

// request returns the request that the lifecycle controller creates for a Certificate.
func request(spec cmapi.CertificateSpec) pki.Request {
	r := pki.Request{
		CommonName:             spec.CommonName,
		LiteralSubject:         spec.LiteralSubject,
		DNSNames:               spec.DNSNames,
		IPAddresses:            spec.IPAddresses,
		URIs:                   spec.URIs,
		EmailAddresses:         spec.EmailAddresses,
		IsCA:                   spec.IsCA,
		EncodeUsages:           spec.EncodeUsagesInRequest == nil || *spec.EncodeUsagesInRequest,
		EncodeBasicConstraints: true,
		SignatureAlgorithm:     string(spec.SignatureAlgorithm),
	}
	if s := spec.Subject; s != nil {
		r.Subject = pki.Subject{
			Organizations:       s.Organizations,
			Countries:           s.Countries,
			OrganizationalUnits: s.OrganizationalUnits,
			Localities:          s.Localities,
			Provinces:           s.Provinces,
			StreetAddresses:     s.StreetAddresses,
			PostalCodes:         s.PostalCodes,
			SerialNumber:        s.SerialNumber,
		}
	}
	for _, usage := range spec.Usages {
		r.Usages = append(r.Usages, string(usage))
	}
	for _, other := range spec.OtherNames {
		r.OtherNames = append(r.OtherNames, pki.OtherName{OID: other.OID, UTF8Value: other.UTF8Value})
	}
	if c := spec.NameConstraints; c != nil {
		r.NameConstraints = &pki.NameConstraints{Critical: c.Critical}
		if p := c.Permitted; p != nil {
			r.NameConstraints.PermittedDNSDomains, r.NameConstraints.PermittedIPRanges = p.DNSDomains, p.IPRanges
			r.NameConstraints.PermittedEmailAddresses, r.NameConstraints.PermittedURIDomains = p.EmailAddresses, p.URIDomains
		}
		if e := c.Excluded; e != nil {
			r.NameConstraints.ExcludedDNSDomains, r.NameConstraints.ExcludedIPRanges = e.DNSDomains, e.IPRanges
			r.NameConstraints.ExcludedEmailAddresses, r.NameConstraints.ExcludedURIDomains = e.EmailAddresses, e.URIDomains
		}
	}
	return r
}

// theirCSR returns the CSR that cert-manager creates with its feature gates on.
func theirCSR(spec cmapi.CertificateSpec, key crypto.Signer) (*x509.CertificateRequest, error) {
	spec.PrivateKey = &cmapi.CertificatePrivateKey{Algorithm: "RSA", Size: 2048}
	for name, known := range keySpecs {
		if pki.SamePublicKey(keys()[name].Public(), key.Public()) {
			spec.PrivateKey = &cmapi.CertificatePrivateKey{
				Algorithm: cmapi.PrivateKeyAlgorithm(known.Algorithm),
				Size:      known.Size,
			}
		}
	}
	tmpl, err := cmpki.GenerateCSR(&cmapi.Certificate{Spec: spec}, cmpki.WithEncodeBasicConstraintsInRequest(true),
		cmpki.WithNameConstraints(true), cmpki.WithOtherNames(true), cmpki.WithUseLiteralSubject(true))
	if err != nil {
		return nil, err
	}
	der, err := cmpki.EncodeCSR(tmpl, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificateRequest(der)
}

func ourCSR(spec cmapi.CertificateSpec, key crypto.Signer) (*x509.CertificateRequest, error) {
	der, err := request(spec).CSR(rand.Reader, key)
	if err != nil {
		return nil, err
	}
	return pki.DecodeCSRPEM(pki.EncodeCSRPEM(der))
}

// full has all fields, in an order that is not sorted.
func full() cmapi.CertificateSpec {
	return cmapi.CertificateSpec{
		CommonName: "full",
		Subject: &cmapi.X509Subject{
			Organizations: []string{
				"z",
				"a",
			},
			Countries:           []string{"CH", "AT"},
			OrganizationalUnits: []string{"ou"},
			Localities:          []string{"Zürich"},
			Provinces: []string{
				"ZH",
			},
			StreetAddresses: []string{"Weg 1, links"},
			PostalCodes:     []string{"8000"},
			SerialNumber:    "1",
		},
		DNSNames:       []string{"z.example.com", "*.a.example.com"},
		IPAddresses:    []string{"2001:db8::1", "192.0.2.1"},
		URIs:           []string{"spiffe://example.com/z", "urn:a"},
		EmailAddresses: []string{"z@example.com", "a@example.com"},
		OtherNames: []cmapi.OtherName{
			{OID: "1.3.6.1.4.1.311.20.2.3", UTF8Value: "upn@example.com"},
			{OID: "1.2.3", UTF8Value: "Größe"},
		},
		IsCA:   true,
		Usages: []cmapi.KeyUsage{"cert sign", "decipher only", "server auth", "client auth", "any"},
		NameConstraints: &cmapi.NameConstraints{
			Critical: true,
			Permitted: &cmapi.NameConstraintItem{
				DNSDomains:     []string{"z.com", "a.com"},
				IPRanges:       []string{"10.1.2.3/8", "2001:db8::/32"},
				EmailAddresses: []string{"a@z.com"},
				URIDomains:     []string{".z.com"},
			},
			Excluded: &cmapi.NameConstraintItem{
				DNSDomains:     []string{"b.com"},
				IPRanges:       []string{"192.0.2.0/24"},
				EmailAddresses: []string{"b.com"},
				URIDomains:     []string{"b.com"},
			},
		},
	}
}

// specs are Certificates that cert-manager accepts.
func specs() map[string]cmapi.CertificateSpec {
	no := false
	changed := func(change func(*cmapi.CertificateSpec)) cmapi.CertificateSpec {
		spec := full()
		change(&spec)
		return spec
	}
	return map[string]cmapi.CertificateSpec{
		"everything":                 full(),
		"a common name":              {CommonName: "a"},
		"a DNS name, and no subject": {DNSNames: []string{"example.com"}},
		"a URI":                      {URIs: []string{"spiffe://example.com/ns/a/sa/b"}},
		"an email address":           {EmailAddresses: []string{"a@example.com"}},
		"an address in IPv4 in IPv6": {IPAddresses: []string{"::ffff:192.0.2.1"}},
		"another name":               {OtherNames: []cmapi.OtherName{{OID: "1.2.3", UTF8Value: "a"}}},
		"a subject without a common name": {
			DNSNames: []string{"a"},
			Subject:  &cmapi.X509Subject{Organizations: []string{"a"}},
		},
		"a literal subject": {
			LiteralSubject: `CN=a\, b+UID=c,OU=d,O=Größe,DC=example,DC=com,2.5.4.42=x,SERIALNUMBER=1,STREET=s,L=l,ST=t,C=CH`,
		},
		"a literal subject and names": {LiteralSubject: "O=a", DNSNames: []string{"b"}},
		"no usages in the request":    changed(func(s *cmapi.CertificateSpec) { s.EncodeUsagesInRequest = &no }),
		"the default usages":          changed(func(s *cmapi.CertificateSpec) { s.Usages = nil }),
		"no CA": changed(
			func(s *cmapi.CertificateSpec) { s.IsCA = false; s.Usages = []cmapi.KeyUsage{"client auth"} },
		),
		"constraints that are not critical": changed(func(s *cmapi.CertificateSpec) { s.NameConstraints.Critical = false }),
		"permitted names only":              changed(func(s *cmapi.CertificateSpec) { s.NameConstraints.Excluded = nil }),
		"excluded names only":               changed(func(s *cmapi.CertificateSpec) { s.NameConstraints.Permitted = nil }),
		"empty constraints": changed(
			func(s *cmapi.CertificateSpec) { s.NameConstraints = &cmapi.NameConstraints{Critical: true} },
		),
		"each usage": changed(func(s *cmapi.CertificateSpec) {
			s.Usages = []cmapi.KeyUsage{
				cmapi.UsageSigning,
				cmapi.UsageDigitalSignature,
				cmapi.UsageContentCommitment,
				cmapi.UsageKeyEncipherment,
				cmapi.UsageKeyAgreement,
				cmapi.UsageDataEncipherment,
				cmapi.UsageCertSign,
				cmapi.UsageCRLSign,
				cmapi.UsageEncipherOnly,
				cmapi.UsageDecipherOnly,
				cmapi.UsageAny,
				cmapi.UsageServerAuth,
				cmapi.UsageClientAuth,
				cmapi.UsageCodeSigning,
				cmapi.UsageEmailProtection,
				cmapi.UsageIPsecEndSystem,
				cmapi.UsageIPsecTunnel,
				cmapi.UsageIPsecUser,
				cmapi.UsageTimestamping,
				cmapi.UsageOCSPSigning,
				cmapi.UsageMicrosoftSGC,
				cmapi.UsageNetscapeSGC,
			}
		}),
		"s/mime": {CommonName: "a", Usages: []cmapi.KeyUsage{cmapi.UsageSMIME}},
	}
}
