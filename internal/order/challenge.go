package order

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
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
	"github.com/perennial-pki/perennial/internal/lane"
	"github.com/perennial-pki/perennial/internal/observe"
	"github.com/perennial-pki/perennial/internal/ratelimit"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver"
	"github.com/perennial-pki/perennial/internal/solver/dns01"
)

const (
	// cleanUpLimit is how long it is tried to take away what was set up for a challenge. Then the Challenge goes, and an event names what
	// stays: nothing may hang on a credential that is gone.
	cleanUpLimit = 10 * time.Minute
	cleanUpAgain = 15 * time.Second
	// cleanUpLeast is how long it is tried by a process that comes when that is almost over, or long ago: nobody may have tried, and others' answers take time.
	cleanUpLeast = time.Minute
	// presentLimit is for how long presenting may be under way before the server is asked again whether it is of use.
	presentLimit = time.Minute
	// checkAgain is when it is looked again whether a proof can be seen.
	checkAgain = 2 * time.Second
	// seenFor is for how long a proof that was seen is not looked for again before the CA is asked.
	seenFor = 10 * time.Second
	// lostAgain is how long after it was presented a proof that is seen nowhere is presented again. Services that publish late need as long, so that it is
	// done after twice that time next, and so on.
	lostAgain = 5 * time.Minute
	// Whether somebody has mended what a challenge needs is looked at between these.
	mendedSoonest, mendedAgain = 15 * time.Second, 5 * time.Minute
)

// ChallengeReconciler brings Challenges to their end.
type ChallengeReconciler struct {
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
	Names *dns01.Resolver
	// Max is how many challenges are worked on at once. DefaultMaxChallenges if zero.
	Max   int
	Lanes *lane.Lanes
	// Guard says why the credentials of an issuer must not be used now. It may be nil.
	Guard func(*signer.Issuer) error

	queue workqueue.TypedRateLimitingInterface[reconcile.Request] // SetupWithManager sets it
	pace  pace
	// presenting is since when presenting is under way, or waits for its place in a lane.
	presenting instants
	// told are the events of challenges that another pass may find cause to tell again, as it could not write what came of them.
	told instants
	// seen is since when a proof can be seen, and leaving since when it is tried to take away what a challenge that is over has set up. After a restart they
	// count anew.
	seen, leaving instants
	// restored is when a proof that was lost was presented again last. After a restart the time of its first presenting counts.
	restored instants
	// restoring is since when a lost proof is being presented again, of which an event is to tell.
	restoring instants
	// limited is until when nothing is done for a challenge, for an account, as the CA or the service of its solver said. After a restart they are asked once more.
	limited instants
	// unread is since when a reply of the CA cannot be read. After a restart it counts anew.
	unread    instants
	admission admission
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
		For(&cmacme.Challenge{}, builder.WithPredicates(notWords())).
		WatchesRawSource(source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
			r.queue = queue
			return nil
		})).
		WatchesRawSource(r.Lanes.Calls())
	return issuer.Watch(b, r.Scope, issuerChanged, issuer.Changed()).Complete(observe.Counted(r.Metrics, name, r.Lanes.Reconciler(r)))
}

