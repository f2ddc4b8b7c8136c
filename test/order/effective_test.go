package order_test

import (
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/acmedns"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/pebble"
)

const fullDomain = "d420c923-bbd7-4056-ab64-c3ca54c9b3cf.delegated.example"

// mortal is an acme-dns server at which a process dies. From then on it answers no request, until
// it is cleared.
type mortal struct {
	*acmedns.Server
	url string

	mu sync.Mutex
	// kills ends a process at one of its updates, counted from 1; after says that the update counts
	// all the same.
	kills func()
	at    int
	after bool
	dead  bool
}

func startACMEDNS(t *testing.T, names *dnsserver.Server) *mortal {
	t.Helper()
	m := &mortal{Server: &acmedns.Server{User: "user", Password: "password", FullDomain: fullDomain, DNS: names}}
	server := httptest.NewServer(m)
	t.Cleanup(server.Close)
	m.url = server.URL
	return m
}

func (m *mortal) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		panic(http.ErrAbortHandler)
	}
	m.at--
	if m.at != 0 || m.kills == nil {
		m.Server.ServeHTTP(w, r)
		return
	}
	if m.after {
		m.Server.ServeHTTP(httptest.NewRecorder(), r)
	}
	m.dead = true
	m.kills()
	panic(http.ErrAbortHandler)
}

// shared is a name in the certificates of two namespaces, with one acme-dns account.
type shared struct {
	*rig
	server       *mortal
	certificates []*cmapi.Certificate
}

func shareName(t *testing.T) *shared {
	t.Helper()
	names, err := dnsserver.Start(dnsserver.Options{Zones: []string{"example.com", "delegated.example"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(names.Close)
	names.CNAME("_acme-challenge.example.com", fullDomain)
	ca, err := pebble.Start(pebble.Options{Resolver: names.Addr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close() })
	s := &shared{
		rig:    &rig{t: t, ca: ca, names: names, admin: cluster.Admin(t), namespace: cluster.Namespace(t)},
		server: startACMEDNS(t, names),
	}
	for _, namespace := range []string{s.namespace, cluster.Namespace(t)} {
		r := *s.rig
		r.namespace = namespace
		r.create(
			&corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Name: "accounts"},
				StringData: map[string]string{"json": s.server.Accounts("example.com")},
			},
		)
		r.issuer(func(spec *cmacme.ACMEIssuer) {
			spec.Solvers = []cmacme.ACMEChallengeSolver{{DNS01: &cmacme.ACMEChallengeSolverDNS01{
				Nameservers: []string{names.Addr}, AcmeDNS: &cmacme.ACMEIssuerDNS01ProviderAcmeDNS{
					Host: s.server.url,
					AccountSecret: cmmeta.SecretKeySelector{
						LocalObjectReference: cmmeta.LocalObjectReference{Name: "accounts"},
						Key:                  "json",
					},
				},
			}}}
		})
		s.certificates = append(s.certificates, r.certificate("a", "example.com"))
		if len(s.certificates) == 1 {
			s.certificates = append(s.certificates, r.certificate("b", "example.com", "*.example.com"))
		}
	}
	return s
}

// challenges returns the existing Challenges of both namespaces.
func (s *shared) challenges() ([]cmacme.Challenge, error) {
	var all []cmacme.Challenge
	for _, namespace := range []string{s.certificates[0].Namespace, s.certificates[2].Namespace} {
		var list cmacme.ChallengeList
		if err := s.admin.List(s.t.Context(), &list, client.InNamespace(namespace)); err != nil {
			return nil, err
		}
		all = append(all, list.Items...)
	}
	return all, nil
}

func (s *shared) allReady() {
	s.t.Helper()
	for _, crt := range s.certificates {
		r := *s.rig
		r.namespace = crt.Namespace
		r.ready(crt)
	}
	cluster.Eventually(s.t, func() error {
		left, err := s.challenges()
		if err == nil && len(left) > 0 {
			err = cluster.NotYet("there are %d Challenges left, of which one is %+v", len(left), left[0])
		}
		return err
	})
}

func TestChallengesTakeTurnsWhereFewValuesCanStand(t *testing.T) {
	s := shareName(t)
	cluster.Run(t, controller.Options{OwnMachine: true})
	// Two of the four are presented. The others say which Challenge they wait for.
	cluster.Eventually(t, func() error {
		all, err := s.challenges()
		if err != nil {
			return err
		}
		presented, waiting := map[string]bool{}, map[string]string{}
		for _, ch := range all {
			switch name := ch.Namespace + "/" + ch.Name; {
			case ch.Status.Presented:
				presented[name] = true
			case strings.Contains(ch.Status.Reason, "turn"):
				waiting[name] = ch.Status.Reason
			}
			if place := ch.Status.EffectiveName; place != "" && place != fullDomain+"." {
				t.Errorf("the record is at %q", place)
			}
		}
		if len(presented) > 2 {
			t.Errorf("%d are presented", len(presented))
		}
		if len(presented) < 2 || len(waiting) < 2 {
			return cluster.NotYet("%v are presented, and %v wait", slices.Collect(maps.Keys(presented)), waiting)
		}
		for waits, why := range waiting {
			namespace, _, _ := strings.Cut(waits, "/")
			for name := range presented {
				if err := namesAhead(t, namespace, name, why); err != nil {
					return err
				}
			}
		}
		return nil
	})
	s.server.Show()
	s.allReady()
}

// namesAhead expects of a Challenge of a namespace that it says why it waits for one that is
// presented: by its name if it is of the same namespace, and else without saying of which.
func namesAhead(t *testing.T, namespace, presented, why string) error {
	of, own, _ := strings.Cut(presented, "/")
	if of != namespace {
		if strings.Contains(why, of) {
			t.Errorf("a Challenge of %s says %q", namespace, why)
		}
		own = "of other namespaces"
	}
	turn := "Waiting for its turn at " + fullDomain + ", where the DNS provider can have only 2 values at once"
	if !strings.Contains(why, own) || !strings.Contains(why, turn) {
		return cluster.NotYet("while %s is presented, another says %q", presented, why)
	}
	return nil
}

func TestTurnsSurviveAKill(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := 1; n <= 4; n++ { // there are four challenges, each of which needs one at least
			t.Run(fmt.Sprintf("at update %d, after it: %t", n, after), func(t *testing.T) {
				s := shareName(t)
				life := cluster.NewLife(math.MaxInt, false)
				s.server.kills, s.server.at, s.server.after = life.End, n, after
				s.server.Show()
				first := cluster.Run(t, controller.Options{OwnMachine: true, WrapClient: life.Wrap})
				<-life.Died()
				if err := first.Stop(); err != nil {
					t.Fatal(err)
				}
				s.server.mu.Lock()
				s.server.dead = false
				s.server.mu.Unlock()
				cluster.Run(t, controller.Options{OwnMachine: true})
				s.allReady()
			})
		}
	}
}
