package lifecycle

import (
	"container/heap"
	"crypto/x509"
	"fmt"
	"maps"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/perennial-pki/perennial/acme"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/ratelimit"
	"github.com/perennial-pki/perennial/internal/renewal"
)

// owner is a Certificate.
type owner struct {
	id                 int
	names              []string
	account, namespace string
	life               time.Duration
	provenFrom         time.Time // its names cannot be proven before
	stuck              bool      // its orders expire, and are never proven or refused

	cert    *certificate
	window  *cmapi.ACMERenewalWindow // as it was read last
	expired bool
	busy    bool // an order is on its way, or waits
	orders  int
	failed  int      // in a row
	kept    []*order // with a certificate, the last one with cert
	latest  *order
}

// order is an Order as the API has it. A failed one is deleted when the next one is made. The last
// ones with a certificate are kept, as by revisionHistoryLimit.
type order struct {
	ratelimit.OrderRecord
	owner    *owner
	names    []string
	replaces *certificate
	waits    bool
	sentBy   int // the process
}

type certificate struct {
	serial     int64
	names      []string
	from, to   time.Time
	revoked    bool
	leaf       *x509.Certificate
	superseded bool
}

// world is the scheduler's side. Its clock is ten seconds ahead of the CA's.
type world struct {
	*testing.T
	random *rand.Rand
	events agenda
	now    time.Time // of the CA
	rush   time.Time // until then many orders wait
	// patience is when an order that waits asks again at the latest.
	patience time.Duration
	ca       *authority
	ledger   *ratelimit.Ledger

	orders map[string]*order // by ID
	serial int64

	// The written part of the ledger. It matters only while a kill is aimed.
	aimed   func(string) // called for each event at the CA
	text    []byte
	pending bool // a write, in a moment
	process int

	waits, kills, lost, unwritten, twice int
}

// newWorld returns a world in which nothing has happened yet.
func newWorld(t *testing.T) *world {
	w := &world{
		T: t, random: rand.New(rand.NewPCG(1, 2)), ledger: ratelimit.NewLedger(), orders: map[string]*order{},
		now: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC), patience: 365 * day,
	}
	w.rush = w.now.Add(3 * day)
	w.ca = &authority{buckets: map[string]*tokens{}, issued: map[string]time.Time{}, rows: map[string]*row{}}
	return w
}

// run processes the agenda until a time.
func (w *world) run(end time.Time) {
	for w.events.Len() > 0 && w.events[0].at.Before(end) {
		e := heap.Pop(&w.events).(moment)
		w.now = e.at
		e.do()
	}
	w.now = end
}

func (w *world) clock() time.Time { return w.now.Add(10 * time.Second) }

func (w *world) at(in time.Duration, do func()) {
	heap.Push(&w.events, moment{w.now.Add(in), len(w.events), do})
}

func (w *world) within(d time.Duration) time.Duration {
	return time.Duration(w.random.Int64N(int64(d)))
}

// aim schedules a kill of the process a moment after an event at the CA, so that the process has
// not seen it, or has not written it.
func (w *world) aim() {
	if w.aimed != nil {
		return
	}
	began, process := w.now, w.process
	after := []string{"order", "certificate", "failure"}[w.random.IntN(3)]
	if began.Before(w.rush) {
		after = "order"
	}
	w.aimed = func(what string) {
		if what == after && w.now.Sub(began) > later {
			w.aimed = func(string) {}
			w.at(w.within(later+time.Second), w.kill)
		}
	}
	w.write()
	w.soon()
	w.at(12*time.Hour, func() {
		if w.process == process {
			w.kill()
		}
	})
}

// history is how many Orders with a certificate are kept: all of a week, in which CAs count, also
// of certificates that are renewed after half of it.
const history = 3

// later is the delay of writes that are not urgent.
const later = 2 * time.Second

func (w *world) write() {
	if w.aimed == nil {
		return
	}
	var err error
	if w.text, err = w.ledger.Encode(w.clock()); err != nil {
		w.Fatal(err)
	}
	if len(w.text) > 900<<10 {
		w.Errorf("the ledger has %d bytes", len(w.text))
	}
	w.pending = false
}

// soon schedules a write of the changes.
func (w *world) soon() {
	if w.aimed == nil || w.pending {
		return
	}
	w.pending = true
	process := w.process
	w.at(later, func() {
		if w.process == process && w.pending {
			w.write()
		}
	})
}

