package earlyissuance

import (
	"testing"
	"time"
)

var began = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// minutes returns when, after the first, counted issuances may start if the cause persists.
func minutes(cause Cause, n int) (at []float64) {
	var h History
	now := began
	for range n {
		if next := h.Next(cause, now); next.After(now) {
			now = next
		}
		h = h.Count(cause, now)
		at = append(at, now.Sub(began).Minutes())
	}
	return at
}

func TestCountedIssuancesAreSpacedByATimeThatGrows(t *testing.T) {
	for cause, want := range map[Cause][]float64{
		SecretOverwritten: {0, 2, 6, 14, 30, 62, 126, 254, 510, 1022, 2046, 3486, 4926},
		RequestLost:       {0, 2, 6, 14},
		DueAtOnce:         {0, 2, 6, 14},
		// The first two in an hour start at once, with any history.
		SecretMissing: {0, 0, 4, 12, 28, 60, 88, 120, 148},
		SpecChanged:   {0, 0, 4, 12, 28, 60, 88},
		IssuerChanged: {0, 0, 4},
		Triggered:     {0, 0, 4},
		Revoked:       {0, 0, 0, 0, 16, 48, 60},
	} {
		if got := minutes(cause, len(want)); !equal(got, want) {
			t.Errorf("%s: after minutes %v, want %v", cause, got, want)
		}
	}
}

func equal(a, b []float64) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return len(a) == len(b)
}

func TestHowAHistoryIsRead(t *testing.T) {
	ago := func(minutes int) time.Time { return began.Add(-time.Duration(minutes) * time.Minute) }
	five := History{Counted: 5, Last: began, Other: began} // the floor is 32 minutes
	for name, test := range map[string]struct {
		history History
		cause   Cause
		after   time.Duration
		want    time.Duration // until it may start
	}{
		"nothing was counted":            {History{}, SecretOverwritten, 0, 0},
		"the first was by another cause": {History{Counted: 1, Last: began, Other: began}, SecretMissing, time.Second, 0},
		"the second of a cause that is not a user's": {
			History{Counted: 1, Last: began, Other: began}, SecretOverwritten, 30 * time.Second, 90 * time.Second},
		"the first of these, after edits": {
			History{Counted: 2, Last: began, Edited: [2]time.Time{began, began}}, SecretOverwritten, 0, 0},
		"many":                        {five, SecretOverwritten, time.Minute, 31 * time.Minute},
		"many, and the first by hand": {five, Triggered, time.Minute, 0},
		"by hand after two edits": {
			History{Counted: 2, Last: began, Edited: [2]time.Time{began, began}}, Triggered, 0, 0},
		"a revocation after all others": {
			History{Counted: 7, Last: began, Other: began, Edited: [2]time.Time{began, began},
				Triggered: [2]time.Time{began, began}}, Revoked, 0, 0},
		"an edit after two by hand": {
			History{Counted: 2, Last: began, Triggered: [2]time.Time{began, began}}, SpecChanged, 0, 0},
		"the third edit": {
			History{Counted: 2, Last: began, Edited: [2]time.Time{began, ago(1)}}, IssuerChanged, 0, 4 * time.Minute},
		"when the hour of the last edit but one ends": {
			History{Counted: 9, Last: began, Edited: [2]time.Time{began, ago(50)}}, SpecChanged, time.Minute, 9 * time.Minute},
		"forgotten after twice the floor": {five, SecretOverwritten, 65 * time.Minute, 0},
		"not before": {
			History{Counted: 8, Last: began, Other: began}, SecretOverwritten, 255 * time.Minute, time.Minute},
		"a clock that was ahead holds up nothing": {
			History{Counted: 2, Last: ago(-90 * 24 * 60), Other: ago(-90 * 24 * 60)}, SecretOverwritten, 0, 4 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			now := began.Add(test.after)
			if got := max(0, test.history.Next(test.cause, now).Sub(now)); got != test.want {
				t.Errorf("waits for %s, want %s", got, test.want)
			}
		})
	}
	if h := five.Count(SpecChanged, began.Add(3*time.Hour)); h.Counted != 1 || !h.Other.IsZero() {
		t.Errorf("a history that is forgotten goes on as %+v", h)
	}
}
