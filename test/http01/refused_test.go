package http01_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	gwapi "sigs.k8s.io/gateway-api/apis/v1"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/internal/solver/http01"
	"github.com/perennial-pki/perennial/test/cluster"
)

// applied matches the server-side apply of objects of a kind.
func applied(kind string) func(cluster.Write) bool {
	return func(w cluster.Write) bool {
		return w.Verb == "apply" && w.Object != nil && w.Object.GetObjectKind().GroupVersionKind().Kind == kind
	}
}

// TestEachRefusedObjectOfAChallengeIsReported refuses, in turn, each object that leads to the
// answer.
func TestEachRefusedObjectOfAChallengeIsReported(t *testing.T) {
	byRoute := cmacme.ACMEChallengeSolverHTTP01{GatewayHTTPRoute: &cmacme.ACMEChallengeSolverHTTP01GatewayHTTPRoute{
		ParentRefs: []cmacme.ParentReference{{Name: "edge"}},
	}}
	byPod := byIngress("nginx")
	byPod.SolverMode = cmacme.HTTP01SolverModePod
	for name, test := range map[string]struct {
		rule    func(cluster.Write) bool
		solver  cmacme.ACMEChallengeSolverHTTP01
		pods    bool
		inPlace bool
	}{
		"the Service":         {rule: applied("Service"), solver: byIngress("nginx")},
		"the EndpointSlices":  {rule: applied("EndpointSlice"), solver: byIngress("nginx")},
		"the Ingress":         {rule: applied("Ingress"), solver: byIngress("nginx")},
		"the HTTPRoute":       {rule: applied("HTTPRoute"), solver: byRoute},
		"the Pod":             {rule: cluster.WriteOf[*corev1.Pod]("create"), solver: byPod, pods: true},
		"the edit of Ingress": {rule: cluster.WriteOf[*networkingv1.Ingress]("patch"), solver: byIngress("nginx"), inPlace: true},
	} {
		t.Run(name, func(t *testing.T) {
			var refusal cluster.Refusal
			refusal.Begin(test.rule)
			clock := &cluster.Clock{}
			clock.Step(time.Minute) // a Challenge is pending for long at once
			r := start(t, func(o *controller.Options) {
				o.WrapClient, o.Clock = refusal.Wrap, clock
				if test.pods {
					o.HTTP01.Pods = http01.PodSettings{Image: "registry.example/perennial:1"}
				}
			})
			r.create(&gwapi.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "edge"}, Spec: gwapi.GatewaySpec{
				GatewayClassName: "test",
				Listeners:        []gwapi.Listener{{Name: "web", Port: 80, Protocol: gwapi.HTTPProtocolType}},
			}})
			r.issuer("refused", test.solver)
			r.request("refused", test.inPlace)
			cluster.IssuingSays(t, r.admin, types.NamespacedName{Namespace: r.namespace, Name: "tls"}, cluster.RefusedBecause,
				"It is tried again within 5 minutes")
			if n := refusal.Count(); n > 10 {
				t.Errorf("tried %d times in a moment", n)
			}
			if test.pods {
				return // no kubelet runs the Pod
			}
			refusal.End()
			r.touch("refused") // what was refused is tried again when the issuer changes
			r.ready(r.namespace, "tls")
			r.clean(r.namespace)
		})
	}
}

// request asks an issuer for the Certificate tls, directly, or by an Ingress that is edited in
// place.
func (r *rig) request(issuer string, inPlace bool) {
	r.Helper()
	hosts := []string{"a.example.com"}
	if !inPlace {
		r.create(&cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: "tls"}, Spec: cmapi.CertificateSpec{
			SecretName: "tls", DNSNames: hosts, IssuerRef: cmmeta.IssuerReference{Kind: "ClusterIssuer", Name: issuer},
		}})
		return
	}
	r.create(&networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Annotations: map[string]string{
			"cert-manager.io/cluster-issuer": issuer, "acme.cert-manager.io/http01-edit-in-place": "true",
		}},
		Spec: networkingv1.IngressSpec{
			IngressClassName: ptr.To("nginx"),
			TLS:              []networkingv1.IngressTLS{{Hosts: hosts, SecretName: "tls"}},
			DefaultBackend: &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{
				Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}}},
		},
	})
}

// touch changes the spec of a ClusterIssuer, not its meaning.
func (r *rig) touch(name string) {
	r.Helper()
	cluster.Eventually(r, func() error {
		issuer := &cmapi.ClusterIssuer{}
		if err := r.admin.Get(r.Context(), types.NamespacedName{Name: name}, issuer); err != nil {
			return err
		}
		issuer.Spec.ACME.Email = "others@example.org"
		return r.admin.Update(r.Context(), issuer)
	})
}
