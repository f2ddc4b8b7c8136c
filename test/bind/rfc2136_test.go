package bind_test

import (
	"context"
	"fmt"
	"net"
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
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/bind"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// tsigSecret is the secret of all keys.
const tsigSecret = "c2VjcmV0LW9mLXRoZS10c2lnLWtleS1mb3ItdGVzdHM="

// keys are those that the server knows.
var keys = func() string {
	var b strings.Builder
	for _, algorithm := range []string{"hmac-md5", "hmac-sha1", "hmac-sha256", "hmac-sha512"} {
		fmt.Fprintf(&b, "key %q { algorithm %s; secret %q; };\n", algorithm, algorithm, tsigSecret)
	}
	return b.String()
}()

// zone is a zone with name servers at 192.0.2.1 and so on, which all keys may update.
func zone(servers int, more ...string) bind.Zone {
	z := bind.Zone{
		Name:     "example.com",
		Records:  "$TTL 60\n@ IN SOA ns1 hostmaster 1 86400 86400 864000 1\n",
		Settings: `allow-update { key "hmac-md5"; key "hmac-sha1"; key "hmac-sha256"; key "hmac-sha512"; };`,
	}
	for i := range servers {
		z.Records += fmt.Sprintf("@ IN NS ns%d\nns%d IN A 192.0.2.%d\n", i+1, i+1, i+1)
	}
	z.Records += strings.Join(more, "\n") + "\n"
	return z
}

// rig is a CA, and a controller whose issuers update the primary.
type rig struct {
	*testing.T
	ca        *pebble.Server
	admin     client.WithWatch
	namespace string
	primary   *bind.Server
}

// start starts a CA that asks one server, and a controller that finds zones by another. The servers
// of zones are at 192.0.2.1 and so on; the first is the primary.
func start(t *testing.T, asks, finds *bind.Server, servers ...*bind.Server) *rig {
	t.Helper()
	return startAt(t, clock.RealClock{}, asks, finds, servers...)
}

// startAt is start with a clock.
func startAt(t *testing.T, now clock.Clock, asks, finds *bind.Server, servers ...*bind.Server) *rig {
	t.Helper()
	r := withCA(t, asks, servers[0])
	cluster.Run(t, controller.Options{
		Namespace:   r.namespace,
		Clock:       now,
		Nameservers: []string{finds.Addr}, // what other tests left behind would ask, and resolvers remember
		DialNameservers: func(ctx context.Context, network, address string) (net.Conn, error) {
			for i, s := range servers {
				if address == fmt.Sprintf("192.0.2.%d:53", i+1) {
					address = s.Addr
				}
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	})
	return r
}

// withCA starts a CA that asks a server, and no controller.
func withCA(t *testing.T, asks, primary *bind.Server) *rig {
	t.Helper()
	ca, err := pebble.Start(pebble.Options{Resolver: asks.Addr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close() })
	r := &rig{T: t, ca: ca, admin: cluster.Admin(t), namespace: cluster.Namespace(t), primary: primary}
	r.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "tsig"}, StringData: map[string]string{"key": tsigSecret}})
	return r
}

// in is the rig for a part of its test.
func (r *rig) in(t *testing.T) *rig {
	part := *r
	part.T = t
	return &part
}

func (r *rig) create(o client.Object) {
	r.Helper()
	o.SetNamespace(r.namespace)
	if err := r.admin.Create(r.Context(), o); err != nil {
		r.Fatal(err)
	}
}

