package order_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// condition waits until the issuer has a condition with a status, reason and words, or has none if
// the reason is empty.
func (r *rig) condition(t cmapi.IssuerConditionType, status cmmeta.ConditionStatus, reason string, words ...string) {
	r.t.Helper()
	cluster.Eventually(r.t, func() error {
		issuer := r.getIssuer()
		c := cmapi.GetIssuerCondition(&issuer.Status, t)
		if c == nil && reason == "" {
			return nil
		}
		if c == nil || c.Status != status || c.Reason != reason {
			return cluster.NotYet("%s is %+v of %+v", t, c, issuer.Status.Conditions)
		}
		for _, w := range words {
			if !strings.Contains(c.Message, w) {
				return cluster.NotYet("%s says %s", t, c.Message)
			}
		}
		return nil
	})
}

// noReach checks that the issuer has no condition Unreachable.
func (r *rig) noReach() {
	r.t.Helper()
	if c := cmapi.GetIssuerCondition(&r.getIssuer().Status, cmapi.IssuerConditionUnreachable); c != nil {
		r.t.Errorf("the issuer is unreachable: %s", c.Message)
	}
}

// TestWhatNeedsNoCAIsSaidAtOnceWithoutIt puts all errors that can be detected locally into an
// issuer whose CA cannot be reached.
func TestWhatNeedsNoCAIsSaidAtOnceWithoutIt(t *testing.T) {
	t.Parallel()
	r, options := shop(t, &front{}, pebble.Options{})
	cluster.Run(t, options)
	r.issuer(bound, func(spec *cmacme.ACMEIssuer) {
		spec.Server, spec.Email, spec.PrivateKey.Name = "http://127.0.0.1:1/dir", "ops", "Not_A_Name"
		spec.Solvers = []cmacme.ACMEChallengeSolver{
			{DNS01: &cmacme.ACMEChallengeSolverDNS01{
				Cloudflare: &cmacme.ACMEIssuerDNS01ProviderCloudflare{APIToken: selector("cloudflare", "token")}}},
			{DNS01: &cmacme.ACMEChallengeSolverDNS01{
				Akamai: &cmacme.ACMEIssuerDNS01ProviderAkamai{ServiceConsumerDomain: "akab-1.luna.akamaiapis.net",
					ClientToken: *selector("akamai", "a"), ClientSecret: *selector("akamai", "b"),
					AccessToken: *selector("akamai", "c")}}},
		}
	})
	r.condition(cmapi.IssuerConditionReady, cmmeta.ConditionFalse, "InvalidURL",
		`spec.acme.server "http://127.0.0.1:1/dir" is no https URL`, `spec.acme.email "ops" is no address`,
		`spec.acme.privateKeySecretRef.name "Not_A_Name" cannot be the name of a Secret`,
		"/eab, spec.acme.externalAccountBinding.keySecretRef, does not exist: create it",
		"no solver can be used: spec.acme.solvers[0]: Secret "+r.namespace+
			"/cloudflare, dns01.cloudflare.apiTokenSecretRef, does not exist",
		"dns01.akamai.clientTokenSecretRef", "dns01.akamai.clientSecretSecretRef", "dns01.akamai.accessTokenSecretRef")
	r.condition(cmapi.IssuerConditionSolversValid, cmmeta.ConditionFalse, "InvalidSolver", "spec.acme.solvers[1]: ")
	r.noReach()

	// All but the CA is right, and then that, too.
	r.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "cloudflare"},
		StringData: map[string]string{"token": "x"}})
	r.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "eab"},
		StringData: map[string]string{"mac": "not base64!"}})
	r.changeIssuer(func(spec *cmacme.ACMEIssuer) {
		spec.Server, spec.Email, spec.PrivateKey.Name = "https://127.0.0.1:1/dir", "ops@example.org", "account"
	})
	r.condition(cmapi.IssuerConditionReady, cmmeta.ConditionFalse, "ErrRegisterACMEAccount", "entry mac of Secret",
		"is not base64url")
	r.noReach()
	r.changeIssuer(func(spec *cmacme.ACMEIssuer) { spec.ExternalAccountBinding = nil })
	says := []string{"the ACME server does not answer: Get https://127.0.0.1:1/dir: ",
		"connection refused: see whether the controller can connect there"}
	r.condition(cmapi.IssuerConditionReady, cmmeta.ConditionFalse, "ErrRegisterACMEAccount", says...)
	r.condition(cmapi.IssuerConditionUnreachable, cmmeta.ConditionTrue, "Unreachable", says...)
	r.changeIssuer(func(spec *cmacme.ACMEIssuer) { spec.Server = r.ca.Directory })
	r.issuerSays(cmmeta.ConditionTrue)
	r.noReach()
}

