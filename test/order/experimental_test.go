package order_test

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// accountURL returns the account URL of the issuer.
func (r *rig) accountURL() string {
	r.t.Helper()
	issuer := &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "pebble"}}
	cluster.Eventually(r.t, func() error {
		if err := r.admin.Get(r.t.Context(), client.ObjectKeyFromObject(issuer), issuer); err != nil {
			return err
		}
		if issuer.Status.ACME == nil || issuer.Status.ACME.URI == "" {
			return cluster.NotYet("there is no account: %+v", issuer.Status)
		}
		return nil
	})
	return issuer.Status.ACME.URI
}

// of changes the challenge type of an issuer's DNS-01 solver.
func of(
	kind cmacme.DNS01ChallengeType,
	change func(*cmacme.ACMEIssuer),
	more ...func(*cmacme.ACMEChallengeSolverDNS01),
) func(*cmacme.ACMEIssuer) {
	return func(spec *cmacme.ACMEIssuer) {
		change(spec)
		spec.Solvers[0].DNS01.ChallengeType = kind
		for _, f := range more {
			f(spec.Solvers[0].DNS01)
		}
	}
}

func TestEachAccountHasARecordOfItsOwnByDNSAccount01(t *testing.T) {
	r := start(t, pebble.Options{})
	r.issuer(of(cmacme.DNS01ChallengeTypeDNSAccount01, r.byDNS(cmacme.FollowStrategy)))
	record := acme.DNSAccount01Name(r.accountURL(), "example.com")
	// Another cluster has the usual name, and ours is behind a CNAME of its own.
	r.names.CNAME("_acme-challenge.example.com", "other.delegated.example")
	r.names.CNAME(record, "ours.delegated.example")
	r.names.AddTXT("ours.delegated.example", "another client's")
	r.ready(r.certificate("wildcard", "*.example.com", "example.com"))
	cluster.Eventually(t, func() error {
		if got := r.names.TXT("ours.delegated.example"); len(got) != 1 || got[0] != "another client's" {
			return cluster.NotYet("the zone has %q", got)
		}
		return nil
	})
	if got := r.names.Updates(); len(got) != 4 ||
		slices.ContainsFunc(got, func(name string) bool { return name != "ours.delegated.example." }) {
		t.Errorf("updated were %q", got)
	}
	// A name that is not behind a CNAME has its record in its own zone.
	r.ready(r.certificate("plain", "www.example.com"))
	if got := r.names.Updates()[4:]; len(got) == 0 ||
		got[0] != acme.DNSAccount01Name(r.accountURL(), "www.example.com")+"." {
		t.Errorf("updated were %q", got)
	}
}

func TestAPersistentRecordIsMadeOnceByDNSPersist01(t *testing.T) {
	r := start(t, pebble.Options{})
	const record = "_validation-persist.example.com"
	others := "pebble.letsencrypt.org; accounturi=https://127.0.0.1/another; policy=wildcard"
	r.names.AddTXT(record, others)
	until := metav1.NewTime(time.Now().AddDate(1, 0, 0).Truncate(time.Second))
	r.issuer(
		of(
			cmacme.DNS01ChallengeTypeDNSPersist01,
			r.byDNS(""),
			func(spec *cmacme.ACMEChallengeSolverDNS01) { spec.PersistUntil = &until },
		),
	)
	name := fmt.Sprintf("pebble.letsencrypt.org; accounturi=%s; persistUntil=%d", r.accountURL(), until.Unix())
	wildcard := fmt.Sprintf(
		"pebble.letsencrypt.org; accounturi=%s; policy=wildcard; persistUntil=%d",
		r.accountURL(),
		until.Unix(),
	)
	challengesGone := func() {
		t.Helper()
		cluster.Eventually(t, func() error {
			var list cmacme.ChallengeList
			if err := r.admin.List(t.Context(), &list, client.InNamespace(r.namespace)); err != nil {
				return err
			}
			if len(list.Items) > 0 {
				return cluster.NotYet("there are Challenges left:\n%s", r.story())
			}
			return nil
		})
	}
	stands := func(want ...string) {
		t.Helper()
		challengesGone()
		if got := r.names.TXT(record); !slices.Equal(got, append([]string{others}, want...)) {
			t.Errorf("the zone has %q", got)
		}
	}
	r.ready(r.certificate("first", "example.com"))
	stands(name)
	// What stands is enough, now and for other certificates.
	r.ready(r.certificate("second", "example.com"))
	stands(name)
	if got := r.names.Updates(); len(got) != 1 {
		t.Errorf("updated were %q", got)
	}
	// It is not for wildcards.
	r.ready(r.certificate("third", "*.example.com", "example.com"))
	stands(name, wildcard)

	// The account keeps its URL with another key, and so the record counts.
	next, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := pki.EncodeKeyPEM(next, pki.PKCS8)
	if err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "account"}}
	cluster.Eventually(t, func() error {
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(secret), secret); err != nil {
			return err
		}
		secret.Data["tls.key.next"] = encoded
		return r.admin.Update(t.Context(), secret)
	})
	cluster.Eventually(t, func() error {
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(secret), secret); err != nil {
			return err
		}
		if string(secret.Data["tls.key"]) != string(encoded) {
			return cluster.NotYet("the account has the old key")
		}
		return nil
	})
	r.ready(r.certificate("fourth", "*.example.com", "example.com"))
	stands(name, wildcard)
	if got := r.names.Updates(); len(got) != 2 {
		t.Errorf("updated were %q", got)
	}
}

