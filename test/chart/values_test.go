package chart_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/perennial-pki/perennial/test/chart"
)

// incumbent returns a file of values for cert-manager's chart.
func incumbent(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// find returns the object of a kind and name.
func (r rendered) find(t *testing.T, kind, name string) *unstructured.Unstructured {
	t.Helper()
	for _, o := range r {
		if o.GetKind() == kind && o.GetName() == name {
			return o
		}
	}
	t.Fatalf("there is no %s %s, but %v", kind, name, r.names(kind))
	return nil
}

// TestEachValueOfCertManagersChartHasItsEffect renders values that differ from all defaults, and
// looks for each in the objects.
func TestEachValueOfCertManagersChartHasItsEffect(t *testing.T) {
	t.Parallel()
	all := renders(t, incumbent(t, "certmanager-values.yaml"))
	d := all.deployment(t)
	pod := d.Spec.Template.Spec
	container := pod.Containers[0]
	has(t, "the arguments", strings.Join(container.Args, "\n")+"\n",
		"--v=1", "--leader-election-namespace=cert-manager", "--leader-election-lease-duration=90s",
		"--leader-election-renew-deadline=60s", "--leader-election-retry-period=20s",
		"--feature-gates=ServerSideApply=true,OtherNames=true", "--max-concurrent-challenges=20",
		"--cluster-resource-namespace=cert-manager-credentials", "--enable-certificate-owner-ref=true",
		"--config=/etc/perennial/config.yaml", "--dns01-recursive-nameservers=8.8.8.8:53,1.1.1.1:53",
		"--dns01-recursive-nameservers-only=true", "--default-issuer-name=letsencrypt", "--default-issuer-kind=ClusterIssuer",
		"--default-issuer-group=cert-manager.io", "--logging-format=json", "--controllers=*,-certificaterequests-approver",
		"--acme-http01-solver-image=registry.example.com/mirrored/perennial:v9.9.8\n",
	)
	// What is in the specification of the pod, as it is in the values.
	text, err := yaml.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	has(t, "the Deployment", string(text),
		"namespace: cert-manager\n", "image: registry.example.com/mirrored/perennial:v9.9.9\n", "imagePullPolicy: Always\n",
		"replicas: 3\n", "revisionHistoryLimit: 3\n", "maxSurge: 0\n", "priorityClassName: system-cluster-critical\n",
		"hostUsers: false\n", "runtimeClassName: gvisor\n", "pool: system\n", "kubernetes.io/arch: arm64\n",
		"kubernetes.io/os: linux\n", "team: platform\n", "- name: mirror\n", "serviceAccountName: issuer\n",
		"automountServiceAccountToken: false\n", "name: SOME_VAR\n", "name: beside\n", "cpu: 10m\n", "fsGroup: 1001\n",
		"runAsUser: 1001\n", `example.com/deployment: "1"`, `example.com/pod: "1"`, `azure.workload.identity/use: "true"`,
		"dnsPolicy: None\n", "- 192.0.2.53\n", "- ca.example.com\n", "key: dedicated\n", "maxSkew: 2\n", "nodeAffinity:",
		"initialDelaySeconds: 11\n", "periodSeconds: 12\n", "timeoutSeconds: 13\n", "failureThreshold: 9\n",
		"enableServiceLinks: true\n", "value: http://proxy.example.com:3128\n", "value: 10.0.0.0/8,.example.com\n",
	)
	if strings.Contains(string(text), "podAntiAffinity") {
		t.Error("the affinity of the values is not the only one")
	}
	paths := map[string]int{}
	for _, m := range container.VolumeMounts {
		paths[m.MountPath]++
	}
	if paths["/var/run/secrets/kubernetes.io/serviceaccount"] != 1 || paths["/etc/perennial"] != 1 {
		t.Errorf("the mounts are %v", container.VolumeMounts)
	}
	for _, test := range []struct {
		kind, name string
		want       []string
	}{
		{"ServiceAccount", "issuer", []string{`"eks.amazonaws.com/role-arn":"arn:aws:iam::1:role/perennial"`,
			`"azure.workload.identity/use":"true"`, `"automountServiceAccountToken":false`, `"imagePullSecrets":[{"name":"mirror"}]`}},
		{"Service", "tls", []string{`"example.com/service":"1"`, `"ipFamilyPolicy":"RequireDualStack"`, `["IPv6","IPv4"]`,
			`"namespace":"cert-manager"`}},
		{"PodDisruptionBudget", "tls", []string{`"minAvailable":1`, `"unhealthyPodEvictionPolicy":"IfHealthyBudget"`}},
		{"NetworkPolicy", "tls", []string{`"egress":[{"ports":[{"port":443`, `"ingress":[{"from"`}},
		{"ServiceMonitor", "tls", []string{`"namespace":"monitoring"`, `"prometheus":"main"`, `"targetPort":9402`,
			`"interval":"30s"`, `"scrapeTimeout":"20s"`, `"release":"prometheus"`, `"honorLabels":true`, `"relabelings":[]`,
			`"example.com/monitor":"1"`, `"matchNames":["cert-manager"]`}},
		{"ConfigMap", "tls", []string{`numberOfConcurrentWorkers: 20`}},
		{"ConfigMap", "tls-extra", nil},
		{"ClusterRole", "perennial-controller:approval", []string{`"resourceNames":["issuers.cert-manager.io/*"]`}},
		{"Role", "perennial-controller:leader-election", []string{`"namespace":"cert-manager"`}},
		{"CustomResourceDefinition", "certificates.cert-manager.io", []string{`"team":"platform"`}},
	} {
		object, err := json.Marshal(all.find(t, test.kind, test.name))
		if err != nil {
			t.Fatal(err)
		}
		has(t, "the "+test.kind+" "+test.name, string(object), test.want...)
	}
	for key := range all.find(t, "ClusterRole", "perennial-view").GetLabels() {
		if strings.HasPrefix(key, "rbac.authorization.k8s.io/") {
			t.Errorf("the role view is aggregated: %s", key)
		}
	}
}

// has expects that a text contains others.
func has(t *testing.T, what, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("%s lacks %q:\n%s", what, strings.TrimSpace(want), text)
		}
	}
}

