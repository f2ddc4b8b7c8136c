package order_test

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// revocation is a revocation request to a CA.
type revocation struct {
	serial    string
	reason    acme.RevocationReason
	byAccount bool
}

// registrar records the revocation requests to a CA, and can refuse them.
type registrar struct {
	mu     sync.Mutex
	asked  []revocation
	refuse func(revocation) (problem string, status int)
}

func (g *registrar) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/revoke-cert" {
			h.ServeHTTP(w, r)
			return
		}
		body, _ := io.ReadAll(r.Body)
		var message struct{ Protected, Payload string }
		var header struct{ Kid string }
		var payload struct {
			Certificate string
			Reason      acme.RevocationReason
		}
		decode := func(text string, into any) {
			raw, err := base64.RawURLEncoding.DecodeString(text)
			if err == nil {
				_ = json.Unmarshal(raw, into)
			}
		}
		_ = json.Unmarshal(body, &message)
		decode(message.Protected, &header)
		decode(message.Payload, &payload)
		der, _ := base64.RawURLEncoding.DecodeString(payload.Certificate)
		asked := revocation{reason: payload.Reason, byAccount: header.Kid != ""}
		if cert, err := x509.ParseCertificate(der); err == nil {
			asked.serial = cert.SerialNumber.String()
		}
		g.mu.Lock()
		g.asked = append(g.asked, asked)
		refuse := g.refuse
		g.mu.Unlock()
		if refuse != nil {
			if problem, status := refuse(asked); problem != "" {
				w.Header().Set("Content-Type", "application/problem+json")
				w.WriteHeader(status)
				_, _ = io.WriteString(w, `{"type": "urn:ietf:params:acme:error:`+problem+`", "detail": "no"}`)
				return
			}
		}
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		h.ServeHTTP(w, r)
	})
}

func (g *registrar) of(serial string) []revocation {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []revocation
	for _, a := range g.asked {
		if a.serial == serial {
			all = append(all, a)
		}
	}
	return all
}

// revocable creates a Certificate that is revoked when it is deleted, waits until it is ready, and
// returns the content of its Secret.
func (r *rig) revocable(
	name string,
	reason cmapi.RevocationReason,
	change ...func(*cmapi.Certificate),
) (*cmapi.Certificate, *x509.Certificate, crypto.Signer) {
	r.t.Helper()
	crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: cmapi.CertificateSpec{
		SecretName: name, DNSNames: []string{name + ".example.com"}, IssuerRef: cmmeta.IssuerReference{Name: "pebble"},
		PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
		Revocation: &cmapi.CertificateRevocation{OnDelete: true, Reason: reason},
	}}
	for _, f := range change {
		f(crt)
	}
	r.create(crt)
	r.ready(crt)
	chain, key := cluster.Pair(r.t, client.ObjectKeyFromObject(crt))
	return crt, chain[0], key
}

func (r *rig) delete(o client.Object, options ...client.DeleteOption) {
	r.t.Helper()
	if err := r.admin.Delete(r.t.Context(), o, options...); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) gone(o client.Object) {
	r.t.Helper()
	cluster.Eventually(r.t, func() error {
		err := r.admin.Get(r.t.Context(), client.ObjectKeyFromObject(o), o)
		if apierrors.IsNotFound(err) {
			return nil
		}
		return cluster.NotYet("%T %s is still there, with the finalizers %v: %v", o, o.GetName(), o.GetFinalizers(), err)
	})
}

// event waits until there is an event about the object, and returns its message.
func (r *rig) event(kind, name, reason string) (message string) {
	r.t.Helper()
	cluster.Eventually(r.t, func() error {
		var list corev1.EventList
		if err := r.admin.List(r.t.Context(), &list, client.InNamespace(r.namespace)); err != nil {
			return err
		}
		for _, e := range list.Items {
			if e.InvolvedObject.Kind == kind && e.InvolvedObject.Name == name && e.Reason == reason {
				message = e.Message
				return nil
			}
		}
		return cluster.NotYet("there is no event %s about %s %s", reason, kind, name)
	})
	return message
}

