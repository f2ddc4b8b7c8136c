package signer

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/secrets"
	"github.com/perennial-pki/perennial/pki"
)

// Types of issuers: the names of their fields in the spec.
const (
	TypeACME       = "acme"
	TypeCA         = "ca"
	TypeSelfSigned = "selfSigned"
	TypeVault      = "vault"
	TypeVenafi     = "venafi"
)

// Kinds of issuers.
const (
	KindIssuer        = "Issuer"
	KindClusterIssuer = "ClusterIssuer"
)

// Issuer is an Issuer or a ClusterIssuer.
type Issuer struct {
	cmapi.GenericIssuer
	// Kind is KindIssuer or KindClusterIssuer.
	Kind string
	// SecretNamespace is the namespace of the Secrets that it refers to: its own namespace, or the
	// cluster resource namespace.
	SecretNamespace string
}

// String names the issuer in messages, as in: ClusterIssuer "letsencrypt".
func (i *Issuer) String() string { return fmt.Sprintf("%s %q", i.Kind, i.GetName()) }

// SecretsHint returns the end of a message about a missing Secret. It says why the Secret must be
// in its namespace.
func (i *Issuer) SecretsHint() string {
	if i.Kind != KindClusterIssuer {
		return ""
	}
	return "; the Secrets of ClusterIssuers are in the namespace that --cluster-resource-namespace names"
}

// SecretInConditions names a Secret of the issuer in the issuer's own conditions.
func (i *Issuer) SecretInConditions(name string) string {
	return "Secret " + i.SecretNamespace + "/" + name
}

// SecretInRequests names a Secret of the issuer in messages that may reach the users of requests,
// Orders and Challenges. They may not know the Secrets of ClusterIssuers, which are in another
// namespace.
func (i *Issuer) SecretInRequests(name string) string { return i.inRequests("Secret", name) }

// ServiceAccountInRequests is SecretInRequests for a ServiceAccount of the issuer.
func (i *Issuer) ServiceAccountInRequests(name string) string {
	return i.inRequests("ServiceAccount", name)
}

func (i *Issuer) inRequests(kind, name string) string {
	if i.Kind == KindClusterIssuer {
		return "the " + kind + " of " + i.String()
	}
	return kind + " " + i.SecretNamespace + "/" + name
}

// ErrorInRequests returns an error of the API server about an object of the issuer, such as its
// Secret, for messages that may reach the users of requests. That of a ClusterIssuer's object does
// not name the object.
func (i *Issuer) ErrorInRequests(err error, name string) error {
	if i.Kind != KindClusterIssuer {
		return err
	}
	return fault.Unnamed(err, name)
}

// ReadSecret reads a Secret of the issuer, which the caller must not change. If it does not exist,
// the error is apierrors.IsNotFound. The text of an error may reach the users of requests.
func (i *Issuer) ReadSecret(ctx context.Context, store *secrets.Store, name string) (*corev1.Secret, error) {
	secret, err := store.Get(ctx, i.SecretNamespace, name)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", i.SecretInRequests(name), i.ErrorInRequests(err, name))
	}
	return secret, nil
}

// Generation identifies the issuer, its spec and, for type ca, the CA in use. It changes with each
// of these.
func (i *Issuer) Generation() string {
	generation := fmt.Sprintf("%s.%d", i.GetUID(), i.GetGeneration())
	if ca := i.GetStatus().CA; ca != nil && i.GetSpec().CA != nil {
		sum := sha256.Sum256([]byte(ca.Fingerprint + "\n" + ca.Certificate))
		generation += fmt.Sprintf(".%x", sum[:8])
	}
	return generation
}

// ChangedSince reports whether the issuer was replaced or changed since a [Issuer.Generation]. A
// generation without a CA stands for the CA that was in use at the time at.
func (i *Issuer) ChangedSince(was string, at time.Time) bool {
	is := i.Generation()
	if strings.HasPrefix(is, was+".") {
		return i.GetStatus().CA.Since.After(at)
	}
	return was != "" && was != is
}

// Type returns the name of the one field of the spec that is set, or "".
func (i *Issuer) Type() string {
	switch spec := i.GetSpec(); {
	case spec.ACME != nil:
		return TypeACME
	case spec.CA != nil:
		return TypeCA
	case spec.SelfSigned != nil:
		return TypeSelfSigned
	case spec.Vault != nil:
		return TypeVault
	case spec.Venafi != nil:
		return TypeVenafi
	}
	return ""
}

// Ready reports whether the issuer can be used, and if not, why not, in words for the users of
// requests. The conditions of a ClusterIssuer may name Secrets of another namespace, so that only
// the reason is repeated.
func (i *Issuer) Ready() (ready bool, why string) {
	c := cmapi.GetIssuerCondition(i.GetStatus(), cmapi.IssuerConditionReady)
	switch {
	case c == nil:
		return false, ""
	case c.Status == cmmeta.ConditionTrue:
		return true, ""
	case i.Kind == KindClusterIssuer:
		return false, fmt.Sprintf("%s; the condition Ready of %s says more", c.Reason, i)
	}
	return false, c.Message
}

