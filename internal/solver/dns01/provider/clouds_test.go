package provider

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/signer"
)

// serviceAccountKey is a key as Google issues it, with what is changed.
func serviceAccountKey(t *testing.T, change map[string]string) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := map[string]string{
		"type":           "service_account",
		"client_email":   "dns@p.iam.gserviceaccount.com",
		"private_key_id": "1",
		"token_uri":      "https://oauth2.googleapis.com/token",
		"private_key":    string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	}
	for k, v := range change {
		file[k] = v
	}
	text, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// open makes the provider of a solver whose Secrets all have the same entry.
func open(t *testing.T, f *Factory, kind string, s *spec, secret string) (Provider, error) {
	t.Helper()
	issuer := &signer.Issuer{
		GenericIssuer:   &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: "le"}},
		Kind:            kind,
		SecretNamespace: "shop",
	}
	if err := f.Check(issuer, s); err != nil {
		return nil, err
	}
	found, all := find(s), credentials{}
	for _, r := range found.credentialsOf(s) {
		if all[r.field] = secret; found.checkCredential != nil {
			if err := found.checkCredential(issuer, r.field, secret); err != nil {
				return nil, err
			}
		}
	}
	ch := &cmacme.Challenge{Spec: cmacme.ChallengeSpec{Solver: cmacme.ACMEChallengeSolver{DNS01: s}}}
	return found.open(t.Context(), f, request{issuer: issuer, challenge: ch}, all)
}

