// The command apiserver runs a control plane with Perennial's API and RBAC for the tests of one
// package, so that their binaries need not link kube-apiserver. It keeps its data in a temporary
// directory, prints the path of the administrator's kubeconfig when it is ready, and exits when its
// standard input is closed. With -empty it has nothing of Perennial.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/perennial-pki/perennial/standalone/controlplane"
	"github.com/perennial-pki/perennial/standalone/install"
)

func main() {
	empty := flag.Bool("empty", false, "install nothing of Perennial")
	flag.Parse()
	if err := run(*empty); err != nil {
		fmt.Fprintln(os.Stderr, "apiserver:", err)
		os.Exit(1)
	}
}

func run(empty bool) error {
	dir, err := os.MkdirTemp("", "perennial-test-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	plane, err := controlplane.Start(ctx, controlplane.Options{DataDir: dir, API: !empty})
	if err != nil {
		return err
	}
	defer plane.Stop()
	if !empty {
		if err := install.Controller(ctx, plane.AdminConfig()); err != nil {
			return err
		}
	}
	fmt.Println(plane.KubeconfigPath())

	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	select {
	case <-ended:
		return nil
	case <-plane.Done():
		return fmt.Errorf("the control plane stopped: %w", plane.Err())
	}
}
