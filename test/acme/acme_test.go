// Package acme_test drives the client against a real ACME server, and compares it with another
// client of the same protocol.
package acme_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"

	"github.com/perennial-pki/perennial/acme"
	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/pebble"
)

// world is a CA and a site with configurable answers at port 80.
type world struct {
	*testing.T
	ca     *pebble.Server
	client *acme.Client

	mu      sync.Mutex
	answers map[string]string
}

func start(t *testing.T, o pebble.Options) *world {
	t.Helper()
	w := &world{T: t, answers: map[string]string{}}
	names, err := dnsserver.Start(dnsserver.Options{Zones: []string{"example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(names.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	site := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		defer w.mu.Unlock()
		_, _ = io.WriteString(rw, w.answers[r.URL.Path])
	})}
	go func() { _ = site.Serve(listener) }()
	t.Cleanup(func() { site.Close() })
	o.Resolver, o.HTTPPort = names.Addr, listener.Addr().(*net.TCPAddr).Port
	if w.ca, err = pebble.Start(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.ca.Close() })
	w.client = &acme.Client{Directory: w.ca.Directory, HTTP: w.ca.Client(), UserAgent: "perennial-test"}
	return w
}

func p256(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (w *world) account(key crypto.Signer) acme.Account {
	w.Helper()
	a, err := w.client.NewAccount(
		w.Context(),
		acme.AccountRequest{Key: key, Contact: []string{"mailto:ops@example.org"}, TermsOfServiceAgreed: true},
	)
	if err != nil {
		w.Fatal(err)
	}
	return a
}

// issue goes from an order to its certificate, and returns both.
func (w *world) issue(a acme.Account, r acme.OrderRequest) (acme.Order, acme.Certificate, crypto.Signer) {
	w.Helper()
	order, err := w.client.NewOrder(w.Context(), a, r)
	if err != nil {
		w.Fatal(err)
	}
	return w.finish(a, order)
}

func (w *world) finish(a acme.Account, order acme.Order) (acme.Order, acme.Certificate, crypto.Signer) {
	w.Helper()
	for _, url := range order.Authorizations {
		w.prove(a, url)
	}
	key := p256(w.T)
	template := &x509.CertificateRequest{}
	for _, id := range order.Identifiers {
		if id.Type == acme.IdentifierIP {
			template.IPAddresses = append(template.IPAddresses, net.ParseIP(id.Value))
		} else {
			template.DNSNames = append(template.DNSNames, id.Value)
		}
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		w.Fatal(err)
	}
	order = w.until(a, order, acme.StatusReady)
	if order, err = w.client.Finalize(w.Context(), a, order, csr); err != nil {
		w.Fatal(err)
	}
	order = w.until(a, order, acme.StatusValid)
	certificate, err := w.client.Certificate(w.Context(), a, order.Certificate)
	if err != nil {
		w.Fatal(err)
	}
	return order, certificate, key
}

// prove gives the proof that an authorization wants, by HTTP-01.
func (w *world) prove(a acme.Account, url string) {
	w.Helper()
	z, err := w.client.Authorization(w.Context(), a, url)
	if err != nil {
		w.Fatal(err)
	}
	if z.Status == acme.StatusValid {
		return
	}
	i := slices.IndexFunc(z.Challenges, func(c acme.Challenge) bool { return c.Type == acme.ChallengeHTTP01 })
	proof, err := acme.KeyAuthorization(z.Challenges[i].Token, a.Key.Public())
	if err != nil {
		w.Fatal(err)
	}
	w.mu.Lock()
	w.answers[acme.HTTP01Path(z.Challenges[i].Token)] = proof
	w.mu.Unlock()
	if _, err := w.client.AcceptChallenge(w.Context(), a, z.Challenges[i].URL); err != nil {
		w.Fatal(err)
	}
	w.eventually(func() error {
		if z, err = w.client.Authorization(w.Context(), a, url); err != nil || z.Status == acme.StatusValid {
			return err
		}
		return fmt.Errorf("the authorization is %s: %+v", z.Status, z.Challenges)
	})
}

// until reads the order until it has a status.
func (w *world) until(a acme.Account, order acme.Order, status string) acme.Order {
	w.Helper()
	w.eventually(func() error {
		got, err := w.client.Order(w.Context(), a, order.URL)
		if err != nil {
			return err
		}
		if order = got; order.Status != status {
			return fmt.Errorf("the order is %s, not %s", order.Status, status)
		}
		return nil
	})
	return order
}

func (w *world) eventually(f func() error) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			w.Fatal(err)
		case <-ticker.C:
		}
	}
}

