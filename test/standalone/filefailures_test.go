package standalone_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	perennial "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
	"github.com/perennial-pki/perennial/internal/cli"
)

// status is what perennial status prints for a Certificate.
func (m *machine) status(name string) string {
	m.Helper()
	var out bytes.Buffer
	p := &cli.Program{Name: "perennial", In: strings.NewReader(""), Out: &out, Err: &out, Clock: clock.RealClock{}}
	p.Run(m.Context(), p.Command(), []string{"status", "certificate", name, "--kubeconfig", plane(m).KubeconfigPath(),
		"-n", "default"})
	return out.String()
}

// metric is the value of perennial_certificatefile_ready_status.
func (m *machine) metric(name, condition string) float64 {
	m.Helper()
	families, err := m.metrics.Gather()
	if err != nil {
		m.Fatal(err)
	}
	for _, f := range families {
		for _, metric := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range metric.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if f.GetName() == "perennial_certificatefile_ready_status" && labels["name"] == name &&
				labels["condition"] == condition {
				return metric.GetGauge().GetValue()
			}
		}
	}
	return -1
}

// event waits for an event about a CertificateFile.
func (m *machine) event(name, kind, reason, says string) {
	m.Helper()
	eventually(m, func() error {
		var list corev1.EventList
		if err := m.List(m.Context(), &list, client.InNamespace("default")); err != nil {
			return err
		}
		for _, e := range list.Items {
			if e.InvolvedObject.Kind == "CertificateFile" && e.InvolvedObject.Name == name && e.Type == kind &&
				e.Reason == reason && strings.Contains(e.Message, says) {
				return nil
			}
		}
		return fmt.Errorf("%w: no event %s %s with %q", errNotYet, kind, reason, says)
	})
}

// agree checks that metrics and perennial status agree with the Ready condition.
func (m *machine) agree(name, state, says string) {
	m.Helper()
	ready := map[string]string{"ok": "True", "failed": "False"}[state]
	if got := m.metric(name, ready); got != 1 {
		m.Errorf("the metric of condition %s is %v, want 1", ready, got)
	}
	text := m.status(name)
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) > 3 && fields[0] == "CertificateFile" && fields[1] == name {
			if fields[2] != state || !strings.Contains(line, says) {
				m.Errorf("perennial status says %q, want %s with %q", line, state, says)
			}
			return
		}
	}
	m.Errorf("perennial status does not have the CertificateFile:\n%s", text)
}

// refuse makes the API server refuse requests that the CEL expression does not allow, until the
// returned function is called.
func (m *machine) refuse(name, resource, expression string, probe client.Object) (allow func()) {
	m.Helper()
	policy := &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: ptr.To(admissionv1.Fail),
			MatchConstraints: &admissionv1.MatchResources{
				ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Update},
					Rule: admissionv1.Rule{APIGroups: []string{"perennial.dev"}, APIVersions: []string{"*"},
						Resources: []string{resource}},
				}}}},
			Validations: []admissionv1.Validation{{Expression: expression, Message: "house rule 7 forbids it"}},
		},
	}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: name,
			ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny}},
	}
	for _, o := range []client.Object{policy, binding} {
		if err := m.Create(m.Context(), o); err != nil {
			m.Fatal(err)
		}
	}
	m.Cleanup(func() { // should the test have failed
		_ = m.Delete(context.Background(), binding)
		_ = m.Delete(context.Background(), policy)
	})
	eventually(m, func() error { // a policy takes effect after a moment
		current := probe.DeepCopyObject().(client.Object)
		if err := m.Get(m.Context(), client.ObjectKeyFromObject(probe), current); err != nil {
			return err
		}
		current.SetFinalizers([]string{"example.com/probe"})
		var err error
		if strings.HasSuffix(resource, "/status") {
			meta.SetStatusCondition(&current.(*perennial.CertificateFile).Status.Conditions,
				metav1.Condition{Type: "Probe", Status: metav1.ConditionTrue, Reason: "Probe"})
			err = m.Status().Update(m.Context(), current, client.DryRunAll)
		} else {
			err = m.Update(m.Context(), current, client.DryRunAll)
		}
		if err == nil || !strings.Contains(err.Error(), "house rule 7") {
			return fmt.Errorf("%w: %v", errNotYet, err)
		}
		return nil
	})
	return func() {
		m.Helper()
		for _, o := range []client.Object{binding, policy} {
			if err := m.Delete(m.Context(), o); err != nil {
				m.Fatal(err)
			}
		}
	}
}

