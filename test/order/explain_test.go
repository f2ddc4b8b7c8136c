package order_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/cli"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// elsewhere makes the controller answer on another port than the one that the CA validates, so that
// only the self-check succeeds.
func elsewhere(t *testing.T, o *controller.Options) {
	t.Helper()
	o.HTTP01Address = fmt.Sprintf("127.0.0.1:%d", cluster.FreePort(t))
	o.Dial = leadTo(o.HTTP01Address)
}

// leadTo dials one address, whatever the target is.
func leadTo(address string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}
}

// instead replaces the CA's reason for a failure.
func instead(t *testing.T, f *front, kind, detail string) {
	f.behave(nil, func(q *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
		if !strings.HasPrefix(q.URL.Path, pathAuthorization) || reply.Code != http.StatusOK {
			return
		}
		edit(t, reply, func(z map[string]any) {
			if z["status"] != "invalid" {
				return
			}
			for _, c := range z["challenges"].([]any) {
				if c := c.(map[string]any); c["error"] != nil {
					c["error"] = map[string]any{"type": "urn:ietf:params:acme:error:" + kind, "detail": detail, "subproblems": []any{
						map[string]any{
							"type":       "urn:ietf:params:acme:error:" + kind,
							"detail":     "seen from afar",
							"identifier": map[string]any{"type": "dns", "value": "www.example.com"},
						},
					}}
				}
			}
		})
	})
}

func TestAFailedValidationSaysWhatTheCASawAndWhatIsSeenHere(t *testing.T) {
	http01 := func(r *rig) { r.issuer() }
	for name, test := range map[string]failedValidation{
		"a port that is closed to the CA": {
			func(t *testing.T, s stage) { elsewhere(t, s.options) }, http01,
			[]string{"urn:ietf:params:acme:error:connection: ", "connection refused. From here 127.0.0.1 shows the proof. ",
				"let port 80 be reached from everywhere"},
		},
		"a site that answers the CA otherwise": {
			func(t *testing.T, s stage) {
				elsewhere(t, s.options)
				listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
				if err != nil {
					t.Fatal(err)
				}
				server := &http.Server{Handler: http.NotFoundHandler()}
				go func() { _ = server.Serve(listener) }()
				t.Cleanup(func() { server.Close() })
			}, http01,
			[]string{"urn:ietf:params:acme:error:unauthorized: ",
				"returned 404. From here 127.0.0.1 shows the proof. The CA came to another server"},
		},
		"a record that vanishes between our look and the CA's": {
			func(_ *testing.T, s stage) {
				s.front.behave(func(_ http.ResponseWriter, q *http.Request, payload map[string]any) bool {
					if strings.HasPrefix(q.URL.Path, "/chalZ/") && payload != nil {
						s.names.SetTXT("_acme-challenge.www.example.com")
					}
					return false
				}, nil)
			}, func(r *rig) { r.issuer(r.byDNS("")) },
			[]string{"urn:ietf:params:acme:error:unauthorized: ", "No TXT records found for DNS challenge. From here 127.0.0.1:",
				"answers no TXT record for _acme-challenge.www.example.com. The record is gone"},
		},
		"a CAA record for another CA": {
			func(t *testing.T, s stage) {
				elsewhere(t, s.options)
				s.options.Nameservers = []string{s.names.Addr}
				s.names.Set("example.com", dns.TypeCAA, `0 issue "rival.example"`)
				instead(t, s.front, "caa", "CAA record for www.example.com prevents issuance")
			}, http01,
			[]string{
				"urn:ietf:params:acme:error:caa: CAA record for www.example.com prevents issuance: www.example.com: ",
				"seen from afar. ",
				`The CAA records of example.com allow issue "rival.example": add   example.com. CAA 0 issue "pebble.letsencrypt.org"`,
			},
		},
		"a CAA record for another CA, when the certificate is asked for": {
			func(_ *testing.T, s stage) {
				s.options.Nameservers = []string{s.names.Addr}
				s.names.Set("example.com", dns.TypeCAA, `0 issue "rival.example"`)
				s.front.behave(func(w http.ResponseWriter, q *http.Request, _ map[string]any) bool {
					if !strings.HasPrefix(q.URL.Path, pathFinalize) {
						return false
					}
					refuse(w, http.StatusForbidden, "caa", "While processing CAA for www.example.com: CAA record for example.com "+
						"prevents issuance")
					return true
				}, nil)
			}, http01,
			[]string{
				"the CA refuses: finalize: 403 urn:ietf:params:acme:error:caa: While processing CAA for www.example.com: CAA " +
					"record for example.com prevents issuance. ",
				`The CAA records of example.com allow issue "rival.example": add   example.com. CAA 0 issue "pebble.letsencrypt.org"`,
			},
		},
		"a DNSSEC chain that is broken": {
			func(t *testing.T, s stage) {
				elsewhere(t, s.options)
				s.options.Nameservers, s.options.HTTP01.Nameservers = []string{s.names.Addr}, nil
				s.names.SetBogus("www.example.com")
				instead(t, s.front, "dns", "DNS problem: looking up A for www.example.com: DNSSEC: Bogus")
			}, http01,
			[]string{"DNSSEC of www.example.com does not verify"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.check(t)
		})
	}
}

