package v1

import (
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

// ACMEChallengeSolver says how control of names is proven, and of which. Exactly one of http01,
// dns01 and tlsALPN01 is set.
//
// +kubebuilder:validation:XValidation:rule=`[has(self.http01), has(self.dns01), has(self.tlsALPN01)].filter(set, set).size() == 1`,message=`exactly one of http01, dns01 and tlsALPN01 must be set`
type ACMEChallengeSolver struct {
	// Which names the solver is for. All, with the lowest rank, if left out.
	// +optional
	Selector *CertificateDNSNameSelector `json:"selector,omitempty"`

	// By an HTTP resource (RFC 8555 section 8.3). Not for wildcards.
	// +optional
	HTTP01 *ACMEChallengeSolverHTTP01 `json:"http01,omitempty"`

	// By a DNS record (RFC 8555 section 8.4).
	// +optional
	DNS01 *ACMEChallengeSolverDNS01 `json:"dns01,omitempty"`

	// Perennial's own. By a TLS handshake on port 443 (RFC 8737), which must lead to the controller.
	// Not for wildcards.
	// +optional
	TLSALPN01 *ACMEChallengeSolverTLSALPN01 `json:"tlsALPN01,omitempty"`

	// Perennial's own. How long to wait after the controller has seen the proof itself before the
	// server is asked to look at it, such as 30s. For names whose records reach some places later than
	// others.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`self == '0' || (self.matches('^[+]?(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+$') && duration(self) >= duration('0s'))`,message=`waitForRecordToPropagate must be a number, not negative, with the unit h, m or s, such as 30s`
	WaitForRecordToPropagate *metav1.Duration `json:"waitForRecordToPropagate,omitempty"`

	// How long to wait after the challenge was presented before the server is asked to look at
	// it, such as 30s, instead of looking oneself first. For networks where the controller
	// cannot see what the server sees. 0s asks at once.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`self == '0' || (self.matches('^[+]?(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+$') && duration(self) >= duration('0s'))`,message=`waitInsteadOfSelfCheck must be a number, not negative, with the unit h, m or s, such as 30s`
	WaitInsteadOfSelfCheck *metav1.Duration `json:"waitInsteadOfSelfCheck,omitempty"`
}

// ACMEChallengeSolverTLSALPN01 says how requests of the server are led to the controller. What
// receives port 443 passes connections that offer the protocol acme-tls/1 on to the controller.
type ACMEChallengeSolverTLSALPN01 struct{}

// CertificateDNSNameSelector says which names a solver is for. All that is set must fit. What names
// more fits better: a name in dnsNames before a zone in dnsZones, a longer zone before a shorter
// one, then more labels, then the place in the list of solvers.
type CertificateDNSNameSelector struct {
	// Labels that the Certificate must have.
	// +optional
	MatchLabels map[string]string `json:"matchLabels,omitempty"`

	// Names, exactly as in the certificate.
	// +optional
	// +listType=atomic
	DNSNames []string `json:"dnsNames,omitempty"`

	// Zones: names that are one of these or below one.
	// +optional
	// +listType=atomic
	DNSZones []string `json:"dnsZones,omitempty"`
}

// ACMEChallengeSolverHTTP01 says how requests of the server are led to the controller. Exactly
// one of ingress and gatewayHTTPRoute is set.
//
// +kubebuilder:validation:XValidation:rule=`has(self.ingress) != has(self.gatewayHTTPRoute)`,message=`exactly one of ingress and gatewayHTTPRoute must be set`
type ACMEChallengeSolverHTTP01 struct {
	// By an Ingress.
	// +optional
	Ingress *ACMEChallengeSolverHTTP01Ingress `json:"ingress,omitempty"`

	// By an HTTPRoute of the Gateway API.
	// +optional
	GatewayHTTPRoute *ACMEChallengeSolverHTTP01GatewayHTTPRoute `json:"gatewayHTTPRoute,omitempty"`

	// Perennial's own. Who answers: Shared, the controller itself, or Pod, a pod made for the
	// challenge in its namespace, for load balancers and meshes that only reach pods of their own
	// namespace. If left out, the flag --http01-solver-mode of the controller decides.
	// +optional
	SolverMode HTTP01SolverMode `json:"solverMode,omitempty"`
}

// HTTP01SolverMode says who answers an HTTP-01 challenge.
// +kubebuilder:validation:Enum=Shared;Pod
type HTTP01SolverMode string

const (
	// HTTP01SolverModeShared has the controller's own replicas answer.
	HTTP01SolverModeShared HTTP01SolverMode = "Shared"
	// HTTP01SolverModePod has a pod answer that is made for the challenge.
	HTTP01SolverModePod HTTP01SolverMode = "Pod"
)

// ACMEChallengeSolverHTTP01Ingress says which Ingress leads to the controller. At most one of
// ingressClassName, class and name is set.
//
// +kubebuilder:validation:XValidation:rule=`[has(self.ingressClassName), has(self.class), has(self.name) && self.name != ""].filter(set, set).size() <= 1`,message=`at most one of ingressClassName, class and name can be set`
// +kubebuilder:validation:XValidation:rule=`!has(self.serviceType) || self.serviceType in ["", 'ClusterIP', 'NodePort']`,message=`serviceType must be ClusterIP or NodePort`,fieldPath=`.serviceType`
type ACMEChallengeSolverHTTP01Ingress struct {
	// Type of the Service that is made: NodePort, if left out, or ClusterIP.
	// +optional
	ServiceType corev1.ServiceType `json:"serviceType,omitempty"`

	// ingressClassName of the Ingress that is made.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')`,message=`ingressClassName must be the name of an IngressClass: lower-case letters, digits, '-' and '.'; for a value of the annotation kubernetes.io/ingress.class use class`
	IngressClassName *string `json:"ingressClassName,omitempty"`

	// Annotation kubernetes.io/ingress.class of the Ingress that is made. Prefer ingressClassName.
	// +optional
	Class *string `json:"class,omitempty"`

	// An Ingress that exists and is edited, for controllers that give each Ingress an address
	// of its own.
	// +optional
	Name string `json:"name,omitempty"`

	// Settings of the solver's pod, with solverMode Pod.
	// +optional
	PodTemplate *ACMEChallengeSolverHTTP01IngressPodTemplate `json:"podTemplate,omitempty"`

	// Labels and annotations of the Ingress that is made.
	// +optional
	IngressTemplate *ACMEChallengeSolverHTTP01IngressTemplate `json:"ingressTemplate,omitempty"`
}

// ACMEChallengeSolverHTTP01GatewayHTTPRoute says which HTTPRoute leads to the controller.
//
// +kubebuilder:validation:XValidation:rule=`!has(self.serviceType) || self.serviceType in ["", 'ClusterIP', 'NodePort']`,message=`serviceType must be ClusterIP or NodePort`,fieldPath=`.serviceType`
type ACMEChallengeSolverHTTP01GatewayHTTPRoute struct {
	// Type of the Service that is made: NodePort, if left out, or ClusterIP.
	// +optional
	ServiceType corev1.ServiceType `json:"serviceType,omitempty"`

	// Labels of the HTTPRoute.
	// +optional
	Labels map[string]string `json:"labels,omitempty"`

	// What the HTTPRoute attaches to: the Gateway, most often.
	// +optional
	// +listType=atomic
	ParentRefs []ParentReference `json:"parentRefs,omitempty"`

	// Settings of the solver's pod, with solverMode Pod.
	// +optional
	PodTemplate *ACMEChallengeSolverHTTP01IngressPodTemplate `json:"podTemplate,omitempty"`
}

// ParentReference names what an HTTPRoute attaches to. It has the fields of the Gateway API's type
// of that name, which is not imported, so that users of this package need not depend on that API.
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
	// not, as the pod's Service selects by them.
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

	// Nodes and neighbours that the pod wants.
	// +optional
	Affinity *corev1.Affinity `json:"affinity,omitempty"`

	// Taints of nodes that the pod bears.
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

	// CPU and memory of the pod's container. Those of the controller's options if left out.
	// +optional
	Resources *ACMEChallengeSolverHTTP01IngressPodResources `json:"resources,omitempty"`
}

