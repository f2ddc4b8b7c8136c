package docs

import (
	"os"
	"strings"
	"testing"
)

// TestTheUnitHasNoStartLimitAndIsHardened reads the unit of docs/perenniald.md as systemd does: a
// key counts in its own section alone.
func TestTheUnitHasNoStartLimitAndIsHardened(t *testing.T) {
	text, err := os.ReadFile("perenniald.md")
	if err != nil {
		t.Fatal(err)
	}
	_, unit, found := strings.Cut(string(text), "```ini\n")
	unit, _, closed := strings.Cut(unit, "```")
	if !found || !closed {
		t.Fatal("docs/perenniald.md has no unit")
	}
	keys, section := map[string]string{}, ""
	for line := range strings.Lines(unit) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = line
		} else if key, value, ok := strings.Cut(line, "="); ok {
			keys[section+key] = value
		}
	}
	for key, want := range map[string]string{
		"[Unit]StartLimitIntervalSec": "0", "[Service]Restart": "always", "[Service]StateDirectory": "perennial",
		"[Service]StateDirectoryMode": "0700", "[Service]NoNewPrivileges": "yes", "[Service]ProtectSystem": "strict",
		"[Service]PrivateTmp": "yes", "[Service]RestrictNamespaces": "yes", "[Service]UMask": "0077",
	} {
		if keys[key] != want {
			t.Errorf("the unit has %s=%q, want %q", key, keys[key], want)
		}
	}
	for path := range strings.FieldsSeq(keys["[Service]ExecStart"]) {
		if strings.HasPrefix(path, "/etc/nginx") && !strings.Contains(keys["[Service]ReadWritePaths"], path) {
			t.Errorf("perenniald writes to %s, which the unit does not allow", path)
		}
	}
}
