package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	acmev1 "github.com/perennial-pki/perennial/api/acme/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/signer"
)

// rotated is how often the command checks whether the controller has changed the key.
const rotated = 200 * time.Millisecond

// askedCA bounds the request for the directory of the CA. The machine of the user may not be able
// to reach the CA at all.
const askedCA = 5 * time.Second

func (p *Program) rotateAccountKey() *cobra.Command {
	var isCluster bool
	var resources string
	var patience time.Duration
	cmd := &cobra.Command{
		Use:   "rotate-account-key ISSUER",
		Short: "Change the account key of an ACME issuer",
		Long: "Makes a new account key, stores it beside the one in use, and waits until the controller has changed the " +
			"account to it. The account, its\n" +
			"limits and its authorizations stay. It may be broken off and repeated at any moment.",
		Example: "  perennial rotate-account-key letsencrypt -n shop\n  perennial rotate-account-key letsencrypt " +
			"--cluster-issuer --cluster-resource-namespace cert-manager",
		Args: exactly("the NAME of an issuer"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.connect()
			if err != nil {
				return err
			}
			kind, namespace := signer.KindIssuer, c.namespace
			if isCluster {
				kind, namespace = signer.KindClusterIssuer, resources
			}
			issuer, err := signer.Scope{
				ClusterResourceNamespace: resources,
			}.Get(
				cmd.Context(),
				c,
				c.namespace,
				cmmeta.IssuerReference{Name: args[0], Kind: kind},
			)
			switch {
			case err != nil:
				return err
			case issuer == nil:
				return &exitError{ExitNotFound, fmt.Errorf("there is no %s %q", kind, args[0])}
			case issuer.GetSpec().ACME == nil:
				return &exitError{ExitNotReady, fmt.Errorf("%s %q is not an ACME issuer: it has no account", kind, args[0])}
			}
			ref := issuer.GetSpec().ACME.PrivateKey
			entry := ref.Key
			if entry == "" {
				entry = corev1.TLSPrivateKeyKey
			}
			key := client.ObjectKey{Namespace: namespace, Name: ref.Name}
			if !changesKeys(cmd.Context(), issuer.GetSpec().ACME) {
				return &exitError{
					ExitNotReady,
					fmt.Errorf("the CA of %s %q does not offer key changes: its directory does not name them", kind, args[0]),
				}
			}
			err = storeNext(cmd.Context(), c, issuer.GetSpec().ACME, key, entry)
			if apierrors.IsNotFound(err) {
				err = fmt.Errorf("the Secret %s with the account key does not exist", key)
				if isCluster {
					err = fmt.Errorf(
						"%w: --cluster-resource-namespace must be as the controller has it; perenniald has perennial-system",
						err,
					)
				}
				return &exitError{ExitNotFound, err}
			}
			if err != nil {
				return err
			}
			err = wait.PollUntilContextTimeout(cmd.Context(), rotated, patience, true, func(context.Context) (bool, error) {
				secret := &corev1.Secret{}
				// Each request has its own deadline, so that the overall deadline ends the wait with its own
				// error.
				if err := c.Get(cmd.Context(), key, secret); err != nil {
					return false, err
				}
				return len(secret.Data[entry+account.NextSuffix]) == 0, nil
			})
			if wait.Interrupted(err) {
				return &exitError{
					ExitNotReady,
					fmt.Errorf("the new key stands in Secret %s, and the controller has not changed the account to it after %s: "+
						"it will when it can; \"kubectl describe\" of the %s says what it waits for", key, patience, kind),
				}
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(p.Out, "the account of %s %s has a new key\n", kind, args[0])
			return nil
		},
	}
	p.kubeFlags(cmd)
	f := cmd.Flags()
	f.BoolVar(&isCluster, "cluster-issuer", false, "ISSUER is a ClusterIssuer")
	f.StringVar(&resources, "cluster-resource-namespace", "kube-system", "namespace of the Secrets of ClusterIssuers")
	f.DurationVar(&patience, "timeout", time.Minute, "how long to wait for the controller")
	return cmd
}

// changesKeys reports whether a CA can change account keys. It also returns true if the CA cannot
// be reached from here: then the controller reports it.
func changesKeys(ctx context.Context, spec *acmev1.ACMEIssuer) bool {
	ctx, cancel := context.WithTimeout(ctx, askedCA)
	defer cancel()
	ca, err := caOf(spec)
	if err != nil {
		return true
	}
	dir, err := ca.FetchDirectory(ctx)
	return err != nil || dir.KeyChange != ""
}

// storeNext adds the next key to the Secret, unless there is one already.
func storeNext(ctx context.Context, c *cluster, spec *acmev1.ACMEIssuer, key client.ObjectKey, entry string) error {
	secret := &corev1.Secret{}
	if err := c.Get(ctx, key, secret); err != nil {
		return err
	}
	if len(secret.Data[entry]) == 0 {
		return &exitError{ExitNotFound, fmt.Errorf("the Secret %s has no account key in entry %s", key, entry)}
	}
	if len(secret.Data[entry+account.NextSuffix]) > 0 {
		return nil // from an earlier attempt
	}
	_, encoded, err := account.NewKey(spec)
	if err != nil {
		return err
	}
	changed := secret.DeepCopy()
	changed.Data[entry+account.NextSuffix] = encoded
	if err := c.Patch(
		ctx,
		changed,
		client.MergeFromWithOptions(secret, client.MergeFromWithOptimisticLock{}),
	); err != nil {
		return fmt.Errorf("store the new key in Secret %s: %w", key, err)
	}
	return nil
}