// updates are the settings of a solver with the key of an algorithm, as the API calls it.
func (r *rig) updates(
	algorithm string,
	change ...func(*cmacme.ACMEIssuerDNS01ProviderRFC2136),
) *cmacme.ACMEIssuerDNS01ProviderRFC2136 {
	p := &cmacme.ACMEIssuerDNS01ProviderRFC2136{
		Nameserver:    r.primary.Addr,
		TSIGKeyName:   "hmac-" + strings.ToLower(strings.TrimPrefix(algorithm, "HMAC")),
		TSIGAlgorithm: algorithm,
		TSIGSecret:    cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "tsig"}, Key: "key"},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func (r *rig) issuer(name string, solvers ...cmacme.ACMEChallengeSolver) {
	r.Helper()
	r.create(
		&cmapi.Issuer{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{ACME: &cmacme.ACMEIssuer{
				Server: r.ca.Directory, CABundle: r.ca.CABundle, Solvers: solvers,
				PrivateKey: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "account"}},
			}}},
		},
	)
}

func (r *rig) certificate(issuer, name string, dnsNames ...string) *cmapi.Certificate {
	r.Helper()
	crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: cmapi.CertificateSpec{
		SecretName: name, DNSNames: dnsNames, IssuerRef: cmmeta.IssuerReference{Name: issuer},
		PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
	}}
	r.create(crt)
	return crt
}

