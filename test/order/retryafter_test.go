package order_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// TestAnOrderThatTheCAProcessesForLongDelaysNoOther is about CAs that know their customers: they
// need no proofs, and orders take minutes.
func TestAnOrderThatTheCAProcessesForLongDelaysNoOther(t *testing.T) {
	t.Parallel()
	const slow = 12
	var held atomic.Bool
	f := &front{}
	r, options := shop(t, f, pebble.Options{ReuseAuthorizations: 100})
	options.Workers = 1 // of orders there are a few more
	running := cluster.Run(t, options)
	r.issuer()
	names := []string{"fast.example.com"}
	for i := range slow {
		names = append(names, fmt.Sprintf("slow-%d.example.com", i))
	}
	r.ready(r.certificate("all", names...))

	r.changeIssuer(func(spec *cmacme.ACMEIssuer) { spec.Solvers = nil })
	r.issuerSays(cmmeta.ConditionTrue)
	orders, finalized := f.asked(pathNewOrder), f.asked(pathFinalize)
	held.Store(true)
	polls := map[string]int{}
	f.behave(nil, func(r *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
		if !held.Load() || !strings.HasPrefix(r.URL.Path, pathOrder) && !strings.HasPrefix(r.URL.Path, pathFinalize) ||
			!strings.Contains(reply.Body.String(), "slow-") ||
			reply.Code >= 300 {
			return
		}
		f.process(t, r.URL.Path, reply, polls)
	})
	var certificates []*cmapi.Certificate
	for i := range slow {
		certificates = append(certificates, r.certificate(fmt.Sprintf("slow-%d", i), names[i+1]))
	}
	asked := func(n int) {
		t.Helper()
		cluster.Eventually(t, func() error {
			if f.polledOften(polls, n) < slow {
				return cluster.NotYet("%v\n%s", polls, r.story())
			}
			return nil
		})
	}
	asked(3)
	r.ready(r.certificate("fast", "fast.example.com"))
	if err := running.Stop(); err != nil {
		t.Fatal(err)
	}
	cluster.Run(t, options)
	asked(6)
	if orders, finalized := f.asked(pathNewOrder)-orders, f.asked(pathFinalize)-finalized; orders != slow+1 ||
		finalized != slow+1 {
		t.Errorf("the CA was asked for %d orders, and %d times to finalize", orders, finalized)
	}
	held.Store(false)
	for _, crt := range certificates {
		r.ready(crt)
		cluster.Pair(t, client.ObjectKeyFromObject(crt))
	}
	if orders, finalized := f.asked(pathNewOrder)-orders, f.asked(pathFinalize)-finalized; orders != slow+1 ||
		finalized != slow+1 {
		t.Errorf("in the end the CA was asked for %d orders, and %d times to finalize", orders, finalized)
	}
}

// process answers that a valid order is processed still, and counts the polls.
func (f *front) process(t *testing.T, path string, reply *httptest.ResponseRecorder, polls map[string]int) {
	edit(t, reply, func(o map[string]any) {
		if o["status"] == "valid" {
			o["status"] = "processing"
			delete(o, "certificate")
			reply.Header().Set("Retry-After", "0")
			f.mu.Lock()
			polls[path]++
			f.mu.Unlock()
		}
	})
}

// polledOften returns how many orders were polled n times or more.
func (f *front) polledOften(polls map[string]int, n int) (orders int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for path, p := range polls {
		if strings.HasPrefix(path, pathOrder) && p >= n {
			orders++
		}
	}
	return orders
}

// TestAnOrderThatTakesTwentyMinutesIsAskedForPolitely makes a CA process orders slowly, with each
// form of Retry-After. The clock advances by minutes, and each time another client changes the
// Orders, which must not cause a request.
// slowWay is how a CA answers polls for an order that takes twenty minutes.
type slowWay struct {
	retryAfter string
	most       int // questions in 20 minutes, of which 10 come after a restart
	says       string
}

// slowCA answers for an order of each way that it is processed still. It counts the polls.
type slowCA struct {
	*front
	t       *testing.T
	ways    map[string]slowWay
	expires string // the order of the way "lost"
	polls   map[string]int
}

