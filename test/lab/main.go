// Lab is a test environment for certificates from an ACME server on one machine: Pebble as the CA,
// an authoritative DNS server, and perenniald with the manifests of a directory, in which it
// replaces ${NAMES} with values of this environment.
//
//	lab -perenniald bin/perenniald -manifests examples/acme -data-dir .perennial-acme
package main

import (
	"context"
	"encoding/base64"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"

	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/pebble"
)

func main() {
	var perenniald, manifests, data string
	var fleeting time.Duration
	flag.StringVar(&perenniald, "perenniald", "bin/perenniald", "the daemon")
	flag.StringVar(&manifests, "manifests", "examples/acme", "directory of manifests")
	flag.StringVar(&data, "data-dir", ".perennial-acme", "where all state is kept")
	flag.DurationVar(&fleeting, "fleeting", 3*time.Minute, "life of the certificates of the profile fleeting")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, perenniald, manifests, data, fleeting, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

const tsigName, tsigSecret = "lab", "bGFib3JhdG9yeS1zZWNyZXQtb2YtdHNpZy1rZXk="

func run(ctx context.Context, perenniald, manifests, data string, fleeting time.Duration, more []string) error {
	names, err := dnsserver.Start(dnsserver.Options{Zones: []string{"example.com"}, KeyName: tsigName, Secret: tsigSecret})
	if err != nil {
		return fmt.Errorf("start the DNS server: %w", err)
	}
	defer names.Close()
	web, handshakes, err := freePorts()
	if err != nil {
		return err
	}
	authority, err := pebble.Start(pebble.Options{
		Resolver: names.Addr, HTTPPort: web, TLSPort: handshakes,
		Profiles: map[string]ca.Profile{
			"classic":  {Description: "90 days", ValidityPeriod: uint64((90 * 24 * time.Hour).Seconds())},
			"fleeting": {Description: fleeting.String(), ValidityPeriod: uint64(fleeting.Seconds())},
		},
	})
	if err != nil {
		return fmt.Errorf("start the CA: %w", err)
	}
	defer authority.Close()
	fmt.Printf(
		"the CA: %s   the DNS server: %s   HTTP-01: port %d   TLS-ALPN-01: port %d\n",
		authority.Directory,
		names.Addr,
		web,
		handshakes,
	)

	world := strings.NewReplacer(
		"${ACME_DIRECTORY}",
		authority.Directory,
		"${ACME_CA_BUNDLE}",
		base64.StdEncoding.EncodeToString(authority.CABundle),
		"${DNS_SERVER}",
		names.Addr,
		"${TSIG_NAME}",
		tsigName,
		"${TSIG_SECRET}",
		tsigSecret,
	)
	applied := filepath.Join(data, "manifests")
	if err := os.MkdirAll(applied, 0o700); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(manifests, "*.yaml"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("there are no manifests in %s", manifests)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(
			filepath.Join(applied, filepath.Base(file)),
			[]byte(world.Replace(string(text))),
			0o600,
		); err != nil {
			return err
		}
	}
	daemon := exec.Command(perenniald, append([]string{
		"--data-dir",
		data,
		"--manifests",
		applied,
		"--table",
		"--http01-listen-address",
		fmt.Sprintf("127.0.0.1:%d", web),
		"--tlsalpn01-listen-address",
		fmt.Sprintf("127.0.0.1:%d", handshakes),
	}, more...)...)
	daemon.Stdin, daemon.Stdout, daemon.Stderr = os.Stdin, os.Stdout, os.Stderr
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := daemon.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		_ = daemon.Process.Signal(syscall.SIGTERM) // a terminal has already signaled it
		return <-ended
	}
}

// freePorts returns two ports of 127.0.0.1 that are free.
func freePorts() (int, int, error) {
	var ports [2]int
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, 0, err
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports[0], ports[1], nil
}
