package trust

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
	"github.com/perennial-pki/perennial/internal/egress"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/pki"
)

// reasonNoCertificates means that no source has a certificate.
const reasonNoCertificates = "NoCertificates"

// unreadable says that a source cannot be read.
func (r *Reconciler) unreadable(bundle *api.TrustBundle, err error, now time.Time) {
	bundle.Status.ObservedGeneration = bundle.Generation
	message := egress.Truncate(err.Error(), maxAnswer) + retryWords(err)
	for _, kind := range []string{api.ConditionSourcesValid, api.ConditionReady} {
		meta.SetStatusCondition(&bundle.Status.Conditions, metav1.Condition{
			Type: kind, Status: metav1.ConditionFalse, Reason: "SourceUnreadable", Message: message +
				". What is distributed stays as it is",
			ObservedGeneration: bundle.Generation, LastTransitionTime: metav1.NewTime(now),
		})
	}
	setStalled(bundle, fault.RefusedByAPI(err), now)
	if meta.FindStatusCondition(bundle.Status.Conditions, api.ConditionDistributed) == nil {
		meta.SetStatusCondition(&bundle.Status.Conditions, metav1.Condition{
			Type: api.ConditionDistributed, Status: metav1.ConditionUnknown, Reason: "SourceUnreadable",
			Message:            "nothing is distributed before all sources were read",
			ObservedGeneration: bundle.Generation, LastTransitionTime: metav1.NewTime(now),
		})
	}
}

// stall sets or removes the condition Stalled. It must follow the condition Ready. It returns the
// time from which only a user can make the bundle ready, or zero if the bundle may become ready by
// itself.
func stall(bundle *api.TrustBundle, gathered *gathered, outcome outcome, now time.Time) time.Time {
	ready := meta.FindStatusCondition(bundle.Status.Conditions, api.ConditionReady)
	if ready.Status == metav1.ConditionTrue {
		meta.RemoveStatusCondition(&bundle.Status.Conditions, api.ConditionStalled)
		return time.Time{}
	}
	since := ready.LastTransitionTime.Time
	var at time.Time
	switch {
	case gathered.wrong, slices.ContainsFunc(outcome.failures, forPerson):
		at = since
	case len(gathered.problems) > 0:
		at = since.Add(fault.MissingGrace)
	}
	setStalled(bundle, !at.IsZero() && !now.Before(at), now)
	return at
}

// forPerson reports whether only a user can end a failure to distribute. A lack of certificates
// does not count: it is a problem of the sources.
func forPerson(failure error) bool {
	f := fault.Of(failure)
	return f.Class == fault.Misconfigured && f.Reason != reasonNoCertificates || fault.RefusedByAPI(failure)
}

// setStalled sets or removes the condition Stalled, which says what the condition Ready does.
func setStalled(bundle *api.TrustBundle, is bool, now time.Time) {
	if !is {
		meta.RemoveStatusCondition(&bundle.Status.Conditions, api.ConditionStalled)
		return
	}
	ready := meta.FindStatusCondition(bundle.Status.Conditions, api.ConditionReady)
	meta.SetStatusCondition(&bundle.Status.Conditions, metav1.Condition{
		Type: api.ConditionStalled, Status: metav1.ConditionTrue, Reason: ready.Reason, Message: ready.Message,
		ObservedGeneration: bundle.Generation, LastTransitionTime: metav1.NewTime(now),
	})
}

// retryWords returns the sentence that says when a failed operation is retried.
func retryWords(err error) string {
	if fault.RefusedByAPI(err) {
		return ". It is tried again every 5 minutes"
	}
	return ""
}

// outcome is the result of distributing a bundle.
type outcome struct {
	// namespaces is how many have the bundle, of the number selected.
	namespaces, selected int
	failures             []error
	// held says that no object was written.
	held bool
}

// needs reports whether a certificate of the chain is signed by the CA.
func needs(chain []*x509.Certificate, ca *x509.Certificate) bool {
	return slices.ContainsFunc(chain, func(cert *x509.Certificate) bool { return pki.SignedBy(cert, ca) })
}

// maxProblems is how many problems a condition names.
const maxProblems = 5

