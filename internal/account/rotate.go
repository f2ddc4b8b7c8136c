package account

import (
	"bytes"
	"context"
	"crypto"
	"encoding/pem"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// NextSuffix ends the name of the Secret's entry with the next account key; the rest of the name is
// that of the entry with the key in use. If the user puts a key there, the controller changes the
// account's key to it (RFC 8555 section 7.3.5), and then removes the entry.
const NextSuffix = ".next"

// previousSuffix ends the name of the entry with the former keys, the newest first. Issuers of
// several CAs may share a Secret. If a CA does not answer while an issuer of another CA changes the
// key, the account at the first CA still has a former key.
const previousSuffix = ".previous"

// maxPrevious is how many former keys are kept. A CA may be unreachable during so many changes, and
// no old key stays for ever.
const maxPrevious = 3

// rotating reports whether the account key is to be changed.
func (a *Accounts) rotating(ctx context.Context, issuer *signer.Issuer) (bool, error) {
	ref := issuer.GetSpec().ACME.PrivateKey
	secret, err := issuer.ReadSecret(ctx, a.Secrets, ref.Name)
	if err != nil {
		return false, client.IgnoreNotFound(err)
	}
	return len(secret.Data[keyEntry(ref)+NextSuffix]) > 0, nil
}

// rotate changes the account key to the next one in the Secret, if there is one, and returns the
// key that is in use then. Both keys stay in the Secret until the CA has changed, so that after a
// crash at any moment one of them is the account's. The old one stays after that, too, for the CAs
// of other issuers with this Secret: see find.
func (a *Accounts) rotate(
	ctx context.Context,
	issuer *signer.Issuer,
	c *acme.Client,
	key crypto.Signer,
) (crypto.Signer, error) {
	ref := issuer.GetSpec().ACME.PrivateKey
	entry := keyEntry(ref)
	secret, err := issuer.ReadSecret(ctx, a.Secrets, ref.Name)
	if err != nil || len(secret.Data[entry+NextSuffix]) == 0 {
		return key, client.IgnoreNotFound(err)
	}
	next, err := a.decodeKey(issuer, secret, entry+NextSuffix)
	if err != nil {
		return nil, err
	}
	changed := secret.DeepCopy()
	changed.Data[entry] = secret.Data[entry+NextSuffix]
	delete(changed.Data, entry+NextSuffix)
	if hash(next) != hash(key) {
		if err := limiter.Acquire(ctx, caTarget(issuer.GetSpec().ACME)); err != nil {
			return nil, err
		}
		// The CA may know the new key already: its answer may have been lost.
		_, err := c.FindAccount(ctx, next)
		if acme.IsProblem(err, acme.ProblemAccountDoesNotExist) {
			var old acme.Account
			if old, err = c.FindAccount(ctx, key); err == nil {
				_, err = changeKey(ctx, c, old, next)
			}
			if acme.IsProblem(err, acme.ProblemAccountDoesNotExist) {
				// There is no account to change. Registration with the new key finds one by an older key, or
				// makes one.
				err = nil
			}
		}
		if no := (*acme.UnsupportedError)(nil); errors.As(err, &no) {
			return nil, fault.Misconfiguredf(
				"ErrUpdateACMEAccount",
				"%w: remove entry %s from %s, and the account stays as it is",
				no,
				entry+NextSuffix,
				issuer.SecretInRequests(secret.Name),
			)
		}
		if err != nil {
			return nil, Classify("ErrUpdateACMEAccount", a.Clock.Now(), fmt.Errorf("change the account key: %w", err))
		}
		if changed.Data[entry+previousSuffix], err = withPrevious(key, secret.Data[entry+previousSuffix]); err != nil {
			return nil, err
		}
	}
	// A Secret that is not ours by its label is in no cache that waits for our writes.
	err = a.Client.Patch(
		ctx,
		changed,
		client.MergeFromWithOptions(secret, client.MergeFromWithOptimisticLock{}),
		client.DisableReadYourWritesConsistency,
	)
	// A conflict is no failure: the write of another issuer with this Secret starts the next pass.
	if err != nil &&
		!apierrors.IsConflict(
			err,
		) {
		return nil, fault.Transientf(
			"ErrUpdateACMEAccount",
			"store the new account key in %s: %w",
			issuer.SecretInRequests(secret.Name),
			issuer.ErrorInRequests(err, secret.Name),
		)
	}
	return next, nil
}

// changeKey changes the key of an account. Another issuer of this CA, with the same Secret, may
// have been faster.
func changeKey(ctx context.Context, c *acme.Client, of acme.Account, next crypto.Signer) (acme.Account, error) {
	changed, err := c.ChangeKey(ctx, of, next)
	if refused := (*acme.Problem)(nil); errors.As(err, &refused) {
		if found, e := c.FindAccount(ctx, next); e == nil {
			return found, nil
		}
	}
	return changed, err
}

// find returns the account of the key in use. If the CA knows none, but one of a key before it,
// that one gets the key in use: it was changed at the CA of another issuer with the same Secret. If
// there is neither, the error is a Problem of type accountDoesNotExist.
func (a *Accounts) find(
	ctx context.Context,
	issuer *signer.Issuer,
	c *acme.Client,
	key crypto.Signer,
) (acme.Account, error) {
	account, none := c.FindAccount(ctx, key)
	if !acme.IsProblem(none, acme.ProblemAccountDoesNotExist) {
		return account, none
	}
	ref := issuer.GetSpec().ACME.PrivateKey
	secret, err := issuer.ReadSecret(ctx, a.Secrets, ref.Name)
	if err != nil {
		return acme.Account{}, err
	}
	keys, err := a.previous(issuer, secret, keyEntry(ref)+previousSuffix)
	if err != nil {
		return acme.Account{}, err
	}
	for _, old := range keys {
		account, err := c.FindAccount(ctx, old)
		if acme.IsProblem(err, acme.ProblemAccountDoesNotExist, acme.ProblemUnauthorized) ||
			err == nil && account.Status != "" && account.Status != acme.StatusValid {
			continue // there is none, or it is closed
		}
		if err == nil {
			account, err = changeKey(ctx, c, account, key)
		}
		if no := (*acme.UnsupportedError)(nil); errors.As(err, &no) {
			return acme.Account{}, fault.Misconfiguredf(
				"ErrUpdateACMEAccount",
				"%w, and another issuer has changed the key of %s: put the key of this account, "+
					"which is in entry %s, into a Secret of its own, and name that in spec.acme.privateKeySecretRef",
				no,
				issuer.SecretInRequests(secret.Name),
				keyEntry(ref)+previousSuffix,
			)
		}
		if err != nil {
			return acme.Account{}, fmt.Errorf("change the account key: %w", err)
		}
		return account, nil
	}
	return acme.Account{}, none
}

// withPrevious puts a key before those of an entry, and drops the oldest if there are more than
// maxPrevious.
func withPrevious(key crypto.Signer, entry []byte) ([]byte, error) {
	all, err := pki.EncodeKeyPEM(key, pki.PKCS8)
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(entry)) == 0 {
		return all, nil
	}
	blocks, err := pki.SplitPEM(entry)
	if err != nil {
		return nil, fmt.Errorf("the keys before the one in use: %w", err)
	}
	for _, block := range blocks[:min(len(blocks), maxPrevious-1)] {
		all = append(all, pem.EncodeToMemory(block)...)
	}
	return all, nil
}

// previous reads the keys before the one in use.
func (a *Accounts) previous(
	issuer *signer.Issuer,
	secret *corev1.Secret,
	entry string,
) (keys []crypto.Signer, err error) {
	if len(bytes.TrimSpace(secret.Data[entry])) == 0 {
		return nil, nil
	}
	blocks, err := pki.SplitPEM(secret.Data[entry])
	for i := 0; err == nil && i < min(len(blocks), maxPrevious); i++ {
		var key crypto.Signer
		key, err = a.Limits.DecodeKeyPEM(pem.EncodeToMemory(blocks[i]))
		keys = append(keys, key)
	}
	if err != nil {
		return nil, fault.Misconfiguredf("ErrVerifyACMEAccount",
			"entry %s of %s is to hold the account keys before the one in use: remove it, or correct it: %w",
			entry, issuer.SecretInRequests(secret.Name), err)
	}
	return keys, nil
}
