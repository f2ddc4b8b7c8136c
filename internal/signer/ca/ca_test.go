package ca

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/secrets"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// cluster is a client of a cluster with only this Secret.
type cluster struct {
	secret *corev1.Secret
	err    error // of each read
}

func (c cluster) Get(_ context.Context, _ client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	if c.err != nil {
		return c.err
	}
	if c.secret == nil {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, "ca")
	}
	c.secret.DeepCopyInto(o.(*corev1.Secret))
	return nil
}

func (cluster) List(context.Context, client.ObjectList, ...client.ListOption) error { return nil }

// authority is a CA as a test makes it.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newKey(t *testing.T, spec pki.KeySpec) crypto.Signer {
	t.Helper()
	key, err := spec.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

var serial = big.NewInt(1)

// newCA makes a CA below parent, or a root.
func newCA(t *testing.T, name string, parent *authority, key crypto.Signer, change func(*x509.Certificate)) *authority {
	t.Helper()
	serial = new(big.Int).Add(serial, big.NewInt(1))
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(1000 * time.Hour),
		IsCA:     true, BasicConstraintsValid: true, MaxPathLen: -1, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if name == "" {
		template.Subject = pkix.Name{}
	}
	if change != nil {
		change(template)
	}
	if parent == nil {
		parent = &authority{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.cert, key.Public(), parent.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

func secretOf(t *testing.T, key crypto.Signer, chain []*x509.Certificate, cas ...*x509.Certificate) *corev1.Secret {
	t.Helper()
	keyPEM, err := pki.EncodeKeyPEM(key, pki.PKCS1)
	if err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "ca", UID: "ca", ResourceVersion: "1"},
		Data:       map[string][]byte{"tls.key": keyPEM, "tls.crt": pki.EncodeCertificatePEM(chain...)},
	}
	if len(cas) > 0 {
		secret.Data["ca.crt"] = pki.EncodeCertificatePEM(cas...)
	}
	return secret
}

func signerOf(secret *corev1.Secret) (*Signer, *signer.Issuer) {
	in := cluster{secret: secret}
	issuer := &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "ca", UID: types.UID("ca")}}
	issuer.Spec.CA = &cmapi.CAIssuer{SecretName: "ca"}
	return &Signer{Secrets: &secrets.Store{OursCache: in, OthersCache: in, Live: in}, Clock: clock.RealClock{}},
		&signer.Issuer{GenericIssuer: issuer, Kind: signer.KindIssuer, SecretNamespace: "ns"}
}

func requestFor(t *testing.T, r pki.Request, key crypto.Signer) signer.Request {
	t.Helper()
	der, err := r.CSR(rand.Reader, key)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.DecodeCSRPEM(pki.EncodeCSRPEM(der))
	if err != nil {
		t.Fatal(err)
	}
	return signer.Request{CSR: csr, IsCA: r.IsCA, Usages: r.Usages, Duration: 24 * time.Hour}
}

// verify asks OpenSSL whether it accepts the first certificate of a chain.
func verify(t *testing.T, chain, cas []byte, purpose string) error {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string][]byte{"chain.pem": chain, "ca.pem": cas} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"verify", "-no-CApath", "-no-CAstore", "-CAfile", dir + "/ca.pem", "-untrusted", dir + "/chain.pem"}
	if purpose != "" {
		args = append(args, "-purpose", purpose)
	}
	out, err := exec.Command("openssl", append(args, dir+"/chain.pem")...).CombinedOutput()
	if err != nil {
		t.Logf("openssl: %s", out)
	}
	return err
}

// requests are what the CAs of the test below are asked for.
var requests = map[string]struct {
	pki.Request
	purpose string
}{
	"leaf":  {pki.Request{DNSNames: []string{"www.example.com"}}, ""},
	"named": {pki.Request{CommonName: "www.example.com"}, ""},
	"server": {pki.Request{DNSNames: []string{"www.example.com"}, Usages: []string{"digital signature",
		"server auth"}}, "sslserver"},
	"elsewhere":       {pki.Request{DNSNames: []string{"www.example.org"}, IPAddresses: []string{"192.0.2.1"}}, ""},
	"named elsewhere": {pki.Request{CommonName: "www.example.org"}, ""},
	"sub":             {pki.Request{CommonName: "sub", IsCA: true}, ""},
}