// ACMEChallengeSolverHTTP01IngressTemplate has settings of the Ingress that is made.
type ACMEChallengeSolverHTTP01IngressTemplate struct {
	// Labels and annotations of the Ingress. They take precedence over the controller's.
	// +optional
	ACMEChallengeSolverHTTP01IngressObjectMeta `json:"metadata"`
}

// ACMEChallengeSolverHTTP01IngressObjectMeta has metadata of the Ingress that is made.
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

	// When the owner of volumes is changed to fsGroup: Always, if left out, or OnRootMismatch.
	// +optional
	FSGroupChangePolicy *corev1.PodFSGroupChangePolicy `json:"fsGroupChangePolicy,omitempty"`

	// Filter for system calls.
	// +optional
	SeccompProfile *corev1.SeccompProfile `json:"seccompProfile,omitempty"`
}

// ACMEChallengeSolverHTTP01IngressPodResources has CPU and memory of the pod that answers the
// server.
type ACMEChallengeSolverHTTP01IngressPodResources struct {
	// What it may use at most.
	// +optional
	Limits corev1.ResourceList `json:"limits,omitempty"`

	// What is kept free for it. Not more than the limits.
	// +optional
	Requests corev1.ResourceList `json:"requests,omitempty"`
}

// ACMEChallengeSolverDNS01 says how the DNS record is made. Exactly one provider is set, or none
// for a record of dns-persist-01 that is made by hand.
//
// +kubebuilder:validation:XValidation:rule=`!has(self.persistUntil) || has(self.challengeType) && self.challengeType == 'dns-persist-01'`,message=`persistUntil is for challengeType dns-persist-01`
// +kubebuilder:validation:XValidation:rule=`!(has(self.acmeDNS) || has(self.provider)) || !has(self.challengeType) || self.challengeType != 'dns-persist-01'`,message=`acmeDNS and provider cannot have records of dns-persist-01: use another one, or none and make the record by hand`
// +kubebuilder:validation:XValidation:rule=`[has(self.akamai), has(self.cloudDNS), has(self.cloudflare), has(self.route53), has(self.azureDNS), has(self.digitalocean), has(self.acmeDNS), has(self.rfc2136), has(self.webhook), has(self.provider)].filter(set, set).size() == 1 || has(self.challengeType) && self.challengeType == 'dns-persist-01' && ![has(self.akamai), has(self.cloudDNS), has(self.cloudflare), has(self.route53), has(self.azureDNS), has(self.digitalocean), has(self.acmeDNS), has(self.rfc2136), has(self.webhook), has(self.provider)].exists(set, set)`,message=`exactly one of acmeDNS, akamai, azureDNS, cloudDNS, cloudflare, digitalocean, provider, rfc2136, route53 and webhook must be set`
type ACMEChallengeSolverDNS01 struct {
	// Perennial's own, and experimental: its specifications are drafts. Type of the challenge.
	//
	// dns-01, if left out: a record for each certificate.
	//
	// dns-account-01: the same, but the name of the record differs for each account, so that
	// several clusters can have their own CNAME for one name.
	//
	// dns-persist-01: a record that stands, and lets the account have certificates as long as it
	// does. Whoever has the account's key can have certificates, then. Without a provider the
	// record is made by hand: the Challenge says which.
	// +optional
	ChallengeType DNS01ChallengeType `json:"challengeType,omitempty"`

	// Perennial's own, and experimental. Until when a record of dns-persist-01 counts. For as long
	// as it stands if left out.
	// +optional
	PersistUntil *metav1.Time `json:"persistUntil,omitempty"`

	// Whether CNAMEs at _acme-challenge names are followed, and the record made where they lead.
	// None if left out.
	// +optional
	CNAMEStrategy CNAMEStrategy `json:"cnameStrategy,omitempty"`

	// Perennial's own. DNS servers, host:port or the https:// URL of a server of DNS over HTTPS, to
	// ask whether the record is visible, in place of those that are authoritative for it.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:XValidation:rule=`self.matches('^https://[^/ ]+(/.*)?$') || self.matches('^([^:/ \\[\\]]+|\\[[0-9a-fA-F:.]+\\]):[0-9]{1,5}$')`,message=`must be host:port, an IPv6 address in brackets, or an https:// URL: 192.0.2.53:53, [2001:db8::53]:53, https://dns.example.com/dns-query`
	Nameservers []string `json:"nameservers,omitempty"`

	// Akamai Edge DNS.
	// +optional
	Akamai *ACMEIssuerDNS01ProviderAkamai `json:"akamai,omitempty"`

	// Google Cloud DNS.
	// +optional
	CloudDNS *ACMEIssuerDNS01ProviderCloudDNS `json:"cloudDNS,omitempty"`

	// Cloudflare.
	// +optional
	Cloudflare *ACMEIssuerDNS01ProviderCloudflare `json:"cloudflare,omitempty"`

	// Amazon Route 53.
	// +optional
	Route53 *ACMEIssuerDNS01ProviderRoute53 `json:"route53,omitempty"`

	// Azure DNS.
	// +optional
	AzureDNS *ACMEIssuerDNS01ProviderAzureDNS `json:"azureDNS,omitempty"`

	// DigitalOcean.
	// +optional
	DigitalOcean *ACMEIssuerDNS01ProviderDigitalOcean `json:"digitalocean,omitempty"`

	// A server of joohoi/acme-dns.
	// +optional
	AcmeDNS *ACMEIssuerDNS01ProviderAcmeDNS `json:"acmeDNS,omitempty"`

	// Any DNS server that takes dynamic updates (RFC 2136).
	// +optional
	RFC2136 *ACMEIssuerDNS01ProviderRFC2136 `json:"rfc2136,omitempty"`

	// A webhook that serves the API of cert-manager's DNS-01 webhooks.
	// +optional
	Webhook *ACMEIssuerDNS01ProviderWebhook `json:"webhook,omitempty"`

	// One of the many other DNS services that lego knows. Perennial's own.
	// +optional
	Provider *ACMEIssuerDNS01ProviderLego `json:"provider,omitempty"`
}

