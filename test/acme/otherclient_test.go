package acme_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	acmez "github.com/mholt/acmez/v3/acme"

	"github.com/perennial-pki/perennial/acme"
	"github.com/perennial-pki/perennial/test/pebble"
)

// TestAnotherClientSeesTheSame runs all operations with two different ACME clients on the same
// account. Each uses the objects of the other.
func TestAnotherClientSeesTheSame(t *testing.T) {
	w := start(t, pebble.Options{AlternateRoots: 1})
	ctx, key := t.Context(), p256(t)
	a := w.account(key)
	other := &acmez.Client{Directory: w.ca.Directory, HTTPClient: w.ca.Client()}
	b, err := other.GetAccount(ctx, acmez.Account{PrivateKey: key})
	if err != nil || b.Location != a.URL {
		t.Fatalf("the account is %s for the other, %v", b.Location, err)
	}
	ours, err := w.client.FetchDirectory(ctx)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := other.GetDirectory(ctx)
	if err != nil || ours.NewOrder != theirs.NewOrder || ours.KeyChange != theirs.KeyChange ||
		ours.RenewalInfo != theirs.RenewalInfo ||
		ours.Meta.TermsOfService != theirs.Meta.TermsOfService {
		t.Errorf("the directory is %+v and %+v, %v", ours, theirs, err)
	}

	// An order of the other is finished by us.
	their, err := other.NewOrder(
		ctx,
		b,
		acmez.Order{
			Identifiers: []acmez.Identifier{{Type: "dns", Value: "www.example.com"}, {Type: "dns", Value: "*.example.com"}},
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	our, err := w.client.Order(ctx, a, their.Location)
	if err != nil || our.Status != their.Status || our.Finalize != their.Finalize || len(our.Identifiers) != 2 ||
		!slices.Equal(slices.Sorted(slices.Values(our.Authorizations)), slices.Sorted(slices.Values(their.Authorizations))) {
		t.Errorf("the order is %+v and %+v, %v", our, their, err)
	}
	for _, url := range our.Authorizations {
		z, err := w.client.Authorization(ctx, a, url)
		if err != nil {
			t.Fatal(err)
		}
		y, err := other.GetAuthorization(ctx, b, url)
		if err != nil {
			t.Fatal(err)
		}
		if z.Status != y.Status || z.Identifier.Value != y.Identifier.Value || z.Wildcard != y.Wildcard ||
			!z.Expires.Equal(y.Expires) ||
			len(z.Challenges) != len(y.Challenges) {
			t.Errorf("the authorization is %+v and %+v", z, y)
		}
		for _, c := range z.Challenges {
			i := slices.IndexFunc(y.Challenges, func(d acmez.Challenge) bool { return d.URL == c.URL })
			if i < 0 {
				t.Errorf("the other has no challenge %s", c.URL)
				continue
			}
			compareChallenges(t, a, b, z.Identifier.Value, c, y.Challenges[i])
		}
	}

	// A certificate of ours is read and revoked by the other.
	readAndRevoked(w, a, other, b)

	// The key is changed by the other, and then by us.
	next := p256(t)
	if b, err = other.AccountKeyRollover(ctx, b, next); err != nil {
		t.Fatal(err)
	}
	a.Key = next
	last := p256(t)
	if a, err = w.client.ChangeKey(ctx, a, last); err != nil {
		t.Fatal(err)
	}
	b.PrivateKey = last
	if got, err := other.GetAccount(
		ctx,
		b,
	); err != nil || got.Location != a.URL ||
		strings.TrimSpace(got.Status) != acme.StatusValid {
		t.Errorf("after both have changed the key: %+v, %v", got, err)
	}
}

// readAndRevoked has another client read a certificate of ours and revoke it.
func readAndRevoked(w *world, a acme.Account, other *acmez.Client, b acmez.Account) {
	t, ctx := w.T, w.Context()
	t.Helper()
	order, certificate, _ := w.issue(a, names("www.example.com"))
	chains, err := other.GetCertificateChain(ctx, b, order.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	if len(chains) != 1+len(certificate.Alternates) || !bytes.Equal(chains[0].ChainPEM, certificate.ChainPEM) {
		t.Errorf("the other sees %d chains, we %d", len(chains), 1+len(certificate.Alternates))
	}
	leaf := leafOf(t, certificate.ChainPEM)
	id, err := acme.CertID(leaf)
	if want, e := acmez.ARIUniqueIdentifier(leaf); err != nil || e != nil || id != want {
		t.Errorf("the identifier is %s, and %s: %v %v", id, want, err, e)
	}
	info, err := w.client.RenewalInfo(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	window, err := other.GetRenewalInfo(ctx, leaf)
	if err != nil || !window.SuggestedWindow.Start.Equal(info.SuggestedWindow.Start) ||
		!window.SuggestedWindow.End.Equal(info.SuggestedWindow.End) {
		t.Errorf("the window is %+v, and %+v: %v", info.SuggestedWindow, window.SuggestedWindow, err)
	}
	if err := other.RevokeCertificate(ctx, b, leaf, nil, acmez.ReasonSuperseded); err != nil {
		t.Fatal(err)
	}
	if err := w.client.Revoke(ctx, a, leaf.Raw, acme.ReasonSuperseded); !acme.IsProblem(err, acme.ProblemAlreadyRevoked) {
		t.Errorf("after the other has revoked it: %v", err)
	}
}

// compareChallenges expects that both clients prove control of a name in the same way.
func compareChallenges(
	t *testing.T, a acme.Account, b acmez.Account, name string, c acme.Challenge, d acmez.Challenge,
) {
	t.Helper()
	proof, err := acme.KeyAuthorization(c.Token, a.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	same := func(what, ours, theirs string) {
		t.Helper()
		if ours != theirs {
			t.Errorf("%s: the %s is %s, and %s for the other", c.Type, what, ours, theirs)
		}
	}
	switch c.Type {
	case acme.ChallengeHTTP01:
		same("proof", proof, d.KeyAuthorization)
		same("path", acme.HTTP01Path(c.Token), d.HTTP01ResourcePath())
	case acme.ChallengeDNS01:
		same("value", acme.DNS01Value(proof), d.DNS01KeyAuthorization())
		same("name", acme.DNS01Name(name), d.DNS01TXTRecordName())
	case acme.ChallengeDNSAccount01:
		same("name", acme.DNSAccount01Name(a.URL, name), d.DNSAccount01TXTRecordName(b))
	}
}
