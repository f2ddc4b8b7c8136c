package desired

import (
	"net/url"
	"strings"
	"time"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/fault"
)

// proofOf returns what is presented for a challenge and, if that is a TXT record of another name
// than dns-01's, where.
func proofOf(
	solver *cmacme.ACMEChallengeSolver,
	z cmacme.ACMEAuthorization,
	offered *cmacme.ACMEChallenge,
	server string,
	by acme.Account,
) (recordName, proof string, err error) {
	_, kind := typeOf(solver)
	if kind == acme.ChallengeDNSPersist01 {
		proof, err = standing(solver.DNS01, z, offered, server, by)
		return acme.DNSPersist01Name(z.Identifier), proof, err
	}
	if proof, err = acme.KeyAuthorization(offered.Token, by.Key.Public()); err != nil {
		return "", "", err
	}
	switch kind {
	case acme.ChallengeDNS01:
		return "", acme.DNS01Value(proof), nil
	case acme.ChallengeDNSAccount01:
		return acme.DNSAccount01Name(by.URL, z.Identifier), acme.DNS01Value(proof), nil
	}
	return "", proof, nil
}

// standing returns the value of the dns-persist-01 record. The record permits the account that it
// names to get certificates from the CA that it names. A hostile server could name an account at
// another CA as ours, and the record would permit that account. So the URL of the account must have
// the host of the server.
func standing(
	solver *cmacme.ACMEChallengeSolverDNS01,
	z cmacme.ACMEAuthorization,
	offered *cmacme.ACMEChallenge,
	server string,
	by acme.Account,
) (string, error) {
	if len(offered.IssuerDomainNames) == 0 {
		return "", fault.Refusedf(
			"InvalidChallenge",
			"the CA's dns-persist-01 challenge of %q cannot be used: it has to name 1 to 10 domain names of the "+
				"CA, by the draft -01",
			z.Identifier,
		)
	}
	ca, err := url.Parse(server)
	if err != nil {
		return "", fault.Misconfiguredf("InvalidConfig", "spec.acme.server: %q is not a URL", server)
	}
	account, err := url.Parse(by.URL)
	if err != nil || !strings.EqualFold(account.Host, ca.Host) {
		return "", fault.Refusedf("InvalidChallenge",
			"dns-persist-01 cannot be used: the account %s is not of the host %s of spec.acme.server, so the record could let "+
				"the owner of another account have certificates",
			by.URL, ca.Host)
	}
	grant := acme.DNSPersist01{IssuerDomainName: offered.IssuerDomainNames[0], AccountURI: by.URL, Wildcard: wildcard(z)}
	if until := solver.PersistUntil; until != nil {
		grant.Until = until.Time
	}
	if read, err := acme.ParseDNSPersist01(grant.String()); err != nil || !read.Grants(grant, time.Unix(0, 0)) {
		return "", fault.Refusedf("InvalidChallenge", "dns-persist-01 cannot be used: a record cannot say %q", grant)
	}
	return grant.String(), nil
}
