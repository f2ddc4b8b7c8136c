package controller

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

func TestNoVerbosityLogsBodies(t *testing.T) {
	const canary = "bm90LWZvci1sb2dz"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "s"}, "data": {"tls.key": %q}}`, canary)
	}))
	defer server.Close()
	k, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	for _, verbosity := range []int{0, 6, 8, 10, 99} {
		for _, format := range []string{"text", "json"} {
			var out bytes.Buffer
			log, err := Logger(&out, format, verbosity)
			if err != nil {
				t.Fatal(err)
			}
			ctx := klog.NewContext(t.Context(), log)
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, StringData: map[string]string{"tls.key": canary}}
			if _, err := k.CoreV1().Secrets("shop").Create(ctx, secret, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err := k.CoreV1().Secrets("shop").Get(ctx, "s", metav1.GetOptions{}); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(out.String(), canary) || strings.Contains(out.String(), "headers") {
				t.Errorf("-v %d, %s: %s", verbosity, format, out.String())
			}
		}
	}
}

func TestAddressesThatIssuersMayName(t *testing.T) {
	got, err := networks([]string{"127.0.0.1", "169.254.20.10/24", "::ffff:127.0.0.53", "::1"})
	if err != nil || fmt.Sprint(got) != "[127.0.0.1/32 169.254.20.0/24 127.0.0.53/32 ::1/128]" {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"localhost", "127.0.0.1:53", "", "127.0.0.0/33"} {
		if got, err := networks([]string{bad}); err == nil ||
			!strings.Contains(err.Error(), "--issuer-allowed-addresses must be") {
			t.Errorf("%q: %v, %v", bad, got, err)
		}
	}
}

// TestASiteBehindTheListenerIsNamedInFull runs commands that end at a missing kubeconfig at the
// latest.
func TestASiteBehindTheListenerIsNamedInFull(t *testing.T) {
	for _, test := range []struct{ to, listen, says string }{
		{"", ":443", ""}, {"127.0.0.1:8443", ":443", ""}, {"site.shop.svc:443", ":443", ""},
		{"127.0.0.1:8443", "", "--tlsalpn01-passthrough-to needs --tlsalpn01-listen-address"},
		{"8443", ":443", `--tlsalpn01-passthrough-to must be host:port, not "8443"`}, {"site.shop.svc", ":443", `must be host:port, not "site.shop.svc"`},
	} {
		cmd := Command()
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		cmd.SetArgs(
			[]string{
				"--tlsalpn01-passthrough-to",
				test.to,
				"--tlsalpn01-listen-address",
				test.listen,
				"--kubeconfig",
				t.TempDir() + "/none",
			},
		)
		if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), cmp.Or(test.says, "--kubeconfig: ")) {
			t.Errorf("%q behind %q: %v", test.to, test.listen, err)
		}
	}
}
