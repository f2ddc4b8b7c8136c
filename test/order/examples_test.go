package order_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/internet"
	"github.com/perennial-pki/perennial/test/pebble"
)

// example creates the objects of an example file in the namespace of the rig, after replacing the
// words, and with the rig's CA as the server of issuers. Their DNS-01 solvers use the rig's name
// server, unless they name another. It returns the last object, a Certificate.
func (r *rig) example(file string, words ...string) *cmapi.Certificate {
	r.t.Helper()
	content, err := os.ReadFile(filepath.Join("../../examples", file))
	if err != nil {
		r.t.Fatal(err)
	}
	return r.named(
		internet.Apply(
			r.t,
			r.admin,
			strings.NewReplacer(words...).Replace(string(content)),
			func(u *unstructured.Unstructured) {
				u.SetNamespace(r.namespace)
				internet.At(r.ca, u)
				solvers, _, _ := unstructured.NestedFieldNoCopy(u.Object, "spec", "acme", "solvers")
				all, _ := solvers.([]any)
				for _, solver := range all {
					if dns, is := solver.(map[string]any)["dns01"].(map[string]any); is && dns["nameservers"] == nil {
						dns["nameservers"] = []any{r.names.Addr}
					}
				}
			},
		).Name,
	)
}

// named returns an existing Certificate.
func (r *rig) named(name string) *cmapi.Certificate {
	return &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: name}}
}

func TestTheExampleOfAnExternalAccountSaysHowLongAndUntilWhen(t *testing.T) {
	t.Parallel()
	f := &front{}
	r, options := shop(t, f, pebble.Options{ExternalAccounts: map[string]string{"kid-1": macKey}})
	cluster.Run(t, options)
	crt := r.example("acme-options/external-account.yaml", "${MAC_KEY}", macKey, "${KEY_ID}", "kid-1")
	r.ready(crt)
	var orders cmacme.OrderList
	if err := r.admin.List(t.Context(), &orders, client.InNamespace(r.namespace)); err != nil {
		t.Fatal(err)
	}
	if len(orders.Items) != 1 || crt.Status.NotAfter.Sub(orders.Items[0].CreationTimestamp.Time) != 720*time.Hour {
		t.Errorf("the certificate ends at %s:\n%s", crt.Status.NotAfter, r.story())
	}
	// So long before its end as renewBefore says, or up to twelve hours earlier, as each Certificate
	// has a moment of its own.
	if at := crt.Status.RenewalTime; at == nil || crt.Status.NotAfter.Sub(at.Time) < 240*time.Hour ||
		crt.Status.NotAfter.Sub(at.Time) > 252*time.Hour {
		t.Errorf("the certificate that ends at %s is renewed at %s", crt.Status.NotAfter, at)
	}
	if n := f.asked(pathRenewalInfo); n > 0 || crt.Status.ACME != nil {
		t.Errorf("the CA was asked %d times when it would like to renew, and the status has %+v", n, crt.Status.ACME)
	}
}

func TestTheExampleChoosesAChainAndProfiles(t *testing.T) {
	t.Parallel()
	const usual, short = 90 * 24 * time.Hour, 160 * time.Hour
	r, options := shop(t, &front{}, pebble.Options{AlternateRoots: 1, Profiles: map[string]ca.Profile{
		"tlsserver": {
			Description:    "90 days",
			ValidityPeriod: uint64(usual.Seconds()),
		},
		"shortlived": {Description: "160 hours", ValidityPeriod: uint64(short.Seconds())},
	}})
	roots, err := r.ca.Roots()
	if err != nil {
		t.Fatal(err)
	}
	cluster.Run(t, options)
	last := r.example("acme-options/chain-and-profile.yaml", "ISRG Root X1", roots[1].Subject.CommonName)
	for crt, life := range map[*cmapi.Certificate]time.Duration{r.named("usual"): usual, last: short} {
		r.ready(crt)
		if got := crt.Status.NotAfter.Sub(crt.Status.NotBefore.Time); got.Round(time.Hour) != life {
			t.Errorf("%s lives for %s", crt.Name, got)
		}
		key := client.ObjectKey{Namespace: r.namespace, Name: crt.Spec.SecretName}
		chain, _ := cluster.Pair(t, key)
		top := chain[len(chain)-1]
		if top.Issuer.CommonName != roots[1].Subject.CommonName {
			t.Errorf("the chain of %s leads to %s", crt.Name, top.Issuer)
		}
		secret := &corev1.Secret{}
		if err := r.admin.Get(t.Context(), key, secret); err != nil {
			t.Fatal(err)
		}
		if got := secret.Data[cmmeta.TLSCAKey]; !bytes.Equal(got, pki.EncodeCertificatePEM(top)) {
			t.Errorf("ca.crt of %s is %q", crt.Name, got)
		}
	}
}

func TestTheExampleOfDelegatedNamesWaitsAsItsSolversSay(t *testing.T) {
	clock := &cluster.Clock{}
	r := start(t, pebble.Options{}, func(o *controller.Options) { o.Clock = clock })
	// What the office has never gets the record.
	office, err := dnsserver.Start(dnsserver.Options{Zones: []string{"example.com", "delegated.example"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(office.Close)
	places := map[string]string{
		"example.com":        "com.example.challenges.delegated.example",
		"office.example.com": "com.example.office.challenges.delegated.example",
	}
	for _, names := range []*dnsserver.Server{r.names, office} {
		for name, place := range places {
			names.CNAME("_acme-challenge."+name, place)
		}
	}
	inside := r.example(
		"acme-options/delegated.yaml",
		"ns1.example.net:53",
		r.names.Addr,
		"${TSIG_SECRET}",
		tsigSecret,
		"      dns01:\n",
		"      dns01:\n        nameservers: [\""+office.Addr+"\"]\n",
		"waitForRecordToPropagate: 30s",
		"waitForRecordToPropagate: 20m",
		"waitInsteadOfSelfCheck: 2m",
		"waitInsteadOfSelfCheck: 50m",
	)
	r.says("Waiting after the proof could be seen: 20m0s", "Waiting instead of a self check: 50m0s")
	for name, place := range places {
		if got := r.names.TXT(place); len(got) != 1 {
			t.Errorf("where the CNAME of %s leads there is %q", name, got)
		}
	}
	pass := func(d time.Duration) {
		t.Helper()
		clock.Step(d)
		var list cmacme.ChallengeList
		if err := r.admin.List(t.Context(), &list, client.InNamespace(r.namespace)); err != nil {
			t.Fatal(err)
		}
		for i := range list.Items {
			r.nudge(&list.Items[i])
		}
	}
	pass(21 * time.Minute) // all within the hour that the CA gives an authorization
	r.ready(r.named("delegated"))
	r.says("Waiting instead of a self check: 50m0s")
	pass(30 * time.Minute)
	r.ready(inside)
}
