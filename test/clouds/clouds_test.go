// Package clouds_test issues certificates by DNS-01 at Google Cloud DNS, Azure DNS, Akamai Edge
// DNS, Cloudflare, DigitalOcean and acme-dns, with each of their kinds of credentials. The services
// are simulated. The controller runs as a process and reaches them at their real names.
package clouds_test

import (
	"context"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/deploy"
	"github.com/perennial-pki/perennial/test/acmedns"
	"github.com/perennial-pki/perennial/test/akamai"
	"github.com/perennial-pki/perennial/test/azure"
	"github.com/perennial-pki/perennial/test/cloudflare"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/digitalocean"
	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/gcp"
	"github.com/perennial-pki/perennial/test/internet"
)

func TestMain(m *testing.M) { cluster.Main(m) }

const (
	record = "_acme-challenge.example.com"
	others = "another client's"
	// What the examples say.
	project, application = "my-project", "33333333-3333-3333-3333-333333333333"
	// zoneOfAzure is the public zone of the example's resource group.
	zoneOfAzure = "dns/dnsZones/example.com"
	// The identity of the controller in each cloud.
	machine  = "machine@my-project.iam.gserviceaccount.com"
	workload = "44444444-4444-4444-4444-444444444444"
	identity = "55555555-5555-5555-5555-555555555555"
	// token is what the cluster gives a workload that is federated.
	token = "the token of the pod"
)

type world struct {
	*testing.T
	admin        client.WithWatch
	names        *dnsserver.Server
	google       *gcp.Cloud
	azure        *azure.Cloud
	akamai       *akamai.API
	cloudflare   *cloudflare.API
	digitalOcean *digitalocean.API
	acmeDNS      *acmedns.Server
	// key is that of a service account.
	key []byte
}

// start starts the clouds, Let's Encrypt's staging server, and a controller with these variables in
// its environment in addition to the proxy.
func start(t *testing.T, env ...string) *world {
	t.Helper()
	names, ca := internet.NamesAndCA(t)
	w := &world{
		T:     t,
		admin: cluster.Admin(t),
		names: names,
		google: &gcp.Cloud{
			Project: project,
			Zones:   map[string]string{"a-private": "example.com", "example": "example.com", "other": "example.net"},
			Private: []string{"a-private"},
			Machine: machine,
			Access:  []string{machine, "dns@my-project.iam.gserviceaccount.com"},
			DNS:     names,
			Pending: time.Second,
		},
		azure: &azure.Cloud{
			Tenant:       "22222222-2222-2222-2222-222222222222",
			Subscription: "11111111-1111-1111-1111-111111111111",
			Passwords: map[string]string{
				application: "a password",
			},
			Federated: map[string]string{workload: token},
			Machine:   map[string]string{identity: identity, "/subscriptions/1/identity": identity},
			Access: map[string][]string{
				zoneOfAzure:                       {application, workload, identity},
				"dns/privateDnsZones/example.com": {workload},
			},
			DNS: names,
		},
		akamai: &akamai.API{
			Host:         "akab-1234.luna.akamaiapis.net",
			ClientToken:  "akab-client",
			ClientSecret: "a secret",
			AccessToken:  "akab-access",
			Zones:        map[string]string{"example.com": "PRIMARY"},
			Conflicts:    2,
			DNS:          names,
		},
		cloudflare: &cloudflare.API{
			Token: "cloudflare-token",
			Email: "ops@example.com",
			Key:   "cloudflare-key",
			Zones: map[string]string{"023e105f4ecef8ad9ca31a8372d0c353": "example.com"},
			DNS:   names,
		},
		digitalOcean: &digitalocean.API{
			Token:   "digitalocean-token",
			Domains: []string{"example.com", "example.net"},
			DNS:     names,
		},
		acmeDNS: &acmedns.Server{
			User:       "eabcdb41-d89f-4580-826f-3e62e9755ef2",
			Password:   "acmedns-password",
			FullDomain: "d420c923-bbd7-4056-ab64-c3ca54c9b3cf.auth.example.com",
			DNS:        names,
		},
	}
	w.acmeDNS.Show()
	key, err := w.google.Key("dns@my-project.iam.gserviceaccount.com")
	if err != nil {
		t.Fatal(err)
	}
	w.key = key
	sites := map[string]http.Handler{
		"acme-staging-v02.api.letsencrypt.org": internet.CA(t, ca),
		"auth.example.com":                     w.acmeDNS,
	}
	for _, more := range []map[string]http.Handler{
		w.google.Sites(), w.azure.Sites(), w.akamai.Sites(), w.cloudflare.Sites(), w.digitalOcean.Sites(),
	} {
		maps.Copy(sites, more)
	}
	metadata, stop := w.google.Metadata()
	t.Cleanup(stop)
	cluster.Process(
		t,
		append(append(internet.Start(t, sites), "GCE_METADATA_HOST="+metadata), env...),
		"--dns01-recursive-nameservers="+names.Addr,
		"--dns01-recursive-nameservers-only",
		"--cluster-resource-namespace="+deploy.Namespace,
	)
	return w
}

