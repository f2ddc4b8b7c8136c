package chart_test

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/chart"
	"github.com/perennial-pki/perennial/test/cluster"
)

const namespace = "perennial-system"

// site is an empty cluster into which the chart is installed.
type site struct {
	*testing.T
	plane *cluster.ControlPlane
	admin client.Client
}

func newSite(t *testing.T) *site {
	t.Helper()
	plane := cluster.EmptyPlane(t)
	scheme := controller.Scheme()
	if err := apiextensionsv1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	admin, err := client.New(plane.AdminConfig(), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return &site{T: t, plane: plane, admin: admin}
}

// helm runs Helm in the cluster.
func (s *site) helm(args ...string) (string, error) {
	s.Helper()
	return chart.Helm(s.Context(), append(args, "--kubeconfig", s.plane.KubeconfigPath())...)
}

// must is helm, which must succeed.
func (s *site) must(args ...string) string {
	s.Helper()
	out, err := s.helm(args...)
	if err != nil {
		s.Fatal(err)
	}
	return out
}

func (s *site) install(args ...string) string {
	s.Helper()
	return s.must(append([]string{"install", "perennial", dir(s.T), "--namespace", namespace, "--create-namespace"},
		args...)...)
}

func (s *site) create(o client.Object) {
	s.Helper()
	if err := s.admin.Create(s.Context(), o); err != nil {
		s.Fatal(err)
	}
}

func (s *site) get(key client.ObjectKey, o client.Object) {
	s.Helper()
	if err := s.admin.Get(s.Context(), key, o); err != nil {
		s.Fatal(err)
	}
}

// run runs the controller of the release, and returns a function that stops it.
func (s *site) run() (stop func()) {
	s.Helper()
	return s.runOf(namespace, "perennial")
}

// runOf runs a controller as its Deployment says, but without its ports.
func (s *site) runOf(namespace, name string) (stop func()) {
	s.Helper()
	d := &appsv1.Deployment{}
	s.get(client.ObjectKey{Namespace: namespace, Name: name}, d)
	pod := d.Spec.Template.Spec
	args := append(pod.Containers[0].Args, "--kubeconfig="+s.plane.Kubeconfig(s, namespace, pod.ServiceAccountName),
		"--metrics-listen-address=", "--health-listen-address=", "--http01-listen-address=")
	if at := slices.Index(args, "--config=/etc/perennial/config.yaml"); at >= 0 {
		file := &corev1.ConfigMap{}
		s.get(client.ObjectKey{Namespace: namespace, Name: name}, file)
		path := filepath.Join(s.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte(file.Data["config.yaml"]), 0o600); err != nil {
			s.Fatal(err)
		}
		args[at] = "--config=" + path
	}
	var output bytes.Buffer
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, cluster.Program(s), args...)
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		_ = cmd.Wait()
		if s.Failed() {
			s.Log(output.String())
		}
	}
	s.Cleanup(stop)
	return stop
}

// issue requests a certificate of a self-signed ClusterIssuer, and waits until it is Ready.
func (s *site) issue(name string) *cmapi.Certificate {
	s.Helper()
	issuer := &cmapi.ClusterIssuer{ObjectMeta: metav1.ObjectMeta{Name: "selfsigned"},
		Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}}}
	if err := s.admin.Create(s.Context(), issuer); client.IgnoreAlreadyExists(err) != nil {
		s.Fatal(err)
	}
	return s.issueIn("default", name, cmmeta.IssuerReference{Kind: "ClusterIssuer", Name: issuer.Name})
}

// issueIn requests a certificate, and waits until it is Ready.
func (s *site) issueIn(namespace, name string, issuer cmmeta.IssuerReference) *cmapi.Certificate {
	s.Helper()
	crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: cmapi.CertificateSpec{SecretName: name, DNSNames: []string{"www.example.com"}, IssuerRef: issuer}}
	s.create(crt)
	cluster.Eventually(s, func() error {
		if err := s.admin.Get(s.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		if ready := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionReady); ready == nil ||
			ready.Status != cmmeta.ConditionTrue {
			return cluster.NotYet("%+v", crt.Status.Conditions)
		}
		return nil
	})
	return crt
}

