package order_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/egress"
	"github.com/perennial-pki/perennial/internal/ratelimit"
	"github.com/perennial-pki/perennial/internal/secrets"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// accountKey returns the key in the account's Secret.
func (r *rig) accountKey() crypto.Signer {
	r.t.Helper()
	secret := &corev1.Secret{}
	if err := r.admin.Get(r.t.Context(), client.ObjectKey{Namespace: r.namespace, Name: "account"}, secret); err != nil {
		r.t.Fatal(err)
	}
	key, err := pki.Limits{}.DecodeKeyPEM(secret.Data["tls.key"])
	if err != nil {
		r.t.Fatal(err)
	}
	return key
}

// atCA returns the account from the CA.
func (r *rig) atCA() (*acme.Client, acme.Account) {
	r.t.Helper()
	by := &acme.Client{Directory: r.ca.Directory, HTTP: r.ca.Client()}
	account, err := by.FindAccount(r.t.Context(), r.accountKey())
	if err != nil {
		r.t.Fatal(err)
	}
	if account, err = by.GetAccount(r.t.Context(), account); err != nil {
		r.t.Fatal(err)
	}
	return by, account
}

// blind is a client that sees no Secret, like a stale cache.
type blind struct{ client.Reader }

func (blind) Get(_ context.Context, key client.ObjectKey, _ client.Object, _ ...client.GetOption) error {
	return apierrors.NewNotFound(corev1.Resource("secrets"), key.Name)
}

// TestAKeyThatWasPutThereAMomentAgoHasItsAccountFound creates a Secret and its issuer at the same
// time, so that the cache shows the issuer first. The binding of the account is already used, and
// its email address differs.
func TestAKeyThatWasPutThereAMomentAgoHasItsAccountFound(t *testing.T) {
	t.Parallel()
	r, _ := shop(t, &front{}, pebble.Options{ExternalAccounts: map[string]string{"kid-1": macKey}})
	mac, err := base64.RawURLEncoding.DecodeString(macKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := pki.EncodeKeyPEM(key, pki.PKCS8)
	if err != nil {
		t.Fatal(err)
	}
	by := &acme.Client{Directory: r.ca.Directory, HTTP: r.ca.Client()}
	made, err := by.NewAccount(t.Context(), acme.AccountRequest{
		Key: key, Contact: []string{"mailto:others@example.org"}, TermsOfServiceAgreed: true,
		ExternalAccountBinding: &acme.ExternalAccountBinding{KeyID: "kid-1", MACKey: mac},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "account"}, Data: map[string][]byte{"tls.key": encoded}})
	r.issuer(bound) // to a Secret that there is no longer
	real := clock.RealClock{}
	accounts := &account.Accounts{
		Client:  r.admin,
		Secrets: &secrets.Store{OursCache: blind{}, OthersCache: blind{}, Live: r.admin},
		Clock:   real,
		Egress:  egress.Egress{Allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}, // that of the CA
		RateLimits: &ratelimit.Ledgers{
			Client:    r.admin,
			Namespace: r.namespace,
			Clock:     real,
			Orders:    func(context.Context, string) ([]ratelimit.OrderRecord, error) { return nil, nil },
		},
	}
	registered, err := accounts.Register(t.Context(), signer.Scope{}.Of(r.getIssuer()))
	if err != nil || registered.Status == nil || registered.Status.URI != made.URL {
		t.Fatalf("the status is %+v, %v", registered.Status, err)
	}
	if _, account := r.atCA(); !slices.Equal(account.Contact, []string{"mailto:ops@example.org"}) {
		t.Errorf("the CA has %q", account.Contact)
	}
}