// federated is the environment of a pod with a workload identity.
func federated(t *testing.T) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{
		"AZURE_CLIENT_ID=" + workload,
		"AZURE_TENANT_ID=22222222-2222-2222-2222-222222222222",
		"AZURE_FEDERATED_TOKEN_FILE=" + file,
		"AZURE_AUTHORITY_HOST=https://login.microsoftonline.com/",
	}
}

// secret creates a Secret and deletes it when the test ends.
func (w *world) secret(namespace, name string, data map[string][]byte) {
	w.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: data}
	if err := w.admin.Create(w.Context(), s); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = w.admin.Delete(context.Background(), s) })
}

// apply creates the objects of an example after replacing the given words, and returns the
// certificate.
func (w *world) apply(t *testing.T, file string, replace ...string) client.ObjectKey {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("../../examples/dns01", file))
	if err != nil {
		t.Fatal(err)
	}
	namespace := cluster.Namespace(t)
	text := strings.NewReplacer(append(replace, "namespace: shop", "namespace: "+namespace)...).Replace(string(content))
	return internet.Apply(t, w.admin, text, func(u *unstructured.Unstructured) {
		if u.GetKind() == cmapi.IssuerKind {
			u.SetNamespace(namespace)
		}
	})
}

// issued waits for a certificate, and until the name has the same records as before.
func (w *world) issued(t *testing.T, key client.ObjectKey, values func() []string) {
	t.Helper()
	internet.Issued(t, w.admin, key, "*.example.com", "example.com")
	cluster.Eventually(t, func() error {
		if got := values(); !slices.Equal(got, []string{others}) {
			return cluster.NotYet("the zone has %q", got)
		}
		return nil
	})
}

// refused waits until a challenge reports why it is blocked.
func (w *world) refused(t *testing.T, namespace, says string) {
	t.Helper()
	cluster.Eventually(t, func() error {
		if story := internet.Story(t, w.admin, client.InNamespace(namespace)); !strings.Contains(story, says) {
			return cluster.NotYet("%s", story)
		}
		return nil
	})
}

// without removes the lines of a file from the one that begins with a word to another, which stays.
func without(t *testing.T, file, from, to string) (text, nothing string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("../../examples/dns01", file))
	if err != nil {
		t.Fatal(err)
	}
	i := strings.Index(string(content), from)
	j := i + strings.Index(string(content)[i:], to)
	return string(content[i:j]), ""
}

