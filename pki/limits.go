package pki

// Default limits, in bytes, on the input of the decoders of this package. They are cert-manager's:
// a certificate with some 250 long names and a 16 kbit RSA key fits, and so does a trust bundle of
// 150 usual certificates.
const (
	MaxCertificateSize = 36500
	MaxPrivateKeySize  = 13000
	MaxChainSize       = 95000
	MaxBundleSize      = 330000
)

// Limits bounds the input of the decoders, in bytes of PEM. The decoders check the limits before
// they parse, so that hostile input costs only a check of its length.
//
// A field that is zero or negative means its default. The zero value is ready to use.
type Limits struct {
	Certificate int // one certificate, and one CSR
	PrivateKey  int
	Chain       int // a leaf and its intermediates
	Bundle      int // a set of trusted certificates
}

// SecretLimits are for programs that read Secrets and do not know the limits of the controller that
// wrote them. A Secret cannot hold more.
var SecretLimits = Limits{Certificate: 1 << 20, PrivateKey: 1 << 20, Chain: 1 << 20, Bundle: 1 << 20}

func (l Limits) certificate() int { return limitOr(l.Certificate, MaxCertificateSize) }
func (l Limits) privateKey() int  { return limitOr(l.PrivateKey, MaxPrivateKeySize) }
func (l Limits) chain() int       { return limitOr(l.Chain, MaxChainSize) }
func (l Limits) bundle() int      { return limitOr(l.Bundle, MaxBundleSize) }

func limitOr(n, def int) int {
	if n <= 0 {
		return def
	}
	return n
}
