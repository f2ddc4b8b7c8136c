package order

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/issuer"
	"github.com/perennial-pki/perennial/internal/lane"
	"github.com/perennial-pki/perennial/internal/observe"
	"github.com/perennial-pki/perennial/internal/ratelimit"
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
	// longest is how long an Order may take if the CA does not say when its own expires. No CA that is known takes a quarter of it.
	longest = 30 * 24 * time.Hour
)

// Reconciler brings Orders to their certificates.
type Reconciler struct {
	Client     client.Client
	Scope      signer.Scope
	Accounts   *account.Accounts
	RateLimits *ratelimit.Ledgers
	Limits     pki.Limits
	Events     record.EventRecorder
	Metrics    *observe.Metrics
	Clock      clock.PassiveClock
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
	// unread is since when a reply about an order cannot be read. After a restart it counts anew.
	unread instants
	// left is since when the Certificate of an Order is known to be gone. After a restart it counts anew.
	left instants
	// told is since when an order says what it waits for, and due when the CA is to be asked for one whose challenges are open.
	told, due instants
	// limited is until when the CA is not asked for an order that it has, for an account, as it said. After a restart it is asked once more.
	limited instants
	// twins are orders for the same, open is since when one of them is known to be open, and waits since when one waits for another.
	twins       twins
	open, waits instants
	queue       workqueue.TypedRateLimitingInterface[reconcile.Request] // set before the first pass
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
		indexer.IndexField(ctx, &cmacme.Order{}, signer.OpenOrders, func(o client.Object) []string {
			owner := metav1.GetControllerOf(o)
			if owner == nil || finished(o.(*cmacme.Order).Status.State) {
				return nil
			}
			return []string{string(owner.UID)}
		}),
		indexer.IndexField(ctx, &cmacme.Order{}, byOpen, func(o client.Object) []string { return openOf(o.(*cmacme.Order)) }),
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
		For(&cmacme.Order{}, builder.WithPredicates(notWords())).
		Owns(&cmacme.Challenge{}).
		Watches(&cmapi.Certificate{}, handler.EnqueueRequestsFromMapFunc(r.protectedOf), builder.WithPredicates(predicate.Funcs{
			CreateFunc: func(event.CreateEvent) bool { return false }, // its Orders look at it themselves
		})).
		WatchesRawSource(source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
			r.queue = queue
			r.RateLimits.Wake = func(name types.NamespacedName) { queue.Add(reconcile.Request{NamespacedName: name}) }
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
			r.RateLimits.Deleted(request.NamespacedName)
			for _, remembered := range []*instants{&r.open, &r.waits, &r.due} {
				remembered.drop(request.String())
			}
			r.over(request.NamespacedName)
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
		for _, remembered := range []*instants{&r.finalized, &r.unreplaced, &r.told, &r.unread} {
			remembered.drop(string(order.UID))
		}
		r.open.drop(request.String())
		r.due.drop(request.String())
		r.over(request.NamespacedName)
		return reconcile.Result{}, r.discard(ctx, challenges.Items)
	}
	if order.Status.URL != "" {
		r.twins.written(request.NamespacedName)
	}
	next := order.DeepCopy()
	var say []func() // after the patch: a pass that could not write what it says is followed by one that finds the same
	began := r.Clock.Now()
	result, err := r.step(ctx, next, challenges.Items, &say)
	if err != nil {
		result, err = r.failed(ctx, next, began, err, &say)
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
		r.RateLimits.Accepted(string(next.UID))
	}
	for _, f := range say {
		f()
	}
	if order.Status.State != next.Status.State && finished(next.Status.State) {
		r.RateLimits.Finished(string(next.UID), next.Status.State == cmacme.Valid)
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

// failed writes the error of a step into the status, by its class, and says when to go on.
func (r *Reconciler) failed(ctx context.Context, order *cmacme.Order, began time.Time, err error, say *[]func()) (result reconcile.Result, again error) {
	now := r.Clock.Now()
	if lane.Is(err) {
		return reconcile.Result{}, err
	}
	if forgotten := acme.IsProblem(err, acme.ProblemAccountDoesNotExist); forgotten || account.Doubtful(err) {
		i, e := r.Scope.Get(ctx, r.Client, order.Namespace, order.Spec.IssuerRef)
		if e == nil && i != nil {
			e = recoverAccount(ctx, r.Accounts, i, began, forgotten)
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
		wait := failure.Wait(now)
		if failure.Reason == rateLimited {
			wait = min(wait, lineAgain)
		}
		return reconcile.Result{RequeueAfter: wait}, nil // when the CA said
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

// recoverAccount is Accounts.Recover with a place in the lane of the CA.
func recoverAccount(ctx context.Context, of *account.Accounts, i *signer.Issuer, asked time.Time, forgotten bool) error {
	if err := lane.Enter(ctx, account.Party(i.GetSpec().ACME)); err != nil {
		return err
	}
	defer lane.Leave(ctx)
	return of.Recover(ctx, i, asked, forgotten)
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
	var ask ratelimit.Request
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
	o := conversation{ca: ca, by: by, now: r.Clock.Now(), say: say, persists: persists(i.GetSpec().ACME)}
	if order.Status.URL == "" {
		first, err := r.first(ctx, order, by)
		if err != nil {
			return reconcile.Result{}, err
		}
		if first != nil {
			return r.behind(order, *first), nil
		}
		r.waits.drop(client.ObjectKeyFromObject(order).String())
		err = r.Accounts.Believed(ctx, i, by, r.refused(ctx, order, i, ask, r.begin(ctx, o, order, i, ask)))
		if err != nil {
			r.over(client.ObjectKeyFromObject(order))
		}
		reached(&order.Status.UnreachableSince, o.now, err)
		return reconcile.Result{}, err // the write of the status brings us back
	}
	was := order.Status
	err = ca.Owns(ctx, order.Status.URL) // also while nothing is to be asked of the order
	var result reconcile.Result
	if wait := r.limited.rests(string(order.UID)+by.URL, o.now); wait > 0 && err == nil {
		return reconcile.Result{RequeueAfter: wait}, nil // when the CA said
	}
	if err == nil {
		result, err = r.converse(ctx, o, order, i, challenges)
	}
	err = r.Accounts.Believed(ctx, i, by, err)
	r.limited.rest(string(order.UID)+by.URL, o.now, err)
	st := &order.Status
	reached(&st.UnreachableSince, o.now, err)
	if again := r.again(order, o.now, err); again != nil {
		err = again
	} else if err = noCertificate(err); gone(err) != "" {
		why := gone(err)
		if errors.As(err, new(*acme.ForeignURLError)) {
			end(order, o.now, cmacme.Expired, why) // whatever the former server has issued is not wanted
		} else {
			r.lapse(order, o.now, why)
		}
		err = nil
	}
	for n := range challenges {
		if since := challenges[n].Status.UnreachableSince; since != nil && (st.UnreachableSince == nil || since.Before(st.UnreachableSince)) {
			st.UnreachableSince = since
		}
	}
	if err == nil && st.State == cmacme.Invalid {
		if err = r.failures(ctx, o, i, challenges); err == nil {
			err = r.paused(ctx, o, order, i)
		}
		if err != nil {
			*st = was // the end of it can be read again
		}
	}
	return result, err
}

// converse makes the next step with the CA.
func (r *Reconciler) converse(ctx context.Context, o conversation, order *cmacme.Order, i *signer.Issuer, challenges []cmacme.Challenge) (reconcile.Result, error) {
	st := &order.Status
	switch {
	case slices.ContainsFunc(st.Authorizations, func(z cmacme.ACMEAuthorization) bool { return z.Identifier == "" }):
		until, err := o.readAuthorizations(ctx, order)
		if err == nil {
			r.due.by(client.ObjectKeyFromObject(order).String(), until)
		}
		return reconcile.Result{}, err
	case st.State == cmacme.Pending:
		next, err := r.look(ctx, o, order, challenges)
		if err != nil || finished(st.State) {
			return reconcile.Result{}, err
		}
		open, created, err := r.challenge(ctx, order, i, o.by, challenges)
		if err != nil {
			return reconcile.Result{}, err
		}
		if again := r.tellWaiting(order, challenges); created || open {
			if again > 0 {
				next = min(next, again)
			}
			return reconcile.Result{RequeueAfter: next}, nil // Challenges are watched; if none changes, there is something to tell then, or the CA is asked
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
	// persists says that a solver of the issuer is for dns-persist-01.
	persists bool
}

// persists reports whether an issuer has a solver for dns-persist-01.
func persists(spec *cmacme.ACMEIssuer) bool {
	return slices.ContainsFunc(spec.Solvers, func(s cmacme.ACMEChallengeSolver) bool {
		return s.DNS01 != nil && s.DNS01.ChallengeType == cmacme.DNS01ChallengeTypeDNSPersist01
	})
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
			case state != cmacme.Processing && givesWay(order, z, i.GetSpec().ACME, by, &challenges[at]):
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
		if slices.ContainsFunc(challenges, func(c cmacme.Challenge) bool { return c.Spec.AuthorizationURL == z.URL && c.Spec.Key == ch.Spec.Key }) {
			open = true // it is being deleted, and takes away the same value that this one sets up; its end is watched
			continue
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

// givesWay reports whether another challenge is to take the place of one that nobody has asked the CA to look at: its solver is not what the issuer now says, or
// its proof is made of an account, or its key, that was changed. The name is made of all that a challenge is, as it was asked for.
func givesWay(order *cmacme.Order, z cmacme.ACMEAuthorization, spec *cmacme.ACMEIssuer, by acme.Account, is *cmacme.Challenge) bool {
	should, err := challengeFor(order, z, spec, by)
	return err == nil && should.Name != is.Name
}

// expired ends an order that has expired at the CA, and reports whether it has.
func (r *Reconciler) expired(o conversation, order *cmacme.Order, got acme.Order) bool {
	until := order.CreationTimestamp.Add(longest)
	if got.Expires != nil {
		until = *got.Expires
	}
	if o.now.Before(until) || got.Status == acme.StatusValid || got.Status == acme.StatusInvalid {
		return false
	}
	r.lapse(order, o.now, fmt.Sprintf("the order expired at %s and was still %s", until.UTC().Format(time.RFC3339), got.Status))
	return true
}

// advance reads the order at the CA and does what its status wants.
func (r *Reconciler) advance(ctx context.Context, o conversation, order *cmacme.Order, i *signer.Issuer, challenges []cmacme.Challenge) (reconcile.Result, error) {
	got, err := o.ca.Order(ctx, o.by, order.Status.URL)
	if err != nil {
		return reconcile.Result{}, err
	}
	if r.expired(o, order, got) {
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
		r.RateLimits.Finalizing(string(order.UID))
		if got, err = o.ca.Finalize(ctx, o.by, got, csr.Raw); acme.IsProblem(err, acme.ProblemOrderNotReady) {
			return reconcile.Result{RequeueAfter: r.pace.next(string(order.UID), o.now, time.Time{})}, nil // another pass was faster, or the CA is
		}
		if err != nil {
			return reconcile.Result{}, r.notFinalized(ctx, o, order, challenges, err)
		}
		r.finalized.since(string(order.UID), o.now)
		r.over(client.ObjectKeyFromObject(order))
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
			if lapsed, err := r.lapsed(ctx, o, order); lapsed || err != nil {
				return reconcile.Result{}, err
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
