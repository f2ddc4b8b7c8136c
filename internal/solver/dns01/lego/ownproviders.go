package lego

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"
)

// own are the providers that this package implements, with lego's conventions.
var own = [...]kind{
	{
		name:      "exec",
		settings:  []setting{{name: "program", form: text}, {name: "mode", form: text}},
		exclusive: true,
		local:     true,
	},
	{name: "manual", local: true},
}

// maxOutput bounds the output of a failed program in messages.
const maxOutput = 1 << 10

// program makes records by running a program, with lego's arguments.
type program struct {
	path string
	raw  bool
}

func newProgram(v values) (*program, error) {
	p := &program{path: v["program"], raw: v["mode"] == "RAW"}
	switch {
	case p.path == "":
		return nil, errors.New("dns01.provider.config: exec needs program, the path of what is to be run")
	case !filepath.IsAbs(p.path):
		return nil, fmt.Errorf("dns01.provider.config: program: %s is no absolute path", p.path)
	case v["mode"] != "" && !p.raw:
		return nil, fmt.Errorf("dns01.provider.config: mode: %q is not RAW: correct it, or leave it out", v["mode"])
	}
	return p, nil
}

func (p *program) present(ctx context.Context, r Record) error { return p.run(ctx, "present", r) }
func (p *program) cleanUp(ctx context.Context, r Record) error { return p.run(ctx, "cleanup", r) }

func (p *program) run(ctx context.Context, verb string, r Record) error {
	args := []string{verb, r.FQDN, r.Value}
	if p.raw {
		args = []string{verb, "--", r.Domain, r.Token, r.KeyAuthorization}
	}
	output := &tail{}
	c := exec.CommandContext(ctx, p.path, args...) //nolint:gosec // the machine's owner sets it
	c.Stdout, c.Stderr = output, output
	c.WaitDelay = time.Second // a child process may keep the output open
	if err := c.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return fmt.Errorf("exec: %s %s: %w: %s", p.path, verb, err, bytes.TrimSpace(output.kept))
	}
	return nil
}

// tail keeps the last bytes that are written.
type tail struct{ kept []byte }

// Write keeps the end of what has been written.
func (t *tail) Write(b []byte) (int, error) {
	t.kept = append(t.kept, b...)
	if over := len(t.kept) - maxOutput; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(b), nil
}

// byHand is the backend of the manual provider: a user makes the record. It does nothing, because
// the check sees the record.
type byHand struct{}

func (byHand) present(context.Context, Record) error { return nil }
func (byHand) cleanUp(context.Context, Record) error { return nil }
