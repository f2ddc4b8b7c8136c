package lifecycle

import (
	"container/heap"
	"crypto/x509"
	"fmt"
	"maps"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/perennial-pki/perennial/acme"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/ratelimit"
)

// TestInAYearOfTenThousandCertificatesNoOrderIsRefused runs the scheduler, when to renew and
// whether an order may be sent, for a year against a CA with Let's Encrypt's limits. All
// certificates are asked for at once; some names are never proven, others not for a while; two
// accounts share the CA; certificates are revoked, and ask for other names; the process is killed
// now and then, in the middle of orders, and its ledger lost.
func TestInAYearOfTenThousandCertificatesNoOrderIsRefused(t *testing.T) {
	w := newWorld(t)
	began := w.now
	end := began.Add(365 * day)
	domains := map[string]bool{}
	lives := slices.Concat(slices.Repeat([]time.Duration{90 * day}, 8), slices.Repeat([]time.Duration{64 * day}, 4),
		slices.Repeat([]time.Duration{45 * day}, 7), []time.Duration{160 * time.Hour})
	const n = 10000
	var owners []*owner
	for i := range n {
		o := &owner{
			id:        i,
			life:      lives[i%len(lives)],
			account:   fmt.Sprintf("https://acme-v02.api.letsencrypt.org/acme/acct/%d", 1+i%3%2),
			namespace: fmt.Sprintf("team-%d", i%40),
		}
		domain := fmt.Sprintf("d%d.example", i/4)
		if i < 600 {
			domain = fmt.Sprintf("busy%d.co.uk", i/120) // more than the CA issues for a domain in a week
		}
		domains[domain] = true
		o.names = []string{fmt.Sprintf("www%d.%s", i, domain)}
		if i%5 == 0 {
			o.names = append(o.names, "*."+o.names[0])
		}
		switch {
		case i%100 == 17, i%200 == 15:
			o.provenFrom = end // never
		case i%50 == 18:
			o.provenFrom = began.Add(30 * day)
		}
		owners = append(owners, o)
		w.at(time.Duration(w.random.IntN(600))*time.Second, func() { w.ask(o) })
	}
	for i := range 60 { // their orders are accepted, and never proven or refused
		o := &owner{
			id: n + i, life: 90 * day, account: "https://acme-v02.api.letsencrypt.org/acme/acct/1", namespace: "stuck",
			stuck: true, provenFrom: end, names: []string{fmt.Sprintf("stuck%d.busy%d.co.uk", i, i%5)},
		}
		w.at(time.Duration(w.random.IntN(600))*time.Second, func() { w.ask(o) })
	}
	if len(domains) < 2000 {
		t.Fatalf("only %d domains", len(domains))
	}
	// A third is revoked. The CA then suggests a window that is over, which the next poll reads.
	w.at(150*day, func() {
		for _, o := range owners {
			if o.cert != nil && o.id%3 == 1 {
				o.cert.revoked = true
				w.at(time.Duration(w.random.Int64N(int64(6*time.Hour))), func() { w.poll(o) })
			}
		}
	})
	// Others ask for one name more, at once.
	w.at(200*day, func() {
		for _, o := range owners {
			if o.id%20 == 3 {
				o.names = append(o.names, "more."+o.names[0])
				if !o.busy {
					w.ask(o)
				}
			}
		}
	})
	for d := time.Hour; d < 365*day; {
		w.at(d, w.aim)
		if d < 3*day {
			d += 5*time.Hour + w.within(9*time.Hour)
		} else {
			d += 13*time.Hour + w.within(9*day)
		}
	}
	w.run(end)
	if w.ca.refused != "" {
		t.Errorf("an order was refused: %s", w.ca.refused)
	}
	if w.ca.hurried != "" {
		t.Errorf("a name that fails again and again is tried more than once a day: %s", w.ca.hurried)
	}
	missing, expired := 0, 0
	for _, o := range owners {
		if o.provenFrom == end {
			continue
		}
		switch {
		case o.cert == nil:
			missing++
		case o.expired || o.cert.to.Before(end):
			expired++
		}
	}
	if missing+expired > 0 {
		t.Errorf("%d certificates were never issued, %d expired, or did before they were renewed", missing, expired)
	}
	t.Logf(
		"%d orders, of which %d were exempt; %d certificates, %d failed validations, %d waits; %d kills, of which %d "+
			"lost what was not written, and %d all; %d orders were sent twice",
		w.ca.orders,
		w.ca.exempt,
		w.ca.certificates,
		w.ca.failures,
		w.waits,
		w.kills,
		w.unwritten,
		w.lost,
		w.twice,
	)
	if w.ca.exempt < n || w.waits < n/2 || w.ca.failures < 1000 || w.kills < 60 || w.unwritten < 20 || w.lost < 15 ||
		w.twice < 3 {
		t.Error("the year was too quiet to say anything")
	}
}

