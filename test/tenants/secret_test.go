package tenants_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwapi "sigs.k8s.io/gateway-api/apis/v1"
	gwbeta "sigs.k8s.io/gateway-api/apis/v1beta1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/deploy"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
)

// selfSigned runs the controller and makes a ClusterIssuer that signs by itself.
func selfSigned(t *testing.T, change ...func(*controller.Options)) *shared {
	t.Helper()
	s := &shared{t: t, admin: cluster.Admin(t)}
	o := controller.Options{ClusterResourceNamespace: deploy.Namespace}
	for _, f := range change {
		f(&o)
	}
	s.controller = cluster.Run(t, o)
	issuer := &cmapi.ClusterIssuer{ObjectMeta: metav1.ObjectMeta{GenerateName: "self-"},
		Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}}}
	s.create(issuer)
	s.issuer = cmmeta.IssuerReference{Kind: "ClusterIssuer", Name: issuer.Name}
	return s
}

// gateway is a Gateway whose listener has its certificate in a Secret of another namespace.
func gateway(namespace, name, issuer string, at types, annotations map[string]string) *gwapi.Gateway {
	g := &gwapi.Gateway{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name,
			Annotations: map[string]string{cmapi.IngressClusterIssuerNameAnnotationKey: issuer}},
		Spec: gwapi.GatewaySpec{GatewayClassName: "test", Listeners: []gwapi.Listener{{
			Name: "a", Port: 443, Protocol: gwapi.HTTPSProtocolType, Hostname: ptr.To(gwapi.Hostname("a.example.com")),
			TLS: &gwapi.ListenerTLSConfig{
				CertificateRefs: []gwapi.SecretObjectReference{{Namespace: ptr.To(gwapi.Namespace(at.namespace)),
					Name: gwapi.ObjectName(at.name)}}},
		}}},
	}
	for k, v := range annotations {
		if v == "" {
			delete(g.Annotations, k)
		} else {
			g.Annotations[k] = v
		}
	}
	return g
}

// types names a Secret.
type types struct{ namespace, name string }

// TestAReferenceGrantAllowsNoOverwriting makes a tenant with a ReferenceGrant to the Secrets of
// another namespace try operations that the grant does not allow.
func TestAReferenceGrantAllowsNoOverwriting(t *testing.T) {
	cluster.InstallGatewayAPI(t)
	now := clocktesting.NewFakeClock(time.Now())
	s := selfSigned(t, func(o *controller.Options) { o.Clock = now })
	evil, namespace := tenant(t)
	victim := cluster.Namespace(t)
	s.create(&gwbeta.ReferenceGrant{ObjectMeta: metav1.ObjectMeta{Namespace: victim, Name: "gateways"},
		Spec: gwbeta.ReferenceGrantSpec{
			From: []gwapi.ReferenceGrantFrom{{Group: gwapi.GroupName, Kind: "Gateway", Namespace: gwapi.Namespace(namespace)}},
			To:   []gwapi.ReferenceGrantTo{{Kind: "Secret"}},
		}})
	precious := map[string][]byte{"tls.crt": []byte("theirs"), "tls.key": []byte("theirs"), "password": []byte("theirs")}
	for _, name := range []string{"old", "marked", "copied"} {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: victim, Name: name}, Data: precious}
		switch name {
		case "copied": // with its annotations, as tools do, from one that was made for a Gateway
			secret.Annotations = map[string]string{"perennial.dev/requested-by": "Gateway/" + namespace + "/" + name}
		case "marked": // as the Secret of a Certificate that is gone
			secret.Annotations = map[string]string{cmapi.CertificateNameKey: name, cmapi.IssuerNameAnnotationKey: s.issuer.Name,
				cmapi.IssuerKindAnnotationKey: "ClusterIssuer"}
		}
		s.create(secret)
		try(t, evil, gateway(namespace, name, s.issuer.Name, types{victim, name}, nil))
		s.keptFrom(t, victim, name, "Gateway/"+namespace+"/"+name)
	}

	// What the object cannot ask for in another namespace.
	for name, annotations := range map[string]map[string]string{
		"is only for Secrets of this namespace": {"perennial.dev/deletion-policy": "Delete"},
		"cert-manager.io/secret-template: is only for": {
			cmapi.IngressSecretTemplate: `{"annotations": {"example.com/reflect": "true"}}`},
		"whose issuers are not known to be the same in every namespace": {
			cmapi.IngressClusterIssuerNameAnnotationKey: "", cmapi.IngressIssuerNameAnnotationKey: "a",
			cmapi.IssuerKindAnnotationKey: "StepIssuer", cmapi.IssuerGroupAnnotationKey: "certmanager.step.sm"},
		"names an Issuer of this namespace, but Secret": {
			cmapi.IngressClusterIssuerNameAnnotationKey: "", cmapi.IngressIssuerNameAnnotationKey: "a"},
		"perennial.dev/rehearsal-issuer: names an Issuer of this namespace": {"perennial.dev/rehearsal-issuer": "Issuer/a"},
	} {
		g := gateway(namespace, "", s.issuer.Name, types{victim, "new"}, annotations)
		g.GenerateName = "asks-"
		try(t, evil, g)
		cluster.Eventually(t, func() error {
			if err := evil.Get(t.Context(), client.ObjectKeyFromObject(g), g); err != nil {
				return err
			}
			if got := g.Annotations["perennial.dev/certificate-problem"]; !strings.Contains(got, name) {
				// A mistake is said when it has stood for a minute.
				now.Step(61 * time.Second)
				was := g.DeepCopy()
				g.Annotations["example.com/now"] = now.Now().String()
				if err := evil.Patch(t.Context(), g, client.MergeFrom(was)); err != nil {
					return err
				}
				return cluster.NotYet("want %q: the problem is %q", name, got)
			}
			return nil
		})
		if err := evil.Delete(t.Context(), g); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.admin.Get(t.Context(), client.ObjectKey{Namespace: victim, Name: "new"},
		&cmapi.Certificate{}); !apierrors.IsNotFound(err) {
		t.Errorf("there is a Certificate for what was not allowed: %v", err)
	}

	// A Secret that is made for it is its to renew, also when it comes again.
	g := gateway(namespace, "good", s.issuer.Name, types{victim, "good"}, nil)
	for range 2 {
		try(t, evil, g)
		crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: victim, Name: "good"},
			Spec: cmapi.CertificateSpec{SecretName: "good"}}
		s.ready(crt)
		if err := evil.Delete(t.Context(), g); err != nil {
			t.Fatal(err)
		}
		s.gone(crt)
		g = gateway(namespace, "good", s.issuer.Name, types{victim, "good"},
			map[string]string{cmapi.DurationAnnotationKey: "240h"})
	}
}

