package lifecycle

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestInAYearOfTenThousandCertificatesNoOrderIsRefused runs the scheduler, when to renew and
// whether an order may be sent, for a year against a CA with Let's Encrypt's limits. All
// certificates are asked for at once; some names are never proven, others not for a while; two
// accounts share the CA; certificates are revoked, and ask for other names; the process is killed
// now and then, in the middle of orders, and its ledger lost.
func TestInAYearOfTenThousandCertificatesNoOrderIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	began := w.now
	end := began.Add(365 * day)
	domains := map[string]bool{}
	lives := slices.Concat(slices.Repeat([]time.Duration{90 * day}, 8), slices.Repeat([]time.Duration{64 * day}, 4),
		slices.Repeat([]time.Duration{45 * day}, 7), []time.Duration{160 * time.Hour})
	const n = 10000
	var owners []*owner
	for i := range n {
		o := yearOwner(i, lives, began, end)
		_, domain, _ := strings.Cut(o.names[0], ".")
		domains[domain] = true
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
	w.at(150*day, func() { w.revokeThird(owners) })
	w.at(200*day, func() { w.addNames(owners) })
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
	missing, expired := unserved(owners, end)
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

// outcome counts the owners that never had a certificate, or had an expired one.
func unserved(owners []*owner, end time.Time) (missing, expired int) {
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
	return missing, expired
}

// yearOwner is an owner of the year: a few never prove their names, and a few begin to after a
// month.
func yearOwner(i int, lives []time.Duration, began, end time.Time) *owner {
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
	return o
}

// revokeThird revokes a third of the certificates. The CA then suggests a window that is over,
// which the next poll reads.
func (w *world) revokeThird(owners []*owner) {
	for _, o := range owners {
		if o.cert != nil && o.id%3 == 1 {
			o.cert.revoked = true
			w.at(time.Duration(w.random.Int64N(int64(6*time.Hour))), func() { w.poll(o) })
		}
	}
}

// addNames has some ask for one name more, at once.
func (w *world) addNames(owners []*owner) {
	for _, o := range owners {
		if o.id%20 != 3 {
			continue
		}
		o.names = append(o.names, "more."+o.names[0])
		if !o.busy {
			w.ask(o)
		}
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
