package ratelimit

import (
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	waitingOrders = prometheus.NewDesc("perennial_acme_orders_waiting",
		"Orders that wait until a limit of the CA has room, by the limit.", []string{"host", "limit"}, nil)
	longestWait = prometheus.NewDesc("perennial_acme_orders_wait_seconds",
		"Time until the last of the orders that wait for a limit of the CA may be sent.",
		[]string{"host", "limit"}, nil)
)

// Describe implements prometheus.Collector.
func (l *Ledgers) Describe(c chan<- *prometheus.Desc) {
	c <- waitingOrders
	c <- longestWait
}

// Collect implements prometheus.Collector. There is a series for each CA and limit that orders wait
// for.
func (l *Ledgers) Collect(c chan<- prometheus.Metric) {
	type series struct {
		host string
		kind Reason
	}
	counts, longest := map[series]int{}, map[series]time.Duration{}
	now := l.Clock.Now()
	for _, ca := range l.all() {
		u, err := url.Parse(ca.directory)
		if err != nil {
			continue
		}
		for _, w := range ca.waiters() {
			s := series{u.Host, w.decision.Kind}
			counts[s]++
			longest[s] = max(longest[s], w.decision.Until.Sub(now))
		}
	}
	for s, n := range counts {
		host, kind := s.host, string(s.kind)
		c <- prometheus.MustNewConstMetric(waitingOrders, prometheus.GaugeValue, float64(n), host, kind)
		c <- prometheus.MustNewConstMetric(longestWait, prometheus.GaugeValue, longest[s].Seconds(), host, kind)
	}
}

// waiters returns copies of the orders in the queue.
func (c *CALedger) waiters() (all []waiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ledger != nil {
		for _, w := range c.ledger.queue.waiting {
			all = append(all, *w)
		}
	}
	return all
}