func (s *slowCA) change(r *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
	poll := strings.HasPrefix(r.URL.Path, pathOrder)
	if reply.Code >= 300 || !poll && !strings.HasPrefix(r.URL.Path, pathFinalize) {
		return
	}
	edit(s.t, reply, func(o map[string]any) {
		for name, way := range s.ways {
			if !strings.Contains(fmt.Sprint(o["identifiers"]), name) {
				continue
			}
			if poll {
				s.mu.Lock()
				s.polls[name]++
				s.mu.Unlock()
			}
			if o["status"] == "valid" {
				o["status"] = "processing"
				delete(o, "certificate")
			}
			if way.retryAfter != "" {
				reply.Header().Set("Retry-After", way.retryAfter)
			}
			if name == "lost" {
				o["expires"] = s.expires
			}
		}
	})
}

// polled returns how often the order of a way was asked for.
func (s *slowCA) polled(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.polls[name]
}

// pass has minutes pass. In each, the controller may ask for all orders.
func (s *slowCA) pass(r *rig, clock *cluster.Clock, minutes int) {
	s.t.Helper()
	for range minutes {
		before := s.polled("silent")
		clock.Step(time.Minute)
		for name := range s.ways {
			r.nudge(r.order(name))
		}
		cluster.Eventually(s.t, func() error {
			if s.polled("silent") == before {
				return cluster.NotYet("the order is not asked for after a minute")
			}
			return nil
		})
	}
}

func TestAnOrderThatTakesTwentyMinutesIsAskedForPolitely(t *testing.T) {
	t.Parallel()
	ways := map[string]slowWay{
		"silent":    {"", 30, "The ACME server is processing the order"},
		"minutes":   {"300", 7, "The ACME server is processing the order, and is asked again at "},
		"ages":      {"1000000000", 3, "The ACME server is processing the order, and is asked again at "},
		"year-9999": {"Fri, 31 Dec 9999 23:59:59 GMT", 3, "The ACME server is processing the order, and is asked again at "},
		"negative":  {"-5", 30, "The ACME server is processing the order"},
		"past":      {"Sun, 01 Nov 2020 12:00:00 GMT", 60, "The ACME server is processing the order"},
		"lost":      {"", 30, "The ACME server is processing the order"}, // expires before it is done
	}
	clock := &cluster.Clock{}
	f := &front{}
	r, options := shop(t, f, pebble.Options{ReuseAuthorizations: 100})
	options.Clock = clock
	running := cluster.Run(t, options)
	r.issuer()
	var names []string
	for name := range ways {
		names = append(names, name+".example.com")
	}
	r.ready(r.certificate("all", names...))
	r.changeIssuer(func(spec *cmacme.ACMEIssuer) { spec.Solvers = nil })
	r.issuerSays(cmmeta.ConditionTrue)
	orders, finalized := f.asked(pathNewOrder), f.asked(pathFinalize)
	expires := clock.Now().Add(30 * time.Minute).UTC().Format(time.RFC3339)
	slow := &slowCA{front: f, t: t, ways: ways, expires: expires, polls: map[string]int{}}
	f.behave(nil, slow.change)
	certificates := map[string]*cmapi.Certificate{}
	for name := range ways {
		certificates[name] = r.certificate(name, name+".example.com")
	}
	for name, way := range ways {
		cluster.Eventually(t, func() error {
			if o := r.order(name); o.Status.State != cmacme.Processing || !strings.HasPrefix(o.Status.Reason, way.says) {
				return cluster.NotYet("the order of %s is %q: %s", name, o.Status.State, o.Status.Reason)
			}
			return nil
		})
	}
	slow.pass(r, clock, 10)
	if err := running.Stop(); err != nil {
		t.Fatal(err)
	}
	cluster.Run(t, options)
	slow.pass(r, clock, 10)
	for name, way := range ways {
		if n := slow.polled(name); n > way.most {
			t.Errorf("of %s it was asked %d times", name, n)
		}
	}
	if n := slow.polled("minutes"); n < 3 {
		t.Errorf("of minutes it was asked %d times", n)
	}
	// One takes longer than the CA keeps it. That fails, and is not repeated at once: its certificate
	// may have been issued.
	clock.Step(11 * time.Minute)
	r.nudge(r.order("lost"))
	r.failed(certificates["lost"], "the order expired at "+expires+" and was still processing")
	f.behave(nil, nil)
	clock.Step(45 * time.Minute) // an hour after the restart all have asked again, but the one that failed rests still
	for name, crt := range certificates {
		if name != "lost" {
			r.nudge(r.order(name))
			r.ready(crt)
		}
	}
	orders, finalized = f.asked(pathNewOrder)-orders, f.asked(pathFinalize)-finalized
	if orders != len(ways) || finalized != len(ways) {
		t.Errorf("the CA was asked for %d orders, and %d times to finalize", orders, finalized)
	}
}

