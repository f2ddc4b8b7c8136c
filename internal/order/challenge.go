package order

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/issuer"
	"github.com/perennial-pki/perennial/internal/observe"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver"
)

const (
	// cleanUpLimit is how long it is tried to take away what was set up for a challenge. Then the Challenge goes, and an event names what
	// stays: nothing may hang on a credential that is gone.
	cleanUpLimit = 10 * time.Minute
	cleanUpAgain = 15 * time.Second
	// checkAgain is when it is looked again whether a proof can be seen.
	checkAgain = 2 * time.Second
	// mendedAgain is when it is looked again at most whether somebody has mended what a challenge needs.
	mendedAgain = 5 * time.Minute
)

// ChallengeReconciler brings Challenges to their end.
type ChallengeReconciler struct {
	Client   client.Client
	Scope    signer.Scope
	Accounts *account.Accounts
	// Solvers are those of the types of challenges.
	Solvers map[cmacme.ACMEChallengeType]solver.Solver
	Events  record.EventRecorder
	Metrics *observe.Metrics
	Clock   clock.PassiveClock
	// Max is how many challenges are worked on at once. DefaultMaxChallenges if zero.
	Max int
	// Lane is how many exchanges there may be with one CA at once.
	Lane int

	queue workqueue.TypedRateLimitingInterface[reconcile.Request] // SetupWithManager sets it
	lanes lanes
	pace  pace
	// seen is since when a proof can be seen. After a restart it counts anew.
	seen instants
}

// SetupWithManager registers the reconciler.
func (r *ChallengeReconciler) SetupWithManager(_ context.Context, mgr ctrl.Manager, _ cache.Cache, o controller.Options) error {
	issuerChanged := handler.TypedEnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		var list cmacme.ChallengeList
		if err := r.Client.List(ctx, &list, cached(byIssuer, r.Scope.Of(o.(cmapi.GenericIssuer)).Key())...); err != nil {
			return nil // only a cache that is stopping fails
		}
		var requests []reconcile.Request
		for i := range list.Items {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
		return requests
	})
	const name = "challenges"
	b := ctrl.NewControllerManagedBy(mgr).Named(name).WithOptions(o).
		For(&cmacme.Challenge{}).
		WatchesRawSource(source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
			r.queue = queue
			return nil
		}))
	return issuer.Watch(b, r.Scope, issuerChanged, issuer.Changed()).Complete(observe.Counted(r.Metrics, name, reconcile.Reconciler(r)))
}

// Reconcile looks at one Challenge.
func (r *ChallengeReconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	ch := &cmacme.Challenge{}
	if err := r.Client.Get(ctx, request.NamespacedName, ch, client.UnsafeDisableDeepCopy); err != nil {
		if apierrors.IsNotFound(err) {
			r.admitNext(ctx) // its place is free
			return reconcile.Result{}, nil
		}
		return reconcile.Result{}, err
	}
	if ch.DeletionTimestamp != nil {
		r.pace.forget(string(ch.UID))
		r.seen.drop(string(ch.UID))
		return r.cleanUp(ctx, ch)
	}
	if finished(ch.Status.State) {
		return reconcile.Result{}, nil // the Order deletes it
	}
	next := ch.DeepCopy()
	result, say, err := r.step(ctx, next)
	if err != nil {
		result, err = r.failed(next, err)
	}
	if equality.Semantic.DeepEqual(ch.Status, next.Status) {
		return result, err
	}
	if err := r.Client.Status().Patch(ctx, next, client.MergeFromWithOptions(ch, client.MergeFromWithOptimisticLock{})); err != nil {
		if apierrors.IsNotFound(err) {
			return reconcile.Result{}, nil
		}
		return reconcile.Result{}, fmt.Errorf("write status: %w", err)
	}
	for _, f := range say {
		f()
	}
	if !finished(ch.Status.State) && finished(next.Status.State) && next.Status.State != cmacme.Valid {
		r.Events.Event(next, corev1.EventTypeWarning, "Failed", next.Status.Reason)
	}
	return result, err
}