// TestTheChartLivesThroughItsWholeLife installs, upgrades, rolls back and uninstalls the chart. In
// between, the controller runs with its arguments and rights.
func TestTheChartLivesThroughItsWholeLife(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace,
		Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}}})
	notes := s.install()
	if !strings.Contains(notes, "kubectl rollout status --namespace perennial-system deployment/perennial") {
		t.Errorf("the notes do not say what is next:\n%s", notes)
	}

	// A Pod of the Deployment is admitted where Pods must be restricted. One that is not, is refused.
	d := &appsv1.Deployment{}
	s.get(client.ObjectKey{Namespace: namespace, Name: "perennial"}, d)
	pod := &corev1.Pod{ObjectMeta: d.Spec.Template.ObjectMeta, Spec: d.Spec.Template.Spec}
	pod.Namespace, pod.Name = namespace, "perennial"
	if err := s.admin.Create(t.Context(), pod.DeepCopy(), client.DryRunAll); err != nil {
		t.Errorf("the Pod is not admitted: %v", err)
	}
	loose := pod.DeepCopy()
	loose.Spec.Containers[0].SecurityContext.AllowPrivilegeEscalation = ptr.To(true)
	if err := s.admin.Create(t.Context(), loose, client.DryRunAll); !apierrors.IsForbidden(err) {
		t.Errorf("a Pod with fewer restrictions is answered with: %v", err)
	}

	stop := s.run()
	first := s.issue("first")
	s.unchanged()

	stop()
	s.must("upgrade", "perennial", dir(t), "--namespace", namespace, "--set", "replicaCount=3", "--set",
		"config.numberOfConcurrentWorkers=4", "--set", "featureGates=OtherNames=true")
	stop = s.run()
	s.get(client.ObjectKeyFromObject(d), d)
	if *d.Spec.Replicas != 3 {
		t.Errorf("there are %d replicas", *d.Spec.Replicas)
	}
	s.issue("second")
	s.must("rollback", "perennial", "1", "--namespace", namespace)
	s.get(client.ObjectKeyFromObject(d), d)
	if *d.Spec.Replicas != 2 {
		t.Errorf("there are %d replicas after the rollback", *d.Spec.Replicas)
	}
	s.issue("third")
	s.unchanged()
	stop()

	secret := &corev1.Secret{}
	s.get(client.ObjectKey{Namespace: "default", Name: "first"}, secret)
	s.must("uninstall", "perennial", "--namespace", namespace)
	if err := s.admin.Get(t.Context(), client.ObjectKeyFromObject(d), d); !apierrors.IsNotFound(err) {
		t.Errorf("the Deployment: %v", err)
	}
	after := &cmapi.Certificate{}
	s.get(client.ObjectKeyFromObject(first), after)
	kept := &corev1.Secret{}
	s.get(client.ObjectKeyFromObject(secret), kept)
	if after.UID != first.UID || kept.ResourceVersion != secret.ResourceVersion {
		t.Error("the Certificate or its Secret changed")
	}

	// The definitions that stayed belong to this release, so that it can be installed again.
	s.install()
	s.run()
	s.issue("fourth")
}

// unchanged compares the release with the cluster, as GitOps tools do.
func (s *site) unchanged() {
	s.Helper()
	manifest := s.must("get", "manifest", "perennial", "--namespace", namespace)
	if out := cluster.Kubectl(s, s.plane.KubeconfigPath())(manifest, "diff", "--server-side=false", "-f", "-"); out != "" {
		s.Errorf("the release and the cluster differ:\n%s", out)
	}
}

// TestKubectlInstallsTheManifest applies the manifest on the client's side, where it must fit into
// an annotation.
func TestKubectlInstallsTheManifest(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	root, err := cluster.Root()
	if err != nil {
		t.Fatal(err)
	}
	manifest := filepath.Join(root, "deploy/perennial.yaml")
	kubectl := cluster.Kubectl(t, s.plane.KubeconfigPath())
	kubectl("", "apply", "-f", manifest)
	s.run()
	s.issue("first")
	if out := kubectl("", "diff", "-f", manifest); out != "" {
		t.Errorf("the manifest and the cluster differ:\n%s", out)
	}
}

// TestTwoInstallationsServeANamespaceEach installs the chart twice into one cluster. The first
// brings what is of the whole cluster.
func TestTwoInstallationsServeANamespaceEach(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	flags := map[string][]string{
		"shop": nil,
		"bank": {"--set", "crds.enabled=false", "--set", "admissionPolicies.enabled=false"},
	}
	for _, tenant := range []string{"shop", "bank"} {
		s.must(append([]string{"install", tenant, dir(t), "--namespace", tenant, "--create-namespace", "--set",
			"watchNamespace=" + tenant}, flags[tenant]...)...)
		s.runOf(tenant, tenant+"-perennial")
		s.create(&cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: "selfsigned"},
			Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}}})
	}
	for _, tenant := range []string{"shop", "bank"} {
		s.issueIn(tenant, "site", cmmeta.IssuerReference{Name: "selfsigned"})
	}
	for _, test := range []struct {
		of, in string
		want   bool
	}{{"shop", "shop", true}, {"shop", "bank", false}, {"bank", "shop", false}, {"bank", "kube-system", false}} {
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: "system:serviceaccount:" + test.of + ":" + test.of + "-perennial-controller",
			ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "get", Resource: "secrets", Namespace: test.in,
				Name: "site"},
		}}
		s.create(review)
		if review.Status.Allowed != test.want {
			t.Errorf("the controller of %s may read Secrets of %s: %t", test.of, test.in, review.Status.Allowed)
		}
	}
}