// TestACAThatLimitsUsForEverIsAskedAgain makes a CA refuse orders with each form of Retry-After.
// The status says until when the controller waits, which is soon enough for the certificate.
func TestACAThatLimitsUsForEverIsAskedAgain(t *testing.T) {
	t.Parallel()
	const week, day = 7 * 24 * time.Hour, 24 * time.Hour
	type way struct {
		status     int
		retryAfter string
		// waits is how long it is waited. Zero: it passes at once.
		waits time.Duration
	}
	ways := map[string]way{}
	for name, w := range map[string]struct {
		retryAfter       string
		limited, useless time.Duration
	}{
		"ages":      {"1000000000", week, day},
		"year-9999": {"Fri, 31 Dec 9999 23:59:59 GMT", week, day},
		"negative":  {"-5", time.Hour, 0},
		"past":      {"Sun, 01 Nov 2020 12:00:00 GMT", 0, 0},
	} {
		ways["limited-"+name] = way{http.StatusTooManyRequests, w.retryAfter, w.limited}
		ways["closed-"+name] = way{http.StatusServiceUnavailable, w.retryAfter, w.useless}
	}
	clock := &cluster.Clock{}
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	options.Clock = clock
	var mu sync.Mutex
	refused := map[string]bool{}
	f.behave(func(w http.ResponseWriter, q *http.Request, payload map[string]any) bool {
		if !strings.HasPrefix(q.URL.Path, pathNewOrder) {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		for name, way := range ways {
			if strings.Contains(fmt.Sprint(payload["identifiers"]), name) && !refused[name] {
				refused[name] = true
				w.Header().Set("Retry-After", way.retryAfter)
				refuse(w, way.status, "rateLimited", "not now")
				return true
			}
		}
		return false
	}, func(q *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
		if reply.Code < 300 &&
			(strings.HasPrefix(q.URL.Path, pathNewOrder) || strings.HasPrefix(q.URL.Path, pathOrder) ||
				strings.HasPrefix(q.URL.Path, pathFinalize)) {
			edit(
				t,
				reply,
				func(o map[string]any) { o["expires"] = clock.Now().Add(day).UTC().Format(time.RFC3339) },
			) // the CA's clock goes with ours
		}
	})
	cluster.Run(t, options)
	certificates := map[string]*cmapi.Certificate{}
	for name := range ways {
		// What a CA limits, or that it is closed, holds for its directory: each is another one.
		r.issuerOf(r.namespace, name, func(spec *cmacme.ACMEIssuer) { spec.Server += "?" + name })
		crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: cmapi.CertificateSpec{
			SecretName: name, DNSNames: []string{name + ".example.com"}, IssuerRef: cmmeta.IssuerReference{Name: name},
		}}
		r.create(crt)
		certificates[name] = crt
	}
	until := regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)
	for name, way := range ways {
		if way.waits == 0 {
			r.ready(certificates[name])
			continue
		}
		message := r.waits(name, "T") // a time
		at, err := time.Parse(time.RFC3339, until.FindString(message))
		if wait := at.Sub(clock.Now()); err != nil || wait > way.waits || wait < way.waits-10*time.Minute {
			t.Errorf("%s waits for %s, not %s: %s", name, wait, way.waits, message)
		}
	}
	clock.Step(week)
	for name, way := range ways {
		if way.waits > 0 {
			r.nudge(r.orderOf(name))
			r.ready(certificates[name])
		}
	}
}

