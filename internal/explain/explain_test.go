package explain

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	acmev1 "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/external"
)

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func at(d time.Duration) *metav1.Time { t := metav1.NewTime(now.Add(d)); return &t }

func crt(conditions ...cmapi.CertificateCondition) *cmapi.Certificate {
	c := &cmapi.Certificate{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop", UID: "web"},
		Spec:       cmapi.CertificateSpec{SecretName: "web", IssuerRef: cmmeta.IssuerReference{Name: "ca"}},
	}
	c.Status.Conditions = conditions
	return c
}

func ready(status cmmeta.ConditionStatus, message string) cmapi.CertificateCondition {
	return cmapi.CertificateCondition{Type: "Ready", Status: status, Message: message, LastTransitionTime: at(-time.Hour)}
}

func issuing(status cmmeta.ConditionStatus, message string) cmapi.CertificateCondition {
	return cmapi.CertificateCondition{
		Type:               "Issuing",
		Status:             status,
		Message:            message,
		LastTransitionTime: at(-time.Minute),
	}
}

func issuer(status cmmeta.ConditionStatus, message string) *cmapi.Issuer {
	i := &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: "ca", Namespace: "shop"}}
	i.Status.Conditions = []cmapi.IssuerCondition{{Type: "Ready", Status: status, Message: message}}
	return i
}

// ofStep returns a Certificate of an external issuer.
func ofStep() *cmapi.Certificate {
	c := crt(ready("False", "Issuing certificate as Secret does not exist"),
		issuing("True", "Issuing certificate as Secret does not exist"))
	c.Spec.IssuerRef = cmmeta.IssuerReference{Name: "ca", Kind: "StepIsuer", Group: "certmanager.step.sm"}
	return c
}

func request(conditions ...cmapi.CertificateRequestCondition) cmapi.CertificateRequest {
	r := cmapi.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			Name:              "web-1",
			UID:               "request",
			CreationTimestamp: *at(-time.Minute),
			Annotations:       map[string]string{cmapi.CertificateRequestRevisionAnnotationKey: "1"},
		},
	}
	r.Status.Conditions = conditions
	return r
}

func rehearsal(conditions ...cmapi.CertificateRequestCondition) cmapi.CertificateRequest {
	r := request(conditions...)
	r.Name, r.UID, r.Annotations = "web-rehearsal", "rehearsal", map[string]string{"perennial.dev/rehearsal": "true"}
	r.Spec.IssuerRef.Name = "staging"
	return r
}

