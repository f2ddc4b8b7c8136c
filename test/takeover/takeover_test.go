// Package takeover_test runs cert-manager's own controllers and Perennial in turn on the same
// objects. Certificates that one has issued stay unchanged under the other, and each completes
// issuances that the other has started.
package takeover_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/deploy"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/pebble"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// The TSIG key for updates of the DNS server.
const tsigKey, tsigSecret = "updates", "c2VjcmV0LW9mLXRoZS10c2lnLWtleS1mb3ItdGVzdHM="

// installation is a namespace with a CA, an ACME server and its zone.
type installation struct {
	*testing.T
	client.Client
	namespace string
	ca        *pebble.Server
	names     *dnsserver.Server
}

// install creates an installation whose challenges wait for the given time before validation,
// because cert-manager's self-check of a record takes a minute.
func install(t *testing.T, wait time.Duration) *installation {
	names, err := dnsserver.Start(dnsserver.Options{Zones: []string{"example.com"}, KeyName: tsigKey, Secret: tsigSecret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(names.Close)
	ca, err := pebble.Start(
		pebble.Options{Resolver: names.Addr, HTTPPort: cluster.FreePort(t), TLSPort: cluster.FreePort(t)},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close() })
	i := &installation{T: t, Client: cluster.Admin(t), namespace: cluster.Namespace(t), ca: ca, names: names}
	i.make(
		&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: "tsig", Namespace: deploy.Namespace},
			StringData: map[string]string{"key": tsigSecret},
		},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "password"}, StringData: map[string]string{"word": "changeit"}},
		&cmapi.ClusterIssuer{ObjectMeta: metav1.ObjectMeta{Name: "selfsigned"}, Spec: cmapi.IssuerSpec{
			IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}}},
		&cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: "ca"}, Spec: cmapi.IssuerSpec{
			IssuerConfig: cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "root"}}}},
		&cmapi.ClusterIssuer{
			ObjectMeta: metav1.ObjectMeta{Name: "acme"},
			Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{ACME: i.acme(wait)}},
		},
	)
	t.Cleanup(func() {
		for _, name := range []string{"selfsigned", "acme"} {
			_ = i.Delete(context.Background(), &cmapi.ClusterIssuer{ObjectMeta: metav1.ObjectMeta{Name: name}})
		}
		for _, name := range []string{"tsig", "account"} {
			_ = i.Delete(
				context.Background(),
				&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: deploy.Namespace}},
			)
		}
	})
	return i
}

func (i *installation) acme(wait time.Duration) *cmacme.ACMEIssuer {
	return &cmacme.ACMEIssuer{
		Server:              i.ca.Directory,
		CABundle:            i.ca.CABundle,
		PrivateKeyAlgorithm: "RSA", // cert-manager reads no other key
		PrivateKey:          cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "account"}},
		Solvers: []cmacme.ACMEChallengeSolver{
			{WaitInsteadOfSelfCheck: &metav1.Duration{Duration: wait}, DNS01: &cmacme.ACMEChallengeSolverDNS01{
				RFC2136: &cmacme.ACMEIssuerDNS01ProviderRFC2136{
					Nameserver: i.names.Addr, TSIGKeyName: tsigKey, TSIGAlgorithm: "HMACSHA256",
					TSIGSecret: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "tsig"}, Key: "key"},
				},
			}},
		},
	}
}

func (i *installation) make(objects ...client.Object) {
	i.Helper()
	for _, o := range objects {
		if _, cluster := o.(*cmapi.ClusterIssuer); !cluster && o.GetNamespace() == "" {
			o.SetNamespace(i.namespace)
		}
		if err := i.Create(i.Context(), o); err != nil {
			i.Fatalf("create %T %s: %v", o, o.GetName(), err)
		}
	}
}

// certManager runs cert-manager's controllers until stop is called.
func (i *installation) certManager() (stop func()) {
	i.Helper()
	program, err := cluster.Compiled("certmanager", "test/peers/certmanager", ".", "GOWORK=off")
	if err != nil {
		i.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(program, "--kubeconfig", cluster.Plane(i).KubeconfigPath(),
		"--cluster-resource-namespace", deploy.Namespace, "--nameserver", i.names.Addr)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		i.Fatal(err)
	}
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			_ = cmd.Process.Kill() // it has nothing that it must write at its end
			_ = cmd.Wait()
		}
	}
	i.Cleanup(func() {
		stop()
		if i.Failed() {
			i.Logf("cert-manager:\n%s", log.Bytes()[max(0, log.Len()-8000):])
		}
	})
	return stop
}

