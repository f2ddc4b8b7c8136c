package order_test

import (
	"encoding/json"
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
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/pebble"
)

// acmeDNS is a server of acme-dns with one account. As the real one it has two values, and an update replaces the one that was set before
// the other. Its DNS side shows them when it is published.
type acmeDNS struct {
	*httptest.Server
	names *dnsserver.Server

	mu        sync.Mutex
	rows      [2]string // the older first
	published bool
	// kills ends a process at one of its updates, counted from 1; after says that the update counts all the same. Nobody is answered until it is
	// cleared.
	kills func()
	at    int
	after bool
	dead  bool
}

const fullDomain = "d420c923-bbd7-4056-ab64-c3ca54c9b3cf.delegated.example"

func startACMEDNS(t *testing.T, names *dnsserver.Server) *acmeDNS {
	t.Helper()
	a := &acmeDNS{names: names}
	a.Server = httptest.NewServer(a)
	t.Cleanup(a.Close)
	return a
}

func (a *acmeDNS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var update struct{ Subdomain, TXT string }
	if err := json.NewDecoder(r.Body).Decode(&update); err != nil || r.URL.Path != "/update" || len(update.TXT) != 43 ||
		r.Header.Get("X-Api-User") != "user" || r.Header.Get("X-Api-Key") != "password" || update.Subdomain+".delegated.example" != fullDomain {
		http.Error(w, `{"error": "forbidden"}`, http.StatusUnauthorized)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.dead {
		panic(http.ErrAbortHandler)
	}
	a.at--
	dies := a.at == 0 && a.kills != nil
	if !dies || a.after {
		a.rows = [2]string{a.rows[1], update.TXT}
		a.show()
	}
	if dies {
		a.dead = true
		a.kills()
		panic(http.ErrAbortHandler)
	}
	fmt.Fprintf(w, `{"txt": %q}`, update.TXT)
}

// show gives the values to the DNS side. The lock must be held.
func (a *acmeDNS) show() {
	if a.published {
		a.names.SetTXT(fullDomain, slices.DeleteFunc(slices.Clone(a.rows[:]), func(v string) bool { return v == "" })...)
	}
}

func (a *acmeDNS) publish() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.published = true
	a.show()
}

// shared is a name that two namespaces have certificates of, by one account of acme-dns.
type shared struct {
	*rig
	server       *acmeDNS
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
	s := &shared{rig: &rig{t: t, ca: ca, names: names, admin: cluster.Admin(t), namespace: cluster.Namespace(t)}, server: startACMEDNS(t, names)}
	for _, namespace := range []string{s.namespace, cluster.Namespace(t)} {
		r := *s.rig
		r.namespace = namespace
		r.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "accounts"}, StringData: map[string]string{"json": fmt.Sprintf(
			`{"example.com": {"username": "user", "password": "password", "fulldomain": %q, "subdomain": %q}}`, fullDomain, strings.Split(fullDomain, ".")[0])}})
		r.issuer(func(spec *cmacme.ACMEIssuer) {
			spec.Solvers = []cmacme.ACMEChallengeSolver{{DNS01: &cmacme.ACMEChallengeSolverDNS01{
				Nameservers: []string{names.Addr}, AcmeDNS: &cmacme.ACMEIssuerDNS01ProviderAcmeDNS{
					Host: s.server.URL, AccountSecret: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "accounts"}, Key: "json"},
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

// challenges are those of both namespaces that are there.
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
	// Of the four two are presented. The others say for whom they wait.
	cluster.Eventually(t, func() error {
		all, err := s.challenges()
		if err != nil {
			return err
		}
		standing, waiting := map[string]bool{}, map[string]string{}
		for _, ch := range all {
			switch name := ch.Namespace + "/" + ch.Name; {
			case ch.Status.Presented:
				standing[name] = true
			case strings.Contains(ch.Status.Reason, "turn"):
				waiting[name] = ch.Status.Reason
			}
			if place := ch.Status.EffectiveName; place != "" && place != fullDomain+"." {
				t.Errorf("the record is at %q", place)
			}
		}
		if len(standing) > 2 {
			t.Errorf("%d are presented", len(standing))
		}
		if len(standing) < 2 || len(waiting) < 2 {
			return cluster.NotYet("%v are presented, and %v wait", slices.Collect(maps.Keys(standing)), waiting)
		}
		for _, why := range waiting {
			for name := range standing {
				if !strings.Contains(why, name) || !strings.Contains(why, "Waiting for its turn at "+fullDomain+", where the DNS provider can have only 2 values at once") {
					return cluster.NotYet("while %s is presented, another says %q", name, why)
				}
			}
		}
		return nil
	})
	s.server.publish()
	s.allReady()
}

func TestTurnsSurviveAKill(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := 1; n <= 4; n++ { // there are four challenges, each of which needs one at least
			t.Run(fmt.Sprintf("at update %d, after it: %t", n, after), func(t *testing.T) {
				s := shareName(t)
				life := cluster.NewLife(math.MaxInt, false)
				s.server.kills, s.server.at, s.server.after = life.End, n, after
				s.server.publish()
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
