package v1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ACMEChallengeSolver says how control of names is proven, and for which names. Exactly one of
// http01, dns01 and tlsALPN01 is set.
//
// +kubebuilder:validation:XValidation:rule=`[has(self.http01), has(self.dns01), has(self.tlsALPN01)].filter(set, set).size() == 1`,message=`exactly one of http01, dns01 and tlsALPN01 must be set`
type ACMEChallengeSolver struct {
	// Which names the solver is for. If left out, it is for all names, at the lowest priority.
	// +optional
	Selector *CertificateDNSNameSelector `json:"selector,omitempty"`

	// By an HTTP resource (RFC 8555 section 8.3). Not for wildcards.
	// +optional
	HTTP01 *ACMEChallengeSolverHTTP01 `json:"http01,omitempty"`

	// By a DNS record (RFC 8555 section 8.4).
	// +optional
	DNS01 *ACMEChallengeSolverDNS01 `json:"dns01,omitempty"`

	// Perennial's own. By a TLS handshake on port 443 (RFC 8737). The controller must receive that
	// connection. Not for wildcards.
	// +optional
	TLSALPN01 *ACMEChallengeSolverTLSALPN01 `json:"tlsALPN01,omitempty"`

	// Perennial's own. How long to wait between the controller's own successful check and the server's
	// validation, such as 30s. For DNS services that publish records at some locations later than at
	// others.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`self == '0' || (self.matches('^[+]?(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+$') && duration(self) >= duration('0s'))`,message=`waitForRecordToPropagate must be a number, not negative, with the unit h, m or s, such as 30s`
	WaitForRecordToPropagate *metav1.Duration `json:"waitForRecordToPropagate,omitempty"`

	// How long to wait between presenting the challenge and the server's validation, such as 30s, in
	// place of the controller's own check. For networks where the controller cannot see what the
	// server sees. 0s does not wait.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`self == '0' || (self.matches('^[+]?(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+$') && duration(self) >= duration('0s'))`,message=`waitInsteadOfSelfCheck must be a number, not negative, with the unit h, m or s, such as 30s`
	WaitInsteadOfSelfCheck *metav1.Duration `json:"waitInsteadOfSelfCheck,omitempty"`
}

// ACMEChallengeSolverTLSALPN01 solves challenges in TLS handshakes. The service that receives port
// 443 must forward connections that offer the protocol acme-tls/1 to the controller.
type ACMEChallengeSolverTLSALPN01 struct{}

// CertificateDNSNameSelector says which names a solver is for. All fields that are set must match.
// Among solvers that match, the most specific one is used: a name in dnsNames before a zone in
// dnsZones, a longer zone before a shorter one, then more labels, then the earlier place in the
// list of solvers.
type CertificateDNSNameSelector struct {
	// Labels that the Certificate must have.
	// +optional
	MatchLabels map[string]string `json:"matchLabels,omitempty"`

	// Names, exactly as in the certificate.
	// +optional
	// +listType=atomic
	DNSNames []string `json:"dnsNames,omitempty"`

	// DNS zones. They match names that are one of these or below one.
	// +optional
	// +listType=atomic
	DNSZones []string `json:"dnsZones,omitempty"`
}

// ACMEChallengeSolverHTTP01 says how requests of the ACME server are routed to the controller.
// Exactly one of ingress and gatewayHTTPRoute is set.
//
// +kubebuilder:validation:XValidation:rule=`has(self.ingress) != has(self.gatewayHTTPRoute)`,message=`exactly one of ingress and gatewayHTTPRoute must be set`
type ACMEChallengeSolverHTTP01 struct {
	// By an Ingress.
	// +optional
	Ingress *ACMEChallengeSolverHTTP01Ingress `json:"ingress,omitempty"`

	// By an HTTPRoute of the Gateway API.
	// +optional
	GatewayHTTPRoute *ACMEChallengeSolverHTTP01GatewayHTTPRoute `json:"gatewayHTTPRoute,omitempty"`

	// Perennial's own. What answers the requests: Shared, the controller itself, or Pod, a pod that is
	// created for the challenge in its namespace, for load balancers and meshes that reach only pods
	// of their own namespace. If left out, the flag --http01-solver-mode of the controller decides.
	// +optional
	SolverMode HTTP01SolverMode `json:"solverMode,omitempty"`
}

// HTTP01SolverMode says what answers an HTTP-01 challenge.
// +kubebuilder:validation:Enum=Shared;Pod
type HTTP01SolverMode string

