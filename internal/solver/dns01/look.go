package dns01

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/solver"
)

// Look asks all name servers of the record's zone for it.
func (s *Solver) Look(ctx context.Context, ch *cmacme.Challenge) ([]solver.View, error) {
	r := s.resolver(ch)
	record, err := s.locate(ctx, r, ch)
	if err != nil {
		return nil, err
	}
	answers, err := r.Ask(ctx, record)
	if err != nil {
		return nil, err
	}
	var views []solver.View
	for _, a := range answers {
		v := solver.View{Where: a.who()}
		switch {
		case a.Err != nil:
			v.Silent, v.Says = true, fmt.Sprintf("cannot be reached: %s", a.Err)
		case slices.Contains(a.Values, record.Value):
			v.Right = true
		default:
			v.Says = fmt.Sprintf("answers %s for %s", quoted(a.Values), strings.TrimSuffix(record.FQDN, "."))
		}
		views = append(views, v)
	}
	return views, nil
}

// A CAA is a record that says who may issue, RFC 8659.
type CAA struct {
	Tag, Value string
}

// maxCAA is how many of the records of a name are read.
const maxCAA = 20

// CAA returns the CAA records that are in force for a name, and where they stand: at the name, or
// the nearest one above that has any. There are none if at is empty.
func (r *Resolver) CAA(ctx context.Context, name string) (records []CAA, at string, err error) {
	labels := dns.SplitDomainName(name)
	for i := range labels {
		at = strings.Join(labels[i:], ".")
		answer, err := r.recursive(ctx, fqdn(at), dns.TypeCAA)
		if err != nil {
			return nil, "", err
		}
		for _, rr := range answer.Answer {
			if c, ok := rr.(*dns.CAA); ok && len(records) < maxCAA {
				records = append(records, CAA{Tag: strings.ToLower(c.Tag), Value: c.Value})
			}
		}
		if len(records) > 0 {
			return records, at, nil
		}
	}
	return nil, "", nil
}

// Bogus reports whether DNSSEC is what keeps a name from being found: the recursive servers fail,
// but not if they are told not to verify. It is an attempt of its own.
func (r *Resolver) Bogus(ctx context.Context, name string) bool {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	list, err := r.nameservers()
	if err != nil {
		return false
	}
	for _, s := range list {
		code, err := r.code(ctx, s, name, false)
		if err != nil {
			continue
		}
		if code != dns.RcodeServerFailure {
			return false
		}
		code, err = r.code(ctx, s, name, true)
		return err == nil && code != dns.RcodeServerFailure
	}
	return false
}

// code returns with what a server answers a question for the zone of a name.
func (r *Resolver) code(ctx context.Context, address, name string, unverified bool) (int, error) {
	q := new(dns.Msg)
	q.SetQuestion(fqdn(name), dns.TypeSOA)
	q.SetEdns0(udpSize, true)
	q.CheckingDisabled = unverified
	m, err := r.send(ctx, address, q)
	if err != nil {
		return 0, err
	}
	return m.Rcode, nil
}
