package controller

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/spf13/pflag"
)

// incumbentsFlags are all flags of cert-manager's controller 1.21, with a value that differs from
// its default.
func incumbentsFlags() map[string]string {
	return map[string]string{
		"acme-http01-solver-extra-labels":              "team=platform",
		"acme-http01-solver-image":                     "registry.example.com/perennial:v1",
		"acme-http01-solver-nameservers":               "192.0.2.53:53",
		"acme-http01-solver-resource-limits-cpu":       "200m",
		"acme-http01-solver-resource-limits-memory":    "128Mi",
		"acme-http01-solver-resource-request-cpu":      "20m",
		"acme-http01-solver-resource-request-memory":   "32Mi",
		"acme-http01-solver-run-as-non-root":           "false",
		"acme-http01-solver-runtime-class-name":        "gvisor",
		"auto-certificate-annotations":                 "example.com/tls",
		"certificate-request-maximum-backoff-duration": "8h",
		"certificate-request-minimum-backoff-duration": "30m",
		"cluster-issuer-ambient-credentials":           "false",
		"cluster-resource-namespace":                   "cert-manager",
		"concurrent-workers":                           "20",
		"config":                                       "",
		"controllers":                                  "*,-certificaterequests-approver",
		"copied-annotation-prefixes":                   "*,-example.com/",
		"default-issuer-group":                         "example.com",
		"default-issuer-kind":                          "ClusterIssuer",
		"default-issuer-name":                          "ca",
		"dns01-check-retry-period":                     "20s",
		"dns01-recursive-nameservers":                  "192.0.2.53:53",
		"dns01-recursive-nameservers-only":             "true",
		"enable-certificate-owner-ref":                 "true",
		"enable-gateway-api":                           "true",
		"enable-gateway-api-listenerset":               "true",
		"enable-profiling":                             "true",
		"extra-certificate-annotations":                "example.com/a",
		"feature-gates":                                "ServerSideApply=true",
		"gateway-api-extra-protocols":                  "example.com/QUIC",
		"internal-healthz-listen-address":              "127.0.0.1:9404",
		"issuer-ambient-credentials":                   "true",
		"kube-api-burst":                               "100",
		"kube-api-qps":                                 "50",
		"kubeconfig":                                   "kubeconfig",
		"leader-elect":                                 "false",
		"leader-election-lease-duration":               "90s",
		"leader-election-namespace":                    "cert-manager",
		"leader-election-renew-deadline":               "60s",
		"leader-election-retry-period":                 "20s",
		"log-flush-frequency":                          "1s",
		"log-json-info-buffer-size":                    "1Mi",
		"log-json-split-stream":                        "true",
		"log-text-info-buffer-size":                    "1Mi",
		"log-text-split-stream":                        "true",
		"logging-format":                               "json",
		"master":                                       "https://192.0.2.1:6443",
		"max-certificate-bundle-size":                  "400000",
		"max-certificate-chain-length":                 "96000",
		"max-certificate-size":                         "40000",
		"max-concurrent-challenges":                    "20",
		"max-private-key-size":                         "14000",
		"metrics-dynamic-serving-ca-secret-name":       "metrics",
		"metrics-dynamic-serving-ca-secret-namespace":  "cert-manager",
		"metrics-dynamic-serving-dns-names":            "metrics.example.com",
		"metrics-dynamic-serving-leaf-duration":        "24h",
		"metrics-listen-address":                       "127.0.0.1:9405",
		"metrics-tls-cert-file":                        "tls.crt",
		"metrics-tls-cipher-suites":                    "TLS_AES_128_GCM_SHA256",
		"metrics-tls-min-version":                      "VersionTLS13",
		"metrics-tls-private-key-file":                 "tls.key",
		"namespace":                                    "shop",
		"profiler-address":                             "localhost:6061",
		"v":                                            "4",
		"vmodule":                                      "acme=4",
	}
}

func TestEachFlagOfCertManagersControllerIsAccepted(t *testing.T) {
	for name, value := range incumbentsFlags() {
		f := Command().Flags()
		if err := f.Parse([]string{"--" + name + "=" + value}); err != nil {
			t.Errorf("--%s=%s: %v", name, value, err)
		}
		apart := Command().Flags()
		if needsNone := apart.Lookup(name).NoOptDefVal != ""; needsNone {
			value = "" // true
		}
		if err := apart.Parse(slices.DeleteFunc([]string{"--" + name, value}, func(s string) bool {
			return s == "" && name != "config"
		})); err != nil || apart.NArg() > 0 {
			t.Errorf("--%s %s: %v, and it leaves %v", name, value, err, apart.Args())
		}
		if f.Lookup(name).Usage == "" {
			t.Errorf("--%s does not say what it is for, or why it has no effect", name)
		}
	}
}

