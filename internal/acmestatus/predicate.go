package acmestatus

import (
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

// IgnoreReason is a predicate that drops updates which change nothing but the reason of an Order
// or Challenge, or add the finalizer of a Challenge. The pass that wrote them has scheduled the
// next one. Reasons can name ports, streams and times that are new each time, and would otherwise
// cause a pass as fast as they can be written.
func IgnoreReason() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool { return !reasonOnly(e.ObjectOld, e.ObjectNew) }}
}

// reasonOnly reports whether two versions differ in status.reason or an added finalizer alone.
func reasonOnly(before, after client.Object) bool {
	was, oldReason := withoutReason(before)
	is, newReason := withoutReason(after)
	protected := false
	if is, ok := is.(*cmacme.Challenge); ok && HasFinalizer(is) {
		if was := was.(*cmacme.Challenge); !HasFinalizer(was) {
			was.Finalizers, protected = is.Finalizers, true
		}
	}
	return (oldReason != newReason || protected) && equality.Semantic.DeepEqual(was, is)
}

// withoutReason returns a shallow copy of an Order or Challenge without its reason, and the reason.
func withoutReason(o client.Object) (is client.Object, reason string) {
	switch o := o.(type) {
	case *cmacme.Order:
		c := *o
		c.Status.Reason, c.ResourceVersion, c.ManagedFields = "", "", nil
		return &c, o.Status.Reason
	case *cmacme.Challenge:
		c := *o
		c.Status.Reason, c.ResourceVersion, c.ManagedFields = "", "", nil
		return &c, o.Status.Reason
	}
	return o, ""
}
