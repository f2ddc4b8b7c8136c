package standalone_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	perennial "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/standalone/files"
)

// machine is a machine that processes CertificateFiles.
type machine struct {
	*testing.T
	client.Client
	root    string
	metrics *prometheus.Registry
	stop    func()

	mu    sync.Mutex
	lines []string // that were reported
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	scheme := controller.Scheme()
	if err := perennial.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(plane(t).AdminConfig(), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{T: t, Client: c, root: t.TempDir(), metrics: prometheus.NewRegistry()}
	m.start()
	t.Cleanup(func() { m.stop() })
	return m
}

// start starts the part of perenniald that handles files.
func (m *machine) start() {
	m.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- files.Run(ctx, plane(m).AdminConfig(), files.Options{Roots: []string{m.root}, Log: logr.Discard(),
			Metrics: m.metrics, Report: func(line string) {
				m.mu.Lock()
				defer m.mu.Unlock()
				m.lines = append(m.lines, line)
			}})
	}()
	m.stop = func() {
		cancel()
		if err := <-done; err != nil {
			m.Error(err)
		}
		m.stop = func() {}
	}
}

// issue writes a new certificate to the Secret of a Certificate, which it creates if necessary, and
// returns the serial number.
func (m *machine) issue(name string) string { m.Helper(); return m.issueFor(name, time.Hour) }

// issueFor is issue with a lifetime. It also sets the status of the Certificate as the controller
// would.
func (m *machine) issueFor(name string, life time.Duration) string {
	m.Helper()
	serial, end := m.store(name, life)
	m.vouch(name, cmmeta.ConditionTrue, "Ready", "Certificate is up to date and has not expired", end)
	return serial
}

// vouch writes the Ready condition of a Certificate.
func (m *machine) vouch(name string, status cmmeta.ConditionStatus, reason, message string, end time.Time) {
	m.Helper()
	crt := &cmapi.Certificate{}
	if err := m.Get(m.Context(), client.ObjectKey{Namespace: "default", Name: name}, crt); err != nil {
		m.Fatal(err)
	}
	crt.Status.NotAfter = &metav1.Time{Time: end}
	cmapi.SetCertificateCondition(&crt.Status, time.Now(),
		cmapi.CertificateCondition{Type: cmapi.CertificateConditionReady, Status: status, Reason: reason, Message: message})
	if err := m.Status().Update(m.Context(), crt); err != nil {
		m.Fatal(err)
	}
}

// store writes a new certificate to the Secret of a Certificate, and returns its serial number and
// expiry.
func (m *machine) store(name string, life time.Duration) (serial string, end time.Time) {
	m.Helper()
	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		m.Fatal(err)
	}
	now := time.Now()
	leaf, err := pki.TemporaryCertificate(rand.Reader, pki.Request{CommonName: name}, key, now, now.Add(life))
	if err != nil {
		m.Fatal(err)
	}
	keyPEM, err := pki.EncodeKeyPEM(key, pki.PKCS8)
	if err != nil {
		m.Fatal(err)
	}
	data := map[string][]byte{
		"tls.crt": pki.EncodeCertificatePEM(leaf),
		"tls.key": keyPEM,
		"ca.crt":  pki.EncodeCertificatePEM(leaf),
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	if err := m.Get(m.Context(), client.ObjectKeyFromObject(secret), secret); err == nil {
		secret.Data = data
		if err := m.Update(m.Context(), secret); err != nil {
			m.Fatal(err)
		}
		return fmt.Sprintf("%x", leaf.SerialNumber), leaf.NotAfter
	}
	secret.Labels, secret.Data, secret.Type = map[string]string{
		cmapi.PartOfCertManagerControllerLabelKey: "true",
	}, data, corev1.SecretTypeTLS
	for _, o := range []client.Object{secret, &cmapi.Certificate{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: cmapi.CertificateSpec{
			CommonName: name, SecretName: name, IssuerRef: cmmeta.IssuerReference{Name: "none"},
		},
	}} {
		if err := m.Create(m.Context(), o); err != nil {
			m.Fatal(err)
		}
	}
	return fmt.Sprintf("%x", leaf.SerialNumber), leaf.NotAfter
}

func (m *machine) file(name string, reload *perennial.CertificateFileReload) *perennial.CertificateFile {
	m.Helper()
	cf := &perennial.CertificateFile{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: perennial.CertificateFileSpec{
			CertificateRef: perennial.CertificateReference{Namespace: "default", Name: name},
			Directory:      filepath.Join(m.root, name),
			Files:          perennial.CertificateFileNames{Combined: "all.pem"},
			Reload:         reload,
		},
	}
	if err := m.Create(m.Context(), cf); err != nil {
		m.Fatal(err)
	}
	return cf
}

// until waits until the Ready condition has the status and the wanted text.
func (m *machine) until(
	name string,
	status metav1.ConditionStatus,
	says string,
	also func(*perennial.CertificateFile) bool,
) *perennial.CertificateFile {
	m.Helper()
	cf := &perennial.CertificateFile{}
	eventually(m, func() error {
		if err := m.Get(m.Context(), client.ObjectKey{Name: name}, cf); err != nil {
			return err
		}
		c := meta.FindStatusCondition(cf.Status.Conditions, perennial.ConditionReady)
		if c == nil || c.Status != status || !strings.Contains(c.Message, says) || also != nil && !also(cf) {
			return fmt.Errorf("%w: %+v", errNotYet, cf.Status)
		}
		return nil
	})
	return cf
}

func serial(s string) func(*perennial.CertificateFile) bool {
	return func(cf *perennial.CertificateFile) bool {
		return cf.Status.Deployed != nil && cf.Status.Deployed.Serial == s
	}
}

