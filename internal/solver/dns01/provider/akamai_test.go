package provider

import (
	"errors"
	"testing"

	"github.com/perennial-pki/perennial/internal/solver"
	"github.com/perennial-pki/perennial/internal/solver/dns01/lego"
)

// TestAZoneOfAkamaiIsChangedByOneChallengeAtATime starts further challenges while one changes a
// record.
func TestAZoneOfAkamaiIsChangedByOneChallengeAtATime(t *testing.T) {
	var locks lego.Records
	ours := &akamaiRecords{host: "https://ours.example", locks: &locks}
	record := Record{FQDN: "_acme-challenge.www.example.com.", Zone: "example.com."}
	done, err := ours.Lock(t.Context(), record)
	if err != nil {
		t.Fatal(err)
	}
	theirs := &akamaiRecords{host: "https://theirs.example", locks: &locks}
	other := Record{FQDN: "_acme-challenge.api.example.com.", Zone: "example.com."}
	for name, test := range map[string]struct {
		p     *akamaiRecords
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
			free, err := test.p.Lock(t.Context(), test.r)
			if later := new(solver.RetryLaterError); errors.As(err, &later) != test.waits {
				t.Fatalf("the error is %v", err)
			}
			if err == nil {
				free()
			}
		})
	}
	done()
	if done, err = ours.Lock(t.Context(), other); err != nil {
		t.Errorf("the zone is not free afterwards: %v", err)
	} else {
		done()
	}
}
