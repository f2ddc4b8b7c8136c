package account

import (
	"context"
	"fmt"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/signer"
)

// recoverInterval is the shortest time between two registrations of an account that the CA has
// forgotten. A CA that forgets it each time is not asked in a loop.
const recoverInterval = 10 * time.Minute

// recovery is what was done about an account that the CA did not know.
type recovery struct {
	at  time.Time // when it was registered again, zero while it is being
	url string    // of the account that was found or made
	// inVain says that the CA has not known that one either.
	inVain bool
}

// registered reports whether the account in the issuer's status is that of its server and key, and
// was not refused.
func registered(issuer *signer.Issuer, keyHash string) bool {
	old, ready := issuer.GetStatus().ACME, cmapi.GetIssuerCondition(issuer.GetStatus(), cmapi.IssuerConditionReady)
	if old == nil || old.URI == "" || old.LastPrivateKeyHash != keyHash || ready == nil {
		return false
	}
	// cert-manager does not record the server. Then an unchanged generation shows that the server is
	// the same.
	sameServer := old.Server == issuer.GetSpec().ACME.Server || old.Server == "" &&
		ready.ObservedGeneration == issuer.GetGeneration()
	return sameServer && (ready.Status == cmmeta.ConditionTrue || !slices.Contains(accountReasons, ready.Reason))
}

// accountReasons are those with which Ready says that the account cannot be used.
var accountReasons = []string{"ErrRegisterACMEAccount", "ErrVerifyACMEAccount", "ErrUpdateACMEAccount"}

// upToDate reports whether the CA was asked about all that the issuer says now, and answered.
func upToDate(issuer *signer.Issuer) bool {
	ready := cmapi.GetIssuerCondition(issuer.GetStatus(), cmapi.IssuerConditionReady)
	return ready.ObservedGeneration == issuer.GetGeneration() &&
		cmapi.GetIssuerCondition(issuer.GetStatus(), cmapi.IssuerConditionUnreachable) == nil &&
		issuer.GetStatus().ACME.LastRegisteredEmail == issuer.GetSpec().ACME.Email &&
		(ready.Status == cmmeta.ConditionTrue || ready.Reason == signer.ReasonInvalidSolver)
}

// Recover finds out why the CA did not accept an account. If the CA has forgotten it, Recover
// registers its key again, and writes the URL into the issuer's status if it is a new one. If the
// account is closed, Recover makes the issuer unready until the user replaces the key. If the CA
// has forgotten an account that was registered again less than recoverInterval ago, the account is
// not used until it may be registered once more: see of. The answer to a request from before the
// registration is ignored.
func (a *Accounts) Recover(ctx context.Context, issuer *signer.Issuer, asked time.Time, forgotten bool) error {
	now := a.Clock.Now()
	a.mu.Lock()
	last, known := a.recovered[issuer.Key()]
	if known && last.at.IsZero() {
		a.mu.Unlock()
		// Another pass registers it, and some bindings to an external account work only once. The next
		// attempt sees the outcome.
		return nil
	}
	if asked.Before(last.at) {
		a.mu.Unlock()
		return nil
	}
	if now.Before(last.at.Add(recoverInterval)) {
		last.inVain = last.inVain || forgotten
		a.recovered[issuer.Key()] = last
		a.mu.Unlock()
		return last.fault(issuer)
	}
	if a.recovered == nil {
		a.recovered = map[string]recovery{}
	}
	a.recovered[issuer.Key()] = recovery{}
	a.mu.Unlock()
	var registered string
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if registered != "" {
			a.recovered[issuer.Key()] = recovery{at: a.Clock.Now(), url: registered}
		} else {
			delete(a.recovered, issuer.Key()) // it is tried again when the failure says
		}
	}()
	c, err := a.Server(issuer.GetSpec().ACME, issuer.Kind)
	if err != nil {
		return err
	}
	key, err := a.key(ctx, issuer)
	if err != nil {
		return err
	}
	if rotating, err := a.rotating(ctx, issuer); err != nil || rotating {
		return err // what the CA does not know is the old key
	}
	account, err := a.register(ctx, issuer, c, key, false)
	failure := fault.Of(Classify("ErrRegisterACMEAccount", now, err))
	if err != nil && failure.Class != fault.Misconfigured {
		return failure
	}
	if status := issuer.GetStatus().ACME; err == nil && status != nil && status.URI == account.URL {
		registered = account.URL
		return nil
	}
	object, ok := issuer.GenericIssuer.(client.Object)
	if !ok {
		return fmt.Errorf("%s is no object", issuer)
	}
	next := object.DeepCopyObject().(interface {
		client.Object
		cmapi.GenericIssuer
	})
	if err != nil {
		cmapi.SetIssuerCondition(next.GetStatus(), now, cmapi.IssuerCondition{
			Type:               cmapi.IssuerConditionReady,
			Status:             cmmeta.ConditionFalse,
			Reason:             failure.Reason,
			Message:            failure.Error(),
			ObservedGeneration: issuer.GetGeneration(),
		})
	} else {
		next.GetStatus().ACME = statusOf(issuer, account, key)
	}
	if err := a.Client.Status().
		Patch(ctx, next, client.MergeFromWithOptions(object, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("write status of %s: %w", issuer, err)
	}
	if err != nil {
		return failure
	}
	registered = account.URL
	return nil
}

// fault says that a recovery was in vain.
func (r recovery) fault(issuer *signer.Issuer) error {
	return fault.Limitedf(
		"ErrVerifyACMEAccount",
		r.at.Add(recoverInterval),
		"the CA knows no account of %s although it was registered again at %s",
		issuer,
		r.at.UTC().Format(time.RFC3339),
	)
}
