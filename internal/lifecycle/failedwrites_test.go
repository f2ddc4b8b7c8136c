package lifecycle

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/earlyissuance"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/renewal"
)

// refuse records that a write of the present decision has failed so often in a row.
func (s *scene) refuse(w write, reason string, class fault.Class, attempts int) *scene {
	f := &FailedWrite{
		Reason: reason, Class: class, Message: "it is frozen", At: s.Now, inputs: s.inputs(), surroundings: s.surroundings(),
		ManualTrigger: manualTriggerOf(
			cmapi.GetCertificateCondition(&s.Certificate.Status, cmapi.CertificateConditionIssuing),
		),
	}
	for n := range attempts {
		f.next(&FailedWrite{Attempts: n}, "web")
	}
	s.FailedWrites = map[write]*FailedWrite{w: f}
	return s
}

func TestARefusedWriteWaitsUntilItsTimeOrAChange(t *testing.T) {
	request := write{writesRequest, "web-1"}
	secret := write{writesSecret, "web"}
	renewed := write{writesRequest, "web-2"}
	for name, test := range map[string]struct {
		scene func(*scene)
		want  string
	}{
		"a refused request": {func(s *scene) { s.refuse(request, reasonRequestFailed, fault.Refused, 1) },
			"Ready=False/DoesNotExist, Issuing=False/RequestFailed"},
		"a moment later": {func(s *scene) { s.refuse(request, reasonRequestFailed, fault.Refused, 1).after(9 * time.Second) },
			"Ready=False/DoesNotExist, Issuing=False/RequestFailed"},
		"at its time": {func(s *scene) { s.refuse(request, reasonRequestFailed, fault.Refused, 1).after(13 * time.Second) },
			"request web-1, hold status"},
		"after more attempts it takes longer": {
			func(s *scene) { s.refuse(request, reasonRequestFailed, fault.Refused, 5).after(2 * time.Minute) },
			"Ready=False/DoesNotExist, Issuing=False/RequestFailed"},
		"but no more than some minutes": {
			func(s *scene) { s.refuse(request, reasonRequestFailed, fault.Refused, 50).after(13 * time.Minute) },
			"request web-1, hold status"},
		"the spec changed": {func(s *scene) {
			s.refuse(request, reasonRequestFailed, fault.Refused,
				5).Certificate.Generation++
		},
			"request web-1, hold status"},
		"a label that a policy asks for was added": {func(s *scene) {
			s.refuse(request, reasonRequestFailed, fault.Refused, 5).after(
				11 * time.Second).Certificate.Labels = map[string]string{"team": "payments"}
		}, "request web-1, hold status"},
		"but not each second": {func(s *scene) {
			s.refuse(request, reasonRequestFailed, fault.Refused, 5).after(time.Second).Certificate.Labels = map[string]string{
				"team": "payments"}
		}, "Ready=False/DoesNotExist, Issuing=False/RequestFailed"},
		"asked for by hand": {func(s *scene) {
			s.refuse(request, reasonRequestFailed, fault.Refused, 5).after(time.Second).issuingBecause("ManuallyTriggered")
		}, "request web-1, hold status"},
		"a transient failure is not said at once": {
			func(s *scene) { s.refuse(request, reasonRequestFailed, fault.Transient, 1) },
			"Ready=False/DoesNotExist"},
		"but if it stays": {func(s *scene) { s.refuse(request, reasonRequestFailed, fault.Transient, 2) },
			"Ready=False/DoesNotExist, Issuing=False/RequestFailed"},
		"the Secret: what is issued is kept": {
			func(s *scene) { s.requested().signed().refuse(secret, reasonSecretFailed, fault.Refused, 1) },
			"store key, Ready=False/DoesNotExist, Issuing=False/SecretWriteFailed"},
		"a keystore waits for another password": {func(s *scene) {
			s.requested().signed().refuse(secret, reasonKeystore, fault.Misconfigured, 1).after(24 * time.Hour)
		}, "store key, Ready=False/DoesNotExist, Issuing=False/KeystoreFailed"},
		"which is tried at once": {func(s *scene) {
			s.requested().signed().refuse(secret, reasonKeystore, fault.Misconfigured, 1).JKSPassword = Password{
				Value: "another"}
		}, "apply, Ready=True/Ready"},
		"a renewal by hand goes on after it was refused": {func(s *scene) {
			s.issued().issuingBecause("ManuallyTriggered").refuse(renewed, reasonRequestFailed, fault.Refused, 1)
			s.carryOut(Decide(s.Observation))
			s.after(time.Minute)
		}, "request web-2, hold status"},
		"but not for another spec": {func(s *scene) {
			s.issued().issuingBecause("ManuallyTriggered").refuse(renewed, reasonRequestFailed, fault.Refused, 1)
			s.carryOut(Decide(s.Observation))
			s.after(time.Minute).Certificate.Generation++
		}, "Ready=True/Ready"},
		"a Secret that is refused does not make a good certificate be issued anew": {func(s *scene) {
			s.issued().refuse(secret, reasonSecretFailed, fault.Refused, 1)
			s.Certificate.Spec.SecretTemplate = &cmapi.CertificateSecretTemplate{Labels: map[string]string{"a": "b"}}
			s.carryOut(Decide(s.Observation))
			s.after(time.Second)
		}, "Ready=True/Ready, Issuing=False/SecretWriteFailed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			test.scene(s)
			d := Decide(s.Observation)
			if got := outcome(d); got != test.want {
				t.Errorf("decided:\n  %s\nwant:\n  %s", got, test.want)
			}
			issuing := cmapi.GetCertificateCondition(&d.Status, cmapi.CertificateConditionIssuing)
			if issuing == nil || issuing.Status != cmmeta.ConditionFalse || d.HoldStatus {
				return
			}
			if ready := cmapi.GetCertificateCondition(&d.Status, "Ready"); ready.Status == cmmeta.ConditionFalse {
				if !strings.HasPrefix(ready.Message, "Issuing certificate as Secret does not exist. it is frozen") {
					t.Errorf("Ready says %q", ready.Message)
				}
				stalled := cmapi.GetCertificateCondition(&d.Status, conditionStalled)
				if transient := strings.Contains(name, "if it stays"); (stalled == nil) != transient {
					t.Errorf("Stalled is %+v", stalled)
				}
			}
			// A second pass finds nothing to write.
			s.carryOut(d)
			s.KeySecrets = nil
			if again := Decide(s.Observation); !strings.Contains(test.want, "store key") && !sameStatus(again, d) {
				t.Errorf("a second look writes %+v after %+v", again.Status, d.Status)
			}
		})
	}
}

