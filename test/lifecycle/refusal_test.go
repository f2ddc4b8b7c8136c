package lifecycle_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/cli"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/pebble"
)

// refusable is a world with a controller whose writes can be refused, and a clock that can be
// advanced.
type refusable struct {
	*world
	cluster.Refusal
	clock   cluster.Clock
	metrics *prometheus.Registry
}

func newRefusable(t *testing.T) *refusable {
	t.Helper()
	return &refusable{world: newWorld(t), metrics: prometheus.NewRegistry()}
}

func (r *refusable) start(o controller.Options) {
	r.Helper()
	o.WrapClient, o.Clock, o.Registry = r.Wrap, &r.clock, r.metrics
	r.run(o)
}

// signers each create an issuer, and return the controller options for it and the reference for a
// Certificate.
var signers = map[string]func(*refusable) (controller.Options, func(*cmapi.Certificate)){
	"selfSigned": func(r *refusable) (controller.Options, func(*cmapi.Certificate)) {
		r.selfSigned("signer")
		return controller.Options{}, func(*cmapi.Certificate) {}
	},
	"ca": func(r *refusable) (controller.Options, func(*cmapi.Certificate)) {
		r.caIssuer("signer", 400*24*time.Hour)
		return controller.Options{}, func(*cmapi.Certificate) {}
	},
	"external": func(r *refusable) (controller.Options, func(*cmapi.Certificate)) {
		r.externalIssuer()
		return controller.Options{}, func(crt *cmapi.Certificate) {
			crt.Spec.IssuerRef.Group, crt.Spec.IssuerRef.Kind = "test.example.com", "Issuer"
		}
	},
	"acme": func(r *refusable) (controller.Options, func(*cmapi.Certificate)) {
		return r.pebble(), func(crt *cmapi.Certificate) {
			crt.Spec.Revocation = &cmapi.CertificateRevocation{OnDelete: true}
		}
	},
}

// pebble creates an Issuer of an ACME server that validates the controller's HTTP-01 answers.
func (r *refusable) pebble() controller.Options {
	r.Helper()
	site := fmt.Sprintf("127.0.0.1:%d", cluster.FreePort(r))
	names, err := dnsserver.Start(dnsserver.Options{Zones: []string{"example.com"}})
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(names.Close)
	_, port, _ := strings.Cut(site, ":")
	o := pebble.Options{Resolver: names.Addr}
	fmt.Sscan(port, &o.HTTPPort)
	ca, err := pebble.Start(o)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { ca.Close() })
	r.create(&cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: "signer"},
		Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{ACME: &cmacme.ACMEIssuer{
			Server: ca.Directory, CABundle: ca.CABundle, PrivateKey: cmmeta.SecretKeySelector{
				LocalObjectReference: cmmeta.LocalObjectReference{Name: "account"}},
			Solvers: []cmacme.ACMEChallengeSolver{
				{HTTP01: &cmacme.ACMEChallengeSolverHTTP01{Ingress: &cmacme.ACMEChallengeSolverHTTP01Ingress{}}}},
		}}}})
	return controller.Options{HTTP01Address: site, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, site)
	}}
}

func TestEachRefusedWriteIsReportedEverywhere(t *testing.T) {
	for by, set := range signers {
		for what, test := range refusedWrites {
			if test.of != nil && !slices.Contains(test.of, by) {
				continue
			}
			t.Run(by+"/"+what, func(t *testing.T) {
				t.Parallel()
				r := newRefusable(t)
				r.refuse(set, &test)
				r.saysItEverywhere(&test)
				if test.options != nil {
					return // another approver decides
				}
				r.recovers(&test)
			})
		}
	}
}

// refuse has the write refused.
func (r *refusable) refuse(set func(*refusable) (controller.Options, func(*cmapi.Certificate)), test *refusedWrite) {
	r.Helper()
	options, names := set(r)
	r.caIssuer("staging", time.Hour)
	if test.options != nil {
		test.options(&options)
	}
	if test.later == nil {
		r.Begin(test.rule)
	}
	crt := certificate("a", "signer", names)
	if test.edit != nil {
		test.edit(crt)
	}
	r.create(crt)
	if test.before != nil {
		test.before(r, crt)
	}
	r.start(options)
	if test.later != nil {
		r.untilReady("a", 1)
		r.Begin(test.rule)
		test.later(r)
	}
}

