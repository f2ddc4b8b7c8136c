// Package explain describes the state of a Certificate: what is wrong, where, since when, and what
// to do next. It is a pure function of the objects that belong to the Certificate. The caller reads
// these objects.
package explain

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	acmev1 "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	perennial "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
	"github.com/perennial-pki/perennial/internal/external"
	"github.com/perennial-pki/perennial/internal/lifecycle"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// Objects are the objects that belong to a Certificate. All but the Certificate may be missing.
type Objects struct {
	Certificate *cmapi.Certificate
	Issuer      cmapi.GenericIssuer
	// ExternalIssuer is the state of an issuer of another project. It is nil for other issuers.
	ExternalIssuer *external.State
	Requests       []cmapi.CertificateRequest
	Orders         []acmev1.Order
	Challenges     []acmev1.Challenge
	Secret         *corev1.Secret
	// SecretHidden says that the Secret may not be read.
	SecretHidden bool
	// Files are the CertificateFiles that write the certificate to a machine, where perenniald runs.
	Files []perennial.CertificateFile
	// Origin is the object that the Certificate is made for. It is nil if a user made the Certificate.
	Origin *Origin
}

// State is the state of a step.
type State string

// The states of a step.
const (
	OK      State = "ok"
	Waiting State = "waiting"
	Failed  State = "failed"
	Missing State = "missing"
)

// Step is one of the objects between a Certificate and its Secret.
type Step struct {
	Kind   string       `json:"kind"`
	Name   string       `json:"name"`
	State  State        `json:"state"`
	Detail string       `json:"detail,omitempty"`
	Since  *metav1.Time `json:"since,omitempty"`

	unapproved bool // a request that waits for approval
	rehearsal  bool // the request of a rehearsal
}

// Report is the state of one object, a Certificate for one: what perennial status prints, and its
// JSON.
type Report struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	// Ready says that the condition Ready of the Certificate is True.
	Ready bool `json:"ready"`
	// Summary describes the state in a sentence, and Next says what to do. Next is empty if there is
	// nothing to do.
	Summary string `json:"summary"`
	Next    string `json:"next,omitempty"`
	Steps   []Step `json:"steps"`

	NotAfter    *metav1.Time `json:"notAfter,omitempty"`
	RenewalTime *metav1.Time `json:"renewalTime,omitempty"`
	Revision    int          `json:"revision,omitempty"`
}

// Explain explains the state of a Certificate.
func Explain(o Objects, now time.Time) Report {
	crt := o.Certificate
	r := Report{
		Kind:        cmapi.CertificateKind,
		Namespace:   crt.Namespace,
		Name:        crt.Name,
		NotAfter:    crt.Status.NotAfter,
		RenewalTime: crt.Status.RenewalTime,
	}
	if crt.Status.Revision != nil {
		r.Revision = *crt.Status.Revision
	}
	ready := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionReady)
	issuing := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionIssuing)
	r.Ready = ready != nil && ready.Status == cmmeta.ConditionTrue && !expired(crt, now)

	if o.Origin != nil {
		r.Steps = append(r.Steps, o.Origin.step())
	}
	r.Steps = append(r.Steps, certificateStep(crt, ready, issuing), issuerStep(o))
	last, rehearsal := latest(o.Requests)
	for _, request := range []*cmapi.CertificateRequest{rehearsal, last} {
		if request == nil {
			continue
		}
		step := requestStep(request)
		if request == rehearsal {
			ref := request.Spec.IssuerRef
			step.rehearsal = true
			step.Detail = fmt.Sprintf("rehearsal at %s %q: %s", ref.KindOrDefault(), ref.Name, step.Detail)
		}
		r.Steps = append(r.Steps, step)
		for i := range o.Orders {
			if metav1.IsControlledBy(&o.Orders[i], request) && !overtaken(&o.Orders[i], o.Orders) {
				r.Steps = append(r.Steps, orderStep(&o.Orders[i]))
				for j := range o.Challenges {
					if metav1.IsControlledBy(&o.Challenges[j], &o.Orders[i]) {
						r.Steps = append(r.Steps, challengeStep(&o.Challenges[j]))
					}
				}
			}
		}
	}
	r.Steps = append(r.Steps, secretStep(o, now))
	for i := range o.Files {
		r.Steps = append(r.Steps, fileStep(&o.Files[i]))
	}
	r.Summary, r.Next = summary(o, r, ready, issuing, now)
	return r
}

