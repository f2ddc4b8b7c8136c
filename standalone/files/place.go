package files

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A place is the location of the files of one CertificateFile: a symbolic link to a directory in
// the same parent, a new one for each version. Replacing the link is atomic, so that programs
// always open a matching pair.
//
// Below the root, no symbolic link is followed. Otherwise the owner of a directory on the path
// could make perenniald overwrite other files.
type place struct {
	root      string // absolute, from --file-root
	directory string // absolute, below root
}

// version is the desired content of the files, with owner and mode.
type version struct {
	files              map[string][]byte
	uid, gid           int // -1: do not set
	mode, dirMode      uint32
	reload             bool // whether a reload must follow
	relevantToIdentity string
}

// pendingName is a file in a version's directory that exists until the reload has succeeded.
const pendingName = ".reload-pending"

// maxFile limits the size of files that are read back. Files that perenniald writes are much
// smaller.
const maxFile = 4 << 20

// ownName matches the names that perenniald gives to the directories of versions and to links
// before they are renamed: a dot, the name of the place, and a suffix from the version and a random
// number.
var ownName = regexp.MustCompile(`^[.](.+)[.]([0-9a-f]{16}-[0-9a-f]{8}|new-[0-9a-f]{8})$`)

// newPlace checks that directory is below one of the roots.
func newPlace(roots []string, directory string) (place, error) {
	if ownName.MatchString(filepath.Base(directory)) {
		return place{}, fmt.Errorf("spec.directory %s has a name as perenniald gives to its own: choose another one",
			directory)
	}
	best := ""
	for _, root := range roots {
		if rel, err := filepath.Rel(
			root,
			directory,
		); err == nil && rel != "." && filepath.IsLocal(rel) &&
			len(root) > len(best) {
			best = root
		}
	}
	if best != "" {
		return place{best, directory}, nil
	}
	if len(roots) == 0 {
		return place{}, fmt.Errorf(
			"spec.directory %s: perenniald writes no files: start it with --file-root and a directory above this one",
			directory,
		)
	}
	return place{}, fmt.Errorf(
		"spec.directory %s is not below a root of perenniald (%s): choose another directory, or start perenniald with "+
			"another --file-root",
		directory,
		strings.Join(roots, ", "),
	)
}

func (p place) base() string { return filepath.Base(p.directory) }

// owns reports whether a name belongs to a directory or link that perenniald created for this
// place. Names of the place web.example.com do not belong to the place web.
func (p place) owns(name string) bool {
	m := ownName.FindStringSubmatch(name)
	return m != nil && m[1] == p.base()
}

// real is the path of the place with the symbolic links above its root resolved. Below the root,
// none is followed.
func (p place) real() string {
	root, err := filepath.EvalSymlinks(p.root)
	if err != nil {
		root = p.root
	}
	rel, err := filepath.Rel(p.root, p.directory)
	if err != nil {
		return p.directory
	}
	return filepath.Join(root, rel)
}

// prefix is the start of the names of version directories.
func (p place) prefix() string { return "." + p.base() + "." }

