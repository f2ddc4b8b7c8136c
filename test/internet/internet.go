// Package internet simulates the internet behind a proxy: sites with their own names and
// certificates from a private root. A process reaches them only through the settings that a user
// would make: HTTPS_PROXY, HTTP_PROXY and SSL_CERT_FILE.
package internet

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/perennial-pki/perennial/test/pebble"
)

// Start starts a proxy that connects only to the given sites, by host. It returns the environment
// of a process that is to use the proxy for all addresses except 127.0.0.1.
func Start(t testing.TB, sites map[string]http.Handler) (env []string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(
			1,
		),
		Subject:               pkix.Name{CommonName: "the internet"},
		DNSNames:              slices.Collect(maps.Keys(sites)),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	site := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if sites[host] == nil {
			http.Error(w, "there is no such site", http.StatusMisdirectedRequest)
			return
		}
		sites[host].ServeHTTP(w, r)
	})}
	listener, err := tls.Listen(
		"tcp",
		"127.0.0.1:0",
		&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
	)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = site.Serve(listener) }()
	t.Cleanup(func() { site.Close() })

	way, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	proxy := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		switch {
		case sites[host] == nil:
			http.Error(w, "there is nothing else", http.StatusForbidden)
		case r.Method == http.MethodConnect:
			tunnel(w, listener.Addr().String())
		default: // http
			sites[host].ServeHTTP(w, r)
		}
	})}
	go func() { _ = proxy.Serve(way) }()
	t.Cleanup(func() { proxy.Close() })

	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	at := "http://" + way.Addr().String()
	return []string{"HTTPS_PROXY=" + at, "HTTP_PROXY=" + at, "NO_PROXY=127.0.0.1", "SSL_CERT_FILE=" + roots}
}

func tunnel(w http.ResponseWriter, address string) {
	to, err := net.Dial("tcp", address)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer to.Close()
	w.WriteHeader(http.StatusOK)
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	go func() { _, _ = io.Copy(to, buffered); to.Close() }()
	_, _ = io.Copy(conn, to)
}

// CA is a site with Pebble, with the directory at /directory as at Let's Encrypt.
func CA(t testing.TB, ca *pebble.Server) http.Handler {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.CABundle)
	behind, err := url.Parse(ca.Directory)
	if err != nil {
		t.Fatal(err)
	}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "https", behind.Host, r.In.Host
			if r.In.URL.Path == "/directory" {
				r.Out.URL.Path = behind.Path
			}
		},
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}},
	}
}
