package cli

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/explain"
	"github.com/perennial-pki/perennial/pki"
)

func (p *Program) inspect() *cobra.Command {
	cmd := &cobra.Command{Use: "inspect", Short: "Show what something holds", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	secret := &cobra.Command{
		Use:   "secret NAME",
		Short: "Show the certificates in a Secret, and whether they are good",
		Long: "Shows the certificates in a Secret, whether they belong to its private key, chain up to its CA and are " +
			"valid now. The key itself is\n" +
			"never shown. Exit code 3 if anything is wrong.",
		Args: exactly("the NAME of a Secret"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.connect()
			if err != nil {
				return err
			}
			return p.inspectSecret(cmd.Context(), c, args[0])
		},
	}
	p.kubeFlags(secret)
	p.outputFlag(secret)
	cmd.AddCommand(secret)
	return cmd
}

// secretReport is what inspect secret prints as JSON.
type secretReport struct {
	Namespace string              `json:"namespace"`
	Name      string              `json:"name"`
	Chain     []certificateReport `json:"chain"`
	CA        []certificateReport `json:"ca"`
	KeyType   string              `json:"keyType,omitempty"`
	Entries   []string            `json:"entries"`
	// Problems is empty if all is well.
	Problems []string `json:"problems"`
}

type certificateReport struct {
	Subject      string    `json:"subject"`
	Issuer       string    `json:"issuer"`
	SerialNumber string    `json:"serialNumber"`
	NotBefore    time.Time `json:"notBefore"`
	NotAfter     time.Time `json:"notAfter"`
	DNSNames     []string  `json:"dnsNames,omitempty"`
	IPAddresses  []string  `json:"ipAddresses,omitempty"`
	URIs         []string  `json:"uris,omitempty"`
	Emails       []string  `json:"emailAddresses,omitempty"`
	Usages       []string  `json:"usages,omitempty"`
	IsCA         bool      `json:"isCA"`
	PublicKey    string    `json:"publicKey"`
	Signature    string    `json:"signatureAlgorithm"`
	Fingerprint  string    `json:"sha256"`
	OCSPServers  []string  `json:"ocspServers,omitempty"`
	CRLs         []string  `json:"crlDistributionPoints,omitempty"`
}

func reportOf(c *x509.Certificate) certificateReport {
	r := certificateReport{
		Subject:      c.Subject.String(),
		Issuer:       c.Issuer.String(),
		SerialNumber: fmt.Sprintf("%x", c.SerialNumber),
		NotBefore:    c.NotBefore.UTC(),
		NotAfter:     c.NotAfter.UTC(),
		DNSNames:     c.DNSNames,
		Emails:       c.EmailAddresses,
		Usages:       pki.FormatUsages(c.KeyUsage, c.ExtKeyUsage),
		IsCA:         c.IsCA,
		PublicKey:    c.PublicKeyAlgorithm.String(),
		Signature:    c.SignatureAlgorithm.String(),
		Fingerprint:  pki.Fingerprint(c),
		OCSPServers:  c.OCSPServer,
		CRLs:         c.CRLDistributionPoints,
	}
	for _, ip := range c.IPAddresses {
		r.IPAddresses = append(r.IPAddresses, ip.String())
	}
	for _, u := range c.URIs {
		r.URIs = append(r.URIs, u.String())
	}
	return r
}

func (p *Program) inspectSecret(ctx context.Context, c *cluster, name string) error {
	secret := &corev1.Secret{}
	if err := c.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: name}, secret); err != nil {
		if apierrors.IsNotFound(err) {
			return &exitError{ExitNotFound, fmt.Errorf("there is no Secret %q in namespace %q", name, c.namespace)}
		}
		return err
	}
	r := inspectPair(secret, p.Clock.Now())
	if p.json() {
		if err := p.printJSON(r); err != nil {
			return err
		}
	} else {
		p.printSecret(r)
	}
	if len(r.Problems) > 0 {
		return &exitError{code: ExitNotReady}
	}
	return nil
}