func sameStatus(a, b *Decision) bool {
	if len(a.Status.Conditions) != len(b.Status.Conditions) {
		return false
	}
	for i := range a.Status.Conditions {
		x, y := a.Status.Conditions[i], b.Status.Conditions[i]
		if x.Type != y.Type || x.Message != y.Message || !x.LastTransitionTime.Equal(y.LastTransitionTime) {
			return false
		}
	}
	return true
}

func TestACertificateThatExpiredIsNotReadyThoughNothingCanBeRead(t *testing.T) {
	s := newScene(t).issued()
	f := &FailedWrite{Reason: reasonReadFailed, Class: fault.Refused, Message: "secrets is forbidden", Attempts: 1}
	if d := decideUnread(s.Observation, f); outcome(d) != "Ready=True/Ready, Issuing=False/ReadFailed" {
		t.Errorf("decided %s of a good certificate", outcome(d))
	}
	s.after(91 * day)
	d := decideUnread(s.Observation, f)
	if outcome(d) != "Ready=False/Expired, Issuing=False/ReadFailed" {
		t.Errorf("decided %s of one that expired", outcome(d))
	}
	if ready := cmapi.GetCertificateCondition(&d.Status, "Ready"); !strings.Contains(ready.Message,
		"secrets is forbidden") {
		t.Errorf("Ready says %q", ready.Message)
	}
}

