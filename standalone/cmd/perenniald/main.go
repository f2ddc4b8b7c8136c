package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/perennial-pki/perennial/standalone/controlplane"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	t := time.Now()
	c, err := controlplane.Start(ctx, controlplane.Options{DataDir: os.Args[1], Fsync: len(os.Args) > 2, API: true, Progress: func(s string) { fmt.Println(time.Since(t).Round(time.Millisecond), s) }})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	t1 := time.Now()
	err = controlplane.InstallAPI(ctx, c.AdminConfig())
	fmt.Println("install", time.Since(t1), err)
	fmt.Println(c.KubeconfigPath())
	b, _ := os.ReadFile("/proc/self/status")
	fmt.Println(string(b[len(b)-700:]))
	select {
	case <-ctx.Done():
	case <-c.Done():
		fmt.Println(c.Err())
	}
	t2 := time.Now()
	c.Stop()
	fmt.Println("stopped", time.Since(t2))
}
