package tenants_test

import (
	"net"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/deploy"
	"github.com/perennial-pki/perennial/test/cluster"
)

// listening is a DNS server of a tenant, that counts what it hears.
func listening(t *testing.T) (address string, heard *atomic.Int32) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	heard = &atomic.Int32{}
	go func() {
		buffer := make([]byte, 4096)
		for {
			if _, _, err := conn.ReadFrom(buffer); err != nil {
				return
			}
			heard.Add(1)
		}
	}()
	t.Cleanup(func() { conn.Close() })
	return conn.LocalAddr().String(), heard
}

// TestAChallengeThatNoOrderAsksForIsNotSetUp uses Challenges in a tenant's namespace that are older
// than the policies and would send the credentials of a ClusterIssuer to the tenant's server.
func TestAChallengeThatNoOrderAsksForIsNotSetUp(t *testing.T) {
	s := share(t)
	user, namespace := tenant(t)
	evil, heard := listening(t)
	s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: deploy.Namespace, Name: "tsig"},
		Data: map[string][]byte{"key": []byte("c2VjcmV0")}})

	// An order that stays open.
	crt := s.certificate(namespace, "open")
	crt.Spec.DNSNames = []string{"open.nowhere.test"}
	try(t, user, crt)
	real := &cmacme.Challenge{}
	cluster.Eventually(t, func() error {
		var list cmacme.ChallengeList
		if err := user.List(t.Context(), &list, client.InNamespace(namespace)); err != nil {
			return err
		}
		if len(list.Items) == 0 {
			return cluster.NotYet("there is no Challenge")
		}
		list.Items[0].DeepCopyInto(real)
		return nil
	})

	spec := *real.Spec.DeepCopy()
	spec.Type, spec.Key, spec.Solver = cmacme.ACMEChallengeTypeDNS01, acme.DNS01Value("x"), cmacme.ACMEChallengeSolver{
		DNS01: &cmacme.ACMEChallengeSolverDNS01{
			RFC2136: &cmacme.ACMEIssuerDNS01ProviderRFC2136{
				Nameserver: evil, TSIGKeyName: "k", TSIGAlgorithm: "HMACSHA256",
				TSIGSecret: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "tsig"}, Key: "key"},
			},
		}}
	elsewhere := spec
	elsewhere.AuthorizationURL += "x"
	for _, test := range []struct {
		name, says string
		owners     []metav1.OwnerReference
		spec       cmacme.ChallengeSpec
	}{
		{"of-none", "belongs to no Order", nil, spec},
		{"of-one-that-is-gone", "the Order of the Challenge does not exist",
			[]metav1.OwnerReference{{APIVersion: "acme.cert-manager.io/v1", Kind: "Order", Name: real.OwnerReferences[0].Name,
				UID: crt.UID, Controller: real.OwnerReferences[0].Controller}}, spec},
		{"of-no-authorization", "has no such authorization", real.OwnerReferences, elsewhere},
		{"with-another-solver", "is not what its Order and its issuer ask for", real.OwnerReferences, spec},
	} {
		for _, forged := range []bool{false, true} {
			name := test.name
			if forged {
				name += "-but-presented-says-its-status"
			}
			t.Run(name, func(t *testing.T) {
				s := *s
				s.t = t
				ch := &cmacme.Challenge{ObjectMeta: metav1.ObjectMeta{
					Namespace: namespace, Name: name, OwnerReferences: test.owners,
					Finalizers: []string{cmacme.ACMEDomainQualifiedFinalizer},
				}, Spec: test.spec}
				s.forged(ch, forged, test.says)
			})
		}
	}
	if n := heard.Load(); n > 0 {
		t.Errorf("the tenant's server was asked %d times", n)
	}
}

// forged creates a Challenge as an administrator, in the place of a time without policies, and
// deletes it when its status says why nothing is set up. If forge is set, the status says that it
// is presented.
func (s *shared) forged(ch *cmacme.Challenge, forge bool, says string) {
	t, presented := s.t, false
	s.create(ch)
	if forge {
		cluster.Eventually(t, func() error {
			err := s.admin.Get(t.Context(), client.ObjectKeyFromObject(ch), ch)
			if err == nil {
				ch.Status = cmacme.ChallengeStatus{Presented: true, Processing: true, State: cmacme.Pending}
				err = s.admin.Status().Update(t.Context(), ch)
			}
			// The garbage collector may be faster. A status that is written after the deletion can come
			// after the clean-up.
			presented = err == nil && ch.DeletionTimestamp == nil
			return client.IgnoreNotFound(err)
		})
	}
	cluster.Eventually(t, func() error {
		err := s.admin.Get(t.Context(), client.ObjectKeyFromObject(ch), ch)
		if apierrors.IsNotFound(err) {
			return nil // its Order, or the garbage collector, was faster
		}
		if err != nil || !strings.Contains(ch.Status.Reason, says) {
			return cluster.NotYet("it says %q: %v", ch.Status.Reason, err)
		}
		return nil
	})
	if !forge && ch.Status.Presented {
		t.Error("it is presented")
	}
	if err := client.IgnoreNotFound(s.admin.Delete(t.Context(), ch)); err != nil {
		t.Fatal(err)
	}
	s.gone(ch)
	if presented {
		s.warned(ch, "CleanUpError", "Nothing proves that the controller made the Challenge", "remove it by hand")
	}
}
