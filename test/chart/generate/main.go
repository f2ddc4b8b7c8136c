// Generate writes what is derived from other files in the Helm chart and from the chart: the
// chart's copies of the API, its README, and the manifest for kubectl apply.
//
//	go -C test run ./chart/generate
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/perennial-pki/perennial/test/chart"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := chart.Generate(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}
