package cli_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"net"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/pebble"
)

func TestACertificateIsRevokedAndAnotherIssued(t *testing.T) {
	s := newShell(t)
	names, err := dnsserver.Start(dnsserver.Options{Zones: []string{"example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(names.Close)
	port := cluster.FreePort(t)
	ca, err := pebble.Start(pebble.Options{Resolver: names.Addr, HTTPPort: port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close() })
	site := fmt.Sprintf("127.0.0.1:%d", port)
	var clock cluster.Clock
	cluster.Run(
		t,
		controller.Options{
			Namespace:     s.namespace,
			Clock:         &clock,
			HTTP01Address: site,
			Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, network, site)
			},
		},
	)
	issuer := &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "pebble"}}
	issuer.Spec.ACME = &cmacme.ACMEIssuer{
		Server:     ca.Directory,
		CABundle:   ca.CABundle,
		PrivateKey: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "account"}},
		Solvers: []cmacme.ACMEChallengeSolver{
			{HTTP01: &cmacme.ACMEChallengeSolverHTTP01{Ingress: &cmacme.ACMEChallengeSolverHTTP01Ingress{}}},
		},
	}
	self := &cmapi.Issuer{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "self"},
		Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}},
	}
	crt := func(name, issuer string) *cmapi.Certificate {
		return &cmapi.Certificate{
			ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name},
			Spec: cmapi.CertificateSpec{
				SecretName: name, DNSNames: []string{name + ".example.com"}, IssuerRef: cmmeta.IssuerReference{Name: issuer},
				PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
			},
		}
	}
	web := crt("web", "pebble")
	for _, o := range []client.Object{issuer, self, web, crt("other", "self")} {
		if err := s.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	revision := func(n int) {
		t.Helper()
		s.hasRevision(web, n)
	}
	revision(1)
	chain, key := cluster.Pair(t, client.ObjectKeyFromObject(web))

	s.perennial("revoke", "web").
		says(t, 2, "--reason must be one of affiliationChanged, cessationOfOperation, keyCompromise, superseded, unspecified")
	s.perennial("revoke", "none", "--reason", "superseded").says(t, 4, `there is no Certificate "none"`)
	s.perennial("revoke", "other", "--reason", "superseded").says(t, 3, `Issuer "self" is not an ACME issuer`)
	s.perennial("revoke", "web", "--reason", "keyCompromise").says(t, 0, "is revoked", "will be issued anew")
	revision(2)
	s.knownAsRevoked(ca, key, chain[0])
	// That no other is issued now is not for good, if the Certificate stays as it is.
	cluster.Eventually(t, func() error {
		if err := s.Get(t.Context(), client.ObjectKeyFromObject(web), web); err != nil {
			return err
		}
		if web.Status.ACME == nil {
			return cluster.NotYet("the CA was not asked when to renew: %+v", web.Status)
		}
		return nil
	})
	s.perennial("revoke", "web", "--reason", "superseded", "--no-renewal").
		says(t, 0, "is revoked", "is issued anew when the CA suggests so", "(it is asked at 20",
			"if it shall not, delete it, or set spec.renewal.policy: Disabled")
	change := func(edit func(*cmapi.CertificateSpec)) {
		t.Helper()
		cluster.Eventually(t, func() error {
			if err := s.Get(t.Context(), client.ObjectKeyFromObject(web), web); err != nil {
				return err
			}
			edit(&web.Spec)
			return s.Update(t.Context(), web)
		})
	}
	change(func(spec *cmapi.CertificateSpec) {
		spec.Renewal = &cmapi.CertificateRenewal{Policy: cmapi.CertificateRenewalPolicyDisabled}
	})
	s.perennial("revoke", "web", "--reason", "superseded", "--no-renewal").
		says(t, 0, "was revoked before", "is not renewed, as its spec.renewal.policy is Disabled")
	change(func(spec *cmapi.CertificateSpec) { spec.Renewal = nil })

	// A compromised key is not kept, whatever the Certificate says.
	change(func(spec *cmapi.CertificateSpec) { spec.PrivateKey.RotationPolicy = cmapi.RotationPolicyNever })
	_, key = cluster.Pair(t, client.ObjectKeyFromObject(web))
	s.perennial("revoke", "web", "--reason", "keyCompromise").says(t, 0, "will be issued anew")
	revision(3)
	chain, next := cluster.Pair(t, client.ObjectKeyFromObject(web))
	if pki.SamePublicKey(key.Public(), next.Public()) {
		t.Error("the compromised key is used again")
	}
	// That was for the one key: the next is kept.
	s.perennial("renew", "web").says(t, 0)
	revision(4)
	renewed, kept := cluster.Pair(t, client.ObjectKeyFromObject(web))
	if !pki.SamePublicKey(next.Public(), kept.Public()) || renewed[0].Equal(chain[0]) {
		t.Error("the key that is to be kept is not")
	}
	// After two renewals by hand a third waits. What is revoked is replaced at once.
	s.perennial("renew", "web").says(t, 0)
	revision(5)
	s.perennial("renew", "web").says(t, 0)
	cluster.Eventually(t, func() error {
		status := s.perennial("status", "certificate", "web")
		if !strings.Contains(status.out, "was issued before its renewal time 4 times") {
			return cluster.NotYet("the third renewal within an hour is said to be %s", status.out)
		}
		return nil
	})
	s.perennial("revoke", "web", "--reason", "keyCompromise").says(t, 0, "is revoked", "will be issued anew")
	revision(6)
	renewed, kept = cluster.Pair(t, client.ObjectKeyFromObject(web))

	// A Certificate is gone, and its Secret is not.
	if err := s.Delete(t.Context(), web); err != nil {
		t.Fatal(err)
	}
	s.perennial("revoke", "web", "--secret", "web", "--reason", "superseded").says(t, 2, "say what in one way")
	s.perennial("revoke", "--secret", "none", "--reason", "superseded").says(t, 4, `there is no Secret "none"`)
	s.perennial("revoke", "--secret", "account", "--reason", "superseded").
		says(t, 3, "does not name the issuer of its certificate")
	s.perennial("revoke", "--secret", "web", "--reason", "cessationOfOperation").says(t, 0, "is revoked")
	s.knownAsRevoked(ca, kept, renewed[0])

	// The account gets another key, and goes on.
	s.rotates(issuer)
	after := crt("after", "pebble")
	if err := s.Create(t.Context(), after); err != nil {
		t.Fatal(err)
	}
	web = after
	revision(1)
}

