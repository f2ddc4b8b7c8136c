package http01

import (
	"net/http"
	"reflect"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

func TestASolverPodHasEveryFieldOfItsTemplate(t *testing.T) {
	template := &cmacme.ACMEChallengeSolverHTTP01IngressPodTemplate{
		ACMEChallengeSolverHTTP01IngressPodObjectMeta: cmacme.ACMEChallengeSolverHTTP01IngressPodObjectMeta{
			Labels: map[string]string{
				"team":                              "shop",
				cmacme.SolverIdentificationLabelKey: "no",
			},
			Annotations: map[string]string{"sidecar.istio.io/inject": "true", "note": "x"},
		},
		Spec: cmacme.ACMEChallengeSolverHTTP01IngressPodSpec{
			NodeSelector:       map[string]string{"disk": "ssd"},
			Affinity:           &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{}},
			Tolerations:        []corev1.Toleration{{Key: "k"}},
			PriorityClassName:  "high",
			ServiceAccountName: "solver",
			ImagePullSecrets:   []corev1.LocalObjectReference{{Name: "pull"}},
			SecurityContext: &cmacme.ACMEChallengeSolverHTTP01IngressPodSecurityContext{
				SELinuxOptions: &corev1.SELinuxOptions{
					Level: "s0",
				},
				RunAsUser:    ptr.To[int64](1000),
				RunAsGroup:   ptr.To[int64](1001),
				RunAsNonRoot: ptr.To(false),
				SupplementalGroups: []int64{
					7,
				},
				FSGroup: ptr.To[int64](1002),
				Sysctls: []corev1.Sysctl{{Name: "net.core.somaxconn", Value: "1"}},
				FSGroupChangePolicy: ptr.To(
					corev1.FSGroupChangeOnRootMismatch,
				),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined},
			},
			Resources: &cmacme.ACMEChallengeSolverHTTP01IngressPodResources{
				Limits:   resources("1", "1Gi"),
				Requests: resources("2m", "2Mi"),
			},
		},
	}
	// Fields that are added to the template must be added here, and above.
	for _, part := range []any{template.ACMEChallengeSolverHTTP01IngressPodObjectMeta, template.Spec,
		*template.Spec.SecurityContext, *template.Spec.Resources} {
		for v, i := reflect.ValueOf(part), 0; i < v.NumField(); i++ {
			if v.Field(i).IsZero() {
				t.Fatalf("the test leaves out %s.%s", v.Type(), v.Type().Field(i).Name)
			}
		}
	}
	for what, set := range map[string]func(*cmacme.ACMEChallengeSolverHTTP01){
		"ingress": func(s *cmacme.ACMEChallengeSolverHTTP01) { s.Ingress.PodTemplate = template },
		"gatewayHTTPRoute": func(s *cmacme.ACMEChallengeSolverHTTP01) {
			s.Ingress, s.GatewayHTTPRoute = nil, &cmacme.ACMEChallengeSolverHTTP01GatewayHTTPRoute{PodTemplate: template}
		},
	} {
		t.Run(what, func(t *testing.T) {
			ch := challenge("a.example.com")
			set(ch.Spec.Solver.HTTP01)
			pod := podOf(ch, PodSettings{Image: "perennial", RuntimeClass: "gvisor"})
			spec, c, want := pod.Spec, pod.Spec.SecurityContext, template.Spec.SecurityContext
			for field, same := range map[string]bool{
				"labels":             pod.Labels["team"] == "shop" && pod.Labels[cmacme.SolverIdentificationLabelKey] == "true",
				"annotations":        pod.Annotations["note"] == "x" && pod.Annotations["sidecar.istio.io/inject"] == "true" && pod.Annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "true",
				"nodeSelector":       spec.NodeSelector["disk"] == "ssd" && spec.NodeSelector[corev1.LabelOSStable] == "linux",
				"affinity":           spec.Affinity != nil && spec.Affinity.NodeAffinity != nil,
				"tolerations":        equality.Semantic.DeepEqual(spec.Tolerations, template.Spec.Tolerations),
				"priorityClassName":  spec.PriorityClassName == "high",
				"serviceAccountName": spec.ServiceAccountName == "solver",
				"imagePullSecrets":   len(spec.ImagePullSecrets) == 1 && spec.ImagePullSecrets[0].Name == "pull",
				"resources.limits":   equality.Semantic.DeepEqual(spec.Containers[0].Resources.Limits, template.Spec.Resources.Limits),
				"resources.requests": equality.Semantic.DeepEqual(spec.Containers[0].Resources.Requests, template.Spec.Resources.Requests),
				"runtime class":      *spec.RuntimeClassName == "gvisor",
				"seLinuxOptions":     c.SELinuxOptions == want.SELinuxOptions, "runAsUser": *c.RunAsUser == 1000, "runAsGroup": *c.RunAsGroup == 1001,
				"runAsNonRoot":       !*c.RunAsNonRoot && !*spec.Containers[0].SecurityContext.RunAsNonRoot,
				"supplementalGroups": len(c.SupplementalGroups) == 1, "fsGroup": *c.FSGroup == 1002, "sysctls": len(c.Sysctls) == 1,
				"fsGroupChangePolicy": *c.FSGroupChangePolicy == corev1.FSGroupChangeOnRootMismatch,
				"seccompProfile":      c.SeccompProfile.Type == corev1.SeccompProfileTypeUnconfined,
			} {
				if !same {
					t.Errorf("%s is not as the template says: %+v", field, pod)
				}
			}
		})
	}
}

