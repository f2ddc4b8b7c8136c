package cli

import (
	"fmt"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

func (p *Program) approve() *cobra.Command {
	return p.judge("approve", "Approve a CertificateRequest", cmapi.CertificateRequestConditionApproved)
}

func (p *Program) deny() *cobra.Command {
	return p.judge("deny", "Deny a CertificateRequest, for good", cmapi.CertificateRequestConditionDenied)
}

func (p *Program) judge(verb, short string, condition cmapi.CertificateRequestConditionType) *cobra.Command {
	var reason, message string
	done := map[string]string{"approve": "approved", "deny": "denied"}[verb]
	cmd := &cobra.Command{
		Use: verb + " NAME", Short: short,
		Long: short + ". Your user needs the verb approve on signers.cert-manager.io for its issuer.",
		Args: exactly("the NAME of a CertificateRequest"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if reason == "" || message == "" {
				return usage("--reason and --message must not be empty")
			}
			c, err := p.connect()
			if err != nil {
				return err
			}
			return retry.RetryOnConflict(retry.DefaultRetry, func() error {
				cr := &cmapi.CertificateRequest{}
				if err := c.Get(cmd.Context(), client.ObjectKey{Namespace: c.namespace, Name: args[0]}, cr); err != nil {
					if apierrors.IsNotFound(err) {
						return &exitError{
							ExitNotFound,
							fmt.Errorf("there is no CertificateRequest %q in namespace %q", args[0], c.namespace),
						}
					}
					return err
				}
				switch {
				case cmapi.CertificateRequestIsApproved(&cr.Status):
					return fmt.Errorf("CertificateRequest %q is approved already", cr.Name) //nolint:staticcheck // names a kind
				case cmapi.CertificateRequestIsDenied(&cr.Status):
					return fmt.Errorf("CertificateRequest %q is denied already", cr.Name) //nolint:staticcheck // names a kind
				}
				was := cr.DeepCopy()
				cmapi.SetCertificateRequestCondition(&cr.Status, p.Clock.Now(), cmapi.CertificateRequestCondition{
					Type: condition, Status: cmmeta.ConditionTrue, Reason: reason, Message: message,
				})
				if err := c.Status().
					Patch(cmd.Context(), cr, client.MergeFromWithOptions(was, client.MergeFromWithOptimisticLock{})); err != nil {
					return err
				}
				fmt.Fprintf(p.Out, "certificaterequest %s/%s %s\n", cr.Namespace, cr.Name, done)
				return nil
			})
		},
	}
	p.kubeFlags(cmd)
	cmd.Flags().StringVar(&reason, "reason", "KubectlCertManager", "why, in one word, for programs")
	cmd.Flags().StringVar(&message, "message", "manually "+done+" by \""+p.Name+"\"", "why, for people")
	return cmd
}
