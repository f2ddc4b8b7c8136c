package order

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/acmestatus"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/observe"
	"github.com/perennial-pki/perennial/internal/revocation"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// If a Certificate asks for revocation on deletion, its Order has a finalizer. The finalizer is set
// before the order is finalized, and stays until the Certificate has the certificate in its status.
// So the controller can find and revoke what the CA issued, whichever object is deleted first.

// byProtected is the field index of Orders with the revocation finalizer, by the name of their
// Certificate.
const byProtected = "metadata.finalizers.revocation"

// revokeAgain is when a revocation that failed is tried again.
const revokeAgain = 15 * time.Second

// settleAgain is how often a CA is asked that still processes an order to be revoked.
const settleAgain = 2 * time.Second

func protected(order *cmacme.Order) bool {
	return slices.Contains(order.Finalizers, revocation.Finalizer)
}

// certificateOf finds the Certificate that an Order is for, nil if there is none. leaving says that
// it is being deleted, or is gone.
func (r *Reconciler) certificateOf(
	ctx context.Context,
	order *cmacme.Order,
) (crt *cmapi.Certificate, leaving bool, err error) {
	name := order.Annotations[cmapi.CertificateNameKey]
	uid, _ := revocation.ParseRevokeFor(order)
	if owner := metav1.GetControllerOf(order); uid == "" && owner != nil && owner.Kind == "CertificateRequest" {
		cr := &cmapi.CertificateRequest{}
		err := r.Client.Get(
			ctx,
			client.ObjectKey{Namespace: order.Namespace, Name: owner.Name},
			cr,
			client.UnsafeDisableDeepCopy,
		)
		if client.IgnoreNotFound(err) != nil {
			return nil, false, err
		}
		of := metav1.GetControllerOf(cr)
		if err != nil || cr.UID != owner.UID || of == nil || of.Kind != "Certificate" {
			return nil, false, nil
		}
		name, uid = of.Name, of.UID
	}
	if name == "" || uid == "" {
		return nil, false, nil
	}
	crt = &cmapi.Certificate{}
	err = r.Client.Get(ctx, client.ObjectKey{Namespace: order.Namespace, Name: name}, crt, client.UnsafeDisableDeepCopy)
	if client.IgnoreNotFound(err) != nil {
		return nil, false, err
	}
	if err != nil || crt.UID != uid {
		return nil, true, nil
	}
	return crt, crt.DeletionTimestamp != nil, nil
}

