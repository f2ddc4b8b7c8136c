// Package shim_test annotates Ingresses on a real Kubernetes API and checks the resulting
// Certificates.
package shim_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/internal/shim"
	"github.com/perennial-pki/perennial/test/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

type rig struct {
	*testing.T
	admin     client.WithWatch
	namespace string
	clock     *clocktesting.FakeClock
}

// start runs a controller, with a self-signed Issuer "self" in a namespace.
func start(t *testing.T) *rig {
	t.Helper()
	r := &rig{t, cluster.Admin(t), cluster.Namespace(t), clocktesting.NewFakeClock(time.Now())}
	cluster.Run(t, controller.Options{Clock: r.clock})
	r.create(
		&cmapi.Issuer{
			ObjectMeta: metav1.ObjectMeta{Name: "self"},
			Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}},
		},
	)
	return r
}

func (r *rig) create(o client.Object) {
	r.Helper()
	o.SetNamespace(r.namespace)
	if err := r.admin.Create(r.Context(), o); err != nil {
		r.Fatal(err)
	}
}

func ingress(name, secret string, annotations map[string]string, hosts ...string) *networkingv1.Ingress {
	exact := networkingv1.PathTypePrefix
	o := &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"cert-manager.io/issuer": "self"}},
		Spec: networkingv1.IngressSpec{
			TLS: []networkingv1.IngressTLS{{Hosts: hosts, SecretName: secret}},
			Rules: []networkingv1.IngressRule{
				{Host: hosts[0], IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{
					Paths: []networkingv1.HTTPIngressPath{{Path: "/", PathType: &exact, Backend: networkingv1.IngressBackend{
						Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}}}}},
				}}},
			},
		},
	}
	for k, v := range annotations {
		o.Annotations[k] = v
	}
	return o
}

// until waits until the Certificate is as expected.
func (r *rig) until(name string, right func(*cmapi.Certificate) bool) *cmapi.Certificate {
	r.Helper()
	crt := &cmapi.Certificate{}
	cluster.Eventually(r, func() error {
		if err := r.admin.Get(r.Context(), client.ObjectKey{Namespace: r.namespace, Name: name}, crt); err != nil {
			return err
		}
		if !right(crt) {
			return cluster.NotYet("the Certificate is %+v, %+v", crt.ObjectMeta, crt.Spec)
		}
		return nil
	})
	return crt
}

// change changes an object, and retries until the API server accepts it.
func (r *rig) change(o client.Object, f func()) {
	r.Helper()
	cluster.Eventually(r, func() error {
		if err := r.admin.Get(r.Context(), client.ObjectKeyFromObject(o), o); err != nil {
			return err
		}
		f()
		return r.admin.Update(r.Context(), o)
	})
}

// problem waits until the annotation of the object has the text, or is absent if says is empty. It
// advances the clock past the minute for which a problem is not reported.
func (r *rig) problem(o client.Object, says string) {
	r.Helper()
	cluster.Eventually(r, func() error {
		if err := r.admin.Get(r.Context(), client.ObjectKeyFromObject(o), o); err != nil {
			return err
		}
		if got := o.GetAnnotations()[shim.ProblemAnnotation]; says == "" && got != "" || !strings.Contains(got, says) {
			r.later(o)
			return cluster.NotYet("the annotation of %s says %q", o.GetName(), got)
		}
		return nil
	})
}

// later advances the clock by a minute, and triggers a reconciliation of the object.
func (r *rig) later(o client.Object) {
	r.Helper()
	r.clock.Step(61 * time.Second)
	patch := fmt.Appendf(nil, `{"metadata": {"annotations": {"test/now": %q}}}`, r.clock.Now())
	target := o.DeepCopyObject().(client.Object)
	if err := r.admin.Patch(r.Context(), target, client.RawPatch(types.MergePatchType, patch)); err != nil {
		r.Fatal(err)
	}
}

