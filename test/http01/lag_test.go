package http01_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/test/cluster"
)

// lag is a delay of the events of watches. It counts how many delays in a row what happens has
// waited for: an event that arrives after another was delivered may follow from it, and is one
// further.
type lag struct {
	by   atomic.Int64
	mu   sync.Mutex
	done int // delays in a row of the events that were delivered
}

// waits returns the number of delays in a row until now.
func (l *lag) waits() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done
}

func (l *lag) delivered(waits int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = max(l.done, waits)
}

// late delays the events of watches of Challenges.
type late struct {
	http.RoundTripper
	*lag
}

func (l late) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := l.RoundTripper.RoundTrip(r)
	if err == nil && r.URL.Query().Get("watch") != "" && strings.HasSuffix(r.URL.Path, "/challenges") {
		response.Body = newDelayed(response.Body, l.lag)
	}
	return response, err
}

// delayed is a response body that delivers its data late.
type delayed struct {
	io.Closer
	*lag
	chunks chan chunk
	rest   []byte
}

type chunk struct {
	data  []byte
	at    time.Time
	waits int
}

func newDelayed(body io.ReadCloser, l *lag) *delayed {
	d := &delayed{Closer: body, lag: l, chunks: make(chan chunk, 1<<16)}
	go func() {
		defer close(d.chunks)
		for {
			buffer := make([]byte, 64<<10)
			n, err := body.Read(buffer)
			if n > 0 {
				c := chunk{data: buffer[:n], at: time.Now()}
				if by := time.Duration(l.by.Load()); by > 0 {
					c.at, c.waits = c.at.Add(by), l.waits()+1
				}
				d.chunks <- c
			}
			if err != nil {
				return
			}
		}
	}()
	return d
}

func (d *delayed) Read(p []byte) (int, error) {
	if len(d.rest) == 0 {
		c, more := <-d.chunks
		if !more {
			return 0, io.EOF
		}
		time.Sleep(time.Until(c.at))
		d.lag.delivered(c.waits)
		d.rest = c.data
	}
	n := copy(p, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}

// TestAWatchThatLagsKeepsNoCAWaiting delays the controller's watch of Challenges by ten seconds.
// The answers of its listener must not wait for that. Nor must the self-check, which would
// otherwise report a site without an answer. What remains are the steps that read what the step
// before has written: the Challenge, its finalizer, its acceptance by the CA, and that it is valid.
func TestAWatchThatLagsKeepsNoCAWaiting(t *testing.T) {
	const most = 6 // with the list at the start, and one self-check that came too early
	for name, annotations := range map[string]map[string]string{
		"an Ingress of its own":          {},
		"an Ingress is edited, in place": {"acme.cert-manager.io/http01-edit-in-place": "true"},
	} {
		t.Run(name, func(t *testing.T) {
			l := &lag{}
			cfg := cluster.Config(t)
			cfg.Wrap(func(transport http.RoundTripper) http.RoundTripper { return late{transport, l} })
			r := startAs(t, cfg)
			r.issuer("lagging", byIngress("nginx"))
			l.by.Store(int64(10 * time.Second))
			annotations["cert-manager.io/cluster-issuer"] = "lagging"
			hosts := []string{"a.example.com", "b.example.com", "c.example.com"}
			o := &networkingv1.Ingress{
				ObjectMeta: metav1.ObjectMeta{Name: "web", Annotations: annotations},
				Spec: networkingv1.IngressSpec{
					IngressClassName: ptr.To("nginx"), TLS: []networkingv1.IngressTLS{{Hosts: hosts, SecretName: "tls"}},
				},
			}
			for _, host := range hosts {
				o.Spec.Rules = append(o.Spec.Rules, networkingv1.IngressRule{Host: host,
					IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{
						Paths: []networkingv1.HTTPIngressPath{{Path: "/", PathType: ptr.To(networkingv1.PathTypePrefix),
							Backend: networkingv1.IngressBackend{
								Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}}}}},
					}}})
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // a bound for the test alone
			defer cancel()
			issued, err := r.admin.Watch(ctx, &corev1.SecretList{}, client.InNamespace(r.namespace),
				client.MatchingFields{"metadata.name": "tls"})
			if err != nil {
				t.Fatal(err)
			}
			defer issued.Stop()
			r.create(o)
			if _, more := <-issued.ResultChan(); !more {
				t.Fatalf("it is not issued: %s", r.story(r.namespace))
			}
			if n := l.waits(); n > most {
				t.Errorf("it waited for %d delays in a row, want at most %d", n, most)
			} else {
				t.Logf("it waited for %d delays in a row", n)
			}
			var events corev1.EventList
			if err := r.admin.List(t.Context(), &events, client.InNamespace(r.namespace)); err != nil {
				t.Fatal(err)
			}
			for _, e := range events.Items {
				if e.Reason == "SelfCheckSkipped" {
					t.Errorf("the site was believed to be silent: %s", e.Message)
				}
			}
		})
	}
}
