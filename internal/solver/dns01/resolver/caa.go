package resolver

import (
	"context"
	"strings"

	"github.com/miekg/dns"
)

// A CAA is a record that says which CAs may issue certificates, RFC 8659.
type CAA struct {
	Tag, Value string
}

// maxCAA is how many of the records of a name are read.
const maxCAA = 20

// CAA returns the CAA records that apply to a name, and the name at which they are: the name
// itself, or the nearest one above that has any. If at is empty, there are none.
func (r *Resolver) CAA(ctx context.Context, name string) (records []CAA, at string, err error) {
	labels := dns.SplitDomainName(name)
	for i := range labels {
		at = strings.Join(labels[i:], ".")
		answer, err := r.recursive(ctx, FQDN(at), dns.TypeCAA)
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
