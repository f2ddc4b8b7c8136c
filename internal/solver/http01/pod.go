package http01

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

// PodSettings are the defaults of solver pods. A podTemplate overrides them.
type PodSettings struct {
	// Image has the program perennial as its entry point. Without it there are no solver pods.
	Image string
	// Requests and Limits are CPU and memory. If nil, they are DefaultRequests and DefaultLimits.
	Requests, Limits corev1.ResourceList
	// RunAsRoot lets the container run as root.
	RunAsRoot bool
	// RuntimeClass is the RuntimeClass of the pods. If empty, the cluster's default applies.
	RuntimeClass string
}

// DefaultRequests returns the default resource requests of a solver pod.
func DefaultRequests() corev1.ResourceList { return resources("10m", "64Mi") }

// DefaultLimits returns the default resource limits of a solver pod.
func DefaultLimits() corev1.ResourceList { return resources("100m", "64Mi") }

func resources(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse(cpu),
		corev1.ResourceMemory: resource.MustParse(memory),
	}
}

// podLabels returns the labels that the Service of a Challenge selects.
func podLabels(ch *cmacme.Challenge) map[string]string { return metadata(ch).Labels }

// podOf returns the Pod that answers for a Challenge.
func podOf(ch *cmacme.Challenge, settings PodSettings) *corev1.Pod {
	limits, requests := settings.Limits, settings.Requests
	if limits == nil {
		limits = DefaultLimits()
	}
	if requests == nil {
		requests = DefaultRequests()
	}
	o := &corev1.Pod{ObjectMeta: metadata(ch), Spec: corev1.PodSpec{
		AutomountServiceAccountToken: ptr.To(false),
		EnableServiceLinks:           ptr.To(false),
		NodeSelector:                 map[string]string{corev1.LabelOSStable: "linux"},
		RestartPolicy:                corev1.RestartPolicyOnFailure,
		SecurityContext: &corev1.PodSecurityContext{
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Containers: []corev1.Container{{
			Name: "acmesolver", Image: settings.Image, ImagePullPolicy: corev1.PullIfNotPresent,
			Args: []string{
				"http01-solver",
				fmt.Sprintf("--listen-address=:%d", port),
				"--domain=" + ch.Spec.DNSName,
				"--token=" + ch.Spec.Token,
				"--key=" + ch.Spec.Key,
			},
			Ports:     []corev1.ContainerPort{{Name: "http", ContainerPort: port}},
			Resources: corev1.ResourceRequirements{Limits: limits, Requests: requests},
			ReadinessProbe: &corev1.Probe{
				ProbeHandler: corev1.ProbeHandler{
					HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(port)},
				},
				PeriodSeconds: 2,
			},
			SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: ptr.To(
					false,
				),
				ReadOnlyRootFilesystem: ptr.To(true),
				RunAsNonRoot:           ptr.To(!settings.RunAsRoot),
				Capabilities:           &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			},
		}},
	}}
	if settings.RuntimeClass != "" {
		o.Spec.RuntimeClassName = &settings.RuntimeClass
	}
	o.Annotations = map[string]string{
		"sidecar.istio.io/inject":                        "false",
		"cluster-autoscaler.kubernetes.io/safe-to-evict": "true",
	}
	var t *cmacme.ACMEChallengeSolverHTTP01IngressPodTemplate
	if i := ch.Spec.Solver.HTTP01.Ingress; i != nil {
		t = i.PodTemplate
	} else if r := ch.Spec.Solver.HTTP01.GatewayHTTPRoute; r != nil {
		t = r.PodTemplate
	}
	if t == nil {
		return o
	}
	maps.Copy(o.Annotations, t.Annotations)
	for k, v := range t.Labels {
		if _, ours := o.Labels[k]; !ours { // the Service selects by ours
			o.Labels[k] = v
		}
	}
	spec := &t.Spec
	maps.Copy(o.Spec.NodeSelector, spec.NodeSelector)
	o.Spec.Affinity, o.Spec.Tolerations = spec.Affinity, spec.Tolerations
	o.Spec.PriorityClassName, o.Spec.ServiceAccountName = spec.PriorityClassName, spec.ServiceAccountName
	o.Spec.ImagePullSecrets = spec.ImagePullSecrets
	if r := spec.Resources; r != nil {
		if r.Limits != nil {
			o.Spec.Containers[0].Resources.Limits = r.Limits
		}
		if r.Requests != nil {
			o.Spec.Containers[0].Resources.Requests = r.Requests
		}
	}
	if c := spec.SecurityContext; c != nil {
		o.Spec.SecurityContext = &corev1.PodSecurityContext{
			SELinuxOptions:      c.SELinuxOptions,
			RunAsUser:           c.RunAsUser,
			RunAsGroup:          c.RunAsGroup,
			RunAsNonRoot:        c.RunAsNonRoot,
			SupplementalGroups:  c.SupplementalGroups,
			FSGroup:             c.FSGroup,
			Sysctls:             c.Sysctls,
			FSGroupChangePolicy: c.FSGroupChangePolicy,
			SeccompProfile:      c.SeccompProfile,
		}
		if c.RunAsNonRoot != nil { // what the container says comes first
			o.Spec.Containers[0].SecurityContext.RunAsNonRoot = c.RunAsNonRoot
		}
	}
	return o
}

// whyNot says why a pod does not run. It is empty if the pod runs.
func whyNot(pod *corev1.Pod) string {
	for _, c := range pod.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil && w.Reason != "" {
			return strings.TrimSpace(w.Reason + " " + w.Message)
		}
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return strings.TrimSpace(c.Reason + " " + c.Message)
		}
	}
	if pod.Status.Phase != corev1.PodRunning {
		return "it is " + string(pod.Status.Phase)
	}
	return ""
}

// Command returns the command perennial http01-solver, which solver pods run.
func Command() *cobra.Command {
	var address, domain, token, key string
	cmd := &cobra.Command{
		Use:   "http01-solver",
		Short: "Answer one HTTP-01 challenge; what solver pods run",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			server := &http.Server{
				Addr: address,
				Handler: answer(func(_ *http.Request, asked, host string) (string, error) {
					if asked == token && sameHost(host, domain) {
						return key, nil
					}
					return "", nil
				}),
				ReadHeaderTimeout: 5 * time.Second,
				ReadTimeout:       10 * time.Second,
				WriteTimeout:      10 * time.Second,
				MaxHeaderBytes:    16 << 10,
			}
			ended := make(chan error, 1)
			go func() { ended <- server.ListenAndServe() }()
			select {
			case err := <-ended:
				return fmt.Errorf("answer HTTP-01 challenges: %w", err)
			case <-cmd.Context().Done():
				return server.Close()
			}
		},
	}
	f := cmd.Flags()
	f.StringVar(&address, "listen-address", fmt.Sprintf(":%d", port), "host:port to answer on")
	f.StringVar(&domain, "domain", "", "host that is asked for")
	f.StringVar(&token, "token", "", "token of the challenge, the last part of the path "+acme.HTTP01Path("TOKEN"))
	f.StringVar(&key, "key", "", "key authorization to answer with")
	for _, name := range []string{"domain", "token", "key"} {
		_ = cmd.MarkFlagRequired(name)
	}
	return cmd
}