func TestTheRecommendedValuesOfCertManagerWork(t *testing.T) {
	t.Parallel()
	all := renders(t, incumbent(t, "bestpractice-values.yaml"))
	pod := all.deployment(t).Spec.Template.Spec
	var token []string
	for _, v := range pod.Volumes {
		if v.Projected != nil {
			token = append(token, v.Name)
		}
	}
	if !slices.Equal(token, []string{"serviceaccount-token"}) {
		t.Errorf("the projected volumes are %v", token)
	}
	if pod.PriorityClassName != "system-cluster-critical" {
		t.Errorf("the priority class is %q", pod.PriorityClassName)
	}
}

// TestTheSchemaKnowsTheSameValues compares values.yaml with its schema. The schema also accepts
// values of cert-manager's chart that have no default here.
func TestTheSchemaKnowsTheSameValues(t *testing.T) {
	t.Parallel()
	read := func(name string) (m map[string]any) {
		text, err := os.ReadFile(filepath.Join(dir(t), name))
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(text, &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	var compare func(path string, values, schema map[string]any)
	compare = func(path string, values, schema map[string]any) {
		properties, _ := schema["properties"].(map[string]any)
		if properties == nil {
			return // free
		}
		for key := range values {
			property, known := properties[key].(map[string]any)
			if !known {
				t.Errorf("the schema lacks %s%s", path, key)
				continue
			}
			if below, ok := values[key].(map[string]any); ok {
				compare(path+key+".", below, property)
			}
		}
		for key := range properties {
			if _, known := values[key]; !known && path+key != "verticalPodAutoscaler" && path+key != "acmesolver.image.name" {
				t.Errorf("values.yaml lacks %s%s", path, key)
			}
		}
	}
	compare("", read("values.yaml"), read("values.schema.json"))
}

// TestAnUpgradeWithOldValuesRenders leaves out blocks of values, as helm upgrade --reuse-values
// does for those that the release before did not have.
func TestAnUpgradeWithOldValuesRenders(t *testing.T) {
	t.Parallel()
	want := renders(t, "")
	blocks := []string{"http01", "tlsalpn01", "trust", "admissionPolicies", "podDisruptionBudget", "acmesolver"}
	for _, block := range blocks {
		all := renders(t, block+": null")
		if len(all) != len(want) {
			t.Errorf("without %s there are %d objects, and %d with it", block, len(all), len(want))
		}
	}
}

func TestANamespacedInstallationHasNoRightsToOtherSecrets(t *testing.T) {
	t.Parallel()
	all := renders(t, "{watchNamespace: shop, crds: {enabled: false}, admissionPolicies: {enabled: false}}",
		"--namespace", "shop")
	for _, o := range all {
		switch o.GetKind() {
		case "ClusterRole":
			if text, _ := json.Marshal(o); strings.Contains(string(text), `"secrets"`) ||
				strings.Contains(string(text), `"configmaps"`) {
				t.Errorf("%s has rights to Secrets or ConfigMaps", o.GetName())
			}
		case "Role":
			if o.GetNamespace() != "shop" {
				t.Errorf("%s is in the namespace %s", o.GetName(), o.GetNamespace())
			}
		case "CustomResourceDefinition", "ValidatingAdmissionPolicy":
			t.Errorf("there is the %s %s", o.GetKind(), o.GetName())
		}
	}
	other := renders(t, "{watchNamespace: bank, crds: {enabled: false}, admissionPolicies: {enabled: false}}",
		"--namespace", "bank")
	for _, o := range other {
		if o.GetNamespace() == "" && slices.ContainsFunc(all, func(a *unstructured.Unstructured) bool {
			return a.GetKind() == o.GetKind() && a.GetName() == o.GetName() && a.GetNamespace() == ""
		}) {
			t.Errorf("both have the %s %s", o.GetKind(), o.GetName())
		}
	}
	args := all.deployment(t).Spec.Template.Spec.Containers[0].Args
	for _, flag := range []string{"--namespace", "--leader-election-namespace", "--cluster-resource-namespace"} {
		want := flag + "=shop"
		if !slices.Contains(args, want) {
			t.Errorf("the arguments lack %s: %v", want, args)
		}
	}
}

func TestRightsGoWithTheirFeatures(t *testing.T) {
	t.Parallel()
	role := func(feature string) string { return "perennial-controller:" + feature }
	for name, test := range map[string]struct {
		values      string
		with, witho []string
	}{
		"by default": {"", []string{"http01", "trust", "injection", "approval", "certificatesigningrequests"},
			[]string{"http01-pods"}},
		"solver pods":              {"http01: {pods: true}", []string{"http01-pods"}, nil},
		"solver pods everywhere":   {"http01: {solverMode: Pod}", []string{"http01-pods"}, nil},
		"no HTTP-01":               {"http01: {enabled: false}", nil, []string{"http01", "http01-pods"}},
		"no HTTP-01, as elsewhere": {"global: {rbac: {disableHTTPChallengesRole: true}}", nil, []string{"http01"}},
		"no trust":                 {"trust: {enabled: false}", []string{"limits"}, []string{"trust"}},
		"no injection":             {"cainjector: {enabled: false}", nil, []string{"injection"}},
		"another approver":         {"disableAutoApproval: true", nil, []string{"approval"}},
		"none": {"global: {rbac: {create: false}}", nil,
			[]string{"certificates", "cluster", "leader-election"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := renders(t, test.values)
			names := append(all.names("ClusterRole"), all.names("Role")...)
			for _, feature := range test.with {
				if !slices.Contains(names, role(feature)) {
					t.Errorf("there is no role for %s: %v", feature, names)
				}
			}
			for _, feature := range test.witho {
				if slices.Contains(names, role(feature)) {
					t.Errorf("there is a role for %s", feature)
				}
			}
		})
	}
}

func TestCertManagersNamesCanBeAdded(t *testing.T) {
	t.Parallel()
	all := renders(t, "certManagerNames: true")
	if c := all.deployment(t).Spec.Template.Spec.Containers[0]; c.Name != "cert-manager-controller" {
		t.Errorf("the container is called %s", c.Name)
	}
	for kind, names := range map[string][]string{
		"ServiceAccount": {"cert-manager"},
		"Service":        {"cert-manager"},
		"ClusterRole": {"cert-manager-view", "cert-manager-edit", "cert-manager-cluster-view",
			"cert-manager-controller-approve:cert-manager-io", "perennial-view"},
	} {
		for _, name := range names {
			all.find(t, kind, name)
		}
	}
}

// TestTheNotesNameValuesWithoutEffect reads what Helm prints after an installation.
func TestTheNotesNameValuesWithoutEffect(t *testing.T) {
	t.Parallel()
	notes, err := chart.Helm(t.Context(), "install", "perennial", dir(t), "--dry-run=client", "--namespace", namespace,
		"--values", valuesFile(t, incumbent(t, "certmanager-values.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	_, notes, _ = strings.Cut(notes, "\nNOTES:\n")
	for _, want := range []string{"- webhook:", "- startupapicheck:", "- cainjector, except enabled:",
		"- global.podSecurityPolicy:", "- acmesolver.image.pullPolicy:",
		"kubectl rollout status --namespace cert-manager deployment/tls"} {
		if !strings.Contains(notes, want) {
			t.Errorf("the notes lack %q:\n%s", want, notes)
		}
	}
	notes, err = chart.Helm(t.Context(), "install", "perennial", dir(t), "--dry-run=client")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(notes, "Values without effect") {
		t.Errorf("the defaults have no effect:\n%s", notes)
	}
}

func TestThePodsAreRestricted(t *testing.T) {
	t.Parallel()
	pod := renders(t, "").deployment(t).Spec.Template.Spec
	container := pod.Containers[0]
	if s := pod.SecurityContext; s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.RunAsUser != nil ||
		s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("the pod has the security context %+v", pod.SecurityContext)
	}
	if s := container.SecurityContext; s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation ||
		s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem || s.Capabilities == nil ||
		!slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		t.Errorf("the container has the security context %+v", container.SecurityContext)
	}
	if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
		t.Error("the token is mounted by Kubernetes")
	}
	if m := container.VolumeMounts; len(m) != 1 || m[0].MountPath != "/var/run/secrets/kubernetes.io/serviceaccount" {
		t.Errorf("the mounts are %v", container.VolumeMounts)
	}
}
