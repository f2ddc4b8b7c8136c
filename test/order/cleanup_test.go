package order_test

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/pebble"
)

const challengeName = "_acme-challenge.www.example.com"

// presented returns a rig with a challenge that has its record in the zone and waits for an hour.
func presented(t *testing.T, change ...func(*controller.Options)) (*rig, *cmapi.Certificate, *cmacme.Challenge) {
	t.Helper()
	r, options := shop(t, &front{}, pebble.Options{})
	for _, f := range change {
		f(&options)
	}
	cluster.Run(t, options)
	solve := r.byDNS("")
	r.issuer(func(spec *cmacme.ACMEIssuer) {
		solve(spec)
		spec.Solvers[0].WaitInsteadOfSelfCheck = &metav1.Duration{Duration: time.Hour}
	})
	crt := r.certificate("site", "www.example.com")
	ch := &cmacme.Challenge{}
	cluster.Eventually(t, func() error {
		var list cmacme.ChallengeList
		if err := r.admin.List(t.Context(), &list, client.InNamespace(r.namespace)); err != nil {
			return err
		}
		if len(list.Items) != 1 || !list.Items[0].Status.Presented {
			return cluster.NotYet("%s", r.story())
		}
		*ch = list.Items[0]
		return nil
	})
	if got := r.names.TXT(challengeName); len(got) != 1 || got[0] != ch.Spec.Key {
		t.Fatalf("the zone has %q", got)
	}
	return r, crt, ch
}

// tells waits for an event of an object that has all of the words.
func (r *rig) tells(reason string, words ...string) {
	r.t.Helper()
	cluster.Eventually(r.t, func() error {
		var events corev1.EventList
		if err := r.admin.List(r.t.Context(), &events, client.InNamespace(r.namespace)); err != nil {
			return err
		}
		var said []string
	next:
		for _, e := range events.Items {
			if e.Reason != reason {
				continue
			}
			said = append(said, e.Message)
			for _, w := range words {
				if !strings.Contains(e.Message, w) {
					continue next
				}
			}
			return nil
		}
		return cluster.NotYet("%s: %q", reason, said)
	})
}

func TestARecordIsRemovedThoughItsIssuerIsGone(t *testing.T) {
	t.Parallel()
	address := fmt.Sprintf("127.0.0.1:%d", cluster.FreePort(t))
	r, crt, ch := presented(t, func(o *controller.Options) { o.MetricsAddress = address })
	metrics := func() string {
		response, err := http.Get("http://" + address + "/metrics")
		if err != nil {
			return err.Error()
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			return err.Error()
		}
		return string(body)
	}
	ca := strings.TrimSuffix(strings.TrimPrefix(r.ca.Directory, "https://"), pathDirectory)
	for _, series := range []string{
		fmt.Sprintf(`certmanager_certificate_challenge_status{domain="www.example.com",name=%q,namespace=%q,processing="true",reason="Waiting instead of a self check",status="pending",type="DNS-01"} 1`, ch.Name, ch.Namespace),
		fmt.Sprintf(`certmanager_certificate_challenge_status{domain="www.example.com",name=%q,namespace=%q,processing="true",reason="Waiting instead of a self check",status="valid",type="DNS-01"} 0`, ch.Name, ch.Namespace),
		fmt.Sprintf(`certmanager_http_acme_client_request_count{action="authorize_order",host=%q,method="POST",scheme="https",status="201"} 1`, ca),
		fmt.Sprintf(`certmanager_http_acme_client_request_duration_seconds_count{action="authorize_order",host=%q,method="POST",scheme="https",status="201"} 1`, ca),
	} {
		cluster.Eventually(t, func() error {
			if text := metrics(); !strings.Contains(text, series) {
				return cluster.NotYet("no %s", series)
			}
			return nil
		})
	}

	r.delete(r.getIssuer())
	r.delete(crt)
	r.gone(ch)
	if got := r.names.TXT(challengeName); len(got) > 0 {
		t.Errorf("the zone has %q", got)
	}
	cluster.Eventually(t, func() error {
		if strings.Contains(metrics(), fmt.Sprintf("name=%q", ch.Name)) {
			return cluster.NotYet("there are series of the Challenge")
		}
		return nil
	})
}

