package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestEachErrorOfTheMachineSaysWhatToDo(t *testing.T) {
	for err, says := range map[error]string{
		unix.ENOSPC: "free space", unix.EDQUOT: "quota", unix.EROFS: "ReadWritePaths", unix.ENOENT: "correct the path",
		exec.ErrNotFound: "correct the path", unix.EACCES: "as which perenniald runs", unix.EPERM: "as which perenniald runs",
	} {
		if got := advice(fmt.Errorf("write x: %w", &fs.PathError{Op: "open", Path: "x", Err: err})); !strings.Contains(got,
			says) {
			t.Errorf("%v: %q, want %q", err, got, says)
		}
	}
	if got := advice(errors.New("exit status 1")); got != "" {
		t.Errorf("advice without a known cause: %q", got)
	}
}
