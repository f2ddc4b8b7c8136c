package pki

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Defect is the reason why clients would refuse a certificate. Conditions use it as their reason.
type Defect string

// The defects that [Judge] and [JudgeCA] find.
const (
	KeyMismatch        Defect = "KeyMismatch"        // the certificate is for another key
	NamesMissing       Defect = "NamesMissing"       // a requested name is missing
	NotYetValid        Defect = "NotYetValid"        // it, or a CA above it, is not valid yet
	Expired            Defect = "Expired"            // it, or a CA above it, is no longer valid
	SignatureInvalid   Defect = "SignatureInvalid"   // there is no chain of valid signatures to the CA
	PathTooLong        Defect = "PathTooLong"        // a CA above it allows fewer CAs below it
	NamesNotPermitted  Defect = "NamesNotPermitted"  // the name constraints of a CA above it forbid a name
	UsagesMissing      Defect = "UsagesMissing"      // a requested extended key usage is not allowed
	NotCA              Defect = "NotCA"              // a CA was requested, and the certificate is none
	ConstraintsMissing Defect = "ConstraintsMissing" // requested name constraints are missing
	NoSubject          Defect = "NoSubject"          // the CA has no subject to name as issuer
	WeakKey            Defect = "WeakKey"            // the key of the CA is too short to be secure
)

// DefectError says why an issued certificate cannot be used.
type DefectError struct {
	Defect Defect
	err    error
}

func (e *DefectError) Error() string { return e.err.Error() }
func (e *DefectError) Unwrap() error { return e.err }

func defectf(d Defect, format string, args ...any) error {
	return &DefectError{d, fmt.Errorf(format, args...)}
}

// DefectOf returns the defect of err, or "" if err is not a [DefectError].
func DefectOf(err error) Defect {
	var e *DefectError
	if errors.As(err, &e) {
		return e.Defect
	}
	return ""
}

// clockTolerance is the largest accepted difference between the clocks of this machine and of a CA.
const clockTolerance = 5 * time.Minute

// Asked describes the requested certificate.
type Asked struct {
	CSR    *x509.CertificateRequest
	IsCA   bool
	Usages []string // words as in [Request.Usages]
	// Duration is the requested lifetime; zero if the CA decides.
	Duration time.Duration
	// UsagesByCA means that the CA decides on usages and ignores the requested ones. One of the
	// requested extended usages is then enough, and other missing ones are only a difference.
	UsagesByCA bool
}

// Issued holds the certificates that a CA returned.
type Issued struct {
	// Chain begins with the leaf. The CAs above it may be in any order.
	Chain []*x509.Certificate
	// CAs are the certificates that clients are to trust, as in ca.crt. If there are none, clients
	// have their own, and the chain is judged up to its topmost certificate.
	CAs []*x509.Certificate
}

// Differences lists where a certificate that clients accept differs from the request.
type Differences struct {
	ExtraNames []string
	Others     []string // sentences without a full stop
}

// String returns "" if there are no differences.
func (d Differences) String() string {
	all := d.Others
	if len(d.ExtraNames) > 0 {
		all = append(slices.Clip(all), "it has names that were not asked for: "+someOf(d.ExtraNames))
	}
	return strings.Join(all, "; ")
}

// Judge reports whether clients accept a certificate, as far as the issued certificates show. The
// error is a [DefectError] with the reason for a refusal.
//
// Judge ignores a root that is only in Chain, because clients use their own copy. If CAs is empty,
// it also ignores the topmost of several intermediates. That may be a cross-signed root, which CAs
// send to old clients even after it has expired.
func Judge(asked Asked, issued Issued, now time.Time) (differences Differences, err error) {
	if len(issued.Chain) == 0 {
		return differences, defectf(SignatureInvalid, "there is no certificate")
	}
	leaf := issued.Chain[0]
	if !SamePublicKey(leaf.PublicKey, asked.CSR.PublicKey) {
		return differences, defectf(KeyMismatch, "it is for another private key than that of the request")
	}
	differences.ExtraNames, err = judgeNames(asked.CSR, leaf)
	if err != nil {
		return differences, err
	}
	path, superfluous, err := issued.path(now)
	if err != nil {
		return differences, err
	}
	if err := path.judgeValidity(now); err != nil {
		return differences, err
	}
	if err := path.judgePathLength(asked.IsCA); err != nil {
		return differences, err
	}
	if err := path.judgeNameConstraints(); err != nil {
		return differences, err
	}
	missing, err := path.judgeUsages(asked)
	if err != nil {
		return differences, err
	}
	if err := judgeCA(asked, leaf); err != nil {
		return differences, err
	}
	differences.Others = append(differencesOf(asked, leaf), missing...)
	if superfluous > 0 {
		differences.Others = append(differences.Others,
			fmt.Sprintf("%d of the certificates that came with it are not part of its chain", superfluous))
	}
	return differences, nil
}

