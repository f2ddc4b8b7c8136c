package tenants_test

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/deploy"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/dnsserver"
)

// TestAProofOfAClusterIssuerIsRemovedIfTheControllerMadeIt removes the Order of a Challenge, and
// changes or deletes its ClusterIssuer, while its proof stands.
func TestAProofOfAClusterIssuerIsRemovedIfTheControllerMadeIt(t *testing.T) {
	const keyName, record = "k.", "_acme-challenge.site.example.com"
	secret := base64.StdEncoding.EncodeToString([]byte("a key of a name server"))
	zone, err := dnsserver.Start(dnsserver.Options{Zones: []string{"example.com"}, KeyName: keyName, Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(zone.Close)
	zone.Hide(record, true) // so that the order stays open
	solver := cmacme.ACMEChallengeSolver{DNS01: &cmacme.ACMEChallengeSolverDNS01{
		Nameservers: []string{zone.Addr},
		RFC2136: &cmacme.ACMEIssuerDNS01ProviderRFC2136{Nameserver: zone.Addr, TSIGKeyName: keyName,
			TSIGAlgorithm: "HMACSHA256", TSIGSecret: cmmeta.SecretKeySelector{
				LocalObjectReference: cmmeta.LocalObjectReference{Name: "tsig-of-the-zone"}, Key: "key"}},
	}}
	s := share(t, func(o *controller.Options, spec *cmacme.ACMEIssuer) {
		o.Nameservers, spec.Solvers = []string{zone.Addr}, []cmacme.ACMEChallengeSolver{solver}
	})
	s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: deploy.Namespace, Name: "tsig-of-the-zone"},
		Data: map[string][]byte{"key": []byte(secret)}})
	shared := &cmapi.ClusterIssuer{}
	if err := s.admin.Get(t.Context(), client.ObjectKey{Name: s.issuer.Name}, shared); err != nil {
		t.Fatal(err)
	}

	// presented waits until the only Challenge of a namespace is presented.
	presented := func(namespace string) *cmacme.Challenge {
		t.Helper()
		ch := &cmacme.Challenge{}
		cluster.Eventually(t, func() error {
			var list cmacme.ChallengeList
			if err := s.admin.List(t.Context(), &list, client.InNamespace(namespace)); err != nil {
				return err
			}
			if len(list.Items) != 1 || !list.Items[0].Status.Presented || len(zone.TXT(record)) != 1 {
				return cluster.NotYet("no Challenge is presented: %+v", list.Items)
			}
			list.Items[0].DeepCopyInto(ch)
			return nil
		})
		return ch
	}
	leave := func(crt *cmapi.Certificate) {
		t.Helper()
		if err := s.admin.Delete(t.Context(), crt); err != nil {
			t.Fatal(err)
		}
	}
	removed := func() {
		t.Helper()
		cluster.Eventually(t, func() error {
			if got := zone.TXT(record); len(got) > 0 {
				return cluster.NotYet("the zone has %q", got)
			}
			return nil
		})
	}
	issue := func() (*cmapi.Certificate, *cmacme.Challenge) {
		t.Helper()
		user, namespace := tenant(t)
		crt := s.certificate(namespace, "site")
		try(t, user, crt)
		return crt, presented(namespace)
	}

	crt, ch := issue()
	leave(crt)
	s.gone(ch)
	removed()

	// The issuer has another solver now.
	crt, ch = issue()
	was := shared.DeepCopy()
	shared.Spec.ACME.Solvers[0].DNS01.RFC2136.TSIGKeyName = "other."
	if err := s.admin.Patch(t.Context(), shared, client.MergeFrom(was)); err != nil {
		t.Fatal(err)
	}
	s.gone(ch)
	removed()
	leave(crt)
	was = shared.DeepCopy()
	shared.Spec.ACME.Solvers[0].DNS01.RFC2136.TSIGKeyName = keyName
	if err := s.admin.Patch(t.Context(), shared, client.MergeFrom(was)); err != nil {
		t.Fatal(err)
	}

	// One without a seal, as of an earlier version, cannot be told from a forged one.
	crt, ch = issue()
	if ch.Annotations["perennial.dev/seal"] == "" {
		t.Fatalf("the Challenge has no seal: %v", ch.Annotations)
	}
	unsealed := ch.DeepCopy()
	delete(unsealed.Annotations, "perennial.dev/seal")
	if err := s.admin.Patch(t.Context(), unsealed, client.MergeFrom(ch)); err != nil {
		t.Fatal(err)
	}
	leave(crt)
	s.gone(ch)
	if got := zone.TXT(record); !slices.Equal(got, []string{ch.Spec.Key}) {
		t.Errorf("the zone has %q", got)
	}
	s.warned(ch, "CleanUpError", "Nothing proves that the controller made the Challenge", record, ch.Spec.Key,
		"remove it by hand")
	zone.SetTXT(record)

	// The issuer is gone.
	crt, ch = issue()
	if err := s.admin.Delete(t.Context(), shared); err != nil {
		t.Fatal(err)
	}
	leave(crt)
	s.gone(ch)
	removed()
}

