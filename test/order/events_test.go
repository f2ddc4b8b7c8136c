package order_test

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// TestEventsAreRecordedOnceThoughOthersWrite makes every status write conflict first, and checks
// the events that a user sees.
func TestEventsAreRecordedOnceThoughOthersWrite(t *testing.T) {
	admin := cluster.Admin(t)
	r := start(t, pebble.Options{}, func(o *controller.Options) { o.WrapClient = cluster.Contested(admin) })
	r.issuer()
	r.staging(pebble.Options{})
	cluster.Eventually(t, func() error { // there is also an event for waiting for an issuer
		var issuers cmapi.IssuerList
		if err := r.admin.List(t.Context(), &issuers, client.InNamespace(r.namespace)); err != nil {
			return err
		}
		for _, i := range issuers.Items {
			if c := cmapi.GetIssuerCondition(
				&i.Status,
				cmapi.IssuerConditionReady,
			); c == nil ||
				c.Status != cmmeta.ConditionTrue {
				return cluster.NotYet("the issuer %s is not ready", i.Name)
			}
		}
		return nil
	})
	crt := r.rehearsed("site", "staging", func(crt *cmapi.Certificate) {
		crt.Annotations = map[string]string{cmapi.IssueTemporaryCertificateAnnotation: "true"}
	})
	r.ready(crt)

	want := []string{
		"Certificate Generated",
		"Certificate Issuing: Issued temporary certificate",
		"Certificate Issuing: Issuing certificate as Secret does not exist",
		"Certificate Issuing: The certificate has been successfully issued",
		"Certificate Rehearsed",
		"Certificate Rehearsing",
		"Certificate Requested",
		"CertificateRequest OrderCreated",
		"Challenge DomainVerified",
		"Challenge Presented",
		"Challenge Started",
		"Order Complete",
		"Order Created",
	}
	cluster.Eventually(t, func() error {
		var list corev1.EventList
		if err := r.admin.List(t.Context(), &list, client.InNamespace(r.namespace)); err != nil {
			return err
		}
		told, kinds := map[string]int32{}, map[string]bool{}
		for _, e := range list.Items {
			if e.InvolvedObject.Kind == "Issuer" {
				continue
			}
			name := e.InvolvedObject.Kind + " " + e.Reason
			if e.Reason == "Issuing" {
				name += ": " + e.Message
			}
			kinds[name] = true
			told[e.InvolvedObject.Name+": "+name] += e.Count
		}
		for name, n := range told {
			if n > 1 {
				t.Fatalf("told %d times: %s", n, name)
			}
		}
		if got := slices.Sorted(maps.Keys(kinds)); !slices.Equal(got, want) {
			return fmt.Errorf("told:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		return nil
	})
}

// TestACertificateSaysWhatItsChallengesWaitFor points a name at a site that does not answer
// challenges, and checks only the Certificate.
func TestACertificateSaysWhatItsChallengesWaitFor(t *testing.T) {
	clock := &cluster.Clock{}
	clock.Step(time.Minute) // what is made now is pending for long already
	elsewhere := httptest.NewServer(http.NotFoundHandler())
	defer elsewhere.Close()
	r := start(t, pebble.Options{}, func(o *controller.Options) {
		o.Clock = clock
		o.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, elsewhere.Listener.Addr().String())
		}
	})
	r.issuer()
	crt := r.certificate("site", "www.example.com")
	r.until(crt, func() string {
		c := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionIssuing)
		if c == nil ||
			!strings.Contains(c.Message, "HTTP-01 of www.example.com: Waiting for HTTP-01 challenge propagation: ") ||
			!strings.Contains(c.Message, "404") {
			return "the condition does not say why"
		}
		return ""
	})
}
