package lifecycle

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/earlyissuance"
	"github.com/perennial-pki/perennial/pki"
)

func TestACertificateThatExpiredBeforeItCouldBeStoredIsNoFailureOfTheIssuer(t *testing.T) {
	s := newScene(t).external().requested().stored().signed().after(91 * day)
	d := Decide(s.Observation)
	if d.Failed != "" || d.Apply == nil {
		t.Fatalf("decided: %s", outcome(d))
	}
	s.carryOut(d)
	if d := Decide(s.Observation); d.Request == nil {
		t.Errorf("decided: %s", outcome(d))
	}
}

func TestWhatAnOrderReplaces(t *testing.T) {
	for name, test := range map[string]struct {
		scene func(*scene)
		says  bool
	}{
		"the certificate that is renewed": {func(*scene) {}, true},
		"it, if one of its names stays": {
			func(s *scene) { s.Certificate.Spec.DNSNames = []string{"new.example.com", "WEB.example.com"} }, true},
		"nothing if all names are others": {
			func(s *scene) { s.Certificate.Spec.DNSNames = []string{"new.example.com"} }, false},
		"nothing at a CA that does not say when to renew": {func(s *scene) { s.Certificate.Status.ACME = nil }, false},
		"nothing without one":                             {func(s *scene) { s.Secret = nil }, false},
		"nothing at another issuer": {
			func(s *scene) { s.Certificate.Spec.IssuerRef.Name = "other" }, false},
		"nothing that the private key of another is for": {
			func(s *scene) { s.Secret.Data["tls.crt"] = pki.EncodeCertificatePEM(s.signedByCA(s.newKey())) }, false},
		"nothing without a private key":                 {func(s *scene) { delete(s.Secret.Data, "tls.key") }, false},
		"nothing by another account":                    {func(s *scene) { s.Issuer.GetStatus().ACME.URI = "https://ca/account/2" }, false},
		"it, if the account that it was for is unknown": {func(s *scene) { s.Certificate.Status.ACME.ARI.Account = "" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t).suggested(50*day, 51*day)
			s.Issuer.GetStatus().ACME = &cmacme.ACMEIssuerStatus{URI: "https://ca/account/1"}
			s.Certificate.Status.ACME.ARI.Account = "https://ca/account/1"
			key, err := s.Limits.DecodeKeyPEM(s.Secret.Data["tls.key"])
			if err != nil {
				t.Fatal(err)
			}
			s.Secret.Data["tls.crt"] = pki.EncodeCertificatePEM(s.signedByCA(key))
			test.scene(s)
			if id := replaces(s.Observation); (id != "") != test.says {
				t.Errorf("it says %q", id)
			}
		})
	}
}

// noNames has one that can be no name.
var noNames = []string{"web.example.com", "https://web.example.com/"}

