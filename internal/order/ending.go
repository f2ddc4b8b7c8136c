package order

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/fault"
)

// end writes that the order is lost.
func end(order *cmacme.Order, now time.Time, state cmacme.State, reason string) {
	order.Status.State, order.Status.Reason = state, reason
	if order.Status.FailureTime == nil {
		t := metav1.NewTime(now)
		order.Status.FailureTime = &t
	}
}

// lapse writes that the order is of no use any more, though nobody's proof failed: it took too long, or belongs to another account. Another
// takes its place at once, unless the CA was asked for the certificate of this one: then it may have been issued.
func (r *Reconciler) lapse(order *cmacme.Order, now time.Time, reason string) {
	state := cmacme.Expired
	if order.Status.State == cmacme.Processing || r.finalized.is(string(order.UID)) {
		state = cmacme.Errored
	}
	end(order, now, state, reason)
}

// gone says that the CA no longer has an order, or an authorization, for the account that asks, if that is what an error means. CAs forget what has
// expired, and never had what was made at another server, which was the issuer's before.
func gone(err error) string {
	var p *acme.Problem
	var foreign *acme.ForeignURLError
	switch {
	case errors.As(err, &foreign) && foreign.Action != "certificate": // which the CA has named just now
		return "the issuer has another server by now: " + foreign.Reason
	case !errors.As(err, &p), p.Action != "order" && p.Action != "authorization":
		return ""
	case p.Type == acme.ProblemUnauthorized:
		return fmt.Sprintf("the %s was made by another account, or has expired: %s", p.Action, p)
	case p.Type == acme.ProblemMalformed, p.Status == 404:
		return fmt.Sprintf("the CA no longer knows the %s: %s", p.Action, p)
	}
	return ""
}

// readAgain is for how long a reply that cannot be read is fetched again. What has become of an
// order stays at its URLs.
const readAgain = time.Hour

// unreadable reports whether a reply is none that an ACME server gives: what stands before it may
// have given it, or it was cut.
func unreadable(err error) bool {
	var wrong *acme.ProtocolError
	var p *acme.Problem
	return errors.As(err, &wrong) ||
		errors.As(err, &p) && p.Type == "" && p.Status >= 400 && p.Status < 500 && p.Status != http.StatusTooManyRequests
}

// again returns the error with which a reply is fetched again that cannot be read, and nil if it
// can be, or could not be for too long.
func (r *Reconciler) again(order *cmacme.Order, now time.Time, err error) error {
	if !unreadable(err) {
		r.unread.drop(string(order.UID))
		return nil
	}
	if now.Sub(r.unread.since(string(order.UID), now)) >= readAgain {
		return nil
	}
	return fault.Transientf("UnreadableReply", "%w", err)
}

// noCertificate is the error of a certificate that could not be read for too long: another order
// may bring one that can be.
func noCertificate(err error) error {
	var wrong *acme.ProtocolError
	if errors.As(err, &wrong) && wrong.Action == "certificate" {
		return fault.Refusedf("InvalidCertificate", "the CA sent no certificate that can be read for %s: %w", readAgain, err)
	}
	return err
}

// notFinalized returns the error of a finalize, unless it means that the order has lapsed, which is written into its status.
func (r *Reconciler) notFinalized(ctx context.Context, o conversation, order *cmacme.Order, challenges []cmacme.Challenge, err error) error {
	var p *acme.Problem
	switch {
	case !errors.As(err, &p):
	case aboutCAA(p):
		text, full := r.explainCAA(ctx, o, order, challenges, p)
		if full != nil {
			return full
		}
		return fmt.Errorf("%w. %s", err, text)
	case p.Status == 404:
		r.lapse(order, o.now, fmt.Sprintf("the CA no longer knows the order: %s", p))
		return nil
	case p.Type == acme.ProblemMalformed, p.Type == acme.ProblemUnauthorized:
		if lapsed, err := r.lapsed(ctx, o, order); lapsed || err != nil {
			return err
		}
	}
	return err
}

// invalid ends an order that the CA says is invalid.
func (r *Reconciler) invalid(ctx context.Context, o conversation, order *cmacme.Order, got acme.Order, challenges []cmacme.Challenge) error {
	switch worst := worst(challenges); {
	case worst == cmacme.Expired:
		r.lapse(order, o.now, why(got, challenges))
		return nil
	case worst == "" && got.Error == nil:
		if lapsed, err := r.lapsed(ctx, o, order); lapsed || err != nil {
			return err
		}
	}
	reason := why(got, challenges)
	if got.Error != nil {
		text, err := r.explainCAA(ctx, o, order, challenges, got.Error)
		if err != nil {
			return err
		}
		if text != "" {
			reason += ". " + text
		}
	}
	end(order, o.now, cmacme.Invalid, reason)
	return nil
}

// lapsed ends an order one of whose authorizations is of no use any more, and reports whether there is one.
func (r *Reconciler) lapsed(ctx context.Context, o conversation, order *cmacme.Order) (bool, error) {
	text, until, err := o.lapsed(ctx, order)
	if text != "" {
		r.lapse(order, o.now, text)
	}
	r.due.by(client.ObjectKeyFromObject(order).String(), until)
	return text != "", err
}

// worst is how challenges ended that did not succeed: of several, one whose proof failed. It is empty if there is none.
func worst(challenges []cmacme.Challenge) cmacme.State {
	var worst cmacme.State
	for i := range challenges {
		if s := challenges[i].Status.State; finished(s) && s != cmacme.Valid && (worst == "" || worst == cmacme.Expired) {
			worst = s
		}
	}
	return worst
}

// why says why an order failed: what the CA says of each challenge, and of the order.
func why(got acme.Order, challenges []cmacme.Challenge) string {
	var parts []string
	for i := range challenges {
		if s := challenges[i].Status; finished(s.State) && s.State != cmacme.Valid {
			parts = append(parts, fmt.Sprintf("%s of %s: %s", challenges[i].Spec.Type, challenges[i].Spec.DNSName, s.Reason))
		}
	}
	if got.Error != nil && len(parts) == 0 {
		parts = append(parts, got.Error.Error())
	}
	if len(parts) == 0 {
		parts = append(parts, "the CA says that the order is invalid, and not why")
	}
	return strings.Join(parts, "; ")
}