func TestACAThatIsNotReadyToFinalizeIsAskedAgain(t *testing.T) {
	t.Parallel()
	var once sync.Once
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	f.behave(func(w http.ResponseWriter, r *http.Request, _ map[string]any) (answered bool) {
		if strings.HasPrefix(r.URL.Path, pathFinalize) {
			once.Do(func() {
				refuse(w, http.StatusForbidden, "orderNotReady", "the order is not ready yet")
				answered = true
			})
		}
		return answered
	}, nil)
	cluster.Run(t, options)
	r.issuer()
	r.ready(r.certificate("site", "www.example.com"))
	if n := f.asked(pathNewOrder); n != 1 {
		t.Errorf("it was asked for %d orders", n)
	}
}

// TestACAThatSaysWhenToAskAfterAProofIsObeyed makes a CA answer the request for validation with a
// Retry-After of some seconds.
func TestACAThatSaysWhenToAskAfterAProofIsObeyed(t *testing.T) {
	t.Parallel()
	const wait = 3 * time.Second
	var mu sync.Mutex
	var accepted, next time.Time
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	f.behave(func(_ http.ResponseWriter, r *http.Request, _ map[string]any) bool {
		mu.Lock()
		defer mu.Unlock()
		if strings.HasPrefix(r.URL.Path, pathAuthorization) && !accepted.IsZero() && next.IsZero() {
			next = time.Now()
		}
		return false
	}, func(r *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
		if strings.HasPrefix(r.URL.Path, pathChallenge) {
			mu.Lock()
			defer mu.Unlock()
			accepted = time.Now()
			reply.Header().Set("Retry-After", fmt.Sprint(wait.Seconds()))
		}
	})
	cluster.Run(t, options)
	r.issuer()
	r.ready(r.certificate("site", "www.example.com"))
	mu.Lock()
	defer mu.Unlock()
	if accepted.IsZero() || next.Sub(accepted) < wait {
		t.Errorf("it was asked again %s after it had said %s", next.Sub(accepted), wait)
	}
}

// TestACAThatLimitsAnOrderUnderWayIsNotAskedBefore makes a CA refuse a request for an open order,
// with a Retry-After of some seconds.
func TestACAThatLimitsAnOrderUnderWayIsNotAskedBefore(t *testing.T) {
	const wait = 4 * time.Second
	for name, path := range map[string]string{
		"new order": pathNewOrder, "order": pathOrder, "authorization": pathAuthorization, "challenge": pathChallenge, "finalize": pathFinalize, "certificate": pathCertificate,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var until time.Time
			early := 0
			f := &front{}
			r, options := shop(t, f, pebble.Options{})
			f.behave(func(w http.ResponseWriter, q *http.Request, _ map[string]any) bool {
				if !strings.HasPrefix(q.URL.Path, path) {
					return false
				}
				mu.Lock()
				now := time.Now()
				if until.IsZero() {
					until = now.Add(wait)
				} else if now.Before(until) {
					early++
				}
				limited := now.Before(until)
				mu.Unlock()
				if limited {
					w.Header().Set("Retry-After", fmt.Sprint(wait.Seconds()))
					refuse(w, http.StatusTooManyRequests, "rateLimited", "not now")
				}
				return limited
			}, nil)
			cluster.Run(t, options)
			r.issuer()
			r.ready(r.certificate("site", "www.example.com"))
			mu.Lock()
			defer mu.Unlock()
			if until.IsZero() || early > 0 {
				t.Errorf("it was asked %d times before %s were over", early, wait)
			}
		})
	}
}

func TestACAWithoutASenseOfTimeIsPolledAllTheSame(t *testing.T) {
	for _, value := range []string{"0", "-1", "soon", "Sun, 01 Nov 2020 12:00:00 GMT", "1e9"} {
		t.Run(value, func(t *testing.T) {
			t.Parallel()
			f := &front{}
			r, options := shop(t, f, pebble.Options{})
			f.behave(nil, func(r *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
				reply.Header().Set("Retry-After", value)
				if strings.HasPrefix(r.URL.Path, pathFinalize) && reply.Code < 300 {
					edit(t, reply, func(o map[string]any) { o["status"] = "processing" })
				}
			})
			cluster.Run(t, options)
			r.issuer()
			r.ready(r.certificate("site", "www.example.com"))
		})
	}
}