func TestDecide(t *testing.T) {
	for name, test := range map[string]struct {
		scene func(*scene)
		want  string
		// again is when to look again, after the Certificate was created; 0: not checked.
		again time.Duration
	}{
		// From nothing to the first certificate.
		"a new Certificate is requested, and nothing is written for what is over in a moment": {
			func(*scene) {}, "request web-1, hold status", settleTime},
		"at an issuer outside of the process the key is stored first and the status says so": {
			func(s *scene) { s.external() }, "store key, request web-1, Ready=False/DoesNotExist, Issuing=True/DoesNotExist", 0},
		"an issuer that does not exist is treated like one outside": {
			func(s *scene) { s.Issuer = nil },
			"store key, request web-1, Ready=False/DoesNotExist, Issuing=True/DoesNotExist", 0},
		"a request that was made just now is waited for in silence": {
			func(s *scene) { s.requested().after(time.Second) }, "hold status", settleTime},
		"one that takes longer is announced, and its key stored": {
			func(s *scene) { s.requested().after(3 * time.Second) }, "store key, Ready=False/DoesNotExist, " +
				"Issuing=True/DoesNotExist", 0},
		"a certificate is stored, and the status says that all is well": {
			func(s *scene) { s.requested().signed() }, "apply, Ready=True/Ready", 0},
		"after a restart the key of a request is lost: it is made anew": {
			func(s *scene) { s.requested().KeyInMemory = nil }, "delete web-1, request web-1, hold status", 0},
		"a certificate whose key was lost is of no use either": {
			func(s *scene) { s.requested().signed().KeyInMemory = nil }, "delete web-1, request web-1, hold status", 0},
		"a request that the spec has overtaken is made anew": {
			func(s *scene) { s.requested().Certificate.Spec.DNSNames = []string{"other.example.com"} }, "delete web-1, " +
				"request web-1, hold status", 0},
		"an annotation that says where HTTP-01 is answered has changed: what is asked for with the old one is dropped, " +
			"and its failures": {
			func(s *scene) {
				s.solvedBy(cmacme.ACMEChallengeSolver{}).requested().Certificate.Annotations = map[string]string{
					cmacme.ACMECertificateHTTP01IngressClassOverride: "nginx",
				}
			}, "delete web-1, store key, request web-1, Ready=False/DoesNotExist, Issuing=True/DoesNotExist", 0},
		"another annotation decides nothing": {
			func(s *scene) {
				s.solvedBy(cmacme.ACMEChallengeSolver{}).requested().Certificate.Annotations = map[string]string{
					"example.com/team": "payments",
				}
			}, "store key, Ready=False/DoesNotExist, Issuing=True/DoesNotExist", 0},
		"a label by which a solver is chosen has changed": {
			func(s *scene) {
				s.solvedBy(
					cmacme.ACMEChallengeSolver{
						Selector: &cmacme.CertificateDNSNameSelector{MatchLabels: map[string]string{"dns": "internal"}},
					},
				)
				s.requested().Certificate.Labels = map[string]string{"dns": "internal"}
			}, "delete web-1, store key, request web-1, Ready=False/DoesNotExist, Issuing=True/DoesNotExist", 0},
		"another label decides nothing": {
			func(s *scene) {
				s.solvedBy(cmacme.ACMEChallengeSolver{}).requested().Certificate.Labels = map[string]string{"dns": "internal"}
			}, "store key, Ready=False/DoesNotExist, Issuing=True/DoesNotExist", 0},
		"a certificate that is there is taken, however it was proved": {
			func(s *scene) {
				s.solvedBy(cmacme.ACMEChallengeSolver{}).requested().signed().Certificate.Annotations = map[string]string{
					cmacme.ACMECertificateHTTP01IngressClassOverride: "nginx",
				}
			}, "apply, Ready=True/Ready", 0},
		"a certificate for another key is never stored": {
			func(s *scene) {
				s.requested().signed()
				s.Next.Status.Certificate = pki.EncodeCertificatePEM(s.certificateFor(s.newKey()))
			},
			"Ready=False/DoesNotExist, Issuing=False/KeyMismatch", time.Hour},
		"nor asked for again, at an issuer outside of the process, when its key is gone": {
			func(s *scene) {
				s.external().requested().stored().signed()
				s.Next.Status.Certificate = pki.EncodeCertificatePEM(s.certificateFor(s.newKey()))
				s.carryOut(Decide(s.Observation))
			},
			"Ready=False/DoesNotExist, Issuing=False/KeyMismatch", time.Hour},
		"nor is what is no certificate": {
			func(s *scene) {
				s.external().requested().stored().signed()
				s.Next.Status.Certificate = []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
				s.carryOut(Decide(s.Observation))
				s.after(59 * time.Minute)
			},
			"Ready=False/DoesNotExist, Issuing=False/InvalidCertificate", time.Hour},
		"nor is what clients would refuse": {
			func(s *scene) {
				s.external().requested().stored().signed()
				s.Certificate.Spec.DNSNames = []string{"other.example.com"}
				other := pki.EncodeCertificatePEM(s.certificateFor(s.key))
				s.Certificate.Spec.DNSNames = []string{"web.example.com"}
				s.Next.Status.Certificate = other
			},
			"delete keys, Ready=False/DoesNotExist, Issuing=False/NamesMissing", time.Hour},
		"the status is made up for if only that is behind": {
			func(s *scene) {
				s.requested().signed()
				status := s.Certificate.Status
				d := Decide(s.Observation)
				next := s.Next
				s.carryOut(d)
				s.Certificate.Status, s.Next, s.Current, s.KeyInMemory = status, next, nil, nil
			}, "Ready=True/Ready", 0},

		// Nothing to do, and small repairs.
		"a certificate that is well needs nothing until it is renewed": {
			func(s *scene) { s.issued() }, "Ready=True/Ready", 0},
		"a lost Secret is issued anew": {
			func(s *scene) { s.issued().Secret = nil }, "request web-2, hold status", 0},
		"a label of ours that was lost comes back without a new certificate": {
			func(s *scene) { s.issued(); delete(s.Secret.Labels, cmapi.PartOfCertManagerControllerLabelKey) },
			"apply, Ready=True/Ready", 0},
		"an output format that is asked for is added without a new certificate": {
			func(s *scene) {
				s.issued().Certificate.Spec.AdditionalOutputFormats = []cmapi.CertificateAdditionalOutputFormat{{Type: "DER"}}
			}, "apply, Ready=True/Ready", 0},
		"another key encoding is applied without a new certificate": {
			func(s *scene) { s.issued().Certificate.Spec.PrivateKey.Encoding = cmapi.PKCS8 }, "apply, Ready=True/Ready", 0},

		// Reasons for a new certificate, in order.
		"a key that does not fit the certificate": {
			func(s *scene) {
				s.issued()
				s.Secret.Data["tls.key"], _ = pki.EncodeKeyPEM(s.newKey(), "")
			}, "request web-2, hold status", 0},
		"another name": {
			func(s *scene) { s.issued().Certificate.Spec.DNSNames = []string{"other.example.com"} }, "request web-2, hold " +
				"status", 0},
		"not a request of the same revision that another leader made": {
			func(s *scene) {
				s.issued().Current = s.requestFor(1, s.newKey())
				s.setStrayAside()
			}, "delete web-1, Ready=True/Ready", 0},
		"another issuer": {
			func(s *scene) { s.issued().Certificate.Spec.IssuerRef.Name = "other" }, "request web-2, hold status", 0},
		"the issuer's kind written out is not another issuer": {
			func(s *scene) { s.issued().Certificate.Spec.IssuerRef.Kind = "Issuer" }, "Ready=True/Ready", 0},
		"another profile": {
			func(s *scene) {
				s.solvedBy(cmacme.ACMEChallengeSolver{}).issued().Certificate.Spec.ACMEProfile = "shortlived"
			}, "store key, request web-2, Ready=False/RequestChanged, Issuing=True/RequestChanged", 0},
		"another profile of the issuer is for the next certificate": {
			func(s *scene) {
				s.solvedBy(cmacme.ACMEChallengeSolver{}).issued().Issuer.GetSpec().ACME.Profile = "shortlived"
				s.Issuer.GenericIssuer.(*cmapi.Issuer).Generation++
			}, "Ready=True/Ready", 0},
		"the time of renewal": {
			func(s *scene) { s.issued().after(61 * day) }, "request web-2, hold status", 0},
		"not before it": {
			func(s *scene) { s.issued().after(59 * day) }, "Ready=True/Ready", 0},
		"it is requested by hand": {
			func(s *scene) { s.issued().issuingBecause("ManuallyTriggered") }, "request web-2, hold status", 0},
		"an expired certificate is not ready, and says so even if nothing is written about the request": {
			func(s *scene) {
				s.issued().after(91 * day)
				s.Certificate.Spec.Renewal = &cmapi.CertificateRenewal{Policy: "Disabled"}
			}, "Ready=False/Expired", 0},
		"a renewal replaces the Secret and forgets the old request": {
			func(s *scene) { s.issued().after(61 * day).requested().signed() }, "delete web-1, apply, Ready=True/Ready", 0},

		// What the CA suggests.
		"the moment that the CA suggests stays between two questions": {
			func(s *scene) { s.suggested(50*day, 51*day).after(day) }, "Ready=True/Ready", 0},
		"a failed question changes nothing": {
			func(s *scene) {
				s.suggested(50*day, 51*day).after(day).Certificate.Status.ACME.ARI.LastError = "no route"
			}, "Ready=True/Ready", 0},
		"it comes": {
			func(s *scene) { s.suggested(50*day, 51*day).after(51 * day) }, "store key, request web-2, Ready=True/Ready, " +
				"Issuing=True/Renewing", 0},
		"not if the CA is not to be asked": {
			func(s *scene) {
				s.suggested(50*day, 51*day).after(51 * day)
				s.Issuer.GetSpec().ACME.RenewalInformationSource = cmacme.ACMERenewalInformationSourceNone
			}, "Ready=True/Ready", 0},
		"a certificate that is to be revoked is renewed outside of its windows": {
			func(s *scene) {
				s.suggested(-2*time.Hour, -time.Hour).Certificate.Spec.Renewal = weekly("", "0 2 * * 6", 4*time.Hour)
			}, "store key, request web-2, Ready=True/Ready, Issuing=True/Renewing", 0},
		"one that the CA wants to be renewed at once, as the one before, waits": {
			func(s *scene) { s.suggested(-2*time.Hour, -time.Hour).renewedAtOnce(time.Hour).after(59 * time.Minute) },
			"Ready=True/Ready", 0},
		"until then, also outside of its windows": {
			func(s *scene) {
				s.suggested(-2*time.Hour, -time.Hour).renewedAtOnce(time.Hour).after(time.Hour)
				s.Certificate.Spec.Renewal = weekly("", "0 2 * * 6", 4*time.Hour)
			}, "store key, request web-2, Ready=True/Ready, Issuing=True/Renewing", 0},
		"a certificate that lives shorter than was asked for is not issued anew for that": {
			func(s *scene) {
				s.Certificate.Spec.Duration = duration(365 * day)
				s.issued().after(59 * day)
			}, "Ready=True/Ready", 0},
		"nor if it lives shorter than it is to be renewed before its end": {
			func(s *scene) {
				s.Certificate.Spec.Duration, s.Certificate.Spec.RenewBefore = duration(365*day), duration(180*day)
				s.issued().after(59 * day)
			}, "Ready=True/Ready", 0},

		// Failure.
		"a failure is counted and waits an hour": {
			func(s *scene) { s.requested().failed("Failed") }, "Ready=False/DoesNotExist, Issuing=False/Failed", time.Hour},
		"a failure that is counted is not counted again": {
			func(s *scene) {
				s.requested().failed("Failed")
				s.carryOut(Decide(s.Observation))
				s.after(time.Minute)
			}, "Ready=False/DoesNotExist, Issuing=False/Failed", time.Hour},
		"after the hour it is tried again": {
			func(s *scene) { s.requested().failed("Failed"); s.carryOut(Decide(s.Observation)); s.after(time.Hour) },
			"delete web-1, request web-1, hold status", 0},
		"a wait of two hours after the second failure": {
			func(s *scene) {
				s.requested().failed("Failed")
				s.Certificate.Status.FailedIssuanceAttempts, s.Certificate.Status.LastFailureTime = ptr.To(1), ptr.To(
					metav1.NewTime(created.Add(-time.Hour)),
				)
			}, "Ready=False/DoesNotExist, Issuing=False/Failed", 2 * time.Hour},
		"and never more than 32": {
			func(s *scene) {
				s.requested().failed("Failed")
				s.Certificate.Status.FailedIssuanceAttempts, s.Certificate.Status.LastFailureTime = ptr.To(40), ptr.To(
					metav1.NewTime(created.Add(-time.Hour)),
				)
			}, "Ready=False/DoesNotExist, Issuing=False/Failed", 32 * time.Hour},
		"the wait ends with a manual trigger": {
			func(s *scene) {
				s.requested().failed("Failed")
				s.carryOut(Decide(s.Observation))
				s.after(time.Minute).issuingBecause("ManuallyTriggered")
			}, "delete web-1, request web-1, hold status", 0},
		"also in the second of the failure, before that was counted": {
			func(s *scene) { s.requested().failed("Failed").issuingBecause("ManuallyTriggered") },
			"delete web-1, request web-1, Ready=False/DoesNotExist, Issuing=True/ManuallyTriggered", 0},
		"and if the attempt that failed was asked for by hand itself": {
			func(s *scene) {
				s.issuingBecause("ManuallyTriggered").manuallyTriggered().failed("Failed")
				s.Certificate.Status.Conditions = nil
				s.after(time.Second).issuingBecause("ManuallyTriggered")
			}, "delete web-1, request web-1, Ready=False/DoesNotExist, Issuing=True/ManuallyTriggered", 0},
		"but not by the wish that the failed attempt was made for": {
			func(s *scene) { s.issuingBecause("ManuallyTriggered").manuallyTriggered().failed("Failed") },
			"Ready=False/DoesNotExist, Issuing=False/Failed", time.Hour},
		"a renewal by hand that failed waits as all do": {
			func(s *scene) {
				s.issued().issuingBecause("ManuallyTriggered").manuallyTriggered().failed("Failed")
				s.carryOut(Decide(s.Observation))
				s.after(time.Minute)
			}, "Ready=True/Ready, Issuing=False/Failed", time.Hour},
		"and is tried again": {
			func(s *scene) {
				s.issued().issuingBecause("ManuallyTriggered").manuallyTriggered().failed("Failed")
				s.carryOut(Decide(s.Observation))
				s.after(time.Hour)
			}, "delete web-2, request web-2, hold status", 0},
		"until it succeeds": {
			func(s *scene) {
				s.issued().issuingBecause("ManuallyTriggered").manuallyTriggered().failed("Failed")
				s.carryOut(Decide(s.Observation))
				s.after(time.Hour)
				s.carryOut(Decide(s.Observation))
				s.requested().signed()
			}, "delete web-1, apply, Ready=True/Ready", 0},
		"by an attempt that is none by hand": {
			func(s *scene) {
				s.external().issued().issuingBecause("ManuallyTriggered").manuallyTriggered().failed("Failed")
				s.carryOut(Decide(s.Observation))
				s.after(time.Hour)
				s.carryOut(Decide(s.Observation))
				s.requested().Next.Annotations[attemptAnnotation] = "2"
				s.failed("Failed")
			}, "Ready=True/Ready, Issuing=False/Failed", 3 * time.Hour},
		"a renewal that fails in its window is tried again in the next": {
			func(s *scene) { s.failedInWindow() }, "Ready=True/Ready, Issuing=False/Failed", 63 * day},
		"and until then the failure is told": {
			func(s *scene) { s.failedInWindow().after(2 * time.Hour) }, "Ready=True/Ready, Issuing=False/Failed", 63 * day},
		"when its time has come": {
			func(s *scene) { s.failedInWindow().after(7*day - 30*time.Minute) }, "delete web-2, request web-2, hold status", 0},
		"unless the spec no longer asks for that": {
			func(s *scene) {
				was := s.issued().Certificate.Spec.DNSNames
				s.Certificate.Spec.DNSNames = []string{"other.example.com"}
				s.requested().failed("Failed")
				s.carryOut(Decide(s.Observation))
				s.after(time.Minute).Certificate.Spec.DNSNames = was
			}, "delete web-2, Ready=True/Ready", 0},
		"names that are paused are told of": {
			func(s *scene) { s.requested().paused().after(3 * time.Second) },
			"store key, Ready=False/DoesNotExist, Issuing=True/DoesNotExist, Paused=True/ValidationsFailed", 0},
		"also if the request has failed by that": {
			func(s *scene) { s.requested().paused().failed("Failed") }, "Ready=False/DoesNotExist, Issuing=False/Failed, " +
				"Paused=True/ValidationsFailed", time.Hour},
		"a manual trigger replaces a request that is paused": {
			func(s *scene) { s.requested().paused().after(time.Minute).issuingBecause("ManuallyTriggered") },
			"delete web-1, request web-1, hold status", 0},
		"but one only": {
			func(s *scene) {
				s.issuingBecause("ManuallyTriggered").after(time.Second).manuallyTriggered().paused().after(3 * time.Second)
			}, "store key, Ready=False/DoesNotExist, Issuing=True/DoesNotExist, Paused=True/ValidationsFailed", 0},
		"the wait ends when the spec changes": {
			func(s *scene) {
				s.requested().failed("Failed")
				s.carryOut(Decide(s.Observation))
				s.after(time.Minute).Certificate.Spec.DNSNames = []string{"other.example.com"}
			}, "delete web-1, request web-1, Ready=False/DoesNotExist, Issuing=False/Failed", 0},
		"the wait ends when the issuer changes": {
			func(s *scene) {
				s.requested().failed("Failed")
				s.carryOut(Decide(s.Observation))
				s.after(time.Minute).Issuer.GenericIssuer.(*cmapi.Issuer).Generation++
			}, "delete web-1, request web-1, Ready=False/DoesNotExist, Issuing=False/Failed", 0},
		"the wait goes on when the failed request is deleted": {
			func(s *scene) {
				s.requested().failed("Failed")
				s.carryOut(Decide(s.Observation))
				s.after(time.Minute).Next = nil
			}, "Ready=False/DoesNotExist, Issuing=False/Failed", time.Hour},
		"an invalid request waits for a change, not for time": {
			func(s *scene) {
				s.requested().failed("Failed")
				cmapi.SetCertificateRequestCondition(
					&s.Next.Status, s.Now,
					cmapi.CertificateRequestCondition{Type: "InvalidRequest", Status: "True", Message: "bad"},
				)
				s.carryOut(Decide(s.Observation))
				s.after(100 * day)
			}, "Ready=False/DoesNotExist, Issuing=False/InvalidRequest", 0},
		"a failed renewal leaves a good certificate ready": {
			func(s *scene) { s.issued().after(61 * day).requested().failed("Denied") }, "Ready=True/Ready, " +
				"Issuing=False/Denied", 0},

		// Private keys that take long.
		"an RSA key is generated before anything else is done": {
			func(s *scene) { s.rsa() }, "generate key, hold status", settleTime},
		"the request that is replaced stays until the key is there": {
			func(s *scene) { s.requested().KeyInMemory = nil; s.rsa() }, "generate key, hold status", settleTime},
		"what takes longer is reported": {
			func(s *scene) { s.rsa().after(3 * time.Second).NewKeySince = created },
			"generate key, Ready=False/DoesNotExist, Issuing=True/DoesNotExist", 0},
		"with the key the request is made": {
			func(s *scene) { s.rsa().NewKey = s.newKey() }, "request web-1, hold status", 0},
		"also at an issuer outside of the process": {
			func(s *scene) { s.external().rsa().NewKey = s.newKey() },
			"store key, request web-1, Ready=False/DoesNotExist, Issuing=True/DoesNotExist", 0},
		"a key that is kept needs no other": {
			func(s *scene) {
				s.issued().issuingBecause("ManuallyTriggered").Certificate.Spec.PrivateKey.RotationPolicy = "Never"
			}, "request web-2, hold status", 0},
		"nothing is generated for what waits": {
			func(s *scene) {
				s.rsa().Issuances.History = earlyissuance.History{Counted: 3, Last: created, Edited: [2]time.Time{created, created}}
			},
			"Ready=False/DoesNotExist, Issuing=False/ReissueDelayed", 8 * time.Minute},

		// What cannot be requested.
		"a spec that no request can be made of": {
			func(s *scene) { s.Certificate.Spec.SignatureAlgorithm = "SHA256WithRSA" }, "Ready=False/DoesNotExist, " +
				"Issuing=False/InvalidSpec", 0},
		"a key that must be kept and does not fit": {
			func(s *scene) {
				s.issued()
				s.Certificate.Spec.PrivateKey.RotationPolicy, s.Certificate.Spec.PrivateKey.Size = "Never", 384
			}, "Ready=False/SecretMismatch, Issuing=False/CannotRegenerateKey", 0},
		"a key that must be kept and cannot be read": {
			func(s *scene) {
				s.issued().Secret.Data["tls.key"] = []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED " +
					"PRIVATE KEY-----\n")
				s.Certificate.Spec.PrivateKey.RotationPolicy = "Never"
			}, "Ready=False/InvalidKeyPair, Issuing=False/CannotRegenerateKey", 0},
		"or that was put there while the certificate was on its way": {
			func(s *scene) {
				s.external().requested().stored().signed()
				s.Secret = &corev1.Secret{Data: map[string][]byte{"tls.key": []byte("mine")}}
				s.Certificate.Spec.PrivateKey.RotationPolicy = "Never"
			}, "Ready=False/MissingData, Issuing=False/CannotRegenerateKey", 0},
		"one that may be replaced is": {
			func(s *scene) { s.issued().Secret.Data["tls.key"] = []byte("mine") }, "request web-2, hold status", 0},
		"a large RSA key for a certificate that lives for minutes": {
			func(s *scene) {
				s.Certificate.Spec.PrivateKey = &cmapi.CertificatePrivateKey{Algorithm: "RSA", Size: 8192}
				s.Certificate.Spec.Duration = duration(30 * time.Minute)
			}, "Ready=False/DoesNotExist, Issuing=False/InvalidSpec", 0},
		"more names than fit into what is read of a request": {
			func(s *scene) {
				for n := range 1200 {
					s.Certificate.Spec.DNSNames = append(s.Certificate.Spec.DNSNames, fmt.Sprintf("host-%04d.names.example.com", n))
				}
			}, "Ready=False/DoesNotExist, Issuing=False/InvalidSpec", 0},
		"a name from before it was refused that can be none": {
			func(s *scene) { s.Certificate.Spec.DNSNames = noNames }, "Ready=False/DoesNotExist, Issuing=False/InvalidSpec", 0},
		"or of a CA in this process": {
			func(s *scene) {
				s.Issuer.GetSpec().IssuerConfig = cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "ca"}}
				s.Certificate.Spec.DNSNames = noNames
			}, "Ready=False/DoesNotExist, Issuing=False/InvalidSpec", 0},
		"or of an ACME server": {
			func(s *scene) {
				s.solvedBy(cmacme.ACMEChallengeSolver{}).Certificate.Spec.DNSNames = noNames
			}, "Ready=False/DoesNotExist, Issuing=False/InvalidSpec", 0},
		"or of another project's issuer": {
			func(s *scene) { s.external().Certificate.Spec.DNSNames = noNames },
			"Ready=False/DoesNotExist, Issuing=False/InvalidSpec", 0},
		"or beside one that the certificate has": {
			func(s *scene) { s.issued().Certificate.Spec.DNSNames = noNames },
			"Ready=False/RequestChanged, Issuing=False/InvalidSpec", 0},
		"a certificate that has such a name stays ready": {
			func(s *scene) {
				s.Certificate.Spec.DNSNames = noNames
				s.issued()
			}, "Ready=True/Ready", 0},
		"and is renewed": {
			func(s *scene) {
				s.Certificate.Spec.DNSNames = noNames
				s.issued().after(61 * day)
			}, "request web-2, hold status", 0},
		"wrong windows of a good certificate are told, and do not let it expire": {
			func(s *scene) { s.issued().Certificate.Spec.Renewal = weekly("", "61 * * * *", time.Hour) },
			"Ready=True/Ready, Issuing=False/WindowError", 0},

		// Others.
		"an older Certificate with the same Secret has it": {
			func(s *scene) {
				s.Rivals = []*cmapi.Certificate{
					{ObjectMeta: metav1.ObjectMeta{Name: "older", CreationTimestamp: metav1.NewTime(created.Add(-time.Hour))}},
				}
			}, "Ready=False/IncorrectCertificate", 0},
		"a younger one does not": {
			func(s *scene) {
				s.Rivals = []*cmapi.Certificate{
					{ObjectMeta: metav1.ObjectMeta{Name: "younger", CreationTimestamp: metav1.NewTime(created.Add(time.Hour))}},
				}
			}, "request web-1, hold status", 0},
		"a request of another owner is not touched": {
			func(s *scene) {
				s.requested().Next.OwnerReferences = nil
				delete(s.Next.Annotations, cmapi.CertificateNameKey)
			},
			"Ready=False/DoesNotExist, Issuing=False/NameTaken", 0},
		"one of a Certificate that was deleted is": {
			func(s *scene) { s.requested().Next.OwnerReferences[0].UID = "earlier" }, "delete web-1, request web-1, hold " +
				"status", 0},
		"a stand-in while the issuer takes its time": {
			func(s *scene) {
				s.external().Certificate.Annotations = map[string]string{cmapi.IssueTemporaryCertificateAnnotation: "true"}
			},
			"store key, request web-1, stand in, Ready=False/DoesNotExist, Issuing=True/DoesNotExist", 0},
		"a missing keystore password is waited for, and the key kept": {
			func(s *scene) {
				s.requested().signed()
				s.Certificate.Spec.Keystores = &cmapi.CertificateKeystores{JKS: &cmapi.JKSKeystore{Create: true}}
				s.JKSPassword = Password{Problem: "no password"}
			}, "store key, Ready=False/DoesNotExist, Issuing=True/DoesNotExist", 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			test.scene(s)
			d := Decide(s.Observation)
			if got := outcome(d); got != test.want {
				t.Errorf("decided:\n  %s\nwant:\n  %s", got, test.want)
			}
			if test.again != 0 && !d.Again.Equal(created.Add(test.again)) {
				t.Errorf("looks again after %s (%s), want after %s", d.Again.Sub(created), d.Why, test.again)
			}
			// The pass after it finds nothing more to write, unless a request is under way.
			if d.Request == nil && d.StoreKey == nil && d.Generate == nil && !d.HoldStatus {
				s.carryOut(d)
				if again := Decide(
					s.Observation,
				); again.Apply != nil || again.Request != nil ||
					len(again.DeleteRequests) > len(d.DeleteRequests) {
					t.Errorf("a second look decides: %s", outcome(again))
				}
			}
		})
	}
}

func TestWhyAnIssuanceBeganIsReportedOnceHoweverLongItsKeyTakes(t *testing.T) {
	for name, prepare := range map[string]func(s *scene){
		"at an issuer that answers at once":       func(*scene) {},
		"at one that answers at once, a long key": func(s *scene) { s.after(3 * time.Second).NewKeySince = created },
		"at an issuer outside of the process":     func(s *scene) { s.external() },
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t).rsa()
			prepare(s)
			waits := Decide(s.Observation)
			if waits.Generate == nil {
				t.Fatalf("it decides: %s", outcome(waits))
			}
			if !waits.HoldStatus {
				s.Certificate.Status = waits.Status
			}
			s.NewKey = s.newKey()
			told := 0
			for _, e := range append(eventsOf(waits), eventsOf(Decide(s.Observation))...) {
				if e.Reason == "Issuing" && e.Message == "Issuing certificate as Secret does not exist" {
					told++
				}
			}
			if told != 1 {
				t.Errorf("it is told %d times", told)
			}
		})
	}
}
