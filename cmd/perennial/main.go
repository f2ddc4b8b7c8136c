// Perennial issues and renews TLS certificates. The same binary is the controller in a cluster and
// the command-line tool.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // renewal windows name time zones, and container images have no zone data

	"github.com/perennial-pki/perennial/internal/cli"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/internal/solver/http01"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	p := cli.New()
	code := p.Run(ctx, p.Command(controller.Command(), http01.Command()), os.Args[1:])
	stop()
	os.Exit(code)
}