// perennial runs Perennial until stop is called.
func (i *installation) perennial() (stop func()) {
	i.Helper()
	c := cluster.Run(
		i,
		controller.Options{ClusterResourceNamespace: deploy.Namespace, Nameservers: []string{i.names.Addr}},
	)
	return func() {
		if err := c.Stop(); err != nil {
			i.Errorf("the controller ended with: %v", err)
		}
	}
}

// certificates returns a Certificate for each way to fill a Secret.
func certificates(prefix string) []client.Object {
	password := cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "password"}, Key: "word"}
	literal := "changeit"
	var all []client.Object
	for name, change := range map[string]func(*cmapi.CertificateSpec){
		"plain": func(*cmapi.CertificateSpec) {},
		"ecdsa": func(s *cmapi.CertificateSpec) {
			s.PrivateKey = &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm}
		},
		"pkcs8": func(s *cmapi.CertificateSpec) { s.PrivateKey = &cmapi.CertificatePrivateKey{Encoding: cmapi.PKCS8} },
		"kind":  func(s *cmapi.CertificateSpec) { s.IssuerRef.Kind = "Issuer" },
		"group": func(s *cmapi.CertificateSpec) { s.IssuerRef.Group = "cert-manager.io" },
		"formats": func(s *cmapi.CertificateSpec) {
			s.AdditionalOutputFormats = []cmapi.CertificateAdditionalOutputFormat{{Type: "DER"}, {Type: "CombinedPEM"}}
		},
		"jks": func(s *cmapi.CertificateSpec) {
			s.Keystores = &cmapi.CertificateKeystores{JKS: &cmapi.JKSKeystore{Create: true, PasswordSecretRef: password}}
		},
		"pkcs12": func(s *cmapi.CertificateSpec) {
			s.Keystores = &cmapi.CertificateKeystores{PKCS12: &cmapi.PKCS12Keystore{Create: true, Password: &literal}}
		},
		"modern": func(s *cmapi.CertificateSpec) {
			s.Keystores = &cmapi.CertificateKeystores{PKCS12: &cmapi.PKCS12Keystore{
				Create: true, PasswordSecretRef: password, Profile: cmapi.Modern2023PKCS12Profile}}
		},
		"des": func(s *cmapi.CertificateSpec) {
			s.Keystores = &cmapi.CertificateKeystores{PKCS12: &cmapi.PKCS12Keystore{
				Create: true, Password: &literal, Profile: cmapi.LegacyDESPKCS12Profile}}
		},
		"stores": func(s *cmapi.CertificateSpec) {
			s.PrivateKey = &cmapi.CertificatePrivateKey{Algorithm: cmapi.Ed25519KeyAlgorithm}
			s.Keystores = &cmapi.CertificateKeystores{
				JKS:    &cmapi.JKSKeystore{Create: true, Password: &literal, Alias: ptr.To("Web")},
				PKCS12: &cmapi.PKCS12Keystore{Create: true, PasswordSecretRef: password}}
		},
		"template": func(s *cmapi.CertificateSpec) {
			s.SecretTemplate = &cmapi.CertificateSecretTemplate{
				Labels: map[string]string{"team": "payments"}, Annotations: map[string]string{"example.com/contact": "ops"}}
		},
		"names": func(s *cmapi.CertificateSpec) {
			s.CommonName, s.DNSNames = "names.example.com", []string{"names.example.com", "*.names.example.com"}
			s.IPAddresses, s.URIs, s.EmailAddresses = []string{"192.0.2.1",
				"2001:db8::1"}, []string{"spiffe://example.com/a"}, []string{"ops@example.com"}
			s.Subject = &cmapi.X509Subject{Organizations: []string{"Example, Inc."}, Countries: []string{"DE"}}
		},
		"usages": func(s *cmapi.CertificateSpec) {
			s.Usages = []cmapi.KeyUsage{cmapi.UsageServerAuth, cmapi.UsageClientAuth}
		},
		"sub": func(s *cmapi.CertificateSpec) { s.IsCA, s.CommonName = true, "Sub" },
		"selfsigned": func(s *cmapi.CertificateSpec) {
			s.IssuerRef = cmmeta.IssuerReference{Name: "selfsigned", Kind: "ClusterIssuer"}
		},
		"acme": func(s *cmapi.CertificateSpec) {
			s.IssuerRef = cmmeta.IssuerReference{Name: "acme", Kind: "ClusterIssuer"}
		},
	} {
		crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: prefix + name}, Spec: cmapi.CertificateSpec{
			SecretName: prefix + name,
			DNSNames:   []string{prefix + name + ".example.com"},
			IssuerRef:  cmmeta.IssuerReference{Name: "ca"},
		}}
		change(&crt.Spec)
		all = append(all, crt)
	}
	return append(all, &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Name: prefix + "site", Annotations: map[string]string{"cert-manager.io/issuer": "ca"}},
		Spec: networkingv1.IngressSpec{
			TLS: []networkingv1.IngressTLS{
				{Hosts: []string{prefix + "site.example.com"}, SecretName: prefix + "site"},
			},
			DefaultBackend: &networkingv1.IngressBackend{
				Service: &networkingv1.IngressServiceBackend{Name: "site", Port: networkingv1.ServiceBackendPort{Number: 80}},
			},
		},
	})
}

