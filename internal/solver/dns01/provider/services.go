package provider

import (
	"context"

	"github.com/perennial-pki/perennial/internal/signer"
)

// service is a row of the table of services: all that depends on which of them a solver names.
// Functions that a service does not need are nil.
type service struct {
	// field is the name of the field in dns01.
	field string
	// configured reports whether a solver names the service.
	configured func(s *spec) bool
	// check returns an error if settings are wrong, as far as that follows from the solver. It reads
	// no Secrets and sends no requests.
	check func(f *Factory, issuer *signer.Issuer, s *spec) error
	// references returns the Secret entries with credentials, which open gets.
	references func(s *spec) []reference
	// checkCredential returns an error if a credential does not have the form that the service needs.
	checkCredential func(issuer *signer.Issuer, field, value string) error
	// verify checks what needs more than the solver and its credentials.
	verify func(ctx context.Context, f *Factory, issuer *signer.Issuer, s *spec) error
	// open makes the provider. The settings and credentials have been checked.
	open func(ctx context.Context, f *Factory, r request, c credentials) (Provider, error)
	// traits differ from the zero value, and endpoint from "its DNS service".
	traits   func(s *spec) Traits
	endpoint func(s *spec) string
	// place is as Place.
	place func(s *spec, fqdn string) string
}

// services has a row for each service, in the order in which messages name them. A solver names
// one; the admission policies refuse more.
var services = []*service{
	&rfc2136Service,
	&route53Service,
	&cloudDNSService,
	&azureDNSService,
	&cloudflareService,
	&digitalOceanService,
	&akamaiService,
	&acmeDNSService,
	&webhookService,
	&legoService,
}

// find returns the service that a solver names, or nil.
func find(s *spec) *service {
	for _, one := range services {
		if s != nil && one.configured(s) {
			return one
		}
	}
	return nil
}

// traits are the same for all solvers of a service.
func traits(t Traits) func(*spec) Traits { return func(*spec) Traits { return t } }