// lines is a log, and the lines that it was given.
func lines() (logr.Logger, *[]string) {
	var all []string
	return funcr.New(func(_, args string) { all = append(all, args) }, funcr.Options{}), &all
}

// applied parses and applies flags, and returns the controllers that run and what was logged.
func applied(t *testing.T, flags ...string) (on map[string]bool, said []string, err error) {
	t.Helper()
	set := pflag.NewFlagSet("controller", pflag.ContinueOnError)
	var incumbent incumbentFlags
	incumbent.add(set)
	if err := set.Parse(flags); err != nil {
		return nil, nil, err
	}
	o := Options{Controllers: []string{"*"}}
	log, all := lines()
	if err := incumbent.apply(set, &o, log); err != nil {
		return nil, nil, err
	}
	on, err = enabled(o.Controllers)
	return on, *all, err
}

func TestWhatFlagsAndGatesOfCertManagerDo(t *testing.T) {
	for name, test := range map[string]struct {
		flags []string
		off   []string
		says  string // empty for nothing
		fails string
	}{
		"nothing":                    {nil, nil, "", ""},
		"the Gateway API":            {[]string{"--enable-gateway-api"}, nil, "", ""},
		"no Gateway API":             {[]string{"--enable-gateway-api=false"}, []string{gatewayShim, listenerSets}, "", ""},
		"no ListenerSets":            {[]string{"--enable-gateway-api-listenerset=false"}, []string{listenerSets}, "", ""},
		"a gate that is always on":   {[]string{"--feature-gates=ServerSideApply=true"}, nil, "", ""},
		"off, where it is always on": {[]string{"--feature-gates=ServerSideApply=false"}, nil, "it is always on", ""},
		"a gate with an effect":      {[]string{"--feature-gates=ACMEUseARI=false"}, []string{renewalInfo}, "", ""},
		"two gates":                  {[]string{"--feature-gates=OtherNames=true, ListenerSets=false"}, []string{listenerSets}, "", ""},
		"a gate of nothing":          {[]string{"--feature-gates=ValidateCAA=true"}, nil, "the CA checks CAA records", ""},
		"signing requests off":       {[]string{"--feature-gates=ExperimentalCertificateSigningRequestControllers=false"}, []string{certificateSigningRequests}, "", ""},
		"an unknown gate":            {[]string{"--feature-gates=Faster=true"}, nil, "", `there is no feature gate "Faster": choose of ACME`},
		"no value":                   {[]string{"--feature-gates=OtherNames"}, nil, "", `OtherNames must be true or false, not ""`},
		"a limit":                    {[]string{"--kube-api-qps=9000"}, nil, "Priority and Fairness", ""},
		"a flag without its value":   {[]string{"--log-json-split-stream"}, nil, "each line of the log is written at once", ""},
		"no such version of TLS":     {[]string{"--metrics-tls-min-version=VersionTLS9"}, nil, "", "must be VersionTLS12 or VersionTLS13"},
		"no such cipher suite":       {[]string{"--metrics-tls-cipher-suites=NULL"}, nil, "", `no secure cipher suite "NULL"`},
		"a generated certificate":    {[]string{"--metrics-dynamic-serving-dns-names=a"}, nil, "", "set --metrics-tls-cert-file"},
	} {
		t.Run(name, func(t *testing.T) {
			on, said, err := applied(t, test.flags...)
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), test.fails) {
					t.Errorf("the error is %v, and not %q", err, test.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, controller := range Controllers() {
				if on[controller] == slices.Contains(test.off, controller) {
					t.Errorf("%s runs: %t", controller, on[controller])
				}
			}
			if logged := strings.Join(said, "\n"); (test.says == "") != (logged == "") || !strings.Contains(logged, test.says) {
				t.Errorf("the log says %q, and not %q", logged, test.says)
			}
		})
	}
}

func TestEachFieldOfAConfigurationSetsAFlag(t *testing.T) {
	f := Command().Flags()
	var check func(path string, fields map[string]any)
	check = func(path string, fields map[string]any) {
		for name, field := range fields {
			switch field := field.(type) {
			case string:
				if f.Lookup(field) == nil {
					t.Errorf("%s%s sets --%s, which is no flag", path, name, field)
				}
			case map[string]any:
				check(path+name+".", field)
			}
		}
	}
	check("", configurationFields())
}

