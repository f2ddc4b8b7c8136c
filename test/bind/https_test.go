package bind_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/test/bind"
	"github.com/perennial-pki/perennial/test/cluster"
)

// pair writes a certificate for 127.0.0.1 that is its own CA, and its key, and returns the files.
func pair(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(
			1,
		),
		Subject:     pkix.Name{CommonName: "DNS over HTTPS"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotAfter: time.Now().
			Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	leaf, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certificate, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for file, block := range map[string]*pem.Block{
		certificate: {Type: "CERTIFICATE", Bytes: leaf}, key: {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate, key
}

func TestACertificateIsIssuedWhereAllNamesAreFoundOverHTTPS(t *testing.T) {
	primary := bind.Start(t, keys, zone(1)) // whose address in the zone leads nowhere
	certificate, key := pair(t)
	resolver := bind.StartResolver(
		t,
		bind.Resolver{Zones: map[string]*bind.Server{"example.com": primary}, Certificate: certificate, Key: key},
	)
	for name, test := range map[string]struct {
		host        string // different for each case, because the resolver caches answers
		flags       []string
		nameservers []string
	}{
		"that the flag names":   {host: "flag.example.com", flags: []string{"--dns01-recursive-nameservers=" + resolver.URL, "--dns01-recursive-nameservers-only"}},
		"that the solver names": {host: "solver.example.com", nameservers: []string{resolver.URL}},
	} {
		t.Run(name, func(t *testing.T) {
			r := withCA(t, resolver, primary)
			cluster.Process(t, []string{"SSL_CERT_FILE=" + certificate}, append(test.flags, "--namespace="+r.namespace)...)
			r.issuer(
				"bind",
				cmacme.ACMEChallengeSolver{
					DNS01: &cmacme.ACMEChallengeSolverDNS01{RFC2136: r.updates("HMACSHA256"), Nameservers: test.nameservers},
				},
			)
			r.ready(r.certificate("bind", "site", test.host))
			r.has("_acme-challenge." + test.host)
		})
	}
}

func TestTheChallengeReportsAFaultOfAServerOverHTTPS(t *testing.T) {
	const media = "application/dns-message"
	primary := bind.Start(t, keys, zone(1))
	trusted, trustedKey := pair(t)
	other, otherKey := pair(t)
	// broken is a server whose answers, which are those of the primary, are changed on their way.
	broken := func(change func(w http.ResponseWriter, answer []byte)) string {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			q := new(dns.Msg)
			if err != nil || q.Unpack(body) != nil {
				http.Error(w, "no question", http.StatusBadRequest)
				return
			}
			m, err := dns.Exchange(q, primary.Addr)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			answer, err := m.Pack()
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			w.Header().Set("Content-Type", media)
			change(w, answer)
		}))
		own, err := tls.LoadX509KeyPair(trusted, trustedKey)
		if err != nil {
			t.Fatal(err)
		}
		server.TLS = &tls.Config{Certificates: []tls.Certificate{own}}
		server.StartTLS()
		t.Cleanup(server.Close)
		return server.URL + "/dns-query"
	}
	write := func(w http.ResponseWriter, b []byte) { _, _ = w.Write(b) }
	r := withCA(t, primary, primary)
	cluster.Process(t, []string{"SSL_CERT_FILE=" + trusted}, "--namespace="+r.namespace)
	for name, test := range map[string]struct {
		server string
		says   []string
	}{
		"untrusted": {bind.StartResolver(
			t,
			bind.Resolver{Zones: map[string]*bind.Server{"example.com": primary}, Certificate: other, Key: otherKey},
		).URL,
			[]string{"tls: failed to verify certificate: x509: certificate signed by unknown authority", "SSL_CERT_FILE in " +
				"the controller's environment names a file of CAs to trust"}},
		"busy":      {broken(func(w http.ResponseWriter, _ []byte) { w.WriteHeader(http.StatusServiceUnavailable) }), []string{"status 503"}},
		"torn":      {broken(func(w http.ResponseWriter, b []byte) { write(w, b[:len(b)/2]) }), []string{"the answer cannot be read: "}},
		"cut-off":   {broken(func(w http.ResponseWriter, b []byte) { b[2] |= 0x02; write(w, b) }), []string{"the answer is cut off"}}, // the bit TC
		"oversized": {broken(func(w http.ResponseWriter, b []byte) { write(w, append(b, make([]byte, 1<<20)...)) }), []string{"the answer is too long"}},
		"moved": {broken(func(w http.ResponseWriter, _ []byte) {
			w.Header().Set("Location", "/")
			w.WriteHeader(http.StatusFound)
		}), []string{"status 302: it redirects, and redirects are not followed: name the URL that answers"}},
		"no-dns": {broken(func(w http.ResponseWriter, b []byte) { w.Header().Set("Content-Type", "text/html"); write(w, b) }),
			[]string{"it does not answer with application/dns-message: is that the URL of a DNS server?"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := r.in(t)
			r.issuer(
				name,
				cmacme.ACMEChallengeSolver{
					DNS01: &cmacme.ACMEChallengeSolverDNS01{RFC2136: r.updates("HMACSHA256"), Nameservers: []string{test.server}},
				},
			)
			r.certificate(name, name, name+".example.com")
			r.says(name+".example.com", append(test.says, test.server)...)
		})
	}
	t.Run("misnamed", func(t *testing.T) {
		r := r.in(t)
		const server = "https://dns.example.com/dns-query{?dns}"
		r.issuer(
			"misnamed",
			cmacme.ACMEChallengeSolver{
				DNS01: &cmacme.ACMEChallengeSolverDNS01{RFC2136: r.updates("HMACSHA256"), Nameservers: []string{server}},
			},
		)
		// That needs no server to be found: the issuer tells it, before there is a challenge.
		cluster.Eventually(t, func() error {
			issuer := &cmapi.Issuer{}
			if err := r.admin.Get(t.Context(), client.ObjectKey{Namespace: r.namespace, Name: "misnamed"}, issuer); err != nil {
				return err
			}
			for _, kind := range []cmapi.IssuerConditionType{cmapi.IssuerConditionSolversValid, cmapi.IssuerConditionReady} {
				c := cmapi.GetIssuerCondition(&issuer.Status, kind)
				if c == nil || c.Status != cmmeta.ConditionFalse || !strings.Contains(c.Message,
					`dns01.nameservers: the DNS server "`+server+`" must be host:port, or a URL such as https://`) {
					return cluster.NotYet("%s: %+v", kind, issuer.Status.Conditions)
				}
			}
			return nil
		})
	})
}