func TestAStateIsExplainedWithWhatToDoNext(t *testing.T) {
	missing := ready("False", "Issuing certificate as Secret does not exist")
	inWork := issuing("True", "Issuing certificate as Secret does not exist")
	approved := cmapi.CertificateRequestCondition{Type: "Approved", Status: "True"}
	controller := true
	order := acmev1.Order{
		ObjectMeta: metav1.ObjectMeta{
			Name:            "web-1-7",
			UID:             "order",
			OwnerReferences: []metav1.OwnerReference{{UID: "request", Controller: &controller}},
		},
	}
	order.Status.State = acmev1.Pending
	challenge := acmev1.Challenge{
		ObjectMeta: metav1.ObjectMeta{
			Name:            "web-1-7-9",
			OwnerReferences: []metav1.OwnerReference{{UID: "order", Controller: &controller}},
		},
	}
	challenge.Spec.Type, challenge.Spec.DNSName = acmev1.ACMEChallengeTypeDNS01, "example.com"
	challenge.Status.State, challenge.Status.Reason = acmev1.Invalid, "no TXT record"
	open := *challenge.DeepCopy()
	open.Status.State, open.Status.Reason = acmev1.Pending, "not seen yet"

	good := crt(ready("True", "Certificate is up to date and has not expired"))
	good.Status.NotAfter, good.Status.RenewalTime = at(30*24*time.Hour), at(3*time.Hour)

	ended := crt(ready("True", "Certificate is up to date and has not expired"))
	ended.Status.NotAfter = at(-time.Hour)
	undeleted := crt(ready("True", "Certificate is up to date and has not expired"),
		issuing("False", `CertificateRequest "web-1" is no longer needed and cannot be deleted: no`))
	undeleted.Status.Conditions[1].Reason, undeleted.Status.NotAfter = "DeletionFailed", at(30*24*time.Hour)

	for name, test := range map[string]struct {
		objects       Objects
		summary, next string
	}{
		"it ended, and the status could not be written": {Objects{Certificate: ended, Issuer: issuer("True", "")},
			"expired 60 minutes ago, and its status does not say so", "see whether the controller runs and may write"},
		"an old request cannot be deleted": {Objects{Certificate: undeleted, Issuer: issuer("True", "")},
			"is valid and expires in 30 days; what is no longer needed cannot be deleted",
			`CertificateRequest "web-1" is no longer needed and cannot be deleted`},
		"all is well": {Objects{Certificate: good, Issuer: issuer("True", "")},
			"is up to date, expires in 30 days, will be renewed in 3 hours", ""},
		"the controller has not processed it": {Objects{Certificate: crt(), Issuer: issuer("True", "")},
			"has not been processed", "see whether the controller runs"},
		"no issuer": {Objects{Certificate: crt(missing, inWork)},
			"is not ready: issuing certificate", `create Issuer "ca" in namespace "shop", or correct spec.issuerRef`},
		"an issuer that is not ready": {Objects{Certificate: crt(missing, inWork), Issuer: issuer("False", "no Secret x")},
			"is not ready", "mend Issuer ca: no Secret x"},
		"an issuer that was deleted while a challenge is under way": {Objects{
			Certificate: crt(missing, inWork), Requests: []cmapi.CertificateRequest{request(approved)},
			Orders: []acmev1.Order{order}, Challenges: []acmev1.Challenge{open},
		},
			"is not ready", `create Issuer "ca" in namespace "shop", or correct spec.issuerRef`},
		"one that is not ready any more while a challenge is under way": {Objects{
			Certificate: crt(missing, inWork), Issuer: issuer("False", "no Secret x"),
			Requests: []cmapi.CertificateRequest{request(approved)}, Orders: []acmev1.Order{order},
			Challenges: []acmev1.Challenge{open},
		},
			"is not ready", "mend Issuer ca: no Secret x"},
		"a challenge that is under way": {Objects{
			Certificate: crt(missing, inWork), Issuer: issuer("True", ""),
			Requests: []cmapi.CertificateRequest{request(approved)}, Orders: []acmev1.Order{order},
			Challenges: []acmev1.Challenge{open},
		},
			"is not ready", "wait for Challenge web-1-7-9: DNS-01 for example.com, pending: not seen yet"},
		"a request that waits for approval": {Objects{
			Certificate: crt(missing, inWork), Issuer: issuer("True", ""),
			Requests: []cmapi.CertificateRequest{request()},
		},
			"is not ready", "perennial approve web-1 -n shop"},
		"a denied request": {Objects{
			Certificate: crt(missing, issuing("False", "x")), Issuer: issuer("True", ""),
			Requests: []cmapi.CertificateRequest{
				request(cmapi.CertificateRequestCondition{Type: "Denied", Status: "True", Message: "not today"}),
			},
		},
			"is not ready", "CertificateRequest web-1 failed (The CertificateRequest was denied by an approval controller: " +
				"not today)"},
		"a challenge that failed": {Objects{
			Certificate: crt(missing, inWork), Issuer: issuer("True", ""),
			Requests: []cmapi.CertificateRequest{request(approved)}, Orders: []acmev1.Order{order},
			Challenges: []acmev1.Challenge{challenge},
		},
			"is not ready", "Challenge web-1-7-9 failed (DNS-01 for example.com, invalid: no TXT record)"},
		"a rehearsal that is under way": {Objects{
			Certificate: crt(missing, inWork), Issuer: issuer("True", ""),
			Requests: []cmapi.CertificateRequest{rehearsal(approved)},
		},
			"is not ready", `wait for the rehearsal at Issuer "staging": approved, and not signed yet`},
		"a rehearsal that waits for approval": {Objects{
			Certificate: crt(missing, inWork), Issuer: issuer("True", ""),
			Requests: []cmapi.CertificateRequest{rehearsal()},
		},
			"is not ready", "perennial approve web-rehearsal -n shop"},
		"a rehearsal that failed, of a change": {Objects{Certificate: crt(missing, inWork), Issuer: issuer("True", ""),
			Requests: []cmapi.CertificateRequest{
				request(cmapi.CertificateRequestCondition{Type: "Ready", Status: "True"}), rehearsal(approved, cmapi.CertificateRequestCondition{Type: "Ready", Status: "False", Reason: "Failed", Message: "no such name"})}},
			"is not ready", `CertificateRequest web-rehearsal failed (rehearsal at Issuer "staging": no such name)`},
		"the request after a rehearsal": {Objects{Certificate: crt(missing, inWork), Issuer: issuer("True", ""),
			Requests: []cmapi.CertificateRequest{
				rehearsal(approved, cmapi.CertificateRequestCondition{Type: "Ready", Status: "True"}), request()}},
			"is not ready", "perennial approve web-1 -n shop"},
		"a certificate that is issued, and waits for a keystore's password": {Objects{Certificate: crt(missing, issuing("True", `Issuing certificate as Secret does not exist. Waiting: Secret "p" does not exist: create it`)),
			Issuer: issuer("True", ""),
			Requests: []cmapi.CertificateRequest{
				request(approved, cmapi.CertificateRequestCondition{Type: "Ready", Status: "True"}),
			}},
			"is not ready", `Secret "p" does not exist: create it`},
		"an external issuer that says nothing": {Objects{Certificate: crt(missing, issuing("True", "Issuing certificate "+
			"as Secret does not exist. Waiting: is its controller running?")),
			ExternalIssuer: &external.State{Found: external.Exists}, Requests: []cmapi.CertificateRequest{request(approved)}},
			"is not ready", "is its controller running?"},
		"an external issuer of a kind that there is not": {
			Objects{Certificate: ofStep(), ExternalIssuer: &external.State{Found: external.NoKind},
				Requests: []cmapi.CertificateRequest{request()}},
			"is not ready", `correct spec.issuerRef, or install the issuer's controller: the cluster has no kind "StepIsuer" in the group "certmanager.step.sm"`},
		"an external issuer that there is not": {
			Objects{Certificate: ofStep(), ExternalIssuer: &external.State{Found: external.Missing},
				Requests: []cmapi.CertificateRequest{request()}},
			"is not ready", `create StepIsuer.certmanager.step.sm "ca", or correct spec.issuerRef`},
		"an external issuer that is not ready": {
			Objects{Certificate: ofStep(), ExternalIssuer: &external.State{Found: external.Exists, Ready: "False",
				Message: "wrong provisioner"}, Requests: []cmapi.CertificateRequest{request(approved)}},
			"is not ready", "mend StepIsuer.certmanager.step.sm ca: wrong provisioner"},
		"an external issuer that may not be read": {
			Objects{Certificate: ofStep(), ExternalIssuer: &external.State{Found: external.Forbidden},
				Requests: []cmapi.CertificateRequest{request()}},
			"is not ready", "perennial approve web-1 -n shop"},
		"one that is deleted, and has to be revoked": {Objects{Certificate: func() *cmapi.Certificate {
			c := good.DeepCopy()
			c.DeletionTimestamp, c.Finalizers = at(-time.Minute), []string{"perennial.dev/revocation"}
			return c
		}(), Issuer: issuer("True", "")}, "is being deleted: what was issued for it is revoked before", "wait: that is " +
			"tried until 2026-06-01T12:09:00Z."},
		"one that is deleted, and held by another finalizer": {Objects{Certificate: func() *cmapi.Certificate {
			c := good.DeepCopy()
			c.DeletionTimestamp, c.Finalizers = at(-time.Minute), []string{"foregroundDeletion"}
			return c
		}(), Issuer: issuer("True", "")}, "is being deleted",
			"wait for the controllers of the finalizers foregroundDeletion"},
		"a renewal that waits for the bound": {Objects{Certificate: func() *cmapi.Certificate {
			c := good.DeepCopy()
			c.Status.Conditions = append(c.Status.Conditions, issuing("False", "It is issued again at 13:00"))
			c.Status.Conditions[1].Reason = "ReissueDelayed"
			return c
		}(), Issuer: issuer("True", "")}, "is valid and expires in 30 days; the next one waits, as there were several before",
			"It is issued again at 13:00"},
		"windows that cannot be read": {Objects{Certificate: func() *cmapi.Certificate {
			c := good.DeepCopy()
			c.Status.Conditions = append(c.Status.Conditions, issuing("False", "no such cron"))
			c.Status.Conditions[1].Reason = "WindowError"
			return c
		}(), Issuer: issuer("True", "")}, "is valid and expires in 30 days; spec.renewal.windows cannot be followed",
			"no such cron"},
		"an Ingress that is not followed": {Objects{Certificate: good, Issuer: issuer("True", ""),
			Origin: &Origin{Kind: "Ingress", Name: "shop", Problem: "cert-manager.io/duration: no duration"}},
			"is up to date", "correct Ingress shop: cert-manager.io/duration: no duration"},
		"a renewal that failed": {Objects{Certificate: func() *cmapi.Certificate {
			c := good.DeepCopy()
			c.Status.Conditions = append(c.Status.Conditions, issuing("False", "the CA said no"))
			return c
		}(), Issuer: issuer("True", "")}, "is valid and expires in 30 days; renewing it failed", "the CA said no"},
	} {
		t.Run(name, func(t *testing.T) {
			r := Explain(test.objects, now)
			if !strings.HasPrefix(r.Summary, test.summary) {
				t.Errorf("summary %q, want %q", r.Summary, test.summary)
			}
			if !strings.HasPrefix(r.Next, test.next) || test.next == "" && r.Next != "" {
				t.Errorf("next %q, want %q", r.Next, test.next)
			}
		})
	}
}
