package provider

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/solver/dns01/resolver"
)

// casAttempts is how often records are read and changed, because another client may change them in
// between.
const casAttempts = 4

// api is a service whose API reads and writes TXT records. S is what it reads at a name. Only
// recordSets calls it.
type api[S interface{ has(value string) bool }] interface {
	// zoneNamed returns the zone that the issuer names, or "" if it has to be found.
	zoneNamed(r Record) (string, error)
	// zoneAt returns the service's identifier of the zone with an apex. The error is errNoZone if
	// there is none, or else a privateZone or a zoneRefused, or it ends the search.
	zoneAt(ctx context.Context, apex string) (string, error)
	// noZone is the error if no zone has the record. private is a zone that has it, or "".
	noZone(r Record, private string) error
	// read returns the TXT records at the name of r. The error is a goneZone if the zone is gone.
	read(ctx context.Context, zone string, r Record) (S, error)
	// write adds the value of r, or removes it, if the records are as they were read. If not, the
	// error is errConflict. It returns the service's identifier of the change if its propagation can
	// be followed.
	write(ctx context.Context, zone string, r Record, was S, add bool) (change string, err error)
}

// propagating is an api that knows when a change has reached all servers.
type propagating interface {
	propagated(ctx context.Context, change string) (bool, error)
}

// recordSets is the Provider for an api. To change records it finds their zone, reads them, and
// writes them by compare and swap.
type recordSets[S interface{ has(value string) bool }] struct {
	api     api[S]
	zones   cache[string, string] // the service's identifiers by the apex in DNS
	changes cache[string, string] // the last changes by name and value
}

var (
	// errNoZone means that the service has no zone with an apex.
	errNoZone = errors.New("there is no such zone")
	// errConflict means that records must be read again, because they have changed or the write is not
	// confirmed yet.
	errConflict = errors.New("they are not as they were read before")
)

// privateZone is the error for a zone that no CA can see, which is used only if the issuer names
// it.
type privateZone struct{ id string }

// Error names the zone.
func (z privateZone) Error() string { return "zone " + z.id + " is private" }

// zoneRefused is the error of a service that does not show a zone, or does not say that it has
// none.
type zoneRefused struct{ error }

// goneZone is the error for a zone that no longer exists.
type goneZone struct{ error }

// Present adds the value.
func (s *recordSets[S]) Present(ctx context.Context, r Record) error { return s.change(ctx, r, true) }

// CleanUp removes the value.
func (s *recordSets[S]) CleanUp(ctx context.Context, r Record) error {
	s.changes.remove(changeKey(r))
	return s.change(ctx, r, false)
}

func changeKey(r Record) string { return r.FQDN + " " + r.Value }

func (s *recordSets[S]) change(ctx context.Context, r Record, add bool) error {
	zone, err := s.zone(ctx, r)
	if err != nil {
		return err
	}
	for range casAttempts {
		if err = s.changeOnce(ctx, zone, r, add); !errors.Is(err, errConflict) {
			break
		}
	}
	var gone goneZone
	switch {
	case errors.As(err, &gone): // it may have been created again
		s.zones.remove(r.Zone)
		return gone.error
	case errors.Is(err, errConflict): // the queue retries
		return fault.Transientf("PresentError", "change the TXT records of %s: %w", r.FQDN, err)
	}
	return err
}

func (s *recordSets[S]) changeOnce(ctx context.Context, zone string, r Record, add bool) error {
	was, err := s.api.read(ctx, zone, r)
	if err != nil || was.has(r.Value) == add {
		return err
	}
	change, err := s.api.write(ctx, zone, r, was, add)
	if err == nil && change != "" {
		s.changes.add(changeKey(r), change, maxChanges)
	}
	return err
}

// zone returns the service's identifier of the zone of a record: the zone that the issuer names, or
// that with the longest name.
func (s *recordSets[S]) zone(ctx context.Context, r Record) (string, error) {
	if named, err := s.api.zoneNamed(r); named != "" || err != nil {
		return named, err
	}
	if found, ok := s.zones.get(r.Zone); ok {
		return found, nil
	}
	private := ""
	var refused error
	for _, apex := range apexes(r) {
		zone, err := s.api.zoneAt(ctx, apex)
		var hidden privateZone
		var refusal zoneRefused
		switch {
		case err == nil:
			if resolver.FQDN(apex) == r.Zone { // another zone may be right for one name only
				s.zones.add(r.Zone, zone, maxZones)
			}
			return zone, nil
		case errors.Is(err, errNoZone):
		case errors.As(err, &hidden):
			private = hidden.id
		case errors.As(err, &refusal):
			if refused == nil {
				refused = refusal.error
			}
		default:
			return "", err
		}
	}
	if refused != nil {
		return "", refused
	}
	return "", s.api.noZone(r, private)
}

// Settled reports whether all servers of the service have the last change of the record. It relies
// on the answers of the servers if an earlier process made the change.
func (s *recordSets[S]) Settled(ctx context.Context, r Record) (bool, error) {
	p, ok := s.api.(propagating)
	change, found := s.changes.get(changeKey(r))
	if !ok || !found {
		return true, nil
	}
	done, err := p.propagated(ctx, change)
	if done {
		s.changes.remove(changeKey(r))
	}
	return done, err
}

// apexes returns the zones that a record may be in: first the apex by DNS, and then all names from
// the record's name upwards, because the service may have other zones than the controller sees.
func apexes(r Record) []string {
	all := []string{strings.TrimSuffix(r.Zone, ".")}
	for name := strings.TrimSuffix(r.FQDN, "."); strings.Contains(name, "."); _, name, _ = strings.Cut(name, ".") {
		if name != all[0] {
			all = append(all, name)
		}
	}
	return all
}

// quotedValues are the values of a record set, in quotes.
type quotedValues []string

func (v quotedValues) has(value string) bool {
	return slices.ContainsFunc(v, func(q string) bool { return unquoted(q) == value })
}

// with returns the values with another one, or without it.
func (v quotedValues) with(value string, add bool) quotedValues {
	next := slices.Clone(v)
	if add {
		return append(next, quote(value))
	}
	return slices.DeleteFunc(next, func(q string) bool { return unquoted(q) == value })
}

func quote(value string) string { return `"` + value + `"` }

// unquoted removes the quotes that some services return around a TXT value.
func unquoted(s string) string { return strings.Trim(s, `"`) }