func TestARecordOfDNSPersist01CanBeMadeByHand(t *testing.T) {
	const name = "_validation-persist.example.com"
	for how, test := range map[string]struct {
		strategy cmacme.CNAMEStrategy
		at       string
	}{"at the name": {"", name}, "where its CNAME leads": {cmacme.FollowStrategy, "validation.delegated.example"}} {
		t.Run(how, func(t *testing.T) {
			r := start(t, pebble.Options{})
			if test.at != name {
				r.names.CNAME(name, test.at)
			}
			r.issuer(
				of(
					cmacme.DNS01ChallengeTypeDNSPersist01,
					r.byDNS(test.strategy),
					func(spec *cmacme.ACMEChallengeSolverDNS01) { spec.RFC2136 = nil },
				),
			)
			account := r.accountURL()
			crt := r.certificate("wildcard", "*.example.com")
			value := "pebble.letsencrypt.org; accounturi=" + account + "; policy=wildcard"
			cluster.Eventually(t, func() error {
				story := r.story()
				if says := fmt.Sprintf(
					"create the TXT record %s with the value %q",
					test.at,
					value,
				); !strings.Contains(
					story,
					says,
				) {
					return cluster.NotYet("it does not say %q:\n%s", says, story)
				}
				return nil
			})
			// A person creates it, in an equivalent spelling.
			r.names.AddTXT(test.at, "pebble.letsencrypt.org;policy=WILDCARD;accounturi="+account)
			r.ready(crt)
			if got := r.names.Updates(); len(got) > 0 {
				t.Errorf("updated were %q", got)
			}
		})
	}
}

func TestDNSAccount01ByAcmeDNSAndByAProvider(t *testing.T) {
	r := start(t, pebble.Options{}, ownMachine)
	_, address := r.powerDNS("good-key")
	r.create(
		&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: "powerdns"},
			StringData: map[string]string{"apiKey": "good-key", "host": address},
		},
	)
	server := startACMEDNS(t, r.names)
	server.Show()
	r.create(
		&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: "accounts"},
			StringData: map[string]string{"json": server.Accounts("away.example.com")},
		},
	)
	account := func(solver *cmacme.ACMEChallengeSolverDNS01) {
		solver.ChallengeType = cmacme.DNS01ChallengeTypeDNSAccount01
	}
	r.issuer(of(cmacme.DNS01ChallengeTypeDNSAccount01, r.byProvider("pdns", "")), func(spec *cmacme.ACMEIssuer) {
		spec.Solvers[0].DNS01.Provider.SecretRef = &cmmeta.LocalObjectReference{Name: "powerdns"}
		away := cmacme.ACMEChallengeSolver{
			Selector: &cmacme.CertificateDNSNameSelector{DNSNames: []string{"away.example.com"}},
			DNS01: &cmacme.ACMEChallengeSolverDNS01{
				Nameservers: []string{r.names.Addr},
				AcmeDNS: &cmacme.ACMEIssuerDNS01ProviderAcmeDNS{
					Host: server.url,
					AccountSecret: cmmeta.SecretKeySelector{
						LocalObjectReference: cmmeta.LocalObjectReference{Name: "accounts"},
						Key:                  "json",
					},
				},
			},
		}
		account(away.DNS01)
		spec.Solvers = append(spec.Solvers, away)
	})
	r.names.CNAME(acme.DNSAccount01Name(r.accountURL(), "away.example.com"), fullDomain)
	record := acme.DNSAccount01Name(r.accountURL(), "example.com")
	r.names.AddTXT("_acme-challenge.example.com", "another account's")
	r.ready(r.certificate("wildcard", "*.example.com", "example.com"))
	r.ready(r.certificate("away", "away.example.com"))
	r.eventually("the zone is as it was", func() bool { return len(r.names.TXT(record)) == 0 })
	if got := r.names.TXT("_acme-challenge.example.com"); !slices.Equal(got, []string{"another account's"}) {
		t.Errorf("the usual name has %q", got)
	}
	if got := r.events("CleanUpError"); len(got) > 0 {
		t.Errorf("the events are %q", got)
	}
}
