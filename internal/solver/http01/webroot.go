package http01

import (
	"errors"
	"fmt"
	"os"
	"path"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/fault"
)

// write writes the key authorization below Webroot. The mode ignores the umask, so that the web
// server can read the file as another user. Symbolic links cannot lead out of Webroot.
func (s *Solver) write(ch *cmacme.Challenge) error {
	root, err := os.OpenRoot(s.Webroot)
	if err != nil {
		return fault.Misconfiguredf("Webroot", "--http01-webroot: %w", err)
	}
	defer root.Close()
	name := acme.HTTP01Path(ch.Spec.Token)[1:]
	directory := path.Dir(name)
	for _, d := range []string{path.Dir(directory), directory} {
		err := root.Mkdir(d, 0o755)
		if err == nil {
			err = root.Chmod(d, 0o755)
		}
		if err != nil && !errors.Is(err, os.ErrExist) {
			return fault.Misconfiguredf("Webroot", "--http01-webroot: %w", err)
		}
	}
	if err = root.WriteFile(name, []byte(ch.Spec.Key), 0o644); err == nil {
		err = root.Chmod(name, 0o644)
	}
	if err != nil {
		return fault.Misconfiguredf("Webroot", "--http01-webroot: %w", err)
	}
	return nil
}

// remove deletes the file that write made.
func (s *Solver) remove(ch *cmacme.Challenge) error {
	root, err := os.OpenRoot(s.Webroot)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("--http01-webroot: %w", err)
	}
	defer root.Close()
	if err := root.Remove(acme.HTTP01Path(ch.Spec.Token)[1:]); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("--http01-webroot: %w", err)
	}
	return nil
}
