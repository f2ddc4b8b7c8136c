package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/reissue"
	"github.com/perennial-pki/perennial/internal/signer"
)

func (p *Program) renew() *cobra.Command {
	var all, everywhere bool
	var selector string
	cmd := &cobra.Command{
		Use:   "renew NAME... | -l SELECTOR | --all",
		Short: "Have Certificates issued anew, now",
		Long: "Has Certificates issued anew at once, whatever their renewal time is. It also ends the wait after a " +
			"failure, and the\n" +
			"pause of names whose validation failed again and again. A third time within an hour waits for some minutes.",
		Example: "  perennial renew web api -n shop\n" +
			"  perennial renew -l team=payments -A\n" +
			"  perennial renew --all -n shop",
		RunE: func(cmd *cobra.Command, names []string) error {
			switch {
			case len(names) == 0 && selector == "" && !all:
				return usage("say which: NAME..., -l SELECTOR or --all")
			case len(names) > 0 && (selector != "" || all), selector != "" && all:
				return usage("say which in one way: NAME..., -l SELECTOR or --all")
			case len(names) > 0 && everywhere:
				return usage("-A goes with -l or --all, not with NAME")
			}
			c, err := p.connect()
			if err != nil {
				return err
			}
			n := 0
			one := func(key client.ObjectKey) error {
				underWay, err := p.renewOne(cmd.Context(), c, key, reissue.Triggered)
				if err != nil {
					return err
				}
				n++
				if underWay {
					fmt.Fprintf(
						p.Out,
						"certificate %s/%s is being issued already; if that fails, it is tried again at once. What it waits for: "+
							"perennial status certificate %[2]s -n %[1]s\n",
						key.Namespace,
						key.Name,
					)
				} else {
					fmt.Fprintf(p.Out, "certificate %s/%s will be issued anew\n", key.Namespace, key.Name)
				}
				return nil
			}
			for _, name := range names {
				if err := one(client.ObjectKey{Namespace: c.namespace, Name: name}); err != nil {
					return err
				}
			}
			if len(names) > 0 {
				return nil
			}
			options, err := selection(c, everywhere, selector)
			if err != nil {
				return err
			}
			if err := eachCertificate(
				cmd,
				c,
				options,
				func(crt *cmapi.Certificate) error { return one(client.ObjectKeyFromObject(crt)) },
			); err != nil {
				return err
			}
			if n == 0 {
				return &exitError{ExitNotFound, fmt.Errorf("no Certificates found")}
			}
			return nil
		},
	}
	p.kubeFlags(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "all of the namespace, or with -A of all namespaces")
	cmd.Flags().BoolVarP(&everywhere, "all-namespaces", "A", false, "in all namespaces")
	cmd.Flags().StringVarP(&selector, "selector", "l", "", "those with these labels")
	return cmd
}

// renewOne triggers a new issuance. It reports whether one is already under way, which serves the
// same purpose unless it fails.
func (p *Program) renewOne(ctx context.Context, c *cluster, key client.ObjectKey,
	why reissue.Cause) (underWay bool, err error) {
	message := "Certificate re-issuance manually triggered"
	if why == reissue.Revoked {
		message = "Issuing certificate as the one before it was revoked"
	}
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		crt := &cmapi.Certificate{}
		if err := c.Get(ctx, key, crt); err != nil {
			if apierrors.IsNotFound(err) {
				return &exitError{ExitNotFound, fmt.Errorf("there is no Certificate %q in namespace %q", key.Name, key.Namespace)}
			}
			return err
		}
		was := crt.DeepCopy()
		issuing := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionIssuing)
		is := func(c *cmapi.CertificateCondition) bool { return c != nil && c.Status == cmmeta.ConditionTrue }
		underWay = crt.Status.NextPrivateKeySecretName != nil && is(issuing) &&
			!is(cmapi.GetCertificateCondition(&crt.Status, signer.ConditionPaused))
		// The transition time must be after the last one, also during an issuance: by it the controller
		// distinguishes this trigger from older ones.
		now := p.Clock.Now()
		if issuing != nil && issuing.LastTransitionTime != nil && now.Unix() <= issuing.LastTransitionTime.Unix() {
			now = issuing.LastTransitionTime.Add(time.Second)
		}
		cmapi.RemoveCertificateCondition(&crt.Status, cmapi.CertificateConditionIssuing)
		cmapi.SetCertificateCondition(&crt.Status, now, cmapi.CertificateCondition{
			Type: cmapi.CertificateConditionIssuing, Status: cmmeta.ConditionTrue,
			Reason: string(why), Message: message, ObservedGeneration: crt.Generation,
		})
		return c.Status().Patch(ctx, crt, client.MergeFromWithOptions(was, client.MergeFromWithOptimisticLock{}))
	})
	return underWay, err
}
