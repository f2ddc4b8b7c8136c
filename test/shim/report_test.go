package shim_test

import (
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/shim"
	"github.com/perennial-pki/perennial/test/cluster"
)

// warnings are the texts of the warnings about an object.
func (r *rig) warnings(o client.Object) (texts []string) {
	r.Helper()
	var events corev1.EventList
	if err := r.admin.List(r.Context(), &events, client.InNamespace(r.namespace)); err != nil {
		r.Fatal(err)
	}
	for _, e := range events.Items {
		if e.InvolvedObject.UID == o.GetUID() && e.Type == corev1.EventTypeWarning {
			texts = append(texts, e.Reason+": "+e.Message)
		}
	}
	return texts
}

// warned waits until a warning about an object has all the words.
func (r *rig) warned(o client.Object, words ...string) {
	r.Helper()
	cluster.Eventually(r, func() error {
		all := r.warnings(o)
		if !slices.ContainsFunc(all, func(text string) bool {
			return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(text, word) })
		}) {
			r.later(o)
			return cluster.NotYet("the warnings are %q", all)
		}
		return nil
	})
}

func TestAnIngressBeforeItsIssuerHasNoEvent(t *testing.T) {
	r := start(t)
	o := ingress("web", "tls", map[string]string{"cert-manager.io/issuer": "late"}, "www.example.com")
	r.create(o)
	r.until("tls", func(*cmapi.Certificate) bool { return true })
	// Passes within the minute find the issuer missing.
	r.change(o, func() { o.Annotations["cert-manager.io/duration"] = "240h" })
	r.until("tls", func(c *cmapi.Certificate) bool { return c.Spec.Duration != nil })
	late := &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: "late"},
		Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}}}
	r.create(late)
	r.until("tls", ready)
	r.later(o)
	r.change(o, func() { o.Annotations["cert-manager.io/duration"] = "480h" })
	r.until("tls", func(c *cmapi.Certificate) bool { return c.Spec.Duration.Hours() == 480 })
	if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
		t.Fatal(err)
	}
	if text, found := o.Annotations[shim.ProblemAnnotation]; found || len(r.warnings(o)) > 0 {
		t.Errorf("the annotation says %q, and the warnings are %q", text, r.warnings(o))
	}
}

// TestEachRefusedWriteIsSaidOnTheIngress refuses each write of the shim in turn.
func TestEachRefusedWriteIsSaidOnTheIngress(t *testing.T) {
	r := start(t)
	for name, test := range map[string]struct {
		group, resource string
		operation       admissionv1.OperationType
		cause           func(*networkingv1.Ingress)
		says            string
		over            func(o *networkingv1.Ingress)
	}{
		"create": {"cert-manager.io", "certificates", admissionv1.Create,
			func(o *networkingv1.Ingress) { o.Spec.TLS[0].SecretName = "create-2" },
			"Certificate create-2: cannot be created: the API server refuses it", func(*networkingv1.Ingress) {
				r.until("create-2", ready)
			}},
		"update": {"cert-manager.io", "certificates", admissionv1.Update,
			func(o *networkingv1.Ingress) { o.Annotations["cert-manager.io/duration"] = "240h" },
			"Certificate update-1: cannot be updated: the API server refuses it",
			func(*networkingv1.Ingress) {
				r.until("update-1", func(c *cmapi.Certificate) bool { return c.Spec.Duration != nil })
			}},
		"delete": {"cert-manager.io", "certificates", admissionv1.Delete,
			func(o *networkingv1.Ingress) { o.Spec.TLS[0].SecretName = "delete-2" },
			"Certificate delete-1: is wanted no more, and cannot be deleted: the API server refuses it",
			func(*networkingv1.Ingress) { r.gone("delete-1") }},
		"annotate": {"networking.k8s.io", "ingresses", admissionv1.Update,
			func(o *networkingv1.Ingress) { o.Annotations["cert-manager.io/duration"] = "long" },
			`cert-manager.io/duration: "long" is not a duration`, func(o *networkingv1.Ingress) {
				r.problem(o, `"long" is not a duration`)
			}},
	} {
		t.Run(name, func(t *testing.T) {
			r := &rig{t, r.admin, r.namespace, r.clock}
			o := ingress(name, name+"-1", nil, name+".example.com")
			r.create(o)
			r.until(name+"-1", ready)
			end := cluster.Freeze(t, r.namespace, test.group, test.resource, test.operation)
			r.change(o, func() { test.cause(o) })
			r.warned(o, test.says, cluster.FrozenBecause)
			if name != "annotate" {
				r.problem(o, test.says)
			}
			end()
			// Nothing changes that is watched: the next attempt is in five minutes at most.
			r.later(o)
			test.over(o)
			if name != "annotate" {
				r.problem(o, "")
			}
		})
	}
}