func TestWhatTheClusterHasAlreadyIsNotOverwritten(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	refused := func(want string, args ...string) {
		t.Helper()
		if _, err := s.helm(args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Helm says %v, and not %q", err, want)
		}
	}

	// cert-manager runs.
	labels := map[string]string{"app.kubernetes.io/name": "cert-manager", "app.kubernetes.io/component": "controller"}
	incumbent := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "cert-manager", Name: "cert-manager", Labels: labels},
		Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "cert-manager-controller", Image: "cert-manager"}}}}},
	}
	s.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "cert-manager"}})
	s.create(incumbent)
	s.definitions(
		map[string]string{"meta.helm.sh/release-name": "cert-manager", "meta.helm.sh/release-namespace": "cert-manager"},
		map[string]string{"app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/version": "v1.21.2"},
	)
	installation := []string{"install", "perennial", dir(t), "--namespace", namespace, "--create-namespace"}
	refused(`cert-manager runs in this cluster: stop it with "kubectl scale --replicas=0 --namespace cert-manager `+
		`deployment cert-manager", then install again with --take-ownership --force-conflicts (Helm 3: `+
		`--take-ownership)`, installation...)
	s.nothingOf("perennial")
	incumbent.Spec.Replicas = ptr.To(int32(0))
	if err := s.admin.Update(t.Context(), incumbent); err != nil {
		t.Fatal(err)
	}
	s.must(append(installation, "--take-ownership", "--force-conflicts")...)

	// Perennial is there for the whole cluster.
	refused("Perennial serves the whole cluster already, as the release perennial in the namespace perennial-system: "+
		"upgrade that release", "install", "again", dir(t), "--namespace", "other", "--create-namespace")
	refused("Perennial serves the whole cluster already", "install", "shop", dir(t), "--namespace", "shop",
		"--create-namespace", "--set", "watchNamespace=shop")

	// The definitions are of a later version.
	s.definitions(map[string]string{"meta.helm.sh/release-name": "perennial", "meta.helm.sh/release-namespace": namespace},
		map[string]string{"app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/name": "perennial",
			"app.kubernetes.io/version": "999.0.0"})
	refused("in the cluster are of version 999.0.0, and those of this chart of version v0.1.0: install a later chart",
		"upgrade", "perennial", dir(t), "--namespace", namespace)
	s.must("upgrade", "perennial", dir(t), "--namespace", namespace, "--set", "crds.enabled=false")
}

// nothingOf expects that no object of a release is in the cluster.
func (s *site) nothingOf(release string) {
	s.Helper()
	var deployments appsv1.DeploymentList
	var accounts corev1.ServiceAccountList
	in := client.MatchingLabels{"app.kubernetes.io/instance": release}
	for _, list := range []client.ObjectList{&deployments, &accounts} {
		if err := s.admin.List(s.Context(), list, in); err != nil {
			s.Fatal(err)
		}
	}
	if len(deployments.Items)+len(accounts.Items) > 0 {
		s.Errorf("there are %d Deployments and %d ServiceAccounts", len(deployments.Items), len(accounts.Items))
	}
}

// definitions creates a definition of the name that matters, or sets its annotations and labels.
func (s *site) definitions(annotations, labels map[string]string) {
	s.Helper()
	crd := &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "certificates.cert-manager.io"}}
	err := s.admin.Get(s.Context(), client.ObjectKeyFromObject(crd), crd)
	if client.IgnoreNotFound(err) != nil {
		s.Fatal(err)
	}
	crd.Annotations, crd.Labels = annotations, labels
	if err == nil {
		if err := s.admin.Update(s.Context(), crd); err != nil {
			s.Fatal(err)
		}
		return
	}
	crd.Spec = apiextensionsv1.CustomResourceDefinitionSpec{
		Group: "cert-manager.io",
		Scope: apiextensionsv1.NamespaceScoped,
		Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "certificates", Singular: "certificate",
			Kind: "Certificate", ListKind: "CertificateList"},
		Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true,
			Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object",
				XPreserveUnknownFields: ptr.To(true)}}}},
	}
	s.create(crd)
}

func TestTheChartIsInstalledFromARegistry(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	images := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(images.Close)
	repository := "oci://" + strings.TrimPrefix(images.URL, "http://") + "/charts"
	archive, err := chart.Package(t.Context(), t.TempDir(), "v1.2.3+build.4")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chart.Helm(t.Context(), "push", archive, repository, "--plain-http"); err != nil {
		t.Fatal(err)
	}
	s.must("install", "perennial", repository+"/perennial", "--version", "1.2.3+build.4", "--plain-http",
		"--namespace", namespace, "--create-namespace")
	d := &appsv1.Deployment{}
	s.get(client.ObjectKey{Namespace: namespace, Name: "perennial"}, d)
	if image := d.Spec.Template.Spec.Containers[0].Image; image != "perennial-pki/perennial:v1.2.3-build.4" {
		t.Errorf("the image is %s", image)
	}
	for key := range d.Spec.Template.Labels {
		if key == "helm.sh/chart" || key == "app.kubernetes.io/version" {
			t.Errorf("each version of the chart replaces all Pods, as their template has the label %s", key)
		}
	}
}