func TestChangedTermsSayWhatToVisitUntilTheyAreAgreedTo(t *testing.T) {
	t.Parallel()
	f := &front{}
	wants := func(path string) {
		f.behave(func(w http.ResponseWriter, r *http.Request, _ map[string]any) bool {
			if !strings.HasPrefix(r.URL.Path, path) {
				return false
			}
			w.Header().Set("Link", `<https://ca.example/terms-2>; rel="terms-of-service"`)
			w.Header().Set("Retry-After", "1")
			refuse(
				w,
				http.StatusForbidden,
				"userActionRequired",
				"Terms of service have changed",
				`, "instance": "https://ca.example/agree?to=2"`,
			)
			return true
		}, nil)
	}
	r, options := shop(t, f, pebble.Options{})
	wants(pathNewAccount)
	cluster.Run(t, options)
	r.issuer()
	r.issuerSays(cmmeta.ConditionFalse, "Terms of service have changed", "visit https://ca.example/agree?to=2",
		"it will be asked again at")
	f.behave(nil, nil)
	r.issuerSays(cmmeta.ConditionTrue)

	wants(pathNewOrder)
	crt := r.certificate("site", "www.example.com")
	r.says("visit https://ca.example/agree?to=2", "it will be asked again at")
	f.behave(nil, nil)
	r.ready(crt)
	if crt.Status.FailedIssuanceAttempts != nil {
		t.Errorf("it counts as %d failures", *crt.Status.FailedIssuanceAttempts)
	}
}

func TestTheAddressOfAnAccountFollowsTheIssuer(t *testing.T) {
	t.Parallel()
	f := &front{}
	f.change = func(r *http.Request, payload map[string]any, reply *httptest.ResponseRecorder) {
		if strings.HasPrefix(r.URL.Path, pathNewAccount) && reply.Code < 300 { // as Let's Encrypt
			edit(t, reply, func(account map[string]any) { delete(account, "contact") })
		}
	}
	r, options := shop(t, f, pebble.Options{})
	cluster.Run(t, options)
	r.issuer()
	uri := r.issuerSays(cmmeta.ConditionTrue).URI
	for _, email := range []string{"others@example.org", ""} {
		r.changeIssuer(func(spec *cmacme.ACMEIssuer) { spec.Email = email })
		status := r.issuerSays(cmmeta.ConditionTrue)
		if status.URI != uri || status.LastRegisteredEmail != email {
			t.Errorf("the status is %+v", status)
		}
		want := []string{"mailto:" + email}
		if email == "" {
			want = nil
		}
		if _, account := r.atCA(); !slices.Equal(account.Contact, want) {
			t.Errorf("the CA has %q for %q", account.Contact, email)
		}
	}
}

