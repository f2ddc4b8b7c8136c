package http01

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/egress"
	"github.com/perennial-pki/perennial/internal/solver"
)

// site answers for port 80 of all addresses of names, except those that lead elsewhere.
func site(t *testing.T, addresses string, handler http.Handler, elsewhere map[string]string) solver.Site {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return solver.Site{
		Lookup: func(_ context.Context, host string) (list []netip.Addr, err error) {
			if host == "inside.example" {
				return []netip.Addr{netip.MustParseAddr("198.51.100.7")}, nil
			}
			for a := range strings.FieldsSeq(addresses) {
				list = append(list, netip.MustParseAddr(a))
			}
			return list, nil
		},
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			to, found := elsewhere[address]
			if !found {
				to = server.Listener.Addr().String()
			}
			var d net.Dialer
			return d.DialContext(ctx, network, to)
		},
	}
}

func TestASiteIsLookedAtAsACAWould(t *testing.T) {
	secured := httptest.NewTLSServer(
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "token.thumbprint\n") }),
	)
	t.Cleanup(secured.Close)
	other := httptest.NewServer(
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>\nanother host") }),
	)
	t.Cleanup(other.Close)
	says := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }
	}
	leads := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
	}
	const v4, v6 = "192.0.2.1", "2001:db8::1"
	unreachable := "127.0.0.1:1"
	for name, test := range map[string]struct {
		addresses string
		handler   http.HandlerFunc
		elsewhere map[string]string
		why       string // visible if empty
	}{
		"the proof":                         {v4, says("token.thumbprint"), nil, ""},
		"white space after it":              {v4, says("token.thumbprint \r\n"), nil, ""},
		"the proof, by IPv6":                {v6, says("token.thumbprint"), nil, ""},
		"something else":                    {v4, says("hello"), nil, `at 192.0.2.1 answers, but with something else ("hello")`},
		"more than a proof can be":          {v4, says(strings.Repeat("x", 1<<20)), nil, `answers, but with something else ("xxx`},
		"a header without end":              {v4, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) }, nil, "cannot be read"},
		"a status":                          {v4, http.NotFound, nil, "http://a.example.com/.well-known/acme-challenge/token at 192.0.2.1 answers with status 404"},
		"one address says something else":   {v4 + " " + v6, says("token.thumbprint"), map[string]string{"[2001:db8::1]:80": other.Listener.Addr().String()}, `at 2001:db8::1 answers, but with something else`},
		"one address cannot be reached":     {v4 + " " + v6, says("token.thumbprint"), map[string]string{"[2001:db8::1]:80": unreachable}, ""},
		"no address can be reached":         {v4, says(""), map[string]string{v4 + ":80": unreachable}, "connection refused"},
		"a redirect to https, not verified": {v4, leads("https://a.example.com/x"), map[string]string{v4 + ":443": secured.Listener.Addr().String()}, ""},
		"a redirect to another port": {v4, leads("http://a.example.com:8080/x"), nil, "redirected to port " +
			"8080, where ACME servers do not follow"},
		"a redirect in a circle":                   {v4, leads("/.well-known/acme-challenge/token"), nil, "more than 10 redirects"},
		"a redirect to a page that is not for all": {v4, leads("http://inside.example/x"), map[string]string{"198.51.100.7:80": other.Listener.Addr().String()}, `leads to "http://inside.example/x", which answers, but with something else: another`},
		"a link-local address": {"169.254.169.254", says("token.thumbprint"), nil, "is an address " +
			"where no CA comes"},
		"no address": {"", says("token.thumbprint"), nil, "has no address: add an A or " +
			"AAAA record"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Solver{Site: site(t, test.addresses, test.handler, test.elsewhere), Now: time.Now}
			seen, err := s.Check(t.Context(), nil, challenge("a.example.com"))
			if err != nil {
				t.Fatal(err)
			}
			if seen.Visible != (test.why == "") || !strings.Contains(seen.Why, test.why) {
				t.Errorf("got %+v", seen)
			}
			if strings.Contains(seen.Why, "another host\"") && strings.Contains(seen.Why, "inside") {
				t.Error("it shows what is said inside")
			}
		})
	}
}

func TestARedirectDoesNotLeadIntoThisMachine(t *testing.T) {
	const port = ":80/latest/meta-data/"
	for to, refused := range map[string]string{
		"http://169.254.169.254/latest/meta-data/": "169.254.169.254", "http://127.0.0.2" + port: "127.0.0.2",
		"http://[::1]" + port: "::1", "http://localhost.localdomain.invalid" + port: "127.0.0.3",
	} {
		server := httptest.NewServer(http.RedirectHandler(to, http.StatusFound))
		t.Cleanup(server.Close)
		// The site itself is at an address that is allowed. Names of redirects are looked up as it is.
		site := solver.Site{
			Reach: egress.Egress{Allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}.Of(false),
			Lookup: func(context.Context, string) ([]netip.Addr, error) {
				return []netip.Addr{netip.MustParseAddr("127.0.0.3")}, nil
			},
		}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		views := site.Views(t.Context(), "127.0.0.1", func(_ context.Context, dial solver.Dial) solver.EndpointView {
			return read(request, "", dial)
		})
		if len(views) != 1 || views[0].Matches || !strings.Contains(views[0].Shows,
			refused+" is an address of this machine, its link or its cloud's metadata service") {
			t.Errorf("%s: %+v", to, views)
		}
	}
}