func TestADeletedCertificateIsRevoked(t *testing.T) {
	seen := &registrar{}
	r := start(t, pebble.Options{Wrap: seen.wrap})
	r.issuer()
	revoked := func(leaf *x509.Certificate, key crypto.Signer, want revocation) {
		t.Helper()
		want.serial = leaf.SerialNumber.String()
		if got := seen.of(want.serial); len(got) != 1 || got[0] != want {
			t.Errorf("the CA was asked: %+v, want %+v", got, want)
		}
		r.knownAsRevoked(key, leaf)
	}

	// The names are given up. The Secret stays, and a Certificate that is made anew does not go on
	// with it.
	crt, leaf, key := r.revocable("left", "")
	r.delete(crt)
	r.gone(crt)
	revoked(leaf, key, revocation{reason: acme.ReasonCessationOfOperation, byAccount: true})
	if message := r.event("Certificate", "left", "Revoked"); !strings.Contains(message, r.ca.Directory) {
		t.Errorf("the event says %q", message)
	}
	again, next, _ := r.revocable("left", "")
	if next.Equal(leaf) || *again.Status.Revision != 1 {
		t.Errorf("the new Certificate has what was revoked: revision %d", *again.Status.Revision)
	}

	// The key is known to others: the certificate's own key says so, and is used no more, though it
	// was to be kept.
	keep := func(crt *cmapi.Certificate) { crt.Spec.PrivateKey.RotationPolicy = cmapi.RotationPolicyNever }
	crt, leaf, key = r.revocable("lost", cmapi.RevocationReasonKeyCompromise, keep)
	r.delete(crt)
	r.gone(crt)
	revoked(leaf, key, revocation{reason: acme.ReasonKeyCompromise})
	_, next, fresh := r.revocable("lost", "", keep)
	if pki.SamePublicKey(key.Public(), fresh.Public()) || next.Equal(leaf) {
		t.Error("the key that was lost is used again")
	}

	// The Secret goes first.
	crt, leaf, key = r.revocable(
		"first",
		cmapi.RevocationReasonSuperseded,
		func(crt *cmapi.Certificate) { crt.Spec.DeletionPolicy = cmapi.DeletionPolicyDelete },
	)
	r.delete(crt, client.PropagationPolicy(metav1.DeletePropagationForeground))
	r.gone(crt)
	revoked(leaf, key, revocation{reason: acme.ReasonSuperseded, byAccount: true})
	r.gone(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "first"}})

	// The CA does not take the reason: that it is revoked matters more.
	seen.mu.Lock()
	seen.refuse = func(a revocation) (string, int) {
		if a.reason == acme.ReasonAffiliationChanged {
			return "badRevocationReason", http.StatusBadRequest
		}
		return "", 0
	}
	seen.mu.Unlock()
	crt, leaf, _ = r.revocable("picky", cmapi.RevocationReasonAffiliationChanged)
	r.delete(crt)
	r.gone(crt)
	if got := seen.of(leaf.SerialNumber.String()); len(got) != 2 || got[1].reason != acme.ReasonUnspecified {
		t.Errorf("the CA was asked: %+v", got)
	}

	// Another client has revoked it before.
	crt, leaf, key = r.revocable("before", "")
	by := &acme.Client{Directory: r.ca.Directory, HTTP: r.ca.Client()}
	if err := by.RevokeWithKey(t.Context(), key, leaf.Raw, acme.ReasonUnspecified); err != nil {
		t.Fatal(err)
	}
	r.delete(crt)
	r.gone(crt)

	r.revocationIsCancelled(seen)

	r.revocationIsCancelledLate(seen)

	// A Secret that would be deleted with its Certificate stays if the deletion orphans it.
	crt, leaf, _ = r.revocable(
		"orphaned",
		"",
		func(crt *cmapi.Certificate) { crt.Spec.DeletionPolicy = cmapi.DeletionPolicyDelete },
	)
	r.delete(crt, client.PropagationPolicy(metav1.DeletePropagationOrphan))
	r.gone(crt)
	if got := seen.of(leaf.SerialNumber.String()); len(got) == 0 || !got[0].byAccount {
		t.Errorf("the CA was asked: %+v", got)
	}
	secret := &corev1.Secret{}
	if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(crt), secret); err != nil {
		t.Fatal(err)
	}
	if secret.Annotations["perennial.dev/revoked"] == "" {
		t.Errorf("nothing says that it is revoked: %v", secret.Annotations)
	}

	// Without its account the certificate's own key is left, which CAs take for compromised from then
	// on.
	crt, leaf, key = r.revocable("orphan", "", keep)
	r.withoutAccount()
	r.delete(crt)
	r.gone(crt)
	revoked(leaf, key, revocation{reason: acme.ReasonCessationOfOperation})
	if err := r.admin.Get(t.Context(), client.ObjectKey{Namespace: r.namespace, Name: "orphan"}, secret); err != nil {
		t.Fatal(err)
	}
	if secret.Annotations["perennial.dev/compromised-key"] == "" {
		t.Errorf("nothing says that the key must not be used again: %v", secret.Annotations)
	}
}

// revocationIsCancelled sets onDelete back before a Certificate is deleted, which is then not
// delayed.
func (r *rig) revocationIsCancelled(seen *registrar) {
	t := r.t
	// Setting onDelete back ends the delay.
	crt, leaf, _ := r.revocable("kept", "")
	cluster.Eventually(t, func() error {
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		crt.Spec.Revocation = nil
		return r.admin.Update(t.Context(), crt)
	})
	cluster.Eventually(t, func() error {
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		if len(crt.Finalizers) > 0 || crt.Status.Revocable != nil {
			return cluster.NotYet("it has the finalizers %v and the status %+v", crt.Finalizers, crt.Status)
		}
		return nil
	})
	r.delete(crt)
	r.gone(crt)
	if got := seen.of(leaf.SerialNumber.String()); len(got) != 0 {
		t.Errorf("the CA was asked: %+v", got)
	}
}