func TestCertificatesByTheCloudsWithEachKindOfCredentials(t *testing.T) {
	w := start(t, federated(t)...)
	w.google.Put("example", record, others)
	w.secret(deploy.Namespace, "clouddns", map[string][]byte{"key.json": w.key})
	w.secret(deploy.Namespace, "azuredns", map[string][]byte{"password": []byte("a password")})
	w.secret(
		deploy.Namespace,
		"akamai",
		map[string][]byte{
			"client_token":  []byte("akab-client\n"),
			"client_secret": []byte("a secret"),
			"access_token":  []byte("akab-access"),
		},
	)
	w.secret(
		deploy.Namespace,
		"cloudflare",
		map[string][]byte{"token": []byte("cloudflare-token\n"), "key": []byte("cloudflare-key")},
	)
	w.secret(deploy.Namespace, "digitalocean", map[string][]byte{"token": []byte("digitalocean-token\n")})
	google := func() []string { return w.google.Values("example", record) }
	azure := func() []string { return w.azure.Values(zoneOfAzure, record) }

	t.Run("Cloud DNS, the key of a service account", func(t *testing.T) {
		w.issued(t, w.apply(t, "clouddns.yaml"), google)
		calls := strings.Join(w.google.Calls(), "\n")
		if !strings.Contains(calls, "token dns@my-project.iam.gserviceaccount.com") ||
			!strings.Contains(calls, "GET changes/") ||
			strings.Contains(calls, machine) {
			t.Errorf("it did %s", calls)
		}
	})
	t.Run("Cloud DNS, the machine's service account, and a zone that is named", func(t *testing.T) {
		from, to := without(t, "clouddns.yaml", "          serviceAccountSecretRef", "---")
		w.issued(t, w.apply(t, "clouddns.yaml", from, to+"          hostedZoneName: example\n"), google)
		if calls := strings.Join(
			w.google.Calls(),
			"\n",
		); !strings.Contains(calls, "metadata token "+machine) ||
			!strings.Contains(calls, "POST changes "+machine) {
			t.Errorf("it did %s", calls)
		}
	})
	w.azure.Put(zoneOfAzure, record, others)
	t.Run("Azure DNS, a service principal", func(t *testing.T) {
		w.issued(t, w.apply(t, "azuredns.yaml"), azure)
		if calls := strings.Join(
			w.azure.Calls(),
			"\n",
		); !strings.Contains(calls, "PUT "+zoneOfAzure+" "+application) ||
			strings.Contains(calls, workload) {
			t.Errorf("it did %s", calls)
		}
	})
	principal, nothing := without(t, "azuredns.yaml", "          tenantID", "---")
	t.Run("Azure DNS, a workload identity, and a zone that is named", func(t *testing.T) {
		w.issued(
			t,
			w.apply(
				t,
				"azuredns.yaml",
				principal,
				nothing+"          hostedZoneName: example.com\n          environment: AzurePublicCloud\n",
			),
			azure,
		)
		if calls := strings.Join(w.azure.Calls(), "\n"); !strings.Contains(calls, "PUT "+zoneOfAzure+" "+workload) {
			t.Errorf("it did %s", calls)
		}
	})
	t.Run("Azure DNS, a private zone", func(t *testing.T) {
		const private = "dns/privateDnsZones/example.com"
		w.azure.Put(private, record, others)
		w.issued(
			t,
			w.apply(t, "azuredns.yaml", principal, nothing+"          zoneType: AzurePrivateZone\n"),
			func() []string { return w.azure.Values(private, record) },
		)
	})
	w.akamai.Put(record, others)
	t.Run("Akamai, whose zone is being changed by others", func(t *testing.T) {
		w.issued(t, w.apply(t, "akamai.yaml"), func() []string { return w.akamai.Values(record) })
	})
	w.cloudflare.Put("023e105f4ecef8ad9ca31a8372d0c353", record, others)
	flare := func() []string { return w.cloudflare.Values(record) }
	t.Run("Cloudflare, a token", func(t *testing.T) {
		w.issued(t, w.apply(t, "cloudflare.yaml"), flare)
		if calls := strings.Join(
			w.cloudflare.Calls(),
			"\n",
		); !strings.Contains(
			calls,
			"POST /023e105f4ecef8ad9ca31a8372d0c353/dns_records token",
		) {
			t.Errorf("it did %s", calls)
		}
	})
	t.Run("Cloudflare, the key of an account", func(t *testing.T) {
		w.issued(
			t,
			w.apply(
				t,
				"cloudflare.yaml",
				"          apiTokenSecretRef:",
				"          email: ops@example.com\n          apiKeySecretRef:",
				"key: token",
				"key: key",
			),
			flare,
		)
		if calls := strings.Join(
			w.cloudflare.Calls(),
			"\n",
		); !strings.Contains(
			calls,
			"POST /023e105f4ecef8ad9ca31a8372d0c353/dns_records key",
		) {
			t.Errorf("it did %s", calls)
		}
	})
	w.digitalOcean.Put("example.com", record, others)
	t.Run("DigitalOcean", func(t *testing.T) {
		w.issued(t, w.apply(t, "digitalocean.yaml"), func() []string { return w.digitalOcean.Values(record) })
		if calls := strings.Join(
			w.digitalOcean.Calls(),
			"\n",
		); !strings.Contains(
			calls,
			"POST /v2/domains/example.com/records",
		) {
			t.Errorf("it did %s", calls)
		}
	})
}

func TestAnAccountOfACMEDNSAnswersForANameAndItsWildcard(t *testing.T) {
	w := start(t)
	w.names.CNAME(record, w.acmeDNS.FullDomain)
	w.secret(deploy.Namespace, "acmedns", map[string][]byte{"accounts.json": []byte(w.acmeDNS.Accounts("example.com"))})
	internet.Issued(t, w.admin, w.apply(t, "acmedns.yaml"), "*.example.com", "example.com")
	if n := w.acmeDNS.Updates(); n < 2 {
		t.Errorf("there were %d updates", n)
	}
}

