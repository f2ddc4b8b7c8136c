package api_test

import (
	"fmt"
	"strings"
	"testing"
)

const acme = `{acme: {server: "https://acme.example.com/directory", privateKeySecretRef: {name: account}}}`

func TestACMEIssuersSayWhereTheServerIs(t *testing.T) {
	short := "should be at least 1 chars long"
	key := refused(
		"spec.acme.externalAccountBinding.keySecretRef",
		"must name a Secret and the key of its entry: set name and key",
	)
	judgeIssuers(t, acme, []example{
		{"an empty server is refused", `spec: {acme: {server: ""}}`, refused("spec.acme.server", short)},
		{
			"a missing account is refused",
			`spec: {acme: {privateKeySecretRef: null}}`,
			refused("spec.acme.privateKeySecretRef", "Required value"),
		},
		{
			"an account without a Secret is refused",
			`spec: {acme: {privateKeySecretRef: {name: ""}}}`,
			refused(
				"spec.acme.privateKeySecretRef.name",
				"privateKeySecretRef must name the Secret for the key of the account",
			),
		},
		{"a bundle is accepted", `spec: {acme: {caBundle: ` + bundle + `, skipTLSVerify: false}}`, accepted},
		{"no verification is accepted", `spec: {acme: {skipTLSVerify: true}}`, accepted},
		{
			"both are refused",
			`spec: {acme: {skipTLSVerify: true, caBundle: ` + bundle + `}}`,
			refused("spec.acme.skipTLSVerify", "caBundle and skipTLSVerify exclude each other: remove skipTLSVerify"),
		},
		{
			"a bundle that is no PEM is refused",
			`spec: {acme: {caBundle: aGVsbG8=}}`,
			refused("spec.acme.caBundle", "caBundle must hold certificates, PEM, in base64"),
		},
		{
			"an external account is accepted",
			`spec: {acme: {externalAccountBinding: {keyID: a, keySecretRef: {name: eab, key: hmac}, keyAlgorithm: HS256}}}`,
			accepted,
		},
		{
			"an external account without an ID is refused",
			`spec: {acme: {externalAccountBinding: {keyID: "", keySecretRef: {name: eab, key: hmac}}}}`,
			refused("spec.acme.externalAccountBinding.keyID", short),
		},
		{
			"an external account without a Secret is refused",
			`spec: {acme: {externalAccountBinding: {keyID: a, keySecretRef: {name: "", key: hmac}}}}`,
			key,
		},
		{
			"an external account without an entry of the Secret is refused",
			`spec: {acme: {externalAccountBinding: {keyID: a, keySecretRef: {name: eab}}}}`,
			key,
		},
		{"a chain is accepted", `spec: {acme: {preferredChain: ISRG Root X1}}`, accepted},
		{
			"a chain with a name that is too long is refused",
			`spec: {acme: {preferredChain: ` + strings.Repeat("a", 65) + `}}`,
			refused("spec.acme.preferredChain", "may not be more than 64 bytes"),
		},
		{"no renewal information is accepted", `spec: {acme: {renewalInformationSource: None}}`, accepted},
		{
			"an unknown source of renewal information is refused",
			`spec: {acme: {renewalInformationSource: DNS}}`,
			refused("spec.acme.renewalInformationSource", `supported values: "ARI", "None"`),
		},
		{"an account with an RSA key is accepted", `spec: {acme: {privateKeyAlgorithm: RSA}}`, accepted},
		{
			"an account with an Ed25519 key is refused",
			`spec: {acme: {privateKeyAlgorithm: Ed25519}}`,
			refused("spec.acme.privateKeyAlgorithm", `supported values: "ECDSA", "RSA"`),
		},
		{"a CA from the chain is accepted", `spec: {acme: {includeCA: FromChain}}`, accepted},
		{
			"limits are accepted",
			`spec: {acme: {rateLimits: {newOrdersPerAccount: {count: 3000, period: 3h}, certificatesPerExactSet: {count: 0}}}}`,
			accepted,
		},
		{
			"a limit without a period is refused",
			`spec: {acme: {rateLimits: {newOrdersPerAccount: {count: 3000}}}}`,
			refused(
				"spec.acme.rateLimits.newOrdersPerAccount.period",
				"period must be set, such as 168h; a count of 0 alone means that there is no limit",
			),
		},
		{
			"a limit below nothing is refused",
			`spec: {acme: {rateLimits: {certificatesPerRegisteredDomain: {count: -1, period: 168h}}}}`,
			refused("spec.acme.rateLimits.certificatesPerRegisteredDomain.count", "should be greater than or equal to 0"),
		},
		{
			"a period that is none is refused",
			`spec: {acme: {rateLimits: {failedValidationsPerIdentifier: {count: 5, period: a week}}}}`,
			refused(
				"spec.acme.rateLimits.failedValidationsPerIdentifier.period",
				"period must be a number with the unit h, m or s, from 1s to 8760h, such as 168h for a week",
			),
		},
		{
			"a CA from elsewhere is refused",
			`spec: {acme: {includeCA: FromAIA}}`,
			refused("spec.acme.includeCA", `supported values: "None", "FromChain"`),
		},
		{"no solvers are accepted", `spec: {acme: {solvers: []}}`, accepted},
		{
			"200 solvers are accepted",
			`spec: {acme: {solvers: ` + list(
				200,
				"{selector: {dnsZones: [zone-%d.example.com]}, dns01: {route53: {region: eu-central-1}}}",
			) + `}}`,
			accepted,
		},
	})
}