// DNS01ChallengeType is a type of challenge that is met by a TXT record.
// +kubebuilder:validation:Enum=dns-01;dns-account-01;dns-persist-01
type DNS01ChallengeType string

const (
	// DNS01ChallengeTypeDNS01 is RFC 8555 section 8.4.
	DNS01ChallengeTypeDNS01 DNS01ChallengeType = "dns-01"
	// DNS01ChallengeTypeDNSAccount01 is draft-ietf-acme-dns-account-label.
	DNS01ChallengeTypeDNSAccount01 DNS01ChallengeType = "dns-account-01"
	// DNS01ChallengeTypeDNSPersist01 is draft-ietf-acme-dns-persist.
	DNS01ChallengeTypeDNSPersist01 DNS01ChallengeType = "dns-persist-01"
)

// CNAMEStrategy says whether CNAMEs are followed.
// +kubebuilder:validation:Enum=None;Follow
type CNAMEStrategy string

const (
	// NoneStrategy makes the record at the name itself.
	NoneStrategy = "None"
	// FollowStrategy makes the record where the CNAMEs at the name lead, so that a zone of little
	// importance can be handed to the controller.
	FollowStrategy = "Follow"
)

// ACMEIssuerDNS01ProviderAkamai has the settings of Akamai Edge DNS, from an API client's .edgerc.
type ACMEIssuerDNS01ProviderAkamai struct {
	// Host of the API client.
	// +kubebuilder:validation:MinLength=1
	ServiceConsumerDomain string `json:"serviceConsumerDomain"`

	// The Secret and its entry that hold the client token.
	// +kubebuilder:validation:XValidation:rule=`self.name != "" && has(self.key) && self.key != ""`,message=`must name a Secret and the key of its entry: set name and key`
	ClientToken cmmeta.SecretKeySelector `json:"clientTokenSecretRef"`

	// The Secret and its entry that hold the client secret.
	// +kubebuilder:validation:XValidation:rule=`self.name != "" && has(self.key) && self.key != ""`,message=`must name a Secret and the key of its entry: set name and key`
	ClientSecret cmmeta.SecretKeySelector `json:"clientSecretSecretRef"`

	// The Secret and its entry that hold the access token.
	// +kubebuilder:validation:XValidation:rule=`self.name != "" && has(self.key) && self.key != ""`,message=`must name a Secret and the key of its entry: set name and key`
	AccessToken cmmeta.SecretKeySelector `json:"accessTokenSecretRef"`
}