// TestEachFailureIsAConditionWithItsCauseAndNextAttempt makes each action fail in turn. The
// condition, the event, the metric and perennial status report the failure, and later its end.
func TestEachFailureIsAConditionWithItsCauseAndNextAttempt(t *testing.T) {
	for name, test := range map[string]fileFailure{
		"read-only": {func(m *machine, cf *perennial.CertificateFile) (func(), func(*perennial.CertificateFile)) {
			disk := smallDisk(m.T, 1)
			m.bind(disk, "read-only-disk")
			cf.Spec.Directory = filepath.Join(m.root, "read-only-disk", "web")
			at := filepath.Join(m.root, "read-only-disk")
			if err := remount(at, unix.MS_BIND|unix.MS_RDONLY); err != nil {
				m.Fatal(err)
			}
			return func() {
				if err := remount(at, unix.MS_BIND); err != nil {
					m.Fatal(err)
				}
			}, noMending
		}, "WriteFailed", []string{"read-only file system", "ReadWritePaths", "the next attempt is at 20"}},
		"full": {func(m *machine, cf *perennial.CertificateFile) (func(), func(*perennial.CertificateFile)) {
			disk := smallDisk(m.T, 1)
			m.bind(disk, "full-disk")
			cf.Spec.Directory = filepath.Join(m.root, "full-disk", "web")
			ballast := fill(m.T, disk)
			return func() {
				if err := os.Remove(ballast); err != nil {
					m.Fatal(err)
				}
			}, noMending
		}, "WriteFailed", []string{"no space left on device", "free space", "the next attempt is at 20"}},
		"open": {func(m *machine, cf *perennial.CertificateFile) (func(), func(*perennial.CertificateFile)) {
			open := filepath.Join(m.root, "open-to-all")
			if err := errors.Join(os.Mkdir(open, 0o755), os.Chmod(open, 0o777)); err != nil {
				m.Fatal(err)
			}
			cf.Spec.Directory = filepath.Join(open, "web")
			return func() {
				if err := os.Chmod(open, 0o755); err != nil {
					m.Fatal(err)
				}
			}, noMending
		}, "WriteFailed", []string{"chmod o-w", "the next attempt is at 20"}},
		"in-the-way": {func(m *machine, cf *perennial.CertificateFile) (func(), func(*perennial.CertificateFile)) {
			if err := os.Mkdir(cf.Spec.Directory, 0o755); err != nil {
				m.Fatal(err)
			}
			return func() {
				if err := os.Remove(cf.Spec.Directory); err != nil {
					m.Fatal(err)
				}
			}, noMending
		}, "WriteFailed", []string{"was not made by perenniald: move it away", "the next attempt is at 20"}},
		"no-user": {func(_ *machine, cf *perennial.CertificateFile) (func(), func(*perennial.CertificateFile)) {
			cf.Spec.Owner = "no-such-user"
			return func() {}, func(cf *perennial.CertificateFile) { cf.Spec.Owner = "" }
		}, "Invalid", []string{`there is no user "no-such-user" on this machine`, "the next attempt is at 20"}},
		"no-group": {func(_ *machine, cf *perennial.CertificateFile) (func(), func(*perennial.CertificateFile)) {
			cf.Spec.Group = "no-such-group"
			return func() {}, func(cf *perennial.CertificateFile) { cf.Spec.Group = "" }
		}, "Invalid", []string{`there is no group "no-such-group" on this machine`, "the next attempt is at 20"}},
		"no-command": {func(m *machine, cf *perennial.CertificateFile) (func(), func(*perennial.CertificateFile)) {
			program := filepath.Join(m.root, "program")
			cf.Spec.Reload = &perennial.CertificateFileReload{Command: &perennial.ReloadCommand{Args: []string{program}}}
			return func() {
				if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
					m.Fatal(err)
				}
			}, noMending
		}, "ReloadFailed", []string{"no such file or directory", "create it, or correct the path",
			"the next attempt is at 20"}},
		"no-process": {func(m *machine, cf *perennial.CertificateFile) (func(), func(*perennial.CertificateFile)) {
			cf.Spec.Reload = &perennial.CertificateFileReload{
				Signal: &perennial.ReloadSignal{PIDFile: filepath.Join(m.root, "none.pid")}}
			return func() {}, func(cf *perennial.CertificateFile) { cf.Spec.Reload = nil }
		}, "ReloadFailed", []string{"spec.reload.signal.pidFile", "no such file or directory", "the next attempt is at 20"}},
		"outside": {func(_ *machine, cf *perennial.CertificateFile) (func(), func(*perennial.CertificateFile)) {
			within := cf.Spec.Directory
			cf.Spec.Directory = "/etc/perennial-test/web"
			return func() {}, func(cf *perennial.CertificateFile) { cf.Spec.Directory = within }
		}, "Invalid", []string{"is not below a root of perenniald", "--file-root"}},
		"taken": {func(m *machine, cf *perennial.CertificateFile) (func(), func(*perennial.CertificateFile)) {
			// Creation times are seconds: it comes first by its name, too.
			m.issue("a-taken")
			owner := m.file("a-taken", nil)
			m.until("a-taken", metav1.ConditionTrue, "", nil)
			cf.Spec.Directory = owner.Spec.Directory
			return func() {
				if err := m.Delete(m.Context(), owner); err != nil {
					m.Fatal(err)
				}
			}, noMending
		}, "DirectoryTaken", []string{"CertificateFile a-taken", "choose another directory, or delete one of the two"}},
	} {
		t.Run(name, func(t *testing.T) {
			test.check(t, "fails-"+name)
		})
	}
}

