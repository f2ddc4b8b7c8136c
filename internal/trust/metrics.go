package trust

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
)

var readyStatus = prometheus.NewDesc("perennial_trustbundle_ready_status",
	"1 for the status of the Ready condition of a TrustBundle, 0 for the others.", []string{"name", "condition"}, nil)

// Describe implements prometheus.Collector.
func (r *Reconciler) Describe(out chan<- *prometheus.Desc) { out <- readyStatus }

// Collect implements prometheus.Collector. The series have the results of the last pass over each
// TrustBundle, even if the API server did not store them.
func (r *Reconciler) Collect(out chan<- prometheus.Metric) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, is := range r.ready {
		for _, status := range []metav1.ConditionStatus{metav1.ConditionTrue, metav1.ConditionFalse,
			metav1.ConditionUnknown} {
			value := 0.0
			if status == is {
				value = 1
			}
			out <- prometheus.MustNewConstMetric(readyStatus, prometheus.GaugeValue, value, name, string(status))
		}
	}
}

// noteReady notes the result of a pass for the metrics.
func (r *Reconciler) noteReady(bundle *api.TrustBundle) {
	is := metav1.ConditionUnknown
	if c := meta.FindStatusCondition(bundle.Status.Conditions, api.ConditionReady); c != nil {
		is = c.Status
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ready == nil {
		r.ready = map[string]metav1.ConditionStatus{}
	}
	r.ready[bundle.Name] = is
}
