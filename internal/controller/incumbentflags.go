package controller

import (
	"crypto/tls"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
)

// unused is the value of a flag of cert-manager's controller that has no effect here.
type unused struct{ text string }

// String implements pflag.Value.
func (u *unused) String() string { return u.text }

// Set implements pflag.Value. Every text is accepted, because none has an effect.
func (u *unused) Set(text string) error {
	u.text = text
	return nil
}

// Type implements pflag.Value.
func (u *unused) Type() string { return "string" }

// unusedFlags are the flags of cert-manager's controller that have no effect, and why.
func unusedFlags() map[string]string {
	const logs = "each line of the log is written at once, as text or JSON"
	return map[string]string{
		"kube-api-qps":                    "the API server itself limits requests, by Priority and Fairness",
		"kube-api-burst":                  "the API server itself limits requests, by Priority and Fairness",
		"dns01-check-retry-period":        "a check is repeated after intervals that grow from half a second",
		"leader-election-healthz-timeout": "a leader that cannot renew the Lease ends, and does not answer /livez",
		"log-options":                     logs,
		"vmodule":                         "--v sets the verbosity of all parts",
		"log-flush-frequency":             logs,
		"log-json-info-buffer-size":       logs,
		"log-json-split-stream":           logs,
		"log-text-info-buffer-size":       logs,
		"log-text-split-stream":           logs,
		"challenge-authorization-timeout": "a CA is asked as long as its Order is valid",
	}
}

// refusedFlags are those that are refused, because leaving them out would lower the security that
// they ask for, and what to do instead.
func refusedFlags() map[string]string {
	const instead = "metrics are not served with a generated certificate: set --metrics-tls-cert-file and " +
		"--metrics-tls-private-key-file, such as those of a Certificate whose Secret is mounted"
	return map[string]string{
		"metrics-dynamic-serving-ca-secret-namespace": instead,
		"metrics-dynamic-serving-ca-secret-name":      instead,
		"metrics-dynamic-serving-dns-names":           instead,
		"metrics-dynamic-serving-leaf-duration":       instead,
	}
}

// incumbentFlags are cert-manager's flags that are not also flags of this program.
type incumbentFlags struct {
	config, gates                      string
	health                             string // --internal-healthz-listen-address
	gatewayAPI, listenerSet, profiling bool
	tlsVersion                         string
	cipherSuites                       []string
}

// add adds the flags to a set.
func (i *incumbentFlags) add(f *pflag.FlagSet) {
	f.StringVar(&i.config, "config", "", "file of cert-manager's kind ControllerConfiguration; flags count before it")
	f.StringVar(&i.gates, "feature-gates", "", "cert-manager's feature gates, as in A=true,B=false")
	f.BoolVar(&i.gatewayAPI, "enable-gateway-api", true, "serve annotated Gateways, where the cluster has them")
	f.BoolVar(&i.listenerSet, "enable-gateway-api-listenerset", true, "serve annotated ListenerSets")
	f.StringVar(&i.health, "internal-healthz-listen-address", "",
		"the same as --health-listen-address, which counts before it")
	f.Lookup("internal-healthz-listen-address").Hidden = true
	f.StringVar(&i.tlsVersion, "metrics-tls-min-version", "VersionTLS12",
		"lowest version of TLS of the metrics, VersionTLS12 or VersionTLS13")
	f.StringSliceVar(&i.cipherSuites, "metrics-tls-cipher-suites", nil,
		"cipher suites of the metrics for TLS 1.2, by their IANA names; Go's if left out")
	for _, flags := range []map[string]string{unusedFlags(), refusedFlags()} {
		for name, why := range flags {
			f.Var(&unused{}, name, why)
			f.Lookup(name).Hidden = true
			if strings.HasSuffix(name, "-split-stream") { // a flag that needs no value
				f.Lookup(name).NoOptDefVal = "true"
			}
		}
	}
}

// load sets the flags that the configuration file has and the command line has not.
func (i *incumbentFlags) load(f *pflag.FlagSet) error {
	if i.config == "" {
		return nil
	}
	settings, err := readConfiguration(i.config)
	if err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	given := map[string]bool{}
	f.Visit(func(flag *pflag.Flag) { given[flag.Name] = true })
	for _, s := range settings {
		if given[s.flag] {
			continue
		}
		if err := f.Set(s.flag, s.text); err != nil {
			return fmt.Errorf("--config: %s: %s: %w", i.config, s.field, err)
		}
	}
	return nil
}

