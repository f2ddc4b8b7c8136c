package lifecycle

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// TestTenThousandCertificatesPastTheirWindowsAreEachRenewedOnce has a CA with Let's Encrypt's
// limits revoke all its certificates: the window that it suggests for each is over when the
// controller reads it, so no order is exempt from limits by its window. The process is killed
// meanwhile.
func TestTenThousandCertificatesPastTheirWindowsAreEachRenewedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.random = rand.New(rand.NewPCG(3, 4))
	began := w.now
	const n = 10000
	var owners []*owner
	for i := range n {
		o := &owner{id: i, life: 90 * day, account: fmt.Sprintf("https://acme-v02.api.letsencrypt.org/acme/acct/%d", i%2),
			namespace: fmt.Sprintf("team-%d", i%40)}
		o.names = []string{fmt.Sprintf("www%d.d%d.example", i, i/4)}
		owners = append(owners, o)
		w.at(time.Duration(w.random.IntN(600))*time.Second, func() { w.ask(o) })
	}
	const revoked = 30 * day
	w.at(revoked, func() {
		for _, o := range owners {
			if o.cert == nil || o.busy {
				t.Fatalf("certificate %d is not issued", o.id)
			}
			o.cert.revoked = true
			w.at(w.within(6*time.Hour), func() { w.poll(o) }) // when it is asked next
		}
	})
	for d := revoked; d < revoked+7*time.Hour; d += 90 * time.Minute {
		w.at(d, w.aim)
	}
	last := began
	for w.events.Len() > 0 {
		e := heap.Pop(&w.events).(moment)
		if w.now = e.at; !w.now.Before(began.Add(revoked + 10*day)) {
			break
		}
		before := w.ca.certificates
		e.do()
		if w.ca.certificates > before {
			last = w.now
		}
	}
	if w.ca.refused != "" {
		t.Errorf("an order was refused: %s", w.ca.refused)
	}
	for _, o := range owners {
		if o.cert == nil || o.cert.revoked || o.expired {
			t.Fatalf("certificate %d was not renewed", o.id)
		}
	}
	if w.ca.certificates != 2*n {
		t.Errorf("%d certificates were issued, and not each twice", w.ca.certificates)
	}
	if took := last.Sub(began.Add(revoked)); took > 8*time.Hour {
		t.Errorf("the last one was renewed after %s", took)
	}
	t.Logf("the last of %d was renewed %s after they were revoked; %d orders, %d sent twice, %d kills, %d waits", n,
		last.Sub(began.Add(revoked)).Round(time.Minute), w.ca.orders, w.twice, w.kills, w.waits)
}