func TestSolversSayHow(t *testing.T) {
	solver := func(settings string) string { return `spec: {acme: {solvers: [{` + settings + `}]}}` }
	at := func(path string) string { return "spec.acme.solvers[0]" + path }
	one := refused(at(""), "exactly one of http01, dns01 and tlsALPN01 must be set")
	oneRoute := refused(at(".http01"), "exactly one of ingress and gatewayHTTPRoute must be set")
	class := refused(at(".http01.ingress"), "at most one of ingressClassName, class and name can be set")
	className := refused(
		at(".http01.ingress.ingressClassName"),
		"ingressClassName must be the name of an IngressClass: lower-case letters, digits, '-' and '.'; "+
			"for a value of the annotation kubernetes.io/ingress.class use class",
	)
	wait := refused(
		at(".waitInsteadOfSelfCheck"),
		"waitInsteadOfSelfCheck must be a number, not negative, with the unit h, m or s, such as 30s",
	)
	judgeIssuers(t, acme, []example{
		{"nothing is refused", solver(`selector: {dnsZones: [example.com]}`), one},
		{
			"both are refused",
			solver(`http01: {ingress: {}}, dns01: {digitalocean: {tokenSecretRef: {name: do, key: token}}}`),
			one,
		},

		{"an ingress is accepted", solver(`http01: {ingress: {}}`), accepted},
		{
			"a route is accepted",
			solver(`http01: {gatewayHTTPRoute: {parentRefs: [{name: gateway}], serviceType: ClusterIP}}`),
			accepted,
		},
		{"a route without parents is accepted", solver(`http01: {gatewayHTTPRoute: {}}`), accepted},
		{"neither is refused", solver(`http01: {}`), oneRoute},
		{"both at once are refused", solver(`http01: {ingress: {}, gatewayHTTPRoute: {}}`), oneRoute},
		{
			"a parent without a name is refused",
			solver(`http01: {gatewayHTTPRoute: {parentRefs: [{kind: Gateway}]}}`),
			refused(at(".http01.gatewayHTTPRoute.parentRefs[0].name"), "Required value"),
		},
		{
			"a route with a load balancer is refused",
			solver(`http01: {gatewayHTTPRoute: {serviceType: LoadBalancer}}`),
			refused(at(".http01.gatewayHTTPRoute.serviceType"), "serviceType must be ClusterIP or NodePort"),
		},

		{"the name of a class is accepted", solver(`http01: {ingress: {ingressClassName: nginx}}`), accepted},
		{
			"the annotation of a class is accepted",
			solver(`http01: {ingress: {class: azure/application-gateway, name: ""}}`),
			accepted,
		},
		{"an existing ingress is accepted", solver(`http01: {ingress: {name: web}}`), accepted},
		{"a class twice is refused", solver(`http01: {ingress: {ingressClassName: nginx, class: nginx}}`), class},
		{
			"a class and an existing ingress are refused",
			solver(`http01: {ingress: {ingressClassName: nginx, name: web}}`),
			class,
		},
		{
			"an annotation in place of a name is refused",
			solver(`http01: {ingress: {ingressClassName: azure/application-gateway}}`),
			className,
		},
		{"an empty name of a class is refused", solver(`http01: {ingress: {ingressClassName: ""}}`), className},
		{"an ingress with a node port is accepted", solver(`http01: {ingress: {serviceType: NodePort}}`), accepted},
		{
			"an ingress with a load balancer is refused",
			solver(`http01: {ingress: {serviceType: LoadBalancer}}`),
			refused(at(".http01.ingress.serviceType"), "serviceType must be ClusterIP or NodePort"),
		},
		{"settings of the pod are accepted", solver(`http01: {ingress: {podTemplate: {metadata: {labels: {a: b}}, spec: {
			nodeSelector: {kubernetes.io/os: linux}, tolerations: [{key: a, operator: Exists}], imagePullSecrets: [{name: pull}],
			securityContext: {runAsNonRoot: true, runAsUser: 1000}, resources: {limits: {cpu: 100m, memory: 64Mi}}}}}}`), accepted},

		{"a solver pod is accepted", solver(`http01: {ingress: {}, solverMode: Pod}`), accepted},
		{
			"an unknown mode is refused",
			solver(`http01: {ingress: {}, solverMode: Sidecar}`),
			refused(at(".http01.solverMode"), `Unsupported value: "Sidecar": supported values: "Shared", "Pod"`),
		},
		{"a handshake is accepted", solver(`tlsALPN01: {}`), accepted},
		{
			"a handshake beside a record is refused",
			solver(`tlsALPN01: {}, dns01: {digitalocean: {tokenSecretRef: {name: do, key: token}}}`),
			one,
		},
		{"a wait after the check is accepted", solver(`http01: {ingress: {}}, waitForRecordToPropagate: 30s`), accepted},
		{
			"a negative wait after the check is refused",
			solver(`http01: {ingress: {}}, waitForRecordToPropagate: -1s`),
			refused(
				at(".waitForRecordToPropagate"),
				"waitForRecordToPropagate must be a number, not negative, with the unit h, m or s, such as 30s",
			),
		},
		{"a wait is accepted", solver(`http01: {ingress: {}}, waitInsteadOfSelfCheck: 2m`), accepted},
		{"no wait is accepted", solver(`http01: {ingress: {}}, waitInsteadOfSelfCheck: 0s`), accepted},
		{"a negative wait is refused", solver(`http01: {ingress: {}}, waitInsteadOfSelfCheck: -1s`), wait},
		{"a wait of days is refused", solver(`http01: {ingress: {}}, waitInsteadOfSelfCheck: 1d`), wait},
	})
}

