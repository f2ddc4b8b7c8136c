package http01

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestAWebServerOfAnotherUserCanReadWhatIsInItsWebroot(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	webroot := t.TempDir()
	s := &Solver{Webroot: webroot}
	ch := challenge("a.example.com")
	for range 2 { // what is there already is no matter
		if err := s.Present(t.Context(), nil, ch); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]fs.FileMode{".well-known": 0o755, ".well-known/acme-challenge": 0o755,
		".well-known/acme-challenge/token": 0o644} {
		info, err := os.Stat(filepath.Join(webroot, path))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has the mode %o", path, got)
		}
	}
	// A directory that the solver did not make stays as it is.
	if err := os.Chmod(filepath.Join(webroot, ".well-known"), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := s.Present(t.Context(), nil, ch); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(webroot, ".well-known")); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("it is now %v, %v", info.Mode(), err)
	}
	for range 2 { // nor is what is gone already
		if err := s.CleanUp(t.Context(), nil, ch); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := os.ReadDir(filepath.Join(webroot, ".well-known/acme-challenge")); err != nil || len(left) > 0 {
		t.Errorf("there are %v, %v", left, err)
	}
}
