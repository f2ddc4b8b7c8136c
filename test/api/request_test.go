package api_test

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// The API server checks only the PEM header of spec.request, so here it is nothing else.
const certificateRequest = `
apiVersion: cert-manager.io/v1
kind: CertificateRequest
metadata:
  generateName: web-
  namespace: default
  annotations: {cert-manager.io/certificate-name: web, acme.cert-manager.io/http01-edit-in-place: "true", example.com/note: a}
spec:
  request: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K
  duration: 24h
  usages: [digital signature]
  issuerRef: {name: ca}
`

// dryUpdate patches a stored object as a dry run, to get the API server's verdict.
func dryUpdate(
	t testing.TB,
	client dynamic.Interface,
	resource schema.GroupVersionResource,
	stored *unstructured.Unstructured,
	patch string,
	subresources ...string,
) error {
	t.Helper()
	changed := object(t, toYAML(t, stored), patch)
	_, err := namespaced(
		client,
		resource,
		stored,
	).Update(t.Context(), changed, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}}, subresources...)
	return err
}

// setStatus stores a status.
func setStatus(
	t testing.TB,
	client dynamic.Interface,
	resource schema.GroupVersionResource,
	stored *unstructured.Unstructured,
	status string,
) *unstructured.Unstructured {
	t.Helper()
	out, err := namespaced(
		client,
		resource,
		stored,
	).UpdateStatus(t.Context(), object(t, toYAML(t, stored), status), metav1.UpdateOptions{})
	if err != nil {
		t.Fatalf("set status of %s: %v", stored.GetName(), err)
	}
	return out
}

func TestRequestsAreOfTheirForm(t *testing.T) {
	notPEM := refused("", "ValidatingAdmissionPolicy 'perennial-request-csr' with binding 'perennial-request-csr' "+
		"denied request: "+
		`admission webhook "webhook.cert-manager.io" denied the request: spec.request must be a PEM block of type CERTIFICATE REQUEST`)
	judge(t, certificateRequests, certificateRequest, []example{
		{"a request without a CSR is refused", `spec: {request: null}`, refused("spec.request", "Required value")},
		// "cmctl check api" looks for the words in quotation marks.
		{"a request that is no PEM is refused", `spec: {request: aGVsbG8=}`, notPEM},
		{"a request in DER is refused", `spec: {request: MIIBVzCB/gIBADA=}`, notPEM},
		{"a certificate in its place is refused", `spec: {request: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==}`, notPEM},
		{"a request of the older type, after other text, is accepted",
			`spec: {request: 77u/U3ViamVjdDogeAotLS0tLUJFR0lOIE5FVyBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0NCg==}`, accepted},
		{
			"a request without an issuer is refused",
			`spec: {issuerRef: {name: ""}}`,
			refused("spec.issuerRef.name", "name must be the name of the issuer"),
		},
		{
			"a request to an unknown kind is refused",
			`spec: {issuerRef: {kind: Certificate}}`,
			refused(
				"spec.issuerRef.kind",
				"kind must be Issuer or ClusterIssuer; for an external issuer also write its API group into issuerRef.group",
			),
		},
		{
			"a request to an external issuer is accepted",
			`spec: {issuerRef: {kind: StepIssuer, group: certmanager.step.sm}}`,
			accepted,
		},
		{
			"a request for days is refused",
			`spec: {duration: 90d}`,
			refused("spec.duration", "duration must be a number with the unit h, m or s, such as 2160h for 90 days"),
		},
		{"a request for 30 seconds is accepted, as the issuer decides", `spec: {duration: 30s}`, accepted},
	})
}

func TestTheSpecOfARequestIsFinal(t *testing.T) {
	client := admin(t)
	stored := create(t, client, certificateRequests, object(t, certificateRequest))
	final := refused("spec", "spec cannot be changed once the CertificateRequest exists: create another one")
	for _, e := range []example{
		{"its CSR does not change", `spec: {request: aGVsbG8gd29ybGQ=}`, final},
		{"its lifetime does not change", `spec: {duration: 48h}`, final},
		{"its lifetime does not go away", `spec: {duration: null}`, final},
		{"its usages do not change", `spec: {usages: [digital signature, server auth]}`, final},
		{"it does not become one for a CA", `spec: {isCA: true}`, final},
		{"its issuer does not change", `spec: {issuerRef: {name: other}}`, final},
		{"its requester does not change", `spec: {username: jane}`, final},
		{"the groups of its requester do not change", `spec: {groups: [developers]}`, final},
		{"the attributes of its requester do not change", `spec: {extra: {department: [pki]}}`, final},
		{"its labels may change", `metadata: {labels: {team: web}}`, accepted},
		{"an update that changes nothing is accepted", `{}`, accepted},
	} {
		t.Run(e.name, func(t *testing.T) {
			e.want.check(t, dryUpdate(t, client, certificateRequests, stored, e.patch))
		})
	}
}