// ACMEIssuerDNS01ProviderCloudDNS has the settings of Google Cloud DNS.
type ACMEIssuerDNS01ProviderCloudDNS struct {
	// The Secret and its entry that hold the service account's key, JSON. The credentials of
	// the environment are used if left out.
	// +optional
	// +kubebuilder:validation:XValidation:rule=`self.name != "" && has(self.key) && self.key != ""`,message=`must name a Secret and the key of its entry: set name and key`
	ServiceAccount *cmmeta.SecretKeySelector `json:"serviceAccountSecretRef,omitempty"`

	// ID of the project.
	// +kubebuilder:validation:MinLength=1
	Project string `json:"project"`

	// Name of the managed zone. Found from the DNS name if left out.
	// +optional
	HostedZoneName string `json:"hostedZoneName,omitempty"`
}

// ACMEIssuerDNS01ProviderCloudflare has the settings of Cloudflare. Exactly one of apiKeySecretRef
// and apiTokenSecretRef is set.
//
// +kubebuilder:validation:XValidation:rule=`has(self.apiKeySecretRef) != has(self.apiTokenSecretRef)`,message=`exactly one of apiKeySecretRef and apiTokenSecretRef must be set`
// +kubebuilder:validation:XValidation:rule=`!has(self.apiKeySecretRef) || (has(self.email) && self.email != "")`,message=`email must be set with apiKeySecretRef: the address of the account`,fieldPath=`.email`
type ACMEIssuerDNS01ProviderCloudflare struct {
	// Address of the account. Needed with apiKeySecretRef.
	// +optional
	Email string `json:"email,omitempty"`

	// The Secret and its entry that hold the global API key. Prefer apiTokenSecretRef.
	// +optional
	// +kubebuilder:validation:XValidation:rule=`self.name != "" && has(self.key) && self.key != ""`,message=`must name a Secret and the key of its entry: set name and key`
	APIKey *cmmeta.SecretKeySelector `json:"apiKeySecretRef,omitempty"`

	// The Secret and its entry that hold an API token with Zone:Read and DNS:Edit.
	// +optional
	// +kubebuilder:validation:XValidation:rule=`self.name != "" && has(self.key) && self.key != ""`,message=`must name a Secret and the key of its entry: set name and key`
	APIToken *cmmeta.SecretKeySelector `json:"apiTokenSecretRef,omitempty"`
}

