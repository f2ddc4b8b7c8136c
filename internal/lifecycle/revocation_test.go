package lifecycle

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/revocation"
	"github.com/perennial-pki/perennial/pki"
)

// ofACME makes the issuer an ACME issuer.
func (s *scene) ofACME() *scene {
	issuer := s.Issuer.GenericIssuer.(*cmapi.Issuer)
	issuer.Spec.SelfSigned, issuer.Spec.ACME = nil, &cmacme.ACMEIssuer{}
	return s
}

func (s *scene) revokedOnDelete(reason cmapi.RevocationReason) *scene {
	s.Certificate.Spec.Revocation = &cmapi.CertificateRevocation{OnDelete: true, Reason: reason}
	return s
}

func (s *scene) keepsKey() *scene {
	s.Certificate.Spec.PrivateKey.RotationPolicy = cmapi.RotationPolicyNever
	return s
}

// compromise records that the private key in the Secret is compromised.
func (s *scene) compromise() *scene {
	s.Helper()
	revocation.NoteCompromised(s.Secret, s.certificateFor(decodePair(s.Limits, s.Secret).key))
	return s
}

func TestWhatIsRevokedOnDeletionIsKnownBefore(t *testing.T) {
	for name, test := range map[string]struct {
		scene     func(*scene)
		finalizer bool
		// revocable says that the status has the certificate of the Secret, and condition that the status
		// says that it cannot be revoked.
		revocable, condition bool
	}{
		"spec.revocation is not set":     {func(s *scene) { s.ofACME().issued() }, false, false, false},
		"before anything is requested":   {func(s *scene) { s.ofACME().revokedOnDelete("") }, true, false, false},
		"when the certificate is stored": {func(s *scene) { s.ofACME().revokedOnDelete("").requested().signed() }, true, true, false},
		"afterwards":                     {func(s *scene) { s.ofACME().issued().revokedOnDelete("") }, true, true, false},
		"as long as a good one is in the Secret": {func(s *scene) {
			s.ofACME().revokedOnDelete("").issued().Certificate.Spec.DNSNames[0] = "other.example.com"
		}, true, true, false},
		"also if the Secret is lost": {func(s *scene) { s.ofACME().revokedOnDelete("").issued().Secret = nil }, true, true, false},
		"no longer when spec.revocation is removed": {func(s *scene) {
			s.ofACME().revokedOnDelete("").issued().Certificate.Finalizers = []string{revocation.Finalizer}
			s.Certificate.Spec.Revocation.OnDelete = false
		}, false, false, false},
		"an issuer that revokes nothing":        {func(s *scene) { s.revokedOnDelete("").issued() }, false, false, true},
		"an external issuer":                    {func(s *scene) { s.revokedOnDelete("").external() }, false, false, true},
		"an issuer that is not there yet":       {func(s *scene) { s.revokedOnDelete("").Issuer = nil }, false, false, false},
		"the issuer changed to one that cannot": {func(s *scene) { s.ofACME().revokedOnDelete("").issued().external() }, true, true, true},
		"and has issued the next one meanwhile": {func(s *scene) {
			s.ofACME().revokedOnDelete("").issued().external().Certificate.Finalizers = []string{revocation.Finalizer}
			s.requested().signed()
		}, false, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			test.scene(s)
			said := cmapi.GetCertificateCondition(&s.Certificate.Status, conditionNotRevocable) != nil
			d := Decide(s.Observation)
			if d.Finalizer != test.finalizer {
				t.Errorf("finalizer: %v", d.Finalizer)
			}
			switch r := d.Status.Revocable; {
			case (r != nil) != test.revocable:
				t.Errorf("revocable: %+v", r)
			case r == nil:
			case s.Secret != nil && d.Apply == nil && !bytes.Equal(r.Certificate, decodePair(s.Limits, s.Secret).chain[0].Raw):
				t.Error("it is not that of the Secret")
			case d.Apply != nil && !bytes.Equal(r.Certificate, d.Apply.Chain[0].Raw):
				t.Error("it is not the one that is stored")
			}
			if c := cmapi.GetCertificateCondition(&d.Status, conditionNotRevocable); (c != nil) != test.condition {
				t.Errorf("condition %+v", c)
			}
			if told := strings.Contains(fmt.Sprint(d.Events), "NotRevocable"); told != (test.condition && !said) {
				t.Errorf("events %v", d.Events)
			}
			s.carryOut(d)
			if again := Decide(s.Observation); strings.Contains(fmt.Sprint(again.Events), "NotRevocable") {
				t.Error("it says so again")
			}
		})
	}
}

func TestARevokedCertificateIsReplacedAndACompromisedKeyIsNotKept(t *testing.T) {
	for name, test := range map[string]struct {
		scene func(*scene)
		want  string
		kept  bool
	}{
		"a key that is to be kept is": {func(s *scene) { s.keepsKey().issued().issuingBecause("ManuallyTriggered") }, "request web-2, hold status", true},
		"not a compromised one":       {func(s *scene) { s.keepsKey().issued().compromise().issuingBecause("ManuallyTriggered") }, "request web-2, hold status", false},
		"the note is about one key alone": {func(s *scene) {
			s.keepsKey().issued().compromise().issuingBecause("ManuallyTriggered")
			key := s.newKey()
			other := s.certificateFor(key)
			s.Secret.Annotations["perennial.dev/compromised-key"] = "0"
			revocation.NoteCompromised(s.Secret, other)
		}, "request web-2, hold status", true},
		"a compromised key that does not fit is no reason to stop": {func(s *scene) {
			s.keepsKey().issued().compromise().Certificate.Spec.PrivateKey.Size = 384
		}, "request web-2, hold status", false},
		"a request for it is given up": {func(s *scene) {
			s.keepsKey().issued().issuingBecause("ManuallyTriggered")
			s.key = decodePair(s.Limits, s.Secret).key
			s.Next = s.requestFor(2, s.key)
			s.compromise()
		}, "delete web-2, request web-2, hold status", false},
		"a new Certificate does not go on with what was revoked": {func(s *scene) {
			s.issued()
			s.Secret.Annotations["perennial.dev/revoked"] = pki.Fingerprint(decodePair(s.Limits, s.Secret).chain[0])
			s.Certificate.Status, s.Current = cmapi.CertificateStatus{}, nil
		}, "request web-1, hold status", false},
		"it does with what was not": {func(s *scene) {
			s.issued()
			s.Secret.Annotations["perennial.dev/revoked"] = "0"
			s.Certificate.Status, s.Current = cmapi.CertificateStatus{}, nil
		}, "Ready=True/Ready", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			test.scene(s)
			d := Decide(s.Observation)
			if got := outcome(d); got != test.want {
				t.Errorf("decided: %s", got)
			}
			if d.Request != nil && (d.Request.Key != nil) != test.kept {
				t.Errorf("the key is kept: %v", d.Request.Key != nil)
			}
		})
	}
}
