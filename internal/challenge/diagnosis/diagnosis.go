// Package diagnosis explains why a CA refused a proof: what the CA saw, what is seen from here, and
// what to do. It is pure.
package diagnosis

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/egress"
	"github.com/perennial-pki/perennial/internal/solver"
	"github.com/perennial-pki/perennial/internal/solver/dns01/resolver"
)

const (
	// maxRefusal is how much of what a CA says is shown, in bytes: more than CAs write about one name.
	maxRefusal = 1500
)

// A Failure is a refused proof, and what is known of the reasons.
type Failure struct {
	Kind cmacme.ACMEChallengeType
	// Name is the identifier to prove, and Wildcard says that the certificate is for all names below
	// it.
	Name     string
	Wildcard bool
	// Problem is what the CA says. Nil if it says nothing.
	Problem *acme.Problem
	// Views are what we see, unless that is unknown.
	Views   []solver.EndpointView
	Unknown error
	// Bogus says that DNSSEC keeps the name from being found.
	Bogus bool
	CAA   CAA
}

// CAA is which CAs may issue for a name, as the DNS says.
type CAA struct {
	// At is the name that has the records in force; empty if there are none.
	At      string
	Records []resolver.CAA
	// Identities are the names by which such records mean this CA, and Account is what they may name.
	Identities []string
	Account    string
	Unknown    error
}

// ProblemOf is what a CA says of a challenge that failed.
func ProblemOf(ch *cmacme.Challenge, z acme.Authorization) *acme.Problem {
	var other *acme.Problem
	for _, c := range z.Challenges {
		if c.Error != nil && c.URL == ch.Spec.URL {
			return c.Error
		}
		if c.Error != nil {
			other = c.Error
		}
	}
	return other
}

// Refusal says what the CA says.
func Refusal(p *acme.Problem) string {
	if p == nil {
		return "the CA says that the authorization is invalid, and not why"
	}
	return "the CA could not verify it: " + egress.Truncate(p.Error(), maxRefusal)
}

// AboutCAA reports whether a CA was kept from issuing by CAA records.
func AboutCAA(p *acme.Problem) bool {
	return p.Type == acme.ProblemCAA ||
		slices.ContainsFunc(p.Subproblems, func(s acme.Problem) bool { return s.Type == acme.ProblemCAA })
}

// String is a sentence for people: what the CA says; what we see; what to do.
func (f Failure) String() string {
	parts := []string{Refusal(f.Problem)}
	if f.Problem != nil && AboutCAA(f.Problem) {
		return strings.Join(append(parts, f.CAA.Advice(f.Name, f.Wildcard, f.Kind)), ". ")
	}
	if f.Unknown != nil {
		return strings.Join(append(parts, fmt.Sprintf("From here nothing is known of it: %s", f.Unknown)), ". ")
	}
	if seen := f.seen(); seen != "" {
		parts = append(parts, "From here "+seen)
	}
	return strings.Join(append(parts, f.advice()), ". ")
}

// sorted returns where the proof is shown, where something else is, and where there is no answer.
func (f Failure) sorted() (right, wrong, silent []string) {
	for _, v := range f.Views {
		where := v.Where
		if where == "" {
			where = f.Name
		}
		switch {
		case v.Matches:
			right = append(right, where)
		case v.NoResponse:
			silent = append(silent, where)
		default:
			wrong = append(wrong, where)
		}
	}
	return right, wrong, silent
}

// seen says what is seen from here.
func (f Failure) seen() string {
	right, _, _ := f.sorted()
	var parts []string
	switch len(right) {
	case 0:
	case 1:
		parts = append(parts, right[0]+" shows the proof")
	default:
		parts = append(parts, strings.Join(right, " and ")+" show the proof")
	}
	for _, v := range f.Views {
		where := v.Where
		if where == "" {
			where = f.Name
		}
		if !v.Matches {
			parts = append(parts, where+" "+v.Shows)
		}
	}
	return strings.Join(parts, "; ")
}

