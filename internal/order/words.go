package order

import (
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

// notWords passes over updates by which an Order or Challenge says something else, and nothing is otherwise. Who says so has said when to look again, too;
// errors name ports, streams and times that are new each time, and would else be tried again as fast as they can be written.
func notWords() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool { return !onlyWords(e.ObjectOld, e.ObjectNew) }}
}

// onlyWords reports whether two versions differ in status.reason, and in nothing else that means something.
func onlyWords(before, after client.Object) bool {
	switch now := after.(type) {
	case *cmacme.Order:
		was, is := *before.(*cmacme.Order), *now
		if was.Status.Reason == is.Status.Reason {
			return false
		}
		was.Status.Reason, was.ResourceVersion, was.ManagedFields = is.Status.Reason, is.ResourceVersion, is.ManagedFields
		return equality.Semantic.DeepEqual(&was, &is)
	case *cmacme.Challenge:
		was, is := *before.(*cmacme.Challenge), *now
		if was.Status.Reason == is.Status.Reason {
			return false
		}
		was.Status.Reason, was.ResourceVersion, was.ManagedFields = is.Status.Reason, is.ResourceVersion, is.ManagedFields
		return equality.Semantic.DeepEqual(&was, &is)
	}
	return false
}