// Reconcile looks at one Challenge.
func (r *ChallengeReconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	ch := &cmacme.Challenge{}
	if err := r.Client.Get(ctx, request.NamespacedName, ch, client.UnsafeDisableDeepCopy); err != nil {
		if apierrors.IsNotFound(err) {
			r.admission.forget(request.NamespacedName)
			r.admitNext(ctx) // its place is free
			return reconcile.Result{}, nil
		}
		return reconcile.Result{}, err
	}
	r.admission.see(ch)
	if ch.DeletionTimestamp != nil {
		r.pace.forget(string(ch.UID))
		r.seen.drop(string(ch.UID))
		r.presenting.drop(string(ch.UID))
		r.restored.drop(string(ch.UID))
		r.restoring.drop(string(ch.UID))
		r.unread.drop(string(ch.UID))
		for _, reason := range []string{"Started", "Presented", "SelfCheckSkipped"} {
			r.told.drop(string(ch.UID) + reason)
		}
		return r.cleanUp(ctx, ch)
	}
	if finished(ch.Status.State) {
		return r.makeRoom(ctx, ch) // the Order deletes it
	}
	if !hasFinalizer(ch) {
		var err error
		if ch, err = r.protect(ctx, ch); apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return reconcile.Result{}, nil // deleted meanwhile
		} else if err != nil {
			return reconcile.Result{}, err
		}
	}
	next := ch.DeepCopy()
	began := r.Clock.Now()
	result, say, err := r.step(ctx, next)
	lane.Leave(ctx)
	if err != nil {
		result, err = r.failed(ctx, next, began, err)
	} else {
		r.unread.drop(string(ch.UID))
	}
	if lane.Is(err) {
		defer r.admitNext(ctx) // others need not wait, too
	}
	if equality.Semantic.DeepEqual(ch.Status, next.Status) {
		return result, err
	}
	if next.Status.State == cmacme.Unknown {
		next.Status.State = cmacme.Pending
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

// tellOnce tells of something that was done with others, at once: if it cannot be written, the next pass may find no trace of it, or do it again.
func (r *ChallengeReconciler) tellOnce(ch *cmacme.Challenge, eventType, reason, message string) {
	if key := string(ch.UID) + reason; !r.told.is(key) {
		r.told.since(key, r.Clock.Now())
		r.Events.Event(ch, eventType, reason, message)
	}
}

// failed writes the error of a step into the status, by its class, and says when to go on.
func (r *ChallengeReconciler) failed(ctx context.Context, ch *cmacme.Challenge, began time.Time, err error) (reconcile.Result, error) {
	now := r.Clock.Now()
	if acme.IsProblem(err, acme.ProblemAccountDoesNotExist) {
		// That is no judgement of the proof, and the account may be there again: a CA of several servers does not know it everywhere at once.
		i, e := r.Scope.Get(ctx, r.Client, ch.Namespace, ch.Spec.IssuerRef)
		if e == nil && i != nil {
			e = recoverAccount(ctx, r.Accounts, i, began, true)
		}
		if e == nil {
			return reconcile.Result{RequeueAfter: time.Second}, nil // when the cache has the new account
		}
		err = e
	}
	if full := new(lane.Full); errors.As(err, &full) {
		if full.Stuck {
			ch.Status.Reason = full.Error()
		}
		return reconcile.Result{}, err
	}
	failure := fault.Of(account.Fault("", now, err))
	if errors.As(err, new(*acme.ForeignURLError)) {
		failure.Class = fault.Refused
	}
	if unreadable(err) && now.Sub(r.unread.since(string(ch.UID), now)) < readAgain {
		failure.Class = fault.Transient
	}
	ch.Status.Reason = failure.Error()
	switch failure.Class {
	case fault.Refused:
		ch.Status.State, ch.Status.Processing = cmacme.Errored, unsaid(ch)
		if why := gone(err); why != "" {
			ch.Status.State, ch.Status.Reason = cmacme.Expired, why
		}
		return reconcile.Result{}, nil
	case fault.Limited:
		return reconcile.Result{RequeueAfter: inTime(ch, now, failure.Wait(now))}, nil // when they said
	case fault.Misconfigured:
		return reconcile.Result{RequeueAfter: mended(now.Sub(ch.CreationTimestamp.Time))}, nil // Secrets of solvers are not watched
	}
	return reconcile.Result{}, err // again with the queue's back-off
}

// inTime is a wait that does not outlast the challenge.
func inTime(ch *cmacme.Challenge, now time.Time, wait time.Duration) time.Duration {
	if ch.Status.PresentedAt == nil {
		return wait
	}
	return min(wait, max(ch.Status.PresentedAt.Add(givenUp).Sub(now), time.Second))
}

// step makes the next step of a challenge and writes into its status what came of it.
func (r *ChallengeReconciler) step(ctx context.Context, ch *cmacme.Challenge) (result reconcile.Result, say []func(), err error) {
	now := r.Clock.Now()
	st := &ch.Status
	if st.Presented && st.PresentedAt == nil { // by cert-manager, which does not say when
		at := metav1.NewTime(now)
		st.PresentedAt = &at
	}
	underWay := false
	if !st.Presented {
		defer func() {
			if st.Presented || underWay {
				return
			}
			key := client.ObjectKeyFromObject(ch)
			if r.admission.cancel(key); err != nil && !lane.Is(err) {
				r.admission.failed(key, now)
				r.admitNext(ctx) // it lets others pass
			}
		}()
	}
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
	if !st.Presented {
		if err := r.recompute(ctx, i, by, ch); err != nil {
			return result, nil, err
		}
	}
	defer func() {
		err = r.Accounts.Believed(ctx, i, by, err)
		r.limited.rest(string(ch.UID)+by.URL, now, err)
	}()
	if st.Presented && now.Sub(st.PresentedAt.Time) >= givenUp {
		return result, nil, fault.Refusedf("TimedOut", "given up after it was presented for %s: %s", givenUp, st.Reason)
	}
	if wait := r.limited.rests(string(ch.UID)+by.URL, now); wait > 0 {
		return reconcile.Result{RequeueAfter: inTime(ch, now, wait)}, nil, nil // when they said
	}
	if wait := r.pace.told(string(ch.UID), now); wait > 0 && st.State == cmacme.Processing {
		return reconcile.Result{RequeueAfter: wait}, nil, nil // when the CA said
	}
	server := account.Party(i.GetSpec().ACME)
	var beside []*cmacme.Challenge
	if !st.Presented {
		var may bool
		if may, beside, err = r.turn(ctx, ch, s); err != nil {
			return result, nil, err
		}
		if !may {
			return reconcile.Result{RequeueAfter: r.admission.again()}, nil, nil // admitNext is faster, unless something is missed
		}
	}
	accepted := st.State == cmacme.Processing

	// What the server knows comes first: the proof may be given, or lost, already. Between presenting and accepting there is nothing
	// new to be known, nor while it is being presented.
	if accepted || !st.Presented && !r.presenting.is(string(ch.UID)) {
		if err := lane.Enter(ctx, server); err != nil {
			return result, nil, err
		}
		z, err := ca.Authorization(ctx, by, ch.Spec.AuthorizationURL)
		reached(&st.UnreachableSince, now, err)
		if err != nil {
			return result, nil, err
		}
		if over(z) {
			say, err := r.conclude(ctx, s, ca, i, by, ch, z)
			return result, say, err
		}
		if accepted {
			return reconcile.Result{RequeueAfter: r.pace.next(string(ch.UID), now, z.RetryAfter)}, nil, nil // the CA is looking
		}
		lane.Leave(ctx)
		r.presenting.since(string(ch.UID), now)
		r.tellOnce(ch, corev1.EventTypeNormal, "Started", "Challenge scheduled for processing")
	}
	if !st.Presented && r.room(ch) > 0 && !st.Processing {
		// That something may stand at its place is written before it does. Whoever only waits for a place has nothing there to be taken away.
		st.Processing, underWay = true, true
		return result, say, nil // the write of the status brings us back
	}
	if !st.Presented {
		err := present(ctx, s, i, ch, beside)
		later := new(solver.Later)
		if underWay = errors.As(err, &later); underWay || lane.Is(err) {
			if underWay && later.Tell && st.Reason != later.Why {
				st.Reason = later.Why
				say = append(say, func() { r.Events.Event(ch, corev1.EventTypeWarning, "ForeignRecords", later.Why) })
			}
			if now.Sub(r.presenting.since(string(ch.UID), now)) > presentLimit {
				r.presenting.drop(string(ch.UID)) // it is looked again whether it is wanted
			}
			if underWay {
				return reconcile.Result{RequeueAfter: later.After}, say, nil // who is at work says when to look again
			}
			return result, say, err
		}
		r.presenting.drop(string(ch.UID))
		if err != nil {
			say = append(say, func() { r.Events.Event(ch, corev1.EventTypeWarning, "PresentError", err.Error()) })
			return result, say, err
		}
		at := metav1.NewTime(now)
		st.Processing, st.Presented, st.PresentedAt = true, true, &at
		st.State = cmacme.Pending
		r.tellOnce(ch, corev1.EventTypeNormal, "Presented", fmt.Sprintf("Presented challenge using %s challenge mechanism", ch.Spec.Type))
	}
	siblings, err := r.siblings(ctx, ch)
	if err != nil {
		return result, say, err
	}
	unseen := ""
	if wait := ch.Spec.Solver.WaitInsteadOfSelfCheck; wait != nil {
		if until := st.PresentedAt.Add(wait.Duration); now.Before(until) {
			st.Reason = fmt.Sprintf("Waiting instead of a self check: %s, until %s", wait.Duration, until.UTC().Format(time.RFC3339))
			return reconcile.Result{RequeueAfter: until.Sub(now)}, say, nil // the end of the wait
		}
	} else if !r.seenLately(ch, now) {
		seen, err := s.Check(ctx, i, ch)
		lane.Leave(ctx)
		if err != nil {
			return result, say, err
		}
		if !seen.Visible {
			if seen.Ask != "" && !strings.Contains(st.Reason, seen.Ask) {
				say = append(say, func() {
					r.Events.Eventf(ch, corev1.EventTypeWarning, "ActionRequired", "For the %s challenge of %s, %s", ch.Spec.Type, ch.Spec.DNSName, seen.Ask)
				})
			}
			st.Reason = fmt.Sprintf("Waiting for %s challenge propagation: %s", ch.Spec.Type, seen.Why)
			r.seen.drop(string(ch.UID))
			if seen.Lost && r.lost(ch, now) {
				// Another order may have proven the same name meanwhile, by the same value, and taken that away.
				if err := lane.Enter(ctx, server); err != nil {
					return result, say, err
				}
				z, err := ca.Authorization(ctx, by, ch.Spec.AuthorizationURL)
				reached(&st.UnreachableSince, now, err)
				if err != nil {
					return result, say, err
				}
				if over(z) {
					concluded, err := r.conclude(ctx, s, ca, i, by, ch, z)
					return result, append(say, concluded...), err
				}
				lane.Leave(ctx)
				if again, err := r.restore(ctx, s, i, ch, now); again > 0 || err != nil {
					return reconcile.Result{RequeueAfter: again}, say, err // who is at work says when to look again
				}
			}
			return reconcile.Result{RequeueAfter: checkDelay(now.Sub(st.PresentedAt.Time))}, say, nil // others, whom we cannot watch, have to see it
		}
		if unseen = seen.Unseen; unseen == "" && !r.seen.is(string(ch.UID)) {
			r.seen.since(string(ch.UID), now)
			r.call(siblings) // those that waited for this one
		}
		r.restorationSeen(ch)
	}
	if wait := ch.Spec.Solver.WaitForRecordToPropagate; wait != nil {
		if until := r.seen.since(string(ch.UID), now).Add(wait.Duration); now.Before(until) {
			st.Reason = fmt.Sprintf("Waiting after the proof could be seen: %s, until %s", wait.Duration, until.UTC().Format(time.RFC3339))
			return reconcile.Result{RequeueAfter: until.Sub(now)}, say, nil // the end of the wait
		}
	}
	if other := r.awaits(ch, siblings, now); other != nil && unseen == "" {
		st.Reason = fmt.Sprintf("Waiting for the value of %s in the same record, as the CA's resolver caches the record", other.Name)
		return reconcile.Result{RequeueAfter: checkAgain}, say, nil // the sibling calls when it is visible, unless it fails
	}
	if err := lane.Enter(ctx, server); err != nil {
		return result, say, err
	}
	got, err := ca.AcceptChallenge(ctx, by, ch.Spec.URL)
	reached(&st.UnreachableSince, now, err)
	if acme.IsProblem(err, acme.ProblemMalformed, acme.ProblemUnauthorized) {
		// Its authorization may have come to an end while the proof was on its way: it has expired, or was given otherwise.
		z, e := ca.Authorization(ctx, by, ch.Spec.AuthorizationURL)
		if past := z.Expires != nil && !now.Before(*z.Expires); e == nil && past && z.Status == acme.StatusPending {
			z.Status = acme.StatusExpired
		}
		switch {
		case e != nil:
			err = e
		case over(z):
			concluded, err := r.conclude(ctx, s, ca, i, by, ch, z)
			return result, append(say, concluded...), err
		}
	}
	if err != nil {
		return result, say, err
	}
	st.State, st.Reason = cmacme.Processing, "The ACME server is looking at the challenge"
	if unseen != "" {
		st.Reason += fmt.Sprintf(", though nothing can be seen from here: %s", unseen)
		r.tellOnce(ch, corev1.EventTypeWarning, "SelfCheckSkipped", "The ACME server is asked to look, though nothing can be seen from here: "+unseen)
	}
	r.pace.forget(string(ch.UID))
	if !got.RetryAfter.IsZero() {
		return reconcile.Result{RequeueAfter: r.pace.next(string(ch.UID), now, got.RetryAfter)}, say, nil // when the CA said
	}
	return reconcile.Result{RequeueAfter: firstPoll / 4}, say, nil // the CA needs a moment
}

// seenLately reports whether the proof was seen just now, and the CA had no place left to be told so.
func (r *ChallengeReconciler) seenLately(ch *cmacme.Challenge, now time.Time) bool {
	uid := string(ch.UID)
	return ch.Spec.Solver.WaitForRecordToPropagate == nil && r.seen.is(uid) && now.Sub(r.seen.since(uid, now)) < seenFor
}

// present sets the proof of a challenge up, beside those of others.
func present(ctx context.Context, s solver.Solver, i *signer.Issuer, ch *cmacme.Challenge, beside []*cmacme.Challenge) error {
	if x, ok := s.(solver.Exclusive); ok && len(beside) > 0 {
		return x.PresentBeside(ctx, i, ch, beside)
	}
	return s.Present(ctx, i, ch)
}

// turn reports whether it is a challenge's turn to begin, and beside whose proofs. If it waits for others at its place, its reason says so.
func (r *ChallengeReconciler) turn(ctx context.Context, ch *cmacme.Challenge, s solver.Solver) (may bool, beside []*cmacme.Challenge, err error) {
	may, beside, ahead, err := r.admit(ctx, ch)
	room := r.room(ch)
	if may && room > 0 {
		// The place may be another one than it was, as CNAMEs change.
		place, err := s.(solver.Exclusive).Place(ctx, ch)
		if err != nil {
			return false, nil, err
		}
		if place != ch.Status.EffectiveName {
			ch.Status.EffectiveName = place
			may, beside, ahead, err = r.admit(ctx, ch)
			if err != nil {
				return false, nil, err
			}
		}
	}
	if len(ahead) > 0 {
		ch.Status.Reason = behind(ch, room, ahead)
	}
	return may, beside, err
}

// over reports whether an authorization has come to its end.
func over(z acme.Authorization) bool { return z.Status != acme.StatusPending }

// conclude writes the end of a challenge, which is that of its authorization, into its status, and returns what is to be told then.
func (r *ChallengeReconciler) conclude(ctx context.Context, s solver.Solver, ca *acme.Client, i *signer.Issuer, by acme.Account, ch *cmacme.Challenge, z acme.Authorization) (say []func(), err error) {
	st := &ch.Status
	was := *st
	switch z.Status {
	case acme.StatusValid:
		st.State, st.Reason = cmacme.Valid, "Successfully authorized domain"
	case acme.StatusInvalid:
		st.State, st.Reason = cmacme.Invalid, refusal(problemOf(ch, z))
	default: // deactivated, expired, revoked
		st.State, st.Reason = cmacme.Expired, fmt.Sprintf("the authorization is %s", z.Status)
	}
	err = r.judged(ctx, ch, i, by, z)
	if err == nil && st.State == cmacme.Invalid && st.Presented {
		st.Reason, err = r.explain(ctx, s, ca, by, ch, problemOf(ch, z))
	}
	if err != nil {
		*st = was // the end of it can be read again
		return nil, err
	}
	st.Processing = unsaid(ch)
	if st.State == cmacme.Valid {
		say = append(say, func() {
			r.Events.Eventf(ch, corev1.EventTypeNormal, "DomainVerified", "Domain %q verified with %q validation", ch.Spec.DNSName, ch.Spec.Type)
		})
	}
	return say, nil
}

// cleanUp takes away what was set up, and lets the Challenge go.
func (r *ChallengeReconciler) cleanUp(ctx context.Context, ch *cmacme.Challenge) (reconcile.Result, error) {
	if !hasFinalizer(ch) {
		r.leaving.drop(string(ch.UID))
		return reconcile.Result{}, nil
	}
	limit := ch.DeletionTimestamp.Add(cleanUpLimit)
	if least := r.leaving.since(string(ch.UID), r.Clock.Now()).Add(cleanUpLeast); limit.Before(least) {
		limit = least
	}
	if again := r.tryCleanUp(ctx, ch, limit); again > 0 {
		return reconcile.Result{RequeueAfter: again}, nil // it may pass, but not for ever
	}
	r.leaving.drop(string(ch.UID))
	next := ch.DeepCopy()
	next.Finalizers = slices.DeleteFunc(next.Finalizers, isFinalizer)
	err := r.Client.Patch(ctx, next, client.MergeFromWithOptions(ch, client.MergeFromWithOptimisticLock{}))
	if client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("remove finalizer: %w", err)
	}
	return reconcile.Result{}, nil
}