// kill ends the process, and starts another one. What was not written is lost, and sometimes the
// whole ledger.
func (w *world) kill() {
	w.kills++
	w.process++
	if w.pending {
		w.unwritten++
	}
	w.aimed, w.pending = nil, false
	var objects []ratelimit.OrderRecord
	for _, id := range slices.Sorted(maps.Keys(w.orders)) {
		x := w.orders[id]
		objects = append(objects, x.OrderRecord)
		if x.waits = false; !x.Sent && !x.Finished { // it asks again
			w.at(w.within(time.Minute), func() { w.again(x) })
		}
	}
	if w.random.IntN(3) == 0 {
		w.lost++
		// Of names that are not paused yet, the Orders know at most the last failure.
		for _, r := range w.ca.rows {
			if r.failures < 5 {
				r.failures = 0
			}
		}
		w.ledger = ratelimit.Restore(objects, w.clock())
	} else {
		var err error
		if w.ledger, err = ratelimit.Decode(w.text); err != nil {
			w.Fatal(err)
		}
		w.ledger.Settle(objects, w.clock())
	}
	w.ledger.Restarted(w.clock())
}

// ask begins an order.
func (w *world) ask(o *owner) {
	if x := o.latest; x != nil && !x.Issued {
		delete(w.orders, x.ID)
	}
	o.busy = true
	o.orders++
	limits := ratelimit.Published("https://acme-v02.api.letsencrypt.org/directory")
	x := &order{
		owner:    o,
		names:    o.names,
		replaces: o.cert,
		sentBy:   -1,
		OrderRecord: ratelimit.OrderRecord{Request: ratelimit.Request{
			ID: fmt.Sprintf(
				"%d/%d",
				o.id,
				o.orders,
			),
			Namespace: o.namespace,
			Name:      fmt.Sprint(o.id),
			Account:   o.account,
			Limits:    limits,
			Published: limits,
			Created:   w.clock().Truncate(time.Second),
			Renewal:   o.cert != nil,
		}},
	}
	for _, name := range x.names {
		x.Identifiers = append(x.Identifiers, acme.DNS(name))
	}
	o.latest, w.orders[x.ID] = x, x
	w.again(x)
}

// again asks whether the order may be sent.
func (w *world) again(x *order) {
	if x.Sent || x.Finished || x.sentBy == w.process {
		return
	}
	o, a := x.owner, x.Request
	a.Renewal = slices.ContainsFunc(
		o.kept,
		func(k *order) bool { return slices.Equal(k.names, x.names) && w.clock().Sub(k.Created) < 119*day },
	)
	if o.cert != nil {
		a.Expires = o.cert.to
		if o.window != nil {
			a.Window = acme.Window{Start: o.window.Start.Time, End: o.window.End.Time}
		}
	}
	v := w.ledger.Admit(a, w.clock())
	w.wake()
	x.PausedUntil, x.Failed, x.At = time.Time{}, nil, time.Time{}
	if !v.Allowed {
		if !x.waits {
			w.waits++
		}
		if x.waits = true; v.Kind == ratelimit.Paused {
			x.PausedUntil, x.Failed, x.At = v.Until, x.Identifiers, x.Created
		}
		if !v.Until.After(w.clock()) {
			w.Fatalf("it waits until a time that is past: %+v", v)
		}
		w.soon()
		w.at(min(v.Until.Sub(w.clock()), w.patience), func() { w.again(x) })
		return
	}
	w.write()
	x.waits = false
	if x.sentBy >= 0 {
		w.twice++
	}
	x.sentBy = w.process
	w.at(w.within(3*time.Second), w.alive(func() {
		w.ca.newOrder(o.account, x.names, x.replaces, w.now)
		w.happened("order")
		w.at(w.within(time.Second), w.alive(func() {
			x.Sent = true
			w.ledger.Accepted(x.ID, w.clock())
			w.soon()
			if o.stuck {
				w.at(7*day, func() { w.expire(x) })
				return
			}
			w.at(10*time.Second+w.within(20*time.Minute), func() { w.validated(x) })
		}))
	}))
}

// expire ends an order that was never proven, and asks for another.
func (w *world) expire(x *order) {
	x.Finished, x.At = true, w.clock().Truncate(time.Second)
	w.ledger.Finished(x.ID, false, w.clock())
	w.soon()
	w.wake()
	w.ask(x.owner)
}

// alive does something unless the process is killed before.
func (w *world) alive(do func()) func() {
	process := w.process
	return func() {
		if w.process == process {
			do()
		}
	}
}

