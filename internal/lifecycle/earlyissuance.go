package lifecycle

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/earlyissuance"
	"github.com/perennial-pki/perennial/pki"
)

// ReasonReissueDelayed: the certificate was issued before its renewal time too often, and is not
// issued again yet.
const ReasonReissueDelayed = "ReissueDelayed"

const (
	// A certificate that is due when less than this part of its life has passed since it was requested
	// is issued early all the same,
	earlyFraction = 10
	// but not if this has passed,
	longestEarly = time.Hour
	// and always if less than this has.
	shortestEarly = 30 * time.Second
)

// admitted reports whether an issuance may start now, and as what it counts, if it starts before
// the certificate before it is due. If it may not, the status says why and until when.
func (d *decider) admitted(why *violation, asked bool) (counts earlyissuance.Cause, ok bool) {
	if d.rehearsal != nil && d.Issuances.Rehearsed {
		return "", true // it started with its rehearsal
	}
	cause, due := d.earlyCause(why)
	if cause == "" {
		return "", true
	}
	at := d.Issuances.Next(cause, d.Now)
	if !at.After(d.Now) {
		return cause, true
	}
	if !due.IsZero() && due.Before(at) {
		at = due
	}
	d.delay(cause, at, asked)
	return "", false
}

// earlyCause returns why an issuance that starts now is early. It is "" if the certificate before
// it is due, if there was none, or if the back-off of the last attempt has ended. due is from when
// it is not early, zero if that is not known.
func (d *decider) earlyCause(why *violation) (cause earlyissuance.Cause, due time.Time) {
	switch {
	case d.retries:
		return "", due
	case d.overtaken == earlyissuance.RequestLost && d.Issuances.Started.IsZero():
		return "", due // the private key was in the memory of a process that has ended
	case d.overtaken != "":
		return d.overtaken, due
	}
	if due = d.notBefore(); !due.IsZero() && !d.Now.Before(due) {
		return "", due
	}
	return d.causeOf(why), due
}

// notBefore is when an issuance may start without being early, zero if never, as far as is known.
func (d *decider) notBefore() time.Time {
	started := d.Issuances.Started
	if d.Current != nil && started.Before(d.Current.CreationTimestamp.Time) {
		started = d.Current.CreationTimestamp.Time
	}
	if started.After(d.Now) {
		started = time.Time{} // by a clock that was ahead
	}
	var due time.Time
	wait := min(longestEarly, d.leastBackoff())
	if chain := d.lastIssued(); chain != nil {
		if due = d.schedule(chain).At; due.IsZero() {
			return due
		}
		life := chain[0].NotAfter.Sub(chain[0].NotBefore)
		wait = min(longestEarly, max(shortestEarly, life/earlyFraction))
	} else if d.Issuances.Counted > 0 {
		return due
	}
	if d.Current == nil && due.Before(d.Issuances.Due) {
		due = d.Issuances.Due // what the Secret holds is perhaps not what was issued last
	}
	if least := started.Add(wait); due.Before(least) {
		return least
	}
	return due
}

// lastIssued returns the certificate that was issued last, nil if that is not known. It prefers the
// request to the Secret, which other clients may have changed.
func (d *decider) lastIssued() []*x509.Certificate {
	if d.Current != nil && issued(d.Current) {
		if chain, err := d.Limits.DecodeChainPEM(d.Current.Status.Certificate); err == nil {
			return chain
		}
	}
	if d.present.reason == "" && d.Secret.Annotations[temporaryAnnotation] != "true" {
		return d.present.chain
	}
	return nil
}

// causeOf is why a certificate is issued that is not due.
func (d *decider) causeOf(why *violation) earlyissuance.Cause {
	if d.manualTrigger() != "" || d.violation == nil && why.reason != reasonRenewing {
		return d.causeByHand()
	}
	if d.Current != nil && !d.fits(d.Current, &d.Certificate.Spec) {
		return earlyissuance.SpecChanged // whatever else is wrong
	}
	switch why.reason {
	case reasonRevoked:
		return earlyissuance.Revoked
	case reasonDoesNotExist, reasonMissingData:
		return earlyissuance.SecretMissing
	case reasonRequestChanged, reasonIncorrectIssuer, reasonInvalidCertificateRequest:
		return earlyissuance.SpecChanged
	case reasonSecretMismatch:
		if !d.overwritten() {
			return earlyissuance.SpecChanged
		}
	case reasonRenewing:
		if d.ca() != nil && !d.signedByCA(d.present.chain) {
			return earlyissuance.IssuerChanged
		}
		return earlyissuance.DueAtOnce
	}
	return earlyissuance.SecretOverwritten
}

// causeByHand returns why a user has triggered an issuance, by the condition Issuing.
func (d *decider) causeByHand() earlyissuance.Cause {
	if c := d.condition(cmapi.CertificateConditionIssuing); c != nil && c.Reason == reasonRevoked {
		return earlyissuance.Revoked
	}
	return earlyissuance.Triggered
}

