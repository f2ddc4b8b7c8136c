// The command apiserver runs a control plane with Perennial's API and RBAC for the tests of one
// package, so that their binaries need not link kube-apiserver. It keeps its data in a temporary
// directory, prints the path of the administrator's kubeconfig when it is ready, and exits when its
// standard input is closed.
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/perennial-pki/perennial/standalone/controlplane"
	"github.com/perennial-pki/perennial/standalone/install"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "apiserver:", err)
		os.Exit(1)
	}
}

func run() error {
	dir, err := os.MkdirTemp("", "perennial-test-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	plane, err := controlplane.Start(ctx, controlplane.Options{DataDir: dir, API: true})
	if err != nil {
		return err
	}
	defer plane.Stop()
	if err := install.Controller(ctx, plane.AdminConfig()); err != nil {
		return err
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
