package trust_test

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/inject/rig"
)

// TestEachRefusedWriteIsInTheStatus refuses each write of a TrustBundle in turn.
func TestEachRefusedWriteIsInTheStatus(t *testing.T) {
	ns, c := sources(t, rig.Options{})
	for name, test := range map[string]struct {
		group, resource string
		operation       admissionv1.OperationType
		target          func(*api.TrustTarget)
		cause           func(t *testing.T, b *api.TrustBundle, source *corev1.Secret, selected string)
		says            string
	}{
		"create-configmap": {"", "configmaps", admissionv1.Create, func(*api.TrustTarget) {}, rename, "write ConfigMap "},
		"update-configmap": {"", "configmaps", admissionv1.Update, func(*api.TrustTarget) {}, rotate, "write ConfigMap "},
		"delete-configmap": {"", "configmaps", admissionv1.Delete, func(*api.TrustTarget) {}, rename, "delete ConfigMap "},
		"create-secret":    {"", "secrets", admissionv1.Create, toSecret, rename, "write Secret "},
		"update-secret":    {"", "secrets", admissionv1.Update, toSecret, rotate, "write Secret "},
		"delete-secret":    {"", "secrets", admissionv1.Delete, toSecret, rename, "delete Secret "},
		"status": {"perennial.dev", "trustbundles/status", admissionv1.Update, func(*api.TrustTarget) {}, rotate,
			""},
	} {
		t.Run(name, func(t *testing.T) {
			selected := namespace(t, name)
			source := secret(t, ns, name, map[string][]byte{"ca.crt": rig.PEM(rig.NewCA(t, "one"))})
			b := bundle(t, name, func(s *api.TrustBundleSpec) {
				s.Sources = fromSecret(name)
				test.target(&s.Target)
			})
			soonStatus(t, b, condition(api.ConditionReady, metav1.ConditionTrue, "1 CA certificate in 1 namespace"))
			soonMetric(t, c, name, metav1.ConditionTrue)
			end := cluster.Freeze(t, selected, test.group, test.resource, test.operation)
			test.cause(t, b, source, selected)
			if test.says != "" {
				for _, kind := range []string{api.ConditionDistributed, api.ConditionReady} {
					status := soonStatus(t, b, condition(kind, metav1.ConditionFalse, cluster.FrozenBecause))
					for _, words := range []string{test.says + selected + "/", "It is tried again every 5 minutes"} {
						if err := condition(kind, metav1.ConditionFalse, words)(status); err != nil {
							t.Error(err)
						}
					}
				}
			}
			reason, ready := "WriteFailed", metav1.ConditionFalse
			if test.says == "" {
				reason, ready = "StatusNotWritten", metav1.ConditionTrue // what is distributed is right
			}
			soonEvent(t, b, reason, cluster.FrozenBecause)
			soonMetric(t, c, name, ready)
			end()
			nudge(t, b)
			soonStatus(t, b, condition(api.ConditionReady, metav1.ConditionTrue, " in 1 namespace"))
			soonMetric(t, c, name, metav1.ConditionTrue)
		})
	}
}

func toSecret(target *api.TrustTarget) {
	target.ConfigMap, target.Secret = nil, &api.TrustTargetObject{}
}

// rename changes the name of the bundle's targets, so that the old ones are deleted.
func rename(t *testing.T, b *api.TrustBundle, _ *corev1.Secret, _ string) {
	t.Helper()
	kind := "configMap"
	if b.Spec.Target.Secret != nil {
		kind = "secret"
	}
	rig.Patch(t, b.DeepCopy(), `{"spec": {"target": {%q: {"name": "renamed"}}}}`, kind)
}

// rotate adds a CA to the source.
func rotate(t *testing.T, _ *api.TrustBundle, source *corev1.Secret, _ string) {
	t.Helper()
	set(t, source, "ca.crt", slices.Concat(source.Data["ca.crt"], rig.PEM(rig.NewCA(t, "two"))))
}

// nudge makes an irrelevant change to the spec of a bundle, instead of waiting for five minutes.
func nudge(t *testing.T, b *api.TrustBundle) {
	t.Helper()
	rig.Patch(t, b.DeepCopy(), `{"spec": {"keepReplacedFor": "2161h"}}`)
}

// soonEvent waits for a warning about a bundle.
func soonEvent(t *testing.T, b *api.TrustBundle, reason, words string) {
	t.Helper()
	soon(t, func() error {
		var events corev1.EventList
		if err := rig.Admin(t).List(t.Context(), &events, client.InNamespace(metav1.NamespaceDefault)); err != nil {
			return err
		}
		for _, e := range events.Items {
			if e.InvolvedObject.UID == b.UID && e.Reason == reason && e.Type == corev1.EventTypeWarning &&
				strings.Contains(e.Message, words) {
				return nil
			}
		}
		return cluster.NotYet("there is no event %s with: %s", reason, words)
	})
}

