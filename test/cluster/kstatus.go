package cluster

import (
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// The states of kstatus, by which Helm, Flux and kpt wait for objects.
const (
	Current     = "Current"
	InProgress  = "InProgress"
	Failed      = "Failed"
	Terminating = "Terminating"
)

// Kstatus returns the state of an object by the generic rules of sigs.k8s.io/cli-utils/pkg/kstatus.
func Kstatus(o *unstructured.Unstructured) string {
	if o.GetDeletionTimestamp() != nil {
		return Terminating
	}
	if observed, found, _ := unstructured.NestedInt64(o.Object, "status", "observedGeneration"); found &&
		observed != o.GetGeneration() {
		return InProgress
	}
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	is := func(name string, statuses ...string) bool {
		return slices.ContainsFunc(conditions, func(c any) bool {
			m, _ := c.(map[string]any)
			status, _ := m["status"].(string)
			return m["type"] == name && slices.Contains(statuses, status)
		})
	}
	switch {
	case is("Reconciling", "True"):
		return InProgress
	case is("Stalled", "True"):
		return Failed
	case is("Ready", "False", "Unknown"):
		return InProgress
	}
	return Current // also without any condition
}
