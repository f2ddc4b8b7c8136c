package shim_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwapi "sigs.k8s.io/gateway-api/apis/v1"
	gwbeta "sigs.k8s.io/gateway-api/apis/v1beta1"
	"sigs.k8s.io/yaml"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/test/cluster"
)

func listener(name, host, secret string) gwapi.Listener {
	return gwapi.Listener{
		Name: gwapi.SectionName(name), Port: 443, Protocol: gwapi.HTTPSProtocolType, Hostname: ptr.To(gwapi.Hostname(host)),
		TLS: &gwapi.ListenerTLSConfig{CertificateRefs: []gwapi.SecretObjectReference{{Name: gwapi.ObjectName(secret)}}},
	}
}

func gateway(name string, listeners ...gwapi.Listener) *gwapi.Gateway {
	return &gwapi.Gateway{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"cert-manager.io/issuer": "self"}},
		Spec:       gwapi.GatewaySpec{GatewayClassName: "test", Listeners: listeners},
	}
}

func listenerSet(name, of string, listeners ...gwapi.Listener) *gwapi.ListenerSet {
	o := &gwapi.ListenerSet{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{}},
		Spec: gwapi.ListenerSetSpec{ParentRef: gwapi.ParentGatewayReference{Name: gwapi.ObjectName(of)}}}
	for _, l := range listeners {
		o.Spec.Listeners = append(
			o.Spec.Listeners,
			gwapi.ListenerEntry{Name: l.Name, Port: l.Port, Protocol: l.Protocol, Hostname: l.Hostname, TLS: l.TLS},
		)
	}
	return o
}

func ready(c *cmapi.Certificate) bool { return c.Status.NotAfter != nil }

func TestGatewaysGetCertificatesOnceTheClusterHasThem(t *testing.T) {
	cluster.RemoveGatewayAPI(t)
	r := start(t)
	o := ingress("web", "tls-ingress", nil, "www.example.com")
	r.create(o)
	r.until("tls-ingress", ready) // without the Gateway API the rest works

	cluster.InstallGatewayAPI(t)
	g := gateway(
		"web",
		listener("a", "a.example.com", "tls"),
		listener("b", "b.example.com", "tls"),
		listener("c", "c.example.com", "other"),
	)
	r.create(g)
	r.until("tls", func(c *cmapi.Certificate) bool {
		return ready(c) && slices.Equal(c.Spec.DNSNames, []string{"a.example.com", "b.example.com"}) &&
			metav1.IsControlledBy(c, g)
	})
	r.until("other", ready)

	// A listener that is gone takes its Certificate along.
	r.change(g, func() { g.Spec.Listeners = g.Spec.Listeners[:1] })
	r.gone("other")
	r.until("tls", func(c *cmapi.Certificate) bool { return len(c.Spec.DNSNames) == 1 })

	cluster.RemoveGatewayAPI(t)
	cluster.InstallGatewayAPI(t)
	again := gateway("again", listener("a", "again.example.com", "tls-again"))
	r.create(again)
	r.until("tls-again", ready)
}

func TestAListenerSetFollowsItsGateway(t *testing.T) {
	cluster.InstallGatewayAPI(t)
	r := start(t)
	set := listenerSet("set", "web", listener("a", "a.example.com", "tls"))
	r.create(set)
	r.create(gateway("web", listener("g", "g.example.com", "tls-g")))
	r.until("tls-g", ready)
	crt := r.until("tls", ready)
	if crt.Spec.IssuerRef.Name != "self" || !metav1.IsControlledBy(crt, set) {
		t.Errorf("the Certificate is %+v %+v", crt.ObjectMeta, crt.Spec)
	}
	g := gateway("web")
	g.Namespace = r.namespace
	r.change(g, func() { g.Annotations["cert-manager.io/issuer"] = "other" })
	r.until("tls", func(c *cmapi.Certificate) bool { return c.Spec.IssuerRef.Name == "other" })
	r.problem(set, `there is no Issuer "other"`)
}

func TestMistakesOfAGatewayStandOnIt(t *testing.T) {
	cluster.InstallGatewayAPI(t)
	r := start(t)
	l := listener("a", "", "tls")
	l.Hostname = nil
	g := gateway("web", l)
	r.create(g)
	r.problem(g, "spec.listeners[0].hostname: is missing")
	r.change(g, func() { g.Annotations["cert-manager.io/ignore-tls-listeners"] = "a" })
	r.problem(g, "")
	r.change(g, func() {
		g.Annotations["cert-manager.io/duration"] = "long"
		g.Annotations["cert-manager.io/ignore-tls-listeners"] = ""
	})
	r.problem(g, "cert-manager.io/duration: ")
}