func TestAnotherKeyIsAnotherAccount(t *testing.T) {
	t.Parallel()
	r, options := shop(t, &front{}, pebble.Options{})
	cluster.Run(t, options)
	r.issuer()
	seen := []string{r.issuerSays(cmmeta.ConditionTrue).URI}
	other := func(change func(*corev1.Secret)) {
		t.Helper()
		secret := &corev1.Secret{}
		if err := r.admin.Get(t.Context(), client.ObjectKey{Namespace: r.namespace, Name: "account"}, secret); err != nil {
			t.Fatal(err)
		}
		change(secret)
		cluster.Eventually(t, func() error {
			if status := r.issuerSays(cmmeta.ConditionTrue); slices.Contains(seen, status.URI) {
				return cluster.NotYet("the account is still %s", status.URI)
			}
			return nil
		})
		if _, account := r.atCA(); account.URL != r.getIssuer().Status.ACME.URI {
			t.Errorf("the account of the key is %s, not %s", account.URL, r.getIssuer().Status.ACME.URI)
		}
		seen = append(seen, r.getIssuer().Status.ACME.URI)
	}
	replace := func(secret *corev1.Secret) crypto.Signer {
		key, err := pki.KeySpec{Algorithm: pki.ECDSA, Size: 384}.Generate(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if secret.Data["tls.key"], err = pki.EncodeKeyPEM(key, pki.PKCS8); err != nil {
			t.Fatal(err)
		}
		return key
	}
	other(func(secret *corev1.Secret) { // replaced
		replace(secret)
		if err := r.admin.Update(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
	})
	other(func(secret *corev1.Secret) { // replaced by that of an account that there is, with another address
		by := &acme.Client{Directory: r.ca.Directory, HTTP: r.ca.Client()}
		_, err := by.NewAccount(
			t.Context(),
			acme.AccountRequest{
				Key:                  replace(secret),
				Contact:              []string{"mailto:others@example.org"},
				TermsOfServiceAgreed: true,
			},
		)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.admin.Update(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
	})
	if _, account := r.atCA(); !slices.Equal(account.Contact, []string{"mailto:ops@example.org"}) {
		t.Errorf("the CA has %q", account.Contact)
	}
	other(func(secret *corev1.Secret) { // deleted
		if err := r.admin.Delete(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
	})
	r.ready(r.certificate("site", "www.example.com"))
}

func TestAnAccountThatTheCAHasForgottenIsMadeAgainWithTheSameKey(t *testing.T) {
	t.Parallel()
	// The CA loses its memory: another one takes its place.
	var handler atomic.Pointer[http.Handler]
	other, err := pebble.Start(pebble.Options{Wrap: func(h http.Handler) http.Handler { handler.Store(&h); return h }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	cluster.Run(t, options)
	r.issuer()
	r.issuerSays(cmmeta.ConditionTrue)
	key := r.accountKey()
	// At first it answers no registration. The controller must not wait longer than that lasts.
	var away atomic.Int32
	f.behave(func(w http.ResponseWriter, r *http.Request, _ map[string]any) bool {
		switch n := away.Load(); {
		case !strings.HasPrefix(r.URL.Path, pathNewAccount) || n == 4:
			(*handler.Load()).ServeHTTP(w, r)
			return true
		case n < 2:
			refuse(w, http.StatusInternalServerError, "serverInternal", "the database is away")
		default:
			w.Header().Set("Retry-After", "1")
			refuse(w, http.StatusServiceUnavailable, "serverInternal", "the database comes back")
		}
		away.Add(1)
		return true
	}, nil)
	r.certificate("site", "www.example.com")
	cluster.Eventually(t, func() error { // before this test asks it, too
		if n := away.Load(); n < 4 {
			return cluster.NotYet("it was asked %d times\n%s", n, r.story())
		}
		return nil
	})
	cluster.Eventually(t, func() error {
		by := &acme.Client{Directory: r.ca.Directory, HTTP: r.ca.Client()}
		account, err := by.FindAccount(t.Context(), key)
		if err != nil {
			return err
		}
		if status := r.getIssuer().Status.ACME; status.URI != account.URL {
			return cluster.NotYet("the status is %+v, and the account %s", status, account.URL)
		}
		return nil
	})
	r.says(`order site-1-`, `"pending"`)
	if again := r.accountKey(); !again.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
		t.Error("the account has another key")
	}
}

// TestAnAccountThatTheCADoesNotKnowForAMomentLosesNothing uses a CA with several servers, one of
// which does not know the account yet.
func TestAnAccountThatTheCADoesNotKnowForAMomentLosesNothing(t *testing.T) {
	for _, test := range []struct {
		path string
		nth  int
	}{
		{pathNewOrder, 1}, {pathOrder, 1}, {pathAuthorization, 1}, {pathAuthorization, 2}, {pathChallenge, 1},
		{pathFinalize, 1}, {pathCertificate, 1},
	} {
		t.Run(fmt.Sprint(test.path, test.nth), func(t *testing.T) {
			t.Parallel()
			f := &front{}
			r, options := shop(t, f, pebble.Options{})
			var lost atomic.Bool
			f.behave(func(w http.ResponseWriter, r *http.Request, _ map[string]any) bool {
				if !strings.HasPrefix(r.URL.Path, test.path) || f.asked(test.path) < test.nth || !lost.CompareAndSwap(false, true) {
					return false
				}
				refuse(w, http.StatusBadRequest, "accountDoesNotExist", "never heard of it")
				return true
			}, nil)
			cluster.Run(t, options)
			r.issuer()
			uri := r.issuerSays(cmmeta.ConditionTrue).URI
			crt := r.certificate("site", "www.example.com")
			r.ready(crt)
			if !lost.Load() || crt.Status.FailedIssuanceAttempts != nil || r.issuerSays(cmmeta.ConditionTrue).URI != uri ||
				strings.Count(r.story(), "order site-1-") != 1 {
				t.Errorf("refused: %t, the status is %+v\n%s", lost.Load(), crt.Status, r.story())
			}
		})
	}
}

// TestWhatTheCASaidBeforeAnAccountWasFoundIsNotHeldAgainstIt validates two names at once at a CA
// that at first does not know the account. The same refusal of the second request arrives only
// after the controller has recovered from the first.
func TestWhatTheCASaidBeforeAnAccountWasFoundIsNotHeldAgainstIt(t *testing.T) {
	t.Parallel()
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	var asked atomic.Int32
	both, over := make(chan struct{}), make(chan struct{})
	f.behave(func(w http.ResponseWriter, r *http.Request, _ map[string]any) bool {
		if !strings.HasPrefix(r.URL.Path, pathChallenge) {
			return false
		}
		wait := both
		switch asked.Add(1) {
		case 1:
		case 2:
			close(both)
			wait = over
		case 3: // the first one again
			close(over)
			return false
		default:
			return false
		}
		select {
		case <-wait:
		case <-r.Context().Done():
		}
		refuse(w, http.StatusBadRequest, "accountDoesNotExist", "never heard of it")
		return true
	}, nil)
	cluster.Run(t, options)
	r.issuer()
	r.issuerSays(cmmeta.ConditionTrue)
	r.ready(r.certificate("site", "one.example.com", "two.example.com"))
	if n := asked.Load(); n < 4 {
		t.Errorf("the CA was asked %d times: nothing was tested", n)
	}
}

func TestACAThatNeverKnowsItsAccountsIsNotAskedInALoop(t *testing.T) {
	t.Parallel()
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	cluster.Run(t, options)
	r.issuer()
	r.issuerSays(cmmeta.ConditionTrue)
	before := f.asked(pathNewAccount)
	f.behave(func(w http.ResponseWriter, r *http.Request, _ map[string]any) bool {
		if !strings.HasPrefix(r.URL.Path, pathNewOrder) {
			return false
		}
		refuse(w, http.StatusBadRequest, "accountDoesNotExist", "never heard of it")
		return true
	}, nil)
	r.certificate("one", "one.example.com")
	r.certificate("two", "two.example.com")
	const why = "although it was registered again at"
	r.orderWaits("one", why)
	r.orderWaits("two", why)
	r.certificate("late", "late.example.com")
	r.orderWaits("late", why) // without asking the CA
	if n := f.asked(pathNewAccount) - before; n > 2 {
		t.Errorf("it was asked %d times for the account", n)
	}
	if n := f.asked(pathNewOrder); n > 4 {
		t.Errorf("it was asked for %d orders", n)
	}
}

func TestAnAccountThatIsClosedMakesItsIssuerUnready(t *testing.T) {
	t.Parallel()
	r, options := shop(t, &front{}, pebble.Options{})
	cluster.Run(t, options)
	r.issuer()
	r.issuerSays(cmmeta.ConditionTrue)
	by, account := r.atCA()
	if _, err := by.DeactivateAccount(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	crt := r.certificate("site", "www.example.com")
	r.issuerSays(
		cmmeta.ConditionFalse,
		"the CA does not accept the account of Secret",
		"delete the Secret, and a new account will be made",
	)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "account"}}
	if err := r.admin.Delete(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	r.issuerSays(cmmeta.ConditionTrue)
	r.ready(crt) // it has waited
}

func TestTheKeyOfAnAccountIsOfTheKindThatTheIssuerSays(t *testing.T) {
	t.Parallel()
	r, options := shop(t, &front{}, pebble.Options{})
	cluster.Run(t, options)
	r.issuer(func(spec *cmacme.ACMEIssuer) { spec.PrivateKeyAlgorithm = cmacme.ACMEAccountKeyRSA })
	r.issuerSays(cmmeta.ConditionTrue)
	if key, ok := r.accountKey().(*rsa.PrivateKey); !ok || key.N.BitLen() != 2048 {
		t.Errorf("the key is a %T", r.accountKey())
	}
	r.ready(r.certificate("site", "www.example.com"))
}

func TestNoKeyIsMadeWhereThatIsForbidden(t *testing.T) {
	t.Parallel()
	r, options := shop(t, &front{}, pebble.Options{})
	cluster.Run(t, options)
	r.issuer(func(spec *cmacme.ACMEIssuer) { spec.DisableAccountKeyGeneration = true })
	r.issuerSays(
		cmmeta.ConditionFalse,
		"spec.acme.privateKeySecretRef, does not exist, and disableAccountKeyGeneration is set: create it",
	)
	r.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "account"}, StringData: map[string]string{"other": "x"}})
	r.issuerSays(cmmeta.ConditionFalse, "has no entry tls.key")
	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := pki.EncodeKeyPEM(key, pki.PKCS8)
	if err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "account"},
		Data:       map[string][]byte{"tls.key": encoded},
	}
	if err := r.admin.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	r.issuerSays(cmmeta.ConditionTrue)
	if !r.accountKey().Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
		t.Error("the account has another key")
	}
}