// parent opens the directory that contains the link. If create is true, it creates a missing one.
func (p place) parent(create bool) (*os.File, error) {
	fd, err := unix.Open(p.root, unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open root %s: %w", p.root, err)
	}
	dir := os.NewFile(uintptr(fd), p.root)
	rel, err := filepath.Rel(p.root, filepath.Dir(p.directory))
	if err != nil {
		dir.Close()
		return nil, err
	}
	for _, name := range strings.Split(rel, "/") {
		if name == "." {
			continue
		}
		next, err := openDir(dir, name, create)
		dir.Close()
		if err != nil {
			return nil, err
		}
		dir = next
	}
	if err := trusted(dir); err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// openDir opens a directory in dir. It fails for a symbolic link.
func openDir(dir *os.File, name string, create bool) (*os.File, error) {
	how := &unix.OpenHow{
		Flags:   unix.O_DIRECTORY | unix.O_CLOEXEC | unix.O_RDONLY,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd, err := unix.Openat2(int(dir.Fd()), name, how)
	if errors.Is(err, unix.ENOENT) && create {
		if err := unix.Mkdirat(int(dir.Fd()), name, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, fmt.Errorf("make directory %s: %w", filepath.Join(dir.Name(), name), err)
		}
		fd, err = unix.Openat2(int(dir.Fd()), name, how)
	}
	path := filepath.Join(dir.Name(), name)
	switch {
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR):
		return nil, fmt.Errorf("%s is a symbolic link or no directory: below a root only real directories are entered", path)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// trusted returns an error if another user could replace files in the directory.
func trusted(dir *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return fmt.Errorf("look at %s: %w", dir.Name(), err)
	}
	if me := uint32(os.Geteuid()); st.Uid != me && st.Uid != 0 {
		return fmt.Errorf(
			"%s belongs to user %d, which could exchange the files: it must belong to root or to the user of perenniald",
			dir.Name(),
			st.Uid,
		)
	}
	if st.Mode&unix.S_IWOTH != 0 && st.Mode&unix.S_ISVTX == 0 {
		return fmt.Errorf("all users can write to %s, and could exchange the files: chmod o-w it", dir.Name())
	}
	return nil
}

// put writes v to the place. It reports whether it changed anything.
func (p place) put(v version) (changed bool, err error) {
	dir, err := p.parent(true)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	current, err := p.current(dir)
	if err != nil {
		return false, err
	}
	stem := p.prefix() + v.identity() + "-"
	if strings.HasPrefix(current, stem) && p.holds(dir, current, v) {
		return false, p.clean(dir, current, "")
	}
	name := stem + randomName()
	if err := p.write(dir, name, v); err != nil {
		_ = removeAll(dir, name)
		return false, err
	}
	link := p.prefix() + "new-" + randomName()
	if err := unix.Symlinkat(name, int(dir.Fd()), link); err != nil {
		return false, fmt.Errorf("make link %s: %w", filepath.Join(dir.Name(), link), err)
	}
	if err := unix.Renameat(int(dir.Fd()), link, int(dir.Fd()), p.base()); err != nil {
		return false, fmt.Errorf("change link %s: %w", p.directory, err)
	}
	if err := dir.Sync(); err != nil {
		return false, fmt.Errorf("sync %s: %w", dir.Name(), err)
	}
	// Keep the previous version until the next change, because programs may be reading it.
	return true, p.clean(dir, name, current)
}

// current returns the directory that the link leads to, or "". Anything but a link of perenniald is
// an error.
func (p place) current(dir *os.File) (string, error) {
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), p.base(), &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("look at %s: %w", p.directory, err)
	case st.Mode&unix.S_IFMT != unix.S_IFLNK:
		return "", fmt.Errorf("%s exists and was not made by perenniald: move it away", p.directory)
	}
	buf := make([]byte, 512)
	n, err := unix.Readlinkat(int(dir.Fd()), p.base(), buf)
	if err != nil {
		return "", fmt.Errorf("read link %s: %w", p.directory, err)
	}
	target := string(buf[:n])
	if st.Uid != uint32(os.Geteuid()) || !p.owns(target) {
		return "", fmt.Errorf("%s is a symbolic link to %s that perenniald did not make: move it away", p.directory, target)
	}
	return target, nil
}

// identity identifies the content of v. It reveals nothing about the private key.
func (v version) identity() string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%d\x00%d\x00%o\x00%o", v.relevantToIdentity, v.uid, v.gid, v.mode, v.dirMode)
	names := make([]string, 0, len(v.files))
	for name := range v.files {
		names = append(names, name)
	}
	slices.Sort(names)
	fmt.Fprintf(h, "\x00%q", names)
	return hex.EncodeToString(h.Sum(nil)[:8])
}

func randomName() string {
	b := make([]byte, 4)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// write creates the directory of a version completely and syncs it to disk.
func (p place) write(dir *os.File, name string, v version) error {
	if err := unix.Mkdirat(int(dir.Fd()), name, 0o700); err != nil {
		return fmt.Errorf("make directory %s: %w", filepath.Join(dir.Name(), name), err)
	}
	made, err := openDir(dir, name, false)
	if err != nil {
		return err
	}
	defer made.Close()
	files := v.files
	if v.reload {
		files = map[string][]byte{pendingName: nil}
		for name, data := range v.files {
			files[name] = data
		}
	}
	for file, data := range files {
		if err := writeFile(made, file, data, v); err != nil {
			return fmt.Errorf("write %s: %w", filepath.Join(made.Name(), file), err)
		}
	}
	if err := made.Chown(v.uid, v.gid); err != nil {
		return fmt.Errorf("give %s to its owner: %w", made.Name(), err)
	}
	if err := made.Chmod(os.FileMode(v.dirMode)); err != nil {
		return fmt.Errorf("set mode of %s: %w", made.Name(), err)
	}
	return made.Sync()
}

func writeFile(dir *os.File, name string, data []byte, v version) error {
	fd, err := unix.Openat(
		int(dir.Fd()),
		name,
		unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC,
		0o600,
	)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(data)
	return errors.Join(err, f.Chown(v.uid, v.gid), f.Chmod(os.FileMode(v.mode)), f.Sync(), f.Close())
}

// holds reports whether the directory has exactly the files of v.
func (p place) holds(dir *os.File, name string, v version) bool {
	made, err := openDir(dir, name, false)
	if err != nil {
		return false
	}
	defer made.Close()
	for file, data := range v.files {
		fd, err := unix.Openat(int(made.Fd()), file, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return false
		}
		f := os.NewFile(uintptr(fd), file)
		var st unix.Stat_t
		statErr := unix.Fstat(fd, &st)
		had, readErr := io.ReadAll(io.LimitReader(f, maxFile))
		f.Close()
		if statErr != nil || readErr != nil || !bytes.Equal(had, data) || st.Mode&0o7777 != v.mode ||
			v.uid >= 0 && int(st.Uid) != v.uid || v.gid >= 0 && int(st.Gid) != v.gid {
			return false
		}
	}
	return true
}

// clean removes the directories and links of perenniald except the two given ones.
func (p place) clean(dir *os.File, keep, before string) error {
	// Use a new descriptor, because reading a directory moves its shared position.
	listing, err := openDir(dir, ".", false)
	if err != nil {
		return err
	}
	defer listing.Close()
	names, err := listing.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("read %s: %w", dir.Name(), err)
	}
	if before == "" { // nothing changed, so keep the previous version, which is among them
		return p.cleanLinks(dir, names)
	}
	for _, name := range names {
		if p.owns(name) && name != keep && name != before {
			if err := removeAll(dir, name); err != nil {
				return fmt.Errorf("remove %s: %w", filepath.Join(dir.Name(), name), err)
			}
		}
	}
	return nil
}

