package lifecycle

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

func TestTheSuggestedMomentIsNotOverwritten(t *testing.T) {
	s := newScene(t).suggested(50*day, 51*day)
	first := s.Certificate.Status.RenewalTime
	if first == nil || first.Sub(created) < 50*day || first.Sub(created) > 51*day {
		t.Fatalf("renewal at %s", first)
	}
	for range 5 {
		d := Decide(s.after(7 * day).Observation)
		if at := d.Status.RenewalTime; at == nil || !at.Equal(first) {
			t.Fatalf("renewal at %s, want at %s", at, first)
		}
		if !d.Again.Equal(first.Time) {
			t.Errorf("looks again at %s (%s), want at %s exactly", d.Again, d.Why, first)
		}
		s.carryOut(d)
	}
}

func TestASuggestionOutlivesAnIssuerThatIsAwayForAWhile(t *testing.T) {
	// By its own rule it would be renewed when two thirds of its life are over.
	s := newScene(t).suggested(66*day, 67*day)
	want, issuer := s.Certificate.Status.RenewalTime, s.Issuer
	s.Issuer = nil // such as while its manifest is applied anew
	d := Decide(s.after(63 * day).Observation)
	if at := d.Status.RenewalTime; at == nil || !at.Equal(want) || d.Request != nil {
		t.Errorf("%s, renewal at %s, want at %s", outcome(d), at, want)
	}
	s.carryOut(d)
	// It goes just when the next certificate is there, which the CA wanted at once.
	gone := newScene(t).suggested(-2*time.Hour, -time.Hour).requested().signed()
	gone.Issuer = nil
	if d := Decide(gone.Observation); d.Issued == nil || d.Status.ACME == nil || d.Status.ACME.ARI.AtOnce == nil {
		t.Errorf("%s, and remembered is %+v", outcome(d), d.Status.ACME)
	}
	s.Issuer = issuer
	if d := Decide(s.Observation); d.Request != nil || !d.Status.RenewalTime.Equal(want) {
		t.Errorf("%s, renewal at %s, want at %s", outcome(d), d.Status.RenewalTime, want)
	}
}

func TestRenewBeforeThatIsNotFollowedIsReportedWhenItIsSet(t *testing.T) {
	s := newScene(t).suggested(50*day, 51*day)
	told := func() int { return strings.Count(fmt.Sprint(Decide(s.Observation).Events), "RenewBeforeIgnored") }
	if n := told(); n != 0 {
		t.Fatalf("there are %d events without renewBefore", n)
	}
	// The moment stays the same, as it is not followed.
	s.Certificate.Spec.RenewBefore, s.Certificate.Generation = duration(60*day), 2
	if n := told(); n != 1 {
		t.Errorf("it is told %d times", n)
	}
	s.carryOut(Decide(s.Observation))
	if n := told(); n != 0 {
		t.Errorf("it is told again")
	}
}

func TestAClockThatWasAheadHoldsUpNoRenewal(t *testing.T) {
	const ahead = 10 * day
	t.Run("when the certificate was issued", func(t *testing.T) {
		s := newScene(t).ofACME()
		s.life = 160 * time.Hour
		s.Now = created.Add(ahead)
		s.requested()
		s.Now = created // that of the CA is right
		s.signed()
		s.Now = created.Add(ahead)
		s.carryOut(Decide(s.Observation))
		s.Now = created
		if at := Decide(s.Observation).Status.RenewalTime; at == nil || at.Sub(created) > s.life*2/3 {
			t.Errorf("renewal at %s, the certificate ends at %s", at, created.Add(s.life))
		}
	})
	t.Run("when the CA wanted the one before to be renewed at once", func(t *testing.T) {
		s := newScene(t).suggested(-2*time.Hour, -time.Hour).renewedAtOnce(ahead + time.Hour)
		if d := Decide(s.Observation); d.Request == nil {
			t.Errorf("%s, renewal at %s", outcome(d), d.Status.RenewalTime)
		}
	})
}