// overwritten reports whether the Secret holds another private key than that of its request or, if
// that is gone, was written by something else last.
func (d *decider) overwritten() bool {
	if d.Current != nil && d.present.key != nil {
		csr, err := d.Limits.DecodeCSRPEM(d.Current.Spec.Request)
		return err == nil && !pki.SamePublicKey(csr.PublicKey, d.present.key.Public())
	}
	return writer(d.Secret, "data", corev1.TLSCertKey, corev1.TLSPrivateKeyKey) != nil
}

// delay makes the issuance wait, and the status say so. A manual trigger stays in effect.
func (d *decider) delay(cause earlyissuance.Cause, at time.Time, asked bool) {
	d.delayed = cause
	// The request that was there stays: with it the cause is the same in the next pass.
	d.DeleteRequests = slices.DeleteFunc(d.DeleteRequests,
		func(cr *cmapi.CertificateRequest) bool { return cr == d.Next && d.owned(cr) })
	d.recheckAt(at, "the next issuance before the renewal time is allowed")
	times := fmt.Sprintf("%d times", d.Issuances.Counted)
	if d.Issuances.Counted == 1 {
		times = "once"
	}
	message := fmt.Sprintf("the certificate was issued before its renewal time %s, last at %s, and is issued again at "+
		"%s at the earliest: %s",
		times, stamp(d.Issuances.Last), stamp(at.Add(time.Second-1)), d.advice(cause))
	if !asked || !cause.ByHand() {
		d.block(ReasonReissueDelayed, strings.ToUpper(message[:1])+message[1:])
		d.stalled = !cause.ByUser() // what users did is followed later, by itself
		return
	}
	issuing := d.condition(cmapi.CertificateConditionIssuing)
	waits := waitMessage(issuing.Message, message)
	if waits != issuing.Message {
		d.event(corev1.EventTypeWarning, ReasonReissueDelayed, waits)
	}
	d.set(cmapi.CertificateConditionIssuing, cmmeta.ConditionTrue, issuing.Reason, waits)
	d.cause = waitingFor + message
}

// advice says what has a certificate issued so often, and what to do about it.
func (d *decider) advice(cause earlyissuance.Cause) string {
	secret := fmt.Sprintf("Secret %q", d.Certificate.Spec.SecretName)
	switch cause {
	case earlyissuance.SecretMissing:
		return secret + " or an entry of it, the CertificateRequest or the Certificate was deleted each time. Find what " +
			"deletes it, such as a tool that prunes what is not in its manifests"
	case earlyissuance.SecretOverwritten:
		by := "something else"
		if w := writer(d.Secret, "data", corev1.TLSCertKey, corev1.TLSPrivateKeyKey); w != nil {
			by = fmt.Sprintf("the field manager %q", w.Manager)
			if w.Time != nil {
				by += " (at " + stamp(w.Time.Time) + ")"
			}
		}
		return fmt.Sprintf("%s changes %s after the certificate is stored in it. Have it leave %s and %s alone, or set "+
			"another spec.secretName",
			by, secret, corev1.TLSCertKey, corev1.TLSPrivateKeyKey)
	case earlyissuance.SpecChanged:
		by := "something"
		if w := writer(d.Certificate, "spec"); w != nil {
			by = fmt.Sprintf("the field manager %q", w.Manager)
		}
		return fmt.Sprintf("%s changed the spec, or the Secret no longer fits it. If nothing is to change, find two tools "+
			"that apply different manifests of the Certificate: "+
			"kubectl get certificate %s -n %s -o yaml --show-managed-fields", by, d.Certificate.Name, d.Certificate.Namespace)
	case earlyissuance.IssuerChanged:
		return fmt.Sprintf("%s or its CA changed each time. Find what changes it", nameOf(d.Certificate.Spec.IssuerRef))
	case earlyissuance.Triggered:
		return "it was asked for by hand each time, by perennial renew or the condition Issuing. Find what asks for it"
	case earlyissuance.Revoked:
		return "it was revoked each time. Find what gives its private keys away"
	case earlyissuance.RequestLost:
		return "the private key of the request was deleted each time before the certificate was stored. Find what deletes " +
			"Secrets that begin with " + d.Certificate.Name + "-"
	}
	return "the certificates are due as soon as they are issued. Correct the clock of the CA, or that of this cluster, " +
		"or have certificates issued that live longer"
}

// writer returns the field manager, other than ours, that has written one of the fields of an
// object last, or nil. Each is the name of an entry below the field parent or, without names,
// parent itself.
func writer(o metav1.Object, parent string, names ...string) *metav1.ManagedFieldsEntry {
	var last *metav1.ManagedFieldsEntry
	for _, m := range o.GetManagedFields() {
		if m.Manager == secretManager && m.Operation == metav1.ManagedFieldsOperationApply || m.Subresource != "" ||
			m.FieldsV1 == nil {
			continue
		}
		var set fieldpath.Set
		if err := set.FromJSON(bytes.NewReader(m.FieldsV1.GetRawBytes())); err != nil {
			continue
		}
		below := set.WithPrefix(fieldpath.MakePathOrDie(parent)[0])
		owns := len(names) == 0 && !below.Empty()
		for _, name := range names {
			owns = owns || below.Has(fieldpath.MakePathOrDie(name))
		}
		if owns && (last == nil || last.Time.Before(m.Time)) {
			last = &m
		}
	}
	return last
}
