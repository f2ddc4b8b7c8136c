package shim

import (
	"encoding/json"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/utils/ptr"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// OwnedAnnotation is set on a Certificate and lists what its object has set, so that it is removed
// when the object no longer has it. Everything else belongs to the user.
const OwnedAnnotation = "perennial.dev/shim-owned"

// owned is the value of OwnedAnnotation.
type owned struct {
	// Annotations are the object's annotations that have set fields. Labels are the labels that were
	// copied, and Passed the annotations that the Certificate got.
	Annotations []string `json:"annotations,omitempty"`
	Labels      []string `json:"labels,omitempty"`
	Passed      []string `json:"passed,omitempty"`
}

// ownedOf reads the annotation. known is false for a Certificate that another controller has made.
func ownedOf(crt *cmapi.Certificate) (o owned, known bool) {
	value, found := crt.Annotations[OwnedAnnotation]
	return o, found && json.Unmarshal([]byte(value), &o) == nil
}

// remember sets OwnedAnnotation on a Certificate.
func remember(crt *cmapi.Certificate, annotations map[string]string) {
	o := owned{Labels: slices.Sorted(maps.Keys(crt.Labels)), Passed: slices.Sorted(maps.Keys(crt.Annotations))}
	for _, s := range setters {
		if _, found := annotations[s.key]; found {
			o.Annotations = append(o.Annotations, s.key)
		}
	}
	value, _ := json.Marshal(o) // strings alone always can
	crt.Annotations = set(crt.Annotations, OwnedAnnotation, string(value))
}

// merge returns the existing Certificate with what the object decides: the issuer, the names, and
// the fields that its annotations set or, before they were removed, had set. Everything else stays.
func merge(is, should *cmapi.Certificate, s *certificateSource) *cmapi.Certificate {
	next, should := is.DeepCopy(), should.DeepCopy()
	before, known := ownedOf(is)
	spec := &next.Spec
	spec.SecretName = should.Spec.SecretName
	if !sameIssuer(spec.IssuerRef, should.Spec.IssuerRef) {
		spec.IssuerRef = should.Spec.IssuerRef
	}
	if !sameDNSNames(spec.DNSNames, should.Spec.DNSNames) {
		spec.DNSNames = should.Spec.DNSNames
	}
	var unsynced []string
	if !sameAddresses(spec.IPAddresses, should.Spec.IPAddresses) {
		spec.IPAddresses = should.Spec.IPAddresses
		unsynced = append(unsynced, "spec.ipAddresses")
	}
	for _, setter := range setters {
		_, set := s.annotations[setter.key]
		if setter.copy == nil || !set && !slices.Contains(before.Annotations, setter.key) {
			continue
		}
		was := spec.DeepCopy()
		setter.copy(spec, &should.Spec)
		if setter.unsynced != "" && !equality.Semantic.DeepEqual(was, spec) {
			unsynced = append(unsynced, setter.unsynced)
		}
	}
	tidy(spec, &is.Spec)
	mergeLabels(next, should, s, before, known)
	mergeAnnotations(next, should, before)
	if len(unsynced) > 0 && !equality.Semantic.DeepEqual(spec, &is.Spec) {
		if n := underWay(is); !known && n > 0 {
			next.Annotations = set(next.Annotations, signer.DeferredAnnotation,
				signer.Deferral{Fields: unsynced, Revision: n}.String())
		} else {
			delete(next.Annotations, signer.DeferredAnnotation) // the user wants it now
		}
	}
	return next
}

// underWay returns the last revision that was requested before this change, or 0.
func underWay(crt *cmapi.Certificate) int {
	n := ptr.Deref(crt.Status.Revision, 0)
	if c := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionIssuing); c != nil &&
		c.Status == cmmeta.ConditionTrue {
		n++
	}
	return n
}

// mergeLabels sets the labels of the object, and removes those that it no longer has. If another
// controller has copied a label by which tools claim objects, mergeLabels removes it.
func mergeLabels(next, should *cmapi.Certificate, s *certificateSource, before owned, known bool) {
	for _, key := range before.Labels {
		if _, found := should.Labels[key]; !found {
			delete(next.Labels, key)
		}
	}
	for key, value := range s.GetLabels() {
		if is, found := next.Labels[key]; !known && found && is == value && signer.ClaimsOwnership(key) {
			delete(next.Labels, key)
		}
	}
	for key, value := range should.Labels {
		next.Labels = set(next.Labels, key, value)
	}
}

// mergeAnnotations sets the annotations that the object passes on, and removes those that it no
// longer does.
func mergeAnnotations(next, should *cmapi.Certificate, before owned) {
	for _, key := range before.Passed {
		if _, found := should.Annotations[key]; !found {
			delete(next.Annotations, key)
		}
	}
	for key, value := range should.Annotations {
		next.Annotations = set(next.Annotations, key, value)
	}
}

func set(to map[string]string, key, value string) map[string]string {
	if to == nil {
		to = map[string]string{}
	}
	to[key] = value
	return to
}

// tidy removes fields that the merge has left empty, unless they were empty before.
func tidy(spec, was *cmapi.CertificateSpec) {
	if s := spec.Subject; s != nil && equality.Semantic.DeepEqual(*s, cmapi.X509Subject{}) &&
		!equality.Semantic.DeepEqual(s, was.Subject) {
		spec.Subject = nil
	}
	if k := spec.PrivateKey; k != nil && *k == (cmapi.CertificatePrivateKey{}) && !equality.Semantic.DeepEqual(k,
		was.PrivateKey) {
		spec.PrivateKey = nil
	}
	if r := spec.Revocation; r != nil && *r == (cmapi.CertificateRevocation{}) && !equality.Semantic.DeepEqual(r,
		was.Revocation) {
		spec.Revocation = nil
	}
}

func sameIssuer(a, b cmmeta.IssuerReference) bool {
	return a.Name == b.Name && a.KindOrDefault() == b.KindOrDefault() && a.GroupOrDefault() == b.GroupOrDefault()
}

// sameDNSNames reports whether two lists have the same names, except for names that a wildcard
// covers.
func sameDNSNames(a, b []string) bool {
	return sameSet(pki.WithoutCovered(a), pki.WithoutCovered(b))
}

func sameAddresses(a, b []string) bool {
	canonical := func(all []string) (forms []string) {
		for _, s := range all {
			forms = append(forms, pki.ComparableIP(s))
		}
		return forms
	}
	return sameSet(canonical(a), canonical(b))
}

func sameSet(a, b []string) bool {
	distinct := func(all []string) []string { return slices.Compact(slices.Sorted(slices.Values(all))) }
	return slices.Equal(distinct(a), distinct(b))
}