func leafOf(t *testing.T, chain []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(chain)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func names(values ...string) acme.OrderRequest {
	var r acme.OrderRequest
	for _, v := range values {
		if addr, err := netip.ParseAddr(v); err == nil {
			r.Identifiers = append(r.Identifiers, acme.IP(addr))
		} else {
			r.Identifiers = append(r.Identifiers, acme.DNS(v))
		}
	}
	return r
}

func TestACertificateByKeysOfEveryAlgorithmThoughHalfOfAllNoncesAreRefused(t *testing.T) {
	w := start(t, pebble.Options{RejectNonces: 50})
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsa2048, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"ES256": p256(t), "ES384": p384, "RS256": rsa2048} {
		t.Run(name, func(t *testing.T) {
			w := &world{T: t, ca: w.ca, client: w.client, answers: w.answers}
			a := w.account(key)
			_, certificate, _ := w.issue(a, names("www.example.com", "example.com", "127.0.0.1"))
			leaf := leafOf(t, certificate.ChainPEM)
			if got := slices.Sorted(
				slices.Values(leaf.DNSNames),
			); !slices.Equal(got, []string{"example.com", "www.example.com"}) ||
				len(leaf.IPAddresses) != 1 {
				t.Errorf("it is for %v, %v", got, leaf.IPAddresses)
			}
		})
	}
}

