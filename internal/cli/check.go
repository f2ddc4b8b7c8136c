package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/admissionpolicies"
	"github.com/perennial-pki/perennial/internal/definitions"
)

func (p *Program) check() *cobra.Command {
	cmd := &cobra.Command{Use: "check", Short: "See whether something works", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	var wait time.Duration
	interval := 5 * time.Second
	api := &cobra.Command{
		Use:   "api",
		Short: "See whether the API is installed and takes Certificates",
		Long: "Has the API server judge a Certificate without storing it, and looks whether the admission policies are " +
			"enforced, as far as you may read\n" +
			"them. Exit code 3 if that does not work.",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := p.connect()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), max(wait, requestTimeout))
			defer cancel()
			deadline := p.Clock.Now().Add(wait)
			for {
				notes, err := checkAPI(ctx, c)
				if err == nil {
					for _, note := range notes {
						fmt.Fprintln(p.Err, note)
					}
					fmt.Fprintln(p.Out, "the API is ready")
					return nil
				}
				if left := deadline.Sub(p.Clock.Now()); left <= 0 || ctx.Err() != nil {
					return &exitError{ExitNotReady, errors.New("the API is not ready: " + describe(err))}
				} else if wait > 0 {
					fmt.Fprintf(p.Err, "not ready yet: %s\n", describe(err))
					timer := time.NewTimer(min(interval, left))
					select {
					case <-ctx.Done():
					case <-timer.C:
					}
				}
			}
		},
	}
	p.kubeFlags(api)
	api.Flags().DurationVar(&wait, "wait", 0, "how long to wait until it is ready")
	api.Flags().DurationVar(&interval, "interval", interval, "time between attempts")
	cmd.AddCommand(api)
	return cmd
}

// checkAPI checks that the API server accepts a valid Certificate and rejects an invalid one. It
// also checks the admission policies. The notes say what is older than this program, and what could
// not be checked.
func checkAPI(ctx context.Context, c *cluster) (notes []string, err error) {
	good := &cmapi.Certificate{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "perennial-check-", Namespace: c.namespace},
		Spec: cmapi.CertificateSpec{
			DNSNames:   []string{"check.example.com"},
			SecretName: "perennial-check",
			IssuerRef:  cmmeta.IssuerReference{Name: "perennial-check"},
		},
	}
	bad := good.DeepCopy()
	bad.Spec.SecretName = ""
	if err := c.Create(ctx, good, client.DryRunAll); err != nil {
		if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("the CustomResourceDefinitions of cert-manager.io are not installed: %w", err)
		}
		return nil, err
	}
	if err := c.Create(ctx, bad, client.DryRunAll); err == nil {
		return nil, errors.New("the API server accepted a Certificate without spec.secretName: its " +
			"CustomResourceDefinitions are incomplete")
	}
	state, err := definitions.Look(ctx, c, false)
	switch {
	case apierrors.IsForbidden(err):
	case err != nil:
		return nil, err
	case state.Problem() != "":
		return nil, errors.New(state.Problem())
	}
	if note := state.Note(); note != "" {
		notes = append(notes, note)
	}
	problems, err := admissionpolicies.Look(ctx, c, c.namespace)
	switch {
	case apierrors.IsForbidden(err):
		return append(notes, "whether the admission policies are enforced was not checked, as you may not list them: "+
			describe(err)), nil
	case err != nil:
		return nil, err
	case len(problems) > 0:
		return nil, errors.New("the admission policies are not enforced, so that the controller uses no ClusterIssuer and " +
			"approves nothing: " + strings.Join(problems, "; "))
	}
	return notes, nil
}
