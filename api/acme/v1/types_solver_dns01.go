package v1

import (
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

// ACMEChallengeSolverDNS01 says how the DNS record is created. Exactly one provider is set, or none
// for a dns-persist-01 record that is created by hand.
//
// +kubebuilder:validation:XValidation:rule=`!has(self.persistUntil) || has(self.challengeType) && self.challengeType == 'dns-persist-01'`,message=`persistUntil is for challengeType dns-persist-01`
// +kubebuilder:validation:XValidation:rule=`!(has(self.acmeDNS) || has(self.provider)) || !has(self.challengeType) || self.challengeType != 'dns-persist-01'`,message=`acmeDNS and provider cannot have records of dns-persist-01: use another one, or none and make the record by hand`
// +kubebuilder:validation:XValidation:rule=`[has(self.akamai), has(self.cloudDNS), has(self.cloudflare), has(self.route53), has(self.azureDNS), has(self.digitalocean), has(self.acmeDNS), has(self.rfc2136), has(self.webhook), has(self.provider)].filter(set, set).size() == 1 || has(self.challengeType) && self.challengeType == 'dns-persist-01' && ![has(self.akamai), has(self.cloudDNS), has(self.cloudflare), has(self.route53), has(self.azureDNS), has(self.digitalocean), has(self.acmeDNS), has(self.rfc2136), has(self.webhook), has(self.provider)].exists(set, set)`,message=`exactly one of acmeDNS, akamai, azureDNS, cloudDNS, cloudflare, digitalocean, provider, rfc2136, route53 and webhook must be set`
type ACMEChallengeSolverDNS01 struct {
	// Perennial's own, and experimental: its specifications are drafts. Type of the challenge.
	//
	// dns-01, if left out: a record for each certificate.
	//
	// dns-account-01: the same, but the name of the record is different for each account, so that
	// several clusters can each have a CNAME for one name.
	//
	// dns-persist-01: a permanent record that authorizes the account for as long as it exists. Every
	// holder of the account's key can then obtain certificates. Without a provider, create the record
	// by hand: the Challenge says which record.
	// +optional
	ChallengeType DNS01ChallengeType `json:"challengeType,omitempty"`

	// Perennial's own, and experimental. Time until which a dns-persist-01 record is valid. If left
	// out, it is valid for as long as it exists.
	// +optional
	PersistUntil *metav1.Time `json:"persistUntil,omitempty"`

	// Whether the controller follows CNAMEs at _acme-challenge names and creates the record at their
	// target. None if left out.
	// +optional
	CNAMEStrategy CNAMEStrategy `json:"cnameStrategy,omitempty"`

	// Perennial's own. DNS servers, as host:port or as the https:// URL of a DNS-over-HTTPS server.
	// The self-check queries these for the record instead of the authoritative servers.
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

	// A joohoi/acme-dns server.
	// +optional
	AcmeDNS *ACMEIssuerDNS01ProviderAcmeDNS `json:"acmeDNS,omitempty"`

	// Any DNS server that accepts dynamic updates (RFC 2136).
	// +optional
	RFC2136 *ACMEIssuerDNS01ProviderRFC2136 `json:"rfc2136,omitempty"`

	// A webhook that serves the API of cert-manager's DNS-01 webhooks.
	// +optional
	Webhook *ACMEIssuerDNS01ProviderWebhook `json:"webhook,omitempty"`

	// One of the many other DNS services that lego supports. Perennial's own.
	// +optional
	Provider *ACMEIssuerDNS01ProviderLego `json:"provider,omitempty"`
}

// DNS01ChallengeType is a type of challenge that a TXT record proves.
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
	// NoneStrategy creates the record at the name itself.
	NoneStrategy = "None"
	// FollowStrategy creates the record at the target of the CNAMEs, so that the controller needs
	// write access only to a zone of little importance.
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

	// Name of the managed zone. If left out, the controller finds it from the DNS name.
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

// ACMEIssuerDNS01ProviderRoute53 has the settings of Amazon Route 53. Without any credentials,
// those of the environment are used.
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

	// ID of the hosted zone. If left out, the controller finds it from the DNS name, for which it
	// needs the permission route53:ListHostedZonesByName.
	// +optional
	HostedZoneID string `json:"hostedZoneID,omitempty"`

	// AWS region to sign requests for. That of the environment (AWS_REGION, AWS_DEFAULT_REGION) if
	// left out.
	// +optional
	Region string `json:"region,omitempty"`
}

// Route53Auth says how the controller obtains credentials.
type Route53Auth struct {
	// By exchanging a token of a ServiceAccount (AssumeRoleWithWebIdentity).
	Kubernetes *Route53KubernetesAuth `json:"kubernetes"`
}

// Route53KubernetesAuth names the ServiceAccount. Its token is exchanged for AWS credentials.
type Route53KubernetesAuth struct {
	// The ServiceAccount to request a short-lived token for.
	ServiceAccountRef *ServiceAccountRef `json:"serviceAccountRef"`
}

// ServiceAccountRef names the ServiceAccount that a token is requested for. The token is valid for
// ten minutes.
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
// service principal, with clientID, clientSecretSecretRef and tenantID, or those of the
// environment. managedIdentity selects one identity of the environment.
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

	// Name of the zone. If left out, the controller finds it from the DNS name.
	// +optional
	HostedZoneName string `json:"hostedZoneName,omitempty"`

	// The Azure cloud. AzurePublicCloud if left out.
	// +optional
	Environment AzureDNSEnvironment `json:"environment,omitempty"`

	// The managed identity or workload identity to use.
	// +optional
	ManagedIdentity *AzureManagedIdentity `json:"managedIdentity,omitempty"`

	// Whether the zone is public (the default) or private.
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

// AzureManagedIdentity selects an identity: a workload identity if the environment has one,
// otherwise the managed identity of the machine.
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

// ACMEIssuerDNS01ProviderRFC2136 has the settings of a DNS server that accepts dynamic updates.
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

	// Algorithm of the TSIG key, in upper or lower case: HMACMD5 (the default), HMACSHA1, HMACSHA256
	// or HMACSHA512.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule=`self.upperAscii() in ["", 'HMACMD5', 'HMACSHA1', 'HMACSHA256', 'HMACSHA512']`,message=`tsigAlgorithm must be HMACMD5, HMACSHA1, HMACSHA256 or HMACSHA512`
	TSIGAlgorithm string `json:"tsigAlgorithm,omitempty"`

	// Protocol for updates: UDP (the default) or TCP.
	// +optional
	Protocol RFC2136UpdateProtocol `json:"protocol,omitempty"`
}

// RFC2136UpdateProtocol is a protocol for dynamic updates.
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

	// Configuration for the webhook. Do not put secrets here; the documentation of the webhook says
	// how to pass them.
	// +optional
	Config *apiextensionsv1.JSON `json:"config,omitempty"`
}

// ACMEIssuerDNS01ProviderLego names a DNS service by its name in lego, and has its settings.
type ACMEIssuerDNS01ProviderLego struct {
	// Name of the service. docs/dns-providers.md lists all services and their settings.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]+$`
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`

	// Settings that are not secret: an object of strings, numbers and booleans.
	// +optional
	Config *apiextensionsv1.JSON `json:"config,omitempty"`

	// A Secret. Its entries are settings: credentials, and any other setting to keep secret.
	// +optional
	SecretRef *cmmeta.LocalObjectReference `json:"secretRef,omitempty"`
}
