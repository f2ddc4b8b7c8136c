package dns01

import (
	"errors"
	"testing"

	"github.com/perennial-pki/perennial/internal/solver"
)

// TestAZoneOfAkamaiIsChangedByOneChallengeAtATime starts further challenges while one changes a
// record.
func TestAZoneOfAkamaiIsChangedByOneChallengeAtATime(t *testing.T) {
	var s Solver
	ours := newAkamai("https://ours.example", edgeGrid{})
	record := Record{FQDN: "_acme-challenge.www.example.com.", Zone: "example.com."}
	done, err := s.aloneAtAkamai(t.Context(), ours, record)
	if err != nil {
		t.Fatal(err)
	}
	theirs := newAkamai("https://theirs.example", edgeGrid{})
	other := Record{FQDN: "_acme-challenge.api.example.com.", Zone: "example.com."}
	for name, test := range map[string]struct {
		p     *akamai
		r     Record
		waits bool
	}{
		"the same record":                   {ours, record, true},
		"another record of the zone":        {ours, other, true},
		"the same record by another client": {theirs, record, true},
		"another record by another client":  {theirs, other, false},
		"a record of another zone":          {ours, Record{FQDN: "_acme-challenge.example.net.", Zone: "example.net."}, false},
	} {
		t.Run(name, func(t *testing.T) {
			free, err := s.aloneAtAkamai(t.Context(), test.p, test.r)
			if later := new(solver.Later); errors.As(err, &later) != test.waits {
				t.Fatalf("the error is %v", err)
			}
			if err == nil {
				free()
			}
		})
	}
	done()
	if done, err = s.aloneAtAkamai(t.Context(), ours, other); err != nil {
		t.Errorf("the zone is not free afterwards: %v", err)
	} else {
		done()
	}
}
