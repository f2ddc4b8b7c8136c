// Package provider changes the TXT records of DNS-01 challenges at DNS services: a file for each
// service. The table in services.go has a row for each, with all that the rest of the controller
// needs of it. Services whose API reads and writes records share the loop in recordsets.go.
package provider

import (
	"context"
	"time"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

// Record is one TXT value at one name.
type Record struct {
	// FQDN is the name of the record, after CNAMEs if those are followed, with a dot at its end.
	FQDN string
	// Zone is the apex of the zone that has the name in DNS, with a dot at its end.
	Zone string
	// Value is the TXT value.
	Value string
	// TTL applies if the name has no other values, which have theirs.
	TTL time.Duration
}

// A Provider changes the records of a zone. Present adds one value to the existing values of a
// name, and CleanUp removes that one value. Both may be repeated, also by another process, and obey
// ctx.
type Provider interface {
	Present(ctx context.Context, r Record) error
	CleanUp(ctx context.Context, r Record) error
}

// A Settler is a Provider that knows when a change has reached all of its servers.
type Settler interface {
	// Settled reports whether all servers have the last change of the record by this process, if there
	// was one.
	Settled(ctx context.Context, r Record) (bool, error)
}

// A Locker is a Provider whose changes can overwrite each other.
type Locker interface {
	// Lock locks what a change of the record overwrites, until unlock is called. The error is a
	// limiter.ErrBusy while another challenge has the lock.
	Lock(ctx context.Context, r Record) (unlock func(), err error)
}

// An Asynchronous provider makes calls that outlive Present and CleanUp, which return a
// solver.RetryLaterError. The calls take their own slots of the limiter.
type Asynchronous interface {
	// Busy checks the calls before any DNS query. It reports whether a call for the value is over, so
	// that its result can be fetched. The error says that a call is under way.
	Busy(ctx context.Context, value string) (over bool, err error)
	// Overwrites reports whether Present would remove all other values at the name, and has not begun.
	Overwrites(r Record) bool
}

// Traits are what the solver needs to know of a provider before it is made.
type Traits struct {
	// Capacity is how many values the provider can have at one name at the same time, or 0 if there is
	// no limit.
	Capacity int
	// Timeout bounds one change.
	Timeout time.Duration
	// BehindCNAME says that a CNAME always leads to the record.
	BehindCNAME bool
	// DropsOldValues says that the provider removes values by itself, so there is nothing to clean up.
	DropsOldValues bool
	// Settles says that the provider is a Settler that needs to be asked.
	Settles bool
	// MayKeepRecord says that the record may remain although CleanUp succeeds, or be gone although it
	// fails.
	MayKeepRecord bool
}

// Timeout bounds the preparation of a provider, and one change.
const Timeout = 20 * time.Second

// spec is a DNS-01 solver of an issuer.
type spec = cmacme.ACMEChallengeSolverDNS01

// TraitsOf returns the traits of the provider that a solver names.
func TraitsOf(s *cmacme.ACMEChallengeSolverDNS01) Traits {
	t := Traits{}
	if found := find(s); found != nil && found.traits != nil {
		t = found.traits(s)
	}
	if t.Timeout == 0 {
		t.Timeout = Timeout
	}
	return t
}

// Place returns where the values of a name are, for a provider with a Capacity. It is the name,
// unless several names share their values.
func Place(s *cmacme.ACMEChallengeSolverDNS01, fqdn string) string {
	if found := find(s); found != nil && found.place != nil {
		return found.place(s, fqdn)
	}
	return fqdn
}
