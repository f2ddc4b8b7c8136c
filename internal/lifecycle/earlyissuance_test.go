package lifecycle

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/earlyissuance"
	"github.com/perennial-pki/perennial/pki"
)

// counted sets a history of so many issuances until a minute ago, one or two of each kind.
func (s *scene) counted(n int) *scene {
	last := s.Now.Add(-time.Minute)
	s.Issuances.History = earlyissuance.History{Counted: n, Last: last, Edited: [2]time.Time{last},
		Triggered: [2]time.Time{last}, Other: last}
	if n > 1 {
		s.Issuances.Edited[1], s.Issuances.Triggered[1] = last.Add(-time.Second), last.Add(-time.Second)
	}
	return s
}

// overwritten puts another pair into the Secret, as a field manager of that name.
func (s *scene) overwritten(manager string) *scene {
	s.Helper()
	key := s.newKey()
	encoded, err := pki.EncodeKeyPEM(key, "")
	if err != nil {
		s.Fatal(err)
	}
	s.Secret.Data["tls.key"], s.Secret.Data["tls.crt"] = encoded, pki.EncodeCertificatePEM(s.certificateFor(key))
	at := metav1.NewTime(s.Now)
	s.Secret.ManagedFields = append(s.Secret.ManagedFields, metav1.ManagedFieldsEntry{
		Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, Time: &at,
		FieldsV1: metav1.NewFieldsV1(`{"f:data":{"f:tls.crt":{},"f:tls.key":{}}}`),
	})
	return s
}

func TestWhichIssuancesCountAndWhichWait(t *testing.T) {
	expired := func(s *scene) *x509Pair { return s.expiredPair() }
	for name, test := range map[string]reissueCase{
		"the first":                        {func(*scene) {}, goes, ""},
		"a renewal":                        {func(s *scene) { s.issued().after(61 * day).counted(9) }, goes, ""},
		"a lost Secret of one that is due": {func(s *scene) { s.issued().after(61 * day).counted(9).Secret = nil }, goes, ""},
		"another attempt after the back-off": {func(s *scene) {
			s.requested().failed("Failed")
			s.carryOut(Decide(s.Observation))
			s.after(time.Hour).counted(9)
		}, goes, ""},
		"a renewal of what lives three minutes": {
			func(s *scene) { s.life = 3 * time.Minute; s.issued().after(2 * time.Minute).counted(9) }, goes, ""},
		"a request whose key went with a process that ended": {
			func(s *scene) { s.requested().KeyInMemory = nil; s.counted(9) }, goes, ""},

		"a lost Secret":            {func(s *scene) { s.issued().after(day).Secret = nil }, counts, ""},
		"a lost Secret, once more": {func(s *scene) { s.issued().after(day).counted(1).Secret = nil }, counts, ""},
		"a lost Secret, again": {
			func(s *scene) { s.issued().after(day).counted(2).Secret = nil }, waits,
			`Secret "web" or an entry of it, the CertificateRequest or the Certificate was deleted each time`},
		"a lost entry": {func(s *scene) { delete(s.issued().after(day).counted(1).Secret.Data, "tls.key") }, counts, ""},
		"another spec": {
			func(s *scene) { s.issued().after(day).counted(1).Certificate.Spec.DNSNames[0] = "a.example.com" }, counts, ""},
		"another spec, again": {
			func(s *scene) { s.issued().after(day).counted(2).Certificate.Spec.DNSNames[0] = "a.example.com" }, waits,
			"something changed the spec"},
		"another key type": {
			func(s *scene) { s.issued().after(day).counted(1).Certificate.Spec.PrivateKey.Size = 384 }, counts, ""},
		"another spec, in an attempt": {
			func(s *scene) { s.requested().counted(2).Certificate.Spec.DNSNames = []string{"a.example.com"} }, waits,
			"changed the spec"},
		"by hand": {func(s *scene) { s.issued().after(day).counted(1).issuingBecause("ManuallyTriggered") }, counts, ""},
		"by hand, again": {
			func(s *scene) { s.issued().after(day).counted(2).issuingBecause("ManuallyTriggered") }, waits, "by hand each time"},
		"by hand, in the back-off": {func(s *scene) {
			s.requested().failed("Failed")
			s.carryOut(Decide(s.Observation))
			s.after(time.Minute).counted(2).issuingBecause("ManuallyTriggered")
		}, waits, "by hand each time"},
		"another issuer, in the back-off": {func(s *scene) {
			s.requested().failed("Failed")
			s.carryOut(Decide(s.Observation))
			s.counted(2).Issuer.GenericIssuer.(*cmapi.Issuer).Generation++
		}, waits, `Issuer "ca" or its CA changed each time`},
		"overwritten": {func(s *scene) { s.issued().after(day).overwritten("vault") }, counts, ""},
		"overwritten, again": {func(s *scene) { s.issued().after(day).overwritten("vault").counted(1) }, waits,
			`the field manager "vault" (at 2026-06-02T12:00:00Z) changes Secret "web" after`},
		"overwritten, and another spec": {func(s *scene) {
			s.issued().after(day).overwritten("vault").counted(1).Certificate.Spec.DNSNames = []string{"a.example.com"}
		}, counts, ""},
		"overwritten by what has expired": {func(s *scene) {
			s.issued().after(day)
			pair := expired(s)
			s.Secret.Data["tls.key"], s.Secret.Data["tls.crt"] = pair.key, pair.crt
			s.counted(1)
		}, waits, "changes Secret"},
		"overwritten by what has expired, and the request deleted": {func(s *scene) {
			s.issued().after(day)
			pair := expired(s)
			s.Secret.Data["tls.key"], s.Secret.Data["tls.crt"] = pair.key, pair.crt
			s.Issuances.Latest = earlyissuance.Latest{Started: created, Due: created.Add(60 * day)}
			s.counted(1).Current = nil
		}, waits, "due as soon as they are issued"},
		"a key that is no key": {
			func(s *scene) { s.issued().after(day).counted(1).Secret.Data["tls.key"] = []byte("x") }, waits,
			"something else changes"},
		"the key of the request was deleted": {func(s *scene) {
			s.external().requested().counted(1).Issuances.Started = created
			s.KeyInMemory = nil
		}, waits, "Secrets that begin with web-"},
		"made anew under its name, with its Secret": {
			func(s *scene) {
				s.Issuances.Latest = earlyissuance.Latest{Started: created.Add(-time.Minute)}
				s.counted(2)
			}, waits,
			"the Certificate was deleted"},
		"made anew, in another process": {func(s *scene) { s.counted(2) }, waits, "the Certificate was deleted"},
		"made anew, the first time": {
			func(s *scene) { s.Issuances.Latest = earlyissuance.Latest{Started: created.Add(-time.Minute)} }, counts, ""},
		"made anew, when the one before is due": {func(s *scene) {
			s.Issuances.Latest = earlyissuance.Latest{Started: created.Add(-60 * day), Due: created.Add(-time.Minute)}
		}, goes, ""},
		"a clock that was ahead holds up nothing": {func(s *scene) {
			s.issued().after(61 * day).Issuances.Latest = earlyissuance.Latest{Started: created.Add(90 * day)}
		}, goes, ""},
	} {
		t.Run(name, func(t *testing.T) {
			test.check(t)
		})
	}
}

