package api_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// issuerKinds are the kinds of issuers, and how their manifests begin.
var issuerKinds = []struct {
	resource schema.GroupVersionResource
	head     string
}{
	{issuers, "kind: Issuer\nmetadata: {name: example, namespace: default}\n"},
	{clusterIssuers, "kind: ClusterIssuer\nmetadata: {name: example}\n"},
}

// judgeIssuers checks each example as an Issuer and as a ClusterIssuer. spec is that of the example
// that the others change.
func judgeIssuers(t *testing.T, spec string, examples []example) {
	t.Helper()
	for _, kind := range issuerKinds {
		t.Run(kind.resource.Resource, func(t *testing.T) {
			judge(t, kind.resource, "apiVersion: cert-manager.io/v1\n"+kind.head+"spec: "+spec, examples)
		})
	}
}

// bundle is a caBundle: PEM in base64. The schema does not parse the certificate itself.
var bundle = base64.StdEncoding.EncodeToString([]byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"))

func TestIssuersHaveOneType(t *testing.T) {
	one := refused("spec", "exactly one of acme, ca, selfSigned, vault and venafi must be set")
	judgeIssuers(t, `{selfSigned: {}}`, []example{
		{
			"a type without settings is accepted",
			`spec: {selfSigned: {crlDistributionPoints: ["http://crl.example.com"]}}`,
			accepted,
		},
		{"no type is refused", `spec: {selfSigned: null}`, one},
		{"two types are refused", `spec: {ca: {secretName: ca}}`, one},
		{"no spec is refused", `spec: null`, refused("spec", "Required value")},
	})
}

func TestCAIssuersNameTheirKeyPair(t *testing.T) {
	judgeIssuers(t, `{ca: {secretName: ca}}`, []example{
		{
			"URLs for certificates are accepted",
			`spec: {ca: {crlDistributionPoints: ["http://crl.example.com"], ocspServers: ["http://ocsp.example.com"], issuingCertificateURLs: ["http://ca.example.com/ca.crt"]}}`,
			accepted,
		},
		{"a missing Secret is refused", `spec: {ca: {secretName: null}}`, refused("spec.ca.secretName", "Required value")},
		{
			"an empty Secret is refused",
			`spec: {ca: {secretName: ""}}`,
			refused("spec.ca.secretName", "should be at least 1 chars long"),
		},
		{
			"an empty OCSP URL is refused",
			`spec: {ca: {ocspServers: [""]}}`,
			refused("spec.ca.ocspServers[0]", "should be at least 1 chars long"),
		},
		{
			"an empty URL of the issuer is refused",
			`spec: {ca: {issuingCertificateURLs: [""]}}`,
			refused("spec.ca.issuingCertificateURLs[0]", "should be at least 1 chars long"),
		},
	})
}

const vault = `{vault: {server: "https://vault.example.com", path: pki/sign/web, auth: {tokenSecretRef: {name: vault, key: token}}}}`

func TestVaultIssuersSayWhereVaultIs(t *testing.T) {
	dots := "must not have '..' between slashes"
	judgeIssuers(t, vault, []example{
		{
			"an empty server is refused",
			`spec: {vault: {server: ""}}`,
			refused("spec.vault.server", "should be at least 1 chars long"),
		},
		{
			"an empty path is refused",
			`spec: {vault: {path: ""}}`,
			refused("spec.vault.path", "should be at least 1 chars long"),
		},
		{"a path that goes up is refused", `spec: {vault: {path: pki/../secret}}`, refused("spec.vault.path", dots)},
		{"a path that begins by going up is refused", `spec: {vault: {path: ../secret}}`, refused("spec.vault.path", dots)},
		{"a path that ends by going up is refused", `spec: {vault: {path: pki/..}}`, refused("spec.vault.path", dots)},
		{"two dots in a name are accepted", `spec: {vault: {path: pki/sign/a..b}}`, accepted},
		{"a bundle is accepted", `spec: {vault: {caBundle: ` + bundle + `}}`, accepted},
		{"a reference to a bundle is accepted", `spec: {vault: {caBundleSecretRef: {name: ca}}}`, accepted},
		{"both are refused", `spec: {vault: {caBundle: ` + bundle + `, caBundleSecretRef: {name: ca}}}`,
			refused("spec.vault.caBundle", "caBundle and caBundleSecretRef exclude each other: remove one")},
		{
			"a bundle that is no PEM is refused",
			`spec: {vault: {caBundle: aGVsbG8=}}`,
			refused("spec.vault.caBundle", "caBundle must hold certificates, PEM, in base64"),
		},
		{
			"a client certificate with its key is accepted",
			`spec: {vault: {clientCertSecretRef: {name: client}, clientKeySecretRef: {name: client}}}`,
			accepted,
		},
		{"a client certificate without its key is refused", `spec: {vault: {clientCertSecretRef: {name: client}}}`,
			refused("spec.vault.clientKeySecretRef", "clientCertSecretRef needs clientKeySecretRef beside it")},
		{"a key without its client certificate is refused", `spec: {vault: {clientKeySecretRef: {name: client}}}`,
			refused("spec.vault.clientCertSecretRef", "clientKeySecretRef needs clientCertSecretRef beside it")},
	})
}

func TestVaultIssuersCanLogIn(t *testing.T) {
	auth := func(settings string) string { return `spec: {vault: {auth: {tokenSecretRef: null, ` + settings + `}}}` }
	short := "should be at least 1 chars long"
	dots := "must not have '..' between slashes"
	oneSource := refused("spec.vault.auth.kubernetes", "exactly one of secretRef and serviceAccountRef must be set")
	judgeIssuers(t, vault, []example{
		{
			"no way is refused",
			auth(``),
			refused("spec.vault.auth", "auth must have one of tokenSecretRef, appRole, clientCertificate, kubernetes and aws"),
		},
		{"two ways are accepted, as the first one is used", `spec: {vault: {auth: {clientCertificate: {}}}}`, accepted},

		{
			"an AppRole is accepted",
			auth(`appRole: {path: approle, roleId: web, secretRef: {name: vault, key: id}}`),
			accepted,
		},
		{
			"an AppRole without an ID is refused",
			auth(`appRole: {path: approle, roleId: "", secretRef: {name: vault}}`),
			refused("spec.vault.auth.appRole.roleId", short),
		},
		{
			"an AppRole without a Secret is refused",
			auth(`appRole: {path: approle, roleId: web, secretRef: {name: ""}}`),
			refused("spec.vault.auth.appRole.secretRef.name", "secretRef must name a Secret"),
		},
		{
			"an AppRole whose path goes up is refused",
			auth(`appRole: {path: ../sys, roleId: web, secretRef: {name: vault}}`),
			refused("spec.vault.auth.appRole.path", dots),
		},

		{
			"a client certificate is accepted",
			auth(`clientCertificate: {mountPath: /v1/auth/cert, secretName: client, name: web}`),
			accepted,
		},
		{
			"a client certificate whose path goes up is refused",
			auth(`clientCertificate: {mountPath: /v1/auth/../sys}`),
			refused("spec.vault.auth.clientCertificate.mountPath", dots),
		},

		{
			"a ServiceAccount is accepted",
			auth(`kubernetes: {role: web, serviceAccountRef: {name: vault, audiences: [vault]}}`),
			accepted,
		},
		{
			"a ServiceAccount beside an empty reference is accepted",
			auth(`kubernetes: {role: web, secretRef: {name: ""}, serviceAccountRef: {name: vault}}`),
			accepted,
		},
		{"a token in a Secret is accepted", auth(`kubernetes: {role: web, secretRef: {name: vault, key: token}}`), accepted},
		{
			"both are refused",
			auth(`kubernetes: {role: web, secretRef: {name: vault}, serviceAccountRef: {name: vault}}`),
			oneSource,
		},
		{"none is refused", auth(`kubernetes: {role: web}`), oneSource},
		{
			"a Kubernetes login without a role is refused",
			auth(`kubernetes: {role: "", serviceAccountRef: {name: vault}}`),
			refused("spec.vault.auth.kubernetes.role", short),
		},
		{
			"a ServiceAccount without a name is refused",
			auth(`kubernetes: {role: web, serviceAccountRef: {name: ""}}`),
			refused("spec.vault.auth.kubernetes.serviceAccountRef.name", short),
		},
		{
			"a Kubernetes login whose path goes up is refused",
			auth(`kubernetes: {role: web, mountPath: ../x, serviceAccountRef: {name: vault}}`),
			refused("spec.vault.auth.kubernetes.mountPath", dots),
		},

		{"an AWS login with the credentials of the environment is accepted", auth(`aws: {role: web}`), accepted},
		{
			"an AWS login with a ServiceAccount is accepted",
			auth(`aws: {role: web, serviceAccountRef: {name: vault}, iamRoleArn: "arn:aws:iam::1:role/web"}`),
			accepted,
		},
		{
			"an AWS login with a ServiceAccount but no role in AWS is refused",
			auth(`aws: {role: web, serviceAccountRef: {name: vault}}`),
			refused(
				"spec.vault.auth.aws.iamRoleArn",
				"iamRoleArn must be set with serviceAccountRef: the ARN of the role that its token is exchanged for",
			),
		},
		{"an AWS login without a role is refused", auth(`aws: {role: ""}`), refused("spec.vault.auth.aws.role", short)},
		{
			"an AWS login whose path goes up is refused",
			auth(`aws: {role: web, mountPath: /v1/auth/../sys}`),
			refused("spec.vault.auth.aws.mountPath", dots),
		},
	})
}

func TestVenafiIssuersSayWhereTheZoneIs(t *testing.T) {
	venafi := func(settings string) string { return `spec: {venafi: {cloud: null, ` + settings + `}}` }
	one := refused("spec.venafi", "exactly one of tpp, cloud and ngts must be set")
	short := "should be at least 1 chars long"
	judgeIssuers(t, `{venafi: {zone: web, cloud: {apiTokenSecretRef: {name: venafi, key: token}}}}`, []example{
		{"an empty zone is refused", `spec: {venafi: {zone: ""}}`, refused("spec.venafi.zone", short)},
		{"no place is refused", venafi(``), one},
		{"two places are refused", `spec: {venafi: {ngts: {tsgID: "1", credentialsRef: {name: ngts}}}}`, one},

		{
			"a server is accepted",
			venafi(`tpp: {url: "https://tpp.example.com/vedsdk", credentialsRef: {name: tpp}, caBundle: ` + bundle + `}`),
			accepted,
		},
		{
			"an empty server is refused",
			venafi(`tpp: {url: "", credentialsRef: {name: tpp}}`),
			refused("spec.venafi.tpp.url", short),
		},
		{
			"two bundles are refused",
			venafi(
				`tpp: {url: "https://tpp.example.com", credentialsRef: {name: tpp}, caBundle: ` + bundle + `, caBundleSecretRef: {name: ca}}`,
			),
			refused("spec.venafi.tpp.caBundle", "caBundle and caBundleSecretRef exclude each other: remove one"),
		},

		{"NGTS is accepted", venafi(`ngts: {tsgID: "1234567890", credentialsRef: {name: ngts}}`), accepted},
		{
			"NGTS without a tenant is refused",
			venafi(`ngts: {tsgID: "", credentialsRef: {name: ngts}}`),
			refused("spec.venafi.ngts.tsgID", short),
		},
		{
			"NGTS without credentials is refused",
			venafi(`ngts: {tsgID: "1", credentialsRef: {name: ""}}`),
			refused("spec.venafi.ngts.credentialsRef.name", "credentialsRef must name a Secret"),
		},
	})
}

func TestWhatHasNoEffectOnAnIssuerIsWarnedAbout(t *testing.T) {
	binding := "{keyID: a, keySecretRef: {name: eab, key: hmac}%s}"
	for algorithm, says := range map[string]string{
		"": "",
		", keyAlgorithm: HS256": "spec.acme.externalAccountBinding.keyAlgorithm is deprecated and has no effect, as the " +
			"algorithm is always HS256: remove it",
	} {
		for _, kind := range issuerKinds {
			var got warnings
			config := adminConfig(t)
			config.WarningHandler = &got
			accepted.check(t, dryRun(t, clientFor(t, config), kind.resource, object(
				t,
				"apiVersion: cert-manager.io/v1\n"+kind.head+"spec: "+acme,
				"spec: {acme: {externalAccountBinding: "+fmt.Sprintf(binding, algorithm)+"}}",
			)))
			if all := strings.Join(got, "\n"); (all != "") != (says != "") || !strings.Contains(all, says) {
				t.Errorf("%s: the warnings are %q, want %q", algorithm, all, says)
			}
		}
	}
}