func TestHosts(t *testing.T) {
	for host, want := range map[string]string{
		"a.example.com": "a.example.com", "a.example.com:80": "a.example.com", "a.example.com.": "a.example.com", "192.0.2.1:80": "192.0.2.1",
		"[2001:db8::1]": "2001:db8::1", "[2001:db8::1]:80": "2001:db8::1", "[2001:DB8:0:0:0:0:0:1]:8080": "2001:db8::1", "": "",
	} {
		if got := hostname(host); got != want {
			t.Errorf("%q is %q", host, got)
		}
	}
	if got := URL("2001:db8::1", "token"); got != "http://[2001:db8::1]/.well-known/acme-challenge/token" {
		t.Errorf("the CA asks for %s", got)
	}
}

func TestStrangersMakeUsAskTheAPIServerSeldom(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := cmacme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	var reads atomic.Int32
	cache := fake.NewClientBuilder().
		WithScheme(scheme).
		WithIndex(&cmacme.Challenge{}, byToken, func(client.Object) []string { return nil }).
		Build()
	direct := interceptor.NewClient(
		cache,
		interceptor.Funcs{
			List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, o ...client.ListOption) error {
				reads.Add(1)
				return c.List(ctx, list, o...)
			},
		},
	)
	now := time.Now()
	s := &Solver{Cache: cache, Direct: direct, Now: func() time.Time { return now }}
	ask := func(token string) int {
		w := httptest.NewRecorder()
		s.Handler().
			ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://a.example.com/.well-known/acme-challenge/"+token, nil))
		return w.Code
	}
	codes := map[int]int{}
	for i := range 50 {
		codes[ask(fmt.Sprintf("a-token-that-is-long-enough-%d", i))]++
	}
	if n := reads.Load(); n == 0 || n > 10 || codes[http.StatusNotFound] != int(n) ||
		codes[http.StatusServiceUnavailable] != 50-int(n) {
		t.Errorf("it was read %d times, and answered %v", n, codes)
	}
	before := reads.Load()
	now = now.Add(time.Second)
	if code := ask("too-short-for-a-token"); code != http.StatusNotFound || reads.Load() != before {
		t.Errorf("what cannot be a token gets %d after %d reads", code, reads.Load()-before)
	}
	if code := ask("a-token-that-is-long-enough"); code != http.StatusNotFound || reads.Load() != before+1 {
		t.Errorf("a second later it gets %d after %d reads", code, reads.Load()-before)
	}
}

// TestEveryTokenIsAnsweredWhileTheCacheLags asks for many tokens at once, each from several places,
// as CAs do, of a replica whose cache has none of them yet.
func TestEveryTokenIsAnsweredWhileTheCacheLags(t *testing.T) {
	const tokens, places = 20, 5
	scheme := runtime.NewScheme()
	if err := cmacme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	cache := fake.NewClientBuilder().WithScheme(scheme).
		WithIndex(&cmacme.Challenge{}, byToken, func(client.Object) []string { return nil }).Build()
	stored := fake.NewClientBuilder().WithScheme(scheme)
	token := func(i int) string { return fmt.Sprintf("a-token-that-is-long-enough-%d", i) }
	for i := range tokens {
		host := fmt.Sprintf("host-%d.example.com", i)
		stored.WithObjects(&cmacme.Challenge{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprint(i),
				Labels: map[string]string{cmacme.DomainLabelKey: solver.HashLabelValue(host)}},
			Spec: cmacme.ChallengeSpec{Type: cmacme.ACMEChallengeTypeHTTP01, DNSName: host, Token: token(i), Key: "key"},
		})
	}
	now := time.Now()
	s := &Solver{Cache: cache, Direct: stored.Build(), Now: func() time.Time { return now }}
	var answered atomic.Int32
	var all sync.WaitGroup
	for i := range tokens {
		for range places {
			all.Go(func() {
				w := httptest.NewRecorder()
				s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet,
					fmt.Sprintf("http://host-%d.example.com/.well-known/acme-challenge/%s", i, token(i)), nil))
				if w.Code == http.StatusOK {
					answered.Add(1)
				}
			})
		}
	}
	all.Wait()
	if n := answered.Load(); n != tokens*places {
		t.Errorf("%d of %d requests were answered", n, tokens*places)
	}
}