func TestARecordWhoseCredentialsAreGoneStaysAndIsNamed(t *testing.T) {
	t.Parallel()
	now := &cluster.Clock{}
	r, crt, ch := presented(t, func(o *controller.Options) { o.Clock = now })
	r.delete(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "tsig"}})
	r.delete(crt)
	r.tells("CleanUpError", "Error cleaning up challenge, tried until", "/tsig", "does not exist")
	if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(ch), ch); err != nil {
		t.Fatalf("the Challenge is given up too early: %v", err)
	}
	now.Step(11 * time.Minute)
	r.gone(ch)
	r.tells(
		"CleanUpError",
		"Gave up",
		fmt.Sprintf("the TXT record %s with the value %q stays: remove it by hand", challengeName, ch.Spec.Key),
	)
}

func TestANamespaceGoesThoughItHasChallenges(t *testing.T) {
	t.Parallel()
	now := &cluster.Clock{}
	r, _, ch := presented(t, func(o *controller.Options) { o.Clock = now })
	r.delete(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "tsig"}})
	r.delete(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: r.namespace}})
	cluster.Eventually(t, func() error {
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(ch), ch); err != nil {
			return err
		}
		if ch.DeletionTimestamp == nil {
			return cluster.NotYet("the Challenge is not deleted")
		}
		return nil
	})
	now.Step(11 * time.Minute) // longer than the retries last, if there was a first attempt
	r.eventually("the namespace is gone", func() bool {
		now.Step(10 * time.Second)
		return apierrors.IsNotFound(r.admin.Get(t.Context(), client.ObjectKey{Name: r.namespace}, &corev1.Namespace{}))
	})
}

// abandoned returns a rig with a record that a controller created but could not note in the status
// before it was killed. Its Challenge is being deleted. The options are for another controller.
func abandoned(t *testing.T) (*rig, *cmacme.Challenge, controller.Options) {
	t.Helper()
	r, options := shop(t, &front{}, pebble.Options{})
	life := cluster.NewLife(math.MaxInt, false)
	r.names.AddTXT(challengeName, "another client's")
	r.names.Updating(func() dnsserver.Fate {
		defer life.End()
		return dnsserver.Unheard
	})
	r.issuer(r.byDNS(""))
	crt := r.certificate("site", "www.example.com")
	mortal := options
	mortal.WrapClient = life.Wrap
	first := cluster.Run(t, mortal)
	select {
	case <-life.Died():
	case <-t.Context().Done():
		t.Fatal("nothing was put into the zone")
	}
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	var list cmacme.ChallengeList
	if err := r.admin.List(t.Context(), &list, client.InNamespace(r.namespace)); err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 1 || list.Items[0].Status.Presented {
		t.Fatalf("%s", r.story())
	}
	ch := &list.Items[0]
	cluster.Eventually(t, func() error {
		if got := r.names.TXT(challengeName); len(got) != 2 || got[1] != ch.Spec.Key {
			return cluster.NotYet("the zone has %q", got)
		}
		return nil
	})
	r.delete(crt)
	cluster.Eventually(t, func() error {
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(ch), ch); err != nil {
			return err
		}
		if ch.DeletionTimestamp == nil {
			return cluster.NotYet("the Challenge is not deleted")
		}
		return nil
	})
	return r, ch, options
}

func TestAnUnrecordedTXTRecordIsRemovedThoughTheDNSServiceFailsOnce(t *testing.T) {
	t.Parallel()
	r, ch, options := abandoned(t)
	var updates atomic.Int64
	r.names.Updating(func() dnsserver.Fate {
		if updates.Add(1) == 1 {
			return dnsserver.Failed
		}
		return dnsserver.Done
	})
	cluster.Run(t, options)
	r.tells("CleanUpError", "Error cleaning up challenge, tried until")
	r.gone(ch)
	if got := r.names.TXT(challengeName); len(got) != 1 || got[0] != "another client's" {
		t.Errorf("the zone has %q", got)
	}
}

