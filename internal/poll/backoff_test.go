package poll

import (
	"testing"
	"time"
)

// TestAServerIsAskedPolitelyHoweverLongItTakes walks through waits for a server, and counts the
// questions.
func TestAServerIsAskedPolitelyHoweverLongItTakes(t *testing.T) {
	start := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		says        func(now time.Time) time.Time
		takes       time.Duration
		least, most int
		late        time.Duration
	}{
		"it does not say when":                          {nil, 20 * time.Minute, 25, 32, time.Minute},
		"it takes a few seconds":                        {nil, 5 * time.Second, 3, 4, 4 * time.Second},
		"it says in five minutes":                       {func(now time.Time) time.Time { return now.Add(5 * time.Minute) }, 20 * time.Minute, 4, 4, 5 * time.Minute},
		"it says now":                                   {func(now time.Time) time.Time { return now }, 20 * time.Minute, 200, 230, 6 * time.Second},
		"it says a time that has passed":                {func(now time.Time) time.Time { return now.Add(-time.Hour) }, 20 * time.Minute, 200, 230, 6 * time.Second},
		"it says in a month, and is asked all the same": {func(now time.Time) time.Time { return now.AddDate(0, 1, 0) }, 90 * time.Minute, 2, 2, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			var p Backoff
			now, asked := start, 0
			for now.Before(start.Add(test.takes)) {
				var says time.Time
				if test.says != nil {
					says = test.says(now)
				}
				wait := p.Next(now, says)
				if early := p.Wait(now.Add(wait / 2)); early <= 0 {
					t.Fatalf("after half of %s it may be asked", wait)
				}
				now = now.Add(wait)
				if early := p.Wait(now); early > 0 {
					t.Fatalf("after %s it may not be asked for %s", wait, early)
				}
				asked++
			}
			if asked < test.least || asked > test.most {
				t.Errorf("it was asked %d times", asked)
			}
			if late := now.Sub(start.Add(test.takes)); late > test.late {
				t.Errorf("it was asked %s too late", late)
			}
		})
	}
}