// reissueCase is a Certificate for which another certificate is to be requested, and whether that
// goes at once, counts as a re-issue, or waits.
type reissueCase struct {
	scene func(*scene)
	want  string
	says  string // in the message of Issuing
}

const goes, counts, waits = "goes", "counts", "waits"

func (test reissueCase) check(t *testing.T) {
	s := newScene(t)
	test.scene(s)
	d := Decide(s.Observation)
	got := waits
	if d.Request != nil {
		if got = goes; d.Request.Counts != "" {
			got = counts
		}
	}
	if got != test.want {
		t.Fatalf("it %s, want that it %s: %s", got, test.want, outcome(d))
	}
	if got != waits {
		return
	}
	c := cmapi.GetCertificateCondition(&d.Status, "Issuing")
	if c == nil || !strings.Contains(c.Message, test.says) || !strings.Contains(c.Message, "issued again at ") {
		t.Fatalf("Issuing is %+v, want %q", c, test.says)
	}
	if !d.Again.After(s.Now) || d.Again.Sub(s.Now) > time.Hour {
		t.Errorf("looks again at %s", d.Again)
	}
	told := 0
	for _, e := range d.Events {
		if e.Reason == "ReissueDelayed" && e.Type == corev1.EventTypeWarning {
			told++
		}
	}
	if told != 1 {
		t.Errorf("the events are %+v", d.Events)
	}
	// Nothing is written again until then. After that the condition is removed.
	s.carryOut(d)
	if again := Decide(s.after(time.Second).Observation); again.Request != nil || again.Apply != nil ||
		len(again.Events) > 0 {
		t.Errorf("a second later: %s, %+v", outcome(again), again.Events)
	}
	s.Now = d.Again
	if again := Decide(s.Observation); again.Request == nil || again.Request.Counts == "" {
		t.Errorf("at %s: %s", d.Again, outcome(again))
	}
}

