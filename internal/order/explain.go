package order

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/lane"
	"github.com/perennial-pki/perennial/internal/outside"
	"github.com/perennial-pki/perennial/internal/solver"
	"github.com/perennial-pki/perennial/internal/solver/dns01"
)

const (
	// explainTimeout bounds all that is looked at to explain a refusal.
	explainTimeout = 15 * time.Second
	// maxExplained is how many names of an order are looked at.
	maxExplained = 3
	// maxRefusal is how much of what a CA says is shown, in bytes: more than CAs write about one name.
	maxRefusal = 1500
)

// A refusal of a proof, and what is known of its reasons.
type failure struct {
	kind cmacme.ACMEChallengeType
	// name is what is to be proved, and wildcard says that it is for all names below.
	name     string
	wildcard bool
	// problem is what the CA says. Nil if it says nothing.
	problem *acme.Problem
	// views are what we see, unless that is unknown.
	views   []solver.View
	unknown error
	// bogus says that DNSSEC keeps the name from being found.
	bogus bool
	caa   caa
}

// caa is who may issue for a name, as the DNS says.
type caa struct {
	// at is where the records stand that are in force; empty if there are none.
	at      string
	records []dns01.CAA
	// identities are the names by which such records mean this CA, and account is what they may name.
	identities []string
	account    string
	unknown    error
}

// problemOf is what a CA says of a challenge that failed.
func problemOf(ch *cmacme.Challenge, z acme.Authorization) *acme.Problem {
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

// refusal says what the CA says.
func refusal(p *acme.Problem) string {
	if p == nil {
		return "the CA says that the authorization is invalid, and not why"
	}
	return "the CA could not verify it: " + outside.Short(p.Error(), maxRefusal)
}

// explain says why a proof was refused: what the CA saw, what we see, and what to do. The error is a lane.Full.
func (r *ChallengeReconciler) explain(ctx context.Context, s solver.Solver, ca *acme.Client, by acme.Account, ch *cmacme.Challenge, p *acme.Problem) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	f := failure{kind: ch.Spec.Type, name: ch.Spec.DNSName, wildcard: ch.Spec.Wildcard, problem: p}
	if _, err := netip.ParseAddr(f.name); err != nil && p != nil {
		if err := lane.Enter(ctx, solver.Party(ch)); err != nil {
			return "", err
		}
		switch {
		case aboutCAA(p):
			f.caa = caaOf(ctx, r.Names, ca, by, f.name)
			return f.String(), nil
		case p.Type == acme.ProblemDNS || strings.Contains(p.Detail, "DNSSEC"):
			f.bogus = r.Names.Bogus(ctx, f.name)
		}
	}
	if f.views, f.unknown = s.Look(ctx, ch); lane.Is(f.unknown) {
		return "", f.unknown
	}
	return f.String(), nil
}

// caaOf reads who may issue for a name.
func caaOf(ctx context.Context, names *dns01.Resolver, ca *acme.Client, by acme.Account, name string) caa {
	c := caa{account: by.URL}
	if dir, err := ca.FetchDirectory(ctx); err == nil {
		c.identities = dir.Meta.CAAIdentities
	}
	c.records, c.at, c.unknown = names.CAA(ctx, name)
	return c
}

