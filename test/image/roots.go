package image

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"os/exec"
	"strings"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// rootsModule has the CA certificates that Mozilla trusts. Its version in go.mod decides what the
// image trusts, so that this is the same wherever the image is built; a file of the machine would
// differ. It is no part of the program: there it would hide from users what is trusted, and could
// not be replaced by a mount.
const rootsModule = "golang.org/x/crypto/x509roots/fallback"

// rootCertificates returns the CA certificates in PEM. It leaves out those with a constraint, such
// as a date after which the CA is not trusted: PEM cannot say it.
func rootCertificates() ([]byte, error) {
	var out bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			continue
		}
		if err := pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// rootsVersion returns the version of rootsModule in a source.
func rootsVersion(ctx context.Context, s Source) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Version}}", rootsModule)
	cmd.Dir = s.Dir
	cmd.Env = s.environment()
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("version of %s: %w", rootsModule, err)
	}
	return strings.TrimSpace(string(out)), nil
}