// judgeNames checks that leaf has the names in csr, and returns the additional names of leaf.
func judgeNames(csr *x509.CertificateRequest, leaf *x509.Certificate) (extra []string, err error) {
	var want, is altNames
	if ext := findExtension(csr.Extensions, oidSubjectAltName); ext != nil {
		if want, err = parseAltNames(ext.Value); err != nil {
			return nil, defectf(NamesMissing, "spec.request: %w", err)
		}
	}
	if ext := findExtension(leaf.Extensions, oidSubjectAltName); ext != nil {
		if is, err = parseAltNames(ext.Value); err != nil {
			return nil, defectf(NamesMissing, "%w", err)
		}
	}
	asked, got, wildcards := want.canonical(), is.canonical(), DNSNames(is.dns)
	var missing []string
	for _, name := range asked {
		if !slices.Contains(got, name) && !Covers(wildcards, name) {
			missing = append(missing, name)
		}
	}
	commonName := ComparableDNSName(csr.Subject.CommonName)
	if len(asked) == 0 && commonName != "" && commonName != ComparableDNSName(leaf.Subject.CommonName) &&
		!slices.Contains(got, commonName) {
		missing = append(missing, commonName)
	}
	if len(missing) > 0 {
		return nil, defectf(NamesMissing, "it lacks names that were asked for: %s", someOf(missing))
	}
	for _, name := range got {
		if !slices.Contains(asked, name) && name != commonName {
			extra = append(extra, name)
		}
	}
	return extra, nil
}

// canonical returns the names in a form in which equal names are equal.
func (n altNames) canonical() []string {
	names := DNSNames(n.dns)
	for _, ip := range n.ips {
		names = append(names, ip.String())
	}
	names = append(names, distinct(CanonicalURI, n.uris)...)
	names = append(names, distinct(CanonicalEmail, n.emails)...)
	return append(names, flatOtherNames(n.others)...)
}

// certPath leads from a leaf to the topmost known certificate.
type certPath struct {
	certs []*x509.Certificate
	// anchored says that clients trust the last certificate.
	anchored bool
}

// path finds the path from the leaf up. superfluous counts the certificates that are not on it.
func (i Issued) path(now time.Time) (path certPath, superfluous int, err error) {
	leaf := i.Chain[0]
	path.certs = []*x509.Certificate{leaf}
	var rest []*x509.Certificate
	add := func(c *x509.Certificate) {
		if !slices.ContainsFunc(rest, c.Equal) && !c.Equal(leaf) {
			rest = append(rest, c)
		}
	}
	for _, c := range i.CAs {
		add(c)
	}
	for _, c := range i.Chain[1:] {
		add(c)
	}
	checks := 4*len(rest) + 64 // as in linkChain, all names can be equal in hostile input
	for !isRoot(path.certs[len(path.certs)-1]) {
		above, why := signerOf(path.certs[len(path.certs)-1], rest, now, &checks)
		if above == nil {
			if len(path.certs) == 1 && len(i.Chain) > 1 {
				return path, 0, defectf(SignatureInvalid, "its certificate 1 is not signed by the next one: %w", why)
			}
			break
		}
		path.certs = append(path.certs, above)
		rest = slices.DeleteFunc(rest, above.Equal)
	}
	for _, c := range rest {
		if slices.ContainsFunc(i.Chain, c.Equal) {
			superfluous++
		}
	}
	if len(path.certs) == 1 {
		if err := judgeAlone(leaf); err != nil {
			return path, 0, err
		}
	}
	if len(path.certs) > 1 && likeSelfSigned(leaf) {
		return path, 0, defectf(SignatureInvalid,
			"it has the subject of the CA that signed it, so that clients take it for self-signed: ask for another subject")
	}
	if len(i.CAs) == 0 {
		return path, superfluous, nil
	}
	// Clients that trust a CA ignore the certificates above it.
	for n := len(path.certs); n > 0; n-- {
		if slices.ContainsFunc(i.CAs, path.certs[n-1].Equal) {
			return certPath{path.certs[:n], true}, superfluous, nil
		}
	}
	return path, 0, defectf(SignatureInvalid,
		"ca.crt, which came with it, has no certificate that signed %s, the topmost of its chain",
		describe(path.certs[len(path.certs)-1]))
}

