package files

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"

	"golang.org/x/sys/unix"
)

// advice returns how to fix an error of this machine, for appending to its text, or "".
func advice(err error) string {
	switch {
	case errors.Is(err, unix.ENOSPC):
		return ": free space on that file system"
	case errors.Is(err, unix.EDQUOT):
		return ": free space within the quota of the user of perenniald, or raise it"
	case errors.Is(err, unix.EROFS):
		return ": mount that file system writable or, if the unit of perenniald has ProtectSystem, list the directory in " +
			"ReadWritePaths"
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, unix.ENOENT):
		return ": create it, or correct the path"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Sprintf(": allow that to user %s, as which perenniald runs, or run perenniald as root", self())
	}
	return ""
}

func self() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprint(os.Geteuid())
}
