// Build writes the container image of the commit that is checked out, an OCI layout, into a
// directory, and says how large it is.
//
//	go run ./test/image/build -out dist
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/perennial-pki/perennial/test/image"
)

func main() {
	out := flag.String("out", "dist", "directory to write to: the image into image/, and its SBOMs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *out); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out string) error {
	source, err := image.Checkout(ctx, ".")
	if err != nil {
		return err
	}
	built, err := image.Build(ctx, source, image.Platforms())
	if err != nil {
		return err
	}
	if err := built.Write(out); err != nil {
		return err
	}
	for _, v := range built.Variants {
		size, err := v.DownloadSize()
		if err != nil {
			return err
		}
		fmt.Printf("%s: %.1f MiB\n", v.Platform, float64(size)/(1<<20))
	}
	digest, err := built.Index.Digest()
	if err != nil {
		return err
	}
	fmt.Printf("perennial %s is in %s/image: %s\n", source.Version, out, digest)
	return nil
}