// withoutCause returns the message of Ready without the part that repeats the message of Issuing.
// The report shows that part as the next step.
func withoutCause(message string, issuing *cmapi.CertificateCondition) string {
	message = lifecycle.CauseOf(message)
	if issuing != nil {
		message = strings.TrimSuffix(message, ". "+issuing.Message)
	}
	return message
}

// expired reports whether the certificate has expired, by the status.
func expired(crt *cmapi.Certificate, now time.Time) bool {
	return crt.Status.NotAfter != nil && now.After(crt.Status.NotAfter.Time)
}

// latest returns the request of the highest revision, and the request that rehearses the next one.
func latest(requests []cmapi.CertificateRequest) (last, rehearsal *cmapi.CertificateRequest) {
	for i := range requests {
		switch cr := &requests[i]; {
		case cr.Annotations[signer.RehearsalAnnotation] != "":
			rehearsal = cr
		case last == nil || revisionOf(cr) > revisionOf(last):
			last = cr
		}
	}
	return last, rehearsal
}

func revisionOf(cr *cmapi.CertificateRequest) int {
	n := 0
	_, _ = fmt.Sscanf(cr.Annotations[cmapi.CertificateRequestRevisionAnnotationKey], "%d", &n)
	return n
}

func certificateStep(crt *cmapi.Certificate, ready, issuing *cmapi.CertificateCondition) Step {
	s := Step{Kind: "Certificate", Name: crt.Name, State: Waiting, Detail: "the controller has not processed it yet"}
	switch {
	case delayed(issuing):
		s.Detail, s.Since = issuing.Message, issuing.LastTransitionTime
	case issuing != nil && issuing.Status == cmmeta.ConditionFalse:
		s.State, s.Detail, s.Since = Failed, issuing.Message, issuing.LastTransitionTime
	case issuing != nil && issuing.Status == cmmeta.ConditionTrue:
		s.State, s.Detail, s.Since = Waiting, issuing.Message, issuing.LastTransitionTime
	case ready != nil && ready.Status == cmmeta.ConditionTrue:
		s.State, s.Detail, s.Since = OK, ready.Message, ready.LastTransitionTime
	case ready != nil:
		s.State, s.Detail, s.Since = Failed, ready.Message, ready.LastTransitionTime
	}
	for _, c := range crt.Status.Conditions {
		if c.Reason == lifecycle.ReasonReleaseFailed {
			s.Detail = strings.TrimSuffix(s.Detail, ".") + ". " + c.Message
		}
	}
	return s
}

// delayed reports whether the next issuance waits because there were many before their renewal
// time.
func delayed(issuing *cmapi.CertificateCondition) bool {
	return issuing != nil && issuing.Status == cmmeta.ConditionFalse && issuing.Reason == lifecycle.ReasonReissueDelayed
}

func issuerStep(o Objects) Step {
	ref := o.Certificate.Spec.IssuerRef
	s := Step{Kind: ref.KindOrDefault(), Name: ref.Name}
	switch {
	case o.ExternalIssuer != nil:
		return externalStep(ref, o.ExternalIssuer)
	case o.Issuer == nil:
		s.State, s.Detail = Missing, "it does not exist"
	default:
		c := cmapi.GetIssuerCondition(o.Issuer.GetStatus(), cmapi.IssuerConditionReady)
		switch {
		case c == nil:
			s.State, s.Detail = Waiting, "the controller has not processed it yet"
		case c.Status == cmmeta.ConditionTrue:
			s.State, s.Detail, s.Since = OK, strings.TrimSpace(c.Reason+" "+c.Message), c.LastTransitionTime
		default:
			s.State, s.Detail, s.Since = Failed, c.Message, c.LastTransitionTime
		}
	}
	return s
}