// failed writes an error into the status, by its class, and says when to go on.
func (r *ChallengeReconciler) failed(ch *cmacme.Challenge, err error) (reconcile.Result, error) {
	now := r.Clock.Now()
	failure := fault.Of(account.Fault("", now, err))
	ch.Status.Reason = failure.Error()
	switch failure.Class {
	case fault.Refused:
		ch.Status.State, ch.Status.Processing = cmacme.Errored, false
		return reconcile.Result{}, nil
	case fault.Limited:
		return reconcile.Result{RequeueAfter: failure.Until.Sub(now)}, nil // when the CA said
	case fault.Misconfigured:
		// Secrets of solvers are not watched. Whoever mends them does so soon, or not for long.
		return reconcile.Result{RequeueAfter: min(max(now.Sub(ch.CreationTimestamp.Time)/10, lastPoll), mendedAgain)}, nil
	}
	return reconcile.Result{}, err // again with the queue's back-off
}

// step makes the next step of a challenge and writes into its status what came of it.
func (r *ChallengeReconciler) step(ctx context.Context, ch *cmacme.Challenge) (result reconcile.Result, say []func(), err error) {
	i, err := r.Scope.Get(ctx, r.Client, ch.Namespace, ch.Spec.IssuerRef)
	if err != nil {
		return result, nil, err
	}
	if i == nil || i.GetSpec().ACME == nil {
		return result, nil, fault.Misconfiguredf("IssuerNotFound", "there is no ACME %s %q: create it", ch.Spec.IssuerRef.KindOrDefault(), ch.Spec.IssuerRef.Name)
	}
	s := r.Solvers[ch.Spec.Type]
	if s == nil {
		return result, nil, fault.Misconfiguredf("NoSolver", "this process solves no challenges of type %s", ch.Spec.Type)
	}
	ca, by, err := r.Accounts.Of(ctx, i)
	if err != nil {
		return result, nil, err
	}
	defer func() { err = r.Accounts.Believed(ctx, i, by, err) }()
	now := r.Clock.Now()
	st := &ch.Status
	if !st.Presented {
		may, err := r.admits(ctx, ch)
		if err != nil {
			return result, nil, err
		}
		if !may {
			return reconcile.Result{RequeueAfter: seldomAgain}, nil, nil // admitNext is faster, unless something is missed
		}
	} else if at := st.PresentedAt; at != nil && now.Sub(at.Time) > givenUp {
		return result, nil, fault.Refusedf("TimedOut", "given up after it was presented for %s: %s", givenUp, st.Reason)
	}
	leave, room := r.lanes.enter(i.GetSpec().ACME.Server, max(r.Lane, whenSlow), now)
	if !room {
		return reconcile.Result{RequeueAfter: laneAgain}, nil, nil // the CA is slow, and others have workers, too
	}
	defer leave()
	accepted := st.State == cmacme.Processing

	// What the server knows comes first: the proof may be given, or lost, already. Between presenting and accepting there is nothing
	// new to be known.
	if accepted || !st.Presented {
		z, err := ca.Authorization(ctx, by, ch.Spec.AuthorizationURL)
		if err != nil {
			return result, nil, err
		}
		if over(ch, z) {
			st.Processing = false
			if st.State == cmacme.Valid {
				say = append(say, func() {
					r.Events.Eventf(ch, corev1.EventTypeNormal, "DomainVerified", "Domain %q verified with %q validation", ch.Spec.DNSName, ch.Spec.Type)
				})
			}
			return result, say, nil
		}
		if accepted {
			return reconcile.Result{RequeueAfter: r.pace.next(string(ch.UID), now, z.RetryAfter)}, nil, nil // the CA is looking
		}
	}
	if !st.Presented {
		if err := s.Present(ctx, i, ch); err != nil {
			say = append(say, func() { r.Events.Event(ch, corev1.EventTypeWarning, "PresentError", err.Error()) })
			return result, say, err
		}
		at := metav1.NewTime(now)
		st.Processing, st.Presented, st.PresentedAt = true, true, &at
		st.State = cmacme.Pending
		say = append(say, func() {
			r.Events.Eventf(ch, corev1.EventTypeNormal, "Presented", "Presented challenge using %s challenge mechanism", ch.Spec.Type)
		})
	}
	if wait := ch.Spec.Solver.WaitInsteadOfSelfCheck; wait != nil {
		if until := st.PresentedAt.Add(wait.Duration); now.Before(until) {
			st.Reason = fmt.Sprintf("Waiting instead of a self check: %s, until %s", wait.Duration, until.UTC().Format(time.RFC3339))
			return reconcile.Result{RequeueAfter: until.Sub(now)}, say, nil // the end of the wait
		}
	} else {
		seen, err := s.Check(ctx, i, ch)
		if err != nil {
			return result, say, err
		}
		if !seen.Visible {
			st.Reason = fmt.Sprintf("Waiting for %s challenge propagation: %s", ch.Spec.Type, seen.Why)
			r.seen.drop(string(ch.UID))
			return reconcile.Result{RequeueAfter: checkDelay(now.Sub(st.PresentedAt.Time))}, say, nil // others, whom we cannot watch, have to see it
		}
	}
	if wait := ch.Spec.Solver.WaitForRecordToPropagate; wait != nil {
		if until := r.seen.since(string(ch.UID), now).Add(wait.Duration); now.Before(until) {
			st.Reason = fmt.Sprintf("Waiting after the proof could be seen: %s, until %s", wait.Duration, until.UTC().Format(time.RFC3339))
			return reconcile.Result{RequeueAfter: until.Sub(now)}, say, nil // the end of the wait
		}
	}
	if _, err := ca.AcceptChallenge(ctx, by, ch.Spec.URL); err != nil {
		return result, say, err
	}
	st.State, st.Reason = cmacme.Processing, "The ACME server is looking at the challenge"
	r.pace.forget(string(ch.UID))
	return reconcile.Result{RequeueAfter: firstPoll / 4}, say, nil // the CA needs a moment
}

