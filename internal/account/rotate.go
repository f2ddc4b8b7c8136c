package account

import (
	"context"
	"crypto"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/lane"
	"github.com/perennial-pki/perennial/internal/signer"
)

// NextSuffix is what the name of the entry ends with in which the next account key stands, beside that of the key in use. Whoever puts a key
// there has the account's key changed to it, RFC 8555 section 7.3.5. The entry goes when that is done.
const NextSuffix = ".next"

// rotating reports whether the account key is to be changed.
func (a *Accounts) rotating(ctx context.Context, issuer *signer.Issuer) (bool, error) {
	ref := issuer.GetSpec().ACME.PrivateKey
	secret, err := a.Secrets.Get(ctx, issuer.SecretNamespace, ref.Name)
	if err != nil {
		return false, client.IgnoreNotFound(err)
	}
	return len(secret.Data[keyEntry(ref)+NextSuffix]) > 0, nil
}

// rotate changes the account key to the one that stands beside it, if there is one, and returns the key that is in use then. Both keys stay
// in the Secret until the CA has changed, so that after a crash at any moment one of them is the account's.
func (a *Accounts) rotate(ctx context.Context, issuer *signer.Issuer, c *acme.Client, key crypto.Signer) (crypto.Signer, error) {
	ref := issuer.GetSpec().ACME.PrivateKey
	entry := keyEntry(ref)
	secret, err := a.Secrets.Get(ctx, issuer.SecretNamespace, ref.Name)
	if err != nil || len(secret.Data[entry+NextSuffix]) == 0 {
		return key, client.IgnoreNotFound(err)
	}
	next, err := a.decodeKey(secret, entry+NextSuffix)
	if err != nil {
		return nil, err
	}
	if hash(next) != hash(key) {
		if err := lane.Enter(ctx, Party(issuer.GetSpec().ACME)); err != nil {
			return nil, err
		}
		// The CA may know the new key already: its answer may have been lost.
		_, err := c.FindAccount(ctx, next)
		if acme.IsProblem(err, acme.ProblemAccountDoesNotExist) {
			var old acme.Account
			if old, err = c.FindAccount(ctx, key); err == nil {
				_, err = c.ChangeKey(ctx, old, next)
			}
			if acme.IsProblem(err, acme.ProblemAccountDoesNotExist) {
				err = nil // there is no account to change: one will be made, with the new key
			}
		}
		if err != nil {
			return nil, Fault("ErrUpdateACMEAccount", a.Clock.Now(), fmt.Errorf("change the account key: %w", err))
		}
	}
	changed := secret.DeepCopy()
	changed.Data[entry] = secret.Data[entry+NextSuffix]
	delete(changed.Data, entry+NextSuffix)
	// A Secret that is not ours by its label is in no cache that waits for our writes.
	if err := a.Client.Patch(ctx, changed, client.MergeFromWithOptions(secret, client.MergeFromWithOptimisticLock{}), client.DisableReadYourWritesConsistency); err != nil {
		return nil, fault.Transientf("ErrUpdateACMEAccount", "store the new account key in Secret %s/%s: %w", secret.Namespace, secret.Name, err)
	}
	return next, nil
}