func remount(dir string, flags uintptr) error {
	return unix.Mount("", dir, "", unix.MS_REMOUNT|flags, "")
}

func noMending(*perennial.CertificateFile) {}

// fileFailure is why the files of a certificate cannot be written, or be announced.
type fileFailure struct {
	// prepare has the action fail and returns how to mend it, in the world or in the spec.
	prepare func(m *machine, cf *perennial.CertificateFile) (mend func(), change func(*perennial.CertificateFile))
	reason  string
	says    []string
}

// check expects that the failure is reported, and that it is over when it is mended.
func (test fileFailure) check(t *testing.T, name string) {
	m := newMachine(t)
	m.issue(name)
	cf := &perennial.CertificateFile{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: perennial.CertificateFileSpec{
			CertificateRef: perennial.CertificateReference{Namespace: "default", Name: name},
			Directory:      filepath.Join(m.root, name),
		},
	}
	mend, change := test.prepare(m, cf)
	if err := m.Create(t.Context(), cf); err != nil {
		t.Fatal(err)
	}
	m.until(name, metav1.ConditionFalse, test.says[0], test.reported)
	m.event(name, corev1.EventTypeWarning, test.reason, test.says[0])
	m.agree(name, "failed", test.says[0])

	mend()
	eventually(t, func() error { // the daemon may write at the same time
		if err := m.Get(t.Context(), client.ObjectKey{Name: name}, cf); err != nil {
			return err
		}
		change(cf)
		return m.Update(t.Context(), cf)
	})
	m.until(name, metav1.ConditionTrue, "valid until", func(cf *perennial.CertificateFile) bool {
		return meta.FindStatusCondition(cf.Status.Conditions, perennial.ConditionStalled) == nil
	})
	m.agree(name, "ok", "valid until")
	if test.reason == "DirectoryTaken" {
		m.event("a-taken", corev1.EventTypeNormal, "FilesLeft",
			"deleted; CertificateFile "+name+" has "+cf.Spec.Directory+" now")
	}
}

// reported reports whether Ready and Stalled both say what is wrong.
func (test fileFailure) reported(cf *perennial.CertificateFile) bool {
	c := meta.FindStatusCondition(cf.Status.Conditions, perennial.ConditionReady)
	if slices.ContainsFunc(test.says, func(w string) bool { return !strings.Contains(c.Message, w) }) {
		return false
	}
	s := meta.FindStatusCondition(cf.Status.Conditions, perennial.ConditionStalled)
	if s == nil || s.Status != metav1.ConditionTrue || s.Reason != c.Reason || s.Message != c.Message {
		return false
	}
	return c.Reason == test.reason && cf.Status.ObservedGeneration == cf.Generation
}