// rotates expects that the account of an issuer gets another key.
func (s *shell) rotates(issuer *cmapi.Issuer) {
	t := s.T
	t.Helper()
	s.perennial("rotate-account-key", "self").says(t, 3, "is not an ACME issuer")
	s.perennial("rotate-account-key", "none").says(t, 4, `there is no Issuer "none"`)
	if err := s.Get(t.Context(), client.ObjectKeyFromObject(issuer), issuer); err != nil {
		t.Fatal(err)
	}
	account := issuer.Status.ACME
	s.perennial("rotate-account-key", "pebble").says(t, 0, "the account of Issuer pebble has a new key")
	cluster.Eventually(t, func() error {
		if err := s.Get(t.Context(), client.ObjectKeyFromObject(issuer), issuer); err != nil {
			return err
		}
		if now := issuer.Status.ACME; now.URI != account.URI || now.LastPrivateKeyHash == account.LastPrivateKeyHash {
			return cluster.NotYet("the account was %+v and is %+v", account, now)
		}
		return nil
	})
}

// hasRevision waits until a Certificate has a revision, and no issuance is under way.
func (s *shell) hasRevision(web *cmapi.Certificate, n int) {
	s.Helper()
	cluster.Eventually(s.T, func() error {
		if err := s.Get(s.Context(), client.ObjectKeyFromObject(web), web); err != nil {
			return err
		}
		if web.Status.Revision == nil || *web.Status.Revision != n ||
			cmapi.GetCertificateCondition(&web.Status, cmapi.CertificateConditionIssuing) != nil {
			return cluster.NotYet("the status is %+v", web.Status)
		}
		return nil
	})
}

// knownAsRevoked expects that the CA has revoked a certificate.
func (s *shell) knownAsRevoked(ca *pebble.Server, key crypto.Signer, leaf *x509.Certificate) {
	s.Helper()
	by := &acme.Client{Directory: ca.Directory, HTTP: ca.Client()}
	err := by.RevokeWithKey(s.Context(), key, leaf.Raw, acme.ReasonUnspecified)
	if !acme.IsProblem(err, acme.ProblemAlreadyRevoked) {
		s.Errorf("the CA does not know of it: %v", err)
	}
}
