package http01

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	gwapi "sigs.k8s.io/gateway-api/apis/v1"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/signer"
)

// fieldManager is the field manager of the objects that are made for Challenges.
const fieldManager = "perennial-http01"

// editTimeout bounds one change of an Ingress, with the wait for the changes of other challenges.
const editTimeout = 20 * time.Second

// again is how often the solver checks the objects of a Challenge while the site does not answer.
const again = 10 * time.Second

// made remembers the EndpointSlices of present Challenges, so that changes of the controller's
// replicas are applied.
type made struct {
	mu sync.Mutex
	of map[types.UID]state
}

type state struct {
	slices []*discoveryv1.EndpointSlice
	at     time.Time
}

func (m *made) get(uid types.UID) (state, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, found := m.of[uid]
	return s, found
}

func (m *made) put(uid types.UID, s state) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of == nil {
		m.of = map[types.UID]state{}
	}
	m.of[uid] = s
}

func (m *made) drop(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.of, uid)
}

func (s *Solver) mode(spec *cmacme.ACMEChallengeSolverHTTP01) cmacme.HTTP01SolverMode {
	switch {
	case spec != nil && spec.SolverMode != "":
		return spec.SolverMode
	case s.Mode != "":
		return s.Mode
	}
	return cmacme.HTTP01SolverModeShared
}

// Answered returns an error if nothing answers the challenges of a solver, because this process
// lacks the flags for it.
func (s *Solver) Answered(spec *cmacme.ACMEChallengeSolverHTTP01) error {
	switch {
	case s.mode(spec) == cmacme.HTTP01SolverModePod:
		if s.Pods.Image == "" {
			return fault.Misconfiguredf(
				"NoSolverImage",
				"solverMode is Pod, and the controller has no image for it: start it with --acme-http01-solver-image, or "+
					"choose solverMode Shared",
			)
		}
	case s.Webroot == "" && s.Service.Name == "" && !s.Listens:
		return fault.Misconfiguredf(
			"NotAnswered",
			"this controller answers no HTTP-01 challenges: start it with --http01-listen-address, or, in a cluster, "+
				"choose solverMode Pod",
		)
	}
	return nil
}

// Present makes the site answer for the token. It writes a file below Webroot, or routes requests
// to the replicas or a pod by a Service and an Ingress or HTTPRoute. If requests arrive without
// that, there is nothing to do, because Handler answers from the Challenge itself.
func (s *Solver) Present(ctx context.Context, _ *signer.Issuer, ch *cmacme.Challenge) error {
	if ch.Spec.Solver.HTTP01 == nil {
		return fault.Misconfiguredf("NoSolver", "the solver has no http01: correct the issuer")
	}
	if err := s.Answered(ch.Spec.Solver.HTTP01); err != nil {
		return err
	}
	if s.mode(ch.Spec.Solver.HTTP01) == cmacme.HTTP01SolverModePod {
		return s.route(ctx, ch, nil)
	}
	switch {
	case s.Webroot != "":
		return s.write(ch)
	case s.Service.Name != "":
		replicas, err := s.replicas(ctx, ch)
		if err != nil {
			return err
		}
		return s.route(ctx, ch, replicas)
	}
	return nil
}

// replicas returns the EndpointSlices for a Challenge.
func (s *Solver) replicas(ctx context.Context, ch *cmacme.Challenge) ([]*discoveryv1.EndpointSlice, error) {
	var list discoveryv1.EndpointSliceList
	if err := s.Cache.List(
		ctx,
		&list,
		client.InNamespace(s.Service.Namespace),
		client.MatchingLabels{discoveryv1.LabelServiceName: s.Service.Name},
	); err != nil {
		return nil, err
	}
	replicas := slicesOf(ch, list.Items, s.WithoutTargetRef)
	if len(replicas) == 0 {
		return nil, fault.Transientf(
			"NoReplicas",
			"Service %s has no ready endpoints with a port named http: the controller's replicas cannot be reached yet",
			s.Service,
		)
	}
	return replicas, nil
}