// ACMEIssuerDNS01ProviderDigitalOcean has the settings of DigitalOcean.
type ACMEIssuerDNS01ProviderDigitalOcean struct {
	// The Secret and its entry that hold the API token.
	// +kubebuilder:validation:XValidation:rule=`self.name != "" && has(self.key) && self.key != ""`,message=`must name a Secret and the key of its entry: set name and key`
	Token cmmeta.SecretKeySelector `json:"tokenSecretRef"`
}

// ACMEIssuerDNS01ProviderRoute53 has the settings of Amazon Route 53. Without any credentials those
// of the environment are used.
//
// +kubebuilder:validation:XValidation:rule=`!has(self.accessKeyID) || self.accessKeyID == "" || !has(self.accessKeyIDSecretRef)`,message=`accessKeyID and accessKeyIDSecretRef exclude each other: remove one`,fieldPath=`.accessKeyID`
type ACMEIssuerDNS01ProviderRoute53 struct {
	// Credentials by a ServiceAccount.
	// +optional
	Auth *Route53Auth `json:"auth,omitempty"`

	// Access key ID. Not together with accessKeyIDSecretRef.
	// +optional
	AccessKeyID string `json:"accessKeyID,omitempty"`

	// The Secret and its entry that hold the access key ID. Not together with accessKeyID.
	// +optional
	// +kubebuilder:validation:XValidation:rule=`self.name != "" && has(self.key) && self.key != ""`,message=`must name a Secret and the key of its entry: set name and key`
	SecretAccessKeyID *cmmeta.SecretKeySelector `json:"accessKeyIDSecretRef,omitempty"`

	// The Secret and its entry that hold the secret access key. Needed with an access key ID.
	// +optional
	SecretAccessKey cmmeta.SecretKeySelector `json:"secretAccessKeySecretRef"`

	// ARN of a role to assume with the credentials.
	// +optional
	Role string `json:"role,omitempty"`

	// ID of the hosted zone. Found from the DNS name if left out, which takes the permission
	// route53:ListHostedZonesByName.
	// +optional
	HostedZoneID string `json:"hostedZoneID,omitempty"`

	// AWS region to sign for. That of the environment (AWS_REGION, AWS_DEFAULT_REGION) if left out.
	// +optional
	Region string `json:"region,omitempty"`
}