func TestAHeldRenewalIsReportedOnce(t *testing.T) {
	s := newScene(t).suggested(-2*time.Hour, -time.Hour).renewedAtOnce(time.Hour)
	d := Decide(s.Observation)
	if len(d.Events) != 1 || d.Events[0].Type != corev1.EventTypeWarning || d.Events[0].Reason != "RenewalHeld" {
		t.Fatalf("the events are %+v", d.Events)
	}
	for _, words := range []string{
		"suggests renewal between 2026-06-01T10:00:00Z and 2026-06-01T11:00:00Z", "(1 in a row, since 2026-06-01T12:00:00Z)", "is renewed at 2026-06-01T13:00:00Z", "renewalInformationSource: None",
	} {
		if !strings.Contains(d.Events[0].Message, words) {
			t.Errorf("there is no %q in %s", words, d.Events[0].Message)
		}
	}
	if at := d.Status.RenewalTime; at == nil || !at.Time.Equal(created.Add(time.Hour)) || !d.Again.Equal(at.Time) {
		t.Errorf("it is renewed at %s, and looked at again at %s", at, d.Again)
	}
	s.carryOut(d)
	if d := Decide(s.after(time.Minute).Observation); len(d.Events) > 0 {
		t.Errorf("it tells %+v again", d.Events)
	}
}

func TestACertificateThatIsDueWhenItIsIssuedIsInUseForAnHourAndThatIsReportedOnce(t *testing.T) {
	s := newScene(t).requested()
	s.after(-80 * day).signed().after(80 * day) // by the clock of the CA
	d := Decide(s.Observation)
	told := slices.IndexFunc(d.Events, func(e Event) bool { return e.Reason == "RenewalHeld" })
	if told < 0 || d.Events[told].Type != corev1.EventTypeWarning {
		t.Fatalf("the events are %+v", d.Events)
	}
	for _, words := range []string{
		"asked for at 2026-06-01T12:00:00Z, is valid from 2026-03-13T12:00:00Z",
		"The clock of the CA is wrong, or that of this cluster", "next at 2026-06-01T13:00:00Z",
	} {
		if !strings.Contains(d.Events[told].Message, words) {
			t.Errorf("there is no %q in %s", words, d.Events[told].Message)
		}
	}
	s.carryOut(d)
	if d := Decide(
		s.after(59 * time.Minute).Observation,
	); len(d.Events) > 0 || d.Request != nil ||
		!d.Again.Equal(created.Add(time.Hour)) {
		t.Errorf("it tells %+v, asks for %+v, and looks again at %s", d.Events, d.Request, d.Again)
	}
	s.carryOut(d)
	if d := Decide(s.after(time.Minute).Observation); d.Request == nil {
		t.Error("it is not renewed after an hour")
	}
}

func TestARenewalAtOnceIsRememberedOfTheSameIssuerOnly(t *testing.T) {
	for name, test := range map[string]struct {
		scene      func(*scene)
		remembered bool
	}{
		"of the one that has issued both": {func(*scene) {}, true},
		"not of another":                  {func(s *scene) { s.Certificate.Spec.IssuerRef.Name = "other" }, false},
		"not if the CA is not to be asked": {func(s *scene) {
			s.issuingBecause("Rotated").Issuer.GetSpec().ACME.RenewalInformationSource = cmacme.ACMERenewalInformationSourceNone
		}, false},
		"nor if there was no certificate": {func(s *scene) { s.Secret = nil }, false},
		"also if the status was not written then": {func(s *scene) {
			status, next := *s.Certificate.Status.DeepCopy(), s.Next
			s.carryOut(Decide(s.signed().Observation))
			s.Certificate.Status, s.Next = status, next
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t).suggested(-2*time.Hour, -time.Hour).after(time.Minute).requested()
			s.Issuer.GetStatus().ACME = &cmacme.ACMEIssuerStatus{URI: "https://ca/account/1"}
			s.Certificate.Status.ACME.ARI.LastChecked = ptr.To(metav1.NewTime(created))
			test.scene(s)
			if s.Next != nil {
				s.Next.Spec.IssuerRef = s.Certificate.Spec.IssuerRef
				s.signed()
			}
			d := Decide(s.Observation)
			acme := d.Status.ACME
			if d.Status.Revision == nil || *d.Status.Revision != 2 {
				t.Fatal(outcome(d))
			}
			if (acme != nil) != test.remembered ||
				acme != nil &&
					(acme.ARI.AtOnce.Renewals != 1 || acme.ARI.Account != "https://ca/account/1" || acme.ARI.SuggestedWindow != nil) {
				t.Errorf("it is %+v", acme)
			}
		})
	}
}
