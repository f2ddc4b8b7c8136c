package cli

import (
	"fmt"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	perennial "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
	"github.com/perennial-pki/perennial/internal/explain"
)

func (p *Program) statusOfTrustBundle(events *int) *cobra.Command {
	return &cobra.Command{
		Use:     "trustbundle NAME",
		Aliases: []string{"tb"},
		Short:   "Say whether a TrustBundle is where it should be, and what to do",
		Long: "Shows the conditions of a TrustBundle and the latest events.\nExit code 3 if it is not ready, 4 if it " +
			"does not exist.",
		Args: exactly("the NAME of a TrustBundle"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.connect()
			if err != nil {
				return err
			}
			bundle := &perennial.TrustBundle{}
			if err := c.Get(cmd.Context(), client.ObjectKey{Name: args[0]}, bundle); err != nil {
				if apierrors.IsNotFound(err) && !meta.IsNoMatchError(err) {
					return &exitError{ExitNotFound, fmt.Errorf("there is no TrustBundle %q", args[0])}
				}
				return err
			}
			report := statusReport{Report: explain.ExplainTrustBundle(bundle)}
			report.Events, err = eventsOf(cmd.Context(), c, map[types.UID]bool{bundle.UID: true},
				[]string{metav1.NamespaceDefault}, *events)
			if err != nil {
				return err
			}
			return p.printStatus(report)
		},
	}
}