// FirstToExpire returns the certificate, from the leaf up to the CA that clients trust, that
// expires first: of several CAs with the same key, the one that expires last counts.
func (i Issued) FirstToExpire() *x509.Certificate {
	first := i.Chain[0]
	early := func(c *x509.Certificate) bool { return c.NotAfter.Before(first.NotAfter) }
	if !slices.ContainsFunc(i.Chain, early) && !slices.ContainsFunc(i.CAs, early) {
		return first
	}
	path, _, _ := i.path(first.NotAfter.Add(-time.Second)) // with an error, the path is incomplete
	for _, c := range path.certs {
		if early(c) {
			first = c
		}
	}
	return first
}

// judgeAlone judges a leaf without a known CA.
func judgeAlone(leaf *x509.Certificate) error {
	if !bytes.Equal(leaf.RawIssuer, leaf.RawSubject) {
		return nil
	}
	if err := checkKeySize(leaf.PublicKey); err != nil {
		return defectf(SignatureInvalid, "%w", err)
	}
	err := leaf.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature)
	if err != nil && emptySubject(leaf.RawIssuer) {
		return defectf(SignatureInvalid,
			"it names no issuer, so that clients cannot find the CA that signed it: the CA needs a subject")
	}
	return nil
}

// likeSelfSigned reports whether OpenSSL treats a certificate as self-signed, by its names and key
// identifiers.
func likeSelfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) &&
		(len(c.SubjectKeyId) == 0 || len(c.AuthorityKeyId) == 0 || bytes.Equal(c.SubjectKeyId, c.AuthorityKeyId))
}

// signerOf returns the certificate that signed c. Of several, it returns one that is valid now. If
// there is none, the error says why the closest candidate is not the signer.
func signerOf(c *x509.Certificate, candidates []*x509.Certificate, now time.Time,
	checks *int) (found *x509.Certificate, err error) {
	err = errNotIssuer
	for _, candidate := range candidates {
		if *checks--; *checks < 0 {
			return found, errors.New("too many certificates have the same subject")
		}
		no := checkSignedBy(c, candidate)
		switch {
		case no != nil && !errors.Is(no, errNotIssuer):
			err = no
		case no == nil && validAt(candidate, now):
			return candidate, nil
		case no == nil && found == nil:
			found = candidate
		}
	}
	return found, err
}

func validAt(c *x509.Certificate, now time.Time) bool {
	return !now.Add(clockTolerance).Before(c.NotBefore) && now.Before(c.NotAfter)
}

