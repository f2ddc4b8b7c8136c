package definitions

import "testing"

func TestOlderVersionsAreRecognised(t *testing.T) {
	for name, test := range map[string]struct {
		is, than string
		want     bool
	}{
		"the same":                 {"v0.2.0", "v0.2.0", false},
		"a patch before":           {"v0.1.9", "v0.2.0", true},
		"by number, not by letter": {"v0.9.0", "v0.10.0", true},
		"later":                    {"v0.10.0", "v0.9.0", false},
		"a pre-release":            {"v0.2.0-rc.1", "v0.2.0", true},
		"without a v":              {"0.1.0", "v0.2.0", true},
		"no version":               {"", "v0.2.0", false},
		"another project's":        {"latest", "v0.2.0", false},
	} {
		if got := older(test.is, test.than); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
