package lifecycle

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/external"
	"github.com/perennial-pki/perennial/internal/signer"
)

const (
	// noExternal stands on a request in place of the generation of an external issuer that did not
	// exist.
	noExternal = "none"
	// readyFloor is how long after the first failure an external issuer that became Ready is asked
	// again. It doubles with each failure, so that one that comes and goes is not asked in a loop.
	readyFloor = time.Minute
)

// externalState returns the state of the external issuer of a Certificate, the zero value if it
// cannot be read.
func (r *Reconciler) externalState(ctx context.Context, crt *cmapi.Certificate) external.State {
	if r.External == nil || !signer.External(crt.Spec.IssuerRef) {
		return external.State{}
	}
	state, err := r.External.State(ctx, crt.Namespace, crt.Spec.IssuerRef)
	if err != nil {
		log.FromContext(ctx).V(1).Info("the external issuer is not read", "error", err.Error())
	}
	return state
}

// externalGeneration is what a request remembers of its external issuer. It is empty if that is not
// known.
func externalGeneration(is external.State) string {
	switch is.Found {
	case external.Exists:
		return is.Generation
	case external.Missing, external.NoKind:
		return noExternal
	}
	return ""
}

// externalChanged reports whether the external issuer is another one than the request was made for,
// or was changed.
func (d *decider) externalChanged(next *cmapi.CertificateRequest) bool {
	was, is := next.Annotations[issuerAnnotation], externalGeneration(d.External)
	return next != d.rehearsal && was != "" && is != "" && was != is
}

// externalReady returns when an external issuer is to be asked again that became Ready after the
// request failed, or zero.
func (d *decider) externalReady(next *cmapi.CertificateRequest, f *failure) time.Time {
	is, attempts := d.External, d.Status.FailedIssuanceAttempts
	if next == d.rehearsal || is.Ready != metav1.ConditionTrue || is.Since == nil || !is.Since.After(f.at.Time) ||
		attempts == nil {
		return time.Time{}
	}
	return f.at.Add(readyFloor << min(max(*attempts-1, 0), 16))
}
