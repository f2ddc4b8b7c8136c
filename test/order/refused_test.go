package order_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/cli"
	"github.com/perennial-pki/perennial/internal/controller"
	revoking "github.com/perennial-pki/perennial/internal/revocation"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// statusAt returns what perennial status prints about a Certificate at the time of a clock.
func (r *rig) statusAt(clock clock.PassiveClock, name string) string {
	r.t.Helper()
	var out bytes.Buffer
	p := &cli.Program{Name: "perennial", In: strings.NewReader(""), Out: &out, Err: &out, Clock: clock}
	p.Run(r.t.Context(), p.Command(), []string{"status", "certificate", name, "-n", r.namespace, "--kubeconfig",
		cluster.Plane(r.t).KubeconfigPath()})
	return out.String()
}

// TestEachRefusedWriteOfAnOrderIsReported refuses each write for an Order in turn.
func TestEachRefusedWriteOfAnOrderIsReported(t *testing.T) {
	next := []string{"Change what refuses it", "tried again within 2 minutes"}
	for name, test := range map[string]struct {
		rule func(cluster.Write) bool
		// event is the reason of the event that reports it. If it is empty, the Certificate does.
		event string
		// late says that the certificate is issued before.
		late bool
		// also is what the Certificate says besides the refusal.
		also []string
	}{
		"the Order":                 {rule: cluster.WriteOf[*cmacme.Order]("create"), also: next},
		"the status of the Order":   {rule: cluster.WriteOf[*cmacme.Order]("status"), event: "StatusNotWritten"},
		"a Challenge":               {rule: cluster.WriteOf[*cmacme.Challenge]("create"), also: next},
		"the status of a Challenge": {rule: cluster.WriteOf[*cmacme.Challenge]("status"), event: "StatusNotWritten"},
		"the finalizer":             {rule: func(w cluster.Write) bool { return w.Verb == "apply" && w.Object != nil }, also: next},
		"the deletion of a Challenge": {rule: cluster.WriteOf[*cmacme.Challenge]("delete"), event: "CleanUpError",
			late: true},
		"the end of the finalizer": {rule: cluster.WriteOf[*cmacme.Challenge]("patch"), event: "CleanUpError", late: true},
	} {
		t.Run(name, func(t *testing.T) {
			var refusal cluster.Refusal
			refusal.Begin(test.rule)
			clock := &cluster.Clock{}
			clock.Step(time.Minute) // what is made now is pending for long already
			r := start(t, pebble.Options{}, func(o *controller.Options) {
				o.WrapClient, o.Clock = refusal.Wrap, clock
			})
			r.issuer()
			crt := r.certificate("site", "www.example.com")
			if test.late {
				r.ready(crt)
			}
			if test.event != "" {
				r.eventually("an event has the refusal", func() bool {
					return strings.Contains(strings.Join(r.events(test.event), "\n"), cluster.RefusedBecause)
				})
			} else {
				words := append([]string{cluster.RefusedBecause}, test.also...)
				cluster.IssuingSays(t, r.admin, client.ObjectKeyFromObject(crt), words...)
				if out := r.statusAt(clock, "site"); !strings.Contains(out, cluster.RefusedBecause) {
					t.Errorf("perennial status does not have the refusal:\n%s", out)
				}
			}
			if n := refusal.Count(); n > 10 {
				t.Errorf("tried %d times in a moment", n)
			}
			refusal.End()
			r.ready(crt)
			r.eventually("the Challenges are gone", r.noChallenges)
		})
	}
}

// writesLimits matches a write of the ConfigMap with the rate-limit usage.
func writesLimits(w cluster.Write) bool {
	_, is := w.Object.(*corev1.ConfigMap)
	return is && strings.HasPrefix(w.Name, "perennial-acme-limits-")
}

// TestNoOrderIsSentThatCannotBeCounted refuses the writes of the rate-limit usage.
func TestNoOrderIsSentThatCannotBeCounted(t *testing.T) {
	r, saw, site := limited(t)
	var refusal cluster.Refusal
	refusal.Begin(writesLimits)
	clock := &cluster.Clock{}
	clock.Step(time.Minute) // what is made now is pending for long already
	run := r.run(controller.Options{WrapClient: refusal.Wrap, Clock: clock}, site)
	r.issuer(func(spec *cmacme.ACMEIssuer) {
		spec.RateLimits = &cmacme.ACMERateLimits{CertificatesPerRegisteredDomain: &cmacme.ACMERateLimit{
			Count: 1, Period: &metav1.Duration{Duration: time.Hour}}}
	})
	first := r.certificate("first", "www.example.com")
	message := r.waits("first", "the controller cannot save the rate-limit usage of "+r.ca.Directory,
		"sends no order without it", cluster.RefusedBecause, "Change what refuses it", "tried again within 2 minutes")
	if strings.Contains(message, "perennial-acme-limits-") {
		t.Errorf("the user reads the name of an object of the controller's namespace: %q", message)
	}
	if out := r.statusAt(clock, "first"); !strings.Contains(out, cluster.RefusedBecause) {
		t.Errorf("perennial status does not have the refusal:\n%s", out)
	}
	if orders, _ := saw.counts(); orders != 0 || refusal.Count() > 10 {
		t.Errorf("%d orders were sent, after %d refused writes", orders, refusal.Count())
	}
	refusal.End()
	r.ready(first)

	// The order is counted.
	r.certificate("second", "mail.example.com")
	r.waits("second", "waits until ", "example.com")
	if orders, _ := saw.counts(); orders != 1 {
		t.Errorf("%d orders were sent, and the limit is 1", orders)
	}
	if err := run.Stop(); err != nil {
		t.Fatal(err)
	}
}

