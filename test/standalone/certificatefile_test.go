package standalone_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

var certificateFiles = schema.GroupVersionResource{
	Group:    "perennial.dev",
	Version:  "v1alpha1",
	Resource: "certificatefiles",
}

func TestEachRuleForCertificateFiles(t *testing.T) {
	client, err := dynamic.NewForConfig(plane(t).AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	type set map[string]any
	command := func(args ...any) set {
		args = append([]any{}, args...) // never null
		return set{"reload": map[string]any{"command": map[string]any{"args": args}}}
	}
	for name, test := range map[string]struct {
		spec  set
		field string // of the refusal; empty: accepted
		says  string
	}{
		"only what is required": {},
		"every field": {spec: set{"files": map[string]any{
			"certificate": "c.pem", "privateKey": "k.pem", "ca": "ca.pem", "combined": "both.pem",
		},
			"owner": "www-data", "group": "33", "mode": "0640", "directoryMode": "0750",
			"reload": map[string]any{
				"command": map[string]any{"args": []any{"/usr/sbin/nginx", "-s", "reload"}, "timeout": "1m"},
			}}},
		"a signal":           {spec: set{"reload": map[string]any{"signal": map[string]any{"pidFile": "/run/nginx.pid", "name": "USR1"}}}},
		"a unit":             {spec: set{"reload": map[string]any{"systemdUnit": map[string]any{"name": "web@1.service", "action": "restart"}}}},
		"a hidden directory": {spec: set{"directory": "/etc/perennial/.web"}},

		"no certificate":                           {spec: set{"certificateRef": map[string]any{"namespace": "default", "name": ""}}, field: "spec.certificateRef.name", says: "at least 1"},
		"a relative directory":                     {spec: set{"directory": "etc/web"}, field: "spec.directory", says: "directory must be an absolute path"},
		"the root directory":                       {spec: set{"directory": "/"}, field: "spec.directory", says: "directory must be an absolute path"},
		"a directory with ..":                      {spec: set{"directory": "/etc/perennial/../shadow"}, field: "spec.directory", says: "without '.', '..'"},
		"a directory that ends in ..":              {spec: set{"directory": "/etc/perennial/.."}, field: "spec.directory", says: "without '.', '..'"},
		"a directory with .":                       {spec: set{"directory": "/etc/./perennial"}, field: "spec.directory", says: "without '.', '..'"},
		"a directory with two slashes":             {spec: set{"directory": "/etc//perennial"}, field: "spec.directory", says: "without '.', '..', '//'"},
		"a directory that ends in /":               {spec: set{"directory": "/etc/perennial/"}, field: "spec.directory", says: "a '/' at its end"},
		"a directory with a line break":            {spec: set{"directory": "/etc/pere\nnnial"}, field: "spec.directory", says: "directory must be an absolute path"},
		"a file in another directory":              {spec: set{"files": map[string]any{"certificate": "../tls.crt"}}, field: "spec.files.certificate", says: "plain file name"},
		"a file that is the directory":             {spec: set{"files": map[string]any{"privateKey": "."}}, field: "spec.files.privateKey", says: "plain file name"},
		"the same name twice":                      {spec: set{"files": map[string]any{"privateKey": "tls.crt"}}, field: "spec.files", says: "must not have the same name twice"},
		"a combined file with the name of another": {spec: set{"files": map[string]any{"combined": "ca.crt"}}, field: "spec.files", says: "must not have the same name twice"},
		"an owner that is no name":                 {spec: set{"owner": "not a name"}, field: "spec.owner", says: "name of a user, or its number"},
		"a group that is no name":                  {spec: set{"group": "-1"}, field: "spec.group", says: "name of a group, or its number"},
		"a key that others can read":               {spec: set{"mode": "0644"}, field: "spec.mode", says: "others nothing"},
		"a key that can be executed":               {spec: set{"mode": "0700"}, field: "spec.mode", says: "execute nothing"},
		"a mode that is not octal":                 {spec: set{"mode": "600"}, field: "spec.mode", says: "in quotes"},
		"a directory that others can write":        {spec: set{"directoryMode": "0777"}, field: "spec.directoryMode", says: "others not write"},
		"a directory without permission to enter":  {spec: set{"directoryMode": "0600"}, field: "spec.directoryMode", says: "read and enter"},
		"two ways to reload": {spec: set{
			"reload": map[string]any{
				"command": map[string]any{"args": []any{"/bin/true"}}, "signal": map[string]any{"pidFile": "/run/x.pid"},
			},
		},
			field: "spec.reload", says: "exactly one of command, signal and systemdUnit"},
		"no way to reload":                       {spec: set{"reload": map[string]any{}}, field: "spec.reload", says: "exactly one of command, signal and systemdUnit"},
		"a command without its path":             {spec: command("nginx", "-s", "reload"), field: "spec.reload.command.args", says: "absolute path of a program"},
		"a command without a program":            {spec: command(), field: "spec.reload.command.args", says: "absolute path of a program"},
		"a command without an end":               {spec: set{"reload": map[string]any{"command": map[string]any{"args": []any{"/bin/true"}, "timeout": "1h"}}}, field: "spec.reload.command.timeout", says: "from 1s to 10m"},
		"a signal that stops a process for good": {spec: set{"reload": map[string]any{"signal": map[string]any{"pidFile": "/run/x.pid", "name": "KILL"}}}, field: "spec.reload.signal.name", says: "supported values"},
		"a pid file without its path":            {spec: set{"reload": map[string]any{"signal": map[string]any{"pidFile": "x.pid"}}}, field: "spec.reload.signal.pidFile", says: "absolute path"},
		"a unit that is an option":               {spec: set{"reload": map[string]any{"systemdUnit": map[string]any{"name": "--force.service"}}}, field: "spec.reload.systemdUnit.name", says: "name of a unit"},
		"a unit without its type":                {spec: set{"reload": map[string]any{"systemdUnit": map[string]any{"name": "nginx"}}}, field: "spec.reload.systemdUnit.name", says: "name of a unit with its type"},
	} {
		t.Run(name, func(t *testing.T) {
			u := parse(t, `{apiVersion: perennial.dev/v1alpha1, kind: CertificateFile, metadata: {name: rules},
				spec: {certificateRef: {namespace: default, name: web}, directory: /etc/perennial/web}}`)
			for field, value := range test.spec {
				if err := unstructured.SetNestedField(u.Object, value, "spec", field); err != nil {
					t.Fatal(err)
				}
			}
			_, err := client.Resource(certificateFiles).
				Create(t.Context(), u, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			checkRefusal(t, err, test.field, test.says)
		})
	}
}

// checkRefusal expects that an object was accepted, or refused for a field.
func checkRefusal(t *testing.T, err error, field, says string) {
	t.Helper()
	if field == "" {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	var status *apierrors.StatusError
	if !errors.As(err, &status) || status.ErrStatus.Details == nil {
		t.Fatalf("expected a refusal, got %v", err)
	}
	causes := slices.DeleteFunc(status.ErrStatus.Details.Causes, func(c metav1.StatusCause) bool {
		return c.Field == "<nil>" // the server's remark that it has not evaluated the other rules
	})
	if len(causes) != 1 {
		t.Fatalf("expected a refusal with one cause, got %v", err)
	}
	cause := causes[0]
	if cause.Field != field || !strings.Contains(cause.Message, says) {
		t.Errorf("%s: %s\nwant %s: …%s…", cause.Field, cause.Message, field, says)
	}
}

func TestACertificateFileHasSafeDefaults(t *testing.T) {
	client, err := dynamic.NewForConfig(plane(t).AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	made, err := client.Resource(certificateFiles).
		Create(t.Context(), parse(t, `{apiVersion: perennial.dev/v1alpha1, kind: CertificateFile, metadata: {name: defaults},
		spec: {certificateRef: {namespace: default, name: web}, directory: /etc/perennial/web, reload: {command: {args: [/bin/true]}}}}`),
			metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		path  []string
		value string
	}{
		{[]string{"mode"}, "0600"}, {[]string{"directoryMode"}, "0755"},
		{[]string{"files", "certificate"}, "tls.crt"}, {[]string{"files", "privateKey"}, "tls.key"}, {[]string{"files", "ca"}, "ca.crt"},
		{[]string{"reload", "command", "timeout"}, "30s"},
	} {
		if got, _, _ := unstructured.NestedString(made.Object, append([]string{"spec"}, want.path...)...); got != want.value {
			t.Errorf("spec.%s is %q, want %q", strings.Join(want.path, "."), got, want.value)
		}
	}
}
