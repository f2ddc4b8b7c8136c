package lifecycle

import (
	"fmt"
	"strings"
	"time"
)

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