// externalStep is the step of an issuer of another project.
func externalStep(ref cmmeta.IssuerReference, is *external.State) Step {
	s := Step{Kind: ref.KindOrDefault() + "." + ref.GroupOrDefault(), Name: ref.Name, State: OK, Since: is.Since}
	switch {
	case is.Found == external.NoKind:
		s.State, s.Detail = Missing, fmt.Sprintf("the cluster has no kind %q in the group %q", ref.KindOrDefault(),
			ref.GroupOrDefault())
	case is.Found == external.Missing:
		s.State, s.Detail = Missing, "it does not exist"
	case is.Found == external.Forbidden:
		s.Detail = "an external issuer, which you may not read: its own controller signs"
	case is.Ready == metav1.ConditionTrue:
		s.Detail = strings.TrimSuffix("an external issuer, which is ready: "+is.Message, ": ")
	case is.Ready != "":
		s.State, s.Detail = Failed, cmp.Or(is.Message, "it is not ready, and does not say why")
	default:
		s.Detail = "an external issuer, which does not say whether it is ready: its own controller signs"
	}
	return s
}

func requestStep(cr *cmapi.CertificateRequest) Step {
	s := Step{Kind: "CertificateRequest", Name: cr.Name, State: Waiting, Since: &cr.CreationTimestamp}
	ready := cmapi.GetCertificateRequestCondition(&cr.Status, cmapi.CertificateRequestConditionReady)
	switch {
	case signer.DenialOf(cr) != nil:
		denial := signer.DenialOf(cr)
		s.State, s.Detail, s.Since = Failed, denial.Message, &denial.At
	case ready != nil && ready.Status == cmmeta.ConditionTrue:
		s.State, s.Detail, s.Since = OK, ready.Message, ready.LastTransitionTime
	case ready != nil && ready.Reason == cmapi.CertificateRequestReasonFailed:
		s.State, s.Detail, s.Since = Failed, ready.Message, ready.LastTransitionTime
	case !cmapi.CertificateRequestIsApproved(&cr.Status):
		s.Detail, s.unapproved = "not approved yet", true
		if c := cmapi.GetCertificateRequestCondition(&cr.Status, signer.ConditionApprovalForbidden); c != nil {
			s.Detail += ": " + c.Message
		}
	case ready != nil:
		s.Detail, s.Since = ready.Message, ready.LastTransitionTime
	default:
		s.Detail = "approved, and not signed yet"
	}
	return s
}

// fileStep returns the step of a CertificateFile. One that only waits for the Certificate has not
// failed.
func fileStep(cf *perennial.CertificateFile) Step {
	s := Step{Kind: "CertificateFile", Name: cf.Name, State: Waiting,
		Detail: "perenniald has not processed it yet; in a cluster nothing does"}
	ready := meta.FindStatusCondition(cf.Status.Conditions, perennial.ConditionReady)
	if ready == nil {
		return s
	}
	s.State, s.Detail, s.Since = Failed, ready.Message, &ready.LastTransitionTime
	switch {
	case ready.Status == metav1.ConditionTrue:
		s.State = OK
	case !meta.IsStatusConditionFalse(cf.Status.Conditions, perennial.ConditionDeployed) && cf.Status.Reload != nil &&
		cf.Status.Reload.Failures == 0 && cf.Status.Reload.Pending:
		s.State = Waiting // for its first reload
	}
	return s
}

// owner returns the UID of the controller of an Order, its CertificateRequest.
func owner(o *acmev1.Order) types.UID {
	if c := metav1.GetControllerOf(o); c != nil {
		return c.UID
	}
	return ""
}

// overtaken reports whether an Order has expired, and another Order of the same request replaces
// it.
func overtaken(lapsed *acmev1.Order, all []acmev1.Order) bool {
	return lapsed.Status.State == acmev1.Expired && slices.ContainsFunc(all, func(o acmev1.Order) bool {
		return o.Status.State != acmev1.Expired && owner(&o) == owner(lapsed)
	})
}

func orderStep(o *acmev1.Order) Step {
	s := Step{Kind: "Order", Name: o.Name, State: Waiting, Since: &o.CreationTimestamp, Detail: string(o.Status.State)}
	switch o.Status.State {
	case acmev1.Valid:
		s.State = OK
	case acmev1.Invalid, acmev1.Expired, acmev1.Errored:
		s.State = Failed
		if o.Status.FailureTime != nil {
			s.Since = o.Status.FailureTime
		}
	case "":
		s.Detail = "not sent to the ACME server yet"
	}
	if o.Status.Reason != "" {
		s.Detail += ": " + o.Status.Reason
	}
	return s
}

