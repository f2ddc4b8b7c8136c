package account

import (
	"testing"
	"time"

	"github.com/perennial-pki/perennial/acme"
	"github.com/perennial-pki/perennial/internal/fault"
)

func TestWhatACAMeansByAProblem(t *testing.T) {
	now := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	limit, caa := acme.Problem{Type: acme.ProblemRateLimited}, acme.Problem{Type: acme.ProblemCAA}
	for name, test := range map[string]struct {
		problem acme.Problem
		class   fault.Class
		reason  string
		in      time.Duration
		limit   bool
	}{
		"a limit":                         {acme.Problem{Type: acme.ProblemRateLimited, Status: 429, RetryAfter: now.Add(time.Minute)}, fault.Limited, "Why", time.Minute, true},
		"a limit, as a proxy says it":     {acme.Problem{Status: 429}, fault.Limited, "Why", time.Hour, true},
		"a limit with another status":     {acme.Problem{Type: acme.ProblemRateLimited, Status: 403}, fault.Limited, "Why", time.Hour, true},
		"one of each name":                {acme.Problem{Type: acme.ProblemCompound, Status: 403, Subproblems: []acme.Problem{limit, limit}}, fault.Limited, "Why", time.Hour, true},
		"one of some names":               {acme.Problem{Type: acme.ProblemCompound, Status: 403, Subproblems: []acme.Problem{limit, caa}}, fault.Refused, "Why", 0, false},
		"a limit that ends in a month":    {acme.Problem{Status: 429, RetryAfter: now.AddDate(0, 1, 0)}, fault.Limited, "Why", 7 * 24 * time.Hour, true},
		"a limit that has ended":          {acme.Problem{Status: 429, RetryAfter: now}, fault.Limited, "Why", 10 * time.Second, true},
		"a limit that ends in a moment":   {acme.Problem{Status: 429, RetryAfter: now.Add(time.Millisecond)}, fault.Limited, "Why", time.Second, true},
		"a limit of our address":          {acme.Problem{Status: 429, Action: "newNonce"}, fault.Limited, "Why", time.Minute, false},
		"the same, and until when":        {acme.Problem{Status: 429, Action: "directory", RetryAfter: now.Add(time.Hour)}, fault.Limited, "Why", time.Hour, false},
		"a busy CA":                       {acme.Problem{Status: 503, RetryAfter: now.Add(time.Minute)}, fault.Limited, fault.Busy, time.Minute, false},
		"a busy CA that says it as limit": {acme.Problem{Type: acme.ProblemRateLimited, Status: 503}, fault.Limited, fault.Busy, time.Hour, false},
		"a CA in trouble":                 {acme.Problem{Status: 503}, fault.Transient, "Why", 0, false},
		"a page to visit":                 {acme.Problem{Type: acme.ProblemUserActionRequired, Status: 403}, fault.Limited, "Why", 10 * time.Minute, false},
		"a refusal":                       {acme.Problem{Type: acme.ProblemRejectedIdentifier, Status: 400}, fault.Refused, "Why", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := fault.Of(Classify("Why", now, &test.problem))
			if f.Class != test.class || f.Reason != test.reason || test.in > 0 && f.Until.Sub(now) != test.in {
				t.Errorf("%+v", f)
			}
			if is := Limited(&test.problem) != nil; is != test.limit {
				t.Errorf("it is a limit: %t", is)
			}
		})
	}
}
