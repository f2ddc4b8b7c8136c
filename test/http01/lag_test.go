package http01_test

import (
	"context"
	"io"
	"net/http"
	"strings"
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

// late delays the events of watches of Challenges.
type late struct {
	http.RoundTripper
	by *atomic.Int64
}

func (l late) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := l.RoundTripper.RoundTrip(r)
	if err == nil && r.URL.Query().Get("watch") != "" && strings.HasSuffix(r.URL.Path, "/challenges") {
		response.Body = newDelayed(response.Body, l.by)
	}
	return response, err
}

// delayed is a response body that delivers its data late.
type delayed struct {
	io.Closer
	chunks chan chunk
	rest   []byte
}

type chunk struct {
	data []byte
	at   time.Time
}

func newDelayed(body io.ReadCloser, by *atomic.Int64) *delayed {
	d := &delayed{Closer: body, chunks: make(chan chunk, 1<<16)}
	go func() {
		defer close(d.chunks)
		for {
			buffer := make([]byte, 64<<10)
			n, err := body.Read(buffer)
			if n > 0 {
				d.chunks <- chunk{buffer[:n], time.Now().Add(time.Duration(by.Load()))}
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
		d.rest = c.data
	}
	n := copy(p, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}

// TestAWatchThatLagsKeepsNoCAWaiting delays the controller's watch of Challenges by ten seconds.
// The answers of its listener must not wait for that. Nor must the self-check, which would
// otherwise report a site without an answer.
func TestAWatchThatLagsKeepsNoCAWaiting(t *testing.T) {
	for name, annotations := range map[string]map[string]string{
		"an Ingress of its own":          {},
		"an Ingress is edited, in place": {"acme.cert-manager.io/http01-edit-in-place": "true"},
	} {
		t.Run(name, func(t *testing.T) {
			var by atomic.Int64
			cfg := cluster.Config(t)
			cfg.Wrap(func(transport http.RoundTripper) http.RoundTripper { return late{transport, &by} })
			r := startAs(t, cfg)
			r.issuer("lagging", byIngress("nginx"))
			by.Store(int64(10 * time.Second))
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
			// What is written of Challenges is waited for a few times.
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
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