// checkWanted reports whether the certificate of an order is still wanted. If it is to be revoked
// with its Certificate, the Order is kept until then by a finalizer first.
func (r *Reconciler) checkWanted(ctx context.Context, order *cmacme.Order) (Wanted, error) {
	crt, deleted, err := r.certificateOf(ctx, order)
	switch {
	case err != nil || deleted:
		return Wanted{Deleted: deleted}, err
	case crt == nil, protected(order), revocation.RevokeForValue(crt) == "",
		order.Annotations[signer.RehearsalAnnotation] != "":
		return Wanted{}, nil
	}
	// The Certificate did not ask for revocation when the order began.
	was := order.DeepCopy()
	next := was.DeepCopy()
	controllerutil.AddFinalizer(next, revocation.Finalizer)
	metav1.SetMetaDataAnnotation(&next.ObjectMeta, revocation.RevokeForAnnotation, revocation.RevokeForValue(crt))
	patch := client.MergeFromWithOptions(was, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Patch(ctx, next, patch); client.IgnoreNotFound(err) != nil {
		return Wanted{}, fmt.Errorf("write finalizer: %w", err)
	}
	return Wanted{Later: true}, nil
}

// settle handles an Order with the revocation finalizer. It returns done if the pass ends there.
func (r *Reconciler) settle(ctx context.Context, order *cmacme.Order) (result reconcile.Result, done bool, err error) {
	crt, leaving, err := r.certificateOf(ctx, order)
	if err != nil {
		return result, true, err
	}
	if leaving && (crt == nil || revocation.RevokeForValue(crt) != "") {
		if m := r.memory.Of(order); !m.revoked {
			again, err := r.revoke(ctx, order, crt)
			if err != nil || again > 0 {
				return reconcile.Result{RequeueAfter: again}, true, err // when it may have passed
			}
			m.revoked = true
		}
		return result, true, r.release(ctx, order)
	}
	unwanted := leaving ||
		// There is nothing to revoke, or the Certificate stays and no longer needs the Order.
		order.DeletionTimestamp != nil
	if unwanted || crt == nil ||
		acmestatus.IsFinal(order.Status.State) &&
			(order.Status.State != cmacme.Valid || revocation.RevokeForValue(crt) == "" || has(crt, r.leaf(order))) {
		return result, true, r.release(ctx, order)
	}
	return result, false, nil
}

// has reports whether the status of a Certificate names the certificate as the one to revoke.
func has(crt *cmapi.Certificate, leaf *x509.Certificate) bool {
	known := crt.Status.Revocable
	return leaf == nil || known != nil && bytes.Equal(known.Certificate, leaf.Raw)
}

// leaf returns the certificate in the status of an Order, or nil.
func (r *Reconciler) leaf(order *cmacme.Order) *x509.Certificate {
	return revocation.IssuedLeaf(r.Limits, order.Spec.Request, order.Status.Certificate)
}

func (r *Reconciler) release(ctx context.Context, order *cmacme.Order) error {
	r.memory.Of(order).left.Clear()
	next := order.DeepCopy()
	controllerutil.RemoveFinalizer(next, revocation.Finalizer)
	err := r.Client.Patch(ctx, next, client.MergeFromWithOptions(order, client.MergeFromWithOptimisticLock{}))
	return observe.FinalizerRefused(r.Events, order, err)
}

// revoke revokes what the CA has issued for an Order after its Certificate was deleted. It returns
// when to try again, or 0 if that is over. The Order is not finalized meanwhile: a key of the work
// queue has only one pass at a time.
func (r *Reconciler) revoke(
	ctx context.Context,
	order *cmacme.Order,
	crt *cmapi.Certificate,
) (again time.Duration, err error) {
	now := r.Clock.Now()
	until := r.memory.Of(order).left.Start(now).Add(revocation.GiveUpAfter)
	if t := order.DeletionTimestamp; t != nil {
		until = t.Add(revocation.GiveUpAfter)
	} else if crt != nil {
		until = crt.DeletionTimestamp.Add(revocation.GiveUpAfter)
	}
	leaf := r.leaf(order)
	if leaf == nil && (order.Status.URL == "" || acmestatus.IsFinal(order.Status.State)) {
		return 0, nil // the CA has issued nothing
	}
	i, err := r.Scope.Get(ctx, r.Client, order.Namespace, order.Spec.IssuerRef)
	if err != nil {
		return 0, err
	}
	if !now.Before(until) {
		ctx = limiter.Bypass(ctx) // for the last time
	}
	if leaf == nil {
		var working bool
		leaf, working, err = r.issued(ctx, order, i)
		if limiter.IsBusy(err) {
			return 0, err
		}
		if err != nil {
			if !r.Revocation.IsPermanent(ctx, order.Namespace, err) && now.Before(until) {
				if f := fault.Of(err); f.Class == fault.Limited {
					return min(f.Wait(now), until.Sub(now)), nil
				}
				return min(revokeAgain, until.Sub(now)), nil
			}
			r.Revocation.ReportLost(ctx, order, err)
			return 0, nil
		}
		if working && now.Before(until) {
			return min(settleAgain, until.Sub(now)), nil // until the CA has it
		} else if working {
			r.Revocation.ReportLost(ctx, order, errors.New("the CA still works on it"))
		}
	}
	if leaf == nil {
		return 0, nil
	}
	_, reason := revocation.ParseRevokeFor(order)
	return r.Revocation.Left(ctx, order, leaf, reason, until), nil
}

// issued asks the CA for the certificate of an order, nil if there is none. working says that there
// will be one.
func (r *Reconciler) issued(
	ctx context.Context,
	order *cmacme.Order,
	i *signer.Issuer,
) (leaf *x509.Certificate, working bool, err error) {
	if i == nil || i.GetSpec().ACME == nil {
		return nil, false, fault.Misconfiguredf(
			"IssuerNotFound",
			"there is no longer an ACME %s %q",
			order.Spec.IssuerRef.KindOrDefault(),
			order.Spec.IssuerRef.Name,
		)
	}
	s, err := r.Accounts.Session(ctx, i, nil, nil)
	if apierrors.IsNotFound(err) {
		err = fault.Misconfiguredf("IssuerNotReady", "the Secret with the account key of %s does not exist", i)
	}
	if err != nil {
		return nil, false, err
	}
	defer s.Release(ctx)
	got, err := s.Order(ctx, order.Status.URL)
	var p *acme.Problem
	if errors.As(err, &p) && (p.Type == acme.ProblemMalformed || p.Status == 404) {
		return nil, false, nil // CAs forget orders that have expired
	}
	if err != nil {
		return nil, false, err
	}
	if got.Status != acme.StatusValid {
		return nil, got.Status == acme.StatusProcessing, nil
	}
	chain, err := s.Certificate(ctx, got.Certificate, nil)
	if err != nil {
		return nil, false, err
	}
	certs, err := r.Limits.DecodeChainPEM(chain.ChainPEM)
	if err != nil {
		return nil, false, fault.Refusedf("InvalidCertificate", "the CA sent a certificate that cannot be read: %w", err)
	}
	csr, err := r.Limits.DecodeCSRPEM(order.Spec.Request)
	if err != nil || !pki.SamePublicKey(certs[0].PublicKey, csr.PublicKey) {
		return nil, false, nil // it was issued for another request that was answered with the same order
	}
	return certs[0], false, nil
}

// protectedOf returns the Orders of a Certificate that have the revocation finalizer.
func (r *Reconciler) protectedOf(ctx context.Context, o client.Object) []reconcile.Request {
	var list cmacme.OrderList
	if err := r.Client.List(
		ctx,
		&list,
		append(cached(byProtected, o.GetName()), client.InNamespace(o.GetNamespace()))...); err != nil {
		return nil // only a cache that is stopping fails
	}
	var requests []reconcile.Request
	for i := range list.Items {
		requests = append(
			requests,
			reconcile.Request{
				NamespacedName: types.NamespacedName{Namespace: list.Items[i].Namespace, Name: list.Items[i].Name},
			},
		)
	}
	return requests
}
