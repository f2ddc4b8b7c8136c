package lifecycle

import (
	"cmp"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/earlyissuance"
	"github.com/perennial-pki/perennial/internal/signer"
)

// A rehearsal is a separate request to spec.rehearsalIssuerRef. Its private key is thrown away. The
// request stays until the certificate is issued: while it exists and fits the spec, there is no
// other rehearsal.

// rehearsalPatience is how long a rehearsal issuer may be unreachable before the real one is asked
// without a rehearsal.
const rehearsalPatience = 30 * time.Minute

// reasonRehearsalFailed: the rehearsal issuer refused what the spec asks for.
const reasonRehearsalFailed = "RehearsalFailed"

// RehearsalName returns the name of the CertificateRequest for a rehearsal. It cannot be that of a
// revision, which ends with a number.
func RehearsalName(certificate string) string { return shorten(certificate, 233) + "-rehearsal" }

func nameOf(ref cmmeta.IssuerReference) string {
	return fmt.Sprintf("%s %q", ref.KindOrDefault(), ref.Name)
}

// endRehearsal deletes what was rehearsed.
func (d *decider) endRehearsal() {
	if d.rehearsal != nil && d.owned(d.rehearsal) {
		d.discard(d.rehearsal)
	}
	d.rehearsal = nil
}

// rehearsalSettled deals with a rehearsal that is overtaken or has failed. It returns false if
// nothing is to be requested now.
func (d *decider) rehearsalSettled(asked bool) bool {
	cr := d.rehearsal
	if cr == nil {
		return true
	}
	if !d.owned(cr) {
		if !d.ofEarlierIncarnation(cr) {
			d.block(
				reasonNameTaken,
				fmt.Sprintf("CertificateRequest %q exists, but does not belong to this Certificate: delete it", cr.Name),
			)
			return false
		}
		d.discard(cr)
		d.rehearsal = nil
		return true
	}
	if !d.rehearses(cr) || !issued(cr) && d.provedOtherwise(cr, d.RehearsalIssuer) {
		// The spec has changed since: the cause of the failure may be corrected.
		d.endRehearsal()
		d.forgetFailures()
		d.overtaken = earlyissuance.SpecChanged
		return true
	}
	f := failureOf(cr)
	if f == nil {
		return true
	}
	f.intro = fmt.Sprintf(
		"The rehearsal at %s has failed, so that %s is not asked: ",
		nameOf(*d.Certificate.Spec.RehearsalIssuerRef),
		nameOf(d.Certificate.Spec.IssuerRef),
	)
	f.reason = reasonRehearsalFailed
	if !d.failed(cr, f, asked) {
		return false
	}
	d.endRehearsal()
	return true
}

// rehearses reports whether the request asks the rehearsal issuer for what the spec asks the issuer
// for.
func (d *decider) rehearses(cr *cmapi.CertificateRequest) bool {
	spec := d.Certificate.Spec
	if spec.RehearsalIssuerRef == nil {
		return false
	}
	spec.IssuerRef = *spec.RehearsalIssuerRef
	return d.fits(cr, &spec)
}

// fits reports whether a request asks for what the spec does, with a private key as the spec wants
// it.
func (d *decider) fits(cr *cmapi.CertificateRequest, spec *cmapi.CertificateSpec) bool {
	csr, err := d.Limits.DecodeCSRPEM(cr.Spec.Request)
	if err != nil || len(d.requestDifferences(cr, csr, spec)) > 0 {
		return false
	}
	ks, _ := keySpec(spec)
	return len(ks.Differences(csr.PublicKey)) == 0
}

// known reports whether the spec asks for what was issued before, so that there is nothing to
// rehearse.
func (d *decider) known() bool {
	spec := &d.Certificate.Spec
	if d.Current != nil {
		return d.fits(d.Current, spec)
	}
	// The request of the certificate is gone. The certificate itself is enough to compare.
	if !d.holds(spec.IssuerRef) {
		return false
	}
	ks, _ := keySpec(spec)
	return len(d.undeferred(d.asks(spec).CertificateDifferences(d.present.chain[0]))) == 0 &&
		len(ks.Differences(d.present.chain[0].PublicKey)) == 0
}