func (m *machine) count(path string) int {
	m.Helper()
	data, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return 0
	}
	if err != nil {
		m.Fatal(err)
	}
	return strings.Count(string(data), "\n")
}

func TestACertificateIsPutIntoFilesAndAnnouncedOnceForEachChange(t *testing.T) {
	m := newMachine(t)
	log := filepath.Join(m.root, "log")
	m.file(
		"web",
		&perennial.CertificateFileReload{
			Command: &perennial.ReloadCommand{
				Args: []string{"/bin/sh", "-c", `test -s "$PERENNIAL_DIRECTORY/tls.key" && echo reloaded >> ` + log},
			},
		},
	)
	m.until("web", metav1.ConditionFalse, "does not exist", nil)

	first := m.issue("web")
	m.until("web", metav1.ConditionTrue, "is in "+filepath.Join(m.root, "web"), serial(first))
	for _, name := range []string{"tls.crt", "tls.key", "ca.crt", "all.pem"} {
		if info, err := os.Stat(filepath.Join(m.root, "web", name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	second := m.issue("web")
	m.until("web", metav1.ConditionTrue, "", serial(second))
	if n := m.count(log); n != 2 {
		t.Errorf("reloaded %d times, want once for each of 2 changes", n)
	}

	// A restart without a change causes no reload.
	m.stop()
	m.start()
	third := m.issue("web")
	m.until("web", metav1.ConditionTrue, "", serial(third))
	if n := m.count(log); n != 3 {
		t.Errorf("reloaded %d times after 3 changes and a restart", n)
	}
}

// TestAChangeOfNoFileCausesNoReload changes a Secret and its Certificate again and again, but
// nothing that is in the files.
func TestAChangeOfNoFileCausesNoReload(t *testing.T) {
	m := newMachine(t)
	log := filepath.Join(m.root, "log")
	m.file("calm", &perennial.CertificateFileReload{
		Command: &perennial.ReloadCommand{Args: []string{"/bin/sh", "-c", "echo reloaded >> " + log}}})
	first := m.issue("calm")
	m.until("calm", metav1.ConditionTrue, "", serial(first))
	end := time.Now().Add(time.Hour)
	for i := range 30 {
		secret := &corev1.Secret{}
		if err := m.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "calm"}, secret); err != nil {
			t.Fatal(err)
		}
		secret.Labels["churn"] = fmt.Sprint(i)
		secret.Data["keystore.jks"] = []byte(fmt.Sprint(i))
		if err := m.Update(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
		m.vouch("calm", cmmeta.ConditionTrue, "Ready", fmt.Sprintf("Certificate is up to date, %d", i), end)
	}
	second := m.issue("calm") // what came before has been seen by then
	m.until("calm", metav1.ConditionTrue, "", serial(second))
	if n := m.count(log); n != 2 {
		t.Errorf("reloaded %d times, want once for each of 2 certificates", n)
	}
}

func TestAReloadThatFailsIsTriedAgainAndSaysWhy(t *testing.T) {
	m := newMachine(t)
	m.issue("failing")
	allowed := filepath.Join(m.root, "allowed")
	m.file(
		"failing",
		&perennial.CertificateFileReload{
			Command: &perennial.ReloadCommand{
				Args: []string{"/bin/sh", "-c", "test -e " + allowed + " || { echo the configuration is broken; exit 1; }"},
			},
		},
	)
	cf := m.until(
		"failing",
		metav1.ConditionFalse,
		"the configuration is broken",
		func(cf *perennial.CertificateFile) bool { return cf.Status.Reload.Failures >= 2 },
	)
	if !meta.IsStatusConditionTrue(cf.Status.Conditions, perennial.ConditionDeployed) {
		t.Error("the files are there, but the condition Deployed does not say so")
	}
	if err := os.WriteFile(allowed, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cf = m.until("failing", metav1.ConditionTrue, "", nil)
	if cf.Status.Reload.Failures != 0 || cf.Status.Reload.NextAttempt != nil || cf.Status.Reload.Pending {
		t.Errorf("after it succeeded the status still says %+v", cf.Status.Reload)
	}
}

func TestAReloadThatWasInterruptedIsMadeUpFor(t *testing.T) {
	m := newMachine(t)
	m.issue("interrupted")
	log, begun := filepath.Join(m.root, "log"), filepath.Join(m.root, "begun")
	m.file(
		"interrupted",
		&perennial.CertificateFileReload{
			Command: &perennial.ReloadCommand{
				Args: []string{
					"/bin/sh",
					"-c",
					"if test -e " + begun + "; then echo done >> " + log + "; else touch " + begun + "; sleep 1000; fi",
				},
			},
		},
	)
	eventually(t, func() error { _, err := os.Stat(begun); return err })
	m.stop()
	if n := m.count(log); n != 0 {
		t.Fatal("the first reload was not interrupted")
	}
	m.start()
	m.until("interrupted", metav1.ConditionTrue, "", nil)
	if n := m.count(log); n != 1 {
		t.Errorf("reloaded %d times after the restart, want once", n)
	}
}

func TestAFileOutsideOfTheRootsIsRefused(t *testing.T) {
	m := newMachine(t)
	m.issue("outside")
	cf := &perennial.CertificateFile{
		ObjectMeta: metav1.ObjectMeta{Name: "outside"},
		Spec: perennial.CertificateFileSpec{
			CertificateRef: perennial.CertificateReference{
				Namespace: "default",
				Name:      "outside",
			},
			Directory: "/etc/perennial-test/outside",
		},
	}
	if err := m.Create(t.Context(), cf); err != nil {
		t.Fatal(err)
	}
	m.until("outside", metav1.ConditionFalse, "is not below a root", nil)
}
