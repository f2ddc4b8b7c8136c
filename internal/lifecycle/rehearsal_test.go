package lifecycle

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/signer"
)

// staged has an ACME issuer, and a rehearsal issuer for its staging server.
func (s *scene) staged() *scene {
	s.ofACME().Certificate.Spec.RehearsalIssuerRef = &cmmeta.IssuerReference{Name: "staging"}
	staging := &cmapi.Issuer{
		ObjectMeta: metav1.ObjectMeta{Name: "staging", Namespace: "ns", UID: "staging", Generation: 1},
	}
	staging.Spec.ACME = &cmacme.ACMEIssuer{}
	s.RehearsalIssuer = &signer.Issuer{GenericIssuer: staging, Kind: "Issuer", SecretNamespace: "ns"}
	return s
}

// rehearsing adds the rehearsal, made now.
func (s *scene) rehearsing() *scene {
	s.Helper()
	cr := s.requestFor(0, s.newKey())
	cr.Name, cr.Spec.IssuerRef = RehearsalName("web"), *s.Certificate.Spec.RehearsalIssuerRef
	delete(cr.Annotations, cmapi.CertificateRequestRevisionAnnotationKey)
	cr.Annotations[issuerAnnotation] = "staging.1"
	s.Rehearsal = cr
	return s
}

func (s *scene) rehearsal(reason string) *scene {
	c := cmapi.CertificateRequestCondition{
		Type:    "Ready",
		Status:  "False",
		Reason:  reason,
		Message: "the staging CA says: " + reason,
	}
	switch reason {
	case "Issued":
		c.Status, s.Rehearsal.Status.Certificate = "True", []byte("thrown away")
	case "Failed", "Denied":
		s.Rehearsal.Status.FailureTime = ptr.To(metav1.NewTime(s.Now))
	}
	cmapi.SetCertificateRequestCondition(&s.Rehearsal.Status, s.Now, c)
	return s
}

func (s *scene) decided() *scene { s.carryOut(Decide(s.Observation)); return s }