func TestAGatewayAndAnIngressThatWantOneSecretBothHaveAnEvent(t *testing.T) {
	cluster.InstallGatewayAPI(t)
	r := start(t)
	o, g := ingress("in", "tls", nil, "a.example.com"), gateway("gw", listener("a", "b.example.com", "tls"))
	r.create(o)
	r.until("tls", ready)
	r.create(g)
	r.problem(o, `Gateway gw wants Secret "tls" with other content`)
	r.problem(g, `Ingress in wants Secret "tls" with other content`)
	// The one that has not got it follows when the other goes.
	if err := r.admin.Delete(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	r.until("tls", func(c *cmapi.Certificate) bool { return metav1.IsControlledBy(c, g) })
	r.problem(g, "")
}

func TestASecretOfAnotherNamespaceNeedsAReferenceGrant(t *testing.T) {
	cluster.InstallGatewayAPI(t)
	r := start(t)
	shared := cluster.Namespace(t)
	issuer := &cmapi.ClusterIssuer{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "self-"},
		Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}},
	}
	if err := r.admin.Create(t.Context(), issuer); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.admin.Delete(t.Context(), issuer) })
	l := listener("a", "a.example.com", "tls")
	l.TLS.CertificateRefs[0].Namespace = ptr.To(gwapi.Namespace(shared))
	g := gateway("web", l)
	g.Annotations = map[string]string{"cert-manager.io/cluster-issuer": issuer.Name}
	r.create(g)
	r.problem(g, "no ReferenceGrant lets a Gateway of namespace")

	grant := &gwbeta.ReferenceGrant{
		ObjectMeta: metav1.ObjectMeta{Namespace: shared, Name: "gateways"},
		Spec: gwbeta.ReferenceGrantSpec{
			From: []gwapi.ReferenceGrantFrom{{Group: gwapi.GroupName, Kind: "Gateway", Namespace: gwapi.Namespace(r.namespace)}},
			To:   []gwapi.ReferenceGrantTo{{Kind: "Secret"}},
		},
	}
	if err := r.admin.Create(t.Context(), grant); err != nil {
		t.Fatal(err)
	}
	r.problem(g, "")
	there := *r
	there.namespace = shared
	there.until("tls", ready)

	// With the Gateway its Certificate goes, though it cannot own it. The Secret stays.
	if err := r.admin.Delete(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	there.gone("tls")
	if err := r.admin.Get(t.Context(), client.ObjectKey{Namespace: shared, Name: "tls"}, &corev1.Secret{}); err != nil {
		t.Error(err)
	}
}

// annotations are all that set a field, with what must be in the spec then.
var annotations = []struct{ key, value, want string }{
	{"common-name", "www.example.com", `"commonName":"www.example.com"`},
	{"alt-names", "x.example.com,y.example.com", `"x.example.com","y.example.com"`},
	{"ip-sans", "192.0.2.1,2001:db8::1", `"ipAddresses":["192.0.2.1","2001:db8::1"]`},
	{"uri-sans", "spiffe://example.com/a", `"uris":["spiffe://example.com/a"]`},
	{"email-sans", "a@example.com", `"emailAddresses":["a@example.com"]`},
	{"subject-organizations", `"A, Inc.",B`, `"organizations":["A, Inc.","B"]`},
	{"subject-organizationalunits", "A", `"organizationalUnits":["A"]`},
	{"subject-countries", "DE", `"countries":["DE"]`},
	{"subject-provinces", "A", `"provinces":["A"]`},
	{"subject-localities", "A", `"localities":["A"]`},
	{"subject-postalcodes", "A", `"postalCodes":["A"]`},
	{"subject-streetaddresses", "A", `"streetAddresses":["A"]`},
	{"subject-serialnumber", "7", `"serialNumber":"7"`},
	{"duration", "240h", `"duration":"240h0m0s"`},
	{"renew-before", "24h", `"renewBefore":"24h0m0s"`},
	{"renew-before-percentage", "30", `"renewBeforePercentage":30`},
	{"usages", "server auth,client auth", `"usages":["server auth","client auth"]`},
	{"revision-history-limit", "3", `"revisionHistoryLimit":3`},
	{"private-key-algorithm", "ECDSA", `"algorithm":"ECDSA"`},
	{"private-key-encoding", "PKCS8", `"encoding":"PKCS8"`},
	{"private-key-size", "4096", `"size":4096`},
	{"private-key-rotation-policy", "Never", `"rotationPolicy":"Never"`},
	{"secret-template", `{"labels":{"a":"b"}}`, `"secretTemplate":{"labels":{"a":"b"}}`},
	{"perennial.dev/acme-profile", "shortlived", `"acmeProfile":"shortlived"`},
	{"perennial.dev/deletion-policy", "Delete", `"deletionPolicy":"Delete"`},
	{
		"perennial.dev/rehearsal-issuer",
		"ClusterIssuer/staging",
		`"rehearsalIssuerRef":{"name":"staging","kind":"ClusterIssuer","group":"cert-manager.io"}`,
	},
	{"perennial.dev/revoke-on-delete", "true", `"revocation":{"onDelete":true}`},
	{"perennial.dev/revocation-reason", "superseded", `"revocation":{"reason":"superseded"}`},
}

