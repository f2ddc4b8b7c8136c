package order

import (
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

// notWords passes over updates by which an Order or Challenge says something else, and nothing is otherwise. Who says so has said when to look again, too;
// errors name ports, streams and times that are new each time, and would else be tried again as fast as they can be written. So it is with the finalizer of
// a Challenge: the pass that sets it goes on.
func notWords() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool { return !onlyWords(e.ObjectOld, e.ObjectNew) }}
}

// onlyWords reports whether two versions differ in status.reason or a finalizer that was set, and in nothing else that means something.
func onlyWords(before, after client.Object) bool {
	was, said := wordless(before)
	is, says := wordless(after)
	protected := false
	if is, ok := is.(*cmacme.Challenge); ok && hasFinalizer(is) {
		if was := was.(*cmacme.Challenge); !hasFinalizer(was) {
			was.Finalizers, protected = is.Finalizers, true
		}
	}
	return (said != says || protected) && equality.Semantic.DeepEqual(was, is)
}

// wordless returns what an Order or Challenge is, and what it says.
func wordless(o client.Object) (is client.Object, says string) {
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