// TestARecordIsRemovedThoughTheControllerWasAwayForLong restarts the controller after the time
// limit for the cleanup, with a DNS service that fails once.
func TestARecordIsRemovedThoughTheControllerWasAwayForLong(t *testing.T) {
	t.Parallel()
	r, options := shop(t, &front{}, pebble.Options{})
	now := &cluster.Clock{}
	options.OwnMachine, options.Clock = true, now
	first := cluster.Run(t, options)
	var removals atomic.Int64
	r.issuer(r.byProvider("exec", fmt.Sprintf(`{"program": %q}`, r.programOf(func(verb, name, value string) bool {
		if verb == "cleanup" && removals.Add(1) == 1 {
			return false
		}
		r.edits(verb, name, value)
		return true
	}))), func(spec *cmacme.ACMEIssuer) {
		spec.Solvers[0].WaitInsteadOfSelfCheck = &metav1.Duration{Duration: time.Hour}
	})
	crt := r.certificate("site", "www.example.com")
	var list cmacme.ChallengeList
	r.eventually("the record is there", func() bool {
		return r.admin.List(t.Context(), &list, client.InNamespace(r.namespace)) == nil && len(list.Items) == 1 &&
			list.Items[0].Status.Presented
	})
	ch := &list.Items[0]
	if got := r.names.TXT(challengeName); len(got) != 1 {
		t.Fatalf("the zone has %q", got)
	}
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	r.delete(crt)
	r.eventually("the Challenge is deleted", func() bool {
		return r.admin.Get(t.Context(), client.ObjectKeyFromObject(ch), ch) == nil && ch.DeletionTimestamp != nil
	})
	now.Step(time.Hour)
	cluster.Run(t, options)
	r.gone(ch)
	if got := r.names.TXT(challengeName); len(got) > 0 {
		t.Errorf("the zone has %q", got)
	}
	for _, said := range r.events("CleanUpError") {
		if strings.Contains(said, "Gave up") {
			t.Error(said)
		}
	}
}

func TestAnUnrecordedTXTRecordIsNamedIfTheDNSServiceFailsForLong(t *testing.T) {
	t.Parallel()
	r, ch, options := abandoned(t)
	r.names.Updating(func() dnsserver.Fate { return dnsserver.Failed })
	now := &cluster.Clock{}
	options.Clock = now
	cluster.Run(t, options)
	r.tells("CleanUpError", "Error cleaning up challenge, tried until")
	now.Step(11 * time.Minute)
	r.gone(ch)
	r.tells(
		"CleanUpError",
		"Gave up",
		fmt.Sprintf(
			"the TXT record %s with the value %q may be there: look, and remove it by hand",
			challengeName,
			ch.Spec.Key,
		),
	)
}

func TestAChallengeThatCouldNeverBeginGoesAtOnce(t *testing.T) {
	t.Parallel()
	r, options := shop(t, &front{}, pebble.Options{})
	cluster.Run(t, options)
	solve := r.byDNS("")
	r.delete(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "tsig"}})
	r.issuer(solve, func(spec *cmacme.ACMEIssuer) {
		// A solver that works for other names keeps the issuer ready.
		spec.Solvers = append(spec.Solvers, cmacme.ACMEChallengeSolver{
			Selector: &cmacme.CertificateDNSNameSelector{DNSNames: []string{"other.example.com"}},
			HTTP01:   &cmacme.ACMEChallengeSolverHTTP01{Ingress: &cmacme.ACMEChallengeSolverHTTP01Ingress{}},
		})
	})
	crt := r.certificate("site", "www.example.com")
	r.says("/tsig, dns01.rfc2136.tsigSecretSecretRef, does not exist")
	var list cmacme.ChallengeList
	if err := r.admin.List(t.Context(), &list, client.InNamespace(r.namespace)); err != nil || len(list.Items) != 1 {
		t.Fatalf("%v\n%s", err, r.story())
	}
	r.delete(crt)
	r.gone(&list.Items[0])
	var events corev1.EventList
	if err := r.admin.List(t.Context(), &events, client.InNamespace(r.namespace)); err != nil {
		t.Fatal(err)
	}
	for _, e := range events.Items {
		if e.Reason == "CleanUpError" {
			t.Errorf("an event speaks of what was never there: %s", e.Message)
		}
	}
}