// saysItEverywhere fails the test unless the conditions, the event, the metrics and perennial
// status have the refusal, and it is not tried often.
func (r *refusable) saysItEverywhere(test *refusedWrite) {
	r.Helper()
	c := r.condition("a", cmapi.CertificateConditionIssuing, cmmeta.ConditionFalse, test.reason)
	r.saysRefusal(c.Message)
	if !strings.HasPrefix(c.Message, test.says) {
		r.Errorf("the condition says %q", c.Message)
	}
	if test.ready {
		r.agrees("a", cmmeta.ConditionTrue, cluster.RefusedBecause)
		if crt := r.getCertificate("a"); *crt.Status.Revision != test.revision || stalled(crt) != nil {
			r.Errorf("status %+v, want revision %d, and not stalled", crt.Status, test.revision)
		}
	} else {
		r.agrees("a", cmmeta.ConditionFalse, cluster.RefusedBecause)
		crt := r.getCertificate("a")
		if s := stalled(crt); s == nil || s.Reason != test.reason || !strings.Contains(s.Message, cluster.RefusedBecause) {
			r.Errorf("the condition Stalled is %+v", s)
		}
		ready := cmapi.GetCertificateCondition(&crt.Status, "Ready")
		if !strings.HasPrefix(ready.Message, "Issuing certificate as Secret does not exist") ||
			!strings.Contains(ready.Message, cluster.RefusedBecause) {
			r.Errorf("Ready says %q", ready.Message)
		}
	}
	if message := r.untilEvent("Certificate", "a", test.reason); !strings.Contains(message, cluster.RefusedBecause) {
		r.Errorf("the event says %q", message)
	}
	tried := r.Count()
	if tried > 3 {
		r.Errorf("tried %d times in a moment", tried)
	}
	// Past the time of the next attempt, there is one more, which may be of two writes.
	r.clock.Step(15 * time.Minute)
	r.nudge("a")
	cluster.Eventually(r, func() error {
		if r.Count() == tried {
			return cluster.NotYet("there was no other attempt")
		}
		return nil
	})
	r.condition("a", cmapi.CertificateConditionIssuing, cmmeta.ConditionFalse, test.reason)
	if n := r.Count() - tried; n > 2 {
		r.Errorf("tried %d times at the time of the next attempt", n)
	}
}

// recovers allows what was refused, and asks for a certificate at once.
func (r *refusable) recovers(test *refusedWrite) {
	r.Helper()
	var request types.UID
	if test.reason == "SecretWriteFailed" {
		request = r.untilRequest("a-1").UID
	}
	r.End()
	r.renew("a")
	crt := r.untilReady("a", test.revision+1)
	if s := stalled(crt); s != nil {
		r.Errorf("still stalled: %s", s.Message)
	}
	r.leaf(r.secret("a"))
	r.agrees("a", cmmeta.ConditionTrue, "is up to date")
	if request != "" && r.untilRequest("a-1").UID != request {
		r.Error("what was issued was thrown away, and another certificate requested")
	}
}

func TestAnExpiredCertificateIsNotReadyWhateverIsRefused(t *testing.T) {
	for signer, set := range signers {
		for what, rule := range map[string]func(cluster.Write) bool{
			"the CertificateRequest": creates[*cmapi.CertificateRequest](""),
			"the Secret":             appliesSecret,
		} {
			t.Run(signer+"/"+what, func(t *testing.T) {
				t.Parallel()
				r := newRefusable(t)
				options, names := set(r)
				options.Controllers = []string{"*", "-certificates-renewalinfo"}
				r.start(options)
				r.create(certificate("a", "signer", names))
				end := r.untilReady("a", 1).Status.NotAfter.Time
				r.Begin(rule)
				if signer == "acme" { // whose orders expire by another clock
					r.renew("a")
				} else {
					r.clock.Step(time.Until(r.getCertificate("a").Status.RenewalTime.Add(time.Minute)))
					r.nudge("a")
				}
				c := r.until("a", func(crt *cmapi.Certificate) error {
					c := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionIssuing)
					if c == nil || c.Status != cmmeta.ConditionFalse {
						return cluster.NotYet("the renewal has not failed")
					}
					r.saysRefusal(c.Message)
					return nil
				})
				if ready := cmapi.GetCertificateCondition(&c.Status, "Ready"); ready.Status != cmmeta.ConditionTrue ||
					stalled(c) != nil {
					t.Errorf("status %+v of a certificate that is good, want Ready and not stalled", c.Status)
				}
				r.agrees("a", cmmeta.ConditionTrue, "renewing it failed")
				r.clock.Step(end.Add(time.Minute).Sub(r.clock.Now()))
				r.nudge("a")
				ready := r.condition("a", cmapi.CertificateConditionReady, cmmeta.ConditionFalse, "Expired")
				if !strings.HasPrefix(ready.Message, "Certificate expired on ") || !strings.Contains(ready.Message,
					cluster.RefusedBecause) {
					t.Errorf("Ready says %q", ready.Message)
				}
				r.agrees("a", cmmeta.ConditionFalse, "certificate expired on", cluster.RefusedBecause)
			})
		}
	}
}