const (
	// HTTP01SolverModeShared means that the replicas of the controller answer.
	HTTP01SolverModeShared HTTP01SolverMode = "Shared"
	// HTTP01SolverModePod means that a pod answers that is created for the challenge.
	HTTP01SolverModePod HTTP01SolverMode = "Pod"
)

// ACMEChallengeSolverHTTP01Ingress says which Ingress routes requests to the controller. At most
// one of ingressClassName, class and name is set.
//
// +kubebuilder:validation:XValidation:rule=`[has(self.ingressClassName), has(self.class), has(self.name) && self.name != ""].filter(set, set).size() <= 1`,message=`at most one of ingressClassName, class and name can be set`
// +kubebuilder:validation:XValidation:rule=`!has(self.serviceType) || self.serviceType in ["", 'ClusterIP', 'NodePort']`,message=`serviceType must be ClusterIP or NodePort`,fieldPath=`.serviceType`
type ACMEChallengeSolverHTTP01Ingress struct {
	// Type of the Service that is created: NodePort (the default) or ClusterIP.
	// +optional
	ServiceType corev1.ServiceType `json:"serviceType,omitempty"`

	// ingressClassName of the Ingress that is created.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')`,message=`ingressClassName must be the name of an IngressClass: lower-case letters, digits, '-' and '.'; for a value of the annotation kubernetes.io/ingress.class use class`
	IngressClassName *string `json:"ingressClassName,omitempty"`

	// Annotation kubernetes.io/ingress.class of the Ingress that is created. Prefer ingressClassName.
	// +optional
	Class *string `json:"class,omitempty"`

	// An existing Ingress to edit, for ingress controllers that give each Ingress its own address.
	// +optional
	Name string `json:"name,omitempty"`

	// Settings of the solver's pod, with solverMode Pod.
	// +optional
	PodTemplate *ACMEChallengeSolverHTTP01IngressPodTemplate `json:"podTemplate,omitempty"`

	// Labels and annotations of the Ingress that is created.
	// +optional
	IngressTemplate *ACMEChallengeSolverHTTP01IngressTemplate `json:"ingressTemplate,omitempty"`
}

// ACMEChallengeSolverHTTP01GatewayHTTPRoute says which HTTPRoute routes requests to the controller.
//
// +kubebuilder:validation:XValidation:rule=`!has(self.serviceType) || self.serviceType in ["", 'ClusterIP', 'NodePort']`,message=`serviceType must be ClusterIP or NodePort`,fieldPath=`.serviceType`
type ACMEChallengeSolverHTTP01GatewayHTTPRoute struct {
	// Type of the Service that is created: NodePort (the default) or ClusterIP.
	// +optional
	ServiceType corev1.ServiceType `json:"serviceType,omitempty"`

	// Labels of the HTTPRoute.
	// +optional
	Labels map[string]string `json:"labels,omitempty"`

	// What the HTTPRoute attaches to, usually a Gateway.
	// +optional
	// +listType=atomic
	ParentRefs []ParentReference `json:"parentRefs,omitempty"`

	// Settings of the solver's pod, with solverMode Pod.
	// +optional
	PodTemplate *ACMEChallengeSolverHTTP01IngressPodTemplate `json:"podTemplate,omitempty"`
}

// ParentReference names what an HTTPRoute attaches to. It has the fields of the Gateway API type
// with the same name. That type is not imported, so that users of this package do not depend on the
// Gateway API.
type ParentReference struct {
	// API group of the parent.
	// +optional
	// +kubebuilder:default=gateway.networking.k8s.io
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	Group *string `json:"group,omitempty"`

	// Kind of the parent.
	// +optional
	// +kubebuilder:default=Gateway
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$`
	Kind *string `json:"kind,omitempty"`

	// Namespace of the parent. That of the HTTPRoute if left out.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Namespace *string `json:"namespace,omitempty"`

	// Name of the parent.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// Part of the parent: the listener, if it is a Gateway. All of it if left out.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	SectionName *string `json:"sectionName,omitempty"`

	// Port of the parent. All if left out.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port *int32 `json:"port,omitempty"`
}

// ACMEChallengeSolverHTTP01IngressPodTemplate has settings of the pod that answers the server.
type ACMEChallengeSolverHTTP01IngressPodTemplate struct {
	// Labels and annotations of the pod. Annotations take precedence over the controller's. Labels do
	// not, because the pod's Service selects by them.
	// +optional
	ACMEChallengeSolverHTTP01IngressPodObjectMeta `json:"metadata"`

	// Where and how the pod runs.
	// +optional
	Spec ACMEChallengeSolverHTTP01IngressPodSpec `json:"spec"`
}

// ACMEChallengeSolverHTTP01IngressPodObjectMeta has metadata of the pod that answers the server.
type ACMEChallengeSolverHTTP01IngressPodObjectMeta struct {
	// Annotations of the pod.
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`

	// Labels of the pod.
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
}

