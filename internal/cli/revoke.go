package cli

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	acmev1 "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// reasons are those that subscribers may give, RFC 5280 section 5.3.1, by name.
var reasons = map[string]acme.RevocationReason{
	"unspecified": acme.ReasonUnspecified, "keyCompromise": acme.ReasonKeyCompromise, "affiliationChanged": acme.ReasonAffiliationChanged,
	"superseded": acme.ReasonSuperseded, "cessationOfOperation": acme.ReasonCessationOfOperation,
}

func (p *Program) revoke() *cobra.Command {
	var reason string
	var keep bool
	names := strings.Join(slices.Sorted(maps.Keys(reasons)), ", ")
	cmd := &cobra.Command{
		Use:   "revoke NAME --reason REASON",
		Short: "Revoke the certificate of a Certificate at its ACME server, and have another issued",
		Long: "Revokes the certificate that is in the Secret of a Certificate, with its own private key, at the ACME server that has issued it, and\n" +
			"has another issued at once. Clients that look at revocation lists refuse it from then on, until the other is served.\n" +
			"Reasons: " + names + ".",
		Example: "  perennial revoke web -n shop --reason keyCompromise\n" +
			"  perennial revoke old -n shop --reason cessationOfOperation --no-renewal",
		Args: exactly("the NAME of a Certificate"),
		RunE: func(cmd *cobra.Command, args []string) error {
			why, known := reasons[reason]
			if !known {
				return usage("--reason must be one of %s", names)
			}
			c, err := p.connect()
			if err != nil {
				return err
			}
			key := client.ObjectKey{Namespace: c.namespace, Name: args[0]}
			r, err := p.revocable(cmd.Context(), c, key)
			if err != nil {
				return err
			}
			if why == acme.ReasonKeyCompromise && !keep && r.keepsKey {
				return fmt.Errorf("the Certificate %s keeps its private key at renewals (spec.privateKey.rotationPolicy: Never): set Always first, so that the next certificate has another", args[0])
			}
			err = r.ca.RevokeWithKey(cmd.Context(), r.key, r.leaf.Raw, why)
			switch {
			case acme.IsProblem(err, acme.ProblemAlreadyRevoked):
				fmt.Fprintf(p.Out, "certificate %s with serial number %x was revoked before\n", key, r.leaf.SerialNumber)
			case err != nil:
				return fmt.Errorf("revoke at %s: %w", r.ca.Directory, err)
			default:
				fmt.Fprintf(p.Out, "certificate %s with serial number %x is revoked\n", key, r.leaf.SerialNumber)
			}
			if keep {
				return nil
			}
			if err := p.renewOne(cmd.Context(), c, key); err != nil {
				return fmt.Errorf("it is revoked, but not yet renewed; do so by \"perennial renew %s -n %s\": %w", key.Name, key.Namespace, err)
			}
			fmt.Fprintf(p.Out, "certificate %s will be issued anew\n", key)
			return nil
		},
	}
	p.kubeFlags(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why: "+names)
	cmd.Flags().BoolVar(&keep, "no-renewal", false, "have no other issued")
	return cmd
}

// revocable is a certificate that can be revoked, and where.
type revocable struct {
	ca       *acme.Client
	leaf     *x509.Certificate
	key      crypto.Signer
	keepsKey bool
}

// revocable finds the certificate of a Certificate, its key and its ACME server.
func (p *Program) revocable(ctx context.Context, c *cluster, key client.ObjectKey) (*revocable, error) {
	crt := &cmapi.Certificate{}
	if err := c.Get(ctx, key, crt); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, &exitError{ExitNotFound, fmt.Errorf("there is no Certificate %q in namespace %q", key.Name, key.Namespace)}
		}
		return nil, err
	}
	ref := crt.Spec.IssuerRef
	issuer, err := signer.Scope{}.Get(ctx, c, crt.Namespace, ref)
	switch {
	case err != nil:
		return nil, err
	case issuer == nil || issuer.GetSpec().ACME == nil:
		return nil, &exitError{ExitNotReady, fmt.Errorf("%s %q is not an ACME issuer: only certificates of ACME servers can be revoked here", ref.KindOrDefault(), ref.Name)}
	}
	secret := &corev1.Secret{}
	if err := c.Get(ctx, client.ObjectKey{Namespace: crt.Namespace, Name: crt.Spec.SecretName}, secret); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, &exitError{ExitNotReady, fmt.Errorf("the Secret %q does not exist: there is nothing to revoke", crt.Spec.SecretName)}
		}
		return nil, err
	}
	if a := secret.Annotations; !signer.Issued(ref, secret) {
		return nil, &exitError{ExitNotReady, fmt.Errorf("the certificate in Secret %q was issued by %s %q, not by %s %q: only who has issued it can revoke it",
			secret.Name, a[cmapi.IssuerKindAnnotationKey], a[cmapi.IssuerNameAnnotationKey], ref.KindOrDefault(), ref.Name)}
	}
	chain, err := pki.Limits{}.DecodeChainPEM(secret.Data[corev1.TLSCertKey])
	if err != nil {
		return nil, fmt.Errorf("entry tls.crt of Secret %q: %w", secret.Name, err)
	}
	private, err := pki.Limits{}.DecodeKeyPEM(secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return nil, fmt.Errorf("entry tls.key of Secret %q: %w", secret.Name, err)
	}
	r := &revocable{leaf: chain[0], key: private}
	r.keepsKey = crt.Spec.PrivateKey != nil && crt.Spec.PrivateKey.RotationPolicy == cmapi.RotationPolicyNever
	if r.ca, err = caOf(issuer.GetSpec().ACME); err != nil {
		return nil, err
	}
	return r, nil
}

// caOf is the client of the server of an issuer.
func caOf(spec *acmev1.ACMEIssuer) (*acme.Client, error) {
	return (&account.Accounts{UserAgent: "perennial", Clock: clock.RealClock{}}).Server(spec)
}
