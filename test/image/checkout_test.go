package image

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTheVersionIsThatOfTheCommit(t *testing.T) {
	dir := t.TempDir()
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_COMMITTER_DATE=2026-05-04T03:02:01Z", "GIT_CONFIG_GLOBAL="+os.DevNull,
			"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %s: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	commit := func() {
		t.Helper()
		git("commit", "--allow-empty", "-q", "-m", "Change")
	}
	says := func(want string) Source {
		t.Helper()
		s, err := Checkout(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		if want = strings.ReplaceAll(want, "HEAD", git("rev-parse", "HEAD")[:12]); s.Version != want {
			t.Errorf("version %s, want %s", s.Version, want)
		}
		return s
	}
	if _, err := Checkout(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "not a git repository") {
		t.Errorf("without a repository: %v", err)
	}
	git("init", "-q")
	commit()
	s := says("v0.0.0-20260504030201-HEAD")
	if want := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC); !s.Time.Equal(want) || s.Revision != git("rev-parse", "HEAD") {
		t.Errorf("%+v", s)
	}
	git("tag", "v1.9.0")
	git("tag", "v1.10.0")
	git("tag", "nightly")
	says("v1.10.0")
	if err := os.WriteFile(filepath.Join(dir, "new"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	says("v1.10.0+dirty")
	git("add", "new")
	commit()
	says("v1.10.1-0.20260504030201-HEAD")
}
