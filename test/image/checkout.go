package image

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

// Checkout returns the source in a directory of a git repository. The version is the tag of the
// commit, otherwise a pseudo-version as Go's, with +dirty if files differ from the commit.
func Checkout(ctx context.Context, dir string) (Source, error) {
	git := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Dir = dir
		out, err := cmd.Output()
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			err = fmt.Errorf("git %s: %s", strings.Join(args, " "), strings.TrimSpace(string(exit.Stderr)))
		}
		return strings.TrimSpace(string(out)), err
	}
	root, err := git("rev-parse", "--show-toplevel")
	if err != nil {
		return Source{}, err
	}
	head, err := git("log", "-1", "--format=%H %ct")
	if err != nil {
		return Source{}, err
	}
	revision, seconds, _ := strings.Cut(head, " ")
	unix, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return Source{}, fmt.Errorf("time of commit %s: %w", revision, err)
	}
	tagged, err := git("tag", "--points-at", "HEAD")
	if err != nil {
		return Source{}, err
	}
	older, err := git("tag", "--merged", "HEAD")
	if err != nil {
		return Source{}, err
	}
	changed, err := git("status", "--porcelain")
	if err != nil {
		return Source{}, err
	}
	s := Source{Dir: filepath.FromSlash(root), Revision: revision, Time: time.Unix(unix, 0).UTC()}
	s.Version = versionOf(s, newest(tagged), newest(older))
	if changed != "" {
		s.Version += "+dirty"
	}
	return s, nil
}

// versionOf returns the tag, if there is one, or the pseudo-version after an older tag.
func versionOf(s Source, tag, older string) string {
	if tag != "" {
		return tag
	}
	major := semver.Major(older)
	if major == "" {
		major = "v0"
	}
	return module.PseudoVersion(major, older, s.Time, s.Revision[:12])
}

// newest returns the tag with the highest version, empty if no tag is a version.
func newest(tags string) (highest string) {
	for tag := range strings.FieldsSeq(tags) {
		if semver.Canonical(tag) == tag && semver.Compare(tag, highest) > 0 { // less than a version: the empty text
			highest = tag
		}
	}
	return highest
}
