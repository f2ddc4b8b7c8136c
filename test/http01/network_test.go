package http01_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwapi "sigs.k8s.io/gateway-api/apis/v1"
)

// network simulates the network of a cluster: it maps addresses of pods to the real listeners.
type network struct {
	mu   sync.Mutex
	pods map[string]string // host:port → host:port
}

func (n *network) route(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pods == nil {
		n.pods = map[string]string{}
	}
	n.pods[from] = to
}

func (n *network) dial(ctx context.Context, kind, address string) (net.Conn, error) {
	n.mu.Lock()
	to, found := n.pods[address]
	n.mu.Unlock()
	if !found {
		return nil, &net.OpError{Op: "dial", Net: kind, Err: fmt.Errorf("no route to %s", address)}
	}
	var d net.Dialer
	return d.DialContext(ctx, kind, to)
}

// edge is a minimal ingress controller and gateway: it reads Ingresses of the class nginx and
// HTTPRoutes of any Gateway from the Kubernetes API, finds the endpoints of the Services that they
// name, and passes requests on to them.
type edge struct {
	api     client.Client
	network *network
	// site answers what no rule leads elsewhere.
	site http.Handler
}

func (e *edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	backend, err := e.backend(r)
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadGateway)
	case backend == "":
		e.site.ServeHTTP(w, r)
	default:
		proxy := &httputil.ReverseProxy{
			Rewrite: func(p *httputil.ProxyRequest) {
				p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", backend, p.In.Host
			},
			Transport: &http.Transport{DialContext: e.network.dial, DisableKeepAlives: true},
		}
		proxy.ServeHTTP(w, r)
	}
}

// backend returns the address that a request goes to.
func (e *edge) backend(r *http.Request) (string, error) {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if endpoint, err := e.byIngress(r, host); endpoint != "" || err != nil {
		return endpoint, err
	}
	return e.byRoute(r, host)
}

// byIngress returns the endpoint to which an Ingress of nginx leads a request.
func (e *edge) byIngress(r *http.Request, host string) (string, error) {
	var ingresses networkingv1.IngressList
	if err := e.api.List(r.Context(), &ingresses); err != nil {
		return "", err
	}
	for _, o := range ingresses.Items {
		if ptr.Deref(o.Spec.IngressClassName, o.Annotations["kubernetes.io/ingress.class"]) != "nginx" {
			continue
		}
		for _, rule := range o.Spec.Rules {
			if rule.HTTP == nil || rule.Host != "" && rule.Host != host {
				continue
			}
			for _, p := range rule.HTTP.Paths {
				if *p.PathType == networkingv1.PathTypeExact && p.Path == r.URL.Path {
					return e.endpoint(r.Context(), o.Namespace, p.Backend.Service.Name, p.Backend.Service.Port.Number)
				}
			}
		}
	}
	return "", nil
}

// byRoute returns the endpoint to which an HTTPRoute leads a request.
func (e *edge) byRoute(r *http.Request, host string) (string, error) {
	var routes gwapi.HTTPRouteList
	if err := e.api.List(r.Context(), &routes); err != nil {
		return "", client.IgnoreNotFound(err)
	}
	for _, o := range routes.Items {
		if !slices.Contains(o.Spec.Hostnames, gwapi.Hostname(host)) || len(o.Spec.ParentRefs) == 0 {
			continue
		}
		gateway := &gwapi.Gateway{}
		parent := o.Spec.ParentRefs[0]
		if err := e.api.Get(
			r.Context(),
			client.ObjectKey{
				Namespace: string(ptr.Deref(parent.Namespace, gwapi.Namespace(o.Namespace))),
				Name:      string(parent.Name),
			},
			gateway,
		); err != nil {
			return "", err
		}
		for _, rule := range o.Spec.Rules {
			if m := rule.Matches[0].Path; *m.Type == gwapi.PathMatchExact && *m.Value == r.URL.Path {
				return e.endpoint(r.Context(), o.Namespace, string(rule.BackendRefs[0].Name), int32(*rule.BackendRefs[0].Port))
			}
		}
	}
	return "", nil
}

// endpoint returns an address of a Service, as kube-proxy would find it.
func (e *edge) endpoint(ctx context.Context, namespace, name string, port int32) (string, error) {
	service := &corev1.Service{}
	if err := e.api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, service); err != nil {
		return "", err
	}
	i := slices.IndexFunc(service.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == port })
	if i < 0 {
		return "", fmt.Errorf("Service %s has no port %d", name, port)
	}
	if len(service.Spec.Selector) > 0 { // kube-controller-manager would make slices of them
		var pods corev1.PodList
		if err := e.api.List(
			ctx,
			&pods,
			client.InNamespace(namespace),
			client.MatchingLabels(service.Spec.Selector),
		); err != nil {
			return "", err
		}
		for _, pod := range pods.Items {
			if pod.Status.PodIP != "" {
				return net.JoinHostPort(pod.Status.PodIP, service.Spec.Ports[i].TargetPort.String()), nil
			}
		}
		return "", fmt.Errorf("Service %s has no pods", name)
	}
	var list discoveryv1.EndpointSliceList
	if err := e.api.List(
		ctx,
		&list,
		client.InNamespace(namespace),
		client.MatchingLabels{discoveryv1.LabelServiceName: name},
	); err != nil {
		return "", err
	}
	for _, s := range list.Items {
		for _, endpoint := range s.Endpoints {
			if !*endpoint.Conditions.Ready || len(endpoint.Addresses) != 1 || *s.Ports[0].Name != service.Spec.Ports[i].Name {
				continue
			}
			return net.JoinHostPort(endpoint.Addresses[0], fmt.Sprint(*s.Ports[0].Port)), nil
		}
	}
	return "", fmt.Errorf("Service %s has no endpoints", name)
}

// read requests a page from outside. The status is 0 if no server listens.
func read(t *testing.T, address, host, path string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = host
	response, err := http.DefaultClient.Do(request)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return 0, ""
	}
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, strings.TrimSpace(string(body))
}