// advice says what to do.
func (f Failure) advice() string {
	right, wrong, silent := f.sorted()
	of := func(where []string) string { return strings.Join(where, " and ") }
	p := f.Problem
	if p == nil {
		p = &acme.Problem{}
	}
	switch {
	case f.Bogus:
		return fmt.Sprintf(
			"DNSSEC of %s does not verify, so the CA cannot find it: correct the DS record at the registrar, or "+
				"sign the zone anew",
			f.Name,
		)
	case p.Type == acme.ProblemServerInternal || p.Type == acme.ProblemRateLimited:
		return "It is the CA that could not look: nothing is to be done here"
	}
	if f.Kind == cmacme.ACMEChallengeTypeDNS01 {
		switch {
		case len(wrong) > 0 && len(right) == 0:
			return "The record is gone: find out what else changes this zone, such as another controller with the same names"
		case len(wrong) > 0:
			return fmt.Sprintf("The record has not come to %s, or is gone there: repair its zone transfer", of(wrong))
		case p.Type == acme.ProblemDNS:
			return "The CA cannot find the name: see whether every name server that the parent zone lists " +
				"answers from outside, and the DNSSEC of the zone"
		case len(silent) > 0:
			return fmt.Sprintf("The CA may have asked %s, which does not answer here: let it answer, or take it "+
				"out of the zone",
				of(silent))
		}
		return "It was there too late for the CA: one of the machines behind a name server may be slower than " +
			"the one that answers here; waitForRecordToPropagate on the solver waits longer"
	}
	port := "80"
	if f.Kind == cmacme.ACMEChallengeTypeTLSALPN01 {
		port = "443"
	}
	switch {
	case len(wrong) > 0 && len(right) > 0:
		return fmt.Sprintf(
			"The CA may choose any address: lead %s to where %s leads, or remove its address record",
			of(wrong),
			of(right),
		)
	case len(wrong) > 0:
		return fmt.Sprintf(
			"Lead port %s of %s to the controller, or, if it was led there, see what else answers there at times",
			port,
			f.Name,
		)
	case len(right) > 0 && len(silent) > 0:
		return fmt.Sprintf(
			"The CA may choose any address: let port %s of %s be reached, or remove its address record",
			port,
			of(silent),
		)
	case len(right) == 0:
		return fmt.Sprintf("Lead port %s of %s to the controller, and let it be reached from everywhere", port, f.Name)
	}
	if there := addressesIn(
		p.Detail,
	); len(there) > 0 &&
		!slices.ContainsFunc(there, func(a string) bool { return slices.Contains(right, a) }) {
		return fmt.Sprintf(
			"The CA came to %s, where %s leads outside: correct the record, or what it leads to",
			of(there),
			f.Name,
		)
	}
	switch p.Type {
	case acme.ProblemConnection:
		return fmt.Sprintf(
			"Something is between the CA and the site: let port %s be reached from everywhere (firewall, "+
				"provider, blocked countries)",
			port,
		)
	case acme.ProblemDNS:
		return "The CA cannot find the name: see whether every name server that the parent zone lists answers " +
			"from outside, and the DNSSEC of the zone"
	}
	return fmt.Sprintf(
		"The CA came to another server, or the answer changed: see where port %s of %s leads outside (a CDN, a "+
			"DNS that answers otherwise inside, a record that changed lately)",
		port,
		f.Name,
	)
}

// addressesIn are the IP addresses, without loopback, that a text of a CA names.
func addressesIn(text string) []string {
	var found []string
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" ,;\"'()<>/", r) }) {
		at := strings.TrimRight(word, ":.")
		if p, err := netip.ParseAddrPort(at); err == nil {
			at = p.Addr().String()
		}
		a, err := netip.ParseAddr(strings.Trim(at, "[]"))
		if err == nil && !a.IsLoopback() && !slices.Contains(found, a.Unmap().String()) {
			found = append(found, a.Unmap().String())
		}
	}
	return found
}

// Advice says which CAA record is missing or in the way, RFC 8659 and 8657.
func (c CAA) Advice(name string, wildcard bool, kind cmacme.ACMEChallengeType) string {
	if c.Unknown != nil {
		return fmt.Sprintf(
			"Its CAA records cannot be read from here either: %s. Let the name servers of %s answer such questions",
			c.Unknown,
			name,
		)
	}
	if c.At == "" {
		return fmt.Sprintf(
			"From here no CAA record of %s is seen: see whether every name server of it answers questions for "+
				"CAA, also with nothing",
			name,
		)
	}
	tag := "issue"
	if wildcard && slices.ContainsFunc(c.Records, func(r resolver.CAA) bool { return r.Tag == "issuewild" }) {
		tag = "issuewild"
	}
	var all []string
	for _, r := range c.Records {
		if r.Tag == "issue" || r.Tag == "issuewild" {
			all = append(all, fmt.Sprintf("%s %q", r.Tag, r.Value))
		}
	}
	seen := fmt.Sprintf("The CAA records of %s allow %s", c.At, strings.Join(all, ", "))
	if len(all) == 0 {
		seen = fmt.Sprintf("%s has CAA records, and none for tag %s", c.At, tag)
	}
	if len(c.Identities) == 0 {
		return seen + ": add one for this CA, whose documentation has its name"
	}
	for _, r := range c.Records {
		domain, parameters, _ := strings.Cut(r.Value, ";")
		if r.Tag == tag && slices.Contains(c.Identities, strings.ToLower(strings.TrimSpace(domain))) {
			if strings.TrimSpace(parameters) == "" {
				return seen + ": they allow this CA, so they were changed lately, or not every name server has them"
			}
			text := fmt.Sprintf("%s, and its parameters do not fit: this is accounturi=%s", seen, c.Account)
			if kind != "" {
				text += " and validationmethods=" + strings.ToLower(string(kind))
			}
			return text
		}
	}
	return fmt.Sprintf("%s: add   %s. CAA 0 %s %q", seen, c.At, tag, c.Identities[0])
}