// TestARefusedReleaseOfASecretIsReported has the Secret keep its owner while a certificate is
// requested.
func TestARefusedReleaseOfASecretIsReported(t *testing.T) {
	t.Parallel()
	r := newRefusable(t)
	r.caIssuer("ca", 400*24*time.Hour)
	r.start(controller.Options{})
	r.create(certificate("a", "ca", func(crt *cmapi.Certificate) { crt.Spec.DeletionPolicy = cmapi.DeletionPolicyDelete }))
	r.untilReady("a", 1)
	r.Begin(patches[*corev1.Secret]("a"))
	change(r.world, named(&cmapi.Issuer{}, "ca"), func(i *cmapi.Issuer) { i.Spec.CA.SecretName = "none" })
	change(r.world, named(&corev1.Secret{}, "a"), func(s *corev1.Secret) {
		s.Data["other"] = []byte("x")
		s.Data[corev1.TLSCertKey] = nil
	})
	c := r.condition("a", "SecretStays", cmmeta.ConditionFalse, "SecretReleaseFailed")
	r.saysRefusal(c.Message)
	if message := r.untilEvent("Certificate", "a", "SecretReleaseFailed"); !strings.Contains(message,
		cluster.RefusedBecause) {
		t.Errorf("the event says %q", message)
	}
	r.agrees("a", cmmeta.ConditionFalse, cluster.RefusedBecause)
	if n := r.Count(); n > 3 {
		t.Errorf("tried %d times in a moment", n)
	}
	r.End()
	r.clock.Step(time.Minute)
	r.nudge("a")
	r.condition("a", "SecretStays", cmmeta.ConditionTrue, "ForeignData")
	if owners := r.secret("a").OwnerReferences; len(owners) > 0 {
		t.Errorf("the owners are %+v", owners)
	}
}

func TestARefusedStatusIsReportedByAnEventAndTheMetricsAreRight(t *testing.T) {
	t.Parallel()
	r := newRefusable(t)
	r.caIssuer("ca", 400*24*time.Hour)
	r.start(controller.Options{})
	r.create(certificate("a", "ca"))
	end := r.untilReady("a", 1).Status.NotAfter.Time
	r.Begin(func(w cluster.Write) bool {
		_, is := w.Object.(*cmapi.Certificate)
		return w.Verb == "status" && is || creates[*cmapi.CertificateRequest]("")(w)
	})
	r.clock.Step(end.Add(time.Minute).Sub(r.clock.Now()))
	r.nudge("a")
	if message := r.untilEvent("Certificate", "a", "StatusNotWritten"); !strings.Contains(message,
		cluster.RefusedBecause) {
		t.Errorf("the event says %q", message)
	}
	r.agrees("a", cmmeta.ConditionFalse, "its status does not say so")
}

// TestARefusedAccessReviewIsSaid refuses the access review by which the controller checks whether
// it may approve.
func TestARefusedAccessReviewIsSaid(t *testing.T) {
	t.Parallel()
	r := newRefusable(t)
	r.caIssuer("ca", 400*24*time.Hour)
	r.Begin(func(w cluster.Write) bool {
		_, is := w.Object.(*authorizationv1.SelfSubjectAccessReview)
		return is && w.Verb == "create"
	})
	r.start(controller.Options{})
	r.create(certificate("a", "ca"))
	cluster.Eventually(t, func() error {
		cr := r.untilRequest("a-1")
		for _, c := range cr.Status.Conditions {
			if c.Type == "ApprovalForbidden" && strings.Contains(c.Message, cluster.RefusedBecause) {
				return nil
			}
		}
		return cluster.NotYet("the request says %+v", cr.Status.Conditions)
	})
	r.until("a", func(crt *cmapi.Certificate) error {
		for _, c := range crt.Status.Conditions {
			if c.Type == cmapi.CertificateConditionIssuing && strings.Contains(c.Message, cluster.RefusedBecause) {
				return nil
			}
		}
		return cluster.NotYet("the Certificate does not say it")
	})
	r.agrees("a", cmmeta.ConditionFalse, cluster.RefusedBecause)
	r.End()
	r.untilReady("a", 1)
}