func TestCloudSolversSayWhatIsWrong(t *testing.T) {
	ref := &cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "s"}, Key: "k"}
	google := cmacme.ACMEChallengeSolverDNS01{
		CloudDNS: &cmacme.ACMEIssuerDNS01ProviderCloudDNS{Project: "p", ServiceAccount: ref},
	}
	azure := func(c cmacme.ACMEIssuerDNS01ProviderAzureDNS) cmacme.ACMEChallengeSolverDNS01 {
		return cmacme.ACMEChallengeSolverDNS01{AzureDNS: &c}
	}
	for name, test := range map[string]struct {
		spec   cmacme.ACMEChallengeSolverDNS01
		secret string
		kind   string // of the issuer
		env    map[string]string
		says   string // nothing if it works
	}{
		"Cloud DNS with the key of a service account": {google, serviceAccountKey(t, nil), signer.KindIssuer, nil, ""},
		"Cloud DNS with a key that makes us read a file": {google, `{"type": "external_account", "credential_source": {"file": "/var/run/secrets/token"}, "token_url": "https://sts.googleapis.com/v1/token"}`,
			signer.KindClusterIssuer, nil, `has credentials of type "external_account"`},
		"Cloud DNS with a token endpoint of a tenant":         {google, serviceAccountKey(t, map[string]string{"token_uri": "http://10.0.0.1/"}), signer.KindIssuer, nil, `token_uri "http://10.0.0.1/", which is not Google's own: use a ClusterIssuer`},
		"Cloud DNS with a universe of a tenant":               {google, serviceAccountKey(t, map[string]string{"universe_domain": "evil.example"}), signer.KindIssuer, nil, `universe_domain "evil.example", which is not Google's own`},
		"Cloud DNS with a universe that the cluster's own":    {google, serviceAccountKey(t, map[string]string{"universe_domain": "s3nsapis.fr"}), signer.KindClusterIssuer, nil, ""},
		"Cloud DNS without the private key":                   {google, serviceAccountKey(t, map[string]string{"private_key": ""}), signer.KindIssuer, nil, "client_email or private_key is missing"},
		"Cloud DNS with a private key that is none":           {google, serviceAccountKey(t, map[string]string{"private_key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"}), signer.KindIssuer, nil, "private_key that cannot be read"},
		"Cloud DNS with something else":                       {google, "AIza", signer.KindIssuer, nil, "is not the JSON key of a service account"},
		"Cloud DNS with the controller's own, on an Issuer":   {cmacme.ACMEChallengeSolverDNS01{CloudDNS: &cmacme.ACMEIssuerDNS01ProviderCloudDNS{Project: "p"}}, "", signer.KindIssuer, nil, "--issuer-ambient-credentials"},
		"Cloud DNS with the controller's own, of which a bad": {cmacme.ACMEChallengeSolverDNS01{CloudDNS: &cmacme.ACMEIssuerDNS01ProviderCloudDNS{Project: "p"}}, "", signer.KindClusterIssuer, map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": "/does/not/exist"}, "credentials of the controller's environment"},

		"Azure with a service principal":          {azure(cmacme.ACMEIssuerDNS01ProviderAzureDNS{ClientID: "c", TenantID: "t", ClientSecret: ref}), "password", signer.KindIssuer, nil, ""},
		"Azure without the tenant":                {azure(cmacme.ACMEIssuerDNS01ProviderAzureDNS{ClientID: "c", ClientSecret: ref}), "password", signer.KindIssuer, nil, "belong together"},
		"Azure without the password":              {azure(cmacme.ACMEIssuerDNS01ProviderAzureDNS{ClientID: "c", TenantID: "t"}), "", signer.KindClusterIssuer, nil, "use managedIdentity"},
		"Azure with a password of nothing":        {azure(cmacme.ACMEIssuerDNS01ProviderAzureDNS{ClientID: "c", TenantID: "t", ClientSecret: ref}), "", signer.KindIssuer, nil, "find credentials for Azure"},
		"Azure with a tenant that is none":        {azure(cmacme.ACMEIssuerDNS01ProviderAzureDNS{ClientID: "c", TenantID: "../evil", ClientSecret: ref}), "password", signer.KindIssuer, nil, "Correct dns01.azureDNS"},
		"Azure in a cloud that is closed":         {azure(cmacme.ACMEIssuerDNS01ProviderAzureDNS{ClientID: "c", TenantID: "t", ClientSecret: ref, Environment: "AzureGermanCloud"}), "password", signer.KindIssuer, nil, "closed AzureGermanCloud"},
		"Azure in a cloud that is none":           {azure(cmacme.ACMEIssuerDNS01ProviderAzureDNS{ClientID: "c", TenantID: "t", ClientSecret: ref, Environment: "Mars"}), "password", signer.KindIssuer, nil, `"Mars" is none of`},
		"Azure with a zone of no type":            {azure(cmacme.ACMEIssuerDNS01ProviderAzureDNS{ClientID: "c", TenantID: "t", ClientSecret: ref, ZoneType: "Round"}), "password", signer.KindIssuer, nil, `"Round" is none of`},
		"Azure with the machine, on an Issuer":    {azure(cmacme.ACMEIssuerDNS01ProviderAzureDNS{}), "", signer.KindIssuer, nil, "--issuer-ambient-credentials"},
		"Azure with the machine":                  {azure(cmacme.ACMEIssuerDNS01ProviderAzureDNS{ManagedIdentity: &cmacme.AzureManagedIdentity{ResourceID: "/subscriptions/s/x"}}), "", signer.KindClusterIssuer, nil, ""},
		"Azure with a tenant of the machine":      {azure(cmacme.ACMEIssuerDNS01ProviderAzureDNS{ManagedIdentity: &cmacme.AzureManagedIdentity{ClientID: "c", TenantID: "t"}}), "", signer.KindClusterIssuer, nil, "tenantID is for workload identities"},
		"Azure with a workload identity":          {azure(cmacme.ACMEIssuerDNS01ProviderAzureDNS{ManagedIdentity: &cmacme.AzureManagedIdentity{ClientID: "c", TenantID: "t"}}), "", signer.KindClusterIssuer, map[string]string{"AZURE_FEDERATED_TOKEN_FILE": "/token"}, ""},
		"Azure with a machine that is a workload": {azure(cmacme.ACMEIssuerDNS01ProviderAzureDNS{ManagedIdentity: &cmacme.AzureManagedIdentity{ResourceID: "/subscriptions/s/x"}}), "", signer.KindClusterIssuer, map[string]string{"AZURE_FEDERATED_TOKEN_FILE": "/token"}, "set clientID instead"},
		"Azure with a workload of no name":        {azure(cmacme.ACMEIssuerDNS01ProviderAzureDNS{}), "", signer.KindClusterIssuer, map[string]string{"AZURE_FEDERATED_TOKEN_FILE": "/token"}, "no client ID specified"},

		"a TSIG key of an algorithm that is none":          {cmacme.ACMEChallengeSolverDNS01{RFC2136: &cmacme.ACMEIssuerDNS01ProviderRFC2136{TSIGKeyName: "k", TSIGAlgorithm: "HMACSHA3"}}, "", signer.KindIssuer, nil, `tsigAlgorithm: "HMACSHA3" is none of HMACMD5`},
		"Cloudflare with a key without its e-mail address": {cmacme.ACMEChallengeSolverDNS01{Cloudflare: &cmacme.ACMEIssuerDNS01ProviderCloudflare{APIKey: ref}}, "", signer.KindIssuer, nil, "names no credentials"},

		"Akamai":                          {akamaiSpec("akab-1.luna.akamaiapis.net", ref), "token", signer.KindIssuer, nil, ""},
		"Akamai with the URL of its host": {akamaiSpec("https://akab-1.luna.akamaiapis.net/", ref), "token", signer.KindIssuer, nil, ""},
		"Akamai with more than a host":    {akamaiSpec("akab-1.luna.akamaiapis.net/admin?x=", ref), "token", signer.KindIssuer, nil, "is not a host"},
		"Akamai with a user":              {akamaiSpec("u:p@akab-1.luna.akamaiapis.net", ref), "token", signer.KindIssuer, nil, "is not a host"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, unset := range []string{"AZURE_FEDERATED_TOKEN_FILE", "GOOGLE_APPLICATION_CREDENTIALS"} {
				t.Setenv(unset, "")
			}
			for k, v := range test.env {
				t.Setenv(k, v)
			}
			f := &Factory{Ambient: Ambient{ClusterIssuers: true}, Now: time.Now}
			p, err := open(t, f, test.kind, &test.spec, test.secret)
			switch {
			case test.says == "" && (err != nil || p == nil):
				t.Errorf("got %v", err)
			case test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says) ||
				fault.Of(err).Class != fault.Misconfigured || strings.Contains(err.Error(), "password") ||
				strings.Contains(err.Error(), "AAAA")):
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestABlankEntryIsNoCredential(t *testing.T) {
	for _, value := range []string{"", " \n", "\t"} {
		got, err := entryOf(
			&corev1.Secret{Data: map[string][]byte{"key": []byte(value)}},
			"Secret shop/aws",
			"dns01.route53.secretAccessKeySecretRef",
			"key",
		)
		if err == nil || got != "" ||
			!strings.Contains(err.Error(), "Secret shop/aws, dns01.route53.secretAccessKeySecretRef, has no entry key") {
			t.Errorf("%q: got %q, %v", value, got, err)
		}
	}
}

func akamaiSpec(host string, ref *cmmeta.SecretKeySelector) cmacme.ACMEChallengeSolverDNS01 {
	return cmacme.ACMEChallengeSolverDNS01{
		Akamai: &cmacme.ACMEIssuerDNS01ProviderAkamai{
			ServiceConsumerDomain: host,
			ClientToken:           *ref,
			ClientSecret:          *ref,
			AccessToken:           *ref,
		},
	}
}

func TestCloudDNSOfAnotherUniverseIsAskedThere(t *testing.T) {
	key := serviceAccountKey(t, map[string]string{"universe_domain": "universe.example"})
	c := &cmacme.ACMEIssuerDNS01ProviderCloudDNS{Project: "p:q", ServiceAccount: &cmmeta.SecretKeySelector{}}
	p, err := open(t, &Factory{Now: time.Now}, signer.KindClusterIssuer, &spec{CloudDNS: c}, key)
	if err != nil {
		t.Fatal(err)
	}
	google := p.(*recordSets[cloudDNSSets]).api.(*cloudDNS)
	if google.base != "https://dns.universe.example/dns/v1/projects/p:q" {
		t.Error(google.base)
	}
	// There is no token endpoint there: the client signs the token itself.
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, google.base, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := google.sign(request, nil); err != nil || len(strings.Split(request.Header.Get("Authorization"), ".")) != 3 {
		t.Errorf("%v, %v", request.Header, err)
	}
}

func FuzzGoogleKey(f *testing.F) {
	f.Add(
		`{"type": "service_account", "client_email": "a@b", "private_key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"}`,
	)
	f.Add(`{"type": "external_account"}`)
	f.Fuzz(func(t *testing.T, text string) {
		if err := checkGoogleKey(text, &signer.Issuer{Kind: signer.KindIssuer}); err != nil && len(err.Error()) > 600 {
			t.Errorf("a message without end: %s", err)
		}
	})
}

func TestWhyThereIsNoTokenIsOneLine(t *testing.T) {
	long := errors.New("Received 404 `<html>\n" + strings.Repeat("x", 10*maxProblem) + "`")
	for name, err := range map[string]error{"Google": newCloudDNS("http://service", "p", "").tokenFault(long),
		"Azure": newAzureDNS("http://service", "s", "g", "", azureKinds[""]).tokenFault(long)} {
		if got := err.Error(); !strings.Contains(got, "Received 404") || len(got) > 2*maxProblem ||
			strings.Contains(got, "\n") {
			t.Errorf("%s: %d bytes: %.80q", name, len(got), got)
		}
	}
}