// TestTheMetricOfATrustBundleIsRightWithoutAStatus has a bundle become not ready while its status
// cannot be written, and deletes it.
func TestTheMetricOfATrustBundleIsRightWithoutAStatus(t *testing.T) {
	const name = "metric"
	ns, c := sources(t, rig.Options{})
	namespace(t, name)
	source := secret(t, ns, name, map[string][]byte{"ca.crt": rig.PEM(rig.NewCA(t, "one"))})
	b := bundle(t, name, func(s *api.TrustBundleSpec) { s.Sources = fromSecret(name) })
	soonMetric(t, c, name, metav1.ConditionTrue)
	end := cluster.Freeze(t, ns, "perennial.dev", "trustbundles/status", admissionv1.Update)
	set(t, source, "ca.crt", []byte("no certificate"))
	soonMetric(t, c, name, metav1.ConditionFalse)
	end()
	if err := rig.Admin(t).Delete(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	soon(t, func() error {
		if _, found := c.Gauge(t, readyMetric, map[string]string{"name": name, "condition": "True"}); found {
			return cluster.NotYet("there is a series of a TrustBundle that was deleted")
		}
		return nil
	})
}

const readyMetric = "perennial_trustbundle_ready_status"

// soonMetric waits until the metric says that the condition Ready of a bundle has the status.
func soonMetric(t *testing.T, c *rig.Controllers, name string, want metav1.ConditionStatus) {
	t.Helper()
	soon(t, func() error {
		for _, status := range []metav1.ConditionStatus{metav1.ConditionTrue, metav1.ConditionFalse,
			metav1.ConditionUnknown} {
			value, found := c.Gauge(t, readyMetric, map[string]string{"name": name, "condition": string(status)})
			if !found || (value == 1) != (status == want) {
				return cluster.NotYet("the series of condition %s is %v, there: %t; want %s", status, value, found, want)
			}
		}
		return nil
	})
}

// unreadable is a client that cannot read an issuer while now is set.
type unreadable struct {
	client.Client
	now *atomic.Bool
}

func (c unreadable) Get(ctx context.Context, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
	if c.now.Load() && key.Name == "ca-that-cannot-be-read" {
		return fmt.Errorf("the cache cannot be read")
	}
	return c.Client.Get(ctx, key, o, options...)
}

func TestASourceThatCannotBeReadIsInTheStatus(t *testing.T) {
	var broken atomic.Bool
	broken.Store(true)
	ns, _ := sources(t, rig.Options{WrapClient: func(c client.Client) client.Client { return unreadable{c, &broken} }})
	selected := namespace(t, "unreadable")
	one := rig.NewCA(t, "one")
	secret(t, ns, "ca", map[string][]byte{"ca.crt": rig.PEM(one)})
	b := bundle(t, "unreadable", func(s *api.TrustBundleSpec) {
		s.Sources = append(fromSecret("ca"),
			api.TrustSource{Issuer: &api.TrustIssuerSource{Kind: "ClusterIssuer", Name: "ca-that-cannot-be-read"}})
	})
	soonStatus(t, b, condition(api.ConditionReady, metav1.ConditionFalse, "the cache cannot be read"))
	soonStatus(t, b, condition(api.ConditionSourcesValid, metav1.ConditionFalse, "What is distributed stays as it is"))
	broken.Store(false)
	soonHas(t, selected, "unreadable", one)
	soonStatus(t, b, condition(api.ConditionSourcesValid, metav1.ConditionFalse, "it does not exist"))
}

func TestAConfigMapOfTrustManagerIsTakenOver(t *testing.T) {
	ns, _ := sources(t, rig.Options{})
	one := rig.NewCA(t, "one")
	secret(t, ns, "ca", map[string][]byte{"ca.crt": rig.PEM(one)})
	selected := namespace(t, "was-theirs")
	owner := func(apiVersion, kind string) []metav1.OwnerReference {
		return []metav1.OwnerReference{{APIVersion: apiVersion, Kind: kind, Name: "was-theirs", UID: "4d6ef1cf-0001",
			Controller: ptr.To(true), BlockOwnerDeletion: ptr.To(true)}}
	}
	c := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Namespace: selected, Name: "was-theirs", Labels: map[string]string{"trust.cert-manager.io/bundle": "was-theirs"},
		OwnerReferences: owner("trust.cert-manager.io/v1alpha1", "Bundle"),
	}, Data: map[string]string{"ca.crt": "old"}}
	rig.Create(t, c)
	b := bundle(t, "was-theirs", func(s *api.TrustBundleSpec) { s.Sources = fromSecret("ca") })
	status := soonStatus(t, b, condition(api.ConditionDistributed, metav1.ConditionFalse, "or have it taken over: "))
	// What the message says is what has to be done.
	run(t, status)
	soonHas(t, selected, "was-theirs", one)
	soonStatus(t, b, condition(api.ConditionReady, metav1.ConditionTrue, ""))
	got, err := configMap(t, selected, "was-theirs")
	if err != nil || len(got.OwnerReferences) != 1 || got.OwnerReferences[0].Name != b.Name ||
		got.OwnerReferences[0].Kind != api.TrustBundleKind {
		t.Errorf("the owners are %+v: %v", got.OwnerReferences, err)
	}

	// Of what another program controls it is said how to take it.
	other := namespace(t, "was-theirs-2")
	c = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Namespace: other, Name: "was-theirs-2", Labels: map[string]string{api.TrustBundleLabelKey: "was-theirs-2"},
		OwnerReferences: owner("example.com/v1", "Truststore"),
	}}
	rig.Create(t, c)
	b = bundle(t, "was-theirs-2", func(s *api.TrustBundleSpec) { s.Sources = fromSecret("ca") })
	run(t, soonStatus(t, b, condition(api.ConditionDistributed, metav1.ConditionFalse, "is controlled by Truststore")))
	soonHas(t, other, "was-theirs-2", one)
}

// run has a shell run the command at the end of a condition.
func run(t *testing.T, status *api.TrustBundleStatus) {
	t.Helper()
	for _, c := range status.Conditions {
		if _, command, found := strings.Cut(c.Message, ": kubectl "); found && c.Type == api.ConditionDistributed {
			kubectl := exec.CommandContext(t.Context(), "sh", "-c", "kubectl --kubeconfig "+cluster.Plane(t).KubeconfigPath()+
				" "+command)
			if out, err := kubectl.CombinedOutput(); err != nil {
				t.Fatalf("kubectl %s: %v\n%s", command, err, out)
			}
			return
		}
	}
	t.Fatalf("no condition has a command: %+v", status.Conditions)
}
