// Build writes the archives and packages of the commit that is checked out into a directory.
//
//	go run ./test/dist/build -out dist
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/perennial-pki/perennial/test/dist"
	"github.com/perennial-pki/perennial/test/image"
)

func main() {
	out := flag.String("out", "dist", "directory to write to")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *out); err != nil {
		fmt.Fprintln(os.Stderr, "dist:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out string) error {
	source, err := image.Checkout(ctx, ".")
	if err != nil {
		return err
	}
	if err := dist.Build(ctx, source, out); err != nil {
		return err
	}
	fmt.Printf("the archives and packages of perennial %s are in %s\n", source.Version, out)
	return nil
}