func TestRealRefusals(t *testing.T) {
	for name, test := range map[string]struct {
		make    func(*world)
		edit    func(*cmapi.Certificate)
		says    []string
		repairs func(*world)
	}{
		"an immutable Secret": {
			make: func(w *world) {
				w.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Immutable: ptr.To(true),
					Data: map[string][]byte{"other": []byte("x")}})
			},
			says: []string{`Secret "a" cannot be written`, "field is immutable when `immutable` is set",
				"The Secret is immutable: delete it"},
			repairs: func(w *world) { _ = w.Delete(w.Context(), w.secret("a")) },
		},
		"a quota": {
			make: func(w *world) {
				w.create(&corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "few"}, Spec: corev1.ResourceQuotaSpec{
					Hard: corev1.ResourceList{"count/secrets": resource.MustParse("1")}, // which the CA has
				}})
				changeStatus(w, named(&corev1.ResourceQuota{}, "few"), func(q *corev1.ResourceQuota) {
					// as the controller that counts
					q.Status.Hard, q.Status.Used = q.Spec.Hard, q.Spec.Hard
				})
			},
			says: []string{`Secret "a" cannot be written`, "exceeded quota: few"},
			repairs: func(w *world) {
				_ = w.Delete(w.Context(), named(&corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace}},
					"few"))
			},
		},
		"an admission policy": {
			make: func(w *world) { w.freeze() },
			says: []string{"Failed to create CertificateRequest: ", "changes are frozen"},
			repairs: func(w *world) {
				_ = w.Delete(w.Context(), named(&admissionv1.ValidatingAdmissionPolicyBinding{}, "freeze-"+w.namespace))
			},
		},
		"a keystore password that cannot be encoded": {
			make: func(w *world) {
				w.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "pw"},
					StringData: map[string]string{"password": "pass\U0001F4A5word"}})
			},
			edit: pkcs12("pw"),
			says: []string{"keystore.p12 cannot be made with the password in entry \"password\" of Secret \"pw\"",
				"It is tried again when that changes"},
			repairs: func(w *world) {
				change(w, named(&corev1.Secret{}, "pw"), func(s *corev1.Secret) { s.Data["password"] = []byte("changeit") })
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.caIssuer("ca", 24*time.Hour)
			test.make(w)
			w.run(controller.Options{})
			crt := certificate("a", "ca")
			if test.edit != nil {
				test.edit(crt)
			}
			w.create(crt)
			got := w.until("a", func(crt *cmapi.Certificate) error {
				issuing, ready := cmapi.GetCertificateCondition(&crt.Status, "Issuing"), cmapi.GetCertificateCondition(&crt.Status,
					"Ready")
				if issuing == nil || issuing.Status != cmmeta.ConditionFalse || ready == nil ||
					ready.Status != cmmeta.ConditionFalse || stalled(crt) == nil {
					return cluster.NotYet("not failed")
				}
				for _, s := range test.says {
					if !strings.Contains(issuing.Message, s) || !strings.Contains(ready.Message, s) ||
						!strings.Contains(stalled(crt).Message, s) {
						return cluster.NotYet("%q is not in all of %q, %q and %q", s, issuing.Message, ready.Message,
							stalled(crt).Message)
					}
				}
				return nil
			})
			w.untilEvent("Certificate", "a", cmapi.GetCertificateCondition(&got.Status, "Issuing").Reason)
			if got.Status.ObservedGeneration != got.Generation {
				t.Errorf("observedGeneration %d, generation %d", got.Status.ObservedGeneration, got.Generation)
			}
			test.repairs(w)
			w.untilReady("a", 1)
			w.leaf(w.secret("a"))
		})
	}
}

