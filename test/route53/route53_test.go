// Package route53_test issues the wildcard certificate of examples/lesson from its unchanged
// manifests. The AWS SDK finds the simulated AWS through its standard settings.
package route53_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/test/aws"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/internet"
)

func TestMain(m *testing.M) { cluster.Main(m) }

const (
	// lessonRole is that of the lesson's issuers and, by IRSA, of the controller itself.
	lessonRole = "arn:aws:iam::123456789012:role/cert-manager-dns01-role"
	zone       = "Z123"
	record     = "_acme-challenge.example.com"
)

type world struct {
	*testing.T
	cloud *aws.Cloud
	names *dnsserver.Server
	admin client.WithWatch
	env   []string
	flags []string
}

// start makes AWS, the internet with Let's Encrypt at its own names, and what a pod of the
// controller would find in its environment.
func start(t *testing.T, change ...func(*aws.Cloud)) *world {
	t.Helper()
	names, ca := internet.NamesAndCA(t)
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("the token of the pod"), 0o600); err != nil {
		t.Fatal(err)
	}
	cloud := &aws.Cloud{
		Token: "the token of the pod", Web: []string{lessonRole}, DNS: names, Pending: time.Second,
		Zones: map[string]string{zone: "example.com", "ZPRIVATE": "example.com"}, Private: []string{"ZPRIVATE"},
		Access: map[string][]string{zone: {lessonRole}, "ZPRIVATE": {lessonRole}},
	}
	for _, f := range change {
		f(cloud)
	}
	t.Cleanup(cloud.Start())
	cloud.Put(zone, record, "another client's")
	site := internet.CA(t, ca)
	return &world{
		T:     t,
		cloud: cloud,
		names: names,
		admin: cluster.Admin(t),
		env: append(
			internet.Start(
				t,
				map[string]http.Handler{"acme-v02.api.letsencrypt.org": site, "acme-staging-v02.api.letsencrypt.org": site},
			),
			"AWS_ROLE_ARN="+lessonRole,
			"AWS_WEB_IDENTITY_TOKEN_FILE="+token,
			"AWS_REGION=us-east-1",
			"AWS_ENDPOINT_URL_STS="+cloud.STS,
			"AWS_ENDPOINT_URL_ROUTE_53="+cloud.Route53,
		),
		flags: []string{"--dns01-recursive-nameservers=" + names.Addr, "--dns01-recursive-nameservers-only"},
	}
}

// apply creates the objects of a manifest after replacing the given words.
func (w *world) apply(file string, replace ...string) {
	w.Helper()
	content, err := os.ReadFile(filepath.Join("../../examples", file))
	if err != nil {
		w.Fatal(err)
	}
	text := strings.NewReplacer(replace...).Replace(string(content))
	internet.Apply(w, w.admin, text, func(u *unstructured.Unstructured) {
		if ns := u.GetNamespace(); ns != "" {
			if err := w.admin.Create(
				w.Context(),
				&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}},
			); err != nil &&
				!apierrors.IsAlreadyExists(err) {
				w.Fatal(err)
			}
		}
	})
}

// issued waits for the lesson's certificate.
func (w *world) issued(namespace string) {
	w.Helper()
	w.ready(namespace, "wildcard-example-com", zone)
}

// ready waits for a certificate, and checks its Secret and the zone of its challenge.
func (w *world) ready(namespace, name, zone string) {
	w.Helper()
	internet.Issued(w, w.admin, client.ObjectKey{Namespace: namespace, Name: name}, "*.example.com", "example.com")
	cluster.Eventually(w, func() error {
		if got := w.cloud.Values(zone, record); !slices.Equal(got, []string{"another client's"}) {
			return cluster.NotYet("the zone has %q", got)
		}
		return nil
	})
}

// told waits for events, each with a kind, a reason and a text.
func (w *world) told(namespace string, events [][3]string) {
	w.Helper()
	cluster.Eventually(w, func() error {
		var list corev1.EventList
		if err := w.admin.List(w.Context(), &list, client.InNamespace(namespace)); err != nil {
			return err
		}
		for _, want := range events {
			if !slices.ContainsFunc(list.Items, func(e corev1.Event) bool {
				return e.InvolvedObject.Kind == want[0] && e.Reason == want[1] && strings.Contains(e.Message, want[2])
			}) {
				return cluster.NotYet("there is no event %v", want)
			}
		}
		return nil
	})
}

