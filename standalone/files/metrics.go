package files

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	perennial "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
)

var (
	readyStatus = prometheus.NewDesc("perennial_certificatefile_ready_status",
		"1 for the status of the Ready condition of a CertificateFile, 0 for the others.", []string{"name", "condition"}, nil)
	notAfterTime = prometheus.NewDesc("perennial_certificatefile_not_after_timestamp_seconds",
		"When the certificate in the files expires, in seconds since 1970. 0 if there is none.", []string{"name"}, nil)
)

// collector is a prometheus.Collector for the results of the last pass over each CertificateFile,
// even if the API server did not store them.
type collector reconciler

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	out <- readyStatus
	out <- notAfterTime
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, cf := range c.known {
		is := metav1.ConditionUnknown
		if condition := meta.FindStatusCondition(cf.Status.Conditions, perennial.ConditionReady); condition != nil {
			is = condition.Status
		}
		for _, status := range []metav1.ConditionStatus{metav1.ConditionTrue, metav1.ConditionFalse,
			metav1.ConditionUnknown} {
			value := 0.0
			if status == is {
				value = 1
			}
			out <- prometheus.MustNewConstMetric(readyStatus, prometheus.GaugeValue, value, name, string(status))
		}
		notAfter := 0.0
		if d := cf.Status.Deployed; d != nil {
			notAfter = float64(d.NotAfter.Unix())
		}
		out <- prometheus.MustNewConstMetric(notAfterTime, prometheus.GaugeValue, notAfter, name)
	}
}
