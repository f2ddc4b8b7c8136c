// Package ownership checks whether another user of this machine could change files that perenniald
// reads or writes at a path.
package ownership

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// maxLinks is the maximum number of symbolic links in a path, as in the kernel.
const maxLinks = 40

// maxGroups is the maximum size of /etc/group to read.
const maxGroups = 1 << 20

// Check returns an error if another user could change the file or directory at path, or replace it
// through a directory above it, up to the root, or through a symbolic link on the way. The error
// names the entry and the command that fixes it.
//
// For root, each of them must belong to root and only root may write to it, because the files that
// perenniald reads decide which commands root runs. For another user, an entry is refused only if
// other users can write to it. A sticky directory above the path is accepted, because users cannot
// replace entries of others there. Entries that do not exist are not checked.
func Check(path string) error { return check(path, os.Geteuid()) }

func check(path string, uid int) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	// The rest of the path, and the current position.
	rest, at := split(path), "/"
	links := 0
	entry, err := os.Lstat(at)
	if err != nil {
		return err
	}
	for len(rest) > 0 {
		next := filepath.Join(at, rest[0])
		if rest[0] == ".." { // of a link's target
			next = filepath.Dir(at)
		}
		child, err := os.Lstat(next)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			return judge(at, entry, uid, true)
		}
		if err != nil {
			return err
		}
		if err := judgeChild(at, entry, next, child, uid); err != nil {
			return err
		}
		rest = rest[1:]
		if child.Mode()&fs.ModeSymlink == 0 {
			at, entry = next, child
			continue
		}
		if links++; links > maxLinks {
			return fmt.Errorf("%s leads through too many symbolic links", path)
		}
		target, err := os.Readlink(next)
		if err != nil {
			return err
		}
		rest = append(split(target), rest...)
		if filepath.IsAbs(target) {
			at = "/"
			if entry, err = os.Lstat(at); err != nil {
				return err
			}
		}
	}
	return judge(at, entry, uid, false)
}

// judgeChild returns an error if another user can change a directory on the way, or replace the
// child.
func judgeChild(at string, entry fs.FileInfo, next string, child fs.FileInfo, uid int) error {
	if err := judge(at, entry, uid, true); err != nil {
		return err
	}
	if sticky(entry) && !trusted(child, uid) {
		return fmt.Errorf("%s belongs to %s, so that user can exchange it: chown %s %s, or use another path",
			next, userName(owner(child)), userName(uid), next)
	}
	return nil
}

// judge returns an error if another user can change an entry, or its content. For a directory above
// the path, the sticky bit is sufficient.
func judge(path string, info fs.FileInfo, uid int, above bool) error {
	if info.Mode()&fs.ModeSymlink != 0 {
		return nil
	}
	if !trusted(info, uid) && (uid == 0 || info.Mode().Perm()&0o200 != 0) {
		return fmt.Errorf("%s belongs to %s, so that user can change what perenniald finds there: chown %s %s, or use "+
			"another path",
			path, userName(owner(info)), userName(uid), path)
	}
	if above && sticky(info) {
		return nil
	}
	writers := info.Mode().Perm() & 0o022
	if writers&0o020 != 0 && uid != 0 && private(info, uid) {
		writers &^= 0o020
	}
	if writers == 0 {
		return nil
	}
	which, bits := "all users", "o-w"
	switch writers {
	case 0o020:
		which, bits = "the users of "+groupName(group(info)), "g-w"
	case 0o022:
		bits = "go-w"
	}
	return fmt.Errorf("%s can write to %s (mode %04o): chmod %s %s", which, path, info.Mode().Perm(), bits, path)
}

func split(path string) []string {
	var parts []string
	for part := range strings.SplitSeq(path, "/") {
		if part != "" && part != "." {
			parts = append(parts, part)
		}
	}
	return parts
}

func sticky(info fs.FileInfo) bool { return info.Mode()&fs.ModeSticky != 0 }

// trusted reports whether an entry belongs to root or to the user.
func trusted(info fs.FileInfo, uid int) bool { return owner(info) == 0 || owner(info) == uid }

func owner(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }
func group(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Gid) }

// private reports whether the user is the only member of the group of an entry. Many systems give
// each user a group of the same name, which can write to new directories.
func private(info fs.FileInfo, uid int) bool {
	g, err := user.LookupGroupId(strconv.Itoa(group(info)))
	if err != nil {
		return false
	}
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil || u.Gid != g.Gid || u.Username != g.Name {
		return false
	}
	groups, err := os.Open("/etc/group")
	if err != nil {
		return false
	}
	defer groups.Close()
	return alone(groups, g.Name, u.Username)
}

// alone reports whether the user is the only member of the group in a file in the format of
// /etc/group.
func alone(groups io.Reader, group, name string) bool {
	lines := bufio.NewScanner(io.LimitReader(groups, maxGroups))
	lines.Buffer(nil, maxGroups)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) < 4 || fields[0] != group {
			continue
		}
		for member := range strings.SplitSeq(fields[3], ",") {
			if member = strings.TrimSpace(member); member != "" && member != name {
				return false
			}
		}
	}
	return lines.Err() == nil
}

func userName(id int) string {
	if u, err := user.LookupId(strconv.Itoa(id)); err == nil {
		return u.Username
	}
	return strconv.Itoa(id)
}

func groupName(id int) string {
	if g, err := user.LookupGroupId(strconv.Itoa(id)); err == nil {
		return "group " + g.Name
	}
	return "group " + strconv.Itoa(id)
}
