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
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/pki"
)

// offer is a chain that a CA offers for a certificate.
type offer struct {
	pem   []byte
	top   string   // common name of the issuer of its last certificate
	extra []string // as check has it
	err   error    // what is wrong with it, if anything
}

// maxAlternates is how many other chains are looked at. CAs have two or three.
const maxAlternates = 10

// fetch reads the certificate, and stores it if it is what was asked for: with the chain that the issuer prefers, if the CA has that and it is
// good, else with the first that is. Other chains than the default one are asked for only if that is not the one.
func (r *Reconciler) fetch(ctx context.Context, o conversation, order *cmacme.Order, got acme.Order, preferred string) error {
	chain, err := o.ca.Certificate(ctx, o.by, got.Certificate)
	if err != nil {
		return err
	}
	if _, err := r.Limits.DecodeChainPEM(chain.ChainPEM); err != nil {
		return &acme.ProtocolError{Action: "certificate", URL: got.Certificate, Reason: err.Error()}
	}
	offers := []offer{r.judge(order, chain.ChainPEM, o.now)}
	best := 0
	settled := func() bool {
		return offers[best].err == nil && (preferred == "" || offers[best].top == preferred)
	}
	for _, url := range chain.Alternates[:min(len(chain.Alternates), maxAlternates)] {
		if settled() {
			break
		}
		other, err := o.ca.Certificate(ctx, o.by, url)
		var wrong *acme.ProtocolError
		var foreign *acme.ForeignURLError
		switch {
		case errors.As(err, &wrong), errors.As(err, &foreign), err != nil && fault.Of(account.Fault("", o.now, err)).Class == fault.Refused:
			continue // a chain that cannot be had is no reason to lose the certificate
		case err != nil:
			return err
		}
		offers = append(offers, r.judge(order, other.ChainPEM, o.now))
		if is := offers[len(offers)-1]; is.err == nil && (offers[best].err != nil || preferred != "" && is.top == preferred) {
			best = len(offers) - 1
		}
	}
	if err := offers[best].err; pki.DefectOf(err) == pki.KeyMismatch && !r.finalized.is(string(order.UID)) {
		// Nothing was issued for this one, whatever its state says: the other one may have waited too long to be waited for, or be no Order.
		end(order, o.now, cmacme.Expired, "the CA has answered another request for the same names with this order, too, and issued it for that one's key")
		return nil
	} else if err != nil {
		return fault.Refusedf("InvalidCertificate", "the CA sent a certificate that is not what was asked for: %w", err)
	}
	if why := besides(offers, best, preferred); why != "" {
		*o.say = append(*o.say, func() { r.Events.Event(order, corev1.EventTypeWarning, "OtherChain", why) })
	}
	if extra := offers[best].extra; len(extra) > 0 {
		*o.say = append(*o.say, func() {
			r.Events.Eventf(order, corev1.EventTypeWarning, "ExtraNames", "The CA has added names that were not asked for: %s",
				strings.Join(extra, ", "))
		})
	}
	order.Status.Certificate, order.Status.State, order.Status.Reason = offers[best].pem, cmacme.Valid, ""
	return nil
}

// judge looks at a chain that the CA offers.
func (r *Reconciler) judge(order *cmacme.Order, chainPEM []byte, now time.Time) offer {
	is := offer{pem: chainPEM}
	if chain, err := r.Limits.DecodeChainPEM(chainPEM); err == nil {
		is.top = chain[len(chain)-1].Issuer.CommonName
	}
	is.extra, is.err = r.check(order, chainPEM, now)
	return is
}

// besides says why it is another chain than the one that was to be, or nothing if it is that one: the preferred one, or the default.
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
			return fmt.Sprintf("The chain of %q that the issuer prefers is not used, but that of %.64q: %s", preferred, offers[taken].top, o.err)
		}
		if top := fmt.Sprintf("%.64q", o.top); !slices.Contains(tops, top) {
			tops = append(tops, top)
		}
	}
	return fmt.Sprintf("The CA has no chain of %q, which the issuer prefers, but those of %s: that of %.64q is used. Correct spec.acme.preferredChain, or leave it out",
		preferred, strings.Join(tops, ", "), offers[taken].top)
}

// check reports what is wrong with a chain for an order, and the names that the CA has added of
// itself.
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
