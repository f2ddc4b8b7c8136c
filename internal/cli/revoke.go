package cli

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	acmev1 "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/earlyissuance"
	"github.com/perennial-pki/perennial/internal/revocation"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

func (p *Program) revoke() *cobra.Command {
	var reason, secretName string
	var keep bool
	var known []string
	for name := range revocation.Reasons {
		known = append(known, string(name))
	}
	slices.Sort(known)
	names := strings.Join(known, ", ")
	cmd := &cobra.Command{
		Use:   "revoke NAME --reason REASON",
		Short: "Revoke the certificate of a Certificate at its ACME server, and have another issued",
		Long: "Revokes the certificate that is in the Secret of a Certificate, with its own private key, at the ACME " +
			"server that has issued it, and\n" +
			"has another issued at once (a fifth time within an hour, after some minutes). Clients that look at revocation " +
			"lists refuse it from\n" +
			"then on, until the other is served. CAs take a key that revokes its certificate for compromised: the next " +
			"certificate has another,\n" +
			"also with rotationPolicy: Never.\n" +
			"Reasons: " + names + ".",
		Example: "  perennial revoke web -n shop --reason keyCompromise\n" +
			"  perennial revoke old -n shop --reason cessationOfOperation --no-renewal\n" +
			"  perennial revoke --secret left -n shop --reason cessationOfOperation",
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case secretName == "":
				return exactly("the NAME of a Certificate")(cmd, args)
			case len(args) > 0:
				return usage("say what in one way: NAME or --secret")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			why, ok := revocation.Reasons[cmapi.RevocationReason(reason)]
			if !ok {
				return usage("--reason must be one of %s", names)
			}
			c, err := p.connect()
			if err != nil {
				return err
			}
			what, key := "secret", client.ObjectKey{Namespace: c.namespace, Name: secretName}
			var crt *cmapi.Certificate
			if secretName == "" {
				what, key.Name, crt = "certificate", args[0], &cmapi.Certificate{}
				if err := c.Get(cmd.Context(), key, crt); err != nil {
					if apierrors.IsNotFound(err) {
						return &exitError{ExitNotFound, fmt.Errorf("there is no Certificate %q in namespace %q", key.Name, key.Namespace)}
					}
					return err
				}
			}
			r, err := p.revocable(cmd.Context(), c, key, crt)
			if err != nil {
				return err
			}
			if err := r.distrust(cmd.Context(), c, crt); err != nil {
				return err
			}
			if err := p.revokeAtCA(cmd.Context(), r, what, key, why); err != nil {
				return err
			}
			switch {
			case crt == nil:
				return nil
			case keep:
				fmt.Fprintf(p.Out, "certificate %s %s\n", key, outlook(crt))
				return nil
			}
			return p.replaceRevoked(cmd.Context(), c, key)
		},
	}
	p.kubeFlags(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why: "+names)
	cmd.Flags().
		StringVar(&secretName, "secret", "", "the Secret with the certificate and its key, in place of a Certificate "+
			"that is gone")
	cmd.Flags().
		BoolVar(&keep, "no-renewal", false, "have no other issued now: what is to come, and how to prevent that, is printed")
	return cmd
}

// replaceRevoked has another certificate issued after a revocation.
func (p *Program) replaceRevoked(ctx context.Context, c *cluster, key client.ObjectKey) error {
	if _, err := p.renewOne(ctx, c, key, earlyissuance.Revoked); err != nil {
		return fmt.Errorf(
			"it is revoked, but not yet renewed; do so by \"perennial renew %s -n %s\": %w", key.Name, key.Namespace, err,
		)
	}
	fmt.Fprintf(p.Out, "certificate %s will be issued anew\n", key)
	return nil
}

// revokeAtCA revokes the certificate with its own key, and prints the outcome.
func (p *Program) revokeAtCA(
	ctx context.Context,
	r *revocable,
	what string,
	key client.ObjectKey,
	why acme.RevocationReason,
) error {
	err := r.ca.RevokeWithKey(ctx, r.key, r.leaf.Raw, why)
	switch {
	case acme.IsProblem(err, acme.ProblemAlreadyRevoked):
		fmt.Fprintf(p.Out, "%s %s with serial number %x was revoked before\n", what, key, r.leaf.SerialNumber)
	case err != nil:
		return fmt.Errorf("revoke at %s: %w", r.ca.Directory, err)
	default:
		fmt.Fprintf(p.Out, "%s %s with serial number %x is revoked\n", what, key, r.leaf.SerialNumber)
	}
	return nil
}

// outlook says when the Certificate gets a new certificate after the revocation, and how to prevent
// that.
func outlook(crt *cmapi.Certificate) string {
	if r := crt.Spec.Renewal; r != nil && r.Policy == cmapi.CertificateRenewalPolicyDisabled {
		return "is not renewed, as its spec.renewal.policy is Disabled"
	}
	when := "when it is due"
	if a := crt.Status.ACME; a != nil && a.ARI != nil && a.ARI.NextCheck != nil {
		when = fmt.Sprintf(
			"when the CA suggests so, as CAs do after a revocation (it is asked at %s), or %s",
			a.ARI.NextCheck.UTC().Format(time.RFC3339),
			when,
		)
	}
	gone := "delete it"
	if owner := metav1.GetControllerOf(crt); owner != nil {
		gone = fmt.Sprintf("delete the %s %q that it is made for", owner.Kind, owner.Name)
	}
	return "is issued anew " + when + ": if it shall not, " + gone + ", or set spec.renewal.policy: Disabled"
}