// x509Pair is a key with its certificate, as PEM.
type x509Pair struct{ key, crt []byte }

func (s *scene) expiredPair() *x509Pair {
	s.Helper()
	now, key := s.Now, s.newKey()
	s.Now = now.Add(-100 * day)
	cert := s.certificateFor(key)
	s.Now = now
	encoded, err := pki.EncodeKeyPEM(key, "")
	if err != nil {
		s.Fatal(err)
	}
	return &x509Pair{encoded, pki.EncodeCertificatePEM(cert)}
}

func TestACertificateThatLivesForAMomentIsIssuedTwiceAMinute(t *testing.T) {
	s := newScene(t)
	s.life = 3 * time.Second
	d := Decide(s.issued().after(4 * time.Second).counted(1).Observation)
	if c := cmapi.GetCertificateCondition(&d.Status, "Issuing"); c == nil ||
		!strings.Contains(c.Message, "Correct the clock") {
		t.Fatalf("Issuing is %+v", c)
	}
	s.carryOut(d)
	if s.Now = d.Again; s.Now.Sub(created) != 30*time.Second {
		t.Errorf("looks again after %s", s.Now.Sub(created))
	}
	if d := Decide(s.Observation); d.Request == nil || d.Request.Counts != "" {
		t.Error(outcome(d))
	}
}

func TestATriggerThatWaitsStaysATrigger(t *testing.T) {
	s := newScene(t).issued().after(day).counted(2).issuingBecause("ManuallyTriggered")
	d := Decide(s.Observation)
	s.carryOut(d)
	c := cmapi.GetCertificateCondition(&s.Certificate.Status, "Issuing")
	if c.Status != "True" || c.Reason != "ManuallyTriggered" ||
		!strings.HasPrefix(c.Message, "because. Waiting: the certificate was issued") {
		t.Errorf("Issuing is %+v", c)
	}
	s.Now = d.Again
	if d := Decide(s.Observation); d.Request == nil || d.Request.ManualTrigger == "" ||
		d.Request.Events[0].Message != "because" {
		t.Errorf("%s, %+v", outcome(d), d.Request)
	}
}

func TestWhatIsRevokedIsReplacedAtOnceHoweverOftenItWasIssued(t *testing.T) {
	s := newScene(t).issued().after(day).counted(5).issuingBecause("Revoked")
	d := Decide(s.Observation)
	if d.Request == nil || d.Request.Counts != earlyissuance.Revoked || d.Request.ManualTrigger == "" {
		t.Errorf("%s, %+v", outcome(d), d.Request)
	}
}

func TestARenewBeforeThatIsNotFollowedIsAConditionAndReportedOnce(t *testing.T) {
	s := newScene(t)
	for _, test := range []struct {
		before     time.Duration
		percentage int32
		says       string // empty: it is followed
	}{
		{before: 89 * day, says: "spec.renewBefore 2136h0m0s asks for renewal before a tenth of the certificate's life of " +
			"2160h0m0s has passed: it is renewed after a tenth. Set 1944h0m0s at most"},
		{before: 81 * day},
		{before: 90 * day, says: "spec.renewBefore 2160h0m0s is not between 0 and the certificate's life"},
		{percentage: 90},
		{percentage: 91, says: "spec.renewBeforePercentage 91 asks for renewal before a tenth"},
		{percentage: -1, says: "Set from 1 to 90"},
		{before: 30 * day, percentage: 50, says: "both set: spec.renewBeforePercentage does not count. Remove it"},
		{before: 90 * day, percentage: 50, says: "both set: spec.renewBefore does not count. Remove it"},
		{before: 90 * day, percentage: 95, says: "does not count. Remove it. spec.renewBeforePercentage 95 asks for"},
	} {
		s.Certificate.Spec.RenewBefore, s.Certificate.Spec.RenewBeforePercentage = nil, nil
		if test.percentage != 0 {
			s.Certificate.Spec.RenewBeforePercentage = &test.percentage
		}
		if test.before != 0 {
			s.Certificate.Spec.RenewBefore = duration(test.before)
		}
		if s.Secret == nil {
			s.issued()
			s.Certificate.Status.Conditions = nil
		}
		d := Decide(s.Observation)
		c := cmapi.GetCertificateCondition(&d.Status, "RenewBeforeCapped")
		if (c != nil) != (test.says != "") || c != nil && !strings.Contains(c.Message, test.says) {
			t.Errorf("%+v: the condition is %+v, want %q", test, c, test.says)
		}
		s.carryOut(d)
		if again := Decide(s.after(time.Second).Observation); len(again.Events) > 0 {
			t.Errorf("it is reported again: %+v", again.Events)
		}
	}
}
