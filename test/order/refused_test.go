package order_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/cli"
	"github.com/perennial-pki/perennial/internal/controller"
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
		"the Order":                 {rule: cluster.WriteOf[*cmacme.Order]("create")},
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
