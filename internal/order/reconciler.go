package order

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/acmestatus"
	"github.com/perennial-pki/perennial/internal/challenge"
	"github.com/perennial-pki/perennial/internal/challenge/seal"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/issuer"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/memory"
	"github.com/perennial-pki/perennial/internal/observe"
	"github.com/perennial-pki/perennial/internal/order/origin"
	"github.com/perennial-pki/perennial/internal/ratelimit"
	"github.com/perennial-pki/perennial/internal/revocation"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver/dns01/resolver"
	"github.com/perennial-pki/perennial/pki"
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
	// Revocation revokes what the CA issues for Certificates that are deleted meanwhile.
	Revocation *revocation.Reconciler
	// Names queries the DNS about names that a CA refused.
	Names   *resolver.Resolver
	Limiter *limiter.Limiter
	// Origin finds out whether an Order was made for an approved request.
	Origin *origin.Checker
	// Seals marks the Challenges that the controller makes.
	Seals *seal.Sealer

	memory     memory.Records[remembered]
	duplicates duplicates
	queue      workqueue.TypedRateLimitingInterface[reconcile.Request] // set before the first pass
}

// SetupWithManager registers the reconciler.
func (r *Reconciler) SetupWithManager(_ context.Context, mgr ctrl.Manager, _ cache.Cache, o controller.Options) error {
	issuerChanged := handler.TypedEnqueueRequestsFromMapFunc(
		func(ctx context.Context, o client.Object) []reconcile.Request {
			return r.requestsOf(ctx, cached(byIssuer, r.Scope.Of(o.(cmapi.GenericIssuer)).Key()))
		},
	)
	requestApproved := handler.TypedEnqueueRequestsFromMapFunc(
		func(ctx context.Context, o client.Object) []reconcile.Request {
			return r.requestsOf(ctx, cached(signer.ByRequestUID, string(o.GetUID())))
		},
	)
	const name = "orders"
	b := ctrl.NewControllerManagedBy(mgr).Named(name).WithOptions(o).
		For(&cmacme.Order{}, builder.WithPredicates(acmestatus.IgnoreReason())).
		Owns(&cmacme.Challenge{}).
		Watches(&cmapi.Certificate{}, handler.EnqueueRequestsFromMapFunc(r.protectedOf),
			builder.WithPredicates(predicate.Funcs{
				CreateFunc: func(event.CreateEvent) bool { return false }, // its Orders read it themselves
			})).
		Watches(&cmapi.CertificateRequest{}, requestApproved, builder.WithPredicates(predicate.Funcs{
			CreateFunc: func(event.CreateEvent) bool { return false }, // no Order waits for it
			UpdateFunc: func(e event.UpdateEvent) bool {
				return !cmapi.CertificateRequestIsApproved(&e.ObjectOld.(*cmapi.CertificateRequest).Status) &&
					cmapi.CertificateRequestIsApproved(&e.ObjectNew.(*cmapi.CertificateRequest).Status)
			},
			DeleteFunc: func(event.DeleteEvent) bool { return false }, // its Order goes with it
		})).
		WatchesRawSource(source.Func(func(_ context.Context,
			queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
			r.queue = queue
			r.RateLimits.Wake = func(name types.NamespacedName) { queue.Add(reconcile.Request{NamespacedName: name}) }
			return nil
		})).
		WatchesRawSource(r.Limiter.Wakeups())
	return issuer.Watch(b, r.Scope, issuerChanged, issuer.Changed()).
		Complete(observe.Instrument(r.Metrics, name, r.Limiter.Reconciler(r)))
}

// requestsOf returns a request for each Order that the options select.
func (r *Reconciler) requestsOf(ctx context.Context, options []client.ListOption) (requests []reconcile.Request) {
	var list cmacme.OrderList
	if err := r.Client.List(ctx, &list, options...); err != nil {
		return nil // only a cache that is stopping fails
	}
	for i := range list.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
	}
	return requests
}

// approvalArrives is how long a new Order waits for the approval of its request before it reports
// that there is none. The approval causes a pass.
const approvalArrives = 5 * time.Second

// Reconcile makes a pass for one Order.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	order := &cmacme.Order{}
	if err := r.Client.Get(ctx, request.NamespacedName, order, client.UnsafeDisableDeepCopy); err != nil {
		if apierrors.IsNotFound(err) {
			r.RateLimits.Deleted(request.NamespacedName)
			r.forget(request.NamespacedName)
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
		client.MatchingFields{challenge.ByOrder: string(order.UID)}, client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, err
	}
	if acmestatus.IsFinal(order.Status.State) {
		r.forget(request.NamespacedName)
		err := r.discard(ctx, challenges.Items)
		if fault.RefusedByAPI(err) {
			r.Events.Eventf(order, corev1.EventTypeWarning, "CleanUpError",
				"The order is over, and its Challenges cannot be deleted: %s", fault.Retried(err))
		}
		return reconcile.Result{}, err
	}
	if order.Status.URL != "" {
		r.duplicates.sent(request.NamespacedName)
	}
	if wait := order.CreationTimestamp.Add(approvalArrives).Sub(r.Clock.Now()); wait > 0 &&
		r.Origin.AwaitsApproval(ctx, order) {
		return reconcile.Result{RequeueAfter: min(wait, approvalArrives)}, nil // then the pass reports it
	}
	d := r.pass(ctx, order, challenges.Items)
	logWait(ctx, order, d, r.Clock.Now(), &r.memory.Of(order).logged)
	result := reconcile.Result{RequeueAfter: d.Again}
	if equality.Semantic.DeepEqual(order.Status, d.Status) {
		return result, d.Err
	}
	next := order.DeepCopy()
	next.Status = d.Status
	patch := client.MergeFromWithOptions(order, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Status().Patch(ctx, next, patch); err != nil {
		return reconcile.Result{}, observe.StatusRefused(r.Events, order, err)
	}
	logTransition(ctx, order, next, r.Clock.Now())
	r.written(order, next, d.Events)
	return result, d.Err
}

// written counts and reports a status after its write.
func (r *Reconciler) written(was, is *cmacme.Order, events []Event) {
	if was.Status.URL == "" && is.Status.URL != "" {
		r.RateLimits.Accepted(string(is.UID))
	}
	if acmestatus.IsFinal(is.Status.State) {
		r.RateLimits.Finished(string(is.UID), is.Status.State == cmacme.Valid)
	}
	for _, e := range events {
		r.Events.Event(is, e.Type, e.Reason, e.Message)
	}
}

// discard deletes Challenges that are no longer needed. Their own reconciler removes their proofs.
func (r *Reconciler) discard(ctx context.Context, challenges []cmacme.Challenge) error {
	for i := range challenges {
		if challenges[i].DeletionTimestamp != nil {
			continue
		}
		err := r.Client.Delete(ctx, &challenges[i], client.Preconditions{UID: &challenges[i].UID})
		if client.IgnoreNotFound(err) != nil && !apierrors.IsConflict(err) {
			return fmt.Errorf("delete Challenge %s: %w", challenges[i].Name, err)
		}
	}
	return nil
}
