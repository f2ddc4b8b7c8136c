package cli

import (
	"fmt"
	"runtime"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/discovery"

	"github.com/perennial-pki/perennial/internal/version"
)

// versionReport is what version prints as JSON.
type versionReport struct {
	Client string `json:"client"`
	Go     string `json:"go"`
	Server string `json:"server,omitempty"`
	Error  string `json:"error,omitempty"`
}

func (p *Program) version() *cobra.Command {
	var clientOnly bool
	cmd := &cobra.Command{
		Use: "version", Short: "Show the version of this program and of the API server", Args: exactly(),
		RunE: func(_ *cobra.Command, _ []string) error {
			r := versionReport{Client: version.Get(), Go: runtime.Version()}
			if !clientOnly {
				if server, err := p.serverVersion(); err != nil {
					r.Error = describe(err)
				} else {
					r.Server = server
				}
			}
			if p.json() {
				return p.printJSON(r)
			}
			fmt.Fprintf(p.Out, "perennial %s (%s)\n", r.Client, r.Go)
			switch {
			case r.Server != "":
				fmt.Fprintf(p.Out, "Kubernetes API %s\n", r.Server)
			case r.Error != "":
				fmt.Fprintf(p.Err, "no API server: %s\n", r.Error)
			}
			return nil
		},
	}
	p.kubeFlags(cmd)
	p.outputFlag(cmd)
	cmd.Flags().BoolVar(&clientOnly, "client", false, "only of this program")
	return cmd
}

func (p *Program) serverVersion() (string, error) {
	c, err := p.connect()
	if err != nil {
		return "", err
	}
	c.config.Timeout = 5 * time.Second
	d, err := discovery.NewDiscoveryClientForConfig(c.config)
	if err != nil {
		return "", err
	}
	v, err := d.ServerVersion()
	if err != nil {
		return "", err
	}
	return v.GitVersion, nil
}