// makeRoom takes away what a challenge that is over has set up where there is room for few. Its Order may need others there, and delete it only
// when they are over, too. Elsewhere that has time until it is deleted.
func (r *ChallengeReconciler) makeRoom(ctx context.Context, ch *cmacme.Challenge) (reconcile.Result, error) {
	if !holds(ch) && !unsaid(ch) {
		r.leaving.drop(string(ch.UID))
		r.admitNext(ctx) // its place is free
		return reconcile.Result{}, nil
	}
	if again := r.tryCleanUp(ctx, ch, r.leaving.since(string(ch.UID), r.Clock.Now()).Add(cleanUpLimit)); again > 0 {
		return reconcile.Result{RequeueAfter: again}, nil // as in cleanUp
	}
	next := ch.DeepCopy()
	next.Status.Presented, next.Status.Processing = false, false
	err := r.Client.Status().Patch(ctx, next, client.MergeFromWithOptions(ch, client.MergeFromWithOptimisticLock{}))
	if client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("write status: %w", err)
	}
	return reconcile.Result{}, nil
}

// tryCleanUp takes away what was set up, or gives up after the limit. Else it says when it is to be tried again.
func (r *ChallengeReconciler) tryCleanUp(ctx context.Context, ch *cmacme.Challenge, limit time.Time) (again time.Duration) {
	err := r.takeAway(ctx, ch)
	lane.Leave(ctx)
	if err == nil {
		return 0
	}
	if class := fault.Of(err).Class; !ch.Status.Presented && (class == fault.Misconfigured || class == fault.Refused) {
		return 0 // what keeps it from being taken away has kept it from being set up
	}
	if now := r.Clock.Now(); now.Before(limit) {
		if full := new(lane.Full); errors.As(err, &full) {
			return min(full.After, limit.Sub(now)) // its place calls, but not for ever
		}
		if later := new(solver.Later); errors.As(err, &later) {
			if later.Ask {
				r.Events.Eventf(ch, corev1.EventTypeWarning, "ActionRequired", "The %s challenge of %s is over: %s", ch.Spec.Type, ch.Spec.DNSName, later.Why)
			}
			return min(later.After, limit.Sub(now))
		}
		r.Events.Eventf(ch, corev1.EventTypeWarning, "CleanUpError", "Error cleaning up challenge, tried until %s: %s", limit.UTC().Format(time.RFC3339), err)
		again = cleanUpAgain
		if failure := fault.Of(err); failure.Class == fault.Limited {
			again = max(again, failure.Wait(now)) // when its service said
		}
		return min(again, limit.Sub(now))
	}
	stays := "stays: remove it by hand"
	if !ch.Status.Presented { // if at all, it was set up by a call that failed all the same, or by a process that ended before it could say so
		stays = "may be there: look, and remove it by hand"
	}
	message := fmt.Sprintf("Gave up cleaning up the %s challenge of %s, and %s %s. %s", ch.Spec.Type, ch.Spec.DNSName, leftover(ch), stays, err)
	r.Events.Event(ch, corev1.EventTypeWarning, "CleanUpError", message)
	log.FromContext(ctx).Info(message) // a namespace that is being deleted takes no events
	return 0
}