func TestASolverPodMayDoNothingByDefault(t *testing.T) {
	pod := podOf(challenge("a.example.com"), PodSettings{Image: "perennial"})
	c := pod.Spec.Containers[0]
	if *pod.Spec.AutomountServiceAccountToken || !*c.SecurityContext.RunAsNonRoot ||
		*c.SecurityContext.AllowPrivilegeEscalation ||
		!*c.SecurityContext.ReadOnlyRootFilesystem ||
		pod.Spec.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault ||
		c.Resources.Limits.Memory().String() != "64Mi" ||
		c.Resources.Requests.Cpu().String() != "10m" {
		t.Errorf("it is %+v", pod.Spec)
	}
	if c := podOf(challenge("a.example.com"),
		PodSettings{RunAsRoot: true}).Spec.Containers[0]; *c.SecurityContext.RunAsNonRoot {
		t.Error("it cannot run as root")
	}
}

// TestAPodThatIsChangedAsItIsMadeStaysSo has an admission webhook that takes images from a mirror,
// as many clusters have.
func TestAPodThatIsChangedAsItIsMadeStaysSo(t *testing.T) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{cmacme.AddToScheme, clientgoscheme.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s := &Solver{
		Direct: fake.NewClientBuilder().
			WithScheme(scheme).
			Build(),
		Mode: cmacme.HTTP01SolverModePod,
		Pods: PodSettings{Image: "registry.example/perennial:1"},
		Site: site(t, "192.0.2.1", http.NotFoundHandler(), nil),
		Now:  func() time.Time { return now },
	}
	ch := challenge("a.example.com")
	if err := s.Present(t.Context(), nil, ch); err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{}
	key := client.ObjectKey{Namespace: ch.Namespace, Name: nameOf(ch)}
	if err := s.Direct.Get(t.Context(), key, pod); err != nil {
		t.Fatal(err)
	}
	pod.Spec.Containers[0].Image = "mirror.example/perennial:1"
	if err := s.Direct.Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	now = now.Add(again)
	if seen, err := s.Check(t.Context(), nil, ch); err != nil || seen.Visible {
		t.Fatalf("got %+v, %v", seen, err)
	}
	if err := s.Direct.Get(
		t.Context(),
		key,
		pod,
	); err != nil ||
		pod.Spec.Containers[0].Image != "mirror.example/perennial:1" {
		t.Errorf("the image is now %s, %v", pod.Spec.Containers[0].Image, err)
	}
	// A deleted pod is created again.
	if err := s.Direct.Delete(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	now = now.Add(again)
	if _, err := s.Check(t.Context(), nil, ch); err != nil {
		t.Fatal(err)
	}
	if err := s.Direct.Get(t.Context(), key, pod); err != nil {
		t.Error(err)
	}
}
