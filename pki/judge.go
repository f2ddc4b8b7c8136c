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

// Defect is why clients would refuse a certificate. It is a reason for conditions.
type Defect string

// The defects that [Judge] and [JudgeCA] find.
const (
	KeyMismatch        Defect = "KeyMismatch"        // it is for another key
	NamesMissing       Defect = "NamesMissing"       // a name that was asked for is not in it
	NotYetValid        Defect = "NotYetValid"        // it, or a CA above it, is not valid yet
	Expired            Defect = "Expired"            // it, or a CA above it, is no longer valid
	SignatureInvalid   Defect = "SignatureInvalid"   // no chain of valid signatures leads from it to the CA
	PathTooLong        Defect = "PathTooLong"        // a CA above it allows fewer CAs below itself
	NamesNotPermitted  Defect = "NamesNotPermitted"  // the name constraints of a CA above it forbid a name
	UsagesMissing      Defect = "UsagesMissing"      // an extended key usage that was asked for is not allowed
	NotCA              Defect = "NotCA"              // a CA was asked for, and it is none
	ConstraintsMissing Defect = "ConstraintsMissing" // name constraints that were asked for are not in it
	NoSubject          Defect = "NoSubject"          // the CA has no name by which a certificate could name it
	WeakKey            Defect = "WeakKey"            // the key of the CA is too short to be relied on
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

// DefectOf returns the defect that err stands for, empty if it is of another kind.
func DefectOf(err error) Defect {
	var e *DefectError
	if errors.As(err, &e) {
		return e.Defect
	}
	return ""
}

// clockTolerance is by how much the clocks of this machine and of a CA may differ.
const clockTolerance = 5 * time.Minute

// Asked is what a certificate was asked for with.
type Asked struct {
	CSR    *x509.CertificateRequest
	IsCA   bool
	Usages []string // words as in [Request.Usages]
	// Duration is how long it was to live; zero if that was left to the CA.
	Duration time.Duration
	// UsagesByCA says that the CA decides on usages and does not look at those that were asked for.
	// Then one of the extended usages must be there, and others that are not are a difference.
	UsagesByCA bool
}

// Issued is what a CA answered with.
type Issued struct {
	// Chain begins with the leaf. The CAs above it may stand in any order.
	Chain []*x509.Certificate
	// CAs are the certificates that clients are to trust, as in ca.crt. There may be none: then
	// clients have their own, and the chain is judged up to its topmost certificate.
	CAs []*x509.Certificate
}

// Differences is in what a certificate is not what was asked for, though clients accept it.
type Differences struct {
	ExtraNames []string
	Others     []string // sentences without a full stop
}

// String is empty if there are none.
func (d Differences) String() string {
	all := d.Others
	if len(d.ExtraNames) > 0 {
		all = append(slices.Clip(all), "it has names that were not asked for: "+someOf(d.ExtraNames))
	}
	return strings.Join(all, "; ")
}

// Judge says whether clients accept a certificate, as far as what came with it can tell. The
// error is a [DefectError] that says why they would not.
//
// A root that stands in Chain alone is not judged, since clients take their own copy. Nor is the
// highest of several intermediates where CAs is empty, which may be a root that an older one has
// signed: it stays in chains for the sake of old clients after its own end.
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

// judgeNames looks for the names that csr asks for, and returns those that leaf has besides.
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

// certPath leads from a leaf to the highest certificate that is known.
type certPath struct {
	certs []*x509.Certificate
	// anchored says that the last is one that clients trust.
	anchored bool
}

// path finds the way from the leaf up. superfluous counts the certificates that are not on it.
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
	checks := 4*len(rest) + 64 // as in linkChain, input can be made up in which all names are alike
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
	// Clients that trust a CA need nothing of what stands above it.
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
// expires first: of CAs with one key, the longest lived counts. It is the leaf unless one above it
// expires before.
func (i Issued) FirstToExpire() *x509.Certificate {
	first := i.Chain[0]
	early := func(c *x509.Certificate) bool { return c.NotAfter.Before(first.NotAfter) }
	if !slices.ContainsFunc(i.Chain, early) && !slices.ContainsFunc(i.CAs, early) {
		return first
	}
	path, _, _ := i.path(first.NotAfter.Add(-time.Second)) // with an error it is as far as it leads
	for _, c := range path.certs {
		if early(c) {
			first = c
		}
	}
	return first
}

// judgeAlone looks at a leaf of which no CA is known.
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

// likeSelfSigned reports whether OpenSSL takes a certificate for one that signed itself, by names
// and key identifiers.
func likeSelfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) &&
		(len(c.SubjectKeyId) == 0 || len(c.AuthorityKeyId) == 0 || bytes.Equal(c.SubjectKeyId, c.AuthorityKeyId))
}

// signerOf returns the certificate that signed c, of several one that is valid now. If there is
// none the error says why the one that comes closest is not it.
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

// judgePathLength counts the CAs below each CA, RFC 5280 section 4.2.1.9. A CA that is asked for
// counts, too, since it is to sign.
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

// judgeUsages looks for the extended usages that were asked for, in the leaf and in all CAs above
// it: clients take those of a CA as a limit of what it may sign for. A certificate without any is
// for all.
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

// judgeCA looks for what makes the certificate a CA of the kind that was asked for.
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

// differencesOf says in what the leaf is not what was asked for, though clients accept it.
func differencesOf(asked Asked, leaf *x509.Certificate) (differences []string) {
	if leaf.IsCA && leaf.BasicConstraintsValid && !asked.IsCA {
		differences = append(differences, "it is a CA, which was not asked for")
	}
	want, is := asked.CSR.Subject, leaf.Subject
	if is.CommonName == "" && slices.Contains(DNSNames(leaf.DNSNames), ComparableDNSName(want.CommonName)) {
		want.CommonName = "" // the name stands among the others, where clients look
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

// someOf lists names, which may be very many and very long.
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

// JudgeCA says whether clients accept what a CA signs, as far as the CA decides that: the first of
// issued.Chain is the CA. The error is a [DefectError]. Until is when a CA becomes valid that is
// not yet.
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

// judgePurposes looks for one extended usage at least that all certificates are for.
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
