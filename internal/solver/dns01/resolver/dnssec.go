package resolver

import (
	"context"

	"github.com/miekg/dns"
)

// Bogus reports whether a name cannot be resolved because of DNSSEC: the recursive servers fail,
// but succeed if the query disables verification. It has its own timeout.
func (r *Resolver) Bogus(ctx context.Context, name string) bool {
	ctx, cancel := context.WithTimeout(ctx, timeout)
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

// code returns the response code of a server to a query for the SOA of a name.
func (r *Resolver) code(ctx context.Context, address, name string, unverified bool) (int, error) {
	q := new(dns.Msg)
	q.SetQuestion(FQDN(name), dns.TypeSOA)
	q.SetEdns0(MaxUDPSize, true)
	q.CheckingDisabled = unverified
	m, err := r.send(ctx, address, q)
	if err != nil {
		return 0, err
	}
	return m.Rcode, nil
}
