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
	"github.com/perennial-pki/perennial/internal/earlyissuance"
	"github.com/perennial-pki/perennial/internal/signer"
)

// renewal says of which Certificates another certificate is issued.
type renewal struct {
	all, everywhere bool
	selector        string
}

func (p *Program) renew() *cobra.Command {
	var which renewal
	cmd := &cobra.Command{
		Use:   "renew NAME... | -l SELECTOR | --all",
		Short: "Have Certificates issued anew, now",
		Long: "Has Certificates issued anew at once, whatever their renewal time is. It also ends the wait after a " +
			"failure, and the\n" +
			"pause of names whose validation failed again and again. A third time within an hour waits for some minutes.",
		Example: "  perennial renew web api -n shop\n" +
			"  perennial renew -l team=payments -A\n" +
			"  perennial renew --all -n shop",
		RunE: func(cmd *cobra.Command, names []string) error { return p.renewEach(cmd, which, names) },
	}
	p.kubeFlags(cmd)
	cmd.Flags().BoolVar(&which.all, "all", false, "all of the namespace, or with -A of all namespaces")
	cmd.Flags().BoolVarP(&which.everywhere, "all-namespaces", "A", false, "in all namespaces")
	cmd.Flags().StringVarP(&which.selector, "selector", "l", "", "those with these labels")
	return cmd
}

// check expects that the user says in one way which Certificates are meant.
func (r renewal) check(names []string) error {
	switch {
	case len(names) == 0 && r.selector == "" && !r.all:
		return usage("say which: NAME..., -l SELECTOR or --all")
	case len(names) > 0 && (r.selector != "" || r.all), r.selector != "" && r.all:
		return usage("say which in one way: NAME..., -l SELECTOR or --all")
	case len(names) > 0 && r.everywhere:
		return usage("-A goes with -l or --all, not with NAME")
	}
	return nil
}

// renewEach has certificates issued for the named Certificates, or for those that are selected.
func (p *Program) renewEach(cmd *cobra.Command, which renewal, names []string) error {
	if err := which.check(names); err != nil {
		return err
	}
	c, err := p.connect()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := p.renewAndSay(cmd, c, client.ObjectKey{Namespace: c.namespace, Name: name}); err != nil {
			return err
		}
	}
	if len(names) > 0 {
		return nil
	}
	options, err := selection(c, which.everywhere, which.selector)
	if err != nil {
		return err
	}
	n := 0
	err = eachCertificate(cmd, c, options, func(crt *cmapi.Certificate) error {
		n++
		return p.renewAndSay(cmd, c, client.ObjectKeyFromObject(crt))
	})
	if err == nil && n == 0 {
		return &exitError{ExitNotFound, fmt.Errorf("no Certificates found")}
	}
	return err
}

// renewAndSay has a certificate issued, and prints what happens.
func (p *Program) renewAndSay(cmd *cobra.Command, c *cluster, key client.ObjectKey) error {
	underWay, err := p.renewOne(cmd.Context(), c, key, earlyissuance.Triggered)
	if err != nil {
		return err
	}
	if underWay {
		fmt.Fprintf(
			p.Out,
			"certificate %s/%s is being issued already; if that fails, it is tried again at once. What it waits for: "+
				"perennial status certificate %[2]s -n %[1]s\n",
			key.Namespace,
			key.Name,
		)
		return nil
	}
	fmt.Fprintf(p.Out, "certificate %s/%s will be issued anew\n", key.Namespace, key.Name)
	return nil
}

// renewOne triggers a new issuance. It reports whether one is already under way, which serves the
// same purpose unless it fails.
func (p *Program) renewOne(ctx context.Context, c *cluster, key client.ObjectKey,
	why earlyissuance.Cause) (underWay bool, err error) {
	message := "Certificate re-issuance manually triggered"
	if why == earlyissuance.Revoked {
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