// keptFrom expects that the Secret of a namespace stays as it is, and that the Certificate of an
// owner in another namespace says why.
func (s *shared) keptFrom(t *testing.T, namespace, name, owner string) {
	t.Helper()
	crt := &cmapi.Certificate{}
	cluster.Eventually(t, func() error {
		if err := s.admin.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, crt); err != nil {
			return err
		}
		c := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionReady)
		if c == nil || c.Reason != "ForeignSecret" || !strings.Contains(c.Message, "was not made for "+owner) {
			return cluster.NotYet("the conditions are %+v", crt.Status.Conditions)
		}
		return nil
	})
	is := &corev1.Secret{}
	if err := s.admin.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, is); err != nil ||
		string(is.Data["tls.crt"]) != "theirs" || len(is.Data) != 3 {
		t.Errorf("Secret %s: %v, %d entries, tls.crt is %q", name, err, len(is.Data), is.Data["tls.crt"])
	}
}

// TestASecretThatHoldsOtherDataIsNotDeletedWithACertificate makes a tenant without permission to
// delete Secrets try to delete one through a Certificate with its name.
func TestASecretThatHoldsOtherDataIsNotDeletedWithACertificate(t *testing.T) {
	s := selfSigned(t)
	user, namespace := tenant(t)
	s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "before"},
		Data: map[string][]byte{"password": []byte("theirs")}})
	s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "pair"}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{"tls.crt": {}, "tls.key": {}}})
	make := func(name string) *cmapi.Certificate {
		crt := s.certificate(namespace, name)
		crt.Spec.DeletionPolicy = cmapi.DeletionPolicyDelete
		try(t, user, crt)
		s.ready(crt)
		return crt
	}
	stays := func(crt *cmapi.Certificate, words string) {
		t.Helper()
		cluster.Eventually(t, func() error {
			secret := &corev1.Secret{}
			if err := s.admin.Get(t.Context(), client.ObjectKeyFromObject(crt), secret); err != nil {
				return err
			}
			if err := s.admin.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
				return err
			}
			c := cmapi.GetCertificateCondition(&crt.Status, "SecretStays")
			if len(secret.OwnerReferences) > 0 || c == nil || !strings.Contains(c.Message, words) {
				return cluster.NotYet("owners %v, conditions %+v", secret.OwnerReferences, crt.Status.Conditions)
			}
			return nil
		})
	}
	stays(make("before"), "it was made by")
	stays(make("pair"), "it was made by")
	later := make("later")
	secret := &corev1.Secret{}
	if err := user.Get(t.Context(), client.ObjectKeyFromObject(later), secret); err != nil ||
		len(secret.OwnerReferences) != 1 {
		t.Fatalf("owners %v: %v", secret.OwnerReferences, err)
	}
	was := secret.DeepCopy()
	secret.Data["password"] = []byte("theirs")
	if err := user.Patch(t.Context(), secret, client.MergeFrom(was)); err != nil {
		t.Fatal(err)
	}
	stays(later, "entries that are not the Certificate's: password")
	own := make("own")
	for _, crt := range []*cmapi.Certificate{later, own} {
		if err := user.Delete(t.Context(), crt); err != nil {
			t.Fatal(err)
		}
	}
	s.gone(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "own"}})
	for _, name := range []string{"before", "pair", "later"} {
		if err := user.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, &corev1.Secret{}); err != nil {
			t.Errorf("Secret %s: %v", name, err)
		}
	}
}
