package ratelimit

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/perennial-pki/perennial/internal/egress"
)

// A ledger must fit into one object of the Kubernetes API, of at most 1 MiB. Beyond these numbers
// the entries that matter least are not written: buckets that are full again soonest, names that
// failed longest ago and are not paused, refusals that end soonest. 10,000 certificates, issued as
// fast as Let's Encrypt does it, need 6,000 buckets.
const (
	maxBuckets  = 12000
	maxFailures = 4000
	maxRefusals = 1500
	maxLedger   = 900 << 10
	// maxRead is the size of the largest ledger that is read.
	maxRead = 1 << 20
)

// The schema of issuers allows no larger limits.
const (
	maxCount  = 1_000_000
	maxPeriod = 8760 * 3600 * 1000 // in ms
)

// written is a ledger in JSON. Its times are in ms since 1970.
type written struct {
	Buckets  map[key]int64         `json:"buckets,omitempty"`
	Orders   map[string]*openOrder `json:"orders,omitempty"`
	Failures map[key]*failure      `json:"failures,omitempty"`
	Refusals map[key]*refusal      `json:"refusals,omitempty"`
}

// Encode drops what no longer matters, and returns the rest as far as there is room for it.
func (l *Ledger) Encode(at time.Time) ([]byte, error) {
	now := at.UnixMilli()
	l.forget(now)
	w := written{
		Buckets: last(l.full, maxBuckets, func(full int64) int64 { return full }), Orders: l.open,
		Failures: last(l.failures, maxFailures, func(f *failure) int64 {
			if f.paused() {
				return f.At + forgetAfter.Milliseconds()
			}
			return f.At
		}),
		Refusals: last(l.refusals, maxRefusals, func(r *refusal) int64 { return r.Until }),
	}
	text, err := json.Marshal(w)
	for _, most := range []int{maxFailureDetail, 0} { // bytes of what the CA said
		if err != nil || len(text) <= maxLedger {
			return text, err
		}
		w.shorten(most)
		text, err = json.Marshal(w)
	}
	for most := int64(1); err == nil && len(text) > maxLedger && most <= 2*maxCount; most *= 2 {
		w.Orders = l.openNearLimit(most, now)
		text, err = json.Marshal(w)
	}
	return text, err
}

// forget drops entries that are over.
func (l *Ledger) forget(now int64) {
	maps.DeleteFunc(l.full, func(_ key, full int64) bool { return full <= now })
	l.usage.forget(now)
	maps.DeleteFunc(l.refusals, func(_ key, r *refusal) bool { return r.Until <= now })
	maps.DeleteFunc(l.failures, func(_ key, f *failure) bool { return f.At+forgetAfter.Milliseconds() <= now })
}

// shorten cuts the CA's texts about refusals to so many bytes, and removes its texts about
// failures.
func (w *written) shorten(most int) {
	failures, refusals := map[key]*failure{}, map[key]*refusal{}
	for k, f := range w.Failures {
		short := *f
		short.Detail = ""
		failures[k] = &short
	}
	for k, r := range w.Refusals {
		short := *r
		short.Detail = egress.Truncate(r.Detail, most)
		refusals[k] = &short
	}
	w.Failures, w.Refusals = failures, refusals
}

// openNearLimit returns the open orders without those reservations of certificates in buckets of
// which at most so many tokens are spent or reserved. Orders of a hundred names can be open for
// more domains than there is room for, most of which are far from their limit.
func (l *Ledger) openNearLimit(most, now int64) map[string]*openOrder {
	few := func(r reservation) bool {
		return l.reserved[r.Key]+max(l.full[r.Key]-now, 0)/r.limit().interval() <= most
	}
	left := map[string]*openOrder{}
	for id, o := range l.open {
		c := *o
		c.Certificate = slices.DeleteFunc(slices.Clone(o.Certificate), few)
		if !c.Accepted || len(c.Certificate)+len(c.Tries) > 0 {
			left[id] = &c
		}
	}
	return left
}

// last returns the last entries of a map.
func last[V any](m map[key]V, most int, at func(V) int64) map[key]V {
	if len(m) <= most {
		return m
	}
	keys := slices.SortedFunc(maps.Keys(m), func(a, b key) int {
		return cmp.Or(cmp.Compare(at(m[a]), at(m[b])), cmp.Compare(a, b))
	})
	chosen := make(map[key]V, most)
	for _, k := range keys[len(keys)-most:] {
		chosen[k] = m[k]
	}
	return chosen
}

// Decode reads a ledger. It returns an error for a ledger that Encode cannot have written.
func Decode(text []byte) (*Ledger, error) {
	if len(text) > maxRead {
		return nil, fmt.Errorf("it has %d bytes", len(text))
	}
	var w written
	if err := json.Unmarshal(text, &w); err != nil {
		return nil, fmt.Errorf("it is not the JSON that was written: %w", err)
	}
	if !w.possible() {
		return nil, errors.New("it has an entry that was never written")
	}
	l := NewLedger()
	maps.Copy(l.full, w.Buckets)
	maps.Copy(l.failures, w.Failures)
	maps.Copy(l.refusals, w.Refusals)
	for id, o := range w.Orders {
		l.open[id] = o
		l.index(o, 1)
	}
	return l, nil
}

// possible reports whether Encode can have written it.
func (w *written) possible() bool {
	for _, full := range w.Buckets {
		if full < 0 {
			return false
		}
	}
	for _, o := range w.Orders {
		if o == nil || slices.ContainsFunc(slices.Concat(o.Order, o.Certificate), reservation.impossible) {
			return false
		}
	}
	for _, f := range w.Failures {
		if f == nil || f.InARow < 1 || f.At < 0 {
			return false
		}
	}
	for _, r := range w.Refusals {
		if r == nil || r.At < 0 || r.Until < 0 {
			return false
		}
	}
	return true
}

func (r reservation) impossible() bool {
	return r.Count < 1 || r.Period < 1 || r.Period > maxPeriod || r.Count > maxCount
}

// merge adds what another process has written to the same place. Of two entries for the same thing
// the stricter one counts.
func (l *Ledger) merge(other *Ledger) {
	for k, full := range other.full {
		l.full[k] = max(l.full[k], full)
	}
	refused := map[string]bool{}
	for _, r := range l.refusals {
		refused[r.By] = true
	}
	for id, o := range other.open {
		// An order that the CA has refused since, or that waits again, was not admitted after all.
		if l.open[id] == nil && (o.Accepted || !refused[id] && l.queue.get(id) == nil) {
			l.open[id] = o
			l.index(o, 1)
		}
	}
	for k, f := range other.failures {
		if mine := l.failures[k]; mine == nil || mine.At < f.At {
			l.failures[k] = f
		}
	}
	for k, r := range other.refusals {
		if mine := l.refusals[k]; mine == nil || mine.Until < r.Until {
			l.refusals[k] = r
		}
	}
	l.changes++
}