// unfinished returns the challenges of all issuers that are not over.
func (r *ChallengeReconciler) unfinished(ctx context.Context) ([]*cmacme.Challenge, error) {
	var list cmacme.ChallengeList
	if err := r.Client.List(ctx, &list, client.UnsafeDisableDeepCopy, &client.ListOptions{DisableReadYourWritesConsistency: true}); err != nil {
		return nil, err
	}
	var all []*cmacme.Challenge
	for i := range list.Items {
		if ch := &list.Items[i]; !finished(ch.Status.State) || active(ch) {
			all = append(all, ch)
		}
	}
	return all, nil
}

func (r *ChallengeReconciler) most() int {
	if r.Max > 0 {
		return r.Max
	}
	return DefaultMaxChallenges
}

// admits reports whether a challenge may begin.
func (r *ChallengeReconciler) admits(ctx context.Context, ch *cmacme.Challenge) (bool, error) {
	all, err := r.unfinished(ctx)
	if err != nil {
		return false, err
	}
	if len(all) <= r.most() { // the cache may not have this one yet
		return true, nil
	}
	return slices.ContainsFunc(admitted(all, r.most()), func(a *cmacme.Challenge) bool { return a.UID == ch.UID }), nil
}

// admitNext lets those look that may begin now.
func (r *ChallengeReconciler) admitNext(ctx context.Context) {
	all, err := r.unfinished(ctx)
	if err != nil || len(all) == 0 {
		return
	}
	for _, ch := range admitted(all, r.most()) {
		r.queue.Add(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(ch)})
	}
}