func TestTheAnnotationsOfARequestAreFinal(t *testing.T) {
	client := admin(t)
	stored := create(t, client, certificateRequests, object(t, certificateRequest))
	final := func(name string) verdict {
		return refused(
			"",
			"metadata.annotations["+name+"] cannot be changed once the CertificateRequest exists: create another one",
		)
	}
	for _, e := range []example{
		{"one of cert-manager.io does not change", `metadata: {annotations: {cert-manager.io/certificate-name: other}}`, final("cert-manager.io/certificate-name")},
		{"one of cert-manager.io does not go away", `metadata: {annotations: {cert-manager.io/certificate-name: null}}`, final("cert-manager.io/certificate-name")},
		{"one of cert-manager.io does not arrive", `metadata: {annotations: {cert-manager.io/private-key-secret-name: other}}`, final("cert-manager.io/private-key-secret-name")},
		{"one of acme.cert-manager.io does not change", `metadata: {annotations: {acme.cert-manager.io/http01-edit-in-place: "false"}}`, final("acme.cert-manager.io/http01-edit-in-place")},
		{"they do not go away together", `metadata: {annotations: {cert-manager.io/certificate-name: null, acme.cert-manager.io/http01-edit-in-place: "true", example.com/note: null}}`, final("cert-manager.io/certificate-name")},
		{"one of others may change", `metadata: {annotations: {example.com/note: b}}`, accepted},
		{"one of others may go away", `metadata: {annotations: {example.com/note: null}}`, accepted},
		{"the handle of a Venafi request may arrive", `metadata: {annotations: {venafi.cert-manager.io/pickup-id: "1"}}`, accepted},
	} {
		t.Run(e.name, func(t *testing.T) {
			e.want.check(t, dryUpdate(t, client, certificateRequests, stored, e.patch))
		})
	}
}

func TestARequestIsApprovedOrDenied(t *testing.T) {
	client := admin(t)
	stored := create(t, client, certificateRequests, object(t, certificateRequest))
	onlyTrue := refused("status.conditions", "the conditions Approved and Denied can only be True")
	for _, e := range []example{
		{"it can be approved", `status: {conditions: [{type: Approved, status: "True", reason: Example}]}`, accepted},
		{"it can be denied", `status: {conditions: [{type: Denied, status: "True"}]}`, accepted},
		{"it can be approved and signed at once", `status: {certificate: aGVsbG8=, conditions: [{type: Approved, status: "True"}, {type: Ready, status: "True", reason: Issued}]}`, accepted},
		{"it can be not ready", `status: {conditions: [{type: Ready, status: "False", reason: Pending}]}`, accepted},
		{"it cannot be half approved", `status: {conditions: [{type: Approved, status: "Unknown"}]}`, onlyTrue},
		{"it cannot be not approved", `status: {conditions: [{type: Approved, status: "False"}]}`, onlyTrue},
		{"it cannot be not denied", `status: {conditions: [{type: Denied, status: "False"}]}`, onlyTrue},
		{"it cannot be approved and denied", `status: {conditions: [{type: Approved, status: "True"}, {type: Denied, status: "True"}]}`,
			refused("status.conditions", "a request cannot be Approved and Denied: remove one of the conditions")},
		{"it cannot be approved twice", `status: {conditions: [{type: Approved, status: "True"}, {type: Approved, status: "True", reason: Again}]}`,
			refused("status.conditions[1]", `Duplicate value: {"type":"Approved"}`)},
	} {
		t.Run(e.name, func(t *testing.T) {
			e.want.check(t, dryUpdate(t, client, certificateRequests, stored, e.patch, "status"))
		})
	}
}

func TestApprovalAndDenialAreFinal(t *testing.T) {
	final := refused(
		"status.conditions",
		"the conditions Approved and Denied are final: they can be neither changed nor removed",
	)
	for _, decision := range []string{"Approved", "Denied"} {
		t.Run(decision, func(t *testing.T) {
			client := admin(t)
			stored := create(t, client, certificateRequests, object(t, certificateRequest))
			condition := `type: ` + decision + `, status: "True", reason: Example, message: m, lastTransitionTime: "2026-01-02T03:04:05Z"`
			stored = setStatus(t, client, certificateRequests, stored, `status: {conditions: [{`+condition+`}]}`)
			for _, e := range []example{
				{"it may be followed by others", `status: {conditions: [{type: Ready, status: "False", reason: Pending}, {` + condition + `}]}`, accepted},
				{"its reason does not change", `status: {conditions: [{type: ` + decision + `, status: "True", reason: Other, message: m, lastTransitionTime: "2026-01-02T03:04:05Z"}]}`, final},
				{"its time does not change", `status: {conditions: [{type: ` + decision + `, status: "True", reason: Example, message: m, lastTransitionTime: "2026-01-02T03:04:06Z"}]}`, final},
				{"it is not replaced", `status: {conditions: [{type: Ready, status: "True"}]}`, final},
				{"it does not go away with all conditions", `status: {conditions: []}`, final},
				{"it does not go away with the list of conditions", `status: {conditions: null}`, final},
				{"it does not go away with the status", `status: null`, final},
			} {
				t.Run(e.name, func(t *testing.T) {
					e.want.check(t, dryUpdate(t, client, certificateRequests, stored, e.patch, "status"))
				})
			}
		})
	}
}
