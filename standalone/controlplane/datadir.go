package controlplane

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/perennial-pki/perennial/standalone/internal/ownership"
)

// dataDir is a data directory that this process holds.
type dataDir struct {
	path string
	lock *os.File
}

// openDataDir creates the directory if necessary and locks it. The kernel releases the lock when
// the process ends, even after a crash.
func openDataDir(path string) (*dataDir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := ownership.Check(path); err != nil {
		return nil, fmt.Errorf("data directory %s is not safe: %w", path, err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("create data directory: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	// The directory holds keys: remove the permissions of other users before anything is written.
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(path, 0o700); err != nil {
			return nil, fmt.Errorf(
				"data directory %s is open to other users (mode %04o) and cannot be changed to 0700: %w",
				path,
				info.Mode().Perm(),
				errors.Unwrap(err),
			)
		}
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory %s is not writable: %w", path, errors.Unwrap(err))
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			holder := "another process"
			if pid, err := io.ReadAll(io.LimitReader(lock, 20)); err == nil && len(bytes.TrimSpace(pid)) > 0 {
				holder = "process " + string(bytes.TrimSpace(pid))
			}
			return nil, fmt.Errorf("data directory %s is in use by %s: stop that one or give another directory", path, holder)
		}
		return nil, fmt.Errorf("lock data directory %s: %w", path, err)
	}
	// The content is only for the message above; the lock protects the directory.
	if err := lock.Truncate(0); err == nil {
		_, _ = lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return &dataDir{path: path, lock: lock}, nil
}

func (d *dataDir) close() {
	_ = d.lock.Truncate(0)
	_ = d.lock.Close() // releases the lock
}

// listen listens on the port, and remembers it. Port zero is the remembered one, or any.
func (d *dataDir) listen(port int) (net.Listener, error) {
	if port < 0 || port > 65535 {
		return nil, fmt.Errorf("port %d is not between 0 and 65535", port)
	}
	file := filepath.Join(d.path, "port")
	var listener net.Listener
	var err error
	if port == 0 {
		if saved, err := os.ReadFile(file); err == nil {
			if n, err := strconv.Atoi(strings.TrimSpace(string(saved))); err == nil && n > 0 && n < 65536 {
				// Another program may have taken the port. Then use any free one.
				listener, _ = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(n)))
			}
		}
	}
	if listener == nil {
		listener, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf(
			"port %d on 127.0.0.1 is taken by another process: give another port, or 0 for a free one",
			port,
		)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("no permission to listen on port %d: give a port above 1023, or 0 for a free one", port)
	case err != nil:
		return nil, fmt.Errorf("listen on port %d: %w", port, err)
	}
	bound := listener.Addr().(*net.TCPAddr).Port
	if err := writeFile(file, []byte(strconv.Itoa(bound)+"\n")); err != nil {
		listener.Close()
		return nil, err
	}
	return listener, nil
}

func (d *dataDir) logFile() string { return filepath.Join(d.path, "log", "control-plane.log") }

func (d *dataDir) logHint(w io.Writer) string {
	if w != nil {
		return "where its log was sent"
	}
	return d.logFile()
}

// maxSocketPath is the longest path of a Unix socket that every supported system accepts, without
// the final zero byte.
const maxSocketPath = 103

type socket struct {
	path   string
	remove func()
}

// socket returns a path for a Unix socket that only this user can reach. It is in the data
// directory, unless that path is too long for a socket.
func (d *dataDir) socket(name string) (socket, error) {
	path := filepath.Join(d.path, name)
	if len(path) <= maxSocketPath {
		// Remove the socket of a killed process.
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return socket{}, fmt.Errorf("remove stale socket: %w", err)
		}
		return socket{path: path, remove: func() { _ = os.Remove(path) }}, nil
	}
	short, err := os.MkdirTemp("", "perennial-") // mode 0700
	if err != nil {
		return socket{}, fmt.Errorf("directory for etcd's socket: %w", err)
	}
	return socket{path: filepath.Join(short, name), remove: func() { _ = os.RemoveAll(short) }}, nil
}

// writeFile atomically replaces a file, with mode 0600. It does not write a file that already has
// this content.
func writeFile(path string, content []byte) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