func TestEveryAnnotationArrivesAndGoesAgainOnEveryKind(t *testing.T) {
	cluster.InstallGatewayAPI(t)
	r := start(t)
	objects := map[string]client.Object{
		"tls-ingress": ingress("web", "tls-ingress", nil, "i.example.com"),
		"tls-gateway": gateway("web", listener("g", "g.example.com", "tls-gateway")),
		"tls-set":     listenerSet("set", "web", listener("s", "s.example.com", "tls-set")),
	}
	for _, o := range objects {
		r.create(o)
	}
	for secret, o := range objects {
		t.Run(secret, func(t *testing.T) {
			r := &rig{t, r.admin, r.namespace, r.clock}
			for _, a := range annotations {
				key := a.key
				if !strings.Contains(key, "/") {
					key = "cert-manager.io/" + key
				}
				set := func(value string) {
					r.change(o, func() {
						all := o.GetAnnotations()
						if all == nil {
							all = map[string]string{}
						}
						if all[key] = value; value == "" {
							delete(all, key)
						}
						o.SetAnnotations(all)
					})
				}
				has := func(want bool) func(*cmapi.Certificate) bool {
					return func(c *cmapi.Certificate) bool {
						spec, err := json.Marshal(c.Spec)
						return err == nil && strings.Contains(string(spec), a.want) == want
					}
				}
				set(a.value)
				r.until(secret, has(true))
				set("")
				r.until(secret, has(false))
			}
		})
	}
}

func TestADeletionPolicyTakesTheSecretAlong(t *testing.T) {
	r := start(t)
	for name, annotation := range map[string]string{"kept": "Retain", "taken": "Delete"} {
		r.create(
			ingress(name, "tls-"+name, map[string]string{"perennial.dev/deletion-policy": annotation}, name+".example.com"),
		)
		r.until("tls-"+name, ready)
	}
	owned := func(name string) bool {
		secret := &corev1.Secret{}
		if err := r.admin.Get(t.Context(), client.ObjectKey{Namespace: r.namespace, Name: name}, secret); err != nil {
			t.Fatal(err)
		}
		return len(secret.OwnerReferences) > 0
	}
	if owned("tls-kept") || !owned("tls-taken") {
		t.Error("the owners of the Secrets are not as the policies ask")
	}
	for _, name := range []string{"kept", "taken"} {
		o := ingress(name, "x", nil, "x")
		o.Namespace = r.namespace
		if err := r.admin.Delete(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		r.gone("tls-" + name)
	}
	cluster.Eventually(t, func() error {
		if err := r.admin.Get(
			t.Context(),
			client.ObjectKey{Namespace: r.namespace, Name: "tls-taken"},
			&corev1.Secret{},
		); !apierrors.IsNotFound(
			err,
		) {
			return cluster.NotYet("the Secret is there: %v", err)
		}
		return nil
	})
	owned("tls-kept") // it is there
}

func TestTheExamplesWork(t *testing.T) {
	cluster.InstallGatewayAPI(t)
	r := start(t)
	objects := r.apply("../../examples/ingress")
	for _, name := range []string{"shop-tls", "gateway-tls", "team-tls"} {
		r.until(name, ready)
	}
	for _, o := range objects {
		if kind := o.GetKind(); kind == "Ingress" || kind == "Gateway" || kind == "ListenerSet" {
			r.problem(o, "")
		}
	}
}

// apply creates what is in the files of a directory, what is namespaced in the namespace of the
// test.
func (r *rig) apply(dir string) []*unstructured.Unstructured {
	r.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) == 0 {
		r.Fatalf("no files in %s: %v", dir, err)
	}
	var objects []*unstructured.Unstructured
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			r.Fatal(err)
		}
		for document := range bytes.SplitSeq(content, []byte("\n---\n")) {
			u := &unstructured.Unstructured{}
			if err := yaml.UnmarshalStrict(document, &u.Object); err != nil {
				r.Fatalf("%s: %v", file, err)
			}
			r.create(u)
			objects = append(objects, u)
		}
	}
	return objects
}
