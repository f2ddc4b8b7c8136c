// Package writes the chart of the commit that is checked out, with its version, into a directory.
//
//	go run ./test/chart/package -out dist
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/perennial-pki/perennial/test/chart"
	"github.com/perennial-pki/perennial/test/image"
)

func main() {
	out := flag.String("out", "dist", "directory to write to")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *out); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out string) error {
	source, err := image.Checkout(ctx, ".")
	if err != nil {
		return err
	}
	path, err := chart.Package(ctx, out, source.Version)
	if err != nil {
		return err
	}
	fmt.Printf("the chart of perennial %s is %s\n", source.Version, path)
	return nil
}