func (w *world) happened(what string) {
	if w.aimed != nil {
		w.aimed(what)
	}
}

// wake makes the orders ask again that may be sent now.
func (w *world) wake() {
	for _, a := range w.ledger.Admitted() {
		if x := w.orders[a.ID]; x != nil {
			w.at(0, func() { w.again(x) })
		}
	}
}

func (w *world) validated(x *order) {
	o := x.owner
	if w.now.Before(o.provenFrom) || w.random.IntN(200) == 0 {
		w.ca.fail(o.account, x.names[0], w.now)
		w.happened("failure")
		failed := x.Identifiers[:1]
		w.ledger.ValidationFailed(ratelimit.FailedValidation{
			Account:       o.account,
			Namespace:     o.namespace,
			Identifier:    failed[0],
			Limit:         x.Limits.Validations,
			Authorization: x.ID,
			Detail:        "no",
		}, w.clock())
		w.write()
		x.Finished, x.Failed, x.At = true, x.Identifiers, w.clock().Truncate(time.Second)
		_, x.PausedUntil = w.ledger.PausedUntil(x.Request, w.clock())
		w.ledger.Finished(x.ID, false, w.clock())
		w.soon()
		w.wake()
		o.failed++
		wait := DefaultMinBackoff
		for i := 1; i < o.failed && wait < DefaultMaxBackoff; i++ {
			wait *= 2
		}
		o.busy = false
		w.at(min(wait, DefaultMaxBackoff), func() {
			if !o.busy {
				w.ask(o)
			}
		})
		return
	}
	w.ca.prove(o.account, x.names)
	for _, id := range x.Identifiers {
		w.ledger.Validated(o.account, id, w.clock())
	}
	if !w.ledger.Finalizing(x.ID, w.clock()) {
		w.at(time.Second, func() { w.validated(x) })
		return
	}
	w.soon()
	w.at(w.within(30*time.Second), func() {
		w.ca.issue(x.names, w.now)
		w.happened("certificate")
		w.serial++
		c := &certificate{serial: w.serial, names: x.names, from: w.now, to: w.now.Add(o.life)}
		c.leaf = &x509.Certificate{
			NotBefore:    c.from.Add(-time.Hour).Truncate(time.Second),
			NotAfter:     c.to,
			SerialNumber: big.NewInt(c.serial),
		}
		w.at(w.within(30*time.Second), func() {
			x.Finished, x.Issued, x.At = true, true, c.leaf.NotBefore
			w.ledger.Finished(x.ID, true, w.clock())
			w.soon()
			w.wake()
			if o.cert != nil {
				o.cert.superseded = true
				o.expired = o.expired || o.cert.to.Before(w.now)
			}
			if o.kept = append(o.kept, x); len(o.kept) > history {
				delete(w.orders, o.kept[0].ID)
				o.kept = o.kept[1:]
			}
			o.cert, o.failed, o.busy = c, 0, false
			if len(x.names) != len(o.names) {
				w.ask(o) // they changed meanwhile
				return
			}
			w.poll(o)
		})
	})
}

// poll asks the CA when to renew, and waits for that.
func (w *world) poll(o *owner) {
	c := o.cert
	if c == nil || c.superseded {
		return
	}
	start, end := c.window(w.now)
	from, to := metav1.NewTime(start.Truncate(time.Second)), metav1.NewTime(end.Truncate(time.Second))
	o.window = &cmapi.ACMERenewalWindow{Start: &from, End: &to}
	plan := renewal.Plan(renewal.Inputs{
		Leaf: c.leaf, Spec: &cmapi.CertificateSpec{}, UID: types.UID(fmt.Sprint(o.id)),
		Suggested: &cmapi.CertificateACMEARIStatus{SuggestedWindow: o.window},
	})
	w.at(max(plan.At.Sub(w.clock()), 0), func() {
		if !c.superseded && !o.busy {
			w.ask(o)
		}
	})
}

// window is the one that the CA suggests: a fiftieth of the life, when two thirds of it are over,
// half of it if that is short. A certificate that is revoked should have been renewed.
func (c *certificate) window(now time.Time) (start, end time.Time) {
	if c.revoked {
		return now.Add(-time.Hour), now.Add(-30 * time.Minute)
	}
	life := c.to.Sub(c.from)
	middle := c.to.Add(-life / 3)
	if life < 10*day {
		middle = c.from.Add(life / 2)
	}
	return middle.Add(-life / 100), middle.Add(life / 100)
}