func selector(name, key string) *cmmeta.SecretKeySelector {
	return &cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: name}, Key: key}
}

func TestASolverWithoutItsSecretIsLeftOutUntilThatAppears(t *testing.T) {
	t.Parallel()
	r, options := shop(t, &front{}, pebble.Options{})
	cluster.Run(t, options)
	byDNS := cmacme.ACMEChallengeSolver{
		Selector: &cmacme.CertificateDNSNameSelector{DNSNames: []string{"other.example.com"}},
		DNS01: &cmacme.ACMEChallengeSolverDNS01{RFC2136: &cmacme.ACMEIssuerDNS01ProviderRFC2136{
			Nameserver: "127.0.0.1:53", TSIGKeyName: "updates", TSIGAlgorithm: "HMACSHA256",
			TSIGSecret: *selector("tsig", "key"),
		}},
	}
	var byHTTP cmacme.ACMEChallengeSolver
	r.issuer(func(spec *cmacme.ACMEIssuer) { byHTTP, spec.Solvers = spec.Solvers[0], append(spec.Solvers, byDNS) })
	r.condition(cmapi.IssuerConditionSolversValid, cmmeta.ConditionFalse, "InvalidSolver",
		"spec.acme.solvers[1]: Secret "+r.namespace+
			"/tsig, dns01.rfc2136.tsigSecretSecretRef, does not exist: create it with the entry key")
	r.issuerSays(cmmeta.ConditionTrue)
	r.eventually("an event says so", func() bool {
		return slices.ContainsFunc(r.events("InvalidSolver"), func(e string) bool { return strings.Contains(e, "/tsig") })
	})
	r.ready(r.certificate("site", "www.example.com")) // by the other one

	r.changeIssuer(func(spec *cmacme.ACMEIssuer) { spec.Solvers = []cmacme.ACMEChallengeSolver{byDNS} })
	r.condition(cmapi.IssuerConditionReady, cmmeta.ConditionFalse, "InvalidSolver", "no solver can be used: ", "/tsig")
	for _, step := range []struct {
		data  map[string][]byte
		wrong string
	}{
		{map[string][]byte{"other": []byte("x")}, "has no entry key: add it, or correct the key"},
		{map[string][]byte{"key": []byte("not base64!")}, "the secret is not base64"},
		{map[string][]byte{"key": []byte(tsigSecret)}, ""},
		{nil, "does not exist"}, // and gone again
		{map[string][]byte{"key": []byte(tsigSecret)}, ""},
	} {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "tsig", Namespace: r.namespace}, Data: step.data}
		err := r.admin.Update(t.Context(), secret)
		if apierrors.IsNotFound(err) {
			err = r.admin.Create(t.Context(), secret)
		}
		if step.data == nil {
			err = r.admin.Delete(t.Context(), secret)
		}
		if err != nil {
			t.Fatal(err)
		}
		if step.wrong != "" {
			r.condition(cmapi.IssuerConditionReady, cmmeta.ConditionFalse, "InvalidSolver", step.wrong)
			continue
		}
		r.issuerSays(cmmeta.ConditionTrue)
		r.condition(cmapi.IssuerConditionSolversValid, "", "")
	}

	// Without any solver the issuer can be used, and says what for.
	r.changeIssuer(func(spec *cmacme.ACMEIssuer) { spec.Solvers = nil })
	r.condition(cmapi.IssuerConditionSolversValid, cmmeta.ConditionFalse, "NoSolvers", "spec.acme.solvers is empty")
	r.issuerSays(cmmeta.ConditionTrue)
	r.changeIssuer(func(spec *cmacme.ACMEIssuer) { spec.Solvers = []cmacme.ACMEChallengeSolver{byHTTP} })
	r.condition(cmapi.IssuerConditionSolversValid, "", "")
}