// stage is where a validation is to fail.
type stage struct {
	*rig
	front   *front
	options *controller.Options
	port    int // where the CA looks
}

// failedValidation makes a validation fail, and has what the Certificate and the CLI say of it.
type failedValidation struct {
	set    func(t *testing.T, s stage)
	issuer func(r *rig)
	says   []string
}

func (test failedValidation) check(t *testing.T) {
	f := &front{}
	r, o := shop(t, f, pebble.Options{})
	_, port, err := net.SplitHostPort(o.HTTP01Address)
	if err != nil {
		t.Fatal(err)
	}
	s := stage{r, f, &o, 0}
	if _, err := fmt.Sscan(port, &s.port); err != nil {
		t.Fatal(err)
	}
	o.HTTP01.Nameservers = []string{r.names.Addr}
	test.set(t, s)
	cluster.Run(t, o)
	test.issuer(r)
	crt := r.certificate("site", "www.example.com")
	cluster.Eventually(t, func() error {
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		c := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionIssuing)
		if c == nil {
			return cluster.NotYet("%s", r.story())
		}
		for _, w := range test.says {
			if !strings.Contains(c.Message, w) {
				return cluster.NotYet("no %q in %q\n%s", w, c.Message, r.story())
			}
		}
		return nil
	})
	var out bytes.Buffer
	p := &cli.Program{
		Name:  "perennial",
		In:    strings.NewReader(""),
		Out:   &out,
		Err:   &out,
		Clock: clocktesting.NewFakePassiveClock(time.Now()),
	}
	p.Run(
		t.Context(),
		p.Command(),
		[]string{"status", "certificate", "site", "--kubeconfig", cluster.Plane(t).KubeconfigPath(), "-n", r.namespace},
	)
	for _, w := range test.says {
		if !strings.Contains(out.String(), w) {
			t.Errorf("perennial status says no %q:\n%s", w, out.String())
		}
	}
}

func TestASiteThatCannotBeHeardFromHereIsLeftToTheCAAfterAWhile(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mute.Close() })
	go func() { // as a load balancer does that waits for the PROXY protocol
		for {
			conn, err := mute.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	for name, dial := range map[string]func(context.Context, string, string) (net.Conn, error){
		"no connection succeeds": func(_ context.Context, network, _ string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("no route to host")}
		},
		"connections are closed without a word": leadTo(mute.Addr().String()),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, o := shop(t, &front{}, pebble.Options{})
			clock := &cluster.Clock{}
			o.Clock, o.Dial = clock, dial
			cluster.Run(t, o)
			r.issuer()
			crt := r.certificate("site", "www.example.com")
			r.says(
				"Waiting for HTTP-01 challenge propagation: http://www.example.com/.well-known/acme-challenge/",
				"cannot be read",
			)
			clock.Step(3 * time.Minute)
			r.ready(crt)
			cluster.Eventually(t, func() error {
				var events corev1.EventList
				if err := r.admin.List(t.Context(), &events, client.InNamespace(r.namespace)); err != nil {
					return err
				}
				for _, e := range events.Items {
					if e.Reason == "SelfCheckSkipped" && e.Type == corev1.EventTypeWarning &&
						strings.Contains(e.Message, "nothing can be seen from here: http://www.example.com") {
						return nil
					}
				}
				return cluster.NotYet("there is no event")
			})
		})
	}
}

func TestAWrongAnswerIsNeverLeftToTheCA(t *testing.T) {
	var asked atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		http.Error(w, "not here", http.StatusNotFound)
	}))
	t.Cleanup(other.Close)
	r, o := shop(t, &front{}, pebble.Options{})
	clock := &cluster.Clock{}
	o.Clock, o.Dial = clock, leadTo(other.Listener.Addr().String())
	cluster.Run(t, o)
	r.issuer()
	r.certificate("site", "www.example.com")
	r.says("answers with status 404")
	clock.Step(10 * time.Minute)
	before := asked.Load()
	cluster.Eventually(t, func() error {
		if n := asked.Load(); n < before+2 {
			return cluster.NotYet("it was asked %d times", n)
		}
		return nil
	})
	var list cmacme.ChallengeList
	if err := r.admin.List(t.Context(), &list, client.InNamespace(r.namespace)); err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 1 || list.Items[0].Status.State != cmacme.Pending {
		t.Errorf("%s", r.story())
	}
}
