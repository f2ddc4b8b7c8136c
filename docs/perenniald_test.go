package docs

import (
	"os"
	"strings"
	"testing"
)

// TestTheUnitHasNoStartLimitAndIsHardened reads the unit as systemd does: a key counts in its own
// section alone.
func TestTheUnitHasNoStartLimitAndIsHardened(t *testing.T) {
	unit, err := os.ReadFile("../deploy/perenniald.service")
	if err != nil {
		t.Fatal(err)
	}
	keys, section := map[string]string{}, ""
	for line := range strings.Lines(string(unit)) {
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
	_, writes, _ := strings.Cut(keys["[Service]ExecStart"], "--file-root ")
	if path, _, _ := strings.Cut(writes, " "); path == "" || keys["[Service]ReadWritePaths"] != path {
		t.Errorf("perenniald writes to %q, and the unit allows %q", path, keys["[Service]ReadWritePaths"])
	}
}
