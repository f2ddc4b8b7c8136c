// Perennial keeps TLS certificates alive.
package main

import (
	"fmt"
	"os"
	_ "time/tzdata" // renewal windows name time zones, and images have none

	"github.com/spf13/cobra"

	"github.com/perennial-pki/perennial/internal/controller"
)

func main() {
	root := &cobra.Command{
		Use:           "perennial",
		Short:         "Keeps TLS certificates alive",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(controller.Command())
	if err := root.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "perennial:", err)
		os.Exit(1)
	}
}