// TestAnOutageLeavesARegisteredIssuerReady changes an issuer while its CA does not answer, or
// limits requests.
func TestAnOutageLeavesARegisteredIssuerReady(t *testing.T) {
	for name, test := range map[string]struct {
		answer func(http.ResponseWriter)
		reason string
		says   string
	}{
		"the CA is in trouble": {
			func(w http.ResponseWriter) { refuse(w, http.StatusInternalServerError, "serverInternal", "try later") },
			"Unreachable", "500 urn:ietf:params:acme:error:serverInternal: try later"},
		"the CA limits us": {
			func(w http.ResponseWriter) { refuse(w, http.StatusTooManyRequests, "rateLimited", "too many") }, "RateLimited",
			"429 urn:ietf:params:acme:error:rateLimited: too many"},
		"no reply comes": {
			func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, "Unreachable", "the ACME server does not answer: "},
		"a page is in its place": {
			func(w http.ResponseWriter) { fmt.Fprint(w, "<html>maintenance") }, "Unreachable", "the reply is not valid ACME"},
		"something busy is ahead": {func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		}, "Unreachable", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &front{}
			r, options := shop(t, f, pebble.Options{})
			cluster.Run(t, options)
			r.issuer()
			uri := r.issuerSays(cmmeta.ConditionTrue).URI
			f.behave(func(w http.ResponseWriter, q *http.Request, _ map[string]any) bool {
				if !strings.HasPrefix(q.URL.Path, pathNewAccount) {
					return false
				}
				test.answer(w)
				return true
			}, nil)
			r.changeIssuer(func(spec *cmacme.ACMEIssuer) { spec.PreferredChain = "Some Root" })
			r.condition(cmapi.IssuerConditionUnreachable, cmmeta.ConditionTrue, test.reason, test.says)
			if got := r.issuerSays(cmmeta.ConditionTrue).URI; got != uri {
				t.Errorf("the account is %q", got)
			}
			r.ready(r.certificate("site", "www.example.com")) // the rest of the CA works
			if test.reason == "RateLimited" {
				return // it is asked again in an hour
			}
			f.behave(nil, nil)
			r.condition(cmapi.IssuerConditionUnreachable, "", "")

			// At another server it has no account.
			r.changeIssuer(func(spec *cmacme.ACMEIssuer) { spec.Server = "https://127.0.0.1:1/dir" })
			r.issuerSays(cmmeta.ConditionFalse, "connection refused")
		})
	}
}

func TestAProfileThatTheCADoesNotListIsSaidByTheIssuer(t *testing.T) {
	t.Parallel()
	r, options := shop(t, &front{}, pebble.Options{})
	cluster.Run(t, options)
	r.issuer(func(spec *cmacme.ACMEIssuer) { spec.Profile = "no-such-profile" })
	r.condition(cmapi.IssuerConditionReady, cmmeta.ConditionFalse, "InvalidProfile",
		`the CA has no profile "no-such-profile"`, "Its directory lists ")
	r.noReach()
	crt := r.certificate("site", "www.example.com")
	r.says("Referenced issuer does not have a Ready status condition", `the CA has no profile "no-such-profile"`)
	r.changeIssuer(func(spec *cmacme.ACMEIssuer) { spec.Profile = "" })
	r.issuerSays(cmmeta.ConditionTrue)
	r.ready(crt)
}

// refusing is a client whose writes fail if refuse returns true, like with an admission policy.
type refusing struct {
	client.Client
	refuse func(what string) bool
}

const policySays = "the policy of this cluster forbids it"

func refusal(o client.Object) error {
	return apierrors.NewForbidden(corev1.Resource(fmt.Sprintf("%T", o)), o.GetName(), fmt.Errorf("%s", policySays))
}

func (c *refusing) Create(ctx context.Context, o client.Object, options ...client.CreateOption) error {
	if c.refuse(fmt.Sprintf("create %T", o)) {
		return refusal(o)
	}
	return c.Client.Create(ctx, o, options...)
}

func (c *refusing) Patch(ctx context.Context, o client.Object, p client.Patch, options ...client.PatchOption) error {
	if c.refuse(fmt.Sprintf("patch %T", o)) {
		return refusal(o)
	}
	return c.Client.Patch(ctx, o, p, options...)
}

func (c *refusing) Status() client.SubResourceWriter {
	return &refusingStatus{c.Client.Status(), c.refuse}
}

type refusingStatus struct {
	client.SubResourceWriter
	refuse func(what string) bool
}

func (c *refusingStatus) Patch(ctx context.Context, o client.Object, p client.Patch,
	options ...client.SubResourcePatchOption) error {
	if c.refuse(fmt.Sprintf("patch the status of %T", o)) {
		return refusal(o)
	}
	return c.SubResourceWriter.Patch(ctx, o, p, options...)
}

