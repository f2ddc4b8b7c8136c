package order

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/signer"
)

// notOfOrder is the reason of a Challenge that is not what its Order and issuer ask for.
const notOfOrder = "NotOfItsOrder"

// recompute sees whether a Challenge is what its Order and issuer ask for, before their credentials
// are used for it. Admission policies let no other user write one; but it may be older than they are.
func (r *ChallengeReconciler) recompute(ctx context.Context, i *signer.Issuer, by acme.Account,
	ch *cmacme.Challenge) error {
	order := &cmacme.Order{}
	owner := metav1.GetControllerOf(ch)
	if owner == nil || owner.Kind != "Order" {
		return fault.Misconfiguredf(notOfOrder,
			"the Challenge belongs to no Order, so that nothing is set up for it: delete it")
	}
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: ch.Namespace, Name: owner.Name}, order,
		client.UnsafeDisableDeepCopy)
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	if err != nil || order.UID != owner.UID {
		return fault.Misconfiguredf(notOfOrder,
			"the Order of the Challenge does not exist, so that nothing is set up for it: delete it")
	}
	should, err := should(order, i.GetSpec().ACME, by, ch)
	if err != nil {
		return err
	}
	if is := differs(should, ch); is != "" {
		return fault.Misconfiguredf(notOfOrder,
			"the Challenge is not what its Order and its issuer ask for: %s differs, so that nothing is set up for it; delete "+
				"it, and the Order makes another", is)
	}
	return nil
}

// should is the Challenge that an Order and its issuer ask for, for the authorization of one that
// is there.
func should(order *cmacme.Order, spec *cmacme.ACMEIssuer, by acme.Account,
	ch *cmacme.Challenge) (*cmacme.Challenge, error) {
	at := slices.IndexFunc(order.Status.Authorizations,
		func(z cmacme.ACMEAuthorization) bool { return z.URL == ch.Spec.AuthorizationURL })
	if at < 0 || order.Status.Authorizations[at].Identifier == "" {
		return nil, fault.Misconfiguredf(notOfOrder,
			"the Order of the Challenge has no such authorization, so that nothing is set up for it: delete it")
	}
	z := order.Status.Authorizations[at]
	ask, err := request(order)
	if err != nil {
		return nil, err
	}
	named := acme.DNS(z.Identifier)
	if addr, err := netip.ParseAddr(z.Identifier); err == nil {
		named = acme.IP(addr)
	}
	if !slices.ContainsFunc(ask.Identifiers, func(id acme.Identifier) bool {
		id.Value = strings.TrimPrefix(id.Value, "*.")
		return canonical(id) == canonical(named)
	}) {
		return nil, fault.Misconfiguredf(notOfOrder,
			"the Order of the Challenge is not for %q, so that nothing is set up for it: delete it", z.Identifier)
	}
	return challengeFor(order, z, spec, by)
}

// differs names the field of its spec in which a Challenge differs from the one that it should be.
func differs(should, is *cmacme.Challenge) string {
	for _, field := range []struct {
		name   string
		differ bool
	}{
		{"issuerRef", should.Spec.IssuerRef.Name != is.Spec.IssuerRef.Name ||
			should.Spec.IssuerRef.KindOrDefault() != is.Spec.IssuerRef.KindOrDefault() ||
			should.Spec.IssuerRef.GroupOrDefault() != is.Spec.IssuerRef.GroupOrDefault()},
		{"dnsName", should.Spec.DNSName != is.Spec.DNSName},
		{"wildcard", should.Spec.Wildcard != is.Spec.Wildcard},
		{"type", should.Spec.Type != is.Spec.Type},
		{"url", should.Spec.URL != is.Spec.URL},
		{"token", should.Spec.Token != is.Spec.Token},
		{"key", should.Spec.Key != is.Spec.Key},
		{"recordName", should.Spec.RecordName != is.Spec.RecordName},
		{"keyAuthorization", should.Spec.KeyAuthorization != is.Spec.KeyAuthorization},
		{"solver", !equality.Semantic.DeepEqual(should.Spec.Solver, withoutSelector(is.Spec.Solver))},
	} {
		if field.differ {
			return "spec." + field.name
		}
	}
	return ""
}

// withoutSelector is a solver without what it was chosen by, which cert-manager's Challenges have.
func withoutSelector(s cmacme.ACMEChallengeSolver) cmacme.ACMEChallengeSolver {
	s.Selector = nil
	return s
}

// mayCleanUp sees whether the credentials of an issuer may be used to take away what a Challenge
// has set up. What was set up by this controller, as the status says that it alone writes, is taken
// away with the settings that it was set up with, also if the issuer has others by now. Where the
// status does not say so, as the process ended before it could, the solver must be one of the
// issuer, or the Challenge what its Order asks for.
func (r *ChallengeReconciler) mayCleanUp(ctx context.Context, i *signer.Issuer, ch *cmacme.Challenge) error {
	if r.Guard != nil {
		if err := r.Guard(i); err != nil {
			return err
		}
	}
	if ch.Status.Presented || ch.Status.Processing || i.Kind != signer.KindClusterIssuer ||
		ch.Spec.Type != cmacme.ACMEChallengeTypeDNS01 {
		return nil
	}
	if spec := i.GetSpec().ACME; spec != nil && likeProof(ch) && slices.ContainsFunc(spec.Solvers,
		func(s cmacme.ACMEChallengeSolver) bool {
			return equality.Semantic.DeepEqual(withoutSelector(s), withoutSelector(ch.Spec.Solver))
		}) {
		return nil
	}
	_, by, err := r.Accounts.Of(ctx, i)
	if err != nil {
		return err
	}
	return r.recompute(ctx, i, by, ch)
}

// likeProof reports whether name and value of a TXT record can be those of a proof: taking it away
// harms no other record.
func likeProof(ch *cmacme.Challenge) bool {
	return (ch.Spec.RecordName == "" || strings.Contains(ch.Spec.RecordName, "._acme-challenge.")) &&
		len(ch.Spec.Key) == len(acme.DNS01Value(""))
}
