// Package challenge brings Challenges to their end: it presents a proof by a solver, checks that it
// can be seen from outside, asks the CA to look, and removes the proof.
//
// A pass observes what is known of a Challenge (Observation), decides by a pure function what to do
// next (Decide), and carries it out; what came of that goes into the observation for the next
// decision, until there is nothing to do but wait. Nothing waits in a worker.
package challenge

import (
	"context"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/acmestatus"
	"github.com/perennial-pki/perennial/internal/challenge/seal"
	"github.com/perennial-pki/perennial/internal/issuer"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/memory"
	"github.com/perennial-pki/perennial/internal/observe"
	"github.com/perennial-pki/perennial/internal/order/origin"
	"github.com/perennial-pki/perennial/internal/ratelimit"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver"
	"github.com/perennial-pki/perennial/internal/solver/dns01/resolver"
)

// Reconciler brings Challenges to their end.
type Reconciler struct {
	Client     client.Client
	Scope      signer.Scope
	Accounts   *account.Accounts
	RateLimits *ratelimit.Ledgers
	// Solvers are those of the types of challenges.
	Solvers map[cmacme.ACMEChallengeType]solver.Solver
	Events  record.EventRecorder
	Metrics *observe.Metrics
	Clock   clock.PassiveClock
	// Names answers what the DNS says of names that a CA refused.
	Names *resolver.Resolver
	// Max is how many challenges are in progress at once. scheduler.DefaultMax if zero.
	Max     int
	Limiter *limiter.Limiter
	// Guard says why the credentials of an issuer must not be used now. It may be nil.
	Guard func(*signer.Issuer) error
	// Origin finds out whether an Order was made for an approved request.
	Origin *origin.Checker
	// Seals knows the Challenges that the controller made.
	Seals *seal.Sealer

	queue  workqueue.TypedRateLimitingInterface[reconcile.Request] // set before the first pass
	memory memory.Records[remembered]
	slots  slots
}

// SetupWithManager registers the reconciler.
func (r *Reconciler) SetupWithManager(_ context.Context, mgr ctrl.Manager, _ cache.Cache, o controller.Options) error {
	const name = "challenges"
	b := ctrl.NewControllerManagedBy(mgr).Named(name).WithOptions(o).
		For(&cmacme.Challenge{}, builder.WithPredicates(acmestatus.IgnoreReason())).
		WatchesRawSource(source.Func(func(_ context.Context,
			queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
			r.queue = queue
			return nil
		})).
		WatchesRawSource(r.Limiter.Wakeups())
	issuerChanged := handler.TypedEnqueueRequestsFromMapFunc(r.ofIssuer)
	return issuer.Watch(b, r.Scope, issuerChanged, issuer.Changed()).
		Complete(observe.Instrument(r.Metrics, name, r.Limiter.Reconciler(r)))
}

// ofIssuer returns the unfinished Challenges of an issuer.
func (r *Reconciler) ofIssuer(ctx context.Context, o client.Object) (requests []reconcile.Request) {
	var list cmacme.ChallengeList
	key := r.Scope.Of(o.(cmapi.GenericIssuer)).Key()
	if err := r.Client.List(ctx, &list, cached(byIssuer, key)...); err != nil {
		return nil // only a cache that is stopping fails
	}
	for i := range list.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
	}
	return requests
}

// Reconcile makes a pass for one Challenge.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	ch, err := r.latest(ctx, request)
	if err != nil {
		if apierrors.IsNotFound(err) {
			r.memory.Drop(request.NamespacedName)
			r.slots.forget(request.NamespacedName)
			r.wakeNext(ctx) // its slot is free
			return reconcile.Result{}, nil
		}
		return reconcile.Result{}, err
	}
	unproven := r.statusUnproven(ctx, ch)
	r.slots.see(ch, unproven)
	if unproven {
		r.wakeNext(ctx) // it may have been counted until now
	}
	if acmestatus.ProofUnneeded(ch) {
		return r.cleanUp(ctx, ch)
	}
	if !acmestatus.HasFinalizer(ch) {
		protected, err := r.protect(ctx, ch)
		switch {
		case apierrors.IsNotFound(err) || apierrors.IsConflict(err):
			return reconcile.Result{}, nil // deleted meanwhile
		case err != nil:
			return reconcile.Result{}, r.unprotected(ctx, ch, err)
		}
		ch = protected
	}
	d := r.pass(ctx, ch)
	logWait(ctx, ch, d, r.Clock.Now(), &r.memory.Of(ch).logged)
	result := reconcile.Result{RequeueAfter: d.Again}
	if limiter.IsBusy(d.Err) {
		defer r.wakeNext(ctx) // others need not wait, too
	}
	if equality.Semantic.DeepEqual(ch.Status, d.Status) {
		return result, d.Err
	}
	next := ch.DeepCopy()
	next.Status = d.Status
	if next.Status.State == cmacme.Unknown {
		next.Status.State = cmacme.Pending
	}
	if gone, err := r.writeStatus(ctx, ch, next); gone || err != nil {
		return reconcile.Result{}, err
	}
	logTransitions(ctx, ch, next, r.Clock.Now())
	r.report(next, d.Events)
	return result, d.Err
}

// latest returns a Challenge as the cache has it, or as this process wrote it last. A pass does not
// wait for the cache: its watch may lag while the CA has its answer.
func (r *Reconciler) latest(ctx context.Context, request reconcile.Request) (*cmacme.Challenge, error) {
	ch := &cmacme.Challenge{}
	if err := r.Client.Get(ctx, request.NamespacedName, ch, client.UnsafeDisableDeepCopy,
		client.DisableReadYourWritesConsistency); err != nil {
		return nil, err
	}
	m := r.memory.Of(ch)
	if m.written == nil {
		return ch, nil
	}
	order, err := resourceversion.CompareResourceVersion(m.written.ResourceVersion, ch.ResourceVersion)
	if err == nil && order > 0 {
		return m.written, nil
	}
	m.written = nil
	return ch, nil
}

// writeStatus writes the status of a Challenge, unless it is gone.
func (r *Reconciler) writeStatus(ctx context.Context, ch, next *cmacme.Challenge) (gone bool, err error) {
	err = r.Client.Status().Patch(ctx, next, client.MergeFromWithOptions(ch, client.MergeFromWithOptimisticLock{}))
	if err == nil {
		r.memory.Of(next).written = next
		return false, nil
	}
	return apierrors.IsNotFound(err), observe.StatusRefused(r.Events, ch, err)
}

func (r *Reconciler) report(ch *cmacme.Challenge, events []Event) {
	for _, e := range events {
		r.Events.Event(ch, e.Type, e.Reason, e.Message)
	}
}
