package controller

import (
	"cmp"
	"strings"
	"testing"
)

// TestASiteBehindTheListenerIsNamedInFull has commands that get no further than to their kubeconfig, which is not there.
func TestASiteBehindTheListenerIsNamedInFull(t *testing.T) {
	for _, test := range []struct{ to, listen, says string }{
		{"", ":443", ""}, {"127.0.0.1:8443", ":443", ""}, {"site.shop.svc:443", ":443", ""},
		{"127.0.0.1:8443", "", "--tlsalpn01-passthrough-to needs --tlsalpn01-listen-address"},
		{"8443", ":443", `--tlsalpn01-passthrough-to must be host:port, not "8443"`}, {"site.shop.svc", ":443", `must be host:port, not "site.shop.svc"`},
	} {
		cmd := Command()
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		cmd.SetArgs([]string{"--tlsalpn01-passthrough-to", test.to, "--tlsalpn01-listen-address", test.listen, "--kubeconfig", t.TempDir() + "/none"})
		if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), cmp.Or(test.says, "--kubeconfig: ")) {
			t.Errorf("%q behind %q: %v", test.to, test.listen, err)
		}
	}
}