// bind shows a directory below the machine's root, where symbolic links are not followed.
func (m *machine) bind(dir, name string) {
	m.Helper()
	at := filepath.Join(m.root, name)
	if err := errors.Join(os.Mkdir(at, 0o755), unix.Mount(dir, at, "", unix.MS_BIND, "")); err != nil {
		m.Fatal(err)
	}
	m.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			m.Error(err)
		}
	})
}

func TestAStatusThatTheAPIServerRefusesIsSaidElsewhere(t *testing.T) {
	m := newMachine(t)
	const name = "refused"
	m.issue(name)
	cf := m.file(name, nil)
	m.until(name, metav1.ConditionTrue, "", nil)
	allow := m.refuse("refuse-status", "certificatefiles/status", "object.metadata.name != 'refused'", cf)
	m.vouch(name, cmmeta.ConditionFalse, "Broken", "it is broken", time.Now().Add(time.Hour))
	m.event(name, corev1.EventTypeWarning, "APIWriteRefused",
		"house rule 7 forbids it; see what refuses it, such as an admission policy; the next attempt is at 20")
	if got := m.metric(name, "False"); got != 1 {
		t.Errorf("the metric of condition False is %v, though the Certificate is not ready", got)
	}
	m.mu.Lock()
	lines := strings.Join(m.lines, "\n")
	m.mu.Unlock()
	if !strings.Contains(lines, "files of refused: the API server does not store the status: ") {
		t.Errorf("no line says so:\n%s", lines)
	}
	allow()
	m.until(name, metav1.ConditionFalse, "it is broken", nil)
	m.agree(name, "failed", "it is broken")
}

func TestAFinalizerThatTheAPIServerRefusesIsACondition(t *testing.T) {
	m := newMachine(t)
	const name = "unguarded"
	m.issue(name)
	cf := m.file(name, nil)
	m.until(name, metav1.ConditionTrue, "", nil)
	allow := m.refuse("refuse-finalizer", "certificatefiles",
		"object.metadata.name != 'unguarded' || !has(object.metadata.finalizers)", cf)
	if err := m.Patch(t.Context(), cf, client.RawPatch("application/merge-patch+json",
		[]byte(`{"spec":{"deletionPolicy":"Delete"}}`))); err != nil {
		t.Fatal(err)
	}
	m.until(name, metav1.ConditionFalse, "house rule 7 forbids it", nil)
	m.agree(name, "failed", "the next attempt is at 20")
	m.event(name, corev1.EventTypeWarning, "APIWriteRefused", "spec.deletionPolicy needs")
	allow()
	m.until(name, metav1.ConditionTrue, "", func(cf *perennial.CertificateFile) bool { return len(cf.Finalizers) == 1 })
}

func TestADeletedCertificateFileSaysWhatItLeavesBehind(t *testing.T) {
	m := newMachine(t)
	const name = "leaving"
	m.issue(name)
	cf := m.file(name, nil)
	m.until(name, metav1.ConditionTrue, "", nil)
	if err := m.Delete(t.Context(), cf); err != nil {
		t.Fatal(err)
	}
	m.event(name, corev1.EventTypeNormal, "FilesLeft",
		"deleted; "+cf.Spec.Directory+
			" stays, with its private key, and is no longer kept up to date. When no program uses it: rm -r "+cf.Spec.Directory+
			" "+m.root+"/.leaving.")
	if _, err := os.Stat(filepath.Join(cf.Spec.Directory, "tls.key")); err != nil {
		t.Errorf("the files are gone: %v", err)
	}
}

