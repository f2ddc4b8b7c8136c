package lifecycle_test

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/internal/lifecycle"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/test/cluster"
)

// creates refuses to create objects of the type of o.
func creates[T client.Object](suffix string) func(cluster.Write) bool {
	return func(w cluster.Write) bool {
		_, is := w.Object.(T)
		return w.Verb == "create" && is && strings.HasSuffix(w.Name, suffix)
	}
}

// createsKey refuses next private keys.
func createsKey(w cluster.Write) bool {
	_, is := w.Object.(*corev1.Secret)
	return w.Verb == "create" && is && strings.HasPrefix(w.Name, "a-")
}

// createsSecret refuses the Secret of the certificate, when it is not applied.
func createsSecret(w cluster.Write) bool { return creates[*corev1.Secret]("")(w) && w.Name == "a" }

func appliesSecret(w cluster.Write) bool { return w.Verb == "apply" && w.Name == "a" }

func patches[T client.Object](name string) func(cluster.Write) bool {
	return func(w cluster.Write) bool {
		_, is := w.Object.(T)
		return w.Verb == "patch" && is && (w.Name == name || strings.HasPrefix(w.Name, name+"-"))
	}
}

// writesCount refuses the ConfigMap with the count of issuances.
func writesCount(w cluster.Write) bool {
	_, is := w.Object.(*corev1.ConfigMap)
	return is && strings.HasPrefix(w.Name, "perennial-issuances-")
}

// renewed asks for a second certificate.
func renewed(r *refusable) { r.renew("a") }

// refusedWrite is a write of a reconciliation.
type refusedWrite struct {
	rule   func(cluster.Write) bool
	reason string
	// of are the signers for which it is made, nil for all.
	of []string
	// edit changes the Certificate, options the controller.
	edit    func(*cmapi.Certificate)
	options func(*controller.Options)
	// before makes what the write finds, once the Certificate is there and before the controller
	// starts.
	before func(*refusable, *cmapi.Certificate)
	// later, if set, causes the write once the Certificate is ready. Otherwise it is one of the first
	// issuance.
	later func(*refusable)
	// ready says that the Certificate stays ready. revision is its revision then.
	ready    bool
	revision int
	// says is what the condition says before the words of the API server.
	says string
}

// Each is refused in turn.
var refusedWrites = map[string]refusedWrite{
	"the CertificateRequest": {rule: creates[*cmapi.CertificateRequest]("-1"), reason: "RequestFailed"},
	"the Secret":             {rule: appliesSecret, reason: "SecretWriteFailed"},
	"the next private key":   {rule: createsKey, reason: "PrivateKeyWriteFailed", of: []string{"external", "acme"}},
	"the private key of a request that waits": {
		rule: createsKey, reason: "PrivateKeyWriteFailed", of: []string{"selfSigned", "ca"},
		options: func(o *controller.Options) { o.Controllers = []string{"*", "-certificaterequests-approver"} }},
	"the rehearsal": {rule: creates[*cmapi.CertificateRequest]("-rehearsal"), reason: "RequestFailed", of: []string{"ca"},
		edit: func(crt *cmapi.Certificate) { crt.Spec.RehearsalIssuerRef = &cmmeta.IssuerReference{Name: "staging"} }},
	"the finalizer": {rule: patches[*cmapi.Certificate]("a"), reason: "FinalizerWriteFailed", of: []string{"acme"}},
	"the deletion of an old request": {rule: cluster.WriteOf[*cmapi.CertificateRequest]("delete"),
		reason: "DeletionFailed", later: renewed,
		ready: true, revision: 2},
	"the deletion of a used key Secret": {rule: cluster.WriteOf[*corev1.Secret]("delete"), reason: "DeletionFailed",
		later: renewed,
		ready: true, revision: 2, of: []string{"external", "acme"}},
	"the count of issuances": {rule: writesCount, reason: "IssuanceCountNotSaved", later: func(r *refusable) {
		if err := r.Delete(r.Context(), r.secret("a")); err != nil {
			r.Fatal(err)
		}
	}, revision: 1, says: "The controller cannot save the count of issuances, and requests no certificate before " +
		"its renewal time without it: forbidden: "},
	"the count of issuances of a renewal": {rule: writesCount, reason: "IssuanceCountNotSaved", later: renewed,
		ready: true, revision: 1, of: []string{"ca", "acme"}},
	"a Secret for a Gateway of another namespace": {rule: createsSecret, reason: "SecretWriteFailed",
		of: []string{"ca", "external"}, edit: func(crt *cmapi.Certificate) {
			crt.Annotations = map[string]string{signer.RequestedByAnnotation: "Gateway other/web"}
		}},
	"the private key in a Secret that is there": {rule: patches[*corev1.Secret]("a"), reason: "PrivateKeyWriteFailed",
		of: []string{"external", "acme"}, before: func(r *refusable, crt *cmapi.Certificate) {
			r.create(&corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Name: lifecycle.KeySecretName(crt, 1), OwnerReferences: []metav1.OwnerReference{
					*metav1.NewControllerRef(crt, cmapi.SchemeGroupVersion.WithKind("Certificate"))}},
				Data: map[string][]byte{"tls.key": []byte("of another process")},
			})
		}},
}
