package controller

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

const (
	configurationVersion = "controller.config.cert-manager.io/v1alpha1"
	configurationKind    = "ControllerConfiguration"
	// maxConfiguration is the largest configuration file that is read, in bytes.
	maxConfiguration = 1 << 20
)

// configurationFields has the flag of each field of cert-manager's ControllerConfiguration. A map
// has the fields of an object.
func configurationFields() map[string]any {
	return map[string]any{
		"kubeConfig":                      "kubeconfig",
		"apiServerHost":                   "master",
		"kubernetesAPIQPS":                "kube-api-qps",
		"kubernetesAPIBurst":              "kube-api-burst",
		"namespace":                       "namespace",
		"clusterResourceNamespace":        "cluster-resource-namespace",
		"controllers":                     "controllers",
		"issuerAmbientCredentials":        "issuer-ambient-credentials",
		"clusterIssuerAmbientCredentials": "cluster-issuer-ambient-credentials",
		"enableCertificateOwnerRef":       "enable-certificate-owner-ref",
		"enableGatewayAPI":                "enable-gateway-api",
		"enableGatewayAPIListenerSet":     "enable-gateway-api-listenerset",
		"enableGatewayAPIXListenerSet":    "enable-gateway-api-listenerset",
		"gatewayAPIExtraProtocols":        "gateway-api-extra-protocols",
		"gatewayAPI": map[string]any{
			"enabled":           "enable-gateway-api",
			"enableListenerSet": "enable-gateway-api-listenerset",
			"extraProtocols":    "gateway-api-extra-protocols",
		},
		"copiedAnnotationPrefixes":                 "copied-annotation-prefixes",
		"numberOfConcurrentWorkers":                "concurrent-workers",
		"maxConcurrentChallenges":                  "max-concurrent-challenges",
		"metricsListenAddress":                     "metrics-listen-address",
		"healthzListenAddress":                     "internal-healthz-listen-address",
		"enablePprof":                              "enable-profiling",
		"pprofAddress":                             "profiler-address",
		"featureGates":                             "feature-gates",
		"challengeAuthorizationTimeout":            "challenge-authorization-timeout",
		"certificateRequestMinimumBackoffDuration": "certificate-request-minimum-backoff-duration",
		"certificateRequestMaximumBackoffDuration": "certificate-request-maximum-backoff-duration",
		"leaderElectionConfig": map[string]any{
			"enabled":        "leader-elect",
			"namespace":      "leader-election-namespace",
			"leaseDuration":  "leader-election-lease-duration",
			"renewDeadline":  "leader-election-renew-deadline",
			"retryPeriod":    "leader-election-retry-period",
			"healthzTimeout": "leader-election-healthz-timeout",
		},
		"metricsTLSConfig": map[string]any{
			"cipherSuites":  "metrics-tls-cipher-suites",
			"minTLSVersion": "metrics-tls-min-version",
			"filesystem":    map[string]any{"certFile": "metrics-tls-cert-file", "keyFile": "metrics-tls-private-key-file"},
			"dynamic": map[string]any{
				"secretNamespace": "metrics-dynamic-serving-ca-secret-namespace",
				"secretName":      "metrics-dynamic-serving-ca-secret-name",
				"dnsNames":        "metrics-dynamic-serving-dns-names",
				"leafDuration":    "metrics-dynamic-serving-leaf-duration",
			},
		},
		"logging": map[string]any{
			"format":         "logging-format",
			"flushFrequency": "log-flush-frequency",
			"verbosity":      "v",
			"vmodule":        "vmodule",
			"options":        "log-options",
		},
		"ingressShimConfig": map[string]any{
			"defaultIssuerName":                 "default-issuer-name",
			"defaultIssuerKind":                 "default-issuer-kind",
			"defaultIssuerGroup":                "default-issuer-group",
			"defaultAutoCertificateAnnotations": "auto-certificate-annotations",
			"extraCertificateAnnotations":       "extra-certificate-annotations",
		},
		"acmeHTTP01Config": map[string]any{
			"solverImage":                 "acme-http01-solver-image",
			"solverResourceRequestCPU":    "acme-http01-solver-resource-request-cpu",
			"solverResourceRequestMemory": "acme-http01-solver-resource-request-memory",
			"solverResourceLimitsCPU":     "acme-http01-solver-resource-limits-cpu",
			"solverResourceLimitsMemory":  "acme-http01-solver-resource-limits-memory",
			"solverRunAsNonRoot":          "acme-http01-solver-run-as-non-root",
			"solverNameservers":           "acme-http01-solver-nameservers",
			"solverExtraLabels":           "acme-http01-solver-extra-labels",
			"solverRuntimeClassName":      "acme-http01-solver-runtime-class-name",
		},
		"acmeDNS01Config": map[string]any{
			"recursiveNameservers":     "dns01-recursive-nameservers",
			"recursiveNameserversOnly": "dns01-recursive-nameservers-only",
			"checkRetryPeriod":         "dns01-check-retry-period",
		},
		"pemSizeLimitsConfig": map[string]any{
			"maxCertificateSize": "max-certificate-size",
			"maxPrivateKeySize":  "max-private-key-size",
			"maxChainLength":     "max-certificate-chain-length",
			"maxBundleSize":      "max-certificate-bundle-size",
		},
	}
}