// route creates the objects that route requests to endpoints, or to a pod if endpoints is nil.
func (s *Solver) route(ctx context.Context, ch *cmacme.Challenge, endpoints []*discoveryv1.EndpointSlice) error {
	var all []client.Object
	if endpoints == nil {
		all = append(all, podOf(ch, s.Pods), serviceOf(ch, podLabels(ch)))
	} else {
		all = append(all, serviceOf(ch, nil))
		for _, slice := range endpoints {
			all = append(all, slice)
		}
	}
	http := ch.Spec.Solver.HTTP01
	switch {
	case http.GatewayHTTPRoute != nil:
		all = append(all, routeOf(ch))
	case http.Ingress != nil && http.Ingress.Name == "":
		all = append(all, ingressOf(ch))
	}
	for _, o := range all {
		for k, v := range s.Labels {
			if _, ours := o.GetLabels()[k]; !ours {
				o.GetLabels()[k] = v // metadata always has some
			}
		}
		write := s.apply
		if _, is := o.(*corev1.Pod); is {
			write = s.create
		}
		if err := write(ctx, o); err != nil {
			return err
		}
	}
	if http.Ingress != nil && http.Ingress.Name != "" {
		if err := s.edit(ctx, ch, withPath); err != nil {
			return err
		}
	}
	s.made.put(ch.UID, state{slices: endpoints, at: s.Now()})
	return nil
}

// apply makes an object what it should be.
func (s *Solver) apply(ctx context.Context, o client.Object) error {
	kind, err := apiutil.GVKForObject(o, s.Direct.Scheme())
	if err != nil {
		return err
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return err
	}
	delete(content, "status")
	u := &unstructured.Unstructured{Object: content}
	u.SetGroupVersionKind(kind)
	unstructured.RemoveNestedField(content, "metadata", "creationTimestamp")
	return classify(
		kind.Kind,
		o,
		s.Direct.Apply(
			ctx,
			client.ApplyConfigurationFromUnstructured(u),
			client.FieldOwner(fieldManager),
			client.ForceOwnership,
		),
	)
}

// create creates an object if it does not exist. A pod is never updated: changes by admission
// cannot, or must not, be reverted.
func (s *Solver) create(ctx context.Context, o client.Object) error {
	err := s.Direct.Create(ctx, o, client.FieldOwner(fieldManager))
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return classify("Pod", o, err)
}

// classify gives an error of the API server its class: a refused write will be refused again.
func classify(kind string, o client.Object, err error) error {
	switch {
	case err == nil:
		return nil
	case meta.IsNoMatchError(err):
		return fault.Misconfiguredf(
			"NoGatewayAPI",
			"the cluster has no %s: install the Gateway API, or choose a solver with ingress",
			kind,
		)
	case apierrors.IsInvalid(err), apierrors.IsForbidden(err), apierrors.IsBadRequest(err):
		return fault.Misconfiguredf(
			"Refused",
			"the API server refuses %s %s/%s: %w",
			kind,
			o.GetNamespace(),
			o.GetName(),
			err,
		)
	}
	return fmt.Errorf("write %s %s/%s: %w", kind, o.GetNamespace(), o.GetName(), err)
}

// edit changes the rules of the Ingress that a Challenge names. Others change it at the same time:
// its owner, and other Challenges.
func (s *Solver) edit(
	ctx context.Context,
	ch *cmacme.Challenge,
	change func([]networkingv1.IngressRule, *cmacme.Challenge) ([]networkingv1.IngressRule, bool),
) error {
	key := types.NamespacedName{Namespace: ch.Namespace, Name: ch.Spec.Solver.HTTP01.Ingress.Name}
	// Challenges change it one after the other: before the managed fields are restored, a second
	// challenge would read the wrong ones.
	ctx, cancel := context.WithTimeout(ctx, editTimeout)
	defer cancel()
	done, err := s.editing.take(ctx, key)
	if err != nil {
		return err
	}
	defer done()
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		is := &networkingv1.Ingress{}
		if err := s.Direct.Get(ctx, key, is); err != nil {
			if apierrors.IsNotFound(err) {
				return fault.Misconfiguredf(
					"IngressNotFound",
					"there is no Ingress %q, which challenges are to be answered through: create it, or correct the solver",
					key.Name,
				)
			}
			return err
		}
		rules, changed := change(is.Spec.Rules, ch)
		if !changed {
			return nil
		}
		next := is.DeepCopy()
		next.Spec.Rules = rules
		if err := s.Direct.Patch(
			ctx,
			next,
			client.MergeFromWithOptions(is, client.MergeFromWithOptimisticLock{}),
		); err != nil {
			return classify("Ingress", is, err)
		}
		// Restore the managed fields: otherwise the next server-side apply of the owner would be a
		// conflict.
		owned := next.DeepCopy()
		owned.ManagedFields = is.ManagedFields
		return classify(
			"Ingress",
			is,
			s.Direct.Patch(ctx, owned, client.MergeFromWithOptions(next, client.MergeFromWithOptimisticLock{})),
		)
	})
}

