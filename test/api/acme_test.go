package api_test

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const order = `
apiVersion: acme.cert-manager.io/v1
kind: Order
metadata: {generateName: web-, namespace: default}
spec:
  request: aGVsbG8=
  dnsNames: [www.example.com, example.com]
  issuerRef: {name: acme}
`

const challenge = `
apiVersion: acme.cert-manager.io/v1
kind: Challenge
metadata: {generateName: web-, namespace: default}
spec:
  url: https://acme.example.com/challenge/1
  authorizationURL: https://acme.example.com/authorization/1
  dnsName: example.com
  type: DNS-01
  token: token
  key: key
  issuerRef: {name: acme}
  solver: {dns01: {webhook: {groupName: acme.example.com, solverName: example, config: {zone: {id: 1}}}}}
`

func TestTheRequestOfAnOrderIsFinal(t *testing.T) {
	client := admin(t)
	stored := create(t, client, orders, object(t, order))
	for _, e := range []example{
		{"it does not change", `spec: {request: aGVsbG8gd29ybGQ=}`, refused("spec.request", "request of an Order cannot "+
			"be changed: create another CertificateRequest")},
		{"its labels may change", `metadata: {labels: {team: web}}`, accepted},
		{"the controller may change its issuer", `spec: {issuerRef: {name: other}}`, accepted},
	} {
		t.Run(e.name, func(t *testing.T) {
			e.want.check(t, dryUpdate(t, client, orders, stored, e.patch))
		})
	}
}

func TestWhatTheServerSaidOfAnOrderIsFinal(t *testing.T) {
	client := admin(t)
	stored := create(t, client, orders, object(t, order))
	t.Run("all can be set at once", func(t *testing.T) {
		accepted.check(
			t,
			dryUpdate(
				t,
				client,
				orders,
				stored,
				`status: {url: a, finalizeURL: b, certificate: aGVsbG8=, state: valid, authorizations: [{url: c}]}`,
				"status",
			),
		)
	})
	seen := `{url: "https://acme.example.com/authorization/1", identifier: www.example.com, wildcard: false, initialState: pending, challenges: [{url: u, token: t, type: dns-01}]}`
	unseen := `{url: "https://acme.example.com/authorization/2"}`
	stored = setStatus(t, client, orders, stored, `
status:
  url: https://acme.example.com/order/1
  finalizeURL: https://acme.example.com/order/1/finalize
  certificate: aGVsbG8=
  state: pending
  authorizations: [`+seen+`, `+unseen+`]
`)
	once := func(field string) verdict {
		return refused("status."+field, field+" of an Order cannot be changed once it is set")
	}
	authorizations := refused("status.authorizations", "authorizations of an Order cannot be changed once they are set")
	for _, e := range []example{
		{"its state may change", `status: {state: valid, reason: done, failureTime: "2026-01-02T03:04:05Z"}`, accepted},
		{"its URL does not change", `status: {url: https://acme.example.com/order/2}`, once("url")},
		{"its URL does not go away", `status: {url: null}`, once("url")},
		{"its URL does not become empty", `status: {url: ""}`, once("url")},
		{"its finalize URL does not change", `status: {finalizeURL: https://acme.example.com/order/2/finalize}`, once("finalizeURL")},
		{"its certificate does not change", `status: {certificate: aGVsbG8gd29ybGQ=}`, once("certificate")},
		{"its certificate does not go away", `status: {certificate: null}`, once("certificate")},
		{"an authorization that was not fetched yet may get its details", `status: {authorizations: [` + seen + `, {url: "https://acme.example.com/authorization/2", identifier: example.com, initialState: valid}]}`, accepted},
		{"an authorization that was fetched does not change", `status: {authorizations: [{url: "https://acme.example.com/authorization/1", identifier: other.example.com, wildcard: false, initialState: pending}, ` + unseen + `]}`, authorizations},
		{"an authorization does not get another URL", `status: {authorizations: [` + seen + `, {url: "https://acme.example.com/authorization/3"}]}`, authorizations},
		{"authorizations do not change places", `status: {authorizations: [` + unseen + `, ` + seen + `]}`, authorizations},
		{"authorizations do not arrive", `status: {authorizations: [` + seen + `, ` + unseen + `, {url: "https://acme.example.com/authorization/3"}]}`, authorizations},
		{"authorizations do not go away", `status: {authorizations: [` + seen + `]}`, authorizations},
		{"authorizations do not go away together", `status: {authorizations: null}`, authorizations},
	} {
		t.Run(e.name, func(t *testing.T) {
			e.want.check(t, dryUpdate(t, client, orders, stored, e.patch, "status"))
		})
	}
	t.Run("nothing goes away with the status", func(t *testing.T) {
		if err := dryUpdate(t, client, orders, stored, `status: null`, "status"); err == nil {
			t.Error("was accepted")
		}
	})
}

func TestOrdersOfManyNamesAreAccepted(t *testing.T) {
	client := admin(t)
	stored := create(t, client, orders, object(t, order, `spec: {dnsNames: `+list(1000, "host-%d.example.com")+`}`))
	all := list(
		1000,
		`{url: "https://acme.example.com/authorization/%d", identifier: example.com, initialState: pending, challenges: [{url: u, token: t, type: http-01}, {url: u, token: t, type: dns-01}, {url: u, token: t, type: tls-alpn-01}]}`,
	)
	stored = setStatus(t, client, orders, stored, `status: {url: a, authorizations: `+all+`}`)
	accepted.check(t, dryUpdate(t, client, orders, stored, `status: {state: ready}`, "status"))
}

func TestAChallengeIsPendingFromTheStart(t *testing.T) {
	stored := create(t, admin(t), challenges, object(t, challenge))
	if state, _, _ := unstructured.NestedString(stored.Object, "status", "state"); state != "pending" {
		t.Errorf("the state of a new Challenge is %q", state)
	}
}

func TestTheSpecOfAChallengeIsFinal(t *testing.T) {
	client := admin(t)
	stored := create(t, client, challenges, object(t, challenge))
	final := refused("spec", "spec of a Challenge cannot be changed")
	for _, e := range []example{
		{"its key does not change", `spec: {key: other}`, final},
		{"its name does not change", `spec: {dnsName: example.org}`, final},
		{"it does not become one for a wildcard", `spec: {wildcard: true}`, final},
		{"its solver does not change", `spec: {solver: {dns01: {webhook: {solverName: other}}}}`, final},
		{"the settings of its webhook do not change", `spec: {solver: {dns01: {webhook: {config: {zone: {id: 2}}}}}}`, final},
		{"the settings of its webhook do not go away", `spec: {solver: {dns01: {webhook: {config: null}}}}`, final},
		{"its finalizers may change", `metadata: {finalizers: [acme.cert-manager.io/finalizer]}`, accepted},
		{"an update that changes nothing is accepted", `{}`, accepted},
	} {
		t.Run(e.name, func(t *testing.T) {
			e.want.check(t, dryUpdate(t, client, challenges, stored, e.patch))
		})
	}
	t.Run("its status may change", func(t *testing.T) {
		accepted.check(
			t,
			dryUpdate(
				t,
				client,
				challenges,
				stored,
				`status: {processing: true, presented: true, presentedAt: "2026-01-02T03:04:05Z", state: pending, reason: waiting}`,
				"status",
			),
		)
	})
}