// ready waits until all n Certificates are Ready in their current generation.
func (i *installation) ready(n int) {
	i.Helper()
	cluster.Eventually(i, func() error {
		var list cmapi.CertificateList
		if err := i.List(i.Context(), &list, client.InNamespace(i.namespace)); err != nil {
			return err
		}
		if len(list.Items) != n {
			return cluster.NotYet("there are %d Certificates, want %d", len(list.Items), n)
		}
		for _, crt := range list.Items {
			c := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionReady)
			if c == nil || c.Status != cmmeta.ConditionTrue || c.ObservedGeneration != crt.Generation {
				return cluster.NotYet(
					"Certificate %s, generation %d: %+v\n%s",
					crt.Name,
					crt.Generation,
					crt.Status.Conditions,
					i.challenges(),
				)
			}
		}
		return nil
	})
}

// challenges returns the states and reasons of the existing Challenges.
func (i *installation) challenges() string {
	var list cmacme.ChallengeList
	if err := i.List(i.Context(), &list, client.InNamespace(i.namespace)); err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, ch := range list.Items {
		fmt.Fprintf(&b, "challenge for %s: %q %s\n", ch.Spec.DNSName, ch.Status.State, ch.Status.Reason)
	}
	return b.String()
}

// touch gives each Certificate a new generation without a relevant change.
func (i *installation) touch(history int32) {
	i.Helper()
	var list cmapi.CertificateList
	if err := i.List(i.Context(), &list, client.InNamespace(i.namespace)); err != nil {
		i.Fatal(err)
	}
	for _, crt := range list.Items {
		next := crt.DeepCopy()
		next.Spec.RevisionHistoryLimit = ptr.To(history)
		if err := i.Patch(i.Context(), next, client.MergeFrom(&crt)); err != nil {
			i.Fatal(err)
		}
	}
}

// snapshot is the data and annotations of each Secret, and the names of all requests.
type snapshot struct {
	secrets     map[string]map[string][]byte
	annotations map[string]map[string]string
	requests    []string
}

func (i *installation) snapshot() snapshot {
	i.Helper()
	s := snapshot{secrets: map[string]map[string][]byte{}, annotations: map[string]map[string]string{}}
	var secrets corev1.SecretList
	var requests cmapi.CertificateRequestList
	for _, list := range []client.ObjectList{&secrets, &requests} {
		if err := i.List(i.Context(), list, client.InNamespace(i.namespace)); err != nil {
			i.Fatal(err)
		}
	}
	for _, secret := range secrets.Items {
		if secret.Labels[cmapi.IsNextPrivateKeySecretLabelKey] == "true" {
			continue // cert-manager, stopped right after it issued, leaves it to the next controller
		}
		s.secrets[secret.Name], s.annotations[secret.Name] = secret.Data, secret.Annotations
	}
	for _, cr := range requests.Items {
		s.requests = append(s.requests, cr.Name+" "+string(cr.UID))
	}
	slices.Sort(s.requests)
	return s
}