func (r *Reconciler) setConditions(bundle *api.TrustBundle, gathered *gathered, outcome outcome, now time.Time) {
	set := func(kind string, problems []string, reason, good string) (ok bool, message string) {
		c := metav1.Condition{
			Type: kind, Status: metav1.ConditionTrue, Reason: kind, Message: good,
			ObservedGeneration: bundle.Generation, LastTransitionTime: metav1.NewTime(now),
		}
		if len(problems) > 0 {
			c.Status, c.Reason = metav1.ConditionFalse, reason
			c.Message = strings.Join(problems[:min(len(problems), maxProblems)], "; ")
			if more := len(problems) - maxProblems; more > 0 {
				c.Message += fmt.Sprintf("; and %d more", more)
			}
		}
		meta.SetStatusCondition(&bundle.Status.Conditions, c)
		return c.Status == metav1.ConditionTrue, c.Message
	}
	sources, message := set(api.ConditionSourcesValid, gathered.problems, "SourceRejected",
		"all sources were read: "+count(len(gathered.found), "CA certificate"))

	var problems []string
	reason := "WriteFailed"
	for _, failure := range outcome.failures {
		problems = append(problems, egress.Truncate(failure.Error(), maxAnswer)+retryWords(failure))
		if f := fault.Of(failure); f.Reason != "" {
			reason = f.Reason
		}
	}
	distributed, notDistributed := set(
		api.ConditionDistributed,
		problems,
		reason,
		"the bundle is in "+count(outcome.namespaces, "namespace"),
	)

	var open []string
	reason = "SourceRejected"
	if !distributed {
		open = append(open, notDistributed)
		reason = "NotDistributed"
	}
	if !sources {
		open = append(open, message)
	}
	good := summary(&bundle.Status)
	if n := bundle.Status.RetainedCount; n > 0 {
		good += fmt.Sprintf(", %d of them retained: see status.certificates", n)
	}
	set(api.ConditionReady, open, reason, good)
}

func summary(s *api.TrustBundleStatus) string {
	return count(int(s.CertificateCount), "CA certificate") + " in " + count(int(s.NamespaceCount), "namespace")
}

func count(n int, of string) string {
	if n != 1 {
		of += "s"
	}
	return fmt.Sprintf("%d %s", n, of)
}

// tell writes events about the changes from one status to the next.
func (r *Reconciler) tell(before, bundle *api.TrustBundle) {
	was := map[string]*api.TrustedCertificate{}
	for i := range before.Status.Certificates {
		was[before.Status.Certificates[i].Fingerprint] = &before.Status.Certificates[i]
	}
	changed := false
	for i := range bundle.Status.Certificates {
		c := &bundle.Status.Certificates[i]
		old := was[c.Fingerprint]
		delete(was, c.Fingerprint)
		changed = changed || old == nil
		if c.Retained != nil && (old == nil || old.Retained == nil) {
			r.Events.Eventf(bundle, corev1.EventTypeNormal, "Retained", "%s is no longer in %s; it stays in the bundle until %s",
				c.Subject, c.Source, c.Retained.Until.UTC().Format(time.RFC3339))
		}
	}
	for _, c := range before.Status.Certificates {
		if was[c.Fingerprint] != nil {
			changed = true
			r.Events.Eventf(
				bundle,
				corev1.EventTypeNormal,
				"Removed",
				"%s of %s, fingerprint %.16s..., left the bundle",
				c.Subject,
				c.Source,
				c.Fingerprint,
			)
		}
	}
	for _, kind := range []string{api.ConditionSourcesValid, api.ConditionDistributed} {
		c, old := meta.FindStatusCondition(
			bundle.Status.Conditions,
			kind,
		), meta.FindStatusCondition(
			before.Status.Conditions,
			kind,
		)
		if c != nil && c.Status == metav1.ConditionFalse && (old == nil || old.Message != c.Message) {
			r.Events.Event(bundle, corev1.EventTypeWarning, c.Reason, c.Message)
		}
	}
	if changed && meta.IsStatusConditionTrue(bundle.Status.Conditions, api.ConditionDistributed) {
		r.Events.Event(bundle, corev1.EventTypeNormal, "Distributed", summary(&bundle.Status))
	}
}