func TestOpenSSLAcceptsWhatIsSignedOrTheIssuerSaysWhyNot(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Fatal("openssl is not installed: what it accepts is what is tested")
	}
	ec, rsaKey, ed := newKey(t, pki.KeySpec{Algorithm: pki.ECDSA}), newKey(t, pki.KeySpec{}),
		newKey(t, pki.KeySpec{Algorithm: pki.Ed25519})
	ec2 := newKey(t, pki.KeySpec{Algorithm: pki.ECDSA, Size: 384})
	weak, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // that it is too short is what is tested
	if err != nil {
		t.Fatal(err)
	}
	root := newCA(t, "root", nil, ec, nil)
	alone := func(c *authority, cas ...*x509.Certificate) *corev1.Secret {
		return secretOf(t, c.key, []*x509.Certificate{c.cert}, cas...)
	}
	pathLen := func(n int) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = n, n == 0 }
	}
	below := func(parent *authority, change func(*x509.Certificate)) *authority {
		return newCA(t, "intermediate", parent, ec2, change)
	}
	usages := func(u ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = u }
	}
	within := func(domain string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{domain}, true
			c.ExcludedIPRanges = []*net.IPNet{{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}}
		}
	}
	zero := newCA(t, "zero", nil, ec, pathLen(0))
	swapped := alone(newCA(t, "ecparams", nil, ec, pathLen(0)))
	swapped.Data["tls.key"] = append(
		[]byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"), swapped.Data["tls.key"]...)
	inter := below(root, nil)
	expiring := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }
	early := func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }

	for name, test := range map[string]struct {
		secret *corev1.Secret
		ready  string            // what the issuer says; "" if it is ready
		no     map[string]string // what the requests say that it may not sign
		lacks  bool              // the issuer says that the CA above is not in the Secret
	}{
		"an ECDSA root":                        {secret: alone(root)},
		"an RSA root":                          {secret: alone(newCA(t, "rsa", nil, rsaKey, nil))},
		"an Ed25519 root":                      {secret: alone(newCA(t, "ed", nil, ed, nil))},
		"a root whose Secret has it in ca.crt": {secret: alone(root, root.cert)},
		"a key of openssl ecparam":             {secret: swapped, no: map[string]string{"sub": "has the path length 0"}},
		"path length 0":                        {secret: alone(zero), no: map[string]string{"sub": "has the path length 0"}},
		"path length 1":                        {secret: alone(newCA(t, "one", nil, ec, pathLen(1)))},
		"a CA below path length 0": {
			secret: alone(below(zero, nil), zero.cert),
			ready:  "has the path length 0, so that no more than 0 CAs may be below it, and there are 1"},
		"a CA below path length 1": {
			secret: alone(below(newCA(t, "one", nil, ec, pathLen(1)), nil), newCA(t, "one", nil, ec, pathLen(1)).cert),
			no:     map[string]string{"sub": "has the path length 1"}},
		"an intermediate with its root": {secret: alone(inter, root.cert)},
		"an intermediate and its root in tls.crt": {
			secret: secretOf(t, inter.key, []*x509.Certificate{inter.cert, root.cert})},
		"an intermediate without its root": {secret: alone(inter), lacks: true},
		"an intermediate with another root": {
			secret: alone(inter, newCA(t, "other", nil, ec, nil).cert), ready: "the chain is not complete"},
		"two intermediates, the root in ca.crt": {
			secret: secretOf(t, rsaKey, []*x509.Certificate{newCA(t, "lower", inter, rsaKey, nil).cert, inter.cert}, root.cert)},
		"the root first": {
			secret: secretOf(t, inter.key, []*x509.Certificate{root.cert, inter.cert}),
			ready:  "is number 2: put that one first"},
		"expired":                      {secret: alone(newCA(t, "old", nil, ec, expiring)), ready: "expired at"},
		"an intermediate that expired": {secret: alone(below(root, expiring), root.cert), ready: "expired at"},
		"a root that expired": {
			secret: alone(below(newCA(t, "old", nil, ec, expiring), nil), newCA(t, "old", nil, ec, expiring).cert),
			ready:  "expired at"},
		"not valid yet":                         {secret: alone(newCA(t, "early", nil, ec, early)), ready: notValid},
		"an intermediate that is not valid yet": {secret: alone(below(root, early), root.cert), ready: notValid},
		"no subject":                            {secret: alone(newCA(t, "", nil, ec, nil)), ready: "it has no subject"},
		"no CA": {
			secret: alone(newCA(t, "leaf", nil, ec, func(c *x509.Certificate) { c.IsCA, c.MaxPathLen = false, 0 })),
			ready:  "not a CA"},
		"may not sign certificates": {
			secret: alone(newCA(t, "usage", nil, ec, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })),
			ready:  "lacks cert sign"},
		"RSA of 1024 bits":  {secret: alone(newCA(t, "weak", nil, weak, nil)), ready: "1024 bits is too short"},
		"for servers alone": {secret: alone(newCA(t, "server", nil, ec, usages(x509.ExtKeyUsageServerAuth)))},
		"for clients alone": {
			secret: alone(newCA(t, "client", nil, ec, usages(x509.ExtKeyUsageClientAuth))),
			no:     map[string]string{"server": `is not for the usage "server auth"`}},
		"for clients below a CA for servers": {
			secret: alone(below(newCA(t, "server", nil, ec, usages(x509.ExtKeyUsageServerAuth)),
				usages(x509.ExtKeyUsageClientAuth)), newCA(t, "server", nil, ec, usages(x509.ExtKeyUsageServerAuth)).cert),
			ready: "none in common",
		},
		"for example.com": {secret: alone(newCA(t, "com", nil, ec, within("example.com"))), no: map[string]string{
			"elsewhere": "forbid a name", "named elsewhere": "www.example.org",
		}},
		"below a CA for example.com": {
			secret: alone(below(newCA(t, "com", nil, ec, within("example.com")), nil),
				newCA(t, "com", nil, ec, within("example.com")).cert), no: map[string]string{
				"elsewhere": "forbid a name", "named elsewhere": "www.example.org",
			}},
		"for an organization": {
			secret: alone(newCA(t, "organization", nil, ec,
				func(c *x509.Certificate) { c.ExtraExtensions = organizationOnly(t) })), no: map[string]string{
				"named": "forbid the subject", "named elsewhere": "forbid the subject", "sub": "forbid the subject",
			}},
		"the name of a certificate": {secret: alone(newCA(t, "www.example.com", nil, ec, nil))},
	} {
		t.Run(name, func(t *testing.T) {
			s, issuer := signerOf(test.secret)
			ready, err := s.Check(t.Context(), issuer)
			if test.ready != "" {
				checkNotReady(t, s, issuer, err, test.ready)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if says := strings.Contains(ready.Message, "is not in the Secret"); says != test.lacks {
				t.Errorf("the issuer says %q", ready.Message)
			}
			judged := signer.WithVerification(signer.ByType{signer.TypeCA: s}, s.Limits, s.Clock)[signer.TypeCA]
			for name := range requests {
				checkSigned(t, judged, issuer, name, test.no[name], !test.lacks)
			}
		})
	}
}

