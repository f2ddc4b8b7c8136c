package trust

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
	"github.com/perennial-pki/perennial/pki"
)

const (
	// maxRetained is how many certificates are retained. The API documents it.
	maxRetained = 32
	// settledGrace is for how long a CA is kept that its issuer no longer needs. A server may not yet
	// have loaded the certificate of the new CA: the kubelet takes up to two minutes to update a
	// Secret in a pod.
	settledGrace = time.Hour
	// defaultKeep is spec.keepReplacedFor of an object that was written before the field had its
	// default.
	defaultKeep = 90 * 24 * time.Hour
)

// facts are the inputs of resolve.
type facts struct {
	spec *api.TrustBundleSpec
	*gathered
	// before has the certificates that were in the bundle.
	before []api.TrustedCertificate
	// alive looks for certificates in use that only this CA, and none of the others, makes trusted. It
	// returns when the last of them expires and in which Secret it is; the time is zero if there are
	// none. It is slow, so it is asked only when the answer decides.
	alive  func(ca *x509.Certificate, others []*x509.Certificate) (until time.Time, secret string)
	limits pki.Limits
	now    time.Time
}

// resolve returns the certificates of the bundle, their status entries, and when the next one
// leaves the bundle or must be checked again. That time is zero if there is none.
func resolve(f facts) (certs []*x509.Certificate, status []api.TrustedCertificate, again time.Time) {
	distrusted := map[string]bool{}
	for _, fingerprint := range f.spec.Distrust {
		distrusted[strings.ToLower(strings.ReplaceAll(string(fingerprint), ":", ""))] = true
	}
	in := map[string]bool{}
	sooner := func(t time.Time) {
		if again.IsZero() || t.Before(again) {
			again = t
		}
	}
	for _, found := range f.found {
		entry := api.TrustedCertificate{
			Subject: subjectOf(found.cert), Fingerprint: pki.Fingerprint(found.cert),
			NotAfter: metav1.NewTime(found.cert.NotAfter), Source: found.source,
		}
		if distrusted[entry.Fingerprint] || in[entry.Fingerprint] {
			continue
		}
		if !found.literal {
			entry.Certificate = string(pki.EncodeCertificatePEM(found.cert))
		}
		in[entry.Fingerprint] = true
		certs, status = append(certs, found.cert), append(status, entry)
		sooner(found.cert.NotAfter)
	}

	sources := map[string]bool{}
	for i := range f.spec.Sources {
		sources[nameOf(&f.spec.Sources[i])] = true
	}
	current := slices.Clip(certs)
	type retained struct {
		cert  *x509.Certificate
		entry api.TrustedCertificate
	}
	var kept []retained
	for _, entry := range f.before {
		// If the source is no longer in the spec, the user has removed the certificate on purpose.
		if in[entry.Fingerprint] || distrusted[entry.Fingerprint] || entry.Certificate == "" || !sources[entry.Source] {
			continue
		}
		cert, err := f.limits.DecodeCertificatePEM([]byte(entry.Certificate))
		if err != nil || !f.now.Before(cert.NotAfter) {
			continue
		}
		if retention := f.retain(cert, &entry, current); retention != nil {
			in[entry.Fingerprint] = true
			entry.Retained = retention
			kept = append(kept, retained{cert, entry})
		}
	}
	slices.SortStableFunc(
		kept,
		func(a, b retained) int { return b.entry.Retained.Since.Compare(a.entry.Retained.Since.Time) },
	)
	for _, k := range kept[:min(len(kept), maxRetained)] {
		certs, status = append(certs, k.cert), append(status, k.entry)
		sooner(k.entry.Retained.Until.Time)
	}
	return certs, status, again
}

// retain returns until when a certificate stays that its source no longer has, or nil if it leaves.
func (f *facts) retain(
	cert *x509.Certificate,
	entry *api.TrustedCertificate,
	current []*x509.Certificate,
) *api.TrustRetention {
	since := f.now.Truncate(time.Second) // as precise as it is stored
	if entry.Retained != nil {
		since = entry.Retained.Since.Time
	}
	end := func(until time.Time, reason, usedBy string) *api.TrustRetention {
		if cert.NotAfter.Before(until) {
			until = cert.NotAfter
		}
		return &api.TrustRetention{Since: metav1.NewTime(since), Until: metav1.NewTime(until), Reason: reason, UsedBy: usedBy}
	}
	keep := defaultKeep
	if f.spec.KeepReplacedFor != nil {
		keep = f.spec.KeepReplacedFor.Duration
	}
	reason := fmt.Sprintf(
		"spec.keepReplacedFor is %s, as it may have certificates in use of which this cluster has no record",
		keep,
	)
	if f.settled[entry.Source] {
		keep = settledGrace
		reason = "its issuer needs it no more, but programs may still be loading the certificates that replaced those of it"
	}
	if least := since.Add(keep); f.now.Before(least) {
		return end(least, reason, "")
	}
	if before := entry.Retained; before != nil && before.UsedBy != "" && f.now.Before(before.Until.Time) {
		return before.DeepCopy() // until then the answer was given already
	}
	until, usedBy := f.alive(cert, current)
	if !f.now.Before(until) {
		return nil
	}
	return end(until, "a certificate of it is in use", usedBy)
}
