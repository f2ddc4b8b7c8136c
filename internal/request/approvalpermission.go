package request

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/external"
	"github.com/perennial-pki/perennial/internal/signer"
)

const (
	// permissionLife is how long the API server's answer about the controller's permissions is kept.
	// If a permission was withdrawn, the API server refuses the approval anyway. If it was granted,
	// the approval waits at most so long.
	permissionLife = time.Minute
	// permissionTimeout limits a request about the controller's permissions.
	permissionTimeout = 10 * time.Second
	maxPermissions    = 4096
)

// permissions knows which requests RBAC lets the controller approve. It needs the verb approve on
// signers.cert-manager.io, for the name of the issuer or for "*", all issuers of the kind.
type permissions struct {
	client client.Client
	clock  clock.PassiveClock

	mu    sync.Mutex
	known map[string]permission
	kinds map[schema.GroupKind]cachedKind
	user  string
}

type permission struct {
	allowed bool
	asked   time.Time
}

// cachedKind is a kind of external issuers, nil if the cluster has none of that name.
type cachedKind struct {
	kind  *external.Kind
	asked time.Time
}

// mayApprove reports whether the controller may approve a request. needs is the resource name for
// the permission, empty if there is none, as the controller does not know the kind.
func (p *permissions) mayApprove(ctx context.Context,
	cr *cmapi.CertificateRequest) (allowed bool, needs string, err error) {
	kind, err := p.kindOf(ctx, cr.Spec.IssuerRef)
	if err != nil || kind == nil {
		return false, "", err
	}
	needs = kind.Signer(cr.Namespace, cr.Spec.IssuerRef.Name)
	for _, name := range []string{kind.Signers(), needs} {
		allowed, err := p.allowed(ctx, name)
		if err != nil || allowed {
			return allowed, needs, err
		}
	}
	return false, needs, nil
}

// cachedKind returns the kind that ref names. A kind of another project that the cluster does not
// have gets the name that the admission policy gives it.
func (p *permissions) kindOf(ctx context.Context, ref cmmeta.IssuerReference) (*external.Kind, error) {
	of := func(resource string, namespaced bool) *external.Kind {
		return &external.Kind{GroupVersionKind: schema.GroupVersionKind{Group: ref.GroupOrDefault(),
			Kind: ref.KindOrDefault()}, Resource: resource, Namespaced: namespaced}
	}
	if !signer.External(ref) {
		switch ref.KindOrDefault() {
		case signer.KindIssuer:
			return of("issuers", true), nil
		case signer.KindClusterIssuer:
			return of("clusterissuers", false), nil
		}
		return nil, nil
	}
	kind, err := p.installed(ref)
	if err != nil || kind != nil {
		return kind, err
	}
	return of(strings.ToLower(ref.KindOrDefault())+"s", !strings.Contains(ref.KindOrDefault(), "Cluster")), nil
}

// installed returns the kind of external issuers that ref names, or nil if the cluster has none.
func (p *permissions) installed(ref cmmeta.IssuerReference) (*external.Kind, error) {
	now, of := p.clock.Now(), schema.GroupKind{Group: ref.GroupOrDefault(), Kind: ref.KindOrDefault()}
	p.mu.Lock()
	known, ok := p.kinds[of]
	p.mu.Unlock()
	if ok && now.Sub(known.asked) < permissionLife {
		return known.kind, nil
	}
	kind, err := external.KindOf(p.client.RESTMapper(), ref)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kinds == nil || len(p.kinds) >= maxPermissions {
		p.kinds = map[schema.GroupKind]cachedKind{}
	}
	p.kinds[of] = cachedKind{kind, now}
	return kind, nil
}

func (p *permissions) allowed(ctx context.Context, name string) (bool, error) {
	now := p.clock.Now()
	p.mu.Lock()
	known, ok := p.known[name]
	p.mu.Unlock()
	if ok && now.Sub(known.asked) < permissionLife {
		return known.allowed, nil
	}
	ctx, cancel := context.WithTimeout(ctx, permissionTimeout)
	defer cancel()
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Group: cmmeta.DefaultIssuerGroup, Resource: "signers", Verb: "approve", Name: name, Version: "*",
		},
	}}
	if err := p.client.Create(ctx, review, &client.CreateOptions{DisableReadYourWritesConsistency: true}); err != nil {
		return false, fmt.Errorf("ask whether we may approve for signers %q: %w", name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil || len(p.known) >= maxPermissions {
		p.known = map[string]permission{}
	}
	p.known[name] = permission{review.Status.Allowed, now}
	return review.Status.Allowed, nil
}

// refused drops the kept answers after the API server has refused an approval.
func (p *permissions) refused() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known = nil
}

// missing says which permission an approval needs, and how to grant it. If the cluster does not
// have the kind of the issuer, it says that instead.
func (p *permissions) missing(ctx context.Context, cr *cmapi.CertificateRequest, needs string) string {
	if ref := cr.Spec.IssuerRef; signer.External(ref) {
		if kind, err := p.installed(ref); err == nil && kind == nil {
			return fmt.Sprintf("The cluster has no kind %q in the group %q, so that nothing signs this request: correct "+
				"spec.issuerRef, or install the issuer's controller", ref.KindOrDefault(), ref.GroupOrDefault())
		}
	}
	return fmt.Sprintf("%s may not approve this request: it needs the verb approve on signers.cert-manager.io %q. Bind "+
		"a ClusterRole with that to it, "+
		"such as the one that the issuer ships for cert-manager's ServiceAccount; or approve by hand: perennial approve "+
		"%s -n %s", p.whoWeAre(ctx), needs, cr.Name, cr.Namespace)
}

// whoWeAre returns the user as which the API server knows the controller.
func (p *permissions) whoWeAre(ctx context.Context) string {
	p.mu.Lock()
	user := p.user
	p.mu.Unlock()
	if user != "" {
		return user
	}
	ctx, cancel := context.WithTimeout(ctx, permissionTimeout)
	defer cancel()
	review := &authenticationv1.SelfSubjectReview{}
	if err := p.client.Create(ctx, review, &client.CreateOptions{DisableReadYourWritesConsistency: true}); err != nil {
		return "The controller"
	}
	user = fmt.Sprintf("User %q", review.Status.UserInfo.Username)
	if parts := strings.Split(review.Status.UserInfo.Username, ":"); len(parts) == 4 && parts[0] == "system" &&
		parts[1] == "serviceaccount" {
		user = fmt.Sprintf("ServiceAccount %s/%s", parts[2], parts[3])
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.user = user
	return user
}