// ACMEChallengeSolverHTTP01IngressPodSpec says where and how the pod that answers the server runs.
// The fields mean what they mean in a pod's spec.
type ACMEChallengeSolverHTTP01IngressPodSpec struct {
	// Labels that the node must have.
	// +optional
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`

	// Scheduling preferences of the pod for nodes and other pods.
	// +optional
	Affinity *corev1.Affinity `json:"affinity,omitempty"`

	// Node taints that the pod tolerates.
	// +optional
	// +listType=atomic
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`

	// Priority of the pod.
	// +optional
	PriorityClassName string `json:"priorityClassName,omitempty"`

	// ServiceAccount of the pod.
	// +optional
	ServiceAccountName string `json:"serviceAccountName,omitempty"`

	// Secrets that the image is pulled with.
	// +optional
	// +patchMergeKey=name
	// +patchStrategy=merge
	// +listType=map
	// +listMapKey=name
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty" patchMergeKey:"name" patchStrategy:"merge"`

	// Security settings of the pod.
	// +optional
	SecurityContext *ACMEChallengeSolverHTTP01IngressPodSecurityContext `json:"securityContext,omitempty"`

	// CPU and memory of the pod's container. The values of the controller's options if left out.
	// +optional
	Resources *ACMEChallengeSolverHTTP01IngressPodResources `json:"resources,omitempty"`
}

// ACMEChallengeSolverHTTP01IngressTemplate has settings of the Ingress that is created.
type ACMEChallengeSolverHTTP01IngressTemplate struct {
	// Labels and annotations of the Ingress. They take precedence over the controller's.
	// +optional
	ACMEChallengeSolverHTTP01IngressObjectMeta `json:"metadata"`
}

// ACMEChallengeSolverHTTP01IngressObjectMeta has metadata of the Ingress that is created.
type ACMEChallengeSolverHTTP01IngressObjectMeta struct {
	// Annotations of the Ingress.
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`

	// Labels of the Ingress.
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
}

// ACMEChallengeSolverHTTP01IngressPodSecurityContext has security settings of the pod that answers
// the server. The fields mean what they mean in a pod's securityContext.
type ACMEChallengeSolverHTTP01IngressPodSecurityContext struct {
	// SELinux labels of the container.
	// +optional
	SELinuxOptions *corev1.SELinuxOptions `json:"seLinuxOptions,omitempty"`

	// User ID that the container runs as. That of the image if left out.
	// +optional
	RunAsUser *int64 `json:"runAsUser,omitempty"`

	// Group ID that the container runs as. That of the image if left out.
	// +optional
	RunAsGroup *int64 `json:"runAsGroup,omitempty"`

	// Whether the container must not run as root.
	// +optional
	RunAsNonRoot *bool `json:"runAsNonRoot,omitempty"`

	// Further group IDs of the container.
	// +optional
	// +listType=atomic
	SupplementalGroups []int64 `json:"supplementalGroups,omitempty"`

	// Group ID that owns the pod's volumes.
	// +optional
	FSGroup *int64 `json:"fsGroup,omitempty"`

	// Kernel parameters of the pod.
	// +optional
	// +listType=atomic
	Sysctls []corev1.Sysctl `json:"sysctls,omitempty"`

	// When the owner of volumes is changed to fsGroup: Always (the default) or OnRootMismatch.
	// +optional
	FSGroupChangePolicy *corev1.PodFSGroupChangePolicy `json:"fsGroupChangePolicy,omitempty"`

	// Filter for system calls.
	// +optional
	SeccompProfile *corev1.SeccompProfile `json:"seccompProfile,omitempty"`
}

// ACMEChallengeSolverHTTP01IngressPodResources has CPU and memory of the pod that answers the
// server.
type ACMEChallengeSolverHTTP01IngressPodResources struct {
	// The maximum that it may use.
	// +optional
	Limits corev1.ResourceList `json:"limits,omitempty"`

	// What is reserved for it. Not more than the limits.
	// +optional
	Requests corev1.ResourceList `json:"requests,omitempty"`
}
