package budget

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/perennial-pki/perennial/acme"
	"github.com/perennial-pki/perennial/internal/outside"
)

// A ledger must fit into one object of the Kubernetes API, which may have 1 MiB. Beyond these numbers that is not written which matters least:
// buckets that are full again soonest, names that failed longest ago and are not paused, refusals that end soonest. 10,000 certificates that are issued as
// fast as Let's Encrypt does it come to 6,000 buckets.
const (
	maxBuckets  = 12000
	maxFailures = 4000
	maxRefusals = 1500
	maxLedger   = 900 << 10
	// maxRead is what is read at all.
	maxRead = 1 << 20
)

// written is a ledger in JSON. Its times are in ms since 1970.
type written struct {
	Buckets  map[key]int64    `json:"buckets,omitempty"`
	Orders   map[string]*open `json:"orders,omitempty"`
	Failures map[key]*failure `json:"failures,omitempty"`
	Refusals map[key]*refusal `json:"refusals,omitempty"`
}

// Encode forgets what no longer matters, and returns the rest, as far as there is room for it.
func (l *Ledger) Encode(at time.Time) ([]byte, error) {
	now := at.UnixMilli()
	maps.DeleteFunc(l.full, func(_ key, full int64) bool { return full <= now })
	maps.DeleteFunc(l.refusals, func(_ key, r *refusal) bool { return r.Until <= now })
	maps.DeleteFunc(l.failures, func(_ key, f *failure) bool { return f.At+forgetAfter.Milliseconds() <= now })
	w := written{
		Buckets: last(l.full, maxBuckets, func(full int64) int64 { return full }), Orders: l.open,
		Failures: last(l.failures, maxFailures, func(f *failure) int64 {
			if f.InARow >= pauseAfter {
				return f.At + forgetAfter.Milliseconds()
			}
			return f.At
		}),
		Refusals: last(l.refusals, maxRefusals, func(r *refusal) int64 { return r.Until }),
	}
	text, err := json.Marshal(w)
	for _, most := range []int{maxWhy, 0} { // bytes of what the CA said
		if err != nil || len(text) <= maxLedger {
			return text, err
		}
		failures, refusals := map[key]*failure{}, map[key]*refusal{}
		for k, f := range w.Failures {
			failures[k] = &failure{f.InARow, f.At, f.Authorization, ""}
		}
		for k, r := range w.Refusals {
			refusals[k] = &refusal{r.At, r.Until, r.By, outside.Short(r.Why, most)}
		}
		w.Failures, w.Refusals = failures, refusals
		text, err = json.Marshal(w)
	}
	for most := int64(1); err == nil && len(text) > maxLedger && most <= 2*maxCount; most *= 2 {
		w.Orders = l.withoutFew(most, now)
		text, err = json.Marshal(w)
	}
	return text, err
}