func challengeStep(c *acmev1.Challenge) Step {
	s := Step{Kind: "Challenge", Name: c.Name, State: Waiting, Since: &c.CreationTimestamp}
	parts := []string{fmt.Sprintf("%s for %s", c.Spec.Type, c.Spec.DNSName)}
	switch c.Status.State {
	case acmev1.Valid:
		s.State = OK
	case acmev1.Invalid, acmev1.Expired, acmev1.Errored:
		s.State = Failed
	}
	if c.Status.State != "" {
		parts = append(parts, string(c.Status.State))
	}
	if c.Status.Presented {
		parts = append(parts, "presented")
	}
	s.Detail = strings.Join(parts, ", ")
	if c.Status.Reason != "" {
		s.Detail += ": " + c.Status.Reason
	}
	return s
}

func secretStep(o Objects, now time.Time) Step {
	s := Step{Kind: "Secret", Name: o.Certificate.Spec.SecretName}
	switch {
	case o.SecretHidden:
		s.State, s.Detail = OK, "you may not read it"
		return s
	case o.Secret == nil:
		s.State, s.Detail = Missing, "it does not exist"
		return s
	}
	chain, err := pki.SecretLimits.DecodeChainPEM(o.Secret.Data[corev1.TLSCertKey])
	if err != nil {
		s.State, s.Detail = Failed, "it holds no certificate: "+err.Error()
		return s
	}
	leaf := chain[0]
	if key, err := pki.DecodeKeyPEM(o.Secret.Data[corev1.TLSPrivateKeyKey]); err != nil {
		s.State, s.Detail = Failed, "it holds no private key: "+err.Error()
	} else if !pki.SamePublicKey(key.Public(), leaf.PublicKey) {
		s.State, s.Detail = Failed, "its private key and its certificate do not belong together"
	} else if now.After(leaf.NotAfter) {
		s.State, s.Detail = Failed, fmt.Sprintf("its certificate for %s expired", subjectOf(leaf))
		s.Since = &metav1.Time{Time: leaf.NotAfter}
	} else {
		s.State, s.Detail = OK, fmt.Sprintf(
			"certificate for %s, issued by %q, valid until %s",
			subjectOf(leaf),
			leaf.Issuer.String(),
			leaf.NotAfter.UTC().Format(time.RFC3339),
		)
		s.Since = &metav1.Time{Time: leaf.NotBefore}
	}
	return s
}

// subjectOf names what a certificate is for, in a few words.
func subjectOf(cert *x509.Certificate) string {
	names := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	for _, u := range cert.URIs {
		names = append(names, u.String())
	}
	names = append(names, cert.EmailAddresses...)
	switch {
	case len(names) == 0:
		return cert.Subject.String()
	case len(names) > 3:
		return fmt.Sprintf("%s and %d more names", strings.Join(names[:3], ", "), len(names)-3)
	}
	return strings.Join(names, ", ")
}

// Until formats t relative to now: in 3 days, or 2 hours ago.
func Until(t, now time.Time) string {
	d := t.Sub(now).Round(time.Second)
	if d < 0 {
		return span(-d) + " ago"
	}
	return "in " + span(d)
}

func span(d time.Duration) string {
	unit := func(n time.Duration, name string) string {
		if n == 1 {
			return "1 " + name
		}
		return fmt.Sprintf("%d %ss", n, name)
	}
	switch {
	case d >= 48*time.Hour:
		return unit(d/(24*time.Hour), "day")
	case d >= 2*time.Hour:
		return unit(d/time.Hour, "hour")
	case d >= 2*time.Minute:
		return unit(d/time.Minute, "minute")
	}
	return unit(d/time.Second, "second")
}

func lower(s string) string {
	if len(s) > 1 && s[0] >= 'A' && s[0] <= 'Z' && s[1] >= 'a' && s[1] <= 'z' {
		return strings.ToLower(s[:1]) + s[1:]
	}
	return s
}
