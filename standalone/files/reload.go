package files

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	perennial "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
)

const (
	defaultCommandTimeout = 30 * time.Second
	// systemd's own limit for a start or reload is 90 s.
	systemctlTimeout = 2 * time.Minute
	// maxOutput is the size of the last part of a command's output to keep for its message.
	maxOutput = 512
	// maxPIDFile is the maximum size of a pidFile.
	maxPIDFile = 4096
	// searchPath is the PATH of commands, because perenniald's own PATH may be unsuitable.
	searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

var signals = map[perennial.ReloadSignalName]syscall.Signal{
	"HUP":   unix.SIGHUP,
	"USR1":  unix.SIGUSR1,
	"USR2":  unix.SIGUSR2,
	"WINCH": unix.SIGWINCH,
	"TERM":  unix.SIGTERM,
	"INT":   unix.SIGINT,
	"QUIT":  unix.SIGQUIT,
}

// reload makes a program reload the files: it runs a command, sends a signal, or calls systemd.
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

// command runs a program. If it takes too long, it is killed with all its child processes.
func command(ctx context.Context, timeout time.Duration, directory string, args []string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = []string{"PATH=" + searchPath, "PERENNIAL_DIRECTORY=" + directory}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	output, err := capture(cmd)
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	if err = output.run(cmd); err == nil {
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

// lastOutput is how long the output of a command that has ended may take to arrive.
const lastOutput = time.Second

// output is the output of a command and its child processes.
type output struct {
	read, write *os.File
	done        chan struct{} // closed when all processes with the other end have ended

	mu   sync.Mutex
	tail []byte
}

// capture creates the output of a command.
func capture(cmd *exec.Cmd) (*output, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = write, write
	return &output{read: read, write: write, done: make(chan struct{})}, nil
}

// run runs the command and returns how it ended. A background process of the command, for example
// after a restart, may keep the output open for its lifetime. run continues to read it, so that the
// process can write, but does not wait for its end.
func (o *output) run(cmd *exec.Cmd) error {
	go func() {
		defer close(o.done)
		defer o.read.Close()
		_, _ = io.Copy(o, o.read)
	}()
	err := cmd.Run()
	o.write.Close()
	if err != nil {
		select {
		case <-o.done:
		case <-time.After(lastOutput):
		}
	}
	return err
}

// Write keeps the end of what is written.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tail = append(o.tail, p...)
	if len(o.tail) > maxOutput {
		o.tail = bytes.Clone(o.tail[len(o.tail)-maxOutput:])
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.ToValidUTF8(strings.Join(strings.Fields(string(o.tail)), " "), "?")
}

// signal sends a signal to the process of the pidFile. The file must belong to root, to the user of
// perenniald or to the user of that process, so that no other user can choose the target of the
// signal.
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
	line, _, _ := strings.Cut(string(data[:n]), "\n") // the file of PostgreSQL has more lines
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
		return fmt.Errorf(
			"spec.reload.signal.pidFile: %s belongs to user %d, but process %d, which it names, to user %d",
			s.PIDFile,
			owner,
			pid,
			of,
		)
	}
	if err := unix.Kill(pid, number); err != nil {
		return fmt.Errorf("send SIG%s to process %d: %w", name, pid, err)
	}
	return nil
}