// withoutFew are the open orders without the certificates that they reserve where no more than so many are spent or reserved: orders of a hundred names
// can be open for more domains than there is room for, most of which are far from their limit.
func (l *Ledger) withoutFew(most, now int64) map[string]*open {
	few := func(h hold) bool {
		return l.reserved[h.Key]+max(l.full[h.Key]-now, 0)/h.limit().interval() <= most
	}
	left := map[string]*open{}
	for id, o := range l.open {
		c := *o
		c.Certificate = slices.DeleteFunc(slices.Clone(o.Certificate), few)
		if !c.Taken || len(c.Certificate)+len(c.Tries) > 0 {
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
	keys := slices.SortedFunc(maps.Keys(m), func(a, b key) int { return cmp.Or(cmp.Compare(at(m[a]), at(m[b])), cmp.Compare(a, b)) })
	chosen := make(map[key]V, most)
	for _, k := range keys[len(keys)-most:] {
		chosen[k] = m[k]
	}
	return chosen
}

// Decode reads a ledger. Whatever is in it, the ledger can be used.
func Decode(text []byte) (*Ledger, error) {
	if len(text) > maxRead {
		return nil, fmt.Errorf("it has %d bytes", len(text))
	}
	var w written
	if err := json.Unmarshal(text, &w); err != nil {
		return nil, fmt.Errorf("it is not the JSON that was written: %w", err)
	}
	l := NewLedger()
	bad := errors.New("it has an entry that was never written")
	for k, full := range w.Buckets {
		if full < 0 {
			return nil, bad
		}
		l.full[k] = full
	}
	for id, o := range w.Orders {
		if o == nil {
			return nil, bad
		}
		for _, h := range slices.Concat(o.Order, o.Certificate) {
			if h.Count < 1 || h.Period < 1 || h.Period > maxPeriod || h.Count > maxCount {
				return nil, bad
			}
		}
		l.open[id] = o
		l.index(o, 1)
	}
	for k, f := range w.Failures {
		if f == nil || f.InARow < 1 || f.At < 0 {
			return nil, bad
		}
		l.failures[k] = f
	}
	for k, r := range w.Refusals {
		if r == nil || r.At < 0 || r.Until < 0 {
			return nil, bad
		}
		l.refusals[k] = r
	}
	return l, nil
}

// What the schema of issuers allows.
const (
	maxCount  = 1_000_000
	maxPeriod = 8760 * 3600 * 1000 // in ms
)

// merge adds what another process has written to the same place. Of two accounts of one thing the one that leaves less counts.
func (l *Ledger) merge(other *Ledger) {
	for k, full := range other.full {
		l.full[k] = max(l.full[k], full)
	}
	refused := map[string]bool{}
	for _, r := range l.refusals {
		refused[r.By] = true
	}
	for id, o := range other.open {
		// One that the CA has refused since, or that waits again, was not let go after all.
		if l.open[id] == nil && (o.Taken || !refused[id] && l.line.at(id) == nil) {
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

// Past is what an object says of an order.
type Past struct {
	Ask
	// Sent says that the CA has taken the order, Ended that it has come to its end, and Issued with a certificate.
	Sent, Ended, Issued bool
	// At is when its certificate begins, or when it failed or was paused. It is zero if that is not known.
	At time.Time
	// Failed are the names of which one at least was not proven, and Why what the CA said of it. Paused is until when they are paused.
	Failed []acme.Identifier
	Why    string
	Paused time.Time
}

// backdated is how much earlier than it was issued a certificate begins at most: an hour, at Let's Encrypt, by a clock that may be behind ours.
const backdated = time.Hour + time.Minute

// last is when an order was sent, and its certificate issued, at the latest. It may have waited for days before, so that when it was asked for says
// little.
func (p *Past) last(now int64) int64 {
	at := p.At
	if at.IsZero() {
		return now
	}
	if p.Issued {
		at = at.Add(backdated)
	}
	return min(max(at.UnixMilli(), p.Asked.UnixMilli()), now)
}

// Settle closes the open orders of which the objects say that they have ended, or that are no more, and counts those that the CA has taken.
func (l *Ledger) Settle(objects []Past, at time.Time) {
	now := at.UnixMilli()
	known := map[string]*Past{}
	for i := range objects {
		known[objects[i].ID] = &objects[i]
	}
	for id, o := range l.open {
		p := known[id]
		switch {
		case p == nil: // it ended while nobody looked
			l.drop(id)
			l.spend(o.Order, now)
			l.spend(o.Certificate, now)
		case p.Ended:
			l.drop(id)
			if p.Sent {
				l.spend(o.Order, now)
			}
			if p.Issued {
				l.spend(o.Certificate, now)
			}
		case p.Sent:
			l.Taken(id, at) // it was earlier, and nobody knows when
		}
	}
}

// Restore makes a ledger of what the objects say: where there is none yet, or it was lost. It lacks orders whose objects are gone. Of one that
// failed each name that may have been the reason counts as failed once, and is paused if it can have been no other.
func Restore(objects []Past, at time.Time) *Ledger {
	now := at.UnixMilli()
	l := NewLedger()
	slices.SortFunc(objects, func(a, b Past) int { return cmp.Compare(a.last(now), b.last(now)) })
	for _, o := range objects {
		spent := o.last(now)
		names := map[string]bool{}
		for _, id := range o.Failed {
			names[base(id)] = true
		}
		for _, id := range o.Failed {
			failed := l.Failed(o.Account, id, o.Limits.Validations, o.ID+" "+base(id), o.Why, time.UnixMilli(spent))
			if f := l.failures[failureKey(o.Account, base(id))]; len(names) == 1 && o.Paused.After(at) {
				f.InARow, f.At = max(failed, pauseAfter), o.Paused.Add(-pauseLength).UnixMilli()
			}
		}
		if o.Issued { // what failed before ends with it
			for _, id := range o.Identifiers {
				l.Validated(o.Account, id, at)
			}
		}
		if !o.Sent {
			continue
		}
		l.reserve(ask(o.Ask), spent)
		l.Taken(o.ID, time.UnixMilli(spent))
		switch open := l.open[o.ID]; {
		case open == nil:
		case !o.Ended:
			open.Final = true // what may have come of it is not known
		default:
			l.drop(o.ID)
			if o.Issued {
				l.spend(open.Certificate, spent)
			}
		}
	}
	// One that does not say that it was sent may have been, just before the process ended, if there was room for it. If nothing else is spent that
	// does no harm.
	room := map[key]bool{}
	for _, o := range objects {
		if o.Sent || o.Ended || o.Renewal || o.Paused.After(at) {
			continue
		}
		for _, s := range ask(o.Ask).orders {
			full := l.full[s.key]
			if _, known := room[s.key]; !known {
				room[s.key] = full > now && s.limit.free(full, 0, now) <= now
			}
			if room[s.key] {
				l.full[s.key] = s.limit.take(full, now)
			}
		}
	}
	return l
}