func TestTheLessonsManifestsAsTheyStand(t *testing.T) {
	w := start(t)
	cluster.Process(t, w.env, w.flags...)
	w.apply("lesson/cluster-issuer.yaml")
	w.apply("lesson/certificate.yaml")
	w.apply("lesson/ingress-with-tls.yaml")
	w.issued("ingress-nginx")
	// That of the Ingress is named after its Secret, and stays when the Ingress goes, as nothing
	// collects garbage here.
	ofIngress := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: "payments", Name: "api-payments-tls"}}
	t.Cleanup(func() { _ = w.admin.Delete(context.Background(), ofIngress) })
	internet.Issued(w, w.admin, client.ObjectKeyFromObject(ofIngress), "api.payments.example.com")
	cluster.Eventually(w, func() error {
		if got := w.cloud.Values(zone, "_acme-challenge.api.payments.example.com"); len(got) > 0 {
			return cluster.NotYet("the zone has %q", got)
		}
		return nil
	})
	w.told("ingress-nginx", [][3]string{
		{"Certificate", "Issuing", "Issuing certificate as Secret does not exist"},
		{"Certificate", "Requested", "Created new CertificateRequest resource"},
		{"CertificateRequest", "OrderCreated", "Created Order resource ingress-nginx/wildcard-example-com-1-"},
		{"Order", "Created", "Created Challenge resource"},
		{"Challenge", "Presented", "Presented challenge using DNS-01"},
		{"Certificate", "Issuing", "The certificate has been successfully issued"},
	})
	calls := w.cloud.Calls()
	if slices.ContainsFunc(calls, func(c string) bool { return strings.HasPrefix(c, "AssumeRole ") }) {
		t.Error("the role was asked to assume itself")
	}
	if !slices.ContainsFunc(calls, func(c string) bool { return strings.HasPrefix(c, "GetChange ") }) {
		t.Error("the change was not waited for until it was INSYNC")
	}
}

func TestARoleOfAnotherAccountIsAssumed(t *testing.T) {
	w := start(t)
	const other = "arn:aws:iam::999999999999:role/dns"
	w.cloud.Trust = map[string][]string{other: {lessonRole}}
	w.cloud.Access = map[string][]string{zone: {other}}
	cluster.Process(t, w.env, w.flags...)
	namespace := cluster.Namespace(t)
	w.apply("lesson/cluster-issuer.yaml", lessonRole, other)
	w.apply("lesson/certificate.yaml", "namespace: ingress-nginx", "namespace: "+namespace)
	w.issued(namespace)
}

func TestARoleWithAPathThatThePodHasAlreadyIsNotAssumed(t *testing.T) {
	const role = "arn:aws:iam::123456789012:role/platform/cert-manager-dns01-role"
	w := start(t, func(c *aws.Cloud) { c.Pod = role })
	w.env = slices.DeleteFunc(w.env, func(v string) bool { return strings.HasPrefix(v, "AWS_ROLE_ARN=") })
	for i, v := range w.env { // as EKS sets it for a pod identity, in place of what IRSA has
		if file, found := strings.CutPrefix(v, "AWS_WEB_IDENTITY_TOKEN_FILE="); found {
			w.env[i] = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=" + file
		}
	}
	cluster.Process(t, append(w.env, "AWS_CONTAINER_CREDENTIALS_FULL_URI="+w.cloud.Agent), w.flags...)
	namespace := cluster.Namespace(t)
	w.apply("lesson/cluster-issuer.yaml", lessonRole, role)
	w.apply("lesson/certificate.yaml", "namespace: ingress-nginx", "namespace: "+namespace)
	w.issued(namespace)
	if calls := w.cloud.Calls(); slices.ContainsFunc(
		calls,
		func(c string) bool { return strings.HasPrefix(c, "AssumeRole") },
	) {
		t.Errorf("a role was assumed: %q", calls)
	}
}

func TestWhatAWSRefusesStandsOnTheChallenge(t *testing.T) {
	w := start(t)
	w.cloud.Access = map[string][]string{zone: {"arn:aws:iam::1:role/another"}}
	cluster.Process(t, w.env, append(w.flags, "--v=2")...)
	namespace := cluster.Namespace(t)
	w.apply("lesson/cluster-issuer.yaml")
	w.apply("lesson/certificate.yaml", "namespace: ingress-nginx", "namespace: "+namespace)
	cluster.Eventually(t, func() error {
		if story := internet.Story(
			w,
			w.admin,
		); !strings.Contains(
			story,
			"there is no public hosted zone for _acme-challenge.example.com.",
		) {
			return cluster.NotYet("%s", story)
		}
		return nil
	})
}