func (r *ChallengeReconciler) takeAway(ctx context.Context, ch *cmacme.Challenge) error {
	s := r.Solvers[ch.Spec.Type]
	if s == nil {
		return nil // it can be no longer there
	}
	if x, ok := s.(solver.Exclusive); ok && !ch.Status.Presented && x.Room(ch) > 0 {
		if !unsaid(ch) {
			return nil // it has never begun, or has made room
		}
		if err := r.vacant(ctx, ch, x); err != nil {
			return err
		}
		defer func() {
			r.admission.cancel(client.ObjectKeyFromObject(ch))
			r.admitNext(ctx) // who came meanwhile
		}()
	}
	i, err := r.Scope.Get(ctx, r.Client, ch.Namespace, ch.Spec.IssuerRef)
	if err != nil {
		return err
	}
	if i == nil {
		i = r.Scope.Former(ch.Namespace, ch.Spec.IssuerRef) // what it was set up with may still be there
	}
	if err := r.mayCleanUp(ctx, i, ch); err != nil {
		return err
	}
	return s.CleanUp(ctx, i, ch)
}

// leftover names what was set up for a challenge.
func leftover(ch *cmacme.Challenge) string {
	switch ch.Spec.Type {
	case cmacme.ACMEChallengeTypeDNS01:
		text := fmt.Sprintf("the TXT record %s with the value %q", cmp.Or(ch.Spec.RecordName, acme.DNS01Name(ch.Spec.DNSName)), ch.Spec.Key)
		if spec := ch.Spec.Solver.DNS01; spec != nil && (spec.CNAMEStrategy == cmacme.FollowStrategy || spec.AcmeDNS != nil) {
			text += ", where the CNAME of that name leads,"
		}
		return text
	case cmacme.ACMEChallengeTypeHTTP01:
		return "what answers for /.well-known/acme-challenge/" + ch.Spec.Token
	}
	return "what was set up for it"
}