func TestTheIdentityOfAMachineOfAzure(t *testing.T) {
	w := start(t)
	w.azure.Put(zoneOfAzure, record, others)
	principal, nothing := without(t, "azuredns.yaml", "          tenantID", "---")
	for _, named := range []string{"clientID: " + identity, "resourceID: /subscriptions/1/identity"} {
		t.Run(named, func(t *testing.T) {
			w.issued(
				t,
				w.apply(t, "azuredns.yaml", principal, nothing+"          managedIdentity: {"+named+"}\n"),
				func() []string { return w.azure.Values(zoneOfAzure, record) },
			)
		})
	}
	if calls := strings.Join(w.azure.Calls(), "\n"); !strings.Contains(calls, "metadata token "+identity) {
		t.Errorf("it did %s", calls)
	}
	t.Run("one that the machine has not", func(t *testing.T) {
		key := w.apply(
			t,
			"azuredns.yaml",
			principal,
			nothing+"          managedIdentity: {clientID: 66666666-6666-6666-6666-666666666666}\n",
		)
		w.refused(t, key.Namespace, "Correct the credentials of the controller's environment")
	})
}

func TestWhatTheCloudsRefuseStandsOnTheChallenge(t *testing.T) {
	w := start(t, federated(t)...)
	stranger, err := w.google.Key("stranger@my-project.iam.gserviceaccount.com")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("of the controller"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.secret(deploy.Namespace, "clouddns", map[string][]byte{
		"key.json": stranger,
		"file.json": []byte(
			`{"type": "external_account", "audience": "a", "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "token_url": "https://sts.googleapis.com/v1/token", "credential_source": {"file": "` + file + `"}}`,
		),
	})
	w.secret(deploy.Namespace, "azuredns", map[string][]byte{"password": []byte("another password")})
	w.secret(
		deploy.Namespace,
		"akamai",
		map[string][]byte{
			"client_token":  []byte("akab-client"),
			"client_secret": []byte("another secret"),
			"access_token":  []byte("akab-access"),
		},
	)
	w.secret(deploy.Namespace, "cloudflare", map[string][]byte{"token": []byte("another token")})
	w.secret(deploy.Namespace, "digitalocean", map[string][]byte{"token": []byte("another token")})
	w.secret(deploy.Namespace, "acmedns", map[string][]byte{"accounts.json": []byte(w.acmeDNS.Accounts("example.net"))})
	tenant := []string{"kind: ClusterIssuer", "kind: Issuer"}
	account, nothing := without(t, "clouddns.yaml", "          serviceAccountSecretRef", "---")
	principal, _ := without(t, "azuredns.yaml", "          tenantID", "---")
	for name, test := range map[string]struct {
		file    string
		replace []string
		says    string
	}{
		"a service account that may not list zones": {"clouddns.yaml", nil, "Forbidden (forbidden). Correct the Secret " +
			"of dns01.cloudDNS.serviceAccountSecretRef, or allow them dns.managedZones.list in project my-project"},
		"credentials that are read from a file": {"clouddns.yaml", []string{"key: key.json", "key: file.json"}, `has credentials of type "external_account"`},
		"the controller's own, for a tenant": {"clouddns.yaml", append(tenant, account, nothing), "may not use the " +
			"controller's own: set serviceAccountSecretRef, or start the controller with --issuer-ambient-credentials"},
		"a password that is wrong": {"azuredns.yaml", nil, "Azure refuses the credentials (status " +
			"401): invalid_client: AADSTS7000215: Invalid client secret provided."},
		"a resource group that it may not see":    {"azuredns.yaml", []string{principal, nothing, "resourceGroupName: dns", "resourceGroupName: other"}, "Microsoft.Network/dnsZones/read in resource group other, or set hostedZoneName"},
		"the controller's identity, for a tenant": {"azuredns.yaml", append(tenant, principal, nothing), "may not use the controller's own: set clientID, clientSecretSecretRef and tenantID"},
		"a token that Cloudflare does not know": {"cloudflare.yaml", nil, "Cloudflare refuses the credentials " +
			"(status 403): Invalid access token (9109). Correct the Secret, or what its token may do"},
		"a token that DigitalOcean does not know": {"digitalocean.yaml", nil, "DigitalOcean refuses the credentials " +
			"(status 401): Unable to authenticate you. Correct the Secret, or what its token may do"},
		"a name without an account at acme-dns": {"acmedns.yaml", nil, `has no account for "example.com": register one, and let _acme-challenge.example.com be a CNAME to its fulldomain`},
		"a signature that is wrong": {"akamai.yaml", nil, "Akamai refuses the credentials (status 401): " +
			"Not authorized: The signature does not match. Correct the Secrets of dns01.akamai.clientTokenSecretRef"},
	} {
		t.Run(name, func(t *testing.T) {
			key := w.apply(t, test.file, test.replace...)
			w.refused(t, key.Namespace, test.says)
			if story := internet.Story(
				t,
				w.admin,
				client.InNamespace(key.Namespace),
			); strings.Contains(story, "of the controller\n") ||
				strings.Contains(story, "another") {
				t.Errorf("a secret is told: %s", story)
			}
		})
	}
}