const notValid = "is not valid before"

// checkNotReady expects of an issuer that it says why it cannot sign, and does not sign.
func checkNotReady(t *testing.T, s *Signer, issuer *signer.Issuer, err error, why string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), why) {
		t.Fatalf("the issuer is to say %q, and says %v", why, err)
	}
	if why == notValid && fault.Of(err).Until.IsZero() {
		t.Error("it is not checked again when it becomes valid")
	}
	key := newKey(t, pki.KeySpec{Algorithm: pki.ECDSA})
	if _, err := s.Sign(t.Context(), issuer, requestFor(t, requests["leaf"].Request, key)); err == nil {
		t.Error("it signs all the same")
	}
}

// checkSigned has a request signed, and expects that OpenSSL accepts the certificate, or that the
// issuer refuses the request and says why.
func checkSigned(t *testing.T, s signer.Signer, issuer *signer.Issuer, name, refused string, complete bool) {
	t.Helper()
	r, key := requests[name], newKey(t, pki.KeySpec{Algorithm: pki.ECDSA})
	answer, err := s.Sign(t.Context(), issuer, requestFor(t, r.Request, key))
	if refused != "" {
		if err == nil || !strings.Contains(err.Error(), refused) || fault.Of(err).Class != fault.Refused {
			t.Errorf("%s: the request is to say %q, and says %v", name, refused, err)
		}
		return
	}
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	if !complete {
		return
	}
	chain := answer.Certificate
	if r.IsCA { // whether it is good shows in what it signs
		certs, err := pki.DecodeChainPEM(chain)
		if err != nil {
			t.Fatal(err)
		}
		leaf := newCA(t, "x", &authority{certs[0], key}, key, func(c *x509.Certificate) {
			c.IsCA, c.MaxPathLen, c.KeyUsage = false, 0, 0
		})
		chain = append(pki.EncodeCertificatePEM(leaf.cert), chain...)
	}
	if err := verify(t, chain, answer.CA, r.purpose); err != nil {
		t.Errorf("%s: OpenSSL refuses it: %v", name, err)
	}
}

// organizationOnly are name constraints that permit no subjects but of one organization.
func organizationOnly(t *testing.T) []pkix.Extension {
	t.Helper()
	name, err := asn1.Marshal(pkix.Name{Organization: []string{"Example"}}.ToRDNSequence())
	if err != nil {
		t.Fatal(err)
	}
	base, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: name})
	if err != nil {
		t.Fatal(err)
	}
	value, err := asn1.Marshal(struct {
		Permitted []asn1.RawValue `asn1:"tag:0"`
	}{[]asn1.RawValue{{Tag: asn1.TagSequence, IsCompound: true, Bytes: base}}})
	if err != nil {
		t.Fatal(err)
	}
	return []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 30}, Critical: true, Value: value}}
}