// A setting is a field of a configuration, as the text of a flag.
type setting struct{ field, flag, text string }

// readConfiguration reads a ControllerConfiguration.
func readConfiguration(path string) ([]setting, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxConfiguration+1))
	if err != nil {
		return nil, err
	}
	settings, err := parseConfiguration(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return settings, nil
}

// parseConfiguration returns the settings of a ControllerConfiguration, sorted by field.
func parseConfiguration(data []byte) ([]setting, error) {
	if len(data) > maxConfiguration {
		return nil, fmt.Errorf("it has more than %d bytes", maxConfiguration)
	}
	var object map[string]any
	if err := yaml.UnmarshalStrict(data, &object); err != nil {
		return nil, err
	}
	if object["apiVersion"] != configurationVersion || object["kind"] != configurationKind {
		return nil, fmt.Errorf("apiVersion and kind are %v and %v: they must be %s and %s", object["apiVersion"],
			object["kind"], configurationVersion, configurationKind)
	}
	delete(object, "apiVersion")
	delete(object, "kind")
	return settingsOf("", object, configurationFields())
}

func settingsOf(prefix string, object, fields map[string]any) (all []setting, err error) {
	for _, name := range slices.Sorted(maps.Keys(object)) {
		value, path := object[name], prefix+name
		if empty(value) { // as if it were left out
			continue
		}
		switch field := fields[name].(type) {
		case nil:
			return nil, fmt.Errorf("there is no field %s in a %s", path, configurationKind)
		case map[string]any:
			below, isObject := value.(map[string]any)
			if !isObject {
				return nil, fmt.Errorf("%s must be an object", path)
			}
			settings, err := settingsOf(path+".", below, field)
			if err != nil {
				return nil, err
			}
			all = append(all, settings...)
		case string:
			text, err := flagText(value)
			if _, any := unusedFlags()[field]; err != nil && !any {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			all = append(all, setting{field: path, flag: field, text: text})
		}
	}
	return all, nil
}

// empty reports whether a value is what a field has that is left out.
func empty(value any) bool {
	switch v := value.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

// flagText returns a value as the text of a flag: lists with commas, and maps as key=value.
func flagText(value any) (string, error) {
	switch v := value.(type) {
	case string:
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), nil
	case []any:
		var texts []string
		for _, item := range v {
			text, isText := item.(string)
			if !isText || strings.ContainsAny(text, ",\"\n") {
				return "", errors.New("must be a list of texts without commas and quotes")
			}
			texts = append(texts, text)
		}
		return strings.Join(texts, ","), nil
	case map[string]any:
		var pairs []string
		for _, key := range slices.Sorted(maps.Keys(v)) {
			text, err := flagText(v[key])
			if err != nil {
				return "", err
			}
			pairs = append(pairs, key+"="+text)
		}
		return strings.Join(pairs, ","), nil
	}
	text, err := json.Marshal(value)
	return string(text), err
}
