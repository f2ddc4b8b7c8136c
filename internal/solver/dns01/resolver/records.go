package resolver

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// Record is the TXT record that a challenge is proven by.
type Record struct {
	// FQDN is the name at which the ACME server finds the record, after CNAMEs if those are followed,
	// with a dot at its end.
	FQDN string
	// Zone is the apex of the zone that has the name, with a dot at its end.
	Zone string
	// Value is the TXT value.
	Value string
	// Enough reports which other values also prove control. If nil, only Value does.
	Enough func(value string) bool
}

// In reports whether one of the values at the name is Value or Enough.
func (r Record) In(values []string) bool {
	return slices.Contains(values, r.Value) || r.Enough != nil && slices.ContainsFunc(values, r.Enough)
}

// Answer is the answer of one name server, from the first of its addresses that answered.
type Answer struct {
	// Server is the name, and Address is the address that was asked last.
	Server, Address string
	// Values are the TXT values at the name. They count only if Err is nil.
	Values []string
	// Alias is the target of a CNAME at the name, if there is one.
	Alias string
	// Err is set if no address answered.
	Err error
}

// Name returns the name of the server, and the address that answered, for messages.
func (a Answer) Name() string {
	name := strings.TrimSuffix(a.Server, ".")
	if a.Address != "" && a.Address != a.Server {
		name += " (" + a.Address + ")"
	}
	return name
}

// Ask asks every server of the record's zone for the TXT values at its name. It has its own
// timeout.
func (r *Resolver) Ask(ctx context.Context, record Record) ([]Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	servers, err := r.servers(ctx, record.Zone)
	if err != nil {
		return nil, err
	}
	answers := make([]Answer, len(servers))
	var group sync.WaitGroup
	for i, s := range servers {
		group.Go(func() { answers[i] = r.askServer(ctx, s, record) })
	}
	group.Wait()
	return answers, nil
}

// askServer asks all addresses of one server. An answer with the value wins. An answer without it
// counts only if no other address has it.
func (r *Resolver) askServer(ctx context.Context, s server, record Record) Answer {
	if len(s.addresses) == 0 {
		return Answer{Server: s.name, Err: cmp.Or(s.err, errNoAddress)}
	}
	results := make([]Answer, len(s.addresses))
	var group sync.WaitGroup
	for i, address := range s.addresses {
		group.Go(func() {
			a := Answer{Server: s.name, Address: address}
			m, err := r.exchange(ctx, address, record.FQDN, dns.TypeTXT, r.RecursiveOnly)
			if a.Err = err; err == nil {
				a.Values, a.Alias = txtValues(m, record.FQDN)
				if !m.Authoritative && !r.RecursiveOnly && !record.In(a.Values) {
					a.Err = lame(record.Zone)
				}
			}
			results[i] = a
		})
	}
	group.Wait()
	best := results[0]
	for _, a := range results {
		switch {
		case a.Err == nil && record.In(a.Values):
			return a
		case a.Err == nil && best.Err != nil:
			best = a
		}
	}
	return best
}

// txtValues returns the TXT values at a name. If the answer has CNAMEs, it follows them to alias.
func txtValues(m *dns.Msg, name string) (values []string, alias string) {
	names := []string{name}
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.CNAME:
			if len(names) <= maxCNAMEs && slices.Contains(names, FQDN(rr.Hdr.Name)) {
				alias = FQDN(rr.Target)
				names = append(names, alias)
			}
		case *dns.TXT:
			if slices.Contains(names, FQDN(rr.Hdr.Name)) {
				values = append(values, strings.Join(rr.Txt, ""))
			}
		}
	}
	return values, alias
}
