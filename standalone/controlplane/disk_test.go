package controlplane

import (
	"strings"
	"testing"
)

func TestLowSpaceIsWarnedAboutOnceAndAgainWhenItHalves(t *testing.T) {
	const mib = 1 << 20
	var warned *space
	for i, step := range []struct {
		now  space
		says string // nothing is said if empty
	}{
		{space{1000 * mib, 1 << 20}, ""},
		{space{200 * mib, 1 << 20}, "warning: the file system of /data has 200 MiB left"},
		{space{190 * mib, 1 << 20}, ""},
		{space{90 * mib, 1 << 20}, "has 90 MiB left"},
		{space{80 * mib, 1 << 20}, ""},
		{space{300 * mib, 1 << 20}, "has enough space again"},
		{space{300 * mib, 1 << 20}, ""},
		{space{300 * mib, 900}, "has room for 900 files left"},
		{space{300 * mib, 800}, ""},
		{space{300 * mib, 100}, "has room for 100 files left"},
		{space{300 * mib, 5000}, "has enough space again"},
		{space{100 * mib, -1}, "has 100 MiB left"},
		{space{90 * mib, -1}, ""},
		{space{300 * mib, -1}, "has enough space again"},
		{space{0, -1}, "has 0 MiB left"},
		{space{0, -1}, ""},
	} {
		var says string
		says, warned = diskWarning("/data", step.now, warned)
		if (says == "") != (step.says == "") || !strings.Contains(says, step.says) {
			t.Errorf("step %d, %+v: it says %q, want %q", i, step.now, says, step.says)
		}
	}
}