// TestAnAdoptedAccountIsKept takes over a key of cert-manager: RSA, in PKCS #1, with an account at
// the CA.
func TestAnAdoptedAccountIsKept(t *testing.T) {
	t.Parallel()
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	encoded := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	by := &acme.Client{Directory: r.ca.Directory, HTTP: r.ca.Client()}
	account, err := by.NewAccount(t.Context(), acme.AccountRequest{Key: key, TermsOfServiceAgreed: true})
	if err != nil {
		t.Fatal(err)
	}
	r.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "account"}, Data: map[string][]byte{"tls.key": encoded}})
	cluster.Run(t, options)
	r.issuer()
	if uri := r.issuerSays(cmmeta.ConditionTrue).URI; uri != account.URL {
		t.Errorf("the account is %s, and was %s", uri, account.URL)
	}
	r.ready(r.certificate("site", "www.example.com"))
	secret := &corev1.Secret{}
	if err := r.admin.Get(t.Context(), client.ObjectKey{Namespace: r.namespace, Name: "account"}, secret); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(secret.Data["tls.key"], encoded) {
		t.Error("the key is not as it was")
	}
}

func TestWhoseCertificateTheCAItselfMayHave(t *testing.T) {
	t.Parallel()
	r, options := shop(t, &front{}, pebble.Options{})
	cluster.Run(t, options)
	stranger, err := pebble.Start(pebble.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	r.issuer(func(spec *cmacme.ACMEIssuer) { spec.CABundle = stranger.CABundle })
	r.issuerSays(cmmeta.ConditionFalse, "certificate signed by unknown authority", "spec.acme.caBundle")
	r.changeIssuer(func(spec *cmacme.ACMEIssuer) { spec.CABundle = nil })
	r.issuerSays(cmmeta.ConditionFalse, "certificate signed by unknown authority", "spec.acme.caBundle")
	r.changeIssuer(func(spec *cmacme.ACMEIssuer) { spec.SkipTLSVerify = true })
	r.issuerSays(cmmeta.ConditionTrue)
	r.changeIssuer(func(spec *cmacme.ACMEIssuer) { spec.SkipTLSVerify, spec.CABundle = false, r.ca.CABundle })
	r.issuerSays(cmmeta.ConditionTrue)
	r.ready(r.certificate("site", "www.example.com"))
}
