// Package admissionpolicies checks whether the admission policies are enforced. They keep the users
// of one namespace from the credentials of ClusterIssuers, which all namespaces share.
//
// The controller trusts Orders, Challenges, requests and the status of Certificates, as the
// policies let no other user write them. If the policies are not enforced, it neither uses
// ClusterIssuers nor approves requests.
package admissionpolicies

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/signer"
)

const (
	// every is how often the policies are checked. Changes are watched; this is for what a watch
	// misses.
	every = time.Hour
	// soonest and latest are the bounds of the time between two checks while the policies are not
	// enforced: a check has its cost, and an administrator should not wait long after a correction.
	soonest, latest = time.Second, time.Minute
	// settle is the wait after a first change for others: policies are usually applied together.
	settle = 200 * time.Millisecond
	// patience is how long the controller waits at its start for policies that are being installed.
	patience = 10 * time.Second
	// lookLimit is the time limit of a check.
	lookLimit = 10 * time.Second
	// watchAgain is when a watch is started again that ended at once, such as for a missing
	// permission.
	watchAgain = time.Minute
)

// consequence ends the messages about policies that are not enforced.
const consequence = ". Until that is corrected the controller uses no ClusterIssuer and approves no " +
	"CertificateRequest, because a user of any namespace " +
	"could have their credentials used for the names of others"

// Watcher knows whether the policies are enforced.
type Watcher struct {
	// Client reads the policies from the API server, without a cache.
	Client client.WithWatch
	// Assumed says that the policies count as enforced without a check.
	Assumed bool
	Log     logr.Logger
	// Namespace is where the dry-run Certificate is created, see Look.
	Namespace string

	every    time.Duration
	mu       sync.Mutex
	problem  string
	changed  []func()
	enforced prometheus.Gauge
}

// unknown is the problem before the first check.
const unknown = "it is not known yet whether the admission policies are enforced"

// New returns a Watcher that has not checked yet.
func New(c client.WithWatch, namespace string, assumed bool, log logr.Logger,
	registry prometheus.Registerer) (*Watcher, error) {
	w := &Watcher{Client: c, Namespace: namespace, Assumed: assumed, Log: log, every: every, problem: unknown,
		enforced: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "perennial", Name: "admission_policies_enforced",
			Help: "1 if the admission policies are seen to be enforced, or are assumed to be, 0 if not: then ClusterIssuers " +
				"are not used and nothing is approved."})}
	if assumed {
		w.problem = ""
		w.enforced.Set(1)
	}
	return w, registry.Register(w.enforced)
}

// Unprotected says, as a text for users, why ClusterIssuers are not used and nothing is approved.
// It is empty if the policies are enforced.
func (w *Watcher) Unprotected() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.problem
}

// Guard returns an error if the credentials of an issuer must not be used: it is a ClusterIssuer,
// and the policies are not enforced.
func (w *Watcher) Guard(i *signer.Issuer) error {
	if i == nil || i.Kind != signer.KindClusterIssuer {
		return nil
	}
	if problem := w.Unprotected(); problem != "" {
		return fault.Misconfiguredf("AdmissionPolicies", "%s is not used: %s", i, problem)
	}
	return nil
}

// OnChange adds a function that is called when the result of Unprotected has changed. Call it
// before Start.
func (w *Watcher) OnChange(f func()) { w.changed = append(w.changed, f) }

// NeedLeaderElection returns false: every replica checks, so that the next leader knows the result
// already.
func (*Watcher) NeedLeaderElection() bool { return false }

// WaitEnforced checks the policies until they are enforced, at most for patience: they may be being
// installed at this moment.
func (w *Watcher) Settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !w.Assumed {
		err := w.look(ctx)
		if w.Unprotected() == "" || apierrors.IsForbidden(err) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(soonest):
		}
	}
}