// freeze refuses all new CertificateRequests of the namespace.
func (w *world) freeze() {
	w.Helper()
	name := "freeze-" + w.namespace
	policy := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: ptr.To(admissionv1.Fail),
			MatchConstraints: &admissionv1.MatchResources{
				ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Create},
					Rule: admissionv1.Rule{APIGroups: []string{"cert-manager.io"}, APIVersions: []string{"v1"},
						Resources: []string{"certificaterequests"}},
				}}}, NamespaceSelector: &metav1.LabelSelector{
					MatchLabels: map[string]string{"kubernetes.io/metadata.name": w.namespace}}},
			Validations: []admissionv1.Validation{{Expression: "false", Message: "changes are frozen"}},
		}}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		}}
	for _, o := range []client.Object{policy, binding} {
		if err := w.Create(w.Context(), o); err != nil {
			w.Fatal(err)
		}
		w.Cleanup(func() { _ = w.Delete(context.Background(), o) })
	}
	_, key := newCA(w, "probe", time.Hour)
	csr, err := pki.Request{CommonName: "probe"}.CSR(rand.Reader, key)
	if err != nil {
		w.Fatal(err)
	}
	cluster.Eventually(w, func() error {
		probe := &cmapi.CertificateRequest{ObjectMeta: metav1.ObjectMeta{Name: "probe", Namespace: w.namespace},
			Spec: cmapi.CertificateRequestSpec{
				Request: pki.EncodeCSRPEM(csr), IssuerRef: cmmeta.IssuerReference{Name: "none"},
			}}
		if err := w.Create(w.Context(), probe, client.DryRunAll); err == nil ||
			!strings.Contains(err.Error(), "changes are frozen") {
			return cluster.NotYet("the policy does not hold: %v", err)
		}
		return nil
	})
}

func pkcs12(secret string) func(*cmapi.Certificate) {
	return func(crt *cmapi.Certificate) {
		crt.Spec.Keystores = &cmapi.CertificateKeystores{PKCS12: &cmapi.PKCS12Keystore{
			Create: true, Profile: cmapi.Modern2023PKCS12Profile, PasswordSecretRef: cmmeta.SecretKeySelector{
				LocalObjectReference: cmmeta.LocalObjectReference{Name: secret}, Key: "password"},
		}}
	}
}

func stalled(crt *cmapi.Certificate) *cmapi.CertificateCondition {
	return cmapi.GetCertificateCondition(&crt.Status, "Stalled")
}

// saysRefusal fails the test unless the message has the reason, the time of the next attempt, and
// advice.
func (r *refusable) saysRefusal(message string) {
	r.Helper()
	for _, want := range []string{cluster.RefusedBecause, "The next attempt is at ",
		"perennial renew a -n " + r.namespace} {
		if !strings.Contains(message, want) {
			r.Errorf("the condition says %q, and not %q", message, want)
		}
	}
}

// agrees fails the test unless the metrics and perennial status agree with the condition Ready of
// the Certificate.
func (r *refusable) agrees(name string, ready cmmeta.ConditionStatus, words ...string) {
	r.Helper()
	cluster.Eventually(r, func() error {
		if is, err := readyMetric(r.metrics, r.namespace, name); err != nil || is != string(ready) {
			return cluster.NotYet("the metric says Ready=%s, want %s: %v", is, ready, err)
		}
		return nil
	})
	var out bytes.Buffer
	kubeconfig := cluster.Plane(r).KubeconfigPath()
	cluster.Eventually(r, func() error {
		out.Reset()
		p := &cli.Program{Name: "perennial", In: strings.NewReader(""), Out: &out, Err: &out, Clock: &r.clock}
		code := p.Run(r.Context(), p.Command(), []string{"status", "certificate", name, "-n", r.namespace, "--kubeconfig",
			kubeconfig})
		if want := map[cmmeta.ConditionStatus]int{cmmeta.ConditionTrue: 0,
			cmmeta.ConditionFalse: cli.ExitNotReady}[ready]; code != want {
			return cluster.NotYet("perennial status ends with %d, want %d:\n%s", code, want, out.String())
		}
		for _, w := range words {
			if !strings.Contains(out.String(), w) {
				return cluster.NotYet("perennial status does not say %q:\n%s", w, out.String())
			}
		}
		return nil
	})
}

// readyMetric is the status for which certmanager_certificate_ready_status is 1.
func readyMetric(registry *prometheus.Registry, namespace, name string) (string, error) {
	families, err := registry.Gather()
	if err != nil {
		return "", err
	}
	for _, f := range families {
		if f.GetName() != "certmanager_certificate_ready_status" {
			continue
		}
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["name"] == name && labels["namespace"] == namespace && m.GetGauge().GetValue() == 1 {
				return labels["condition"], nil
			}
		}
	}
	return "", errors.New("there is no such series")
}
