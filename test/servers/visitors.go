package servers

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/pebble"
)

// Visit requests the page of the site with a name at an address, by HTTP/1.1 or HTTP/2.0, from the
// client address from, on a new connection. It returns the page and the certificate, which it does
// not verify.
func Visit(ctx context.Context, name, address, from, protocol string) (page string, leaf *x509.Certificate, err error) {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(protocol == "HTTP/1.1")
	protocols.SetHTTP2(protocol == "HTTP/2.0")
	transport := &http.Transport{
		Protocols: protocols, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext(ctx, network, address)
		},
	}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+name+"/", nil)
	if err != nil {
		return "", nil, err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return "", nil, err
	}
	defer response.Body.Close()
	if response.Proto != protocol {
		return "", nil, fmt.Errorf("the site speaks %s", response.Proto)
	}
	body, err := io.ReadAll(response.Body)
	return string(body), response.TLS.PeerCertificates[0], err
}

// CA starts a Pebble that resolves the names of example.com to this machine and validates at
// tlsPort. It stops before each validation, so that a test can make requests at that moment. held
// waits for the next validation, and returns a function that lets it continue.
func CA(t testing.TB, tlsPort int) (ca *pebble.Server, held func(t testing.TB) (release func())) {
	t.Helper()
	names, err := dnsserver.Start(dnsserver.Options{Zones: []string{"example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(names.Close)
	wrap, held := hold()
	if ca, err = pebble.Start(pebble.Options{Resolver: names.Addr, TLSPort: tlsPort, Wrap: wrap}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close() })
	return ca, held
}

func hold() (wrap func(http.Handler) http.Handler, held func(t testing.TB) (release func())) {
	next := make(chan chan struct{})
	wrap = func(ca http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			var signed struct{ Payload string } // empty if the challenge is only read
			if strings.HasPrefix(r.URL.Path, "/chalZ/") && json.Unmarshal(body, &signed) == nil && signed.Payload != "" {
				release := make(chan struct{})
				select {
				case next <- release:
				case <-r.Context().Done():
					return
				}
				select {
				case <-release:
				case <-r.Context().Done():
					return
				}
			}
			ca.ServeHTTP(w, r)
		})
	}
	return wrap, func(t testing.TB) func() {
		t.Helper()
		select {
		case release := <-next:
			return func() { close(release) }
		case <-time.After(time.Minute):
			t.Fatal("the CA is not asked to validate anything")
			return nil
		}
	}
}
