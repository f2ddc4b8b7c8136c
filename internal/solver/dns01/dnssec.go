package dns01

import (
	"context"

	"github.com/miekg/dns"
)

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
