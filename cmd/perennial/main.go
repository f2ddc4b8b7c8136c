// Perennial keeps TLS certificates alive. In a cluster it is the controller, for people it is the
// command line.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // renewal windows name time zones, and images have none

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