// unchanged fails the test for each entry and annotation of a Secret and each request that differs.
func (i *installation) unchanged(before snapshot) {
	i.Helper()
	now := i.snapshot()
	for name, data := range before.secrets {
		if !maps.EqualFunc(data, now.secrets[name], bytes.Equal) {
			for entry := range data {
				if !bytes.Equal(data[entry], now.secrets[name][entry]) {
					i.Errorf("Secret %s: %s has other bytes", name, entry)
				}
			}
			i.Errorf(
				"Secret %s: had %v, has %v",
				name,
				slices.Sorted(maps.Keys(data)),
				slices.Sorted(maps.Keys(now.secrets[name])),
			)
		}
	}
	for name, annotations := range before.annotations {
		for key, value := range annotations {
			if is, found := now.annotations[name][key]; !found || is != value {
				i.Errorf("Secret %s: annotation %s was %q, is %q", name, key, value, is)
			}
		}
	}
	if !slices.Equal(before.requests, now.requests) {
		i.Errorf("requests:\nbefore %q\nnow    %q", before.requests, now.requests)
	}
}

func TestSecretsStayAsTheyAreInBothDirections(t *testing.T) {
	i := install(t, time.Second)
	root := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: "root"}, Spec: cmapi.CertificateSpec{
		SecretName: "root",
		IsCA:       true,
		CommonName: "Root",
		IssuerRef:  cmmeta.IssuerReference{Name: "selfsigned", Kind: "ClusterIssuer"},
	}}
	i.make(root)
	theirs, ours := certificates("cm-"), certificates("p-")
	i.make(theirs...)

	stop := i.certManager()
	i.ready(1 + len(theirs))
	stop()
	before := i.snapshot()

	end := i.perennial()
	i.touch(2)
	i.ready(1 + len(theirs))
	i.unchanged(before)
	i.make(ours...)
	i.ready(1 + len(theirs) + len(ours))
	end()
	before = i.snapshot()

	stop = i.certManager()
	i.touch(3)
	i.ready(1 + len(theirs) + len(ours))
	stop()
	i.unchanged(before)

	end = i.perennial()
	i.touch(4)
	i.ready(1 + len(theirs) + len(ours))
	i.unchanged(before)
	end()
}

// pending waits until a challenge is presented.
func (i *installation) pending() (order, url string) {
	i.Helper()
	cluster.Eventually(i, func() error {
		var challenges cmacme.ChallengeList
		var orders cmacme.OrderList
		for _, list := range []client.ObjectList{&challenges, &orders} {
			if err := i.List(i.Context(), list, client.InNamespace(i.namespace)); err != nil {
				return err
			}
		}
		if len(challenges.Items) != 1 || len(orders.Items) != 1 || !challenges.Items[0].Status.Presented {
			return cluster.NotYet("%d challenges of %d orders", len(challenges.Items), len(orders.Items))
		}
		order, url = orders.Items[0].Name, orders.Items[0].Status.URL
		return nil
	})
	return order, url
}

func TestAnOrderThatOneHasBegunTheOtherEnds(t *testing.T) {
	for name, test := range map[string]struct{ first, second func(*installation) func() }{
		"begun by cert-manager": {(*installation).certManager, (*installation).perennial},
		"begun by Perennial":    {(*installation).perennial, (*installation).certManager},
	} {
		t.Run(name, func(t *testing.T) {
			i := install(t, 20*time.Second) // longer than the one needs to present it and the other to start
			i.make(&cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: "www"}, Spec: cmapi.CertificateSpec{
				SecretName: "www",
				DNSNames:   []string{"www.example.com"},
				IssuerRef:  cmmeta.IssuerReference{Name: "acme", Kind: "ClusterIssuer"},
			}})
			stop := test.first(i)
			order, url := i.pending()
			stop()

			stop = test.second(i)
			i.ready(1)
			var orders cmacme.OrderList
			if err := i.List(t.Context(), &orders, client.InNamespace(i.namespace)); err != nil {
				t.Fatal(err)
			}
			for _, o := range orders.Items {
				if o.Name != order || o.Status.URL != url {
					t.Errorf("another order: %s at %s, was %s at %s", o.Name, o.Status.URL, order, url)
				}
			}
			cluster.Eventually(t, func() error {
				var challenges cmacme.ChallengeList
				if err := i.List(
					t.Context(),
					&challenges,
					client.InNamespace(i.namespace),
				); err != nil ||
					len(challenges.Items) == 0 {
					return err
				}
				return fmt.Errorf(
					"Challenge %s is still there, with the finalizers %v",
					challenges.Items[0].Name,
					challenges.Items[0].Finalizers,
				)
			})
			if values := i.names.TXT("_acme-challenge.www.example.com"); len(values) > 0 {
				t.Errorf("the zone still has %q", values)
			}
			stop()
		})
	}
}
