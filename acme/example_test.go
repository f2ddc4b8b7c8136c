package acme_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"time"

	"github.com/perennial-pki/perennial/acme"
)

// server answers as a CA would, with one directory.
func server() *httptest.Server {
	var s *httptest.Server
	s = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Replay-Nonce", "bm9uY2U")
		switch r.URL.Path {
		case "/directory":
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(
				w,
				`{"newNonce": "%[1]s/nonce", "newAccount": "%[1]s/account", "newOrder": "%[1]s/order", "meta": {"profiles": {"shortlived": "six days"}}}`,
				s.URL,
			)
		case "/account":
			w.Header().Set("Location", s.URL+"/account/1")
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusCreated)
			fmt.Fprint(w, `{"status": "valid"}`)
		case "/order":
			w.Header().Set("Content-Type", "application/problem+json")
			w.Header().Set("Retry-After", "60")
			w.WriteHeader(http.StatusTooManyRequests)
			fmt.Fprint(w, `{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many new orders"}`)
		}
	}))
	return s
}

// A client belongs to the directory of a CA. Accounts are arguments.
func Example() {
	ca := server()
	defer ca.Close()
	client := &acme.Client{Directory: ca.URL + "/directory", HTTP: ca.Client(), UserAgent: "example/1.0"}
	ctx := exampleContext()

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		fmt.Println(err)
		return
	}
	account, err := client.NewAccount(ctx, acme.AccountRequest{Key: key, TermsOfServiceAgreed: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("the account is", account.Status)

	_, err = client.NewOrder(
		ctx,
		account,
		acme.OrderRequest{Identifiers: []acme.Identifier{acme.DNS("www.example.com")}, Profile: "shortlived"},
	)
	fmt.Println("limited:", acme.IsProblem(err, acme.ProblemRateLimited))
	// Output:
	// the account is valid
	// limited: true
}

// What proves control of a name follows from the token of a challenge and the account's key.
func ExampleKeyAuthorization() {
	const token = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
	block, _ := pem.Decode([]byte(`-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt
6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==
-----END PUBLIC KEY-----`))
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		fmt.Println(err)
		return
	}
	proof, err := acme.KeyAuthorization(token, key)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(acme.HTTP01Path(token))
	fmt.Println(acme.DNS01Name("*.example.com"), "TXT", len(acme.DNS01Value(proof)), "characters")
	// Output:
	// /.well-known/acme-challenge/evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA
	// _acme-challenge.example.com TXT 43 characters
}

// A server answers a tls-alpn-01 challenge by a certificate of its own for the protocol acme-tls/1.
func ExampleTLSALPN01Certificate() {
	id := acme.IP(netip.MustParseAddr("192.0.2.1"))
	certificate, err := acme.TLSALPN01Certificate(id, "token.thumbprint", exampleTime())
	if err != nil {
		fmt.Println(err)
		return
	}
	config := &tls.Config{Certificates: []tls.Certificate{*certificate}, NextProtos: []string{acme.TLSALPN01Protocol}}
	name, err := acme.TLSALPN01ServerName(id)
	fmt.Println(config.NextProtos[0], name, err)
	// Output:
	// acme-tls/1 1.2.0.192.in-addr.arpa <nil>
}

func exampleContext() context.Context { return context.Background() }
func exampleTime() time.Time          { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }
