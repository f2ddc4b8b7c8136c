package order

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/budget"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/issuer"
	"github.com/perennial-pki/perennial/internal/lane"
	"github.com/perennial-pki/perennial/internal/observe"
	"github.com/perennial-pki/perennial/internal/revocation"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver/dns01"
	"github.com/perennial-pki/perennial/pki"
)

const (
	// byIssuer is the field index of unfinished Orders and Challenges by signer.Key.
	byIssuer = "spec.issuerRef"
	// byOrder is the field index of Challenges by the UID of their Order.
	byOrder = "metadata.ownerReferences.order"
	// atOnce is how many authorizations of an order are read at once.
	atOnce = 8
	// maxAuthorizations is how many an order may want, and maxOffered how many challenges of each are kept. CAs want one for each name, of
	// which they take a hundred or a few, and offer less than ten.
	maxAuthorizations, maxOffered = 1000, 20
	// longest is how long an Order may take if the CA does not say when its own expires. No CA that is known takes a quarter of it.
	longest = 30 * 24 * time.Hour
)

// Reconciler brings Orders to their certificates.
type Reconciler struct {
	Client   client.Client
	Scope    signer.Scope
	Accounts *account.Accounts
	Budget   *budget.Budget
	Limits   pki.Limits
	Events   record.EventRecorder
	Metrics  *observe.Metrics
	Clock    clock.PassiveClock
	// Revocation revokes what is issued for Certificates that are deleted meanwhile.
	Revocation *revocation.Reconciler
	// Names answers what the DNS says of names that a CA refused.
	Names *dns01.Resolver
	Lanes *lane.Lanes

	pace pace
	// finalized are the orders that the CA was asked to finalize. Of those that began before a restart their state says it, a moment later.
	finalized instants
	// unreplaced are the orders of which the CA does not believe that they replace a certificate. After a restart it is asked once more.
	unreplaced instants
	// told is since when an order says what it waits for.
	told instants
}

// AddIndexes adds the indexes that the reconcilers of this package need.
func AddIndexes(ctx context.Context, indexer client.FieldIndexer) error {
	err := errors.Join(
		indexer.IndexField(ctx, &cmacme.Order{}, byIssuer, func(o client.Object) []string {
			order := o.(*cmacme.Order)
			if finished(order.Status.State) {
				return nil
			}
			return []string{signer.Key(order.Namespace, order.Spec.IssuerRef)}
		}),
		indexer.IndexField(ctx, &cmacme.Order{}, byProtected, func(o client.Object) []string {
			if !protected(o.(*cmacme.Order)) {
				return nil
			}
			return []string{o.GetAnnotations()[cmapi.CertificateNameKey]}
		}),
		indexer.IndexField(ctx, &cmacme.Order{}, byNames, func(o client.Object) []string { return namesOf(o.(*cmacme.Order)) }),
		indexer.IndexField(ctx, &cmacme.Challenge{}, byIssuer, func(o client.Object) []string {
			ch := o.(*cmacme.Challenge)
			if finished(ch.Status.State) && ch.DeletionTimestamp == nil {
				return nil
			}
			return []string{signer.Key(ch.Namespace, ch.Spec.IssuerRef)}
		}),
		indexer.IndexField(ctx, &cmacme.Challenge{}, byOrder, func(o client.Object) []string {
			if owner := metav1.GetControllerOf(o); owner != nil {
				return []string{string(owner.UID)}
			}
			return nil
		}),
	)
	if err != nil {
		return fmt.Errorf("index Orders and Challenges: %w", err)
	}
	return nil
}

// SetupWithManager registers the reconciler.
func (r *Reconciler) SetupWithManager(_ context.Context, mgr ctrl.Manager, _ cache.Cache, o controller.Options) error {
	issuerChanged := handler.TypedEnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		var list cmacme.OrderList
		key := r.Scope.Of(o.(cmapi.GenericIssuer)).Key()
		if err := r.Client.List(ctx, &list, cached(byIssuer, key)...); err != nil {
			return nil // only a cache that is stopping fails
		}
		var requests []reconcile.Request
		for i := range list.Items {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
		return requests
	})
	const name = "orders"
	b := ctrl.NewControllerManagedBy(mgr).Named(name).WithOptions(o).
		For(&cmacme.Order{}).
		Owns(&cmacme.Challenge{}).
		Watches(&cmapi.Certificate{}, handler.EnqueueRequestsFromMapFunc(r.protectedOf), builder.WithPredicates(predicate.Funcs{
			CreateFunc: func(event.CreateEvent) bool { return false }, // its Orders look at it themselves
		})).
		WatchesRawSource(source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
			r.Budget.Wake = func(name types.NamespacedName) { queue.Add(reconcile.Request{NamespacedName: name}) }
			return nil
		})).
		WatchesRawSource(r.Lanes.Calls())
	return issuer.Watch(b, r.Scope, issuerChanged, issuer.Changed()).Complete(observe.Counted(r.Metrics, name, r.Lanes.Reconciler(r)))
}

// cached are the options of a list from an index, without a copy. The caller must not change what it gets.
func cached(index, value string) []client.ListOption {
	return []client.ListOption{
		client.MatchingFields{index: value}, client.UnsafeDisableDeepCopy, &client.ListOptions{DisableReadYourWritesConsistency: true},
	}
}

// finished reports whether nothing more will become of an Order or Challenge.
func finished(s cmacme.State) bool {
	switch s {
	case cmacme.Valid, cmacme.Invalid, cmacme.Expired, cmacme.Errored:
		return true
	}
	return false
}

// Reconcile looks at one Order.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	order := &cmacme.Order{}
	if err := r.Client.Get(ctx, request.NamespacedName, order, client.UnsafeDisableDeepCopy); err != nil {
		if apierrors.IsNotFound(err) {
			r.Budget.Gone(request.NamespacedName)
			return reconcile.Result{}, nil
		}
		return reconcile.Result{}, err
	}
	if protected(order) {
		if result, done, err := r.settle(ctx, order); done {
			return result, err
		}
	}
	if order.DeletionTimestamp != nil {
		return reconcile.Result{}, nil // its Challenges go with it
	}
	var challenges cmacme.ChallengeList
	if err := r.Client.List(ctx, &challenges, client.InNamespace(order.Namespace),
		client.MatchingFields{byOrder: string(order.UID)}, client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, err
	}
	if finished(order.Status.State) {
		r.pace.forget(string(order.UID))
		r.finalized.drop(string(order.UID))
		r.unreplaced.drop(string(order.UID))
		r.told.drop(string(order.UID))
		return reconcile.Result{}, r.discard(ctx, challenges.Items)
	}
	next := order.DeepCopy()
	var say []func() // after the patch: a pass that could not write what it says is followed by one that finds the same
	result, err := r.step(ctx, next, challenges.Items, &say)
	if err != nil {
		result, err = r.failed(ctx, next, err, &say)
	}
	if equality.Semantic.DeepEqual(order.Status, next.Status) {
		return result, err
	}
	if err := r.Client.Status().Patch(ctx, next, client.MergeFromWithOptions(order, client.MergeFromWithOptimisticLock{})); err != nil {
		if apierrors.IsNotFound(err) {
			return reconcile.Result{}, nil
		}
		return reconcile.Result{}, fmt.Errorf("write status: %w", err)
	}
	if order.Status.URL == "" && next.Status.URL != "" {
		r.Budget.Taken(string(next.UID))
	}
	for _, f := range say {
		f()
	}
	if order.Status.State != next.Status.State && finished(next.Status.State) {
		r.Budget.Ended(string(next.UID), next.Status.State == cmacme.Valid)
		if next.Status.State == cmacme.Valid {
			r.Events.Event(next, corev1.EventTypeNormal, "Complete", "Order completed successfully")
		} else {
			r.Events.Event(next, corev1.EventTypeWarning, "Failed", next.Status.Reason)
		}
	}
	return result, err
}

// discard deletes Challenges that are no longer needed. What they have set up is taken away by their own reconciler.
func (r *Reconciler) discard(ctx context.Context, challenges []cmacme.Challenge) error {
	for i := range challenges {
		if challenges[i].DeletionTimestamp == nil {
			if err := r.Client.Delete(ctx, &challenges[i], client.Preconditions{UID: &challenges[i].UID}); client.IgnoreNotFound(err) != nil && !apierrors.IsConflict(err) {
				return fmt.Errorf("delete Challenge %s: %w", challenges[i].Name, err)
			}
		}
	}
	return nil
}

// failed writes an error into the status, by its class, and says when to go on.
func (r *Reconciler) failed(ctx context.Context, order *cmacme.Order, err error, say *[]func()) (result reconcile.Result, again error) {
	now := r.Clock.Now()
	if lane.Is(err) {
		return reconcile.Result{}, err
	}
	if forgotten := acme.IsProblem(err, acme.ProblemAccountDoesNotExist); forgotten || account.Doubtful(err) {
		i, e := r.Scope.Get(ctx, r.Client, order.Namespace, order.Spec.IssuerRef)
		if e == nil && i != nil {
			if e = lane.Enter(ctx, account.Party(i.GetSpec().ACME)); e == nil {
				e = r.Accounts.Recover(ctx, i)
				lane.Leave(ctx)
			}
		}
		switch {
		case e == nil && forgotten:
			return reconcile.Result{RequeueAfter: time.Second}, nil // when the cache has the new account
		case lane.Is(e):
			return reconcile.Result{}, e
		case e != nil && (forgotten || fault.Of(e).Class == fault.Misconfigured):
			err = e
		}
	}
	failure := fault.Of(account.Fault("", now, err))
	switch failure.Class {
	case fault.Refused:
		end(order, now, cmacme.Errored, failure.Error())
		return reconcile.Result{}, nil
	case fault.Limited:
		order.Status.Reason = failure.Error()
		return reconcile.Result{RequeueAfter: failure.Until.Sub(now)}, nil // when the CA said
	case fault.Misconfigured:
		if failure.Reason == noSolver && order.Status.Reason != failure.Error() {
			*say = append(*say, func() { r.Events.Event(order, corev1.EventTypeWarning, noSolver, failure.Error()) })
		}
		order.Status.Reason = failure.Error()
		return reconcile.Result{RequeueAfter: mended(now.Sub(order.CreationTimestamp.Time))}, nil // issuers are watched, Secrets are not
	}
	order.Status.Reason = failure.Error() + "; it is tried again"
	return reconcile.Result{}, err // with the queue's back-off
}

// end writes that the order is lost.
func end(order *cmacme.Order, now time.Time, state cmacme.State, reason string) {
	order.Status.State, order.Status.Reason = state, reason
	if order.Status.FailureTime == nil {
		t := metav1.NewTime(now)
		order.Status.FailureTime = &t
	}
}

// lapse writes that the order is of no use any more, though nobody's proof failed: it took too long, or belongs to another account. Another
// takes its place at once, unless the CA was asked for the certificate of this one: then it may have been issued.
func (r *Reconciler) lapse(order *cmacme.Order, now time.Time, reason string) {
	state := cmacme.Expired
	if order.Status.State == cmacme.Processing || r.finalized.is(string(order.UID)) {
		state = cmacme.Errored
	}
	end(order, now, state, reason)
}

// gone says that the CA no longer has an order, or an authorization, for the account that asks, if that is what an error means. CAs forget what has
// expired.
func gone(err error) string {
	var p *acme.Problem
	switch {
	case !errors.As(err, &p), p.Action != "order" && p.Action != "authorization":
		return ""
	case p.Type == acme.ProblemUnauthorized:
		return fmt.Sprintf("the %s was made by another account, or has expired: %s", p.Action, p)
	case p.Type == acme.ProblemMalformed, p.Status == 404:
		return fmt.Sprintf("the CA no longer knows the %s: %s", p.Action, p)
	}
	return ""
}

// step makes the next step of an order and writes into its status what came of it.
func (r *Reconciler) step(ctx context.Context, order *cmacme.Order, challenges []cmacme.Challenge, say *[]func()) (reconcile.Result, error) {
	i, err := r.Scope.Get(ctx, r.Client, order.Namespace, order.Spec.IssuerRef)
	if err != nil {
		return reconcile.Result{}, err
	}
	if i == nil || i.GetSpec().ACME == nil {
		return reconcile.Result{}, fault.Misconfiguredf("IssuerNotFound", "there is no ACME %s %q: create it", order.Spec.IssuerRef.KindOrDefault(), order.Spec.IssuerRef.Name)
	}
	ca, by, err := r.Accounts.Of(ctx, i)
	if err != nil {
		return reconcile.Result{}, err
	}
	var ask budget.Ask
	if order.Status.URL == "" { // before it takes a place in the lane: it may have to wait
		if ask, err = r.ask(ctx, order, i, by); err != nil {
			return reconcile.Result{}, err
		}
		if err := r.admit(ctx, order, i, ask); err != nil {
			reached(&order.Status.UnreachableSince, r.Clock.Now(), err)
			return reconcile.Result{}, err
		}
	}
	if wait := r.pace.early(string(order.UID), r.Clock.Now()); wait > 0 && order.Status.State == cmacme.Processing {
		return reconcile.Result{RequeueAfter: wait}, nil // whatever brings us here, the CA has said when to ask, or been asked just now
	}
	if err := lane.Enter(ctx, account.Party(i.GetSpec().ACME)); err != nil {
		return reconcile.Result{}, err
	}
	defer lane.Leave(ctx)
	o := conversation{ca: ca, by: by, now: r.Clock.Now(), say: say}
	if order.Status.URL == "" {
		err = r.Accounts.Believed(ctx, i, by, r.refused(ctx, order, i, ask, r.begin(ctx, o, order, i, ask)))
		reached(&order.Status.UnreachableSince, o.now, err)
		return reconcile.Result{}, err // the write of the status brings us back
	}
	result, err := r.converse(ctx, o, order, i, challenges)
	err = r.Accounts.Believed(ctx, i, by, err)
	st := &order.Status
	reached(&st.UnreachableSince, o.now, err)
	if why := gone(err); why != "" {
		r.lapse(order, o.now, why)
		err = nil
	}
	for n := range challenges {
		if since := challenges[n].Status.UnreachableSince; since != nil && (st.UnreachableSince == nil || since.Before(st.UnreachableSince)) {
			st.UnreachableSince = since
		}
	}
	if err == nil && st.State == cmacme.Invalid {
		err = r.paused(ctx, order, i, by)
	}
	return result, err
}

// converse makes the next step with the CA.
func (r *Reconciler) converse(ctx context.Context, o conversation, order *cmacme.Order, i *signer.Issuer, challenges []cmacme.Challenge) (reconcile.Result, error) {
	st := &order.Status
	switch {
	case slices.ContainsFunc(st.Authorizations, func(z cmacme.ACMEAuthorization) bool { return z.Identifier == "" }):
		return reconcile.Result{}, o.readAuthorizations(ctx, order)
	case st.State == cmacme.Pending:
		open, created, err := r.challenge(ctx, order, i, o.by, challenges)
		if err != nil {
			return reconcile.Result{}, err
		}
		if again := r.tellWaiting(order, challenges); created || open {
			return reconcile.Result{RequeueAfter: again}, nil // Challenges are watched; if none changes, there is something to tell then
		}
	}
	return r.advance(ctx, o, order, i, challenges)
}

// conversation is what speaks with the CA for an account.
type conversation struct {
	ca  *acme.Client
	by  acme.Account
	now time.Time
	// say is what is to be told when the status is written.
	say *[]func()
}

// request is what the CA is asked for. It follows from the Order alone, so that it is the same after a crash.
func request(order *cmacme.Order) (acme.OrderRequest, error) {
	r := acme.OrderRequest{Profile: order.Spec.Profile, Replaces: order.Spec.Replaces}
	add := func(id acme.Identifier) {
		if !slices.Contains(r.Identifiers, id) {
			r.Identifiers = append(r.Identifiers, id)
		}
	}
	addresses := slices.Clone(order.Spec.IPAddresses)
	if cn := order.Spec.CommonName; cn != "" {
		if _, err := netip.ParseAddr(cn); err == nil {
			addresses = append(addresses, cn)
		} else {
			add(acme.DNS(cn))
		}
	}
	for _, name := range order.Spec.DNSNames {
		add(acme.DNS(name))
	}
	for _, s := range addresses {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return r, fault.Refusedf("InvalidOrder", "spec.ipAddresses: %q is not an IP address", s)
		}
		add(acme.IP(addr))
	}
	slices.SortFunc(r.Identifiers, func(a, b acme.Identifier) int {
		return strings.Compare(a.Type+" "+a.Value, b.Type+" "+b.Value)
	})
	if order.Spec.Duration != nil {
		notAfter := order.CreationTimestamp.Add(order.Spec.Duration.Duration).UTC()
		r.NotAfter = &notAfter
	}
	return r, nil
}

// begin asks for the order.
func (r *Reconciler) begin(ctx context.Context, o conversation, order *cmacme.Order, i *signer.Issuer, within budget.Ask) error {
	ask, err := request(order)
	if err != nil {
		return err
	}
	if r.unreplaced.is(string(order.UID)) {
		ask.Replaces = ""
	}
	got, err := r.newOrder(ctx, o, order, ask)
	if ask.Replaces != "" && aboutReplaces(err) {
		// The certificate is needed, whatever the CA thinks of its predecessor. But then the order is one like others.
		r.unreplaced.since(string(order.UID), o.now)
		within.Window = acme.Window{}
		if err := r.admit(ctx, order, i, within); err != nil {
			return err
		}
		ask.Replaces = ""
		got, err = r.newOrder(ctx, o, order, ask)
	}
	if err != nil {
		return err
	}
	if !same(ask.Identifiers, got.Identifiers) {
		return fault.Refusedf("InvalidOrder", "the CA made an order for %s, not for %s", words(got.Identifiers), words(ask.Identifiers))
	}
	if n := len(got.Authorizations); n > maxAuthorizations {
		return fault.Refusedf("InvalidOrder", "the CA wants %d authorizations for %d names", n, len(ask.Identifiers))
	}
	st := &order.Status
	st.URL, st.FinalizeURL, st.State, st.Reason = got.URL, got.Finalize, cmacme.State(got.Status), ""
	for _, url := range got.Authorizations {
		st.Authorizations = append(st.Authorizations, cmacme.ACMEAuthorization{URL: url})
	}
	return nil
}

// newOrder sends the order. The budget is told if the CA may have taken it and nobody knows.
func (r *Reconciler) newOrder(ctx context.Context, o conversation, order *cmacme.Order, ask acme.OrderRequest) (acme.Order, error) {
	got, err := o.ca.NewOrder(ctx, o.by, ask)
	var silent *acme.NoReply
	var wrong *acme.ProtocolError
	if errors.As(err, &silent) && silent.Action == "newOrder" || errors.As(err, &wrong) && wrong.Action == "newOrder" {
		r.Budget.Unheard(string(order.UID))
	}
	return got, err
}

// same reports whether two lists name the same, in whatever order and spelling.
func same(a, b []acme.Identifier) bool {
	has := func(list []acme.Identifier, id acme.Identifier) bool {
		return slices.ContainsFunc(list, func(other acme.Identifier) bool { return canonical(other) == canonical(id) })
	}
	return !slices.ContainsFunc(a, func(id acme.Identifier) bool { return !has(b, id) }) &&
		!slices.ContainsFunc(b, func(id acme.Identifier) bool { return !has(a, id) })
}

func canonical(id acme.Identifier) acme.Identifier {
	if addr, err := netip.ParseAddr(id.Value); err == nil && id.Type == acme.IdentifierIP {
		return acme.IP(addr)
	}
	return acme.Identifier{Type: id.Type, Value: strings.ToLower(id.Value)}
}

// words names identifiers for people: the first of them, if there are many.
func words(ids []acme.Identifier) string {
	const most = 5
	var parts []string
	for _, id := range ids[:min(len(ids), most)] {
		parts = append(parts, strconv.Quote(id.Value[:min(len(id.Value), 255)]))
	}
	if n := len(ids) - most; n > 0 {
		parts = append(parts, fmt.Sprintf("%d more", n))
	}
	return strings.Join(parts, ", ")
}

// aboutReplaces reports whether an order was refused because of what it replaces: RFC 9773 section 5 and what CAs do. There is one type of problem
// for it. Of the others that CAs use, the words must speak of it, as each of them has other reasons, too, which asking once more would not mend;
// and it must be the CA that speaks, not a proxy on the way.
func aboutReplaces(err error) bool {
	var p *acme.Problem
	if !errors.As(err, &p) {
		return false
	}
	switch {
	case p.Type == acme.ProblemAlreadyReplaced:
		return true
	case p.Type == acme.ProblemMalformed, p.Type == acme.ProblemUnauthorized, p.Type != "" && p.Status == http.StatusNotFound:
		return strings.Contains(strings.ToLower(p.Title+" "+p.Detail), "replac") // replaces, replacement, replacing
	}
	return false
}

// authorizations reads those at the URLs. If one cannot be read, the error says why.
func (o conversation) authorizations(ctx context.Context, urls []string) ([]acme.Authorization, error) {
	found := make([]acme.Authorization, len(urls))
	errs := make([]error, len(urls))
	var group sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i, url := range urls {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			found[i], errs[i] = o.ca.Authorization(ctx, o.by, url)
		})
	}
	group.Wait()
	return found, errors.Join(errs...)
}

// lapsed says which authorization of an order is of no use any more though no proof failed, if there is one.
func (o conversation) lapsed(ctx context.Context, order *cmacme.Order) (string, error) {
	var urls []string
	for _, z := range order.Status.Authorizations {
		urls = append(urls, z.URL)
	}
	found, err := o.authorizations(ctx, urls)
	if err != nil {
		return "", err
	}
	for _, z := range found {
		switch past := z.Expires != nil && !o.now.Before(*z.Expires); {
		case z.Status == acme.StatusInvalid:
			return "", nil
		case past:
			return fmt.Sprintf("%s: the authorization expired at %s", words([]acme.Identifier{z.Identifier}), z.Expires.UTC().Format(time.RFC3339)), nil
		case z.Status != acme.StatusPending && z.Status != acme.StatusValid:
			return fmt.Sprintf("%s: the authorization is %s", words([]acme.Identifier{z.Identifier}), z.Status), nil
		}
	}
	return "", nil
}

// readAuthorizations fills in what the order's authorizations are about.
func (o conversation) readAuthorizations(ctx context.Context, order *cmacme.Order) error {
	var unread []*cmacme.ACMEAuthorization
	var urls []string
	for i := range order.Status.Authorizations {
		if z := &order.Status.Authorizations[i]; z.Identifier == "" {
			unread, urls = append(unread, z), append(urls, z.URL)
		}
	}
	found, err := o.authorizations(ctx, urls)
	if err != nil {
		return err
	}
	ask, err := request(order)
	if err != nil {
		return err
	}
	for i, z := range unread {
		// Nothing is proved to a CA but what we have asked for. What is proved already may be more, such as the name above.
		if id := found[i].Identifier; found[i].Status == acme.StatusPending && !slices.ContainsFunc(ask.Identifiers, func(a acme.Identifier) bool {
			a.Value = strings.TrimPrefix(a.Value, "*.")
			return canonical(a) == canonical(id)
		}) {
			return fault.Refusedf("InvalidOrder", "the CA wants proof for %s, which the order is not for", words([]acme.Identifier{id}))
		}
		wildcard := found[i].Wildcard
		z.Identifier, z.Wildcard, z.InitialState = found[i].Identifier.Value, &wildcard, initialState(found[i].Status)
		for _, ch := range found[i].Challenges {
			if (ch.Token != "" || ch.Type == acme.ChallengeDNSPersist01) && len(z.Challenges) < maxOffered {
				z.Challenges = append(z.Challenges, cmacme.ACMEChallenge{URL: ch.URL, Token: ch.Token, Type: ch.Type, IssuerDomainNames: ch.IssuerDomainNames})
			}
		}
	}
	return nil
}

// initialState is the state of an authorization in an Order.
func initialState(status string) cmacme.State {
	switch status {
	case acme.StatusPending, acme.StatusValid, acme.StatusInvalid:
		return cmacme.State(status)
	}
	return cmacme.Expired // or deactivated, or revoked: of no use
}

// challenge makes the Challenges that are missing, and reports whether one is still open.
func (r *Reconciler) challenge(ctx context.Context, order *cmacme.Order, i *signer.Issuer, by acme.Account, challenges []cmacme.Challenge) (open, created bool, err error) {
	for _, z := range order.Status.Authorizations {
		if z.InitialState != cmacme.Pending {
			continue
		}
		at := slices.IndexFunc(challenges, func(c cmacme.Challenge) bool { return c.Spec.AuthorizationURL == z.URL && c.DeletionTimestamp == nil })
		if at >= 0 {
			switch state := challenges[at].Status.State; {
			case state == cmacme.Valid:
			case finished(state):
				return false, created, nil // the order is lost: the CA says how
			case state != cmacme.Processing && r.outdated(order, z, i, by, &challenges[at]):
				if err := r.discard(ctx, challenges[at:at+1]); err != nil {
					return open, created, err
				}
				open = true // its end is watched
			default:
				open = true
			}
			continue
		}
		ch, err := challengeFor(order, z, i.GetSpec().ACME, by)
		if err != nil {
			return open, created, err
		}
		if err := r.Client.Create(ctx, ch); err != nil {
			if apierrors.IsAlreadyExists(err) { // one that is being deleted: its deletion is watched
				open = true
				continue
			}
			return open, created, fmt.Errorf("create Challenge %s: %w", ch.Name, err)
		}
		created = true
		r.Events.Eventf(order, corev1.EventTypeNormal, "Created", "Created Challenge resource %q for domain %q", ch.Name, ch.Spec.DNSName)
	}
	return open, created, nil
}

// outdated reports whether the proof of a challenge is not what the CA will look for: it is made of an account, or its key, that was changed.
func (r *Reconciler) outdated(order *cmacme.Order, z cmacme.ACMEAuthorization, i *signer.Issuer, by acme.Account, is *cmacme.Challenge) bool {
	should, err := challengeFor(order, z, i.GetSpec().ACME, by)
	return err == nil && should.Spec.Type == is.Spec.Type && should.Spec.Token == is.Spec.Token &&
		(should.Spec.Key != is.Spec.Key || should.Spec.RecordName != is.Spec.RecordName)
}

// advance reads the order at the CA and does what its status wants.
func (r *Reconciler) advance(ctx context.Context, o conversation, order *cmacme.Order, i *signer.Issuer, challenges []cmacme.Challenge) (reconcile.Result, error) {
	got, err := o.ca.Order(ctx, o.by, order.Status.URL)
	if err != nil {
		return reconcile.Result{}, err
	}
	until := order.CreationTimestamp.Add(longest)
	if got.Expires != nil {
		until = *got.Expires
	}
	if !o.now.Before(until) && got.Status != acme.StatusValid && got.Status != acme.StatusInvalid {
		r.lapse(order, o.now, fmt.Sprintf("the order expired at %s and was still %s", until.UTC().Format(time.RFC3339), got.Status))
		return reconcile.Result{}, nil
	}
	finalized := false
	if got.Status == acme.StatusReady {
		csr, err := r.Limits.DecodeCSRPEM(order.Spec.Request)
		if err != nil {
			return reconcile.Result{}, fault.Refusedf("InvalidOrder", "spec.request: %w", err)
		}
		if may, err := r.mayFinalize(ctx, order); err != nil || !may {
			return reconcile.Result{}, err
		}
		finalized = true
		r.Budget.Final(string(order.UID))
		if got, err = o.ca.Finalize(ctx, o.by, got, csr.Raw); acme.IsProblem(err, acme.ProblemOrderNotReady) {
			return reconcile.Result{RequeueAfter: r.pace.next(string(order.UID), o.now, time.Time{})}, nil // another pass was faster, or the CA is
		}
		if err != nil {
			return reconcile.Result{}, r.notFinalized(ctx, o, order, challenges, err)
		}
		r.finalized.since(string(order.UID), o.now)
	}
	st := &order.Status
	switch got.Status {
	case acme.StatusValid:
		return reconcile.Result{}, r.fetch(ctx, o, order, got, i.GetSpec().ACME.PreferredChain)
	case acme.StatusInvalid:
		return reconcile.Result{}, r.invalid(ctx, o, order, got, challenges)
	case acme.StatusPending:
		if worst := worst(challenges); worst != "" {
			// The CA may take a moment to draw the consequence; there is no other.
			end(order, o.now, worst, why(got, challenges))
			return reconcile.Result{}, nil
		}
		// Nothing is open here. What was proven before this order may have expired, at a CA that says so in the authorization alone.
		useless := func(z cmacme.ACMEAuthorization) bool { return z.InitialState == cmacme.Expired }
		if r.pace.slow(string(order.UID)) || slices.ContainsFunc(order.Status.Authorizations, useless) {
			text, err := o.lapsed(ctx, order)
			if err != nil {
				return reconcile.Result{}, err
			}
			if text != "" {
				r.lapse(order, o.now, text)
				return reconcile.Result{}, nil
			}
		}
	}
	if finalized && got.RetryAfter.IsZero() {
		return reconcile.Result{RequeueAfter: firstPoll / 10}, nil // the CA needs a moment, and has not said how long
	}
	// When the CA said, or a little later each time.
	wait := r.pace.next(string(order.UID), o.now, got.RetryAfter)
	// Most CAs need no more than a moment, which is not worth a write.
	if got.Status == acme.StatusProcessing && (!finalized || wait >= worthSaying) {
		st.State, st.Reason = cmacme.Processing, "The ACME server is processing the order"
		if !got.RetryAfter.IsZero() && wait >= worthSaying {
			st.Reason += ", and is asked again at " + o.now.Add(wait).UTC().Format(time.RFC3339)
		}
	}
	return reconcile.Result{RequeueAfter: wait}, nil
}

// notFinalized returns the error of a finalize, unless it means that the order has lapsed, which is written into its status.
func (r *Reconciler) notFinalized(ctx context.Context, o conversation, order *cmacme.Order, challenges []cmacme.Challenge, err error) error {
	var p *acme.Problem
	switch {
	case !errors.As(err, &p):
	case aboutCAA(p):
		return fmt.Errorf("%w. %s", err, r.explainCAA(ctx, o, order, challenges, p))
	case p.Status == 404:
		r.lapse(order, o.now, fmt.Sprintf("the CA no longer knows the order: %s", p))
		return nil
	case p.Type == acme.ProblemMalformed, p.Type == acme.ProblemUnauthorized:
		text, e := o.lapsed(ctx, order)
		if e != nil {
			return e
		}
		if text != "" {
			r.lapse(order, o.now, text)
			return nil
		}
	}
	return err
}

// invalid ends an order that the CA says is invalid.
func (r *Reconciler) invalid(ctx context.Context, o conversation, order *cmacme.Order, got acme.Order, challenges []cmacme.Challenge) error {
	switch worst := worst(challenges); {
	case worst == cmacme.Expired:
		r.lapse(order, o.now, why(got, challenges))
		return nil
	case worst == "" && got.Error == nil:
		text, err := o.lapsed(ctx, order)
		if err != nil {
			return err
		}
		if text != "" {
			r.lapse(order, o.now, text)
			return nil
		}
	}
	reason := why(got, challenges)
	if got.Error != nil {
		if text := r.explainCAA(ctx, o, order, challenges, got.Error); text != "" {
			reason += ". " + text
		}
	}
	end(order, o.now, cmacme.Invalid, reason)
	return nil
}

// worst is how challenges ended that did not succeed: of several, one whose proof failed. It is empty if there is none.
func worst(challenges []cmacme.Challenge) cmacme.State {
	var worst cmacme.State
	for i := range challenges {
		if s := challenges[i].Status.State; finished(s) && s != cmacme.Valid && (worst == "" || worst == cmacme.Expired) {
			worst = s
		}
	}
	return worst
}

// why says why an order failed: what the CA says of each challenge, and of the order.
func why(got acme.Order, challenges []cmacme.Challenge) string {
	var parts []string
	for i := range challenges {
		if s := challenges[i].Status; finished(s.State) && s.State != cmacme.Valid {
			parts = append(parts, fmt.Sprintf("%s of %s: %s", challenges[i].Spec.Type, challenges[i].Spec.DNSName, s.Reason))
		}
	}
	if got.Error != nil && len(parts) == 0 {
		parts = append(parts, got.Error.Error())
	}
	if len(parts) == 0 {
		parts = append(parts, "the CA says that the order is invalid, and not why")
	}
	return strings.Join(parts, "; ")
}
