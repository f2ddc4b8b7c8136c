package controlplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"
)

const (
	// lowSpace is the free space below which a warning is due. etcd preallocates 64 MB for each of
	// two segments of its log, and its database grows in steps of megabytes.
	lowSpace = 256 << 20
	// lowInodes is the same for the number of files.
	lowInodes = 1000
	// diskInterval is the interval between checks of the free space.
	diskInterval = time.Minute
)

// space is the free space of a file system. Inodes are -1 where the file system does not count
// them.
type space struct{ bytes, inodes int64 }

func spaceAt(path string) (space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return space{}, err
	}
	s := space{bytes: int64(st.Bavail) * st.Bsize, inodes: -1}
	if st.Files > 0 {
		s.inodes = int64(st.Ffree)
	}
	return s, nil
}

// low says which resource is low, or "".
func (s space) low() string {
	switch {
	case s.bytes < lowSpace:
		return fmt.Sprintf("%d MiB left", s.bytes>>20)
	case s.inodes >= 0 && s.inodes < lowInodes:
		return fmt.Sprintf("room for %d files left", s.inodes)
	}
	return ""
}

// diskWarning returns a message about the file system of dir, or "". There is a message when space
// becomes low, when half of it is used up since the last warning, and when there is enough again.
// warned is the free space at the last warning, nil if no warning is active.
func diskWarning(dir string, now space, warned *space) (message string, next *space) {
	short := now.low()
	switch {
	case short == "" && warned != nil:
		return fmt.Sprintf("the file system of %s has enough space again", dir), nil
	case short == "":
		return "", nil
	case warned != nil && now.bytes >= warned.bytes/2 &&
		(now.inodes < 0 || now.inodes > warned.inodes/2 || now.inodes >= lowInodes):
		return "", warned
	}
	return fmt.Sprintf("warning: the file system of %s has %s: free space before it is full, or perenniald stops", dir,
		short), &now
}

// disk warns of low space on the file system of a directory.
type disk struct {
	dir    string
	say    func(string)
	warned *space
}

func (d *disk) look() {
	now, err := spaceAt(d.dir)
	if err != nil {
		return // the file system does not say
	}
	message := ""
	if message, d.warned = diskWarning(d.dir, now, d.warned); message != "" {
		d.say(message)
	}
}

// watch checks the free space periodically until the context ends.
func (d *disk) watch(ctx context.Context) {
	ticker := time.NewTicker(diskInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			d.look()
		}
	}
}

// explainDisk adds advice about a full disk to an error.
func explainDisk(dir string, err error) error {
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	return fmt.Errorf("the file system of %s is full: %w: free at least %d MiB there and start again; what was stored "+
		"before is kept",
		dir, err, lowSpace>>20)
}

// lastWords ends the process with one line when etcd cannot continue. etcd's logger would end it
// without a message on standard error or with a stack trace, and the log may be on the full disk.
type lastWords struct {
	dir  string
	say  func(error)
	once sync.Once
}

// OnWrite implements zapcore.CheckWriteHook.
func (l *lastWords) OnWrite(entry *zapcore.CheckedEntry, fields []zapcore.Field) {
	err := errors.New(entry.Message)
	for _, f := range fields {
		if cause, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			err = fmt.Errorf("%s: %w", entry.Message, cause)
		}
	}
	l.once.Do(func() {
		l.say(explainDisk(l.dir, fmt.Errorf("etcd cannot go on: %w", err)))
	})
	os.Exit(1)
}

func (l *lastWords) options() []zap.Option {
	return []zap.Option{zap.WithFatalHook(l), zap.WithPanicHook(l)}
}