// restoreObjects creates objects again that are gone or have changed, and says why a pod does not
// answer.
func (s *Solver) restoreObjects(ctx context.Context, ch *cmacme.Challenge) (why string, err error) {
	pods := s.mode(ch.Spec.Solver.HTTP01) == cmacme.HTTP01SolverModePod
	if !pods && (s.Service.Name == "" || s.Webroot != "") {
		return "", nil
	}
	var now []*discoveryv1.EndpointSlice
	if !pods {
		if now, err = s.replicas(ctx, ch); err != nil {
			return "", err
		}
	}
	was, known := s.made.get(ch.UID)
	if known && s.Now().Sub(was.at) < again && equality.Semantic.DeepEqual(was.slices, now) {
		return "", nil
	}
	if pods {
		pod := &corev1.Pod{}
		err := s.Direct.Get(ctx, types.NamespacedName{Namespace: ch.Namespace, Name: nameOf(ch)}, pod)
		switch {
		case err == nil && (pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded):
			if err := s.Direct.Delete(ctx, pod); client.IgnoreNotFound(err) != nil {
				return "", err
			}
			return "the solver pod ended, and is made again", nil
		case err == nil:
			if why = whyNot(pod); why != "" {
				why = fmt.Sprintf("the solver pod %s does not run: %s", pod.Name, why)
			}
		case !apierrors.IsNotFound(err):
			return "", err
		}
	}
	return why, s.route(ctx, ch, now)
}

// CleanUp removes what Present has made.
func (s *Solver) CleanUp(ctx context.Context, _ *signer.Issuer, ch *cmacme.Challenge) error {
	s.made.drop(ch.UID)
	http := ch.Spec.Solver.HTTP01
	if http == nil {
		return nil
	}
	var errs []error
	// Garbage collection deletes the objects that the Challenge owns. The following ones it does not
	// own. They may be from a process with another mode.
	if http.Ingress != nil && http.Ingress.Name != "" {
		if err := s.edit(ctx, ch, withoutPath); err != nil && fault.Of(err).Reason != "IngressNotFound" {
			errs = append(errs, err)
		}
	}
	pods := s.mode(ch.Spec.Solver.HTTP01) == cmacme.HTTP01SolverModePod
	if !pods && s.Webroot != "" {
		return errors.Join(append(errs, s.remove(ch))...)
	}
	if !pods && s.Service.Name == "" {
		return errors.Join(errs...)
	}
	gone := []client.Object{&corev1.Service{}}
	switch {
	case http.GatewayHTTPRoute != nil:
		gone = append(gone, &gwapi.HTTPRoute{})
	case http.Ingress != nil && http.Ingress.Name == "":
		gone = append(gone, &networkingv1.Ingress{})
	}
	if pods {
		gone = append(gone, &corev1.Pod{})
	}
	for _, o := range gone {
		o.SetNamespace(ch.Namespace)
		o.SetName(nameOf(ch))
		errs = append(errs, s.delete(ctx, o))
	}
	if !pods {
		for _, family := range []string{"-ipv4", "-ipv6"} {
			o := &discoveryv1.EndpointSlice{}
			o.Namespace, o.Name = ch.Namespace, nameOf(ch)+family
			errs = append(errs, s.delete(ctx, o))
		}
	}
	return errors.Join(errs...)
}

func (s *Solver) delete(ctx context.Context, o client.Object) error {
	err := s.Direct.Delete(ctx, o)
	if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete %T %s/%s: %w", o, o.GetNamespace(), o.GetName(), err)
	}
	return nil
}
