package order

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/pki"
)

// offer is a chain that a CA offers for a certificate.
type offer struct {
	pem   []byte
	top   string   // common name of the issuer of its last certificate
	extra []string // names that the CA added, see check
	err   error    // what is wrong with it, if anything
}

// maxAlternates is how many other chains are read. CAs have two or three.
const maxAlternates = 10

// fetch reads the certificate, with the chain that the issuer prefers if the CA offers it and it is
// good, else with the first good chain. It reads other chains than the default one only if needed.
func (r *Reconciler) fetch(ctx context.Context, p *passState, order *cmacme.Order, ca acme.Order,
	now time.Time) (got Fetched, err error) {
	preferred := p.spec().PreferredChain
	offers, best, err := r.offers(ctx, p, order, ca, now)
	if err != nil {
		return got, err
	}
	if err := offers[best].err; pki.DefectOf(err) == pki.KeyMismatch && p.memory.Finalized.IsZero() {
		return Fetched{OtherKey: true}, nil
	} else if err != nil {
		return got, fault.Refusedf("InvalidCertificate", "the CA sent a certificate that is not what was asked for: %w", err)
	}
	got.Certificate = offers[best].pem
	if why := besides(offers, best, preferred); why != "" {
		got.Warnings = append(got.Warnings, Event{corev1.EventTypeWarning, "OtherChain", why})
	}
	if extra := offers[best].extra; len(extra) > 0 {
		got.Warnings = append(got.Warnings, Event{corev1.EventTypeWarning, "ExtraNames",
			"The CA has added names that were not asked for: " + strings.Join(extra, ", ")})
	}
	return got, nil
}

// offers reads the chains of a certificate until it finds the one that the issuer prefers, and
// returns which is best.
func (r *Reconciler) offers(ctx context.Context, p *passState, order *cmacme.Order, ca acme.Order,
	now time.Time) (offers []offer, best int, err error) {
	chain, err := p.session.Certificate(ctx, ca.Certificate, func(chainPEM []byte) error {
		_, err := r.Limits.DecodeChainPEM(chainPEM)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	preferred := p.spec().PreferredChain
	offers = []offer{r.judge(order, chain.ChainPEM, now)}
	for _, url := range chain.Alternates[:min(len(chain.Alternates), maxAlternates)] {
		if offers[best].err == nil && (preferred == "" || offers[best].top == preferred) {
			break
		}
		other, err := p.session.Certificate(ctx, url, nil)
		switch {
		case unusable(err):
			continue // a chain that cannot be had is no reason to lose the certificate
		case err != nil:
			return nil, 0, err
		}
		offers = append(offers, r.judge(order, other.ChainPEM, now))
		is := offers[len(offers)-1]
		if is.err == nil && (offers[best].err != nil || preferred != "" && is.top == preferred) {
			best = len(offers) - 1
		}
	}
	return offers, best, nil
}

// unusable reports whether an error means that the CA does not serve a chain.
func unusable(err error) bool {
	var wrong *acme.ProtocolError
	var foreign *acme.ForeignURLError
	return errors.As(err, &wrong) || errors.As(err, &foreign) || err != nil && fault.Of(err).Class == fault.Refused
}

// judge checks a chain that the CA offers.
func (r *Reconciler) judge(order *cmacme.Order, chainPEM []byte, now time.Time) offer {
	is := offer{pem: chainPEM}
	if chain, err := r.Limits.DecodeChainPEM(chainPEM); err == nil {
		is.top = chain[len(chain)-1].Issuer.CommonName
	}
	is.extra, is.err = r.check(order, chainPEM, now)
	return is
}

// besides says why the chain is not the preferred one, or the default if none is preferred. It is
// empty if it is.
func besides(offers []offer, taken int, preferred string) string {
	switch is := offers[taken]; {
	case preferred == "" && taken == 0, preferred != "" && is.top == preferred:
		return ""
	case preferred == "":
		return fmt.Sprintf("The CA's default chain is not used, but that of %.64q: %s", is.top, offers[0].err)
	}
	var tops []string
	for _, o := range offers {
		if o.top == preferred {
			return fmt.Sprintf(
				"The chain of %q that the issuer prefers is not used, but that of %.64q: %s",
				preferred,
				offers[taken].top,
				o.err,
			)
		}
		if top := fmt.Sprintf("%.64q", o.top); !slices.Contains(tops, top) {
			tops = append(tops, top)
		}
	}
	return fmt.Sprintf(
		"The CA has no chain of %q, which the issuer prefers, but those of %s: that of %.64q is used. Correct "+
			"spec.acme.preferredChain, or leave it out",
		preferred,
		strings.Join(tops, ", "),
		offers[taken].top,
	)
}

// check returns what is wrong with a chain for an order, and the names that the CA added on its
// own.
func (r *Reconciler) check(order *cmacme.Order, chainPEM []byte, now time.Time) (extra []string, err error) {
	chain, err := r.Limits.DecodeChainPEM(chainPEM)
	if err != nil {
		return nil, err
	}
	csr, err := r.Limits.DecodeCSRPEM(order.Spec.Request)
	if err != nil {
		return nil, fmt.Errorf("spec.request: %w", err)
	}
	differences, err := pki.Judge(pki.Asked{CSR: csr}, pki.Issued{Chain: chain}, now)
	return differences.ExtraNames, err
}
