package security_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/deploy"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/pebble"
)

// The secrets that are planted. Each is used by something that works, or by something that is
// refused.
const (
	tsigKey        = "updates"
	tsigSecret     = "cGxhbnRlZC10c2lnLWtleS1mb3ItdGhlLXNlYXJjaC0x"
	macKey         = "cGxhbnRlZC1tYWMta2V5LW9mLXRoZS1hY2NvdW50LTAwMDI"
	wrongMACKey    = "cGxhbnRlZC1tYWMta2V5LXRoYXQtaXMtcmVmdXNlZC0wMDM"
	keystoreSecret = "planted-password-of-a-keystore-0004"
	dnsUser        = "planted-user-of-acme-dns-0005"
	dnsPassword    = "planted-password-of-acme-dns-0006"
	badTSIG        = "planted TSIG key that is no base64 0007!"
)

// spoiled answers the first request to each path with an error that repeats the whole request,
// because the error of a failing service can contain anything.
func spoiled(h http.Handler) http.Handler {
	var mu sync.Mutex
	seen := map[string]bool{}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		first := !seen[r.URL.Path]
		seen[r.URL.Path] = true
		mu.Unlock()
		if first && r.Method == http.MethodPost {
			body, _ := io.ReadAll(r.Body)
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprintf(w, "%v %s", r.Header, body)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// planted is a secret and its name in test failures.
type planted struct{ name, value string }

// forms are the encodings in which a secret may appear.
func (p planted) forms() []string {
	raw := []byte(p.value)
	forms := []string{p.value, base64.StdEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw),
		hex.EncodeToString(raw)}
	if quoted, err := json.Marshal(p.value); err == nil {
		forms = append(forms, strings.Trim(string(quoted), `"`))
	}
	for _, decode := range []*base64.Encoding{base64.StdEncoding, base64.RawURLEncoding} {
		if decoded, err := decode.DecodeString(p.value); err == nil {
			forms = append(forms, string(decoded))
		}
	}
	// A PEM key may leak without its first and last line, or with another line length.
	if _, body, found := strings.Cut(p.value, "PRIVATE KEY-----\n"); found {
		body, _, _ = strings.Cut(body, "-----END")
		body = strings.Join(strings.Fields(body), "")
		forms = append(forms, body[len(body)/4:len(body)/4+40])
	}
	return forms
}

// TestNoSecretIsReportedAnywhere runs the controller as a process with the highest verbosity, makes
// it use secrets of each kind, with success and failure, and searches all its output.
func TestNoSecretIsReportedAnywhere(t *testing.T) {
	w := newWorld(t)
	names, err := dnsserver.Start(dnsserver.Options{Zones: []string{"example.com"}, KeyName: tsigKey, Secret: tsigSecret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(names.Close)
	ca, err := pebble.Start(pebble.Options{Resolver: names.Addr, ExternalAccounts: map[string]string{"kid-1": macKey},
		Wrap: spoiled})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close() })
	// A DNS service that repeats the credentials in what it refuses.
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"error":%q}`, fmt.Sprintf("%v %s", r.Header, body))
	}))
	t.Cleanup(echo.Close)

	issuer := func(name, mac string, solver cmacme.ACMEChallengeSolverDNS01) {
		t.Helper()
		solver.Nameservers = []string{names.Addr}
		w.acmeIssuer(name, &cmacme.ACMEIssuer{
			Server: ca.Directory, CABundle: ca.CABundle,
			PrivateKey: cmmeta.SecretKeySelector{
				LocalObjectReference: cmmeta.LocalObjectReference{Name: name + "-account"}},
			ExternalAccountBinding: &cmacme.ACMEExternalAccountBinding{KeyID: "kid-1", Key: w.secret(name+"-eab", "mac", mac)},
			Solvers:                []cmacme.ACMEChallengeSolver{{DNS01: &solver}},
		})
	}
	update := func(name, secret string) *cmacme.ACMEIssuerDNS01ProviderRFC2136 {
		return &cmacme.ACMEIssuerDNS01ProviderRFC2136{Nameserver: names.Addr, TSIGKeyName: tsigKey,
			TSIGAlgorithm: "HMACSHA256", TSIGSecret: w.secret(name, "key", secret)}
	}
	issuer("planted-good", macKey, cmacme.ACMEChallengeSolverDNS01{RFC2136: update("planted-tsig", tsigSecret)})
	issuer("planted-refused", wrongMACKey,
		cmacme.ACMEChallengeSolverDNS01{RFC2136: update("planted-tsig-unused", tsigSecret)})
	issuer("planted-broken", macKey, cmacme.ACMEChallengeSolverDNS01{RFC2136: update("planted-tsig-broken", badTSIG)})
	account, err := json.Marshal(map[string]any{"echo.example.com": map[string]any{
		"username": dnsUser, "password": dnsPassword, "fulldomain": "x.example.com", "subdomain": "x",
		"allowfrom": []string{}}})
	if err != nil {
		t.Fatal(err)
	}
	issuer("planted-echo", macKey, cmacme.ACMEChallengeSolverDNS01{AcmeDNS: &cmacme.ACMEIssuerDNS01ProviderAcmeDNS{
		Host: echo.URL, AccountSecret: w.secret("planted-acme-dns", "accounts", string(account))}})
	w.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "planted-keystore"},
		StringData: map[string]string{"password": keystoreSecret}})

	metrics := address(cluster.FreePort(t))
	kubeconfig := cluster.Kubeconfig(t, deploy.Namespace, deploy.ServiceAccount)
	p := startProcess(t, "--leader-elect=false", "--v=10", "--kubeconfig", kubeconfig, "--metrics-listen-address="+metrics,
		"--dns01-recursive-nameservers="+names.Addr, "--dns01-recursive-nameservers-only")

	password := cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "planted-keystore"},
		Key: "password"}
	good := w.certificate("good", "planted-good", func(crt *cmapi.Certificate) {
		crt.Spec.Keystores = &cmapi.CertificateKeystores{JKS: &cmapi.JKSKeystore{Create: true, PasswordSecretRef: password},
			PKCS12: &cmapi.PKCS12Keystore{Create: true, PasswordSecretRef: password}}
	})
	w.certificate("refused", "planted-refused")
	w.certificate("broken", "planted-broken")
	w.certificate("echo", "planted-echo")
	w.refusalsAreReported(good)

	secrets := []planted{
		{"TSIG key", tsigSecret}, {"MAC key of the account", macKey}, {"MAC key that is refused", wrongMACKey},
		{"password of a keystore", keystoreSecret},
		{"user of acme-dns", dnsUser}, {"password of acme-dns", dnsPassword}, {"TSIG key that is no base64", badTSIG},
	}
	secrets = append(secrets, w.keysAndToken(kubeconfig)...)

	said := w.everythingSaid(metrics)
	said["log"] = p.out.String()
	for _, place := range []struct{ name, has string }{{"log", "good"},
		{"metrics", "certmanager_certificate_ready_status"}, {"events", "good"}, {"objects", "example.com"}} {
		if !strings.Contains(said[place.name], place.has) {
			t.Errorf("the %s do not even say %q: nothing was searched", place.name, place.has)
		}
	}
	searchFor(t, secrets, said)
}

// searchFor expects that no secret and no key is in what the controller has written.
func searchFor(t *testing.T, secrets []planted, said map[string]string) {
	t.Helper()
	for place, text := range said {
		for _, s := range secrets {
			for _, form := range s.forms() {
				if at := strings.Index(text, form); at >= 0 {
					t.Errorf("the %s tell the %s: …%.300s", place, s.name, text[max(0, at-200):])
					break
				}
			}
		}
		// A JWS, a JWT, or a key of any kind.
		for _, sign := range []string{"PRIVATE KEY-----", `"protected":`, "Bearer ey", "eyJhbGciOi"} {
			if at := strings.Index(text, sign); at >= 0 {
				t.Errorf("the %s have %q: …%.300s", place, sign, text[max(0, at-200):])
			}
		}
	}
}

// refusalsAreReported waits until one Certificate is issued, and what is wrong with the others is
// reported.
func (w *world) refusalsAreReported(good *cmapi.Certificate) {
	t := w.T
	t.Helper()
	cluster.Eventually(t, func() error {
		if err := w.Get(t.Context(), client.ObjectKeyFromObject(good), good); err != nil {
			return err
		}
		if c := cmapi.GetCertificateCondition(&good.Status, cmapi.CertificateConditionReady); c == nil ||
			c.Status != cmmeta.ConditionTrue {
			return cluster.NotYet("it is not issued: %+v", good.Status)
		}
		var issuer cmapi.ClusterIssuer
		if err := w.Get(t.Context(), client.ObjectKey{Name: "planted-refused"}, &issuer); err != nil {
			return err
		}
		if c := cmapi.GetIssuerCondition(&issuer.Status, cmapi.IssuerConditionReady); c == nil ||
			!strings.Contains(c.Message, "the CA refuses") {
			return cluster.NotYet("the wrong MAC key is not refused: %+v", issuer.Status)
		}
		var challenges cmacme.ChallengeList
		if err := w.List(t.Context(), &challenges, client.InNamespace(w.namespace)); err != nil {
			return err
		}
		reported := map[string]bool{}
		for _, ch := range challenges.Items {
			reported[ch.Spec.DNSName] = ch.Status.Reason != ""
		}
		var broken cmapi.ClusterIssuer
		if err := w.Get(t.Context(), client.ObjectKey{Name: "planted-broken"}, &broken); err != nil {
			return err
		}
		c := cmapi.GetIssuerCondition(&broken.Status, cmapi.IssuerConditionReady)
		reported["broken.example.com"] = reported["broken.example.com"] || c != nil && c.Status == cmmeta.ConditionFalse
		if !reported["echo.example.com"] || !reported["broken.example.com"] {
			return cluster.NotYet("the refusals are not reported: %v", reported)
		}
		return nil
	})
}

// keysAndToken returns the private keys that the controller has made, and its token.
func (w *world) keysAndToken(kubeconfig string) (secrets []planted) {
	t := w.T
	t.Helper()
	for _, of := range []struct{ namespace, name, key string }{
		{deploy.Namespace, "planted-good-account", "tls.key"}, {w.namespace, "good", "tls.key"},
	} {
		secret := &corev1.Secret{}
		if err := w.Get(t.Context(), client.ObjectKey{Namespace: of.namespace, Name: of.name}, secret); err != nil {
			t.Fatal(err)
		}
		if len(secret.Data[of.key]) == 0 {
			t.Fatalf("Secret %s has no %s: nothing would be searched for", of.name, of.key)
		}
		secrets = append(secrets, planted{"private key in Secret " + of.name, string(secret.Data[of.key])})
	}
	config, err := os.ReadFile(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	_, token, found := strings.Cut(string(config), "token: ")
	if !found {
		t.Fatal("the kubeconfig has no token")
	}
	secrets = append(secrets, planted{"token of the ServiceAccount", strings.Fields(token)[0]})
	return secrets
}

// everythingSaid returns everything that is readable without access to Secrets.
func (w *world) everythingSaid(metrics string) map[string]string {
	w.Helper()
	response, err := http.Get("http://" + metrics + "/metrics")
	if err != nil {
		w.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		w.Fatal(err)
	}
	said := map[string]string{"metrics": string(text)}
	write := func(place string, lists ...client.ObjectList) {
		w.Helper()
		var b strings.Builder
		for _, list := range lists {
			if err := w.List(w.Context(), list); err != nil {
				w.Fatal(err)
			}
			text, err := json.Marshal(list)
			if err != nil {
				w.Fatal(err)
			}
			b.Write(text)
		}
		said[place] = b.String()
	}
	write("events", &corev1.EventList{})
	write("objects", &cmapi.CertificateList{}, &cmapi.CertificateRequestList{}, &cmacme.OrderList{},
		&cmacme.ChallengeList{},
		&cmapi.IssuerList{}, &cmapi.ClusterIssuerList{}, &corev1.ConfigMapList{})
	return said
}