// over writes the end of a challenge into its status, if its authorization has come to one.
func over(ch *cmacme.Challenge, z acme.Authorization) bool {
	st := &ch.Status
	switch z.Status {
	case acme.StatusPending:
		return false
	case acme.StatusValid:
		st.State, st.Reason = cmacme.Valid, "Successfully authorized domain"
	case acme.StatusInvalid:
		st.State, st.Reason = cmacme.Invalid, "the CA says that the authorization is invalid, and not why"
		for _, c := range z.Challenges {
			if c.Error != nil && (c.URL == ch.Spec.URL || st.Reason == "") {
				st.Reason = "the CA could not verify it: " + c.Error.Error()
			}
		}
	default: // deactivated, expired, revoked
		st.State, st.Reason = cmacme.Expired, fmt.Sprintf("the authorization is %s", z.Status)
	}
	return true
}

// cleanUp takes away what was set up, and lets the Challenge go.
func (r *ChallengeReconciler) cleanUp(ctx context.Context, ch *cmacme.Challenge) (reconcile.Result, error) {
	ours := func(f string) bool {
		return f == cmacme.ACMEDomainQualifiedFinalizer || f == cmacme.ACMELegacyFinalizer
	}
	if !slices.ContainsFunc(ch.Finalizers, ours) {
		return reconcile.Result{}, nil
	}
	if err := r.takeAway(ctx, ch); err != nil {
		limit := ch.DeletionTimestamp.Add(cleanUpLimit)
		if now := r.Clock.Now(); now.Before(limit) {
			r.Events.Eventf(ch, corev1.EventTypeWarning, "CleanUpError", "Error cleaning up challenge, tried until %s: %s", limit.UTC().Format(time.RFC3339), err)
			return reconcile.Result{RequeueAfter: min(cleanUpAgain, limit.Sub(now))}, nil // it may pass, but not for ever
		}
		message := fmt.Sprintf("Gave up cleaning up the %s challenge of %s, and %s stays: remove it by hand. %s", ch.Spec.Type, ch.Spec.DNSName, leftover(ch), err)
		r.Events.Event(ch, corev1.EventTypeWarning, "CleanUpError", message)
		log.FromContext(ctx).Info(message) // a namespace that is being deleted takes no events
	}
	next := ch.DeepCopy()
	next.Finalizers = slices.DeleteFunc(next.Finalizers, ours)
	err := r.Client.Patch(ctx, next, client.MergeFromWithOptions(ch, client.MergeFromWithOptimisticLock{}))
	if client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("remove finalizer: %w", err)
	}
	return reconcile.Result{}, nil
}

func (r *ChallengeReconciler) takeAway(ctx context.Context, ch *cmacme.Challenge) error {
	s := r.Solvers[ch.Spec.Type]
	st := &ch.Status
	if s == nil || !st.Presented && st.State == cmacme.Valid {
		return nil // never begun
	}
	i, err := r.Scope.Get(ctx, r.Client, ch.Namespace, ch.Spec.IssuerRef)
	if err != nil {
		return err
	}
	if i == nil {
		i = r.Scope.Former(ch.Namespace, ch.Spec.IssuerRef) // what it was set up with may still be there
	}
	err = s.CleanUp(ctx, i, ch)
	if !st.Presented && !st.Processing {
		return nil // if at all, it was made by a process that ended before it could say so
	}
	return err
}

// leftover names what was set up for a challenge.
func leftover(ch *cmacme.Challenge) string {
	switch ch.Spec.Type {
	case cmacme.ACMEChallengeTypeDNS01:
		text := fmt.Sprintf("the TXT record %s with the value %q", acme.DNS01Name(ch.Spec.DNSName), ch.Spec.Key)
		if spec := ch.Spec.Solver.DNS01; spec != nil && (spec.CNAMEStrategy == cmacme.FollowStrategy || spec.AcmeDNS != nil) {
			text += ", where the CNAME of that name leads,"
		}
		return text
	case cmacme.ACMEChallengeTypeHTTP01:
		return "what answers for /.well-known/acme-challenge/" + ch.Spec.Token
	}
	return "what was set up for it"
}