// revocationIsCancelledLate sets onDelete back while the CA cannot be reached: the certificate is
// then not revoked.
func (r *rig) revocationIsCancelledLate(seen *registrar) {
	t := r.t
	// A user can still cancel the revocation at that point, while the CA cannot be reached: the
	// certificate is then not revoked.
	seen.mu.Lock()
	seen.refuse = func(revocation) (string, int) { return "serverInternal", http.StatusInternalServerError }
	seen.mu.Unlock()
	crt, leaf, key := r.revocable("late", "")
	r.delete(crt)
	r.event("Certificate", "late", "RevocationError")
	cluster.Eventually(t, func() error {
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		crt.Spec.Revocation.OnDelete = false
		return r.admin.Update(t.Context(), crt)
	})
	seen.mu.Lock()
	seen.refuse = nil
	seen.mu.Unlock()
	r.gone(crt)
	by := &acme.Client{Directory: r.ca.Directory, HTTP: r.ca.Client()}
	if err := by.RevokeWithKey(t.Context(), key, leaf.Raw, acme.ReasonUnspecified); err != nil {
		t.Errorf("it is revoked all the same: %v", err)
	}
}

// withoutAccount takes the account key of the issuer away, for good.
func (r *rig) withoutAccount() {
	t := r.t
	account := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "account"}}
	issuer := &cmapi.Issuer{}
	cluster.Eventually(t, func() error {
		if err := r.admin.Get(t.Context(), client.ObjectKey{Namespace: r.namespace, Name: "pebble"}, issuer); err != nil {
			return err
		}
		issuer.Spec.ACME.DisableAccountKeyGeneration = true
		return r.admin.Update(t.Context(), issuer)
	})
	cluster.Eventually(t, func() error { // else it makes another key
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(issuer), issuer); err != nil {
			return err
		}
		if c := cmapi.GetIssuerCondition(
			&issuer.Status,
			cmapi.IssuerConditionReady,
		); c == nil ||
			c.ObservedGeneration != issuer.Generation {
			return cluster.NotYet("the issuer is not looked at")
		}
		return nil
	})
	r.delete(account)
	cluster.Eventually(t, func() error {
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(issuer), issuer); err != nil {
			return err
		}
		if c := cmapi.GetIssuerCondition(
			&issuer.Status,
			cmapi.IssuerConditionReady,
		); c == nil ||
			c.Status != cmmeta.ConditionFalse {
			return cluster.NotYet("the issuer is ready")
		}
		return nil
	})
}

// knownAsRevoked expects that the CA has revoked a certificate.
func (r *rig) knownAsRevoked(key crypto.Signer, leaf *x509.Certificate) {
	r.t.Helper()
	by := &acme.Client{Directory: r.ca.Directory, HTTP: r.ca.Client()}
	err := by.RevokeWithKey(r.t.Context(), key, leaf.Raw, acme.ReasonUnspecified)
	if !acme.IsProblem(err, acme.ProblemAlreadyRevoked) {
		r.t.Errorf("the CA does not know of it: %v", err)
	}
}

func TestACertificateThatCannotBeRevokedSaysSo(t *testing.T) {
	r := start(t, pebble.Options{})
	r.create(
		&cmapi.Issuer{
			ObjectMeta: metav1.ObjectMeta{Name: "pebble"},
			Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}},
		},
	)
	crt, _, _ := r.revocable("site", "")
	if message := r.event(
		"Certificate",
		"site",
		"NotRevocable",
	); !strings.Contains(
		message,
		`Issuer "pebble" does not offer`,
	) {
		t.Errorf("the event says %q", message)
	}
	if c := cmapi.GetCertificateCondition(&crt.Status, "NotRevocable"); c == nil || c.Status != cmmeta.ConditionTrue {
		t.Errorf("the conditions are %+v", crt.Status.Conditions)
	}
	r.delete(crt)
	r.gone(crt)
}

func TestANamespaceWithRevocationsEnds(t *testing.T) {
	seen := &registrar{}
	r := start(t, pebble.Options{Wrap: seen.wrap})
	r.issuer()
	// Its issuer and all Secrets may go before it.
	r.revocable("within", "")
	cluster.Eventually(t, func() error {
		issuer := &cmapi.ClusterIssuer{ObjectMeta: metav1.ObjectMeta{GenerateName: "pebble-"}}
		issuer.Spec.ACME = &cmacme.ACMEIssuer{
			Server:     r.ca.Directory,
			CABundle:   r.ca.CABundle,
			PrivateKey: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: r.namespace}},
			Solvers: []cmacme.ACMEChallengeSolver{
				{HTTP01: &cmacme.ACMEChallengeSolverHTTP01{Ingress: &cmacme.ACMEChallengeSolverHTTP01Ingress{}}},
			},
		}
		issuer.Name = r.namespace
		return r.admin.Create(t.Context(), issuer)
	})
	_, leaf, _ := r.revocable("beyond", "", func(crt *cmapi.Certificate) {
		crt.Spec.IssuerRef = cmmeta.IssuerReference{Kind: "ClusterIssuer", Name: r.namespace}
	})
	r.delete(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: r.namespace}})
	r.gone(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: r.namespace}})
	if got := seen.of(leaf.SerialNumber.String()); len(got) == 0 {
		t.Error("the certificate of an issuer that lives on is not revoked")
	}
}
