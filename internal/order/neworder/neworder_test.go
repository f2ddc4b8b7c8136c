package neworder

import (
	"errors"
	"fmt"
	"testing"

	"github.com/perennial-pki/perennial/acme"
)

func TestWhichRefusalsAreAboutWhatAnOrderReplaces(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		want bool
	}{
		"the certificate is replaced already": {&acme.Problem{Type: acme.ProblemAlreadyReplaced, Status: 409}, true},
		"of another account":                  {&acme.Problem{Type: acme.ProblemUnauthorized, Status: 403, Detail: "requester account did not request the certificate being replaced by this order"}, true},
		"for other names":                     {&acme.Problem{Type: acme.ProblemMalformed, Status: 400, Detail: "identifiers in this order do not match any identifiers in the certificate being replaced"}, true},
		"an identifier that is none":          {&acme.Problem{Type: acme.ProblemMalformed, Status: 400, Detail: "Could not validate ARI 'replaces' field :: parsing ARI CertID failed"}, true},
		"of an unknown issuer":                {&acme.Problem{Type: acme.ProblemMalformed, Status: 400, Detail: "parsing ARI CertID failed: no known issuer matches the provided Authority Key Identifier"}, true},
		"an unknown certificate":              {&acme.Problem{Type: acme.ProblemMalformed, Status: 404, Detail: "Could not validate ARI 'replaces' field :: could not find an existing certificate"}, true},
		"the same, of a type of its own":      {&acme.Problem{Type: acme.ProblemServerInternal, Status: 404, Detail: "no such certificate to replace"}, true},
		"replaced already, at older CAs": {
			&acme.Problem{Type: acme.ProblemConflict, Status: 409,
				Detail: "cannot indicate an order replaces certificate with serial 3a, which already has a replacement order"},
			true},
		"the same, without its status": {
			&acme.Problem{Type: acme.ProblemConflict, Detail: "certificate was already replaced"}, true},
		"another conflict": {
			&acme.Problem{Type: acme.ProblemConflict, Status: 409, Detail: "a key rollover is under way"}, false},
		"a page of a proxy with status 409":   {&acme.Problem{Status: 409, Detail: "replaced"}, false},
		"something else that is malformed":    {&acme.Problem{Type: acme.ProblemMalformed, Status: 400, Detail: "NotBefore and NotAfter are not supported"}, false},
		"something else that is not found":    {&acme.Problem{Type: acme.ProblemMalformed, Status: 404, Detail: "no such page"}, false},
		"the account is not allowed to":       {&acme.Problem{Type: acme.ProblemUnauthorized, Status: 403, Detail: "account is deactivated"}, false},
		"a page of a proxy":                   {&acme.Problem{Status: 404}, false},
		"a page of a proxy that speaks of it": {&acme.Problem{Status: 404, Detail: "this page was replaced"}, false},
		"a limit, in words that speak of it":  {&acme.Problem{Type: acme.ProblemRateLimited, Status: 429, Detail: "too many certificates, replace some"}, false},
		"trouble, in words that speak of it":  {&acme.Problem{Type: acme.ProblemServerInternal, Status: 500, Detail: "replacement order"}, false},
		"no answer":                           {errors.New("connection refused"), false},
		"nothing":                             {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.err
			if err != nil {
				err = fmt.Errorf("newOrder: %w", err)
			}
			if got := RefusesReplaces(err); got != test.want {
				t.Errorf("got %t", got)
			}
		})
	}
}