// revocable is a certificate that can be revoked, and the client of its CA.
type revocable struct {
	ca     *acme.Client
	leaf   *x509.Certificate
	key    crypto.Signer
	secret *corev1.Secret
}

// revocable finds the certificate of a Certificate or, if that is nil, in the Secret that key
// names, its key and its ACME server.
func (p *Program) revocable(
	ctx context.Context,
	c *cluster,
	key client.ObjectKey,
	crt *cmapi.Certificate,
) (*revocable, error) {
	if crt != nil {
		key.Name = crt.Spec.SecretName
	}
	secret := &corev1.Secret{}
	if err := c.Get(ctx, key, secret); client.IgnoreNotFound(err) != nil {
		return nil, err
	}
	a := secret.Annotations
	ref := cmmeta.IssuerReference{
		Name:  a[cmapi.IssuerNameAnnotationKey],
		Kind:  a[cmapi.IssuerKindAnnotationKey],
		Group: a[cmapi.IssuerGroupAnnotationKey],
	}
	switch {
	case crt != nil:
		ref = crt.Spec.IssuerRef
	case secret.Name == "":
		return nil, &exitError{ExitNotFound, fmt.Errorf("there is no Secret %q in namespace %q", key.Name, key.Namespace)}
	case ref.Name == "":
		return nil, &exitError{
			ExitNotReady,
			fmt.Errorf("the Secret %q does not name the issuer of its certificate", key.Name),
		}
	}
	issuer, err := signer.Scope{}.Get(ctx, c, key.Namespace, ref)
	switch {
	case err != nil:
		return nil, err
	case issuer == nil || issuer.GetSpec().ACME == nil:
		return nil, &exitError{
			ExitNotReady,
			fmt.Errorf(
				"%s %q is not an ACME issuer: only certificates of ACME servers can be revoked here",
				ref.KindOrDefault(),
				ref.Name,
			),
		}
	case secret.Name == "":
		return nil, &exitError{ExitNotReady, fmt.Errorf("the Secret %q does not exist: there is nothing to revoke", key.Name)}
	case !signer.SecretNamesIssuer(ref, secret):
		return nil, &exitError{
			ExitNotReady,
			fmt.Errorf("the certificate in Secret %q was issued by %s %q, not by %s %q: only its issuer can revoke it",
				secret.Name, a[cmapi.IssuerKindAnnotationKey], a[cmapi.IssuerNameAnnotationKey], ref.KindOrDefault(), ref.Name),
		}
	}
	chain, err := pki.Limits{}.DecodeChainPEM(secret.Data[corev1.TLSCertKey])
	if err != nil {
		return nil, fmt.Errorf("entry tls.crt of Secret %q: %w", secret.Name, err)
	}
	private, err := pki.Limits{}.DecodeKeyPEM(secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return nil, fmt.Errorf("entry tls.key of Secret %q: %w", secret.Name, err)
	}
	if !pki.SamePublicKey(private.Public(), chain[0].PublicKey) {
		return nil, &exitError{ExitNotReady,
			fmt.Errorf("tls.key of Secret %q is not the private key of the certificate in its tls.crt, which only that key "+
				"can revoke here: put the two together again",
				secret.Name)}
	}
	r := &revocable{leaf: chain[0], key: private, secret: secret}
	if r.ca, err = caOf(issuer.GetSpec().ACME); err != nil {
		return nil, err
	}
	return r, nil
}

// distrust records on the Secret that its key must not be used again. That is necessary if a
// Certificate could keep the key: one with rotationPolicy Never, or one that is made for the Secret
// later. It precedes the revocation, so that nothing is lost if this program ends between the two.
func (r *revocable) distrust(ctx context.Context, c *cluster, crt *cmapi.Certificate) error {
	if crt != nil && (crt.Spec.PrivateKey == nil || crt.Spec.PrivateKey.RotationPolicy != cmapi.RotationPolicyNever) {
		return nil
	}
	next := r.secret.DeepCopy()
	changed := revocation.NoteCompromised(next, r.leaf)
	if crt == nil {
		changed = revocation.NoteRevoked(next, r.leaf) || changed
	}
	if !changed {
		return nil
	}
	if err := c.Patch(ctx, next, client.MergeFromWithOptions(r.secret, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("note on Secret %q that its key must not be used again: %w", r.secret.Name, err)
	}
	return nil
}

// caOf returns a client of the ACME server of an issuer.
func caOf(spec *acmev1.ACMEIssuer) (*acme.Client, error) {
	// on the user's own machine
	return (&account.Accounts{Clock: clock.RealClock{}}).Server(spec, signer.KindClusterIssuer)
}