// Start checks the policies whenever they change, every hour, and more often while they are not
// enforced.
func (w *Watcher) Start(ctx context.Context) error {
	if w.Assumed {
		w.Log.Info(
			"admission policies are not checked, because --assume-admission-policies is set: if they are not enforced, " +
				"users of any namespace can use the credentials of ClusterIssuers",
		)
		<-ctx.Done()
		return nil
	}
	changed := make(chan struct{}, 1)
	for _, list := range []client.ObjectList{&admissionv1.ValidatingAdmissionPolicyList{},
		&admissionv1.ValidatingAdmissionPolicyBindingList{}} {
		go w.watch(ctx, list, changed)
	}
	wait := soonest
	for {
		_ = w.look(ctx) // Unprotected says the same
		if w.Unprotected() == "" {
			wait = w.every
		} else {
			wait = min(wait*2, latest, w.every)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		case <-changed:
			timer.Stop()
			wait = soonest
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(settle):
			}
		}
	}
}

// watch reports changes of the objects of a list.
func (w *Watcher) watch(ctx context.Context, list client.ObjectList, changed chan<- struct{}) {
	for ctx.Err() == nil {
		began := time.Now()
		if events, err := w.Client.Watch(ctx, list); err == nil {
			for event := range events.ResultChan() {
				if event.Type == watch.Error {
					break
				}
				if o, ok := event.Object.(client.Object); ok && !strings.HasPrefix(o.GetName(), namePrefix) && !ours(o) {
					continue
				}
				select {
				case changed <- struct{}{}:
				default: // a change is already pending
				}
			}
			events.Stop()
		}
		if time.Since(began) < watchAgain {
			select {
			case <-ctx.Done():
			case <-time.After(watchAgain):
			}
		}
	}
}

// namePrefix is the prefix of the names of Perennial's policies and their bindings.
const namePrefix = "perennial-"

// ours reports whether a binding is for one of Perennial's policies. Its own name may be another.
func ours(o client.Object) bool {
	b, ok := o.(*admissionv1.ValidatingAdmissionPolicyBinding)
	return ok && strings.HasPrefix(b.Spec.PolicyName, namePrefix)
}

// look checks the policies and records the result. The error is that of reading them.
func (w *Watcher) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	problems, err := Look(ctx, w.Client, w.Namespace)
	var problem string
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err() // the process ends
	case apierrors.IsForbidden(err):
		problem = fmt.Sprintf("this controller may not read whether the admission policies are enforced: %s. Let it get, "+
			"list and watch validatingadmissionpolicies and "+
			"validatingadmissionpolicybindings, or run it with --assume-admission-policies if they are", err)
	case err != nil && w.Unprotected() == "":
		// the API server does not answer, and so accepts no writes
		w.Log.Error(err, "cannot see whether the admission policies are still enforced")
		return err
	case err != nil:
		problem = fmt.Sprintf("it cannot be seen whether the admission policies are enforced: %s", err)
	case len(problems) > 0:
		problem = "the admission policies of Perennial are not enforced: " + strings.Join(problems, "; ")
	}
	if problem != "" {
		problem += consequence
	}
	w.note(problem)
	return err
}

// note records what is wrong, and calls the functions of OnChange if that is new.
func (w *Watcher) note(problem string) {
	w.mu.Lock()
	was := w.problem
	w.problem = problem
	w.mu.Unlock()
	if was == problem {
		return
	}
	if problem == "" {
		w.enforced.Set(1)
		w.Log.Info("the admission policies are enforced")
	} else {
		w.enforced.Set(0)
		w.Log.Info(problem)
	}
	for _, f := range w.changed {
		f()
	}
}

// Look reads the policies from the API server, and returns what is wrong with Perennial's. It also
// creates a Certificate in the namespace as a dry run, to see whether the server enforces policies
// at all. An empty namespace leaves that out.
func Look(ctx context.Context, c client.Client, namespace string) (problems []string, err error) {
	var policies admissionv1.ValidatingAdmissionPolicyList
	var bindings admissionv1.ValidatingAdmissionPolicyBindingList
	for _, list := range []client.ObjectList{&policies, &bindings} {
		if err := c.List(ctx, list); meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
			return []string{"this API server has no ValidatingAdmissionPolicies (admissionregistration.k8s.io/v1), which " +
				"Kubernetes has since 1.30"}, nil
		} else if err != nil {
			return nil, err
		}
	}
	problems, err = Problems(policies.Items, bindings.Items)
	if err == nil && len(problems) == 0 && namespace != "" && !enforced(ctx, c, namespace) {
		problems = []string{"they are installed, but this API server accepts what they refuse: see whether it runs with " +
			"the admission plugin ValidatingAdmissionPolicy"}
	}
	return problems, err
}