// TestEachRefusedWriteOfAnIssuanceIsSaid refuses each kind of write of an ACME issuer and its
// requests in turn. The refusal is visible where the user looks, and the issuance continues when
// writes are allowed again.
func TestEachRefusedWriteOfAnIssuanceIsSaid(t *testing.T) {
	for what, says := range map[string]func(*rig) string{
		"create *v1.Secret": func(r *rig) string { // the account key
			c := cmapi.GetIssuerCondition(&r.getIssuer().Status, cmapi.IssuerConditionReady)
			if c == nil || c.Status != cmmeta.ConditionFalse {
				return ""
			}
			if u := cmapi.GetIssuerCondition(&r.getIssuer().Status, cmapi.IssuerConditionUnreachable); u != nil {
				return "it is unreachable: " + u.Message
			}
			return c.Message
		},
		"patch the status of *v1.Issuer": func(r *rig) string { return strings.Join(r.events("StatusNotWritten"), "\n") },
		"patch the status of *v1.CertificateRequest": func(r *rig) string {
			return strings.Join(r.events("StatusNotWritten"),
				"\n")
		},
		"create *v1.Order": (*rig).pendingRequest,
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			refuses, refused := true, 0
			r, options := shop(t, &front{}, pebble.Options{})
			options.WrapClient = func(c client.Client) client.Client {
				return &refusing{c, func(now string) bool {
					mu.Lock()
					defer mu.Unlock()
					if refuses && now == what {
						refused++
						return true
					}
					return false
				}}
			}
			cluster.Run(t, options)
			r.issuer()
			crt := r.certificate("site", "www.example.com")
			r.eventually("it is said that "+what+" is refused", func() bool { return strings.Contains(says(r), policySays) })
			mu.Lock()
			refuses = false
			if refused == 0 {
				t.Error("nothing was refused")
			}
			mu.Unlock()
			r.ready(crt)
		})
	}
}

// pendingRequest returns the message of the waiting request.
func (r *rig) pendingRequest() string {
	var list cmapi.CertificateRequestList
	if err := r.admin.List(r.t.Context(), &list, client.InNamespace(r.namespace)); err != nil {
		r.t.Fatal(err)
	}
	var all []string
	for i := range list.Items {
		status := &list.Items[i].Status
		if u := cmapi.GetCertificateRequestCondition(status, cmapi.CertificateRequestConditionUnreachable); u != nil {
			return "it is unreachable: " + u.Message
		}
		if c := cmapi.GetCertificateRequestCondition(status, cmapi.CertificateRequestConditionReady); c != nil {
			all = append(all, c.Message)
		}
	}
	return strings.Join(all, "\n")
}

// TestASolverThatNothingAnswersIsSaidAtOnce starts a controller without the components that its
// solvers need.
func TestASolverThatNothingAnswersIsSaidAtOnce(t *testing.T) {
	t.Parallel()
	r, options := shop(t, &front{}, pebble.Options{})
	options.HTTP01Address = ""
	cluster.Run(t, options)
	r.issuer(func(spec *cmacme.ACMEIssuer) {
		pod := *spec.Solvers[0].DeepCopy()
		pod.HTTP01.SolverMode = cmacme.HTTP01SolverModePod
		spec.Solvers = append(spec.Solvers, pod,
			cmacme.ACMEChallengeSolver{TLSALPN01: &cmacme.ACMEChallengeSolverTLSALPN01{}},
			cmacme.ACMEChallengeSolver{DNS01: &cmacme.ACMEChallengeSolverDNS01{
				Webhook: &cmacme.ACMEIssuerDNS01ProviderWebhook{GroupName: "acme.example.net", SolverName: "mine"}}})
	})
	says := []string{
		"spec.acme.solvers[0]: this controller answers no HTTP-01 challenges: start it with --http01-listen-address",
		"spec.acme.solvers[1]: solverMode is Pod, and the controller has no image for it",
		"spec.acme.solvers[2]: this controller answers no TLS-ALPN-01 challenges",
		"spec.acme.solvers[3]: there is no APIService v1alpha1.acme.example.net: install the webhook",
	}
	r.condition(cmapi.IssuerConditionSolversValid, cmmeta.ConditionFalse, "InvalidSolver", says...)
	r.condition(cmapi.IssuerConditionReady, cmmeta.ConditionFalse, "InvalidSolver", "no solver can be used: ")
	r.condition(cmapi.IssuerConditionStalled, cmmeta.ConditionTrue, "InvalidSolver", says...)
	r.noReach()
}