func TestReadyGoesOnWithTheCause(t *testing.T) {
	base := "Issuing certificate as Secret does not exist. "
	for name, test := range map[string]struct {
		scene   func(*scene)
		says    string
		stalled bool
	}{
		"denied": {func(s *scene) { s.requested().failed("Denied") },
			base + "The certificate request has failed to complete and will be retried: the CA said no", true},
		"an issuer of another project that is silent": {
			func(s *scene) { s.external().requested().after(time.Minute); s.KeyInMemory = s.key },
			base + "Waiting: ", false},
		"a spec that cannot be": {func(s *scene) { s.Certificate.Spec.LiteralSubject = "CN=a,FLAVOUR=sweet" }, base, true},
		"a denial whose request was deleted": {func(s *scene) {
			s.requested().failed("Denied")
			s.carryOut(Decide(s.Observation))
			s.after(time.Minute).Next = nil
		}, base + "The certificate request has failed to complete and will be retried: the CA said no", true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			test.scene(s)
			d := Decide(s.Observation)
			ready := cmapi.GetCertificateCondition(&d.Status, "Ready")
			if ready == nil || ready.Reason != "DoesNotExist" || !strings.HasPrefix(ready.Message, test.says) ||
				len(ready.Message) <= len(base) {
				t.Errorf("Ready is %+v", ready)
			}
			if is := cmapi.GetCertificateCondition(&d.Status, conditionStalled); (is != nil) != test.stalled {
				t.Errorf("Stalled is %+v", is)
			}
			if d.Status.ObservedGeneration != s.Certificate.Generation {
				t.Errorf("observedGeneration is %d", d.Status.ObservedGeneration)
			}
			s.carryOut(d)
			if again := Decide(s.after(time.Second).Observation); d.StoreKey == nil && !sameStatus(again, d) {
				t.Errorf("another look decides %s and writes %+v after %+v", outcome(again), again.Status, d.Status)
			}
		})
	}
}

func TestTheFirstStatusIsHeldOnlyIfTheIssuerAnswersAtOnce(t *testing.T) {
	for name, test := range map[string]struct {
		scene func(*scene)
		want  string
	}{
		"an issuer that is not ready": {func(s *scene) { s.Issuer.GetStatus().Conditions = nil },
			"store key, request web-1, Ready=False/DoesNotExist, Issuing=True/DoesNotExist"},
		"approval by others": {func(s *scene) { s.Settings.ApprovedByOthers = true },
			"store key, request web-1, Ready=False/DoesNotExist, Issuing=True/DoesNotExist"},
		"which is given": {func(s *scene) {
			s.Settings.ApprovedByOthers = true
			s.requested()
			cmapi.SetCertificateRequestCondition(&s.Next.Status, s.Now, cmapi.CertificateRequestCondition{Type: "Approved",
				Status: "True"})
		}, "hold status"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			test.scene(s)
			if got := outcome(Decide(s.Observation)); got != test.want {
				t.Errorf("decided:\n  %s\nwant:\n  %s", got, test.want)
			}
		})
	}
}

func TestALeafThatEndsWithItsCAIsRenewedWithIt(t *testing.T) {
	s := newScene(t)
	s.life = 30 * day
	s.issued()
	leaf := decodePair(s.Limits, s.Secret).chain[0]
	d := &decider{Observation: s.Observation, Decision: &Decision{}, present: decodePair(s.Limits, s.Secret)}
	d.plan = renewal.Schedule{Capped: true}
	if d.warn(); cmapi.GetCertificateCondition(&d.Status, conditionCapped) == nil {
		t.Error("that nothing renews the CA is not said")
	}
	s.CARenewal = created.Add(20 * day)
	d.plan.WithCA = s.CARenewal.Add(time.Hour)
	d.describe()
	if cmapi.GetCertificateCondition(&d.Status, conditionCapped) != nil {
		t.Error("the CA is renewed by a Certificate, and a person is asked to")
	}
	if at := d.Status.RenewalTime; at == nil || !at.Equal(&metav1.Time{Time: d.plan.WithCA}) ||
		!at.Time.Before(leaf.NotAfter) {
		t.Errorf("renewalTime is %v", at)
	}
}

func TestAnEndingNamespaceIsAFailureUnlessItIsTheCertificates(t *testing.T) {
	ending := apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, "a",
		errors.New("unable to create new content in namespace x because it is being terminated"))
	ending.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	uncounted := notCreated(write{writesRequest, "web-1"},
		fault.Transientf(earlyissuance.ReasonNotSaved, "save the count: %w", ending))
	for name, test := range map[string]struct {
		err     error
		passing bool
	}{
		"a request in it":                             {notCreated(write{writesRequest, "web-1"}, ending), true},
		"the count, in the controller's namespace":    {uncounted, false},
		"the count, though the pass adds to its text": {fmt.Errorf("pass: %w", uncounted), false},
	} {
		if got := passing(t.Context(), test.err); got != test.passing {
			t.Errorf("%s: passing is %t, want %t", name, got, test.passing)
		}
	}
	if uncounted.reason != reasonCountFailed {
		t.Errorf("the reason is %s", uncounted.reason)
	}
}