func TestAnIngressGetsACertificateThatFollowsIt(t *testing.T) {
	r := start(t)
	o := ingress("web", "tls", map[string]string{"cert-manager.io/duration": "240h"}, "www.example.com", "example.com")
	o.Labels = map[string]string{"app": "shop"}
	r.create(o)
	crt := r.until("tls", func(c *cmapi.Certificate) bool {
		return cmapi.GetCertificateCondition(&c.Status, "Ready") != nil && c.Status.NotAfter != nil
	})
	if !slices.Equal(crt.Spec.DNSNames, []string{"www.example.com", "example.com"}) || crt.Labels["app"] != "shop" ||
		!metav1.IsControlledBy(crt, o) {
		t.Errorf("the Certificate is %+v %+v", crt.ObjectMeta, crt.Spec)
	}
	var secret corev1.Secret
	if err := r.admin.Get(t.Context(), client.ObjectKey{Namespace: r.namespace, Name: "tls"}, &secret); err != nil {
		t.Error(err)
	}

	// An annotation of another client stays; new settings of the Ingress are applied, and removed ones
	// are removed.
	r.change(crt, func() { crt.Annotations = map[string]string{"theirs": "x"} })
	r.change(o, func() {
		delete(o.Annotations, "cert-manager.io/duration")
		o.Annotations["cert-manager.io/usages"] = "server auth"
		o.Spec.TLS[0].Hosts = []string{"www.example.com"}
	})
	r.until("tls", func(c *cmapi.Certificate) bool {
		return c.Spec.Duration == nil && len(c.Spec.DNSNames) == 1 &&
			slices.Equal(c.Spec.Usages, []cmapi.KeyUsage{"server auth"}) &&
			c.Annotations["theirs"] == "x"
	})

	// Another Secret: another Certificate, and the old one is gone.
	r.change(o, func() { o.Spec.TLS[0].SecretName = "other" })
	r.until("other", func(*cmapi.Certificate) bool { return true })
	r.gone("tls")

	// With the Ingress its Certificate goes; the Secret stays.
	if err := r.admin.Delete(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	r.gone("other")
	if err := r.admin.Get(t.Context(), client.ObjectKey{Namespace: r.namespace, Name: "tls"}, &secret); err != nil {
		t.Error(err)
	}
}

func (r *rig) gone(name string) {
	r.Helper()
	cluster.Eventually(r, func() error {
		err := r.admin.Get(r.Context(), client.ObjectKey{Namespace: r.namespace, Name: name}, &cmapi.Certificate{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return cluster.NotYet("Certificate %s is there: %v", name, err)
	})
}

func TestAMistakeStandsOnTheIngressUntilItIsMended(t *testing.T) {
	r := start(t)
	o := ingress("web", "tls", map[string]string{"cert-manager.io/private-key-algorithm": "DSA"}, "www.example.com")
	r.create(o)
	r.problem(o, `cert-manager.io/private-key-algorithm: "DSA" is none of RSA, ECDSA, Ed25519`)
	cluster.Eventually(r, func() error {
		var events corev1.EventList
		if err := r.admin.List(t.Context(), &events, client.InNamespace(r.namespace)); err != nil {
			return err
		}
		n := 0
		for _, e := range events.Items {
			if e.InvolvedObject.Name == "web" && e.Reason == "BadConfig" {
				n += int(max(e.Count, 1))
			}
		}
		if n != 1 {
			return cluster.NotYet("there are %d events", n)
		}
		return nil
	})
	r.change(o, func() { o.Annotations["cert-manager.io/private-key-algorithm"] = "ECDSA" })
	r.until("tls", func(c *cmapi.Certificate) bool { return c.Spec.PrivateKey.Algorithm == cmapi.ECDSAKeyAlgorithm })
	r.problem(o, "")

	// A mistake that is made later changes nothing.
	r.change(o, func() { o.Annotations["cert-manager.io/private-key-algorithm"] = "DSA" })
	r.problem(o, "DSA")
	r.until("tls", func(c *cmapi.Certificate) bool { return c.Spec.PrivateKey.Algorithm == cmapi.ECDSAKeyAlgorithm })

	// What only the API server can judge, and an issuer that is not there.
	r.change(o, func() {
		o.Annotations["cert-manager.io/private-key-algorithm"] = "ECDSA"
		o.Annotations["cert-manager.io/duration"] = "1s"
	})
	r.problem(o, "duration must be at least 1m")
	r.change(o, func() {
		delete(o.Annotations, "cert-manager.io/duration")
		o.Annotations["cert-manager.io/issuer"] = "missing"
	})
	r.problem(o, `there is no Issuer "missing"`)
	missing := &cmapi.Issuer{
		ObjectMeta: metav1.ObjectMeta{Name: "missing"},
		Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}},
	}
	r.create(missing)
	r.problem(o, "")
	if err := r.admin.Delete(t.Context(), missing); err != nil {
		t.Fatal(err)
	}
	r.problem(o, `there is no Issuer "missing"`)
}

func TestTwoIngressesThatWantOneSecretWithOtherContentBothHaveAnEvent(t *testing.T) {
	r := start(t)
	a, b := ingress("a", "tls", nil, "a.example.com"), ingress("b", "tls", nil, "b.example.com")
	r.create(a)
	r.until("tls", func(*cmapi.Certificate) bool { return true })
	r.create(b)
	r.problem(a, `Ingress b wants Secret "tls" with other content`)
	r.problem(b, `Ingress a wants Secret "tls" with other content`)
	r.change(b, func() { b.Spec.TLS[0].SecretName = "tls-b" })
	r.problem(a, "")
	r.problem(b, "")
}

func TestACertificateOfAnotherOwnerIsLeftAlone(t *testing.T) {
	r := start(t)
	crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: "tls"}, Spec: cmapi.CertificateSpec{
		SecretName: "tls", DNSNames: []string{"mine.example.com"},
	}}
	crt.Spec.IssuerRef.Name = "self"
	r.create(crt)
	o := ingress("web", "tls", nil, "www.example.com")
	r.create(o)
	r.problem(o, `Certificate "tls", which is not this object's, provides the Secret with other content`)
	if err := r.admin.Get(
		t.Context(),
		client.ObjectKeyFromObject(crt),
		crt,
	); err != nil ||
		fmt.Sprint(crt.Spec.DNSNames) != "[mine.example.com]" {
		t.Errorf("%v %v", crt.Spec.DNSNames, err)
	}
}