// rehearsed reports whether the issuer may be asked for the next certificate. If not, it starts or
// continues the rehearsal.
func (d *decider) rehearsed(why *violation, asked bool) bool {
	ref := d.Certificate.Spec.RehearsalIssuerRef
	if ref == nil || d.known() {
		d.endRehearsal()
		return true
	}
	if d.RehearsalIssuer != nil && d.RehearsalIssuer.Type() == signer.TypeSelfSigned {
		d.block(
			reasonInvalidSpec,
			fmt.Sprintf(
				"spec.rehearsalIssuerRef: %s is of type selfSigned, which signs everything: name a staging issuer, or remove it",
				d.RehearsalIssuer,
			),
		)
		return false
	}
	if !d.rehearsalSettled(asked) {
		return false
	}
	if cr := d.rehearsal; cr != nil && d.endsPause(cr) {
		d.endRehearsal()
	}
	cr := d.rehearsal
	switch {
	case cr == nil:
		name := write{writesRehearsal, RehearsalName(d.Certificate.Name)}
		if d.withholdRequest(name) {
			return false
		}
		generated, ok := d.newKey(why, true, true)
		if !ok {
			return false
		}
		d.Rehearse = &NewRequest{New: generated, Attempt: 1, ManualTrigger: cmp.Or(d.manualTrigger(), d.refusedTrigger(name)),
			Events: d.takeBefore()}
		if n := d.Status.FailedIssuanceAttempts; n != nil {
			d.Rehearse.Attempt += *n
		}
		if !asked || byHand(why.reason) {
			d.Rehearse.event(corev1.EventTypeNormal, "Issuing", CauseOf(why.message))
		}
		d.Rehearse.event(
			corev1.EventTypeNormal,
			"Rehearsing",
			fmt.Sprintf(
				"Created CertificateRequest %q to rehearse the issuance at %s",
				RehearsalName(d.Certificate.Name),
				nameOf(*ref),
			),
		)
		d.awaitRehearsal(why, "")
		return false
	case issued(cr):
		d.before = append(
			d.before,
			Event{corev1.EventTypeNormal, "Rehearsed", fmt.Sprintf("The rehearsal at %s has succeeded", nameOf(*ref))},
		)
		return true
	}
	message := notAnswered(cr)
	if since := unreachable(cr); !since.IsZero() {
		end := since.Add(rehearsalPatience)
		if !d.Now.Before(end) {
			d.before = append(
				d.before,
				Event{
					corev1.EventTypeWarning,
					"RehearsalSkipped",
					fmt.Sprintf("%s cannot be reached since %s, so that %s is asked without a rehearsal: %s",
						nameOf(*ref), stamp(since), nameOf(d.Certificate.Spec.IssuerRef), message),
				},
			)
			return true
		}
		d.recheckAt(end, "a rehearsal issuer that cannot be reached is waited for no longer")
		message += fmt.Sprintf(
			". If that lasts, %s is asked without a rehearsal at %s",
			nameOf(d.Certificate.Spec.IssuerRef),
			stamp(end),
		)
	}
	d.awaitRehearsal(why, message)
	return false
}

// awaitRehearsal writes into the status that the issuance is under way, as far as its rehearsal.
func (d *decider) awaitRehearsal(why *violation, detail string) {
	waits := "the rehearsal at " + nameOf(*d.Certificate.Spec.RehearsalIssuerRef)
	if detail != "" {
		waits += ": " + detail
	}
	d.cause = waitingFor + waits
	d.set(cmapi.CertificateConditionIssuing, cmmeta.ConditionTrue, why.reason, waitMessage(why.message, waits))
}

// unrehearsed says that an issuance goes on without its rehearsal, or is empty. A request is made
// before its rehearsal has succeeded only if that was not waited for.
func (d *decider) unrehearsed() string {
	if d.rehearsal == nil || issued(d.rehearsal) {
		return ""
	}
	return fmt.Sprintf("without a rehearsal, as %s could not be reached", nameOf(*d.Certificate.Spec.RehearsalIssuerRef))
}

// unreachable returns since when the issuer of a request cannot be reached, zero if it answers.
// External issuers do not report that: for them it is the time of the approval.
func unreachable(cr *cmapi.CertificateRequest) time.Time {
	says := cmapi.CertificateRequestConditionUnreachable
	if signer.External(cr.Spec.IssuerRef) {
		says = cmapi.CertificateRequestConditionApproved
	}
	if c := cmapi.GetCertificateRequestCondition(&cr.Status, says); c != nil && c.LastTransitionTime != nil {
		return c.LastTransitionTime.Time
	}
	return time.Time{}
}
