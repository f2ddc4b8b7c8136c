package cli_test

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
	"github.com/perennial-pki/perennial/internal/cli"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
)

func TestStatusSaysWhatKeepsAnIngressFromItsCertificate(t *testing.T) {
	s := newShell(t)
	var clock cluster.Clock
	cluster.Run(t, controller.Options{Namespace: s.namespace, Clock: &clock})
	s.selfSigned()
	s.perennial("status", "ingress", "shop").says(t, cli.ExitNotFound, `there is no Ingress "shop" in namespace`)
	s.perennial("status", "gateway", "shop").says(t, cli.ExitNotFound, `there is no Gateway "shop" in namespace`)
	shop := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Name: "shop", Annotations: map[string]string{
		"cert-manager.io/issuer": "self", "cert-manager.io/duration": "90 days"}},
		Spec: networkingv1.IngressSpec{
			DefaultBackend: &networkingv1.IngressBackend{
				Service: &networkingv1.IngressServiceBackend{Name: "x", Port: networkingv1.ServiceBackendPort{Number: 80}}},
			TLS: []networkingv1.IngressTLS{{Hosts: []string{"shop.example.com"}, SecretName: "shop-tls"}}}}
	s.create(shop)
	// A problem is reported after a minute. The queue uses the real clock, so a change of the object
	// triggers the check.
	later := func() error {
		clock.Step(time.Minute)
		was := shop.DeepCopy()
		metav1.SetMetaDataLabel(&shop.ObjectMeta, "seen", strconv.FormatInt(clock.Now().Unix(), 10))
		return s.Patch(t.Context(), shop, client.MergeFrom(was))
	}
	cluster.Eventually(t, func() error {
		if err := later(); err != nil {
			return err
		}
		if a := s.perennial(
			"status",
			"ingress",
			"shop",
		); a.code != cli.ExitNotReady ||
			!a.has("is not followed as it stands") {
			return cluster.NotYet("exit code %d: %s%s", a.code, a.out, a.err)
		}
		return nil
	})
	s.perennial("status", "ingress", "shop").says(t, cli.ExitNotReady,
		`Next: correct it: cert-manager.io/duration: "90 days" is not a duration`)
	s.perennial("status", "certificate", "shop-tls").says(t, cli.ExitNotFound, `there is no Certificate "shop-tls"`,
		`Ingress "shop" asks for it, and is not followed as it stands: cert-manager.io/duration: "90 days" is not a duration`)

	annotate := func(duration string) {
		t.Helper()
		was := shop.DeepCopy()
		shop.Annotations["cert-manager.io/duration"] = duration
		if err := s.Patch(t.Context(), shop, client.MergeFrom(was)); err != nil {
			t.Fatal(err)
		}
	}
	annotate("2160h")
	s.until(cli.ExitOK, "status", "ingress", "shop").says(t, 0, "has its certificates", "Certificate shop-tls")
	s.perennial("status", "certificate", "shop-tls").says(t, 0, "Ingress shop", "the Certificate is made for it")

	annotate("a year")
	cluster.Eventually(t, func() error {
		if err := later(); err != nil {
			return err
		}
		if a := s.perennial(
			"status",
			"certificate",
			"shop-tls",
		); !a.has(
			"Next: correct Ingress shop: cert-manager.io/duration",
		) {
			return cluster.NotYet("exit code %d: %s%s", a.code, a.out, a.err)
		}
		return nil
	})
}

func TestStatusSaysWhatKeepsATrustBundleFromItsNamespaces(t *testing.T) {
	s := newShell(t)
	cluster.Run(t, controller.Options{Controllers: []string{"trustbundles"}})
	s.perennial("status", "trustbundle", "company").says(t, cli.ExitNotFound, `there is no TrustBundle "company"`)
	bundle := &api.TrustBundle{ObjectMeta: metav1.ObjectMeta{Name: "company"}, Spec: api.TrustBundleSpec{
		Sources: []api.TrustSource{{InLine: "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n"}},
		Target: api.TrustTarget{NamespaceSelector: metav1.LabelSelector{MatchLabels: map[string]string{"none": "yet"}},
			ConfigMap: &api.TrustTargetObject{}}}}
	if err := s.Create(t.Context(), bundle); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Delete(context.Background(), bundle) })
	s.until(cli.ExitNotReady, "status", "trustbundle", "company").says(t, cli.ExitNotReady)
	cluster.Eventually(t, func() error {
		if a := s.perennial("status", "trustbundle", "company"); !a.has("is not ready: ") || !a.has("PEM block 1") {
			return cluster.NotYet("exit code %d: %s%s", a.code, a.out, a.err)
		}
		return nil
	})
}

// TestStatusKnowsWhenEventsOfBothAPIsHappened writes events as client-go's recorder for
// events.k8s.io does: with eventTime, and without the times of the older API.
func TestStatusKnowsWhenEventsOfBothAPIsHappened(t *testing.T) {
	s := newShell(t)
	crt := certificate("web")
	s.create(crt)
	now := time.Now()
	event := func(name, note string, at time.Time, series *eventsv1.EventSeries) *eventsv1.Event {
		return &eventsv1.Event{ObjectMeta: metav1.ObjectMeta{Name: name}, EventTime: metav1.NewMicroTime(at),
			Series: series, ReportingController: "example.com/issuer", ReportingInstance: "issuer-0", Action: "Signing",
			Type: corev1.EventTypeNormal, Reason: "Signing", Note: note,
			Regarding: corev1.ObjectReference{APIVersion: "cert-manager.io/v1", Kind: "Certificate",
				Namespace: s.namespace, Name: "web", UID: crt.UID}}
	}
	s.create(event("once", "happened once", now.Add(-5*time.Hour), nil),
		event("often", "happened often", now.Add(-9*time.Hour), &eventsv1.EventSeries{Count: 3,
			LastObservedTime: metav1.NewMicroTime(now.Add(-2 * time.Hour))}),
		&corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: "older"}, Type: corev1.EventTypeNormal, Reason: "Signing",
			Message: "happened in the older API", FirstTimestamp: metav1.NewTime(now.Add(-8 * time.Hour)),
			LastTimestamp: metav1.NewTime(now.Add(-3 * time.Hour)), Count: 2,
			InvolvedObject: corev1.ObjectReference{APIVersion: "cert-manager.io/v1", Kind: "Certificate",
				Namespace: s.namespace, Name: "web", UID: crt.UID}})

	var report struct {
		Events []struct {
			Time    time.Time
			Message string
			Count   int32
		}
	}
	a := s.perennial("status", "certificate", "web", "-o", "json")
	if err := json.Unmarshal([]byte(a.out), &report); err != nil {
		t.Fatalf("%v in:\n%s", err, a.out)
	}
	type line struct {
		message string
		ago     time.Duration
		count   int32
	}
	var got []line
	for _, e := range report.Events {
		got = append(got, line{e.Message, now.Sub(e.Time).Round(time.Minute), e.Count})
	}
	want := []line{{"happened once", 5 * time.Hour, 1}, {"happened in the older API", 3 * time.Hour, 2},
		{"happened often", 2 * time.Hour, 3}}
	if !slices.Equal(got, want) {
		t.Errorf("the events are %v, want %v", got, want)
	}
	s.perennial("status", "certificate", "web").says(t, cli.ExitNotReady, "5 hours ago", "3 hours ago", "2 hours ago")
}