// warned waits for an event about an object that has all these words.
func (s *shared) warned(o client.Object, reason string, words ...string) {
	s.t.Helper()
	cluster.Eventually(s.t, func() error {
		var list corev1.EventList
		if err := s.admin.List(s.t.Context(), &list, client.InNamespace(o.GetNamespace())); err != nil {
			return err
		}
		var got []string
		for _, e := range list.Items {
			if e.InvolvedObject.UID != o.GetUID() || e.Reason != reason {
				continue
			}
			got = append(got, e.Message)
			if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(e.Message, w) }) {
				return nil
			}
		}
		return cluster.NotYet("want %q in an event %s: %q", words, reason, got)
	})
}

// TestAnOrderOfNoApprovedRequestIsNotSent uses Orders in a tenant's namespace that are older than
// the policies and name a ClusterIssuer.
func TestAnOrderOfNoApprovedRequestIsNotSent(t *testing.T) {
	s := share(t)
	user, namespace := tenant(t)
	good := s.certificate(namespace, "good")
	try(t, user, good)
	s.ready(good)
	var requests cmapi.CertificateRequestList
	if err := user.List(t.Context(), &requests, client.InNamespace(namespace)); err != nil || len(requests.Items) != 1 {
		t.Fatalf("%d requests, %v", len(requests.Items), err)
	}
	approved := &requests.Items[0]
	own := *metav1.NewControllerRef(approved, cmapi.SchemeGroupVersion.WithKind("CertificateRequest"))

	// A request that is never approved, as its issuer is not the controller's.
	waiting := &cmapi.CertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "waiting"},
		Spec: cmapi.CertificateRequestSpec{IssuerRef: external, Request: approved.Spec.Request}}
	try(t, user, waiting)
	unapproved := *metav1.NewControllerRef(waiting, cmapi.SchemeGroupVersion.WithKind("CertificateRequest"))

	spec := cmacme.OrderSpec{IssuerRef: s.issuer, Request: approved.Spec.Request, DNSNames: []string{"good.example.com"}}
	victim := spec
	victim.DNSNames = []string{"victim.example.com"}
	victim.Request = csr(t, pki.Request{DNSNames: []string{"victim.example.com"}})
	names := spec
	names.DNSNames = []string{"victim.example.com"}
	for _, test := range []struct {
		name, says string
		owners     []metav1.OwnerReference
		spec       cmacme.OrderSpec
	}{
		{"of-none", "it belongs to no request", nil, spec},
		{"of-one-that-is-not-approved", "is not approved", []metav1.OwnerReference{unapproved}, spec},
		{"with-another-csr", "spec.request is not that of its CertificateRequest", []metav1.OwnerReference{own}, victim},
		{"with-other-names", "its names are not those of its CertificateRequest", []metav1.OwnerReference{own}, names},
	} {
		t.Run(test.name, func(t *testing.T) {
			order := &cmacme.Order{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: test.name,
				OwnerReferences: test.owners}, Spec: test.spec}
			s.create(order) // by an administrator, in the place of a time without policies
			cluster.Eventually(t, func() error {
				if err := s.admin.Get(t.Context(), client.ObjectKeyFromObject(order), order); err != nil {
					return err
				}
				if !strings.Contains(order.Status.Reason, test.says) {
					return cluster.NotYet("the status is %+v", order.Status)
				}
				return nil
			})
			if order.Status.URL != "" || len(order.Status.Certificate) > 0 {
				t.Errorf("it was sent: %+v", order.Status)
			}
		})
	}
}