// apply turns off the controllers and profiles that the flags do not want, and logs a line for each
// flag and feature gate without effect.
func (i *incumbentFlags) apply(f *pflag.FlagSet, o *Options, log logr.Logger) error {
	refused := refusedFlags()
	for _, name := range slices.Sorted(maps.Keys(refused)) {
		if f.Changed(name) {
			return fmt.Errorf("--%s: %s", name, refused[name])
		}
	}
	off := func(names ...string) {
		for _, name := range names {
			o.Controllers = append(o.Controllers, "-"+name)
		}
	}
	if !i.gatewayAPI {
		off(gatewayShim, listenerSets)
	}
	if !i.listenerSet {
		off(listenerSets)
	}
	if !i.profiling {
		o.ProfilerAddress = ""
	}
	if i.health != "" && !f.Changed("health-listen-address") {
		o.HealthAddress = i.health
	}
	if err := i.tls(o); err != nil {
		return err
	}
	gates, err := parseGates(i.gates)
	if err != nil {
		return fmt.Errorf("--feature-gates: %w", err)
	}
	known := featureGates()
	for _, name := range slices.Sorted(maps.Keys(gates)) {
		gate, on := known[name], gates[name]
		switch {
		case on == gate.on:
		case gate.controllers != nil:
			off(gate.controllers...)
		default:
			log.Info("a feature gate has no effect", "gate", name, "because", gate.because)
		}
	}
	unused := unusedFlags()
	for _, name := range slices.Sorted(maps.Keys(unused)) {
		if f.Changed(name) {
			log.Info("a flag has no effect", "flag", "--"+name, "because", unused[name])
		}
	}
	return nil
}

// tls sets how the metrics are served by TLS.
func (i *incumbentFlags) tls(o *Options) error {
	versions := map[string]uint16{"VersionTLS12": tls.VersionTLS12, "VersionTLS13": tls.VersionTLS13}
	if o.MetricsMinVersion = versions[i.tlsVersion]; o.MetricsMinVersion == 0 {
		return fmt.Errorf("--metrics-tls-min-version must be VersionTLS12 or VersionTLS13, not %q", i.tlsVersion)
	}
	for _, name := range i.cipherSuites {
		suites := tls.CipherSuites()
		at := slices.IndexFunc(suites, func(s *tls.CipherSuite) bool { return s.Name == name })
		if at < 0 {
			return fmt.Errorf("--metrics-tls-cipher-suites: there is no secure cipher suite %q", name)
		}
		o.MetricsCipherSuites = append(o.MetricsCipherSuites, suites[at].ID)
	}
	return nil
}

// A featureGate is what a feature gate of cert-manager is here.
type featureGate struct {
	// on is how it is without the flag.
	on bool
	// controllers are turned off where the gate is. Nil if the gate cannot change anything.
	controllers []string
	because     string
}

// featureGates returns the gates of cert-manager 1.14 and later.
func featureGates() map[string]featureGate {
	always := featureGate{on: true, because: "it is always on"}
	all := featureGate{because: "it names no feature: name each gate"}
	return map[string]featureGate{
		"ACMEHTTP01IngressPathTypeExact":                   always,
		"ACMEUseARI":                                       {on: true, controllers: []string{renewalInfo}},
		"AdditionalCertificateOutputFormats":               always,
		"AllAlpha":                                         all,
		"AllBeta":                                          all,
		"CAInjectorMerging":                                always,
		"DefaultPrivateKeyRotationPolicyAlways":            always,
		"DisallowInsecureCSRUsageDefinition":               always,
		"ExperimentalCertificateSigningRequestControllers": {on: true, controllers: []string{certificateSigningRequests}},
		"ExperimentalGatewayAPISupport":                    {on: true, controllers: []string{gatewayShim, listenerSets}},
		"ListenerSets":                                     {on: true, controllers: []string{listenerSets}},
		"LiteralCertificateSubject":                        always,
		"NameConstraints":                                  always,
		"OtherNames":                                       always,
		"SecretsFilteredCaching":                           always,
		"ServerSideApply":                                  always,
		"StableCertificateRequestName":                     always,
		"UseCertificateRequestBasicConstraints":            {because: "spec.isCA of a CertificateRequest says whether it is a CA"},
		"UseDomainQualifiedFinalizer":                      always,
		"XListenerSets":                                    {on: true, controllers: []string{listenerSets}},
		"ValidateCAA":                                      {because: "the CA checks CAA records"},
	}
}

// parseGates parses feature gates, such as A=true,B=false.
func parseGates(text string) (map[string]bool, error) {
	gates := map[string]bool{}
	known := featureGates()
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		name = strings.TrimSpace(name)
		if _, found := known[name]; !found {
			return nil, fmt.Errorf("there is no feature gate %q: choose of %s", name,
				strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
		on, err := strconv.ParseBool(strings.TrimSpace(value))
		if err != nil {
			return nil, fmt.Errorf("%s must be true or false, not %q", name, value)
		}
		gates[name] = on
	}
	return gates, nil
}
