package http01_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/test/cluster"
)

// heldWatch holds back the events of a watch of Challenges in one namespace: those of their
// creation until there are so many, and by which they have changed, until release. It delivers all
// in their order.
type heldWatch struct {
	http.RoundTripper
	namespace atomic.Value
	created   int
	released  chan struct{}
	watches   atomic.Int32
}

func (h *heldWatch) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := h.RoundTripper.RoundTrip(r)
	if err == nil && r.URL.Query().Get("watch") != "" && strings.HasSuffix(r.URL.Path, "/challenges") {
		h.watches.Add(1)
		response.Body = h.hold(response.Body)
	}
	return response, err
}

func (h *heldWatch) hold(body io.ReadCloser) io.ReadCloser {
	reader, writer := io.Pipe()
	go func() {
		events, waiting := json.NewDecoder(body), [][]byte{}
		for {
			var text json.RawMessage
			err := events.Decode(&text)
			var event struct {
				Type   watch.EventType
				Object metav1.PartialObjectMetadata
			}
			if err == nil {
				err = json.Unmarshal(text, &event)
			}
			if err != nil {
				writer.CloseWithError(err)
				return
			}
			own := event.Object.Namespace != "" && event.Object.Namespace == h.namespace.Load()
			if own && event.Type == watch.Modified {
				<-h.released
			}
			waiting = append(waiting, append(text, '\n'))
			if own && len(waiting) < h.created {
				continue
			}
			if _, err := writer.Write(bytes.Join(waiting, nil)); err != nil {
				return
			}
			waiting = nil
			if own {
				h.created = 0
			}
		}
	}()
	return struct {
		io.Reader
		io.Closer
	}{reader, closers{body, reader}}
}

// closers are closed together.
type closers []io.Closer

func (all closers) Close() (err error) {
	for _, c := range all {
		err = errors.Join(err, c.Close())
	}
	return err
}

// TestAWatchThatLagsKeepsNoCAWaiting holds back the controller's watch of Challenges. A lag delays
// an issuance twice: until the controller sees the new Challenges, and until their Order sees that
// they are valid. All between must do without the watch: the finalizer, the listener's answers, the
// self-check, which would otherwise report a site without an answer, and the passes that follow
// from what the pass before has written.
func TestAWatchThatLagsKeepsNoCAWaiting(t *testing.T) {
	for name, annotations := range map[string]map[string]string{
		"an Ingress of its own":          {},
		"an Ingress is edited, in place": {"acme.cert-manager.io/http01-edit-in-place": "true"},
	} {
		t.Run(name, func(t *testing.T) {
			hosts := []string{"a.example.com", "b.example.com", "c.example.com"}
			held := &heldWatch{created: len(hosts), released: make(chan struct{})}
			release := sync.OnceFunc(func() { close(held.released) })
			t.Cleanup(release)
			cfg := cluster.Config(t)
			cfg.Wrap(func(transport http.RoundTripper) http.RoundTripper {
				held.RoundTripper = transport
				return held
			})
			r := startAs(t, cfg)
			r.issuer("lagging", byIngress("nginx"))
			annotations["cert-manager.io/cluster-issuer"] = "lagging"
			held.namespace.Store(r.namespace)
			r.create(ingressOf(annotations, hosts))
			r.allValid(len(hosts))
			if n := held.watches.Load(); n != 1 {
				t.Errorf("Challenges are watched by %d requests", n)
			}
			release()
			r.ready(r.namespace, "tls")
			r.checkedTheSite()
		})
	}
}

// allValid waits until so many Challenges of the namespace are valid.
func (r *rig) allValid(n int) {
	r.Helper()
	cluster.Eventually(r, func() error {
		var list cmacme.ChallengeList
		if err := r.admin.List(r.Context(), &list, client.InNamespace(r.namespace)); err != nil {
			return err
		}
		valid := 0
		for _, ch := range list.Items {
			if ch.Status.State == cmacme.Valid {
				valid++
			}
		}
		if valid < n {
			return cluster.NotYet("%d are valid: %s", valid, r.story(r.namespace))
		}
		return nil
	})
}

// checkedTheSite checks that no event says that the site was believed to be silent.
func (r *rig) checkedTheSite() {
	r.Helper()
	var events corev1.EventList
	if err := r.admin.List(r.Context(), &events, client.InNamespace(r.namespace)); err != nil {
		r.Fatal(err)
	}
	for _, e := range events.Items {
		if e.Reason == "SelfCheckSkipped" {
			r.Errorf("the site was believed to be silent: %s", e.Message)
		}
	}
}

// ingressOf is an Ingress with TLS for hosts.
func ingressOf(annotations map[string]string, hosts []string) *networkingv1.Ingress {
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
	return o
}