// explainCAA says which CAA records keep the CA from issuing an order whose names are all proven: CAs read them again when they issue. It is empty if
// the problem is another one. The error is a lane.Full.
func (r *Reconciler) explainCAA(ctx context.Context, o conversation, order *cmacme.Order, challenges []cmacme.Challenge, p *acme.Problem) (string, error) {
	if !aboutCAA(p) {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	named := slices.DeleteFunc(slices.Clone(order.Spec.DNSNames), func(name string) bool { return !strings.Contains(p.Error(), strings.TrimPrefix(name, "*.")) })
	if len(named) == 0 {
		named = order.Spec.DNSNames
	}
	var parts []string
	for _, name := range named[:min(len(named), maxExplained)] {
		base := strings.TrimPrefix(name, "*.")
		var kind cmacme.ACMEChallengeType
		for i := range challenges {
			if challenges[i].Spec.DNSName == base {
				kind = challenges[i].Spec.Type
			}
		}
		if err := lane.Enter(ctx, solver.NameServers(order.Namespace, base)); err != nil {
			return "", err
		}
		if text := caaOf(ctx, r.Names, o.ca, o.by, base).advice(base, base != name, kind); !slices.Contains(parts, text) {
			parts = append(parts, text)
		}
	}
	return strings.Join(parts, ". "), nil
}

// aboutCAA reports whether a CA was kept from issuing by CAA records.
func aboutCAA(p *acme.Problem) bool {
	return p.Type == acme.ProblemCAA || slices.ContainsFunc(p.Subproblems, func(s acme.Problem) bool { return s.Type == acme.ProblemCAA })
}

// String is a sentence for people: what the CA says; what we see; what to do.
func (f failure) String() string {
	parts := []string{refusal(f.problem)}
	if f.problem != nil && aboutCAA(f.problem) {
		return strings.Join(append(parts, f.caa.advice(f.name, f.wildcard, f.kind)), ". ")
	}
	if f.unknown != nil {
		return strings.Join(append(parts, fmt.Sprintf("From here nothing is known of it: %s", f.unknown)), ". ")
	}
	if seen := f.seen(); seen != "" {
		parts = append(parts, "From here "+seen)
	}
	return strings.Join(append(parts, f.advice()), ". ")
}

// sorted returns where the proof is shown, where something else is, and where nothing is heard.
func (f failure) sorted() (right, wrong, silent []string) {
	for _, v := range f.views {
		where := v.Where
		if where == "" {
			where = f.name
		}
		switch {
		case v.Right:
			right = append(right, where)
		case v.Silent:
			silent = append(silent, where)
		default:
			wrong = append(wrong, where)
		}
	}
	return right, wrong, silent
}

func (f failure) seen() string {
	right, _, _ := f.sorted()
	var parts []string
	switch len(right) {
	case 0:
	case 1:
		parts = append(parts, right[0]+" shows the proof")
	default:
		parts = append(parts, strings.Join(right, " and ")+" show the proof")
	}
	for _, v := range f.views {
		where := v.Where
		if where == "" {
			where = f.name
		}
		if !v.Right {
			parts = append(parts, where+" "+v.Says)
		}
	}
	return strings.Join(parts, "; ")
}

// advice says what to do.
func (f failure) advice() string {
	right, wrong, silent := f.sorted()
	of := func(where []string) string { return strings.Join(where, " and ") }
	p := f.problem
	if p == nil {
		p = &acme.Problem{}
	}
	switch {
	case f.bogus:
		return fmt.Sprintf("DNSSEC of %s does not verify, so the CA cannot find it: correct the DS record at the registrar, or sign the zone anew", f.name)
	case p.Type == acme.ProblemServerInternal || p.Type == acme.ProblemRateLimited:
		return "It is the CA that could not look: nothing is to be done here"
	}
	if f.kind == cmacme.ACMEChallengeTypeDNS01 {
		switch {
		case len(wrong) > 0 && len(right) == 0:
			return "The record is gone: see who else changes this zone, such as another controller with the same names"
		case len(wrong) > 0:
			return fmt.Sprintf("The record has not come to %s, or is gone there: repair its zone transfer", of(wrong))
		case p.Type == acme.ProblemDNS:
			return "The CA cannot find the name: see whether every name server that the parent zone lists answers from outside, and the DNSSEC of the zone"
		case len(silent) > 0:
			return fmt.Sprintf("The CA may have asked %s, which does not answer here: let it answer, or take it out of the zone",
				of(silent))
		}
		return "It was there too late for the CA: one of the machines behind a name server may be slower than the one that answers here; waitForRecordToPropagate on the solver waits longer"
	}
	port := "80"
	if f.kind == cmacme.ACMEChallengeTypeTLSALPN01 {
		port = "443"
	}
	switch {
	case len(wrong) > 0 && len(right) > 0:
		return fmt.Sprintf("The CA may choose any address: lead %s to where %s leads, or remove its address record", of(wrong), of(right))
	case len(wrong) > 0:
		return fmt.Sprintf("Lead port %s of %s to the controller, or, if it was led there, see what else answers there at times", port, f.name)
	case len(right) > 0 && len(silent) > 0:
		return fmt.Sprintf("The CA may choose any address: let port %s of %s be reached, or remove its address record", port, of(silent))
	case len(right) == 0:
		return fmt.Sprintf("Lead port %s of %s to the controller, and let it be reached from everywhere", port, f.name)
	}
	if there := addressesIn(p.Detail); len(there) > 0 && !slices.ContainsFunc(there, func(a string) bool { return slices.Contains(right, a) }) {
		return fmt.Sprintf("The CA came to %s, where %s leads outside: correct the record, or what it leads to", of(there), f.name)
	}
	switch p.Type {
	case acme.ProblemConnection:
		return fmt.Sprintf("Something is between the CA and the site: let port %s be reached from everywhere (firewall, provider, blocked countries)", port)
	case acme.ProblemDNS:
		return "The CA cannot find the name: see whether every name server that the parent zone lists answers from outside, and the DNSSEC of the zone"
	}
	return fmt.Sprintf("The CA came to another server, or the answer changed: see where port %s of %s leads outside (a CDN, a DNS that answers otherwise inside, a record that changed lately)", port, f.name)
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

// advice says which CAA record is missing or in the way, RFC 8659 and 8657.
func (c caa) advice(name string, wildcard bool, kind cmacme.ACMEChallengeType) string {
	if c.unknown != nil {
		return fmt.Sprintf("Its CAA records cannot be read from here either: %s. Let the name servers of %s answer such questions", c.unknown, name)
	}
	if c.at == "" {
		return fmt.Sprintf("From here no CAA record of %s is seen: see whether every name server of it answers questions for CAA, also with nothing", name)
	}
	tag := "issue"
	if wildcard && slices.ContainsFunc(c.records, func(r dns01.CAA) bool { return r.Tag == "issuewild" }) {
		tag = "issuewild"
	}
	var all []string
	for _, r := range c.records {
		if r.Tag == "issue" || r.Tag == "issuewild" {
			all = append(all, fmt.Sprintf("%s %q", r.Tag, r.Value))
		}
	}
	seen := fmt.Sprintf("The CAA records of %s allow %s", c.at, strings.Join(all, ", "))
	if len(all) == 0 {
		seen = fmt.Sprintf("%s has CAA records, and none for tag %s", c.at, tag)
	}
	if len(c.identities) == 0 {
		return seen + ": add one for this CA, whose documentation has its name"
	}
	for _, r := range c.records {
		domain, parameters, _ := strings.Cut(r.Value, ";")
		if r.Tag == tag && slices.Contains(c.identities, strings.ToLower(strings.TrimSpace(domain))) {
			if strings.TrimSpace(parameters) == "" {
				return seen + ": they allow this CA, so they were changed lately, or not every name server has them"
			}
			text := fmt.Sprintf("%s, and its parameters do not fit: this is accounturi=%s", seen, c.account)
			if kind != "" {
				text += " and validationmethods=" + strings.ToLower(string(kind))
			}
			return text
		}
	}
	return fmt.Sprintf("%s: add   %s. CAA 0 %s %q", seen, c.at, tag, c.identities[0])
}
