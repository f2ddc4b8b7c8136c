package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/lifecycle"
	"github.com/perennial-pki/perennial/pki"
)

// maxManifest bounds the size of a manifest.
const maxManifest = 1 << 20

func (p *Program) create() *cobra.Command {
	cmd := &cobra.Command{Use: "create", Short: "Make something", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	var from, keyFile, certificateFile string
	var fetch bool
	timeout := 5 * time.Minute
	request := &cobra.Command{
		Use:   "certificaterequest NAME --from-certificate-file FILE",
		Short: "Make a CertificateRequest from the manifest of a Certificate",
		Long: "Makes a private key and a CertificateRequest of what the manifest of a Certificate asks for. The " +
			"Certificate itself is not made.\n" +
			"The key stays on this machine, in a file that only you can read.",
		Example: "  perennial create certificaterequest web -f certificate.yaml --fetch-certificate",
		Args:    exactly("the NAME of the CertificateRequest"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if keyFile == "" {
				keyFile = name + ".key"
			}
			if certificateFile == "" {
				certificateFile = name + ".crt"
			} else if !fetch {
				return usage("--output-certificate-file goes with --fetch-certificate")
			}
			if from == "" {
				return usage(
					"--from-certificate-file is missing: the file with the manifest of a Certificate, or - for standard input",
				)
			}
			crt, err := p.readCertificate(from)
			if err != nil {
				return err
			}
			c, err := p.connect()
			if err != nil {
				return err
			}
			if crt.Namespace != "" && p.overrides.Context.Namespace == "" {
				c.namespace = crt.Namespace
			}
			return p.createRequest(cmd.Context(), c, crt, name, keyFile, certificateFile, fetch, timeout)
		},
	}
	p.kubeFlags(request)
	f := request.Flags()
	f.StringVarP(&from, "from-certificate-file", "f", "", "file with the manifest of a Certificate; - for standard input")
	f.StringVar(&keyFile, "output-key-file", "", "file for the private key, which must not exist; NAME.key if left out")
	f.BoolVar(&fetch, "fetch-certificate", false, "wait for the certificate and write it to a file")
	f.StringVar(&certificateFile, "output-certificate-file", "", "file for the certificate; NAME.crt if left out")
	f.DurationVar(&timeout, "timeout", timeout, "how long to wait for the certificate")
	cmd.AddCommand(request)
	return cmd
}

func (p *Program) readCertificate(path string) (*cmapi.Certificate, error) {
	in := p.In
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxManifest+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", path, err)
	case len(data) > maxManifest:
		return nil, fmt.Errorf("%s is larger than 1 MiB", path)
	}
	crt := &cmapi.Certificate{}
	for document := range bytes.SplitSeq(data, []byte("\n---\n")) {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(document, &kind); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if kind.Kind != "Certificate" {
			continue
		}
		if crt.Kind != "" {
			return nil, fmt.Errorf("%s has more than one Certificate", path)
		}
		if err := yaml.UnmarshalStrict(document, crt); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	if crt.Kind == "" {
		return nil, fmt.Errorf("%s has no Certificate", path)
	}
	return crt, nil
}

func (p *Program) createRequest(
	ctx context.Context,
	c *cluster,
	crt *cmapi.Certificate,
	name, keyFile, certificateFile string,
	fetch bool,
	timeout time.Duration,
) error {
	request, keySpec, encoding := lifecycle.RequestOf(&crt.Spec)
	if err := request.Check(keySpec); err != nil {
		return err
	}
	key, err := keySpec.Generate(rand.Reader)
	if err != nil {
		return err
	}
	keyPEM, err := pki.EncodeKeyPEM(key, encoding)
	if err != nil {
		return err
	}
	csr, err := request.CSR(rand.Reader, key)
	if err != nil {
		return err
	}
	// Write the key before the request: a certificate without its key is of no use.
	if err := writeNew(keyFile, keyPEM); err != nil {
		return fmt.Errorf("--output-key-file: %w", err)
	}
	cr := &cmapi.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: name, Labels: crt.Labels, Annotations: crt.Annotations},
		Spec: cmapi.CertificateRequestSpec{
			Duration:  crt.Spec.Duration,
			IssuerRef: crt.Spec.IssuerRef,
			IsCA:      crt.Spec.IsCA,
			Usages:    crt.Spec.Usages,
			Request:   pki.EncodeCSRPEM(csr),
		},
	}
	if err := c.Create(ctx, cr); err != nil {
		_ = os.Remove(keyFile)
		return err
	}
	fmt.Fprintf(p.Out, "certificaterequest %s/%s created; its private key is in %s\n", cr.Namespace, cr.Name, keyFile)
	if !fetch {
		return nil
	}
	certificate, err := p.await(ctx, c, cr, timeout)
	if err != nil {
		return err
	}
	if err := os.WriteFile(certificateFile, certificate, 0o644); err != nil {
		return fmt.Errorf("--output-certificate-file: %w", err)
	}
	fmt.Fprintf(p.Out, "the certificate is in %s\n", certificateFile)
	return nil
}

// writeNew writes a file that only its owner can read, and that must not exist: it could be the key
// of something that is in use.
func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// await waits until the request has its certificate, or has failed.
func (p *Program) await(
	ctx context.Context,
	c *cluster,
	cr *cmapi.CertificateRequest,
	timeout time.Duration,
) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	watcher, err := c.Watch(
		ctx,
		&cmapi.CertificateRequestList{},
		client.InNamespace(cr.Namespace),
		client.MatchingFields{"metadata.name": cr.Name},
	)
	if err != nil {
		return nil, err
	}
	defer watcher.Stop()
	last := "the controller has not processed it yet"
	for {
		select {
		case <-ctx.Done():
			return nil, &exitError{ExitNotReady, fmt.Errorf("no certificate after %s: %s", timeout, last)}
		case e, ok := <-watcher.ResultChan():
			if !ok || e.Type == watch.Error {
				return nil, errors.New("the API server ended the watch: see kubectl get certificaterequest " + cr.Name)
			}
			is, ok := e.Object.(*cmapi.CertificateRequest)
			if !ok {
				continue
			}
			if e.Type == watch.Deleted {
				return nil, fmt.Errorf("CertificateRequest %q was deleted", cr.Name) //nolint:staticcheck // names a kind
			}
			ready := cmapi.GetCertificateRequestCondition(&is.Status, cmapi.CertificateRequestConditionReady)
			switch {
			case len(is.Status.Certificate) > 0:
				return is.Status.Certificate, nil
			case cmapi.CertificateRequestIsDenied(&is.Status):
				return nil, &exitError{ExitNotReady, fmt.Errorf("CertificateRequest %q was denied", cr.Name)}
			case ready != nil && ready.Reason == cmapi.CertificateRequestReasonFailed:
				return nil, &exitError{ExitNotReady, fmt.Errorf("CertificateRequest %q failed: %s", cr.Name, ready.Message)}
			case ready != nil:
				last = ready.Message
			}
		}
	}
}