// TestStuckCertificatesCostAnotherNamespaceNoOrder has a namespace with 60 Certificates with orders
// that never end. Another namespace has twice as many Certificates for the same domain as the CA
// issues in a week. The stuck ones delay the others by the time for which an order reserves a
// certificate, and cost them none.
func TestStuckCertificatesCostAnotherNamespaceNoOrder(t *testing.T) {
	checkpoints := []time.Duration{30 * time.Minute, day, 7 * day, 14 * day, 30 * day}
	// run returns how many certificates the other namespace has some time after each checkpoint, and
	// how many orders were sent for it.
	run := func(stuck int, later time.Duration) (certificates []int, orders int) {
		w := newWorld(t)
		w.patience = 10 * time.Minute
		began := w.now
		certificate := func(i int, namespace string) *owner {
			return &owner{
				id: i, life: 90 * day, account: "https://acme-v02.api.letsencrypt.org/acme/acct/1",
				namespace: namespace, names: []string{fmt.Sprintf("%s%d.shop.example", namespace, i)},
			}
		}
		var others []*owner
		for i := range 100 {
			o := certificate(i, "shop")
			others = append(others, o)
			w.at(time.Duration(i+1)*time.Second, func() { w.ask(o) })
		}
		for i := range stuck {
			o := certificate(1000+i, "stuck")
			o.stuck = true
			w.at(time.Duration(i)*10*time.Millisecond, func() { w.ask(o) }) // before the others
		}
		for _, at := range checkpoints {
			w.run(began.Add(at + later))
			n := 0
			for _, o := range others {
				if o.cert != nil {
					n++
				}
			}
			certificates = append(certificates, n)
		}
		for _, o := range others {
			orders += o.orders
		}
		if w.ca.refused != "" {
			t.Errorf("an order was refused: %s", w.ca.refused)
		}
		return certificates, orders
	}
	alone, ordersAlone := run(0, 0)
	beside, orders := run(60, 40*time.Minute)
	t.Logf("certificates after %v: %v alone; 40 minutes later beside 60 stuck ones: %v; %d and %d orders",
		checkpoints, alone, beside, ordersAlone, orders)
	if orders != ordersAlone {
		t.Errorf("%d orders were sent, and %d without those that are stuck", orders, ordersAlone)
	}
	for i := range checkpoints {
		if beside[i] < alone[i] {
			t.Errorf(
				"after %s there are %d certificates, and %d without those that are stuck",
				checkpoints[i],
				beside[i],
				alone[i],
			)
		}
	}
}

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
	plan := renewal(
		c.leaf,
		&cmapi.CertificateSpec{},
		types.UID(fmt.Sprint(o.id)),
		time.Time{},
		nil,
		false,
		&cmapi.CertificateACMEARIStatus{SuggestedWindow: o.window},
	)
	w.at(max(plan.at.Sub(w.clock()), 0), func() {
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

// authority counts as the CA does, with token buckets.
type authority struct {
	buckets map[string]*tokens
	issued  map[string]time.Time
	rows    map[string]*row // by account and name

	orders, exempt, certificates, failures int
	refused, hurried                       string
}

// row is of failures of a name in a row.
type row struct {
	failures int
	last     time.Time
}

type tokens struct {
	have float64
	at   time.Time
}

// bucket returns a bucket as it is now.
func (a *authority) bucket(name string, size float64, period time.Duration, now time.Time) *tokens {
	b := a.buckets[name]
	if b == nil {
		b = &tokens{have: size, at: now}
		a.buckets[name] = b
	}
	b.have = min(size, b.have+size*float64(now.Sub(b.at))/float64(period))
	b.at = now
	return b
}

func (a *authority) newOrders(account string, now time.Time) *tokens {
	return a.bucket("orders "+account, 300, 3*time.Hour, now)
}
func (a *authority) domain(name string, now time.Time) *tokens {
	labels := strings.Split(name, ".")
	keep := 2
	if strings.HasSuffix(name, ".co.uk") {
		keep = 3
	}
	return a.bucket("domain "+strings.Join(labels[len(labels)-keep:], "."), 50, 7*day, now)
}
func (a *authority) set(names []string, now time.Time) *tokens {
	return a.bucket("set "+strings.Join(names, ","), 5, 7*day, now)
}
func (a *authority) failed(account, name string, now time.Time) *tokens {
	return a.bucket("failed "+account+" "+name, 5, time.Hour, now)
}

func (a *authority) renewal(names []string, now time.Time) bool {
	last, found := a.issued[strings.Join(names, ",")]
	return found && now.Sub(last) < 120*day
}

func (a *authority) newOrder(account string, names []string, replaces *certificate, now time.Time) {
	a.orders++
	if replaces != nil {
		if start, end := replaces.window(now); !now.Before(start) && now.Before(end) {
			a.exempt++
			return
		}
	}
	refuse := func(why string, b *tokens) {
		if b.have < 1 && a.refused == "" {
			a.refused = fmt.Sprintf("%s at %s: %s has %.4f tokens", strings.Join(names, ","), now, why, b.have)
		}
	}
	if !a.renewal(names, now) {
		refuse("the domain", a.domain(names[0], now))
		orders := a.newOrders(account, now)
		refuse("the account", orders)
		orders.have--
	}
	for _, name := range names {
		refuse("failed validations of "+name, a.failed(account, name, now))
	}
	refuse("the set", a.set(names, now))
}

func (a *authority) issue(names []string, now time.Time) {
	a.certificates++
	if b := a.domain(names[0], now); !a.renewal(names, now) && b.have >= 1 {
		b.have--
	}
	if b := a.set(names, now); b.have >= 1 {
		b.have--
	}
	a.issued[strings.Join(names, ",")] = now
}

func (a *authority) fail(account, name string, now time.Time) {
	a.failures++
	if b := a.failed(account, name, now); b.have >= 1 {
		b.have--
	}
	r := a.rows[account+" "+name]
	if r == nil {
		r = &row{}
		a.rows[account+" "+name] = r
	}
	if r.failures++; r.failures > 5 && now.Sub(r.last) < day && a.hurried == "" {
		a.hurried = fmt.Sprintf("%s failed for the %dth time at %s, and before that at %s", name, r.failures, now, r.last)
	}
	r.last = now
}

func (a *authority) prove(account string, names []string) {
	for _, name := range names {
		delete(a.rows, account+" "+name)
	}
}

// agenda has the events to come, ordered by time.
type agenda []moment

type moment struct {
	at time.Time
	n  int
	do func()
}

func (e agenda) Len() int           { return len(e) }
func (e agenda) Less(i, j int) bool { return e[i].at.Before(e[j].at) }
func (e agenda) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *agenda) Push(x any)        { *e = append(*e, x.(moment)) }
func (e *agenda) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}
