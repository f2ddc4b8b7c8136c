package budget

import (
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	waitingOrders = prometheus.NewDesc("perennial_acme_orders_waiting", "Orders that wait until a limit of the CA has room, by the limit.", []string{"host", "limit"}, nil)
	longestWait   = prometheus.NewDesc("perennial_acme_orders_wait_seconds", "Time until the last of the orders that wait for a limit of the CA may be sent.", []string{"host", "limit"}, nil)
)

// Describe implements prometheus.Collector.
func (b *Budget) Describe(c chan<- *prometheus.Desc) {
	c <- waitingOrders
	c <- longestWait
}

// Collect implements prometheus.Collector. There are as many series as CAs and limits for which somebody waits.
func (b *Budget) Collect(c chan<- prometheus.Metric) {
	type of struct {
		host string
		kind Kind
	}
	counts, longest := map[of]int{}, map[of]time.Duration{}
	now := b.Clock.Now()
	for _, ca := range b.all() {
		u, err := url.Parse(ca.directory)
		if err != nil {
			continue
		}
		ca.mu.Lock()
		if ca.ledger != nil {
			for _, w := range ca.ledger.line.waiting {
				k := of{u.Host, w.verdict.Kind}
				counts[k]++
				longest[k] = max(longest[k], w.verdict.Until.Sub(now))
			}
		}
		ca.mu.Unlock()
	}
	for k, n := range counts {
		c <- prometheus.MustNewConstMetric(waitingOrders, prometheus.GaugeValue, float64(n), k.host, string(k.kind))
		c <- prometheus.MustNewConstMetric(longestWait, prometheus.GaugeValue, longest[k].Seconds(), k.host, string(k.kind))
	}
}
