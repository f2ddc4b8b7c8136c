package ratelimit

// charge is a bucket that an order takes a token from.
type charge struct {
	kind    Reason
	subject string
	limit   Limit
	key     key
	// required says that the order waits for the token. Other buckets only lose one.
	required bool
}

// candidate is a Request with the bucket and refusal keys that follow from it.
type candidate struct {
	Request
	orders, certificates, validations []charge
	// names are those that the CA validates. failures are their keys, in the same order.
	names    []string
	failures []key
	refusals refusalKeys
}

// refusalKeys are the keys under which a refusal by the CA may be stored. Refusals for a pause, or
// for the request itself, hold for exempt orders, too.
type refusalKeys struct {
	orders, set, renewal, request key
	// domains, and names and pauses, are in the order of the domains and names of the candidate.
	domains, names, pauses []key
}

func newCandidate(r Request) *candidate {
	c := &candidate{Request: r}
	exact := exactSet(r.Identifiers)
	c.refusals = refusalKeys{
		orders:  keyOf(string(Refused), string(NewOrders), r.Account),
		set:     keyOf(string(Refused), string(ExactSet), exact),
		renewal: keyOf(string(Refused), "renewal", r.Account, exact),
		request: keyOf(string(Refused), r.Account, exact),
	}
	c.orders = chargesOf(NewOrders, r.Account, r.Limits.NewOrders, r.Published.NewOrders)
	for _, d := range domains(r.Identifiers) {
		c.certificates = append(c.certificates, chargesOf(Domain, d, r.Limits.Domain, r.Published.Domain)...)
		c.refusals.domains = append(c.refusals.domains, keyOf(string(Refused), string(Domain), d))
	}
	c.certificates = append(c.certificates, chargesOf(ExactSet, exact, r.Limits.Set, r.Published.Set)...)
	seen := map[string]bool{}
	for _, id := range r.Identifiers {
		name := base(id)
		if seen[name] {
			continue
		}
		seen[name] = true
		c.addName(name)
	}
	return c
}

// chargesOf returns the tokens that an order takes from the limit of its issuer and from the
// published limit. It takes from both, so that the orders of an issuer with a higher limit count
// for all issuers.
func chargesOf(kind Reason, subject string, own, published Limit) (all []charge) {
	if !own.None() {
		all = append(all, charge{kind, subject, own, own.key(kind, subject), true})
	}
	if !published.None() && own != published {
		all = append(all, charge{kind, subject, published, published.key(kind, subject), false})
	}
	return all
}

func (c *candidate) addName(name string) {
	c.names = append(c.names, name)
	if limit := c.Limits.Validations; !limit.None() {
		k := limit.key(Validations, c.Account+" "+name)
		c.validations = append(c.validations, charge{Validations, name, limit, k, true})
	}
	c.failures = append(c.failures, failureKey(c.Account, name))
	c.refusals.names = append(c.refusals.names, keyOf(string(Refused), string(Validations), c.Account, name))
	c.refusals.pauses = append(c.refusals.pauses, keyOf(string(Refused), string(Paused), c.Account, name))
}

// renewal reports whether the CA takes the order as the renewal of a certificate with the same
// identifiers.
func (l *Ledger) renewal(c *candidate, now int64) bool {
	if c.Renewal {
		return true
	}
	for _, b := range c.certificates {
		if b.kind == ExactSet && l.full[b.key] > now {
			return true // issued not long ago
		}
	}
	return false
}