func TestFilesAreRemovedByOption(t *testing.T) {
	m := newMachine(t)
	const name = "removed"
	m.issue(name)
	m.issue(name + ".example.com")
	beside := m.file(name+".example.com", nil)
	disk := smallDisk(t, 1)
	m.bind(disk, "disk")
	at := filepath.Join(m.root, "disk")
	cf := &perennial.CertificateFile{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: perennial.CertificateFileSpec{
			CertificateRef: perennial.CertificateReference{Namespace: "default", Name: name},
			Directory:      filepath.Join(m.root, name),
			DeletionPolicy: perennial.FileDeletionPolicyDelete,
		},
	}
	if err := m.Create(t.Context(), cf); err != nil {
		t.Fatal(err)
	}
	m.until(name, metav1.ConditionTrue, "", nil)
	first := cf.Spec.Directory

	// Another directory: what was in the first goes.
	if err := m.Patch(t.Context(), cf, client.RawPatch("application/merge-patch+json",
		fmt.Appendf(nil, `{"spec":{"directory":%q}}`, filepath.Join(at, name)))); err != nil {
		t.Fatal(err)
	}
	m.until(name, metav1.ConditionTrue, "is in "+filepath.Join(at, name), nil)
	if _, err := os.Lstat(first); !os.IsNotExist(err) {
		t.Errorf("the first directory is still there: %v", err)
	}

	// A removal that fails is a condition, and is tried again.
	if err := unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := m.Delete(t.Context(), cf); err != nil {
		t.Fatal(err)
	}
	m.until(name, metav1.ConditionFalse, "read-only file system", nil)
	m.agree(name, "failed", "take the finalizer perennial.dev/certificate-files away")
	m.event(name, corev1.EventTypeWarning, "RemoveFailed", "the next attempt is at 20")
	if err := unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if err := m.Get(t.Context(), client.ObjectKeyFromObject(cf), cf); !apierrors.IsNotFound(err) {
			return fmt.Errorf("%w: %v", errNotYet, err)
		}
		return nil
	})
	if entries, err := os.ReadDir(at); err != nil || len(entries) > 0 {
		t.Errorf("%v stayed, %v", entries, err)
	}
	if _, err := os.Stat(filepath.Join(beside.Spec.Directory, "tls.key")); err != nil {
		t.Errorf("the files beside it are gone: %v", err)
	}
}

func TestFilesStayWhenTheCertificateDoesNotVouchForItsSecret(t *testing.T) {
	m := newMachine(t)
	const name = "vouched"
	m.store(name, time.Hour)
	m.file(name, nil)
	m.until(name, metav1.ConditionFalse, "has not been issued yet", nil)
	first := m.issue(name)
	m.until(name, metav1.ConditionTrue, "", serial(first))

	// Another pair comes into the Secret, and the Certificate says no.
	_, end := m.store(name, 2*time.Hour)
	m.vouch(name, cmmeta.ConditionFalse, "IncorrectCertificate", "Secret was issued for another", end)
	cf := m.until(name, metav1.ConditionFalse,
		"Certificate default/vouched is not ready: Secret was issued for another. The files in ", serial(first))
	if c := meta.FindStatusCondition(cf.Status.Conditions, perennial.ConditionReady); c.Reason != "IncorrectCertificate" {
		t.Errorf("the reason is %q, not the Certificate's own", c.Reason)
	}
	if !meta.IsStatusConditionTrue(cf.Status.Conditions, perennial.ConditionDeployed) {
		t.Error("the files that stay are no longer deployed")
	}
	m.agree(name, "failed", "Secret was issued for another")

	// A certificate that the status does not know yet waits for that. What is there holds.
	m.vouch(name, cmmeta.ConditionTrue, "Ready", "up to date", time.Now().Add(time.Hour).Truncate(time.Second))
	m.until(name, metav1.ConditionTrue, "", serial(first))
	second := m.issue(name)
	m.until(name, metav1.ConditionTrue, "", serial(second))
}

func TestAnExpiredCertificateInFilesIsNotReady(t *testing.T) {
	m := newMachine(t)
	const name = "expiring"
	m.file(name, nil)
	first := m.issueFor(name, 4*time.Second)
	m.until(name, metav1.ConditionTrue, "", serial(first))
	// Nothing changes any more: the time alone does it.
	cf := m.until(name, metav1.ConditionFalse, "expired at", serial(first))
	if c := meta.FindStatusCondition(cf.Status.Conditions, perennial.ConditionReady); c.Reason != "Expired" {
		t.Errorf("the reason is %q", c.Reason)
	}
	m.agree(name, "failed", "expired at")
	second := m.issue(name)
	m.until(name, metav1.ConditionTrue, "", serial(second))
}