// CAFromChain returns ca.crt, in PEM, for a chain of an ACME issuer: the highest certificate of the
// chain. It is nil if the issuer does not ask for ca.crt, or if the chain has only the leaf.
func (i *Issuer) CAFromChain(chain []*x509.Certificate) []byte {
	if acme := i.GetSpec().ACME; acme == nil || acme.IncludeCA != cmacme.ACMEIncludeCAFromChain {
		return nil
	}
	_, top, err := pki.OrderChain(chain)
	if err != nil || top == nil || top.Equal(chain[0]) {
		return nil
	}
	return pki.EncodeCertificatePEM(top)
}

// ReasonInvalidSolver is the reason of Ready=False if an issuer has solvers and none can be used.
const ReasonInvalidSolver = "InvalidSolver"

// Reasons of the condition Unreachable.
const (
	ReasonUnreachable = "Unreachable"
	ReasonRateLimited = "RateLimited"
)

// Unreachable reports whether the issuer's server did not answer the last request. A rate limit is
// an answer.
func (i *Issuer) Unreachable() bool {
	c := cmapi.GetIssuerCondition(i.GetStatus(), cmapi.IssuerConditionUnreachable)
	return c != nil && c.Reason == ReasonUnreachable
}

// Scope says where issuers are looked for.
type Scope struct {
	// ClusterResourceNamespace is where the Secrets of ClusterIssuers are.
	ClusterResourceNamespace string
	// Namespace, if set, is the only one that is served. There are no ClusterIssuers then.
	Namespace string
}

// Of returns the object as an Issuer.
func (s Scope) Of(issuer cmapi.GenericIssuer) *Issuer {
	if _, ok := issuer.(*cmapi.ClusterIssuer); ok {
		return &Issuer{GenericIssuer: issuer, Kind: KindClusterIssuer, SecretNamespace: s.ClusterResourceNamespace}
	}
	return &Issuer{GenericIssuer: issuer, Kind: KindIssuer, SecretNamespace: issuer.GetNamespace()}
}

// Get finds the issuer that ref names in an object of the given namespace. It is nil if there is
// none, or if the reference is to an external issuer.
func (s Scope) Get(
	ctx context.Context,
	c client.Reader,
	namespace string,
	ref cmmeta.IssuerReference,
) (*Issuer, error) {
	if External(ref) {
		return nil, nil
	}
	var issuer interface {
		cmapi.GenericIssuer
		client.Object
	} = &cmapi.Issuer{}
	key := client.ObjectKey{Namespace: namespace, Name: ref.Name}
	if ref.KindOrDefault() == KindClusterIssuer {
		if s.Namespace != "" {
			return nil, nil
		}
		issuer, key.Namespace = &cmapi.ClusterIssuer{}, ""
	}
	err := c.Get(ctx, key, issuer)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("get %s %q: %w", ref.KindOrDefault(), ref.Name, err)
	}
	return s.Of(issuer), nil
}

// OfDeleted returns what is known of a deleted issuer: its name, and the namespace of its Secrets.
func (s Scope) OfDeleted(namespace string, ref cmmeta.IssuerReference) *Issuer {
	if ref.KindOrDefault() == KindClusterIssuer {
		return s.Of(&cmapi.ClusterIssuer{ObjectMeta: metav1.ObjectMeta{Name: ref.Name}})
	}
	return s.Of(&cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: ref.Name}})
}

// SecretNamesIssuer reports whether the annotations of a Secret name the issuer as that of its
// certificate. Group and kind may be missing there, as cert-manager omits them if the Certificate
// does.
func SecretNamesIssuer(by cmmeta.IssuerReference, secret *corev1.Secret) bool {
	a := secret.Annotations
	said := cmmeta.IssuerReference{
		Name:  a[cmapi.IssuerNameAnnotationKey],
		Kind:  a[cmapi.IssuerKindAnnotationKey],
		Group: a[cmapi.IssuerGroupAnnotationKey],
	}
	return said.Name == by.Name && said.KindOrDefault() == by.KindOrDefault() &&
		said.GroupOrDefault() == by.GroupOrDefault()
}

// External reports whether ref names an issuer of another project, which has its own controller.
func External(ref cmmeta.IssuerReference) bool {
	return ref.GroupOrDefault() != cmmeta.DefaultIssuerGroup
}

// Key returns the field index value for a reference to an issuer from an object of the namespace:
// the group, the kind, the namespace if it is an Issuer, and the name. External issuers have a key,
// too.
func Key(namespace string, ref cmmeta.IssuerReference) string {
	if ref.KindOrDefault() == KindClusterIssuer {
		namespace = ""
	}
	return ref.GroupOrDefault() + "/" + ref.KindOrDefault() + "/" + namespace + "/" + ref.Name
}

// Key returns the field index value of objects that refer to the issuer.
func (i *Issuer) Key() string {
	return Key(i.GetNamespace(), cmmeta.IssuerReference{Name: i.GetName(), Kind: i.Kind})
}

// SignerName returns the spec.signerName of Kubernetes CertificateSigningRequests for the issuer,
// such as issuers.cert-manager.io/my-namespace.my-issuer.
func (i *Issuer) SignerName() string {
	if i.Kind == KindClusterIssuer {
		return "clusterissuers." + cmmeta.DefaultIssuerGroup + "/" + i.GetName()
	}
	return "issuers." + cmmeta.DefaultIssuerGroup + "/" + i.GetNamespace() + "." + i.GetName()
}