func TestTheIssuerSaysWhatTheSecretLooksLike(t *testing.T) {
	root := newCA(t, "root", nil, newKey(t, pki.KeySpec{Algorithm: pki.ECDSA}), nil)
	good := secretOf(t, root.key, []*x509.Certificate{root.cert})
	certificate := string(good.Data["tls.crt"])
	for name, test := range map[string]struct{ entry, data, says string }{
		"base64 twice": {
			"tls.crt", base64.StdEncoding.EncodeToString([]byte(certificate)),
			"entry tls.crt: decode certificate chain: no PEM block found: it is PEM in base64, so that it was encoded twice"},
		"a key in base64 twice": {
			"tls.key", base64.StdEncoding.EncodeToString(good.Data["tls.key"]),
			"entry tls.key: decode private key: no PEM block found: it is PEM in base64"},
		"DER":               {"tls.crt", string(root.cert.Raw), "openssl x509 -inform DER"},
		"a byte order mark": {"tls.crt", "\xef\xbb\xbf" + certificate, "PEM block 1 (line 1)"},
		"a spoiled ca.crt": {
			"ca.crt", certificate + strings.ReplaceAll(certificate, "M", "!"),
			"entry ca.crt: decode certificate bundle: PEM block 2"},
		"what is cut off":        {"tls.crt", certificate[:len(certificate)-20], "cut off"},
		"an entry that is empty": {"tls.crt", "", "it has no entry tls.crt"},
		"certificate and key": {
			"tls.crt", string(good.Data["tls.key"]) + certificate,
			`PEM block 1 (line 1): it is a "EC PRIVATE KEY", not a certificate`},
	} {
		t.Run(name, func(t *testing.T) {
			secret := good.DeepCopy()
			secret.Data[test.entry] = []byte(test.data)
			s, issuer := signerOf(secret)
			if _, err := s.Check(t.Context(), issuer); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("the issuer says %v", err)
			}
		})
	}
}

// TestARequestNamesNoSecretOfAClusterIssuer checks that users of one namespace do not read of the
// Secrets of another one, and that the issuer itself names its Secret.
func TestARequestNamesNoSecretOfAClusterIssuer(t *testing.T) {
	key := newKey(t, pki.KeySpec{Algorithm: pki.ECDSA})
	soon := newCA(t, "soon", nil, key, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(time.Hour) })
	broken := secretOf(t, key, []*x509.Certificate{soon.cert})
	broken.Data = map[string][]byte{"tls.crt": []byte("x")}
	old := newCA(t, "old", nil, key, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })
	resource := schema.GroupResource{Resource: "secrets"}
	for name, in := range map[string]cluster{
		"missing": {},
		"broken":  {secret: broken},
		"expired": {secret: secretOf(t, key, []*x509.Certificate{old.cert})},
		"capped":  {secret: secretOf(t, key, []*x509.Certificate{soon.cert})},
		"forbidden": {err: apierrors.NewForbidden(resource, "signing-pair", errors.New(
			`User "controller" cannot get resource "secrets"`))},
		"too slow": {err: apierrors.NewGenericServerResponse(504, "get", resource, "signing-pair", "", 0, true)},
		"no answer": {err: &url.Error{Op: "Get", URL: "https://api/api/v1/namespaces/elsewhere/secrets/signing-pair",
			Err: context.DeadlineExceeded}},
	} {
		t.Run(name, func(t *testing.T) {
			s, issuer := signerOf(nil)
			s.Secrets = &secrets.Store{OursCache: in, OthersCache: in, Live: in}
			cluster := &cmapi.ClusterIssuer{ObjectMeta: metav1.ObjectMeta{Name: "shared"}}
			cluster.Spec.CA = &cmapi.CAIssuer{SecretName: "signing-pair"}
			issuer.GenericIssuer, issuer.Kind, issuer.SecretNamespace = cluster, signer.KindClusterIssuer, "elsewhere"
			answer, err := s.Sign(t.Context(), issuer, requestFor(t, requests["leaf"].Request, key))
			says := answer.Warning
			if err != nil {
				says = err.Error()
			}
			if !strings.Contains(says, `the Secret of ClusterIssuer "shared"`) {
				t.Errorf("the request says %q", says)
			}
			if strings.Contains(says, "elsewhere") || strings.Contains(says, "signing-pair") {
				t.Errorf("the request names the Secret: %q", says)
			}
			if in.err != nil {
				return // the condition of the issuer has the words of the API server
			}
			if _, err := s.Check(
				t.Context(),
				issuer,
			); err != nil &&
				!strings.Contains(err.Error(), "Secret elsewhere/signing-pair") {
				t.Errorf("the issuer says %v", err)
			}
		})
	}
}
