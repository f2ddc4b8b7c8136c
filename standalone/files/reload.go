package files

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	perennial "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
)

const (
	defaultCommandTimeout = 30 * time.Second
	// systemd's own limit for a start or reload is 90 s.
	systemctlTimeout = 2 * time.Minute
	// maxOutput is how much of the end of a command's output is kept for its message.
	maxOutput = 512
	// maxPIDFile bounds what is read of a pidFile.
	maxPIDFile = 4096
	// searchPath is what commands get as PATH: perenniald's own may be anything.
	searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

var signals = map[perennial.ReloadSignalName]syscall.Signal{
	"HUP": unix.SIGHUP, "USR1": unix.SIGUSR1, "USR2": unix.SIGUSR2, "WINCH": unix.SIGWINCH, "TERM": unix.SIGTERM, "INT": unix.SIGINT, "QUIT": unix.SIGQUIT,
}

// reload tells somebody that the files have changed.
func reload(ctx context.Context, r *perennial.CertificateFileReload, directory string) error {
	switch {
	case r.Command != nil:
		timeout := defaultCommandTimeout
		if r.Command.Timeout != nil {
			timeout = r.Command.Timeout.Duration
		}
		return command(ctx, timeout, directory, r.Command.Args)
	case r.Signal != nil:
		return signal(r.Signal)
	case r.SystemdUnit != nil:
		action := r.SystemdUnit.Action
		if action == "" {
			action = "reload"
		}
		systemctl, err := lookUp("systemctl")
		if err != nil {
			return err
		}
		return command(ctx, systemctlTimeout, directory, []string{systemctl, string(action), "--", r.SystemdUnit.Name})
	}
	return errors.New("spec.reload has none of command, signal and systemdUnit")
}

func lookUp(program string) (string, error) {
	for _, dir := range filepath.SplitList(searchPath) {
		path := filepath.Join(dir, program)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("there is no %s on this machine", program)
}

// command runs a program. If it takes too long, it and all that it started are killed.
func command(ctx context.Context, timeout time.Duration, directory string, args []string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = []string{"PATH=" + searchPath, "PERENNIAL_DIRECTORY=" + directory}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = time.Second // somebody in the background may still hold the output
	output := &tail{}
	cmd.Stdout, cmd.Stderr = output, output
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("not finished after %s, killed", timeout)
	}
	if said := output.String(); said != "" {
		return fmt.Errorf("%s: %w: %s", args[0], err, said)
	}
	return fmt.Errorf("%s: %w", args[0], err)
}

// tail keeps the end of what is written to it.
type tail struct{ data []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if len(t.data) > maxOutput {
		t.data = bytes.Clone(t.data[len(t.data)-maxOutput:])
	}
	return len(p), nil
}

func (t *tail) String() string {
	return strings.ToValidUTF8(strings.Join(strings.Fields(string(t.data)), " "), "?")
}

// signal sends a signal to the process of the pidFile. The file must belong to root, to us or to the user of that process: nobody else
// may choose who gets a signal from us.
func signal(s *perennial.ReloadSignal) error {
	name := s.Name
	if name == "" {
		name = "HUP"
	}
	number, ok := signals[name]
	if !ok {
		return fmt.Errorf("spec.reload.signal.name: %q is not known", name)
	}
	f, err := os.OpenFile(s.PIDFile, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("spec.reload.signal.pidFile: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxPIDFile {
		return fmt.Errorf("spec.reload.signal.pidFile: %s is not a file with the number of a process", s.PIDFile)
	}
	data := make([]byte, maxPIDFile)
	n, _ := f.Read(data)
	line, _, _ := strings.Cut(string(data[:n]), "\n") // PostgreSQL's has more lines
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || pid <= 1 {
		return fmt.Errorf("spec.reload.signal.pidFile: the first line of %s is not the number of a process", s.PIDFile)
	}
	process, err := os.Stat("/proc/" + strconv.Itoa(pid))
	if err != nil {
		return fmt.Errorf("there is no process %d, which %s names: is the program running?", pid, s.PIDFile)
	}
	owner, of := info.Sys().(*syscall.Stat_t).Uid, process.Sys().(*syscall.Stat_t).Uid
	if owner != 0 && owner != uint32(os.Geteuid()) && owner != of {
		return fmt.Errorf("spec.reload.signal.pidFile: %s belongs to user %d, but process %d, which it names, to user %d", s.PIDFile, owner, pid, of)
	}
	if err := unix.Kill(pid, number); err != nil {
		return fmt.Errorf("send SIG%s to process %d: %w", name, pid, err)
	}
	return nil
}