func (p certPath) judgeValidity(now time.Time) error {
	for i, c := range p.certs {
		last := i == len(p.certs)-1
		if i > 0 && !p.anchored {
			// See Judge: roots, and the highest of several intermediates.
			if last && isRoot(c) {
				continue
			}
			if highest := last || i == len(p.certs)-2 && isRoot(p.certs[i+1]); highest && i > 1 && !now.Before(c.NotAfter) {
				continue
			}
		}
		which := "it"
		switch {
		case i > 0 && last && p.anchored:
			which = "the CA certificate " + describe(c)
		case i > 0:
			which = "the intermediate certificate " + describe(c)
		}
		if now.Add(clockTolerance).Before(c.NotBefore) {
			return defectf(NotYetValid, "%s is not valid before %s", which, c.NotBefore.UTC().Format(time.RFC3339))
		}
		if !now.Before(c.NotAfter) {
			return defectf(Expired, "%s expired at %s", which, c.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// judgePathLength counts the CAs below each CA, RFC 5280 section 4.2.1.9. A requested CA counts
// too, because it is to sign certificates.
func (p certPath) judgePathLength(isCA bool) error {
	below := 0
	for i, c := range p.certs {
		if i > 0 && c.BasicConstraintsValid && c.MaxPathLen >= 0 && below > c.MaxPathLen {
			return defectf(PathTooLong,
				"the CA %s has the path length %d, so that no more than %d CAs may be below it, and there are %d",
				describe(c), c.MaxPathLen, c.MaxPathLen, below)
		}
		if (i > 0 || isCA) && !bytes.Equal(c.RawSubject, c.RawIssuer) {
			below++
		}
	}
	return nil
}

// judgeUsages checks that the leaf and all CAs above it allow the requested extended usages,
// because clients treat the extended usages of a CA as limits for its certificates. A certificate
// without extended usages allows all.
func (p certPath) judgeUsages(asked Asked) (missing []string, err error) {
	_, purposes, err := KeyUsages(asked.Usages, asked.IsCA)
	if err != nil {
		return nil, err
	}
	for _, purpose := range purposes {
		if purpose == x509.ExtKeyUsageAny {
			continue
		}
		word := FormatUsages(0, []x509.ExtKeyUsage{purpose})[0]
		for i, c := range p.certs {
			if allows(c, purpose) {
				continue
			}
			if i > 0 {
				return nil, defectf(UsagesMissing, "the CA %s is not for the usage %q, which was asked for", describe(c), word)
			}
			missing = append(missing, word)
			break
		}
	}
	switch {
	case len(missing) == 0:
		return nil, nil
	case asked.UsagesByCA && len(missing) < len(purposes):
		return []string{fmt.Sprintf("the CA left out the usages %q, which were asked for", missing)}, nil
	}
	return nil, defectf(UsagesMissing, "it lacks the usages %q, which were asked for", missing)
}

func allows(c *x509.Certificate, purpose x509.ExtKeyUsage) bool {
	if len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 0 {
		return true
	}
	return slices.Contains(c.ExtKeyUsage, purpose) || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// judgeCA checks that the certificate is a CA as requested.
func judgeCA(asked Asked, leaf *x509.Certificate) error {
	if !asked.IsCA {
		return nil
	}
	if !leaf.BasicConstraintsValid || !leaf.IsCA || leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageCertSign == 0 {
		return defectf(NotCA, "a CA was asked for, and it may not sign certificates")
	}
	ext := findExtension(asked.CSR.Extensions, oidNameConstraints)
	if ext == nil {
		return nil
	}
	want, err := parseNameConstraints(ext)
	if err != nil {
		return defectf(ConstraintsMissing, "spec.request: %w", err)
	}
	var is *NameConstraints
	if ext := findExtension(leaf.Extensions, oidNameConstraints); ext != nil {
		if is, err = parseNameConstraints(ext); err != nil {
			return defectf(ConstraintsMissing, "%w", err)
		}
		is.Critical = want.Critical
	}
	if !sameNameConstraints(want, is) {
		return defectf(ConstraintsMissing, "it does not have the name constraints that were asked for")
	}
	return nil
}

// differencesOf returns where the leaf differs from the request although clients accept it.
func differencesOf(asked Asked, leaf *x509.Certificate) (differences []string) {
	if leaf.IsCA && leaf.BasicConstraintsValid && !asked.IsCA {
		differences = append(differences, "it is a CA, which was not asked for")
	}
	want, is := asked.CSR.Subject, leaf.Subject
	if is.CommonName == "" && slices.Contains(DNSNames(leaf.DNSNames), ComparableDNSName(want.CommonName)) {
		want.CommonName = "" // the common name is among the alternative names, which clients use
		if len(want.ToRDNSequence()) == 0 || len(asked.CSR.Subject.Names) == 1 {
			want = is
		}
	}
	if len(asked.CSR.Subject.Names) > 0 && want.String() != is.String() {
		differences = append(differences, fmt.Sprintf("its subject is %s, and %s was asked for", quoteSubject(is.String()),
			quoteSubject(asked.CSR.Subject.String())))
	}
	if life := leaf.NotAfter.Sub(leaf.NotBefore); asked.Duration > 0 && life < asked.Duration-asked.Duration/100 {
		differences = append(differences, fmt.Sprintf("it lives for %s, and %s was asked for", life, asked.Duration))
	}
	return differences
}

func quoteSubject(s string) string {
	const most = 100
	if len(s) > most {
		s = s[:most] + "..."
	}
	return fmt.Sprintf("%q", s)
}

// someOf returns a short list of names, of which there may be many, and long ones.
func someOf(names []string) string {
	const most = 10
	var quoted []string
	for _, name := range names[:min(len(names), most)] {
		quoted = append(quoted, fmt.Sprintf("%.253q", name))
	}
	list := strings.Join(quoted, ", ")
	if n := len(names) - most; n > 0 {
		list += fmt.Sprintf(" and %d more", n)
	}
	return list
}

// JudgeCA reports whether clients accept the certificates that a CA signs, as far as that depends
// on the CA. The CA is the first certificate of issued.Chain. The error is a [DefectError]. Until
// is when a CA becomes valid that is not valid yet.
func JudgeCA(issued Issued, now time.Time) (until time.Time, err error) {
	ca := issued.Chain[0]
	if _, err := signatureAlgorithm("", ca.PublicKey); err != nil {
		return until, defectf(WeakKey, "%w", err)
	}
	switch {
	case !ca.IsCA:
		return until, defectf(NotCA,
			"signing certificate is not a CA: it lacks basicConstraints CA:TRUE (a Certificate gets it by spec.isCA)")
	case ca.KeyUsage != 0 && ca.KeyUsage&x509.KeyUsageCertSign == 0:
		return until, defectf(NotCA, "it may not sign certificates: its key usage lacks cert sign")
	case emptySubject(ca.RawSubject):
		return until, defectf(NoSubject, "it has no subject, so that clients cannot find the CA of what it signs: "+
			"make it anew with one (spec.commonName or spec.subject of a Certificate)")
	}
	path, _, err := issued.path(now)
	if err != nil {
		return until, err
	}
	if err := path.judgeValidity(now); err != nil {
		if DefectOf(err) == NotYetValid {
			for _, c := range path.certs {
				if from := c.NotBefore.Add(-clockTolerance); from.After(until) {
					until = from
				}
			}
		}
		return until, err
	}
	if err := path.judgePathLength(true); err != nil {
		return until, err
	}
	if err := path.judgeNameConstraints(); err != nil {
		return until, err
	}
	return until, path.judgePurposes()
}

// judgePurposes checks that all certificates have at least one extended usage in common.
func (p certPath) judgePurposes() error {
	limited := false
	for _, c := range p.certs {
		limited = limited || len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) > 0
	}
	if !limited {
		return nil
	}
	for purpose := x509.ExtKeyUsageServerAuth; purpose <= x509.ExtKeyUsageMicrosoftKernelCodeSigning; purpose++ {
		if !slices.ContainsFunc(p.certs, func(c *x509.Certificate) bool { return !allows(c, purpose) }) {
			return nil
		}
	}
	for _, c := range p.certs {
		for _, purpose := range c.UnknownExtKeyUsage {
			if !slices.ContainsFunc(p.certs, func(c *x509.Certificate) bool {
				return !allows(c, x509.ExtKeyUsage(-1)) && !slices.ContainsFunc(c.UnknownExtKeyUsage, purpose.Equal)
			}) {
				return nil
			}
		}
	}
	return defectf(UsagesMissing,
		"the extended key usages of it and of the CAs above it have none in common, so that it can sign for no usage")
}
