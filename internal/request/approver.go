package request

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/signer"
)

const (
	// permissionLife is how long the API server's answer about our permissions is believed. An approval that is no longer allowed
	// is refused by the API server whatever we believe; one that has become allowed waits at most so long.
	permissionLife = time.Minute
	// permissionTimeout bounds a question about our permissions.
	permissionTimeout = 10 * time.Second
	maxPermissions    = 4096
)

// permissions knows which issuers' requests RBAC lets us approve: those for which we have the verb approve on
// signers.cert-manager.io, by the name of the issuer or by "*" for all of its kind.
type permissions struct {
	client client.Client
	clock  clock.PassiveClock

	mu    sync.Mutex
	known map[string]permission
}

type permission struct {
	allowed bool
	asked   time.Time
}

func (p *permissions) mayApprove(ctx context.Context, cr *cmapi.CertificateRequest) (bool, error) {
	resource, name := "issuers", cr.Namespace+"."+cr.Spec.IssuerRef.Name
	switch cr.Spec.IssuerRef.KindOrDefault() {
	case signer.KindIssuer:
	case signer.KindClusterIssuer:
		resource, name = "clusterissuers", cr.Spec.IssuerRef.Name
	default:
		return false, nil
	}
	for _, name := range []string{"*", name} {
		allowed, err := p.allowed(ctx, resource+"."+cmmeta.DefaultIssuerGroup+"/"+name)
		if err != nil || allowed {
			return allowed, err
		}
	}
	return false, nil
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
	p.note(name, review.Status.Allowed)
	return review.Status.Allowed, nil
}

// mayTry reports whether an approval for an external issuer may be tried. The name of its resource is known to the admission policy alone, so that
// only an attempt tells; one that was refused is believed as long as an answer.
func (p *permissions) mayTry(cr *cmapi.CertificateRequest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	known, ok := p.known[ofExternal(cr)]
	return !ok || p.clock.Since(known.asked) >= permissionLife
}

// refused takes back what was believed when an approval was refused.
func (p *permissions) refused(cr *cmapi.CertificateRequest) {
	if signer.External(cr.Spec.IssuerRef) {
		p.note(ofExternal(cr), false)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known = nil
}

func (p *permissions) note(name string, allowed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil || len(p.known) >= maxPermissions {
		p.known = map[string]permission{}
	}
	p.known[name] = permission{allowed, p.clock.Now()}
}

// ofExternal names an external issuer, as no signer is named: those have no space.
func ofExternal(cr *cmapi.CertificateRequest) string {
	ref := cr.Spec.IssuerRef
	return strings.Join([]string{ref.GroupOrDefault(), ref.KindOrDefault(), cr.Namespace, ref.Name}, " ")
}
