package ownership

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const other = 54321 // the user that is not root

// tree makes a directory whose parents are safe, with a/b in it.
func tree(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("only root can give entries to other users: run the tests of this package as root")
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestWhatAnotherUserCanChangeIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		do       string // in the directory above a
		path     string // a/b if empty
		root     string // what the error for root is, none if it passes
		ordinary string // the same of the user 54321
	}{
		"all belongs to root": {},
		"all belongs to the user": {
			do: "chown -R 54321 a", root: "/a belongs to 54321, so that user can change what perenniald finds there: " +
				"chown root "},
		"only the last belongs to the user": {do: "chown 54321 a/b", root: "/a/b belongs to 54321"},
		"a parent belongs to another user": {
			do: "chown 54322 a", root: "/a belongs to 54322", ordinary: "/a belongs to 54322"},
		"a parent of another that it cannot write": {do: "chown 54322 a; chmod 0555 a", root: "/a belongs to 54322"},
		"all users can write": {
			do: "chmod 0777 a/b", root: "all users can write to DIR/a/b (mode 0777): chmod go-w DIR/a/b",
			ordinary: "chmod go-w DIR/a/b"},
		"others, but not the group, can write": {
			do: "chmod 0757 a/b", root: "chmod o-w DIR/a/b", ordinary: "chmod o-w DIR/a/b"},
		"a group can write": {
			do:   "chgrp 54322 a/b; chmod 0775 a/b",
			root: "the users of group 54322 can write to DIR/a/b (mode 0775): chmod g-w DIR/a/b", ordinary: "chmod g-w DIR/a/b"},
		"the group root can write": {
			do: "chmod 0775 a/b", root: "chmod g-w DIR/a/b", ordinary: "chmod g-w DIR/a/b"},
		"all users can write to a parent":       {do: "chmod 0777 a", root: "chmod go-w DIR/a", ordinary: "chmod go-w DIR/a"},
		"a sticky parent":                       {do: "chmod 1777 a"},
		"a sticky parent of a group":            {do: "chgrp 54322 a; chmod 1770 a"},
		"a sticky parent, an entry of the user": {do: "chmod 1777 a; chown 54321 a/b", root: "/a/b belongs to 54321"},
		"a sticky parent, an entry of another": {
			do: "chmod 1777 a; chown 54322 a/b", root: "/a/b belongs to 54322", ordinary: "/a/b belongs to 54322"},
		"a sticky parent of another user": {
			do: "chown 54322 a; chmod 1777 a", root: "/a belongs to 54322", ordinary: "/a belongs to 54322"},
		"a sticky directory itself": {
			do: "chmod 1777 a/b", root: "chmod go-w DIR/a/b", ordinary: "chmod go-w DIR/a/b"},
		"a link into a directory that is safe": {do: "ln -s a/b link", path: "link"},
		"a link into one that is not": {
			do: "chmod 0777 a; ln -s a/b link", path: "link", root: "chmod go-w DIR/a", ordinary: "chmod go-w DIR/a"},
		"an absolute link into one that is not": {
			do: `chmod 0777 a; ln -s "$PWD/a/b" link`, path: "link", root: "chmod go-w DIR/a", ordinary: "chmod go-w DIR/a"},
		"a link in a directory that is not": {
			do: `mkdir -m 0777 open; ln -s ../a/b open/link`, path: "open/link", root: "chmod go-w DIR/open",
			ordinary: "chmod go-w DIR/open"},
		"another user's link in a sticky directory": {
			do: `mkdir -m 1777 open; ln -s ../a/b open/link; chown -h 54322 open/link`, path: "open/link",
			root: "/open/link belongs to 54322, so that user can exchange it", ordinary: "/open/link belongs to 54322"},
		"a link on the way": {
			do: "chown 54322 a; ln -s a way", path: "way/b", root: "/a belongs to 54322", ordinary: "/a belongs to 54322"},
		"links in a circle": {
			do: "ln -s x y; ln -s y x", path: "x", root: "too many symbolic links", ordinary: "too many symbolic links"},
		"a file that all users can write": {
			do: "touch a/f; chmod 0666 a/f", path: "a/f", root: "all users can write to DIR/a/f (mode 0666)",
			ordinary: "chmod go-w DIR/a/f"},
		"a directory that is still to be made": {path: "a/new/deep"},
		"one still to be made where all can write": {
			do: "chmod 0777 a", path: "a/new/deep", root: "chmod go-w DIR/a", ordinary: "chmod go-w DIR/a"},
		"one still to be made in a sticky directory": {do: "chmod 1777 a", path: "a/new/deep"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tree(t)
			cmd := exec.Command("/bin/sh", "-euc", "umask 0; "+test.do)
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			path := filepath.Join(dir, "a", "b")
			if test.path != "" {
				path = filepath.Join(dir, test.path)
			}
			for uid, says := range map[int]string{0: test.root, other: test.ordinary} {
				says = strings.ReplaceAll(says, "DIR", dir)
				if err := check(path, uid); (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
					t.Errorf("the error for user %d is %v, want %q", uid, err, says)
				}
			}
		})
	}
}

func TestAPrivateGroupHasOneMember(t *testing.T) {
	for text, want := range map[string]bool{
		"alice:x:1000:\n":                   true,
		"root:x:0:\nalice:x:1000:alice\n":   true,
		"alice:x:1000:bob\n":                false,
		"alice:x:1000:alice,bob\n":          false,
		"staff:x:50:bob\nalice:x:1000:\n":   true,
		"broken\nalice:x:1000: alice , \n":  true,
		strings.Repeat("x", maxGroups+1000): false,
	} {
		if got := alone(strings.NewReader(text), "alice", "alice"); got != want {
			t.Errorf("%.40q: %v, want %v", text, got, want)
		}
	}
}