func TestTheLifeOfAnAccount(t *testing.T) {
	w := start(t, pebble.Options{OrdersPerPage: 2})
	ctx, key := t.Context(), p256(t)
	if _, err := w.client.FindAccount(ctx, key); !acme.IsProblem(err, acme.ProblemAccountDoesNotExist) {
		t.Errorf("before it is there: %v", err)
	}
	a := w.account(key)
	found, err := w.client.FindAccount(ctx, key)
	if err != nil || found.URL != a.URL {
		t.Errorf("found %v, %v", found.URL, err)
	}
	if again := w.account(key); again.URL != a.URL {
		t.Errorf("the same key has another account: %s", again.URL)
	}
	if a, err = w.client.UpdateContact(
		ctx,
		a,
		[]string{"mailto:other@example.org"},
	); err != nil ||
		!slices.Equal(a.Contact, []string{"mailto:other@example.org"}) {
		t.Errorf("the contact is %v, %v", a.Contact, err)
	}

	w.checkOrderList(a)
	// After a key change the new key speaks for the account, and the old one does not.
	next := p256(t)
	w.changeKey(a, key, next)
	a = acme.Account{URL: a.URL, Key: next}

	order, err := w.client.NewOrder(ctx, a, names("gone.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	if z, err := w.client.DeactivateAuthorization(
		ctx,
		a,
		order.Authorizations[0],
	); err != nil ||
		z.Status != acme.StatusDeactivated {
		t.Errorf("the authorization is %q, %v", z.Status, err)
	}
	if off, err := w.client.DeactivateAccount(ctx, a); err != nil || off.Status != acme.StatusDeactivated {
		t.Errorf("the account is %q, %v", off.Status, err)
	}
	if _, err := w.client.NewOrder(ctx, a, names("late.example.com")); !acme.IsProblem(err, acme.ProblemUnauthorized) {
		t.Errorf("a deactivated account gets %v", err)
	}
}

// checkOrderList expects that the CA lists the orders of an account, on several pages.
func (w *world) checkOrderList(a acme.Account) {
	t, ctx := w.T, w.Context()
	made := map[string]bool{}
	for i := range 5 {
		order, err := w.client.NewOrder(ctx, a, names(fmt.Sprintf("n%d.example.com", i)))
		if err != nil {
			t.Fatal(err)
		}
		made[order.URL] = true
	}
	pages := 0
	for page := a.OrdersURL; ; pages++ {
		list, err := w.client.Orders(ctx, a, page)
		if err != nil {
			t.Fatal(err)
		}
		for _, url := range list.Orders {
			delete(made, url)
		}
		if page = list.Next; page == "" {
			break
		}
	}
	if len(made) > 0 || pages < 2 {
		t.Errorf("%d orders are not in the list of %d pages", len(made), pages+1)
	}
}

// changeKey changes the key of an account, and expects that only the new key is accepted.
func (w *world) changeKey(a acme.Account, old, next crypto.Signer) {
	w.Helper()
	changed, err := w.client.ChangeKey(w.Context(), a, next)
	if err != nil || changed.URL != a.URL {
		w.Fatalf("%v, %v", changed.URL, err)
	}
	if found, err := w.client.FindAccount(w.Context(), next); err != nil || found.URL != a.URL {
		w.Errorf("by the new key: %v, %v", found.URL, err)
	}
	if _, err := w.client.GetAccount(w.Context(), acme.Account{URL: a.URL, Key: old}); err == nil {
		w.Error("the old key still speaks for the account")
	}
}

func TestRevocation(t *testing.T) {
	w := start(t, pebble.Options{})
	a := w.account(p256(t))
	_, first, _ := w.issue(a, names("www.example.com"))
	der := leafOf(t, first.ChainPEM).Raw
	if err := w.client.Revoke(t.Context(), a, der, acme.ReasonSuperseded); err != nil {
		t.Fatal(err)
	}
	if err := w.client.Revoke(
		t.Context(),
		a,
		der,
		acme.ReasonSuperseded,
	); !acme.IsProblem(
		err,
		acme.ProblemAlreadyRevoked,
	) {
		t.Errorf("the second time: %v", err)
	}
	_, second, key := w.issue(a, names("www.example.com"))
	if err := w.client.RevokeWithKey(
		t.Context(),
		key,
		leafOf(t, second.ChainPEM).Raw,
		acme.ReasonKeyCompromise,
	); err != nil {
		t.Error(err)
	}
	_, third, _ := w.issue(a, names("www.example.com"))
	if err := w.client.RevokeWithKey(
		t.Context(),
		p256(t),
		leafOf(t, third.ChainPEM).Raw,
		acme.ReasonUnspecified,
	); err == nil {
		t.Error("a key that is not the certificate's has revoked it")
	}
}

func TestAnAuthorizationIsUsedAgain(t *testing.T) {
	w := start(t, pebble.Options{ReuseAuthorizations: 100})
	a := w.account(p256(t))
	w.issue(a, names("www.example.com"))
	order, err := w.client.NewOrder(t.Context(), a, names("www.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	z, err := w.client.Authorization(t.Context(), a, order.Authorizations[0])
	if err != nil || z.Status != acme.StatusValid {
		t.Fatalf("the authorization is %s, %v", z.Status, err)
	}
	w.finish(a, order)
}

// Tests that a name is proven again depend on it. Pebble itself reuses one percent.
func TestACAThatReusesNoAuthorizationsNeverDoes(t *testing.T) {
	w := start(t, pebble.Options{})
	a := w.account(p256(t))
	w.issue(a, names("shop.example.com"))
	for range 500 {
		order, err := w.client.NewOrder(t.Context(), a, names("shop.example.com"))
		if err != nil {
			t.Fatal(err)
		}
		if order.Status != acme.StatusPending {
			t.Fatalf("a new order is %s", order.Status)
		}
	}
}

func TestOtherChains(t *testing.T) {
	w := start(t, pebble.Options{AlternateRoots: 2})
	a := w.account(p256(t))
	_, certificate, _ := w.issue(a, names("www.example.com"))
	if len(certificate.Alternates) != 2 {
		t.Fatalf("there are %v", certificate.Alternates)
	}
	seen := [][]byte{certificate.ChainPEM}
	for _, url := range certificate.Alternates {
		other, err := w.client.Certificate(t.Context(), a, url)
		if err != nil {
			t.Fatal(err)
		}
		if !leafOf(t, other.ChainPEM).Equal(leafOf(t, certificate.ChainPEM)) ||
			slices.ContainsFunc(seen, func(s []byte) bool { return bytes.Equal(s, other.ChainPEM) }) {
			t.Error("it is not another chain of the same leaf")
		}
		seen = append(seen, other.ChainPEM)
	}
}

func TestProfiles(t *testing.T) {
	w := start(t, pebble.Options{Profiles: map[string]ca.Profile{
		"classic": {
			Description:    "90 days",
			ValidityPeriod: 90 * 86400,
		},
		"shortlived": {Description: "6 days", ValidityPeriod: 6 * 86400},
	}})
	dir, err := w.client.FetchDirectory(t.Context())
	if err != nil || dir.Meta.Profiles["shortlived"] != "6 days" {
		t.Errorf("the profiles are %v, %v", dir.Meta.Profiles, err)
	}
	a := w.account(p256(t))
	r := names("www.example.com")
	r.Profile = "shortlived"
	_, certificate, _ := w.issue(a, r)
	if leaf := leafOf(t, certificate.ChainPEM); leaf.NotAfter.Sub(leaf.NotBefore) > 7*24*time.Hour {
		t.Errorf("it is valid from %s to %s", leaf.NotBefore, leaf.NotAfter)
	}
	r.Profile = "nonesuch"
	var p *acme.Problem
	if _, err := w.client.NewOrder(t.Context(), a, r); !errors.As(err, &p) {
		t.Errorf("an unknown profile: %v", err)
	}
}

func TestExternalAccountBinding(t *testing.T) {
	mac := []byte("a key that the CA has given to a customer")
	w := start(
		t,
		pebble.Options{ExternalAccounts: map[string]string{"customer-1": base64.RawURLEncoding.EncodeToString(mac)}},
	)
	register := func(b *acme.ExternalAccountBinding) error {
		_, err := w.client.NewAccount(
			t.Context(),
			acme.AccountRequest{Key: p256(t), TermsOfServiceAgreed: true, ExternalAccountBinding: b},
		)
		return err
	}
	if err := register(nil); !acme.IsProblem(err, acme.ProblemExternalAccountRequired) {
		t.Errorf("without one: %v", err)
	}
	if err := register(
		&acme.ExternalAccountBinding{KeyID: "customer-1", MACKey: []byte("another key, which is as long as that one")},
	); err == nil {
		t.Error("a wrong key is taken")
	}
	if err := register(&acme.ExternalAccountBinding{KeyID: "customer-1", MACKey: mac}); err != nil {
		t.Error(err)
	}
}

func TestRenewalInformation(t *testing.T) {
	w := start(t, pebble.Options{})
	a := w.account(p256(t))
	_, certificate, _ := w.issue(a, names("www.example.com"))
	leaf := leafOf(t, certificate.ChainPEM)
	id, err := acme.CertID(leaf)
	if err != nil {
		t.Fatal(err)
	}
	info, err := w.client.RenewalInfo(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if s := info.SuggestedWindow; !s.Start.Before(s.End) || s.Start.Before(leaf.NotBefore) || s.End.After(leaf.NotAfter) ||
		info.RetryAfter.IsZero() {
		t.Errorf("it says %+v, again at %s", s, info.RetryAfter)
	}
	r := names("www.example.com")
	r.Replaces = id
	order, err := w.client.NewOrder(t.Context(), a, r)
	if err != nil {
		t.Fatal(err)
	}
	w.finish(a, order)
	if _, err := w.client.NewOrder(t.Context(), a, r); !acme.IsProblem(err, acme.ProblemAlreadyReplaced) {
		t.Errorf("it is replaced twice: %v", err)
	}
}