// patchesFinalizer matches a patch of an object of a type that leaves it with the finalizer for
// revocation, or without.
func patchesFinalizer[T client.Object](with bool) func(cluster.Write) bool {
	return func(w cluster.Write) bool {
		return cluster.WriteOf[T]("patch")(w) && slices.Contains(w.Object.GetFinalizers(), revoking.Finalizer) == with
	}
}

// TestEachRefusedFinalizerForRevocationIsReported refuses to add the finalizer to an Order, to
// remove it, and to remove that of the Certificate.
func TestEachRefusedFinalizerForRevocationIsReported(t *testing.T) {
	var refusal cluster.Refusal
	refusal.Begin(cluster.WriteOf[*cmacme.Challenge]("create"))
	clock, seen := &cluster.Clock{}, &registrar{}
	clock.Step(time.Minute) // what is made now is pending for long already
	r := start(t, pebble.Options{Wrap: seen.wrap}, func(o *controller.Options) {
		o.WrapClient, o.Clock = refusal.Wrap, clock
	})
	r.issuer()
	crt := r.certificate("site", "www.example.com")
	name := client.ObjectKeyFromObject(crt)
	cluster.IssuingSays(t, r.admin, name, cluster.RefusedBecause)
	// The order is under way, and now the user asks for revocation.
	cluster.Eventually(t, func() error {
		if err := r.admin.Get(t.Context(), name, crt); err != nil {
			return err
		}
		crt.Spec.Revocation = &cmapi.CertificateRevocation{OnDelete: true}
		return r.admin.Update(t.Context(), crt)
	})
	r.eventually("the Certificate has its finalizer", func() bool {
		return r.admin.Get(t.Context(), name, crt) == nil && slices.Contains(crt.Finalizers, revoking.Finalizer)
	})
	seldom := func() {
		t.Helper()
		if n := refusal.Count(); n > 10 {
			t.Errorf("tried %d times in a moment", n)
		}
	}
	reports := func(kind string) {
		t.Helper()
		r.eventually("an event of the "+kind+" has the refusal", func() bool {
			return slices.ContainsFunc(r.eventsOf(kind, "CleanUpError"), func(message string) bool {
				return strings.Contains(message, "its finalizer cannot be removed: ") &&
					strings.Contains(message, cluster.RefusedBecause) && strings.Contains(message, "Change what refuses it") &&
					strings.Contains(message, "tried again within 2 minutes")
			})
		})
	}

	refusal.Begin(patchesFinalizer[*cmacme.Order](true))
	cluster.IssuingSays(t, r.admin, name, "write finalizer: ", cluster.RefusedBecause, "Change what refuses it",
		"tried again within 2 minutes")
	seldom()

	refusal.Begin(patchesFinalizer[*cmacme.Order](false))
	r.ready(crt)
	reports("Order")
	seldom()
	refusal.End()
	r.eventually("the Order has no finalizer", func() bool {
		var list cmacme.OrderList
		return r.admin.List(t.Context(), &list, client.InNamespace(r.namespace)) == nil && len(list.Items) == 1 &&
			len(list.Items[0].Finalizers) == 0
	})

	refusal.Begin(patchesFinalizer[*cmapi.Certificate](false))
	r.delete(crt)
	reports("Certificate")
	seldom()
	refusal.End()
	r.gone(crt)
	seen.mu.Lock()
	defer seen.mu.Unlock()
	if len(seen.asked) != 1 {
		t.Errorf("the CA was asked to revoke %d certificates, want 1", len(seen.asked))
	}
}

// TestACertificateReportsWhyItsChallengeCannotBeSetUp has no Secret for the solver of a name, while
// the issuer has another solver and is ready.
func TestACertificateReportsWhyItsChallengeCannotBeSetUp(t *testing.T) {
	clock := &cluster.Clock{}
	clock.Step(time.Minute)
	r := start(t, pebble.Options{}, func(o *controller.Options) { o.Clock = clock })
	r.issuer(func(spec *cmacme.ACMEIssuer) {
		spec.Solvers = append(spec.Solvers, cmacme.ACMEChallengeSolver{
			Selector: &cmacme.CertificateDNSNameSelector{DNSNames: []string{"www.example.com"}},
			DNS01: &cmacme.ACMEChallengeSolverDNS01{Nameservers: []string{r.names.Addr},
				RFC2136: &cmacme.ACMEIssuerDNS01ProviderRFC2136{
					Nameserver: r.names.Addr, TSIGKeyName: tsigKey, TSIGAlgorithm: "HMACSHA256",
					TSIGSecret: *selector("tsig", "key")}},
		})
	})
	crt := r.certificate("site", "www.example.com")
	cluster.IssuingSays(t, r.admin, client.ObjectKeyFromObject(crt), "DNS-01 of www.example.com: ", "tsig",
		"does not exist: create it", " (pending since ",
		"It is tried again within 5 minutes, and when the issuer changes")
	r.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "tsig"}, StringData: map[string]string{"key": tsigSecret}})
	r.ready(crt)
}