func (r *rig) ready(crt *cmapi.Certificate) {
	r.Helper()
	cluster.Eventually(r, func() error {
		if err := r.admin.Get(r.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		if c := cmapi.GetCertificateCondition(
			&crt.Status,
			cmapi.CertificateConditionReady,
		); c == nil ||
			c.Status != cmmeta.ConditionTrue {
			return cluster.NotYet(
				"Certificate %s is not Ready: %+v, challenges say %q",
				crt.Name,
				crt.Status.Conditions,
				r.reasons(""),
			)
		}
		return nil
	})
}

// reasons are what the Challenges of a name say, or all.
func (r *rig) reasons(dnsName string) string {
	r.Helper()
	var list cmacme.ChallengeList
	if err := r.admin.List(r.Context(), &list, client.InNamespace(r.namespace)); err != nil {
		r.Fatal(err)
	}
	var all []string
	for _, ch := range list.Items {
		if dnsName == "" || ch.Spec.DNSName == dnsName {
			all = append(all, ch.Status.Reason)
		}
	}
	return strings.Join(all, "\n")
}

func (r *rig) says(dnsName string, parts ...string) {
	r.Helper()
	cluster.Eventually(r, func() error {
		for _, part := range parts {
			if said := r.reasons(dnsName); !strings.Contains(said, part) {
				return cluster.NotYet("%q is not in what the challenges of %s say: %s", part, dnsName, said)
			}
		}
		return nil
	})
}

// has waits until a name has these TXT values and no others.
func (r *rig) has(name string, values ...string) {
	r.Helper()
	cluster.Eventually(r, func() error {
		if got := r.primary.TXT(r, name); !slices.Equal(got, values) {
			return cluster.NotYet("%s has %q", name, got)
		}
		return nil
	})
}

func TestEveryTSIGAlgorithmOverUDPAndTCP(t *testing.T) {
	primary := bind.Start(t, keys, zone(1, `_acme-challenge.hmacmd5-udp 3600 TXT "another client's"`))
	r := start(t, primary, primary, primary)
	var solvers []cmacme.ACMEChallengeSolver
	var names []string
	for _, algorithm := range []string{"HMACMD5", "HMACSHA1", "HMACSHA256", "HMACSHA512"} {
		for _, protocol := range []cmacme.RFC2136UpdateProtocol{
			cmacme.RFC2136UpdateProtocolUDP, cmacme.RFC2136UpdateProtocolTCP,
		} {
			name := strings.ToLower(fmt.Sprintf("%s-%s.example.com", algorithm, protocol))
			names = append(names, name)
			solvers = append(solvers, cmacme.ACMEChallengeSolver{
				Selector: &cmacme.CertificateDNSNameSelector{DNSNames: []string{name}},
				DNS01: &cmacme.ACMEChallengeSolverDNS01{
					RFC2136: r.updates(algorithm, func(p *cmacme.ACMEIssuerDNS01ProviderRFC2136) {
						p.Protocol = protocol
					}),
				},
			})
		}
	}
	r.issuer("bind", solvers...)
	var crts []*cmapi.Certificate
	for _, name := range names {
		crts = append(crts, r.certificate("bind", strings.ReplaceAll(name, ".", "-"), name))
	}
	for i, crt := range crts {
		r.ready(crt)
		if name := "_acme-challenge." + names[i]; names[i] == "hmacmd5-udp.example.com" {
			r.has(name, "another client's")
			if ttl := primary.TTL(t, name); ttl != 3600 {
				t.Errorf("another client's record has the TTL %d", ttl)
			}
		} else {
			r.has(name)
		}
	}
}

func TestASecondaryThatLagsIsWaitedForAndNamed(t *testing.T) {
	z := zone(2, `_acme-challenge TXT "another client's"`)
	primary := bind.Start(t, keys, z)
	z.Of = primary
	z.Settings = ""
	secondary := bind.Start(t, "", z)
	r := start(t, secondary, primary, primary, secondary) // the CA asks the one that lags: too early would be a failure
	r.issuer("bind", cmacme.ACMEChallengeSolver{DNS01: &cmacme.ACMEChallengeSolverDNS01{RFC2136: r.updates("HMACSHA256")}})
	crt := r.certificate("bind", "wildcard", "example.com", "*.example.com")
	const waits = `of the 2 name servers of example.com, 1 have the TXT record of _acme-challenge.example.com; ns2.example.com (192.0.2.2:53) still answers "another client's"`
	cluster.Eventually(t, func() error { // both, as both are presented at once
		if said := r.reasons("example.com"); strings.Count(said, waits) != 2 {
			return cluster.NotYet("the challenges say %s", said)
		}
		return nil
	})
	if got := primary.TXT(t, "_acme-challenge.example.com"); len(got) != 3 {
		t.Errorf("the primary has %q", got)
	}
	secondary.Notify(t, "example.com")
	r.ready(crt)
	r.has("_acme-challenge.example.com", "another client's")
}

func TestThereAreWaysAroundTheCheckAndToWaitAfterIt(t *testing.T) {
	z := zone(2)
	primary := bind.Start(t, keys, z)
	z.Of = primary
	z.Settings = ""
	secondary := bind.Start(t, "", z)
	r := start(t, primary, primary, primary, secondary)
	updates := &cmacme.ACMEChallengeSolverDNS01{RFC2136: r.updates("HMACSHA256")}
	r.issuer("unchecked", cmacme.ACMEChallengeSolver{DNS01: updates, WaitInsteadOfSelfCheck: &metav1.Duration{}})
	r.ready(r.certificate("unchecked", "unchecked", "unchecked.example.com")) // though the secondary has nothing

	r.issuer(
		"patient",
		cmacme.ACMEChallengeSolver{DNS01: updates, WaitForRecordToPropagate: &metav1.Duration{Duration: time.Hour}},
	)
	r.certificate("patient", "patient", "patient.example.com")
	r.says("patient.example.com", "ns2.example.com (192.0.2.2:53) still answers no TXT record")
	secondary.Notify(t, "example.com")
	r.says("patient.example.com", "Waiting after the proof could be seen: 1h0m0s, until ")
}

func TestASecondaryThatForwardsUpdatesWillDo(t *testing.T) {
	z := zone(1)
	primary := bind.Start(t, keys, z)
	z.Of, z.Settings = primary, "allow-update-forwarding { any; };"
	secondary := bind.Start(t, keys, z)
	r := start(t, primary, primary, primary)
	r.issuer(
		"bind",
		cmacme.ACMEChallengeSolver{
			DNS01: &cmacme.ACMEChallengeSolverDNS01{
				RFC2136: r.updates("HMACSHA256", func(p *cmacme.ACMEIssuerDNS01ProviderRFC2136) {
					p.Nameserver = secondary.Addr
				}),
			},
		},
	)
	r.ready(r.certificate("bind", "forwarded", "forwarded.example.com"))
	r.has("_acme-challenge.forwarded.example.com")
}