func TestARehearsalComesBeforeTheIssuer(t *testing.T) {
	const request = "store key, request web-1, Ready=False/DoesNotExist, Issuing=True/DoesNotExist"
	const waits = "Ready=False/DoesNotExist, Issuing=True/DoesNotExist"
	for name, test := range map[string]struct {
		scene   func(*scene)
		want    string
		message string // a part of that of Issuing
		event   string // the reason of one
		again   time.Duration
	}{
		"a new Certificate is rehearsed first": {
			func(s *scene) { s.staged() }, "rehearse, " + waits, `Waiting: the rehearsal at Issuer "staging"`, "Rehearsing", 0},
		"nothing else happens until it is over": {
			func(s *scene) { s.staged().rehearsing().rehearsal("Pending").after(time.Hour) }, waits, "the staging CA says: " +
				"Pending", "", 0},
		"when it has succeeded the issuer is asked": {
			func(s *scene) { s.staged().rehearsing().rehearsal("Issued") }, request, "", "Rehearsed", 0},
		"it is forgotten when the certificate is there": {
			func(s *scene) { s.staged().rehearsing().rehearsal("Issued").requested().signed() }, "delete web-rehearsal, " +
				"apply, Ready=True/Ready", "", "", 0},
		"it is not repeated when the issuer fails": {
			func(s *scene) {
				s.staged().rehearsing().rehearsal("Issued").requested().failed("Failed").decided().after(time.Hour)
			}, "delete web-1, store key, request web-1, Ready=False/DoesNotExist, Issuing=True/DoesNotExist", "",
			"Rehearsed", 0},
		"a plain renewal is not rehearsed": {
			func(s *scene) { s.staged().issued().after(61 * day) }, "store key, request web-2, Ready=True/Ready, " +
				"Issuing=True/Renewing", "", "", 0},
		"nor is one by hand": {
			func(s *scene) { s.staged().issued().issuingBecause("ManuallyTriggered") }, "store key, request web-2, " +
				"Ready=True/Ready, Issuing=True/ManuallyTriggered", "", "", 0},
		"nor a lost Secret": {
			func(s *scene) { s.staged().issued().Secret = nil }, "store key, request web-2, Ready=False/DoesNotExist, " +
				"Issuing=True/DoesNotExist", "", "", 0},
		"nor a certificate whose request is gone, but which is as the spec says": {
			func(s *scene) { s.staged().issued().after(61 * day).Current = nil }, "store key, request web-2, " +
				"Ready=True/Ready, Issuing=True/Renewing", "", "", 0},
		"another name is": {
			func(s *scene) { s.staged().issued().Certificate.Spec.DNSNames = []string{"other.example.com"} },
			"rehearse, Ready=False/RequestChanged, Issuing=True/RequestChanged", "", "Rehearsing", 0},
		"another issuer is": {
			func(s *scene) { s.staged().issued().Certificate.Spec.IssuerRef.Name = "other" },
			"rehearse, Ready=False/IncorrectIssuer, Issuing=True/IncorrectIssuer", "", "Rehearsing", 0},
		"another kind of key is": {
			func(s *scene) { s.staged().issued().Certificate.Spec.PrivateKey.Size = 384 },
			"rehearse, Ready=False/SecretMismatch, Issuing=True/SecretMismatch", "", "Rehearsing", 0},
		"a renewal of a changed spec is, though the certificate is due": {
			func(s *scene) { s.staged().issued().after(61 * day).Certificate.Spec.ACMEProfile = "shortlived" },
			"rehearse, Ready=False/RequestChanged, Issuing=True/RequestChanged", "", "Rehearsing", 0},
		"a spec that changed since it was rehearsed is rehearsed again": {
			func(s *scene) {
				s.staged().rehearsing().rehearsal("Issued").Certificate.Spec.DNSNames = []string{"other.example.com"}
			}, "delete web-rehearsal, rehearse, " + waits, "", "", 0},
		"one that is no longer needed goes": {
			func(s *scene) {
				s.staged().rehearsing().rehearsal("Failed").decided()
				s.Certificate.Spec.RehearsalIssuerRef, s.RehearsalIssuer = nil, nil
			}, "delete web-rehearsal, store key, request web-1, Ready=False/DoesNotExist, Issuing=True/DoesNotExist", "", "", 0},
		"also one of a certificate that is well": {
			func(s *scene) {
				s.staged().issued()
				s.rehearsing()
			}, "delete web-rehearsal, Ready=True/Ready", "", "", 0},

		"a failure is counted, and the issuer is not asked": {
			func(s *scene) { s.staged().rehearsing().rehearsal("Failed") }, "Ready=False/DoesNotExist, " +
				"Issuing=False/RehearsalFailed",
			`The rehearsal at Issuer "staging" has failed, so that Issuer "ca" is not asked: the staging CA says: Failed. The next attempt is at 2026-06-01T13:00:00Z`, "RehearsalFailed", time.Hour},
		"a denied one is, too": {
			func(s *scene) { s.staged().rehearsing().rehearsal("Denied") }, "Ready=False/DoesNotExist, " +
				"Issuing=False/RehearsalFailed", "", "", time.Hour},
		"it is counted once": {
			func(s *scene) { s.staged().rehearsing().rehearsal("Failed").decided().after(time.Minute) },
			"Ready=False/DoesNotExist, Issuing=False/RehearsalFailed", "attempt 1", "", time.Hour},
		"after the back-off it is rehearsed again": {
			func(s *scene) { s.staged().rehearsing().rehearsal("Failed").decided().after(time.Hour) },
			"delete web-rehearsal, rehearse, " + waits, "", "", 0},
		"or with a manual trigger": {
			func(s *scene) {
				s.staged().rehearsing().rehearsal("Failed").decided().after(time.Minute).issuingBecause("ManuallyTriggered")
			},
			"delete web-rehearsal, rehearse, Ready=False/DoesNotExist, Issuing=True/DoesNotExist", "", "", 0},
		"or the rehearsal issuer changes": {
			func(s *scene) {
				s.staged().rehearsing().rehearsal("Failed").decided().after(time.Minute)
				s.RehearsalIssuer.GenericIssuer.(*cmapi.Issuer).Generation++
			}, "delete web-rehearsal, rehearse, " + waits, "", "", 0},
		"or the spec": {
			func(s *scene) {
				s.staged().rehearsing().rehearsal("Failed").decided().after(time.Minute)
				s.Certificate.Spec.DNSNames = []string{"other.example.com"}
			}, "delete web-rehearsal, rehearse, " + waits, "", "", 0},
		"not when it is deleted": {
			func(s *scene) {
				s.staged().rehearsing().rehearsal("Failed").decided().after(time.Minute).Rehearsal = nil
			},
			"Ready=False/DoesNotExist, Issuing=False/RehearsalFailed", "", "", time.Hour},
		"it is told beside what else is wrong": {
			func(s *scene) {
				s.staged().issued().Certificate.Spec.ACMEProfile = "shortlived"
				s.rehearsing().Rehearsal.Annotations[signer.ProfileAnnotation] = "shortlived"
				s.rehearsal("Failed")
			}, "Ready=False/RequestChanged, Issuing=False/RehearsalFailed", "", "", time.Hour},

		"a staging server that cannot be reached is waited for": {
			func(s *scene) {
				s.staged().rehearsing().rehearsal("Pending").Rehearsal.Status.SetUnreachable(s.Now, true, "connection refused")
				s.after(29 * time.Minute)
			}, waits, `Issuer "ca" is asked without a rehearsal at 2026-06-01T12:30:00Z`, "", 30 * time.Minute},
		"for 30 minutes": {
			func(s *scene) {
				s.staged().rehearsing().rehearsal("Pending").Rehearsal.Status.SetUnreachable(s.Now, true, "connection refused")
				s.after(30 * time.Minute)
			}, request, `Waiting: without a rehearsal, as Issuer "staging" could not be reached`, "RehearsalSkipped", 0},
		"counted from when it was last reached": {
			func(s *scene) {
				s.staged().rehearsing().rehearsal("Pending").after(time.Hour).Rehearsal.Status.SetUnreachable(
					s.Now, true, "connection refused",
				)
				s.after(29 * time.Minute)
			}, waits, "", "", 90 * time.Minute},
		"it is not asked again after the issuer has failed": {
			func(s *scene) {
				s.staged().rehearsing().rehearsal("Pending").Rehearsal.Status.SetUnreachable(s.Now, true, "connection refused")
				s.after(30 * time.Minute).requested().failed("Failed").decided().after(time.Hour)
			}, "delete web-1, store key, request web-1, Ready=False/DoesNotExist, Issuing=True/DoesNotExist", "",
			"RehearsalSkipped", 0},
		"but what it has said meanwhile counts then": {
			func(s *scene) {
				s.staged().rehearsing().rehearsal("Failed").requested().failed("Failed").decided().after(time.Hour)
			}, "delete web-1, delete web-rehearsal, rehearse, " + waits, "", "", 0},
		"an external issuer is waited for as long": {
			func(s *scene) {
				s.staged().RehearsalIssuer = nil
				s.Certificate.Spec.RehearsalIssuerRef = &cmmeta.IssuerReference{Name: "a", Kind: "Thing", Group: "example.com"}
				s.rehearsing().after(time.Hour)
				cmapi.SetCertificateRequestCondition(
					&s.Rehearsal.Status, s.Now, cmapi.CertificateRequestCondition{Type: "Approved", Status: "True"},
				)
				s.after(30 * time.Minute)
			}, request, "", "RehearsalSkipped", 0},
		"but not without approval": {
			func(s *scene) {
				s.staged().RehearsalIssuer = nil
				s.Certificate.Spec.RehearsalIssuerRef = &cmmeta.IssuerReference{Name: "a", Kind: "Thing", Group: "example.com"}
				s.rehearsing().after(time.Hour)
			}, waits, `CertificateRequest "web-rehearsal" is not approved`, "", 0},
		"an issuer that signs everything rehearses nothing": {
			func(s *scene) {
				s.staged().RehearsalIssuer.GenericIssuer.(*cmapi.Issuer).Spec = cmapi.IssuerSpec{
					IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}},
				}
			},
			"Ready=False/DoesNotExist, Issuing=False/InvalidSpec", "signs everything", "InvalidSpec", 0},
		"the request of another owner is not touched": {
			func(s *scene) {
				s.staged().rehearsing().Rehearsal.OwnerReferences = nil
				delete(s.Rehearsal.Annotations, cmapi.CertificateNameKey)
			}, "Ready=False/DoesNotExist, Issuing=False/NameTaken", "web-rehearsal", "NameTaken", 0},
		"a Certificate that yields its Secret rehearses nothing": {
			func(s *scene) {
				s.staged().rehearsing().Rivals = []*cmapi.Certificate{
					{ObjectMeta: metav1.ObjectMeta{Name: "older", CreationTimestamp: metav1.NewTime(created.Add(-time.Hour))}},
				}
			}, "delete web-rehearsal, Ready=False/IncorrectCertificate", "", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			test.scene(s)
			d := Decide(s.Observation)
			if got := outcome(d); got != test.want {
				t.Errorf("decided:\n  %s\nwant:\n  %s", got, test.want)
			}
			if c := cmapi.GetCertificateCondition(
				&d.Status,
				"Issuing",
			); test.message != "" &&
				(c == nil || !strings.Contains(c.Message, test.message)) {
				t.Errorf("the condition is %+v", c)
			}
			if events := fmt.Sprint(eventsOf(d)); test.event != "" && !strings.Contains(events, test.event+" ") {
				t.Errorf("the events are %s", events)
			}
			if test.again != 0 && !d.Again.Equal(created.Add(test.again)) {
				t.Errorf("looks again after %s (%s), want after %s", d.Again.Sub(created), d.Why, test.again)
			}
			if d.Rehearse != nil && (d.Request != nil || d.StoreKey != nil) {
				t.Error("the issuer is asked at the same time")
			}
		})
	}
}