func TestAConfigurationSetsWhatTheCommandLineDoesNot(t *testing.T) {
	for name, test := range map[string]struct {
		file  string
		flags []string
		want  map[string]string
		fails string
	}{
		"as in cert-manager's documentation": {`
logging: {verbosity: 2, format: json}
leaderElectionConfig: {namespace: kube-system, leaseDuration: 30s}
kubernetesAPIQPS: 9000
kubernetesAPIBurst: 9000
numberOfConcurrentWorkers: 200
enableGatewayAPI: true
featureGates: {OtherNames: true, ServerSideApply: false}
acmeDNS01Config: {recursiveNameservers: ["192.0.2.53:53", "https://dns.example.com/dns-query"]}
`, nil, map[string]string{
			"v": "2", "logging-format": "json", "leader-election-namespace": "kube-system",
			"leader-election-lease-duration": "30s", "concurrent-workers": "200",
			"feature-gates":               "OtherNames=true,ServerSideApply=false",
			"dns01-recursive-nameservers": "[192.0.2.53:53,https://dns.example.com/dns-query]",
		}, ""},
		"flags count": {"numberOfConcurrentWorkers: 200", []string{"--concurrent-workers=3"},
			map[string]string{"concurrent-workers": "3"}, ""},
		"nothing": {"", nil, map[string]string{"concurrent-workers": "8"}, ""},
		"as of 1.21": {`
gatewayAPI: {enabled: false, extraProtocols: [example.com/QUIC]}
logging: {vmodule: [{filePattern: acme, verbosity: 4}]}
metricsTLSConfig: {dynamic: {secretNamespace: "", secretName: ""}}
controllers: []
healthzListenAddress: 127.0.0.1:9404
`, nil, map[string]string{
			"enable-gateway-api": "false", "gateway-api-extra-protocols": "[example.com/QUIC]", "controllers": "[*]",
			"internal-healthz-listen-address": "127.0.0.1:9404", "metrics-dynamic-serving-ca-secret-name": "",
		}, ""},
		"a field that is empty": {"namespace:", nil, map[string]string{"namespace": ""}, ""},
		"an unknown field":      {"numberOfWorkers: 3", nil, nil, "there is no field numberOfWorkers in a ControllerConfiguration"},
		"an unknown one below":  {"logging: {level: 3}", nil, nil, "there is no field logging.level"},
		"a wrong value":         {"numberOfConcurrentWorkers: many", nil, nil, "numberOfConcurrentWorkers: "},
		"no object":             {"logging: json", nil, nil, "logging must be an object"},
		"a field twice":         {"namespace: a\nnamespace: b", nil, nil, "namespace"},
	} {
		t.Run(name, func(t *testing.T) {
			f, path, err := loaded(t, test.file, test.flags)
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), test.fails) || !strings.Contains(err.Error(), path) {
					t.Errorf("the error is %v, and not %q", err, test.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, flag := range slices.Sorted(maps.Keys(test.want)) {
				if got := f.Lookup(flag).Value.String(); got != test.want[flag] {
					t.Errorf("--%s is %q, and not %q", flag, got, test.want[flag])
				}
			}
		})
	}
}

// loaded returns the flags of a command line with a configuration file, and the path of the file.
func loaded(t *testing.T, file string, flags []string) (f *pflag.FlagSet, path string, err error) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "config.yaml")
	text := "apiVersion: " + configurationVersion + "\nkind: " + configurationKind + "\n" + file
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f = Command().Flags()
	if err := f.Parse(flags); err != nil {
		t.Fatal(err)
	}
	return f, path, (&incumbentFlags{config: path}).load(f)
}

func TestWhatIsNoConfigurationIsRefused(t *testing.T) {
	for name, file := range map[string]string{
		"another kind": "apiVersion: " + configurationVersion + "\nkind: WebhookConfiguration\n",
		"no version":   "kind: " + configurationKind + "\n",
	} {
		if _, err := parseConfiguration([]byte(file)); err == nil || !strings.Contains(err.Error(), "they must be ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := parseConfiguration(make([]byte, maxConfiguration+1)); err == nil {
		t.Error("a file of any size is parsed")
	}
}

func FuzzConfiguration(f *testing.F) {
	f.Add([]byte("apiVersion: " + configurationVersion + "\nkind: " + configurationKind + "\nlogging: {verbosity: 2}"))
	f.Add([]byte("featureGates: {A: true}\ncontrollers: [\"*\", -a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		settings, err := parseConfiguration(data)
		if err != nil {
			return
		}
		flags := Command().Flags()
		for _, s := range settings {
			if flags.Lookup(s.flag) == nil {
				t.Errorf("%s sets --%s", s.field, s.flag)
			}
		}
	})
}
