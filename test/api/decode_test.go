package api_test

import (
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// A single object that does not decode into our types would make every list of its kind fail in the
// whole cluster.
func TestValuesThatOurTypesCannotHoldAreRefused(t *testing.T) {
	const request = `
apiVersion: cert-manager.io/v1
kind: CertificateRequest
metadata: {name: web, namespace: default}
spec:
  request: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K
  issuerRef: {name: ca}
`
	const order = `
apiVersion: acme.cert-manager.io/v1
kind: Order
metadata: {name: web, namespace: default}
spec:
  request: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K
  issuerRef: {name: ca}
`
	const issuer = "apiVersion: cert-manager.io/v1\nkind: Issuer\n" +
		"metadata: {name: example, namespace: default}\nspec: " + acme
	pod := func(settings string) string {
		return `spec: {acme: {solvers: [{http01: {ingress: {podTemplate: {spec: {` + settings + `}}}}}]}}`
	}
	kinds := []struct {
		name     string
		resource schema.GroupVersionResource
		base     string
		patches  map[string]string
	}{
		{
			"Certificate",
			certificates,
			certificate,
			map[string]string{
				"a lifetime of a million years":        `spec: {duration: 9999999999h}`,
				"a lifetime of too many digits":        `spec: {duration: 99999999999999999999s}`,
				"renewal a million years before":       `spec: {renewBefore: 9999999999h}`,
				"a window of a million years":          `spec: {renewal: {policy: RenewBefore, windows: [{cron: "* * * * *", windowDuration: 9999999999h}]}}`,
				"a key of more bits than a number has": `spec: {privateKey: {algorithm: Ed25519, size: 10000000000000000000000}}`,
				"a key of half a bit":                  `spec: {privateKey: {size: 2048.5}}`,
				"a percentage beyond 32 bits":          `spec: {renewBeforePercentage: 4294967346}`,
				"a revision limit beyond 32 bits":      `spec: {revisionHistoryLimit: 4294967297}`,
				"a number in place of a name":          `spec: {secretName: 1}`,
			},
		},
		{"CertificateRequest", certificateRequests, request, map[string]string{
			"a lifetime of a million years":      `spec: {duration: 9999999999h}`,
			"a lifetime of days":                 `spec: {duration: 90d}`,
			"a request that is not base64":       `spec: {request: "?"}`,
			"a request that is cut off":          `spec: {request: aGVsbG8}`,
			"a request in the URL's alphabet":    `spec: {request: "-_-_"}`,
			"an attribute that is a list of one": `spec: {usages: digital signature}`,
		}},
		{"Order", orders, order, map[string]string{
			"a lifetime of a million years": `spec: {duration: 9999999999h}`,
			"a lifetime of days":            `spec: {duration: 90d}`,
			"a request that is not base64":  `spec: {request: "?"}`,
		}},
		{
			"Issuer",
			issuers,
			issuer,
			map[string]string{
				"a wait of a million years":   `spec: {acme: {solvers: [{http01: {ingress: {}}, waitInsteadOfSelfCheck: 9999999999h}]}}`,
				"a toleration beyond 64 bits": pod(`tolerations: [{tolerationSeconds: 10000000000000000000000}]`),
				"a weight beyond 32 bits": pod(
					`affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 4294967297, preference: {}}]}}`,
				),
				"a user beyond 64 bits":         pod(`securityContext: {runAsUser: 10000000000000000000000}`),
				"a group beyond 64 bits":        pod(`securityContext: {supplementalGroups: [10000000000000000000000]}`),
				"a quantity that is none":       pod(`resources: {limits: {cpu: lots}}`),
				"a quantity of too many digits": pod(`resources: {limits: {cpu: 1e999999999999}}`),
				"a port beyond 16 bits":         `spec: {acme: {solvers: [{http01: {gatewayHTTPRoute: {parentRefs: [{name: a, port: 4294967297}]}}}]}}`,
				"a bundle that is not base64":   `spec: {acme: {caBundle: "-----BEGIN CERTIFICATE-----"}}`,
			},
		},
	}
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			client := admin(t)
			t.Run("the example that the others change is accepted", func(t *testing.T) {
				accepted.check(t, dryRun(t, client, kind.resource, object(t, kind.base)))
			})
			for name, patch := range kind.patches {
				t.Run(name, func(t *testing.T) {
					err := dryRun(t, client, kind.resource, object(t, kind.base, patch))
					if !apierrors.IsInvalid(err) && !apierrors.IsBadRequest(err) {
						t.Errorf("was not refused as invalid: %v", err)
					}
				})
			}
		})
	}
}
