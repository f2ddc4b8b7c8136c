package pki

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"time"
)

func DecodeCertificatePEM(data []byte) (*x509.Certificate, error)            { panic("") }
func DecodeChainPEM(data []byte) ([]*x509.Certificate, error)                { panic("") }
func DecodeBundlePEM(data []byte) ([]*x509.Certificate, error)               { panic("") }
func EncodeCertificatePEM(certs ...*x509.Certificate) []byte                 { panic("") }
func DecodeCSRPEM(data []byte) (*x509.CertificateRequest, error)             { panic("") }
func (l Limits) DecodeCertificatePEM(data []byte) (*x509.Certificate, error) { panic("") }
func (l Limits) DecodeChainPEM(data []byte) ([]*x509.Certificate, error)     { panic("") }
func (l Limits) DecodeBundlePEM(data []byte) ([]*x509.Certificate, error)    { panic("") }
func (l Limits) DecodeCSRPEM(data []byte) (*x509.CertificateRequest, error)  { panic("") }
func EncodeCSRPEM(der []byte) []byte                                         { panic("") }
func OrderChain(certs []*x509.Certificate) (chain []*x509.Certificate, root *x509.Certificate, err error) {
	panic("")
}
func Fingerprint(cert *x509.Certificate) string { panic("") }
func SignedBy(leaf, ca *x509.Certificate) bool  { panic("") }

type Subject struct {
	Organizations, Countries, OrganizationalUnits, Localities, Provinces, StreetAddresses, PostalCodes []string
	SerialNumber                                                                                       string
}
type OtherName struct{ OID, UTF8Value string }
type NameConstraints struct {
	Critical                                                                     bool
	PermittedDNSDomains, ExcludedDNSDomains, PermittedIPRanges, ExcludedIPRanges []string
	PermittedEmailAddresses, ExcludedEmailAddresses                              []string
	PermittedURIDomains, ExcludedURIDomains                                      []string
}
type Request struct {
	CommonName                                  string
	Subject                                     Subject
	LiteralSubject                              string
	DNSNames, IPAddresses, URIs, EmailAddresses []string
	OtherNames                                  []OtherName
	IsCA                                        bool
	Usages                                      []string
	EncodeUsages                                bool
	EncodeBasicConstraints                      bool
	NameConstraints                             *NameConstraints
	SignatureAlgorithm                          string
}

func (r Request) CSR(rand io.Reader, key crypto.Signer) (der []byte, err error)      { panic("") }
func RequestFromCSR(csr *x509.CertificateRequest) (Request, error)                   { panic("") }
func (r Request) CSRDifferences(csr *x509.CertificateRequest) []string               { panic("") }
func (r Request) CertificateDifferences(cert *x509.Certificate) []string             { panic("") }
func ParseUsages(words []string) (x509.KeyUsage, []x509.ExtKeyUsage, error)          { panic("") }
func KeyUsages(words []string, isCA bool) (x509.KeyUsage, []x509.ExtKeyUsage, error) { panic("") }
func FormatUsages(ku x509.KeyUsage, eku []x509.ExtKeyUsage) []string                 { panic("") }
func UsagesOfCSR(csr *x509.CertificateRequest) (ku x509.KeyUsage, eku []x509.ExtKeyUsage, present bool, err error) {
	panic("")
}
func CheckCSR(csr *x509.CertificateRequest, isCA bool, usages []string) error { panic("") }

type Template struct {
	NotBefore, NotAfter                                        time.Time
	IsCA                                                       bool
	Usages                                                     []string
	CRLDistributionPoints, OCSPServers, IssuingCertificateURLs []string
}

func (t Template) Certificate(csr *x509.CertificateRequest) (*x509.Certificate, error) { panic("") }
func Sign(rand io.Reader, tmpl, parent *x509.Certificate, pub crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, error) {
	panic("")
}
func SelfSign(rand io.Reader, tmpl *x509.Certificate, key crypto.Signer) (*x509.Certificate, error) {
	panic("")
}
func TemporaryCertificate(rand io.Reader, r Request, key crypto.Signer, notBefore, notAfter time.Time) (*x509.Certificate, error) {
	panic("")
}

type JKSOptions struct{ Password, Alias string }

func EncodeJKS(o JKSOptions, key crypto.Signer, chain, cas []*x509.Certificate) ([]byte, error) {
	panic("")
}
func EncodeJKSTruststore(o JKSOptions, cas []*x509.Certificate) ([]byte, error)   { panic("") }
func CheckJKS(data []byte, o JKSOptions, leaf *x509.Certificate) error            { panic("") }
func CheckJKSTruststore(data []byte, o JKSOptions, cas []*x509.Certificate) error { panic("") }

type PKCS12Profile string

const (
	LegacyRC2  PKCS12Profile = "LegacyRC2"
	LegacyDES  PKCS12Profile = "LegacyDES"
	Modern2023 PKCS12Profile = "Modern2023"
	Modern2026 PKCS12Profile = "Modern2026"
)

func EncodePKCS12(profile PKCS12Profile, password string, key crypto.Signer, chain, cas []*x509.Certificate) ([]byte, error) {
	panic("")
}
func EncodePKCS12Truststore(profile PKCS12Profile, password string, cas []*x509.Certificate) ([]byte, error) {
	panic("")
}
func CheckPKCS12(data []byte, password string, leaf *x509.Certificate) error            { panic("") }
func CheckPKCS12Truststore(data []byte, password string, cas []*x509.Certificate) error { panic("") }
func PKCS12ProfileOf(data []byte) (PKCS12Profile, error)                                { panic("") }

func ParseLiteralSubject(s string) (pkix.RDNSequence, error) { panic("") }