// Route53Auth says how credentials are had.
type Route53Auth struct {
	// By exchanging a token of a ServiceAccount (AssumeRoleWithWebIdentity).
	Kubernetes *Route53KubernetesAuth `json:"kubernetes"`
}

// Route53KubernetesAuth says which ServiceAccount's token is exchanged.
type Route53KubernetesAuth struct {
	// The ServiceAccount to ask for a token that lives a few minutes.
	ServiceAccountRef *ServiceAccountRef `json:"serviceAccountRef"`
}

// ServiceAccountRef names the ServiceAccount that a token is asked for. The token lives for ten
// minutes.
type ServiceAccountRef struct {
	// Name of the ServiceAccount.
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`

	// Audiences of the token. sts.amazonaws.com if left out.
	// +optional
	// +listType=atomic
	TokenAudiences []string `json:"audiences,omitempty"`
}

// ACMEIssuerDNS01ProviderAzureDNS has the settings of Azure DNS. Credentials are either those of a
// service principal, with clientID, clientSecretSecretRef and tenantID, or those of
// the environment, which managedIdentity may narrow down.
//
// +kubebuilder:validation:XValidation:rule=`[has(self.clientID) && self.clientID != "", has(self.tenantID) && self.tenantID != "", has(self.clientSecretSecretRef)].filter(set, set).size() in [0, 3]`,message=`clientID, clientSecretSecretRef and tenantID belong together: set all three, or none`
// +kubebuilder:validation:XValidation:rule=`!has(self.managedIdentity) || ((!has(self.clientID) || self.clientID == "") && (!has(self.tenantID) || self.tenantID == "") && !has(self.clientSecretSecretRef))`,message=`managedIdentity excludes clientID, clientSecretSecretRef and tenantID: remove it, or them`,fieldPath=`.managedIdentity`
type ACMEIssuerDNS01ProviderAzureDNS struct {
	// Client ID of the service principal.
	// +optional
	ClientID string `json:"clientID,omitempty"`

	// The Secret and its entry that hold the password of the service principal.
	// +optional
	// +kubebuilder:validation:XValidation:rule=`self.name != "" && has(self.key) && self.key != ""`,message=`must name a Secret and the key of its entry: set name and key`
	ClientSecret *cmmeta.SecretKeySelector `json:"clientSecretSecretRef,omitempty"`

	// ID of the subscription.
	// +kubebuilder:validation:MinLength=1
	SubscriptionID string `json:"subscriptionID"`

	// Tenant ID of the service principal.
	// +optional
	TenantID string `json:"tenantID,omitempty"`

	// Resource group that the zone is in.
	// +kubebuilder:validation:MinLength=1
	ResourceGroupName string `json:"resourceGroupName"`

	// Name of the zone. Found from the DNS name if left out.
	// +optional
	HostedZoneName string `json:"hostedZoneName,omitempty"`

	// The Azure cloud. AzurePublicCloud if left out.
	// +optional
	Environment AzureDNSEnvironment `json:"environment,omitempty"`

	// Which managed or workload identity is used.
	// +optional
	ManagedIdentity *AzureManagedIdentity `json:"managedIdentity,omitempty"`

	// Whether the zone is public, which it is if left out, or private.
	// +optional
	ZoneType AzureZoneType `json:"zoneType,omitempty"`
}

// AzureZoneType is a type of zone.
// +kubebuilder:validation:Enum=AzurePublicZone;AzurePrivateZone
type AzureZoneType string

const (
	PublicAzureZone  AzureZoneType = "AzurePublicZone"
	PrivateAzureZone AzureZoneType = "AzurePrivateZone"
)

// AzureManagedIdentity says which identity is used: a workload identity if the environment has one,
// and the machine's otherwise.
//
// +kubebuilder:validation:XValidation:rule=`!has(self.resourceID) || self.resourceID == "" || ((!has(self.clientID) || self.clientID == "") && (!has(self.tenantID) || self.tenantID == ""))`,message=`resourceID excludes clientID and tenantID: remove it, or them`,fieldPath=`.resourceID`
// +kubebuilder:validation:XValidation:rule=`!has(self.tenantID) || self.tenantID == "" || (has(self.clientID) && self.clientID != "") || (has(self.resourceID) && self.resourceID != "")`,message=`tenantID needs clientID beside it`,fieldPath=`.clientID`
type AzureManagedIdentity struct {
	// Client ID of the identity. Not together with resourceID.
	// +optional
	ClientID string `json:"clientID,omitempty"`

	// Resource ID of the identity. Not together with clientID, nor with a workload identity.
	// +optional
	ResourceID string `json:"resourceID,omitempty"`

	// Tenant ID of the identity. Not together with resourceID.
	// +optional
	TenantID string `json:"tenantID,omitempty"`
}

// AzureDNSEnvironment is one of the Azure clouds.
// +kubebuilder:validation:Enum=AzurePublicCloud;AzureChinaCloud;AzureGermanCloud;AzureUSGovernmentCloud
type AzureDNSEnvironment string

const (
	AzurePublicCloud       AzureDNSEnvironment = "AzurePublicCloud"
	AzureChinaCloud        AzureDNSEnvironment = "AzureChinaCloud"
	AzureGermanCloud       AzureDNSEnvironment = "AzureGermanCloud"
	AzureUSGovernmentCloud AzureDNSEnvironment = "AzureUSGovernmentCloud"
)

// ACMEIssuerDNS01ProviderAcmeDNS has the settings of joohoi/acme-dns.
type ACMEIssuerDNS01ProviderAcmeDNS struct {
	// URL or host of the server.
	// +kubebuilder:validation:MinLength=1
	Host string `json:"host"`

	// The Secret and its entry that hold the accounts, JSON, by domain.
	// +kubebuilder:validation:XValidation:rule=`self.name != "" && has(self.key) && self.key != ""`,message=`must name a Secret and the key of its entry: set name and key`
	AccountSecret cmmeta.SecretKeySelector `json:"accountSecretRef"`
}

// ACMEIssuerDNS01ProviderRFC2136 has the settings of a DNS server that takes dynamic updates.
//
// +kubebuilder:validation:XValidation:rule=`(has(self.tsigKeyName) && self.tsigKeyName != "") ? (has(self.tsigSecretSecretRef) && self.tsigSecretSecretRef.name != "" && has(self.tsigSecretSecretRef.key) && self.tsigSecretSecretRef.key != "") : !(has(self.tsigSecretSecretRef) && self.tsigSecretSecretRef.name != "" && has(self.tsigSecretSecretRef.key) && self.tsigSecretSecretRef.key != "")`,message=`tsigKeyName and tsigSecretSecretRef, with name and key, belong together: set both, or none`,fieldPath=`.tsigKeyName`
type ACMEIssuerDNS01ProviderRFC2136 struct {
	// The authoritative server, host:port or host; an IPv6 address in brackets: [2001:db8::1]:53.
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule=`self.matches('^ *(([^ :/\\[\\]]+|\\[[0-9a-fA-F:.%a-z]+\\])(:[^:]*)?) *$')`,message=`nameserver must be host:port or host, an IPv6 address in brackets: ns1.example.com:53, [2001:db8::1]:53`
	Nameserver string `json:"nameserver"`

	// The Secret and its entry that hold the TSIG key, base64. Only together with tsigKeyName.
	// +optional
	TSIGSecret cmmeta.SecretKeySelector `json:"tsigSecretSecretRef,omitempty"`

	// Name of the TSIG key. Only together with tsigSecretSecretRef.
	// +optional
	TSIGKeyName string `json:"tsigKeyName,omitempty"`

	// Algorithm of the TSIG key, in capitals or not: HMACMD5, if left out, HMACSHA1, HMACSHA256
	// or HMACSHA512.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`self.upperAscii() in ["", 'HMACMD5', 'HMACSHA1', 'HMACSHA256', 'HMACSHA512']`,message=`tsigAlgorithm must be HMACMD5, HMACSHA1, HMACSHA256 or HMACSHA512`
	TSIGAlgorithm string `json:"tsigAlgorithm,omitempty"`

	// Protocol that updates are sent by: UDP, if left out, or TCP.
	// +optional
	Protocol RFC2136UpdateProtocol `json:"protocol,omitempty"`
}

// RFC2136UpdateProtocol is a protocol that updates are sent by.
// +kubebuilder:validation:Enum=TCP;UDP
type RFC2136UpdateProtocol string

const (
	RFC2136UpdateProtocolTCP RFC2136UpdateProtocol = "TCP"
	RFC2136UpdateProtocolUDP RFC2136UpdateProtocol = "UDP"
)

// ACMEIssuerDNS01ProviderWebhook names a webhook.
type ACMEIssuerDNS01ProviderWebhook struct {
	// API group that the webhook serves.
	GroupName string `json:"groupName"`

	// Name of the solver in that group.
	// +kubebuilder:validation:MinLength=1
	SolverName string `json:"solverName"`

	// What the webhook wants to be told. Secrets do not belong here; the webhook's own
	// documentation says how it is told of them.
	// +optional
	Config *apiextensionsv1.JSON `json:"config,omitempty"`
}

// ACMEIssuerDNS01ProviderLego names a DNS service by its name in lego, and has its settings.
type ACMEIssuerDNS01ProviderLego struct {
	// Name of the service. docs/dns-providers.md lists all, with their settings.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]+$`
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`

	// Settings that are not secret: an object of strings, numbers and booleans.
	// +optional
	Config *apiextensionsv1.JSON `json:"config,omitempty"`

	// A Secret whose entries are settings: credentials, and whatever else is better kept there.
	// +optional
	SecretRef *cmmeta.LocalObjectReference `json:"secretRef,omitempty"`
}
