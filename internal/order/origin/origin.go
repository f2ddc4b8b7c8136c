// Package origin finds out whether an Order was made for an approved request. Admission policies
// let only the controller create Orders, but an Order may be older than they are.
package origin

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/order/neworder"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// NotOfRequest is the reason of an Order that was made for no approved request.
const NotOfRequest = "NotOfItsRequest"

// Checker looks for the request of an Order.
type Checker struct {
	// Client reads from the cache, which has the CertificateRequests. Live reads from the API server.
	Client, Live client.Reader
	Limits       pki.Limits
}

// Check returns an error if the Order was not made for an approved request: nothing may be asked of
// the CA for it.
func (c *Checker) Check(ctx context.Context, order *cmacme.Order) error {
	owner := metav1.GetControllerOf(order)
	if owner == nil {
		return refuse("it belongs to no request")
	}
	gk := schema.FromAPIVersionAndKind(owner.APIVersion, owner.Kind).GroupKind()
	switch gk {
	case certificateRequest:
		// The cache may be older than the Order if another process made it.
		cached, err := c.certificateRequest(ctx, c.Client, order.Namespace, owner)
		if err == nil && compare(order, owner, cached, c.Limits) == nil {
			return nil
		}
		live, err := c.certificateRequest(ctx, c.Live, order.Namespace, owner)
		if err != nil {
			return err
		}
		return compare(order, owner, live, c.Limits)
	case certificateSigningRequest:
		r, err := c.certificateSigningRequest(ctx, owner)
		if err != nil {
			return err
		}
		return compare(order, owner, r, c.Limits)
	}
	return refuse("it belongs to %s %q, which is no request", owner.Kind, owner.Name)
}

// AwaitsApproval reports whether the cache has the CertificateRequest of an Order without a
// decision about it. A request is approved and its Order created in one pass, and the approval is
// stored last.
func (c *Checker) AwaitsApproval(ctx context.Context, order *cmacme.Order) bool {
	owner := metav1.GetControllerOf(order)
	if owner == nil || schema.FromAPIVersionAndKind(owner.APIVersion, owner.Kind).GroupKind() != certificateRequest {
		return false
	}
	cr := &cmapi.CertificateRequest{}
	err := c.Client.Get(ctx, client.ObjectKey{Namespace: order.Namespace, Name: owner.Name}, cr,
		client.UnsafeDisableDeepCopy)
	return err == nil && cr.UID == owner.UID && !cmapi.CertificateRequestIsApproved(&cr.Status) &&
		!cmapi.CertificateRequestIsDenied(&cr.Status)
}

var (
	certificateRequest        = cmapi.SchemeGroupVersion.WithKind("CertificateRequest").GroupKind()
	certificateSigningRequest = certificatesv1.SchemeGroupVersion.WithKind("CertificateSigningRequest").GroupKind()
)

// request is what an Order is compared with. It is nil if the request does not exist.
type request struct {
	uid      types.UID
	approved bool
	pem      []byte
	// signer is the name, as of spec.signerName, of the issuer that the request was approved for.
	signer string
}

func (c *Checker) certificateRequest(ctx context.Context, from client.Reader, namespace string,
	owner *metav1.OwnerReference) (*request, error) {
	cr := &cmapi.CertificateRequest{}
	err := from.Get(ctx, client.ObjectKey{Namespace: namespace, Name: owner.Name}, cr, client.UnsafeDisableDeepCopy)
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("get CertificateRequest %s of the Order: %w", owner.Name, err)
	}
	if err != nil {
		return nil, nil
	}
	return &request{uid: cr.UID, pem: cr.Spec.Request, signer: signerOf(namespace, cr.Spec.IssuerRef),
		approved: cmapi.CertificateRequestIsApproved(&cr.Status) && !cmapi.CertificateRequestIsDenied(&cr.Status)}, nil
}

func (c *Checker) certificateSigningRequest(ctx context.Context, owner *metav1.OwnerReference) (*request, error) {
	csr := &certificatesv1.CertificateSigningRequest{}
	err := c.Live.Get(ctx, client.ObjectKey{Name: owner.Name}, csr) // a controller may serve none, and then has no cache
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("get CertificateSigningRequest %s of the Order: %w", owner.Name, err)
	}
	if err != nil {
		return nil, nil
	}
	has := func(t certificatesv1.RequestConditionType) bool {
		return slices.ContainsFunc(csr.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
			return c.Type == t && c.Status != corev1.ConditionFalse
		})
	}
	return &request{uid: csr.UID, pem: csr.Spec.Request, signer: csr.Spec.SignerName,
		approved: has(certificatesv1.CertificateApproved) && !has(certificatesv1.CertificateDenied)}, nil
}

// signerOf returns the signerName of an issuer.
func signerOf(namespace string, ref cmmeta.IssuerReference) string {
	if signer.External(ref) {
		return ""
	}
	return signer.Scope{}.OfDeleted(namespace, ref).SignerName()
}

// refuse returns the error of an Order that was made for no approved request.
func refuse(format string, args ...any) error {
	return fault.Misconfiguredf(NotOfRequest, "nothing is asked of the CA for this Order, as %s: delete it, and a "+
		"request that is approved gets another one", fmt.Sprintf(format, args...))
}

// compare returns an error if an Order is not what its request, approved, asks for.
func compare(order *cmacme.Order, owner *metav1.OwnerReference, r *request, limits pki.Limits) error {
	named := fmt.Sprintf("%s %q", owner.Kind, owner.Name)
	switch {
	case r == nil || r.uid != owner.UID:
		return refuse("the %s that it was made for does not exist", named)
	case !r.approved:
		return refuse("its %s is not approved", named)
	case r.signer == "" || r.signer != signerOf(order.Namespace, order.Spec.IssuerRef):
		return refuse("spec.issuerRef is not the issuer of its %s", named)
	}
	asked, err := limits.DecodeCSRPEM(r.pem)
	if err != nil {
		return refuse("spec.request of its %s cannot be read", named)
	}
	if !bytes.Equal(order.Spec.Request, r.pem) {
		if csr, err := limits.DecodeCSRPEM(order.Spec.Request); err != nil || !bytes.Equal(csr.Raw, asked.Raw) {
			return refuse("spec.request is not that of its %s", named)
		}
	}
	ordered, err := neworder.Request(order)
	if err != nil {
		return err
	}
	spec := cmacme.OrderSpec{CommonName: asked.Subject.CommonName, DNSNames: asked.DNSNames}
	for _, ip := range asked.IPAddresses {
		if addr, ok := netip.AddrFromSlice(ip); ok {
			spec.IPAddresses = append(spec.IPAddresses, addr.Unmap().String())
		}
	}
	want, err := neworder.Request(&cmacme.Order{Spec: spec})
	if err != nil || !neworder.Same(ordered.Identifiers, want.Identifiers) {
		return refuse("its names are not those of its %s", named)
	}
	return nil
}