// inspectPair reads the certificates of a Secret and says what is wrong with them.
func inspectPair(secret *corev1.Secret, now time.Time) secretReport {
	r := secretReport{
		Namespace: secret.Namespace,
		Name:      secret.Name,
		Chain:     []certificateReport{},
		CA:        []certificateReport{},
		Problems:  []string{},
	}
	for entry := range secret.Data {
		r.Entries = append(r.Entries, entry)
	}
	wrong := func(format string, args ...any) { r.Problems = append(r.Problems, fmt.Sprintf(format, args...)) }

	chain, err := pki.SecretLimits.DecodeChainPEM(secret.Data[corev1.TLSCertKey])
	if err != nil {
		wrong("%s: %v", corev1.TLSCertKey, err)
		return r
	}
	for _, cert := range chain {
		r.Chain = append(r.Chain, reportOf(cert))
		switch {
		case now.After(cert.NotAfter):
			wrong("the certificate of %s expired %s", cert.Subject, explain.Until(cert.NotAfter, now))
		case now.Before(cert.NotBefore):
			wrong("the certificate of %s is valid only %s", cert.Subject, explain.Until(cert.NotBefore, now))
		}
	}
	if key, err := pki.DecodeKeyPEM(secret.Data[corev1.TLSPrivateKeyKey]); err != nil {
		wrong("%s: %v", corev1.TLSPrivateKeyKey, err)
	} else {
		r.KeyType = chain[0].PublicKeyAlgorithm.String()
		if !pki.SamePublicKey(key.Public(), chain[0].PublicKey) {
			wrong("the private key does not belong to the certificate")
		}
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, cert := range chain[1:] {
		intermediates.AddCert(cert)
	}
	bundle := secret.Data[cmmeta.TLSCAKey]
	if len(bundle) == 0 {
		return r
	}
	cas, err := pki.SecretLimits.DecodeBundlePEM(bundle)
	if err != nil {
		wrong("%s: %v", cmmeta.TLSCAKey, err)
		return r
	}
	for _, cert := range cas {
		r.CA = append(r.CA, reportOf(cert))
		roots.AddCert(cert)
	}
	if now.Before(chain[0].NotAfter) {
		_, err := chain[0].Verify(
			x509.VerifyOptions{
				Roots:         roots,
				Intermediates: intermediates,
				CurrentTime:   now,
				KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
			},
		)
		var critical x509.UnhandledCriticalExtension
		if err != nil && !errors.As(err, &critical) {
			wrong("the certificate does not chain up to %s: %v", cmmeta.TLSCAKey, err)
		}
	}
	return r
}

func (p *Program) printSecret(r secretReport) {
	now := p.Clock.Now()
	if len(r.Problems) == 0 {
		fmt.Fprintf(p.Out, "Secret %s/%s is good\n", r.Namespace, r.Name)
	} else {
		fmt.Fprintf(p.Out, "Secret %s/%s is not good\n", r.Namespace, r.Name)
		for _, problem := range r.Problems {
			fmt.Fprintf(p.Out, "  %s\n", problem)
		}
	}
	for i, cert := range r.Chain {
		title := "Certificate"
		if i > 0 {
			title = "Intermediate"
		}
		printCertificate(p.Out, title, cert, now)
	}
	for _, cert := range r.CA {
		printCertificate(p.Out, "CA", cert, now)
	}
}

func printCertificate(out io.Writer, title string, c certificateReport, now time.Time) {
	fmt.Fprintf(out, "\n%s\n", title)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(out, "  %-14s %s\n", name, value)
		}
	}
	join := func(values []string) string { return strings.Join(values, ", ") }
	line("subject", c.Subject)
	line("issuer", c.Issuer)
	line("DNS names", join(c.DNSNames))
	line("IP addresses", join(c.IPAddresses))
	line("URIs", join(c.URIs))
	line("e-mail", join(c.Emails))
	line("valid from", c.NotBefore.Format(time.RFC3339))
	line("valid until", c.NotAfter.Format(time.RFC3339)+", "+explain.Until(c.NotAfter, now))
	line("usages", join(c.Usages))
	line("key", c.PublicKey+", signed with "+c.Signature)
	line("serial number", c.SerialNumber)
	line("SHA-256", c.Fingerprint)
	line("OCSP", join(c.OCSPServers))
	line("CRL", join(c.CRLs))
}