func TestDNSProvidersHaveWhatTheyNeed(t *testing.T) {
	dns := func(settings string) string { return `spec: {acme: {solvers: [{dns01: {` + settings + `}}]}}` }
	at := func(path string) string { return "spec.acme.solvers[0].dns01" + path }
	one := refused(
		at(""),
		"exactly one of acmeDNS, akamai, azureDNS, cloudDNS, cloudflare, digitalocean, provider, rfc2136, route53 and "+
			"webhook must be set",
	)
	short := "should be at least 1 chars long"
	key := func(path string) verdict {
		return refused(at(path), "must name a Secret and the key of its entry: set name and key")
	}
	azureUnion := refused(
		at(".azureDNS"),
		"clientID, clientSecretSecretRef and tenantID belong together: set all three, or none",
	)
	azure := func(settings string) string {
		return dns(`azureDNS: {subscriptionID: s, resourceGroupName: g, ` + settings + `}`)
	}
	tsig := refused(
		at(".rfc2136.tsigKeyName"),
		"tsigKeyName and tsigSecretSecretRef, with name and key, belong together: set both, or none",
	)
	nameserver := refused(
		at(".rfc2136.nameserver"),
		"nameserver must be host:port or host, an IPv6 address in brackets: ns1.example.com:53, [2001:db8::1]:53",
	)
	cloudflareUnion := refused(at(".cloudflare"), "exactly one of apiKeySecretRef and apiTokenSecretRef must be set")
	server := func(i int) verdict {
		return refused(
			at(fmt.Sprintf(".nameservers[%d]", i)),
			"must be host:port, an IPv6 address in brackets, or an https:// URL: 192.0.2.53:53, [2001:db8::53]:53, "+
				"https://dns.example.com/dns-query",
		)
	}
	judgeIssuers(t, acme, []example{
		{"no provider is refused", dns(`cnameStrategy: Follow`), one},
		{
			"two providers are refused",
			dns(`route53: {region: a}, cloudflare: {apiTokenSecretRef: {name: cf, key: token}}`),
			one,
		},
		{
			"a provider of each type of challenge is accepted",
			dns(`challengeType: dns-account-01, route53: {region: a}`),
			accepted,
		},
		{
			"a persistent record by a provider is accepted",
			dns(`challengeType: dns-persist-01, persistUntil: "2030-01-02T03:04:05Z", route53: {region: a}`),
			accepted,
		},
		{"a persistent record made by hand is accepted", dns(`challengeType: dns-persist-01`), accepted},
		{
			"a persistent record by two providers is refused",
			dns(`challengeType: dns-persist-01, route53: {region: a}, digitalocean: {tokenSecretRef: {name: do, key: token}}`),
			one,
		},
		{"another record made by hand is refused", dns(`challengeType: dns-account-01`), one},
		{
			"a persistent record by acme-dns is refused",
			dns(`challengeType: dns-persist-01, acmeDNS: {host: a, accountSecretRef: {name: a, key: json}}`),
			refused(
				at(""),
				"acmeDNS and provider cannot have records of dns-persist-01: use another one, or none and make the record by hand",
			),
		},
		{
			"a persistent record by a provider of lego is refused",
			dns(`challengeType: dns-persist-01, provider: {name: hetzner}`),
			refused(
				at(""),
				"acmeDNS and provider cannot have records of dns-persist-01: use another one, or none and make the record by hand",
			),
		},
		{
			"an end of a record that does not stand is refused",
			dns(`persistUntil: "2030-01-02T03:04:05Z", route53: {region: a}`),
			refused(at(""), "persistUntil is for challengeType dns-persist-01"),
		},
		{
			"an unknown type of challenge is refused",
			dns(`challengeType: dns-02, route53: {region: a}`),
			refused(at(".challengeType"), `supported values: "dns-01", "dns-account-01", "dns-persist-01"`),
		},
		{
			"an unknown strategy is refused",
			dns(`cnameStrategy: Maybe, route53: {region: a}`),
			refused(at(".cnameStrategy"), `supported values: "None", "Follow"`),
		},
		{"nameservers are accepted", dns(`nameservers: ["10.0.0.53:53"], route53: {region: a}`), accepted},
		{
			"nameservers of each kind are accepted",
			dns(
				`nameservers: ["ns.example.com:53", "[2001:db8::53]:53", "https://dns.example.com/dns-query"], route53: {region: a}`,
			),
			accepted,
		},
		{
			"a nameserver without a port is refused",
			dns(`nameservers: ["10.0.0.53:53", "10.0.0.54"], route53: {region: a}`),
			server(1),
		},
		{
			"an IPv6 nameserver without brackets is refused",
			dns(`nameservers: ["2001:db8::53"], route53: {region: a}`),
			server(0),
		},
		{
			"a nameserver by http is refused",
			dns(`nameservers: ["http://dns.example.com/dns-query"], route53: {region: a}`),
			server(0),
		},
		{"an empty nameserver is refused", dns(`nameservers: [""], route53: {region: a}`), server(0)},

		{
			"Akamai is accepted",
			dns(
				`akamai: {serviceConsumerDomain: a, clientTokenSecretRef: {name: a, key: t}, clientSecretSecretRef: {name: a, key: s}, accessTokenSecretRef: {name: a, key: a}}`,
			),
			accepted,
		},
		{
			"Akamai without a host is refused",
			dns(
				`akamai: {serviceConsumerDomain: "", clientTokenSecretRef: {name: a, key: t}, clientSecretSecretRef: {name: a, key: s}, accessTokenSecretRef: {name: a, key: a}}`,
			),
			refused(at(".akamai.serviceConsumerDomain"), short),
		},
		{
			"Akamai without a key of the client token is refused",
			dns(
				`akamai: {serviceConsumerDomain: a, clientTokenSecretRef: {name: a}, clientSecretSecretRef: {name: a, key: s}, accessTokenSecretRef: {name: a, key: a}}`,
			),
			key(".akamai.clientTokenSecretRef"),
		},
		{
			"Akamai without a key of the client secret is refused",
			dns(
				`akamai: {serviceConsumerDomain: a, clientTokenSecretRef: {name: a, key: t}, clientSecretSecretRef: {name: a}, accessTokenSecretRef: {name: a, key: a}}`,
			),
			key(".akamai.clientSecretSecretRef"),
		},
		{
			"Akamai without a key of the access token is refused",
			dns(
				`akamai: {serviceConsumerDomain: a, clientTokenSecretRef: {name: a, key: t}, clientSecretSecretRef: {name: a, key: s}, accessTokenSecretRef: {name: a}}`,
			),
			key(".akamai.accessTokenSecretRef"),
		},

		{"Google Cloud DNS with the credentials of the environment is accepted", dns(`cloudDNS: {project: p}`), accepted},
		{
			"Google Cloud DNS with a key is accepted",
			dns(`cloudDNS: {project: p, serviceAccountSecretRef: {name: g, key: json}}`),
			accepted,
		},
		{
			"Google Cloud DNS without a project is refused",
			dns(`cloudDNS: {project: ""}`),
			refused(at(".cloudDNS.project"), short),
		},
		{
			"Google Cloud DNS with half a reference is refused",
			dns(`cloudDNS: {project: p, serviceAccountSecretRef: {name: g}}`),
			key(".cloudDNS.serviceAccountSecretRef"),
		},

		{"Cloudflare with a token is accepted", dns(`cloudflare: {apiTokenSecretRef: {name: cf, key: token}}`), accepted},
		{
			"Cloudflare with a key is accepted",
			dns(`cloudflare: {email: jane@example.com, apiKeySecretRef: {name: cf, key: key}}`),
			accepted,
		},
		{
			"Cloudflare with a key but no address is refused",
			dns(`cloudflare: {apiKeySecretRef: {name: cf, key: key}}`),
			refused(at(".cloudflare.email"), "email must be set with apiKeySecretRef: the address of the account"),
		},
		{
			"Cloudflare with both is refused",
			dns(
				`cloudflare: {email: jane@example.com, apiKeySecretRef: {name: cf, key: key}, apiTokenSecretRef: {name: cf, key: token}}`,
			),
			cloudflareUnion,
		},
		{"Cloudflare without credentials is refused", dns(`cloudflare: {email: jane@example.com}`), cloudflareUnion},
		{
			"Cloudflare with half a token is refused",
			dns(`cloudflare: {apiTokenSecretRef: {name: cf}}`),
			key(".cloudflare.apiTokenSecretRef"),
		},
		{
			"Cloudflare with half a key is refused",
			dns(`cloudflare: {email: jane@example.com, apiKeySecretRef: {name: "", key: key}}`),
			key(".cloudflare.apiKeySecretRef"),
		},

		{"Route 53 with the credentials of the environment is accepted", dns(`route53: {}`), accepted},
		{
			"Route 53 with an access key is accepted",
			dns(`route53: {region: a, accessKeyID: id, secretAccessKeySecretRef: {name: aws, key: key}}`),
			accepted,
		},
		{
			"Route 53 with a ServiceAccount is accepted",
			dns(`route53: {role: r, auth: {kubernetes: {serviceAccountRef: {name: aws}}}}`),
			accepted,
		},
		{
			"Route 53 with a ServiceAccount without a name is refused",
			dns(`route53: {auth: {kubernetes: {serviceAccountRef: {name: ""}}}}`),
			refused(at(".route53.auth.kubernetes.serviceAccountRef.name"), short),
		},
		{
			"Route 53 with two access key IDs is refused",
			dns(`route53: {accessKeyID: id, accessKeyIDSecretRef: {name: aws, key: id}}`),
			refused(at(".route53.accessKeyID"), "accessKeyID and accessKeyIDSecretRef exclude each other: remove one"),
		},
		{
			"Route 53 with half an access key ID is refused",
			dns(`route53: {accessKeyIDSecretRef: {name: aws}}`),
			key(".route53.accessKeyIDSecretRef"),
		},

		{"Azure with the credentials of the environment is accepted", azure(``), accepted},
		{
			"Azure with a service principal is accepted",
			azure(`clientID: c, tenantID: t, clientSecretSecretRef: {name: az, key: secret}`),
			accepted,
		},
		{
			"Azure with a private zone and a cloud is accepted",
			azure(`environment: AzureChinaCloud, zoneType: AzurePrivateZone`),
			accepted,
		},
		{
			"Azure without a subscription is refused",
			dns(`azureDNS: {subscriptionID: "", resourceGroupName: g}`),
			refused(at(".azureDNS.subscriptionID"), short),
		},
		{
			"Azure without a resource group is refused",
			dns(`azureDNS: {subscriptionID: s, resourceGroupName: ""}`),
			refused(at(".azureDNS.resourceGroupName"), short),
		},
		{"Azure with a client but no secret is refused", azure(`clientID: c, tenantID: t`), azureUnion},
		{"Azure with a tenant alone is refused", azure(`tenantID: t`), azureUnion},
		{
			"Azure with half a secret is refused",
			azure(`clientID: c, tenantID: t, clientSecretSecretRef: {name: az}`),
			key(".azureDNS.clientSecretSecretRef"),
		},
		{
			"Azure with an unknown cloud is refused",
			azure(`environment: AzureMoonCloud`),
			refused(at(".azureDNS.environment"), `"AzureUSGovernmentCloud"`),
		},
		{"Azure with a managed identity is accepted", azure(`managedIdentity: {clientID: c, tenantID: t}`), accepted},
		{"Azure with a managed identity by resource is accepted", azure(`managedIdentity: {resourceID: r}`), accepted},
		{
			"Azure with a managed identity and a service principal is refused",
			azure(`clientID: c, tenantID: t, clientSecretSecretRef: {name: az, key: secret}, managedIdentity: {}`),
			refused(
				at(".azureDNS.managedIdentity"),
				"managedIdentity excludes clientID, clientSecretSecretRef and tenantID: remove it, or them",
			),
		},
		{
			"Azure with an identity named twice is refused",
			azure(`managedIdentity: {clientID: c, resourceID: r}`),
			refused(
				at(".azureDNS.managedIdentity.resourceID"),
				"resourceID excludes clientID and tenantID: remove it, or them",
			),
		},
		{
			"Azure with an identity of a tenant by resource is refused",
			azure(`managedIdentity: {tenantID: c, resourceID: r}`),
			refused(
				at(".azureDNS.managedIdentity.resourceID"),
				"resourceID excludes clientID and tenantID: remove it, or them",
			),
		},
		{
			"Azure with a tenant but no identity is refused",
			azure(`managedIdentity: {tenantID: t}`),
			refused(at(".azureDNS.managedIdentity.clientID"), "tenantID needs clientID beside it"),
		},

		{"DigitalOcean is accepted", dns(`digitalocean: {tokenSecretRef: {name: do, key: token}}`), accepted},
		{
			"DigitalOcean with half a reference is refused",
			dns(`digitalocean: {tokenSecretRef: {name: do}}`),
			key(".digitalocean.tokenSecretRef"),
		},
		{
			"acme-dns is accepted",
			dns(`acmeDNS: {host: "https://dns.example.com", accountSecretRef: {name: a, key: json}}`),
			accepted,
		},
		{
			"acme-dns without a host is refused",
			dns(`acmeDNS: {host: "", accountSecretRef: {name: a, key: json}}`),
			refused(at(".acmeDNS.host"), short),
		},
		{
			"acme-dns with half a reference is refused",
			dns(`acmeDNS: {host: a, accountSecretRef: {name: a}}`),
			key(".acmeDNS.accountSecretRef"),
		},

		{
			"a webhook is accepted",
			dns(`webhook: {groupName: acme.example.com, solverName: example, config: {anything: [goes]}}`),
			accepted,
		},
		{
			"a webhook without a solver is refused",
			dns(`webhook: {groupName: acme.example.com, solverName: ""}`),
			refused(at(".webhook.solverName"), short),
		},

		{"a DNS server by name is accepted", dns(`rfc2136: {nameserver: ns1.example.com}`), accepted},
		{"a DNS server by name and port is accepted", dns(`rfc2136: {nameserver: "ns1.example.com:5353"}`), accepted},
		{"a DNS server by IPv4 address is accepted", dns(`rfc2136: {nameserver: "10.0.0.53:53", protocol: TCP}`), accepted},
		{"a DNS server by IPv6 address is accepted", dns(`rfc2136: {nameserver: "[2001:db8::1]"}`), accepted},
		{"a DNS server by IPv6 address and port is accepted", dns(`rfc2136: {nameserver: "[2001:db8::1]:53"}`), accepted},
		{"a DNS server without a host is refused", dns(`rfc2136: {nameserver: ":53"}`), nameserver},
		{"an empty DNS server is refused", dns(`rfc2136: {nameserver: ""}`), nameserver},
		{"a DNS server by IPv6 address without brackets is refused", dns(`rfc2136: {nameserver: "2001:db8::1"}`), nameserver},
		{
			"TSIG is accepted",
			dns(`rfc2136: {nameserver: ns1, tsigKeyName: k, tsigSecretSecretRef: {name: t, key: k}, tsigAlgorithm: hmacsha512}`),
			accepted,
		},
		{
			"an empty TSIG is accepted",
			dns(`rfc2136: {nameserver: ns1, tsigKeyName: "", tsigSecretSecretRef: {name: ""}, tsigAlgorithm: ""}`),
			accepted,
		},
		{"TSIG without a name is refused", dns(`rfc2136: {nameserver: ns1, tsigSecretSecretRef: {name: t, key: k}}`), tsig},
		{"TSIG without a key is refused", dns(`rfc2136: {nameserver: ns1, tsigKeyName: k}`), tsig},
		{
			"TSIG with half a reference is refused",
			dns(`rfc2136: {nameserver: ns1, tsigKeyName: k, tsigSecretSecretRef: {name: t}}`),
			tsig,
		},
		{
			"TSIG with an unknown algorithm is refused",
			dns(`rfc2136: {nameserver: ns1, tsigAlgorithm: HMACSHA3}`),
			refused(at(".rfc2136.tsigAlgorithm"), "tsigAlgorithm must be HMACMD5, HMACSHA1, HMACSHA256 or HMACSHA512"),
		},
	})
}