func (p place) cleanLinks(dir *os.File, names []string) error {
	for _, name := range names {
		if p.owns(name) && strings.HasPrefix(name, p.prefix()+"new-") {
			if err := unix.Unlinkat(int(dir.Fd()), name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("remove %s: %w", filepath.Join(dir.Name(), name), err)
			}
		}
	}
	return nil
}

// versions returns the paths of the existing version directories.
func (p place) versions() []string {
	entries, err := os.ReadDir(filepath.Dir(p.directory))
	if err != nil {
		return nil
	}
	var paths []string
	for _, e := range entries {
		if p.owns(e.Name()) {
			paths = append(paths, filepath.Join(filepath.Dir(p.directory), e.Name()))
		}
	}
	return paths
}

// remove removes the link and all versions. It does nothing if the place does not exist.
func (p place) remove() error {
	dir, err := p.parent(false)
	if errors.Is(err, unix.ENOENT) {
		return nil
	} else if err != nil {
		return err
	}
	defer dir.Close()
	current, err := p.current(dir)
	if err != nil {
		return err
	}
	if current != "" {
		if err := unix.Unlinkat(int(dir.Fd()), p.base(), 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove link %s: %w", p.directory, err)
		}
	}
	listing, err := openDir(dir, ".", false)
	if err != nil {
		return err
	}
	defer listing.Close()
	names, err := listing.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("read %s: %w", dir.Name(), err)
	}
	for _, name := range names {
		if p.owns(name) {
			if err := removeAll(dir, name); err != nil {
				return fmt.Errorf("remove %s: %w", filepath.Join(dir.Name(), name), err)
			}
		}
	}
	return dir.Sync()
}

// removeAll removes a link, or a directory of perenniald, which contains only files.
func removeAll(dir *os.File, name string) error {
	err := unix.Unlinkat(int(dir.Fd()), name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	made, err := openDir(dir, name, false)
	if err != nil {
		return err
	}
	defer made.Close()
	names, err := made.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, file := range names {
		if err := unix.Unlinkat(int(made.Fd()), file, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	if err := unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// pending reports whether a reload is due for the current version.
func (p place) pending() (bool, error) {
	found := false
	err := p.inCurrent(func(made *os.File) error {
		var st unix.Stat_t
		err := unix.Fstatat(int(made.Fd()), pendingName, &st, unix.AT_SYMLINK_NOFOLLOW)
		found = err == nil
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return err
	})
	return found, err
}

// mark returns the name of the current version, to pass to markReloaded after its reload.
func (p place) mark() (string, error) {
	name := ""
	err := p.inCurrent(func(made *os.File) error {
		name = filepath.Base(made.Name())
		return nil
	})
	return name, err
}

// markReloaded records that the reload for the version of the mark has succeeded. If there is a
// newer version, its reload is still due.
func (p place) markReloaded(mark string) error {
	return p.inCurrent(func(made *os.File) error {
		if filepath.Base(made.Name()) != mark {
			return nil
		}
		err := unix.Unlinkat(int(made.Fd()), pendingName, 0)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return errors.Join(err, made.Sync())
	})
}

func (p place) inCurrent(f func(*os.File) error) error {
	dir, err := p.parent(false)
	if errors.Is(err, unix.ENOENT) {
		return nil
	} else if err != nil {
		return err
	}
	defer dir.Close()
	current, err := p.current(dir)
	if err != nil || current == "" {
		return err
	}
	made, err := openDir(dir, current, false)
	if err != nil {
		return err
	}
	defer made.Close()
	return f(made)
}

// userID and groupID return the number of a user or group that is given by name or number; -1 for
// "".
func userID(name string) (int, error) {
	if n, err := strconv.Atoi(name); err == nil || name == "" {
		return idOr(n, name), nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, fmt.Errorf("spec.owner: there is no user %q on this machine", name)
	}
	return strconv.Atoi(u.Uid)
}

func groupID(name string) (int, error) {
	if n, err := strconv.Atoi(name); err == nil || name == "" {
		return idOr(n, name), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("spec.group: there is no group %q on this machine", name)
	}
	return strconv.Atoi(g.Gid)
}

func idOr(n int, name string) int {
	if name == "" {
		return -1
	}
	return n
}
