package lifecycle

import (
	"strings"
	"testing"
	"time"
)

func TestAManuallyTriggeredRequestSaysSo(t *testing.T) {
	for name, test := range map[string]struct {
		scene  func(*scene)
		manual bool
	}{
		"a renewal":              {func(s *scene) { s.issued().after(61 * day) }, false},
		"by hand":                {func(s *scene) { s.issued().issuingBecause("ManuallyTriggered") }, true},
		"for another reason":     {func(s *scene) { s.issued().issuingBecause("Rotated") }, false},
		"the first, by hand":     {func(s *scene) { s.issuingBecause("ManuallyTriggered") }, true},
		"in place of one paused": {func(s *scene) { s.requested().paused().after(time.Minute).issuingBecause("ManuallyTriggered") }, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			test.scene(s)
			if d := Decide(s.Observation); d.Request == nil || (d.Request.ManualTrigger != "") != test.manual {
				t.Errorf("%s: %+v", outcome(d), d.Request)
			}
		})
	}
}

func TestATriggerInTheSecondOfAFailureIsForAnotherAttempt(t *testing.T) {
	s := newScene(t).requested().failed("Failed").issuingBecause("ManuallyTriggered")
	d := Decide(s.Observation)
	if d.Request == nil || d.Request.Attempt != 2 || d.ForgetKey != "" {
		t.Fatalf("%s: %+v", outcome(d), d.Request)
	}
	if events := eventsOf(
		d,
	); len(events) < 2 || events[0].Reason != "Failed" ||
		!strings.Contains(events[0].Message, "the CA said no") {
		t.Errorf("events %v", events)
	}
	if n := d.Status.FailedIssuanceAttempts; n == nil || *n != 1 || d.Failed != "Failed" {
		t.Errorf("the failure is not counted: %v", n)
	}
}
