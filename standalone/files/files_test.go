package files

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	perennial "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
)

func content(word string) version {
	return version{
		files: map[string][]byte{"tls.crt": []byte("certificate " + word), "tls.key": []byte("key " + word)},
		uid:   -1, gid: -1, mode: 0o640, dirMode: 0o750, reload: true, relevantToIdentity: word,
	}
}

func placeIn(t *testing.T, root, rel string) place {
	t.Helper()
	p, err := newPlace([]string{root}, filepath.Join(root, rel))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func put(t *testing.T, p place, v version) (changed bool) {
	t.Helper()
	changed, err := p.put(v)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestFilesAreWrittenOnceForEachVersion(t *testing.T) {
	root := t.TempDir()
	p := placeIn(t, root, "deep/down/web")
	if !put(t, p, content("one")) {
		t.Error("the first version was not written")
	}
	if got := read(t, filepath.Join(p.directory, "tls.key")); got != "key one" {
		t.Errorf("tls.key holds %q", got)
	}
	for path, mode := range map[string]os.FileMode{"": 0o750, "tls.crt": 0o640, "tls.key": 0o640} {
		info, err := os.Stat(filepath.Join(p.directory, path))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != mode {
			t.Errorf("mode of %q is %o, want %o", path, info.Mode().Perm(), mode)
		}
	}
	if put(t, p, content("one")) {
		t.Error("the same version was written twice")
	}
	for _, word := range []string{"two", "three", "four"} {
		if !put(t, p, content(word)) {
			t.Errorf("version %s was not written", word)
		}
		if got := read(t, filepath.Join(p.directory, "tls.crt")); got != "certificate "+word {
			t.Errorf("tls.crt holds %q", got)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(p.directory))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 3 { // the link, the version in use and the one before
		t.Errorf("the directory has %v, want the link and two versions", entries)
	}
}

func TestForeignChangesAreReverted(t *testing.T) {
	p := placeIn(t, t.TempDir(), "web")
	put(t, p, content("one"))
	for name, harm := range map[string]func() error{
		"a file was overwritten": func() error { return os.WriteFile(filepath.Join(p.directory, "tls.crt"), []byte("x"), 0o640) },
		"a file was removed":     func() error { return os.Remove(filepath.Join(p.directory, "tls.key")) },
		"a mode was changed":     func() error { return os.Chmod(filepath.Join(p.directory, "tls.key"), 0o666) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := harm(); err != nil {
				t.Fatal(err)
			}
			if !put(t, p, content("one")) {
				t.Error("nothing was written")
			}
			if !holdsNow(t, p, "one") {
				t.Error("it is not right again")
			}
		})
	}
}

func holdsNow(t *testing.T, p place, word string) bool {
	t.Helper()
	dir, err := p.parent(true)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	current, err := p.current(dir)
	if err != nil {
		t.Fatal(err)
	}
	return p.holds(dir, current, content(word))
}

func TestAReaderNeverSeesAKeyWithTheCertificateOfAnother(t *testing.T) {
	p := placeIn(t, t.TempDir(), "web")
	put(t, p, content("0"))
	stop, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(failed)
		for {
			select {
			case <-stop:
				return
			default:
			}
			// As a server does: it resolves the directory once and then reads both.
			target, err := os.Readlink(p.directory)
			if err != nil {
				failed <- fmt.Errorf("for a moment there was nothing: %w", err)
				return
			}
			dir := filepath.Join(filepath.Dir(p.directory), target)
			crt, err1 := os.ReadFile(filepath.Join(dir, "tls.crt"))
			key, err2 := os.ReadFile(filepath.Join(dir, "tls.key"))
			if err1 != nil || err2 != nil {
				continue // two versions later it is gone, which a server that is that slow sees
			}
			if strings.TrimPrefix(string(crt), "certificate ") != strings.TrimPrefix(string(key), "key ") {
				failed <- fmt.Errorf("read %q with %q", crt, key)
				return
			}
		}
	}()
	for i := range 200 {
		put(t, p, content(fmt.Sprint(i+1)))
	}
	close(stop)
	if err := <-failed; err != nil {
		t.Error(err)
	}
}

func TestPlacesThatAreNotSafeAreRefused(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Symlink(outside, filepath.Join(root, "link")))
	must(os.Mkdir(filepath.Join(root, "taken"), 0o755))
	must(os.Symlink("elsewhere", filepath.Join(root, "foreign")))
	must(os.Mkdir(filepath.Join(root, "open"), 0o755))
	must(os.Chmod(filepath.Join(root, "open"), 0o777))
	for name, test := range map[string]struct{ directory, says string }{
		"beside the root":                   {root + "-other/web", "is not below a root"},
		"the root itself":                   {root, "is not below a root"},
		"above it by dots":                  {root + "/../web", "is not below a root"},
		"through a symbolic link":           {root + "/link/web", "symbolic link"},
		"where a directory is":              {root + "/taken", "was not made by perenniald"},
		"where another client's link is":    {root + "/foreign", "did not make"},
		"in a directory open to everybody":  {root + "/open/web", "all users can write"},
		"through a file as if a directory":  {root + "/taken/../link/web", "symbolic link"},
		"in a directory of many new levels": {root + "/a/b/c/d", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := newPlace([]string{root}, test.directory)
			if err == nil {
				_, err = p.put(content("one"))
			}
			if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("error %v, want %q", err, test.says)
			}
		})
	}
	if entries, _ := os.ReadDir(outside); len(entries) != 0 {
		t.Errorf("%v was written outside of the root", entries)
	}
	if _, err := newPlace(nil, "/etc/web"); err == nil || !strings.Contains(err.Error(), "--file-root") {
		t.Errorf("without roots: %v, want a word about --file-root", err)
	}
}

func TestAChangeIsPendingUntilItIsAnnounced(t *testing.T) {
	root := t.TempDir()
	p := placeIn(t, root, "web")
	pending := func() bool {
		t.Helper()
		// As a process does that was started just now.
		found, err := placeIn(t, root, "web").pending()
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	put(t, p, content("one"))
	if !pending() {
		t.Error("a change without its reload is not pending")
	}
	mark, err := p.mark()
	if err != nil {
		t.Fatal(err)
	}
	put(t, p, content("two"))
	if err := p.markReloaded(mark); err != nil {
		t.Fatal(err)
	}
	if !pending() {
		t.Error("the second change is no longer pending, though only the first was told of")
	}
	if mark, err = p.mark(); err != nil {
		t.Fatal(err)
	}
	if err := p.markReloaded(mark); err != nil {
		t.Fatal(err)
	}
	if pending() {
		t.Error("a change that was told of is still pending")
	}
	if put(t, p, content("two")); pending() {
		t.Error("it is pending again, though nothing changed")
	}
}

func TestACommandIsRunWithoutAShell(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	run := func(timeout time.Duration, args ...string) error {
		return command(t.Context(), timeout, "/some/where", args)
	}
	if err := run(
		time.Minute,
		"/usr/bin/env",
		"sh",
		"-c",
		`printf '%s|%s|%s' "$PERENNIAL_DIRECTORY" "$HOME" "$1" > `+out,
		"sh",
		"$(id); *",
	); err != nil {
		t.Fatal(err)
	}
	if got := read(t, out); got != "/some/where||$(id); *" {
		t.Errorf("the command saw %q", got)
	}
	if err := run(
		time.Minute,
		"/bin/sh",
		"-c",
		"yes nonsense | head -c 100000; echo the last line >&2; exit 3",
	); err == nil ||
		!strings.Contains(err.Error(), "exit status 3") || !strings.HasSuffix(err.Error(), "the last line") ||
		len(err.Error()) > 2*maxOutput {
		t.Errorf("a failure says %v", err)
	}
	if err := run(time.Minute, "/no/such/program"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a program that is not there: %v", err)
	}
	pidFile := filepath.Join(t.TempDir(), "pid")
	if err := run(
		500*time.Millisecond,
		"/bin/sh",
		"-c",
		"sleep 1000 & echo $! > "+pidFile+"; wait",
	); err == nil ||
		!strings.Contains(err.Error(), "not finished after 500ms") {
		t.Errorf("a command that hangs: %v", err)
	}
	pid := strings.TrimSpace(read(t, pidFile))
	deadline := time.Now().Add(time.Minute)
	for state(pid) != "" && state(pid) != "Z" {
		if time.Now().After(deadline) {
			t.Fatalf("process %s, which the command started, still lives", pid)
		}
	}
}

func TestACommandMayLeaveAProcessInTheBackground(t *testing.T) {
	dir := t.TempDir()
	pidFile, goOn, wrote := filepath.Join(dir, "pid"), filepath.Join(dir, "go-on"), filepath.Join(dir, "wrote")
	left := func() { // the process that is left ends with the test
		if pid := strings.TrimSpace(read(t, pidFile)); pid != "" {
			_ = exec.Command("kill", "-9", pid).Run()
		}
	}
	// It writes to the output that it inherited when the command has long ended.
	background := "(while ! test -e " + goOn + "; do sleep 0.01; done; echo hello && touch " + wrote +
		"; sleep 1000) & echo $! > " + pidFile + "; "
	began := time.Now()
	if err := command(t.Context(), time.Minute, "/", []string{"/bin/sh", "-c", background + "exit 0"}); err != nil {
		t.Errorf("exit status 0 is taken for a failure: %v", err)
	}
	defer left()
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("the result came after %s, as if it had waited for the process in the background", took)
	}
	if err := os.WriteFile(goOn, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		if _, err := os.Stat(wrote); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the process in the background cannot write to its output")
		}
	}
	left()
	err := command(t.Context(), time.Minute, "/", []string{"/bin/sh", "-c", background + "echo broken; exit 3"})
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "broken") {
		t.Errorf("a failure that leaves a process says %v", err)
	}
}

// state is the state of a process, "" if there is none.
func state(pid string) string {
	data, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	return rest[:1]
}

func TestASignalReachesTheProcessOfThePIDFile(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pidFile := filepath.Join(t.TempDir(), "pid")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(pidFile, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	send := func() error {
		return reload(
			context.Background(),
			&perennial.CertificateFileReload{Signal: &perennial.ReloadSignal{Name: "TERM", PIDFile: pidFile}},
			"/",
		)
	}
	for text, says := range map[string]string{
		"": "not the number", "1": "not the number", "-1": "not the number", "4194305\n": "there is no process",
		"seven": "not the number",
	} {
		write(text)
		if err := send(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("pidFile with %q: %v, want %q", text, err, says)
		}
	}
	write(fmt.Sprintf("%d\n/var/lib/data\n", cmd.Process.Pid))
	if err := send(); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGTERM {
		t.Errorf("the process ended with %v, not with SIGTERM", err)
	}
}

func TestAPlaceLeavesThoseOfLongerNamesAlone(t *testing.T) {
	root := t.TempDir()
	short, long, hidden := placeIn(t, root, "web"), placeIn(t, root, "web.example.com"), placeIn(t, root, ".web.old")
	for _, word := range []string{"one", "two", "three", "four"} {
		for _, p := range []place{long, hidden, short} {
			put(t, p, content(word))
		}
	}
	for _, p := range []place{long, hidden, short} {
		if !holdsNow(t, p, "four") {
			t.Errorf("%s does not hold its files", p.directory)
		}
	}
	if err := short.remove(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == "web" || short.owns(e.Name()) {
			t.Errorf("%s is still there", e.Name())
		}
	}
	if !holdsNow(t, long, "four") || !holdsNow(t, hidden, "four") {
		t.Error("removing a place took another's files")
	}
	if err := short.remove(); err != nil {
		t.Errorf("removing it again: %v", err)
	}
	if err := placeIn(t, root, "never/made/web").remove(); err != nil {
		t.Errorf("removing what was never made: %v", err)
	}
	if _, err := os.Stat(filepath.Join(root, "never")); err == nil {
		t.Error("removing made a directory")
	}
	for _, name := range []string{".web.0123456789abcdef-01234567", ".web.new-01234567"} {
		if _, err := newPlace([]string{root}, filepath.Join(root, name)); err == nil {
			t.Errorf("%s, a name of a version of another place, is taken", name)
		}
	}
}

func TestADirectoryHasOneOwner(t *testing.T) {
	root := t.TempDir()
	other := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(root, other); err != nil {
		t.Fatal(err)
	}
	roots := []string{root, other}
	now := time.Now()
	file := func(name, directory string, age time.Duration) perennial.CertificateFile {
		cf := perennial.CertificateFile{Spec: perennial.CertificateFileSpec{Directory: directory}}
		cf.Name, cf.CreationTimestamp = name, metav1.NewTime(now.Add(-age))
		return cf
	}
	mine := file("mine", root+"/web", time.Hour)
	for name, test := range map[string]struct {
		others []perennial.CertificateFile
		owner  string
	}{
		"alone": {},
		"beside another": {
			others: []perennial.CertificateFile{file("a", root+"/web2", 2*time.Hour), file("b", root+"/we", 2*time.Hour)}},
		"the same, older":   {others: []perennial.CertificateFile{file("a", root+"/web", 2*time.Hour)}, owner: "a"},
		"the same, younger": {others: []perennial.CertificateFile{file("a", root+"/web", time.Minute)}},
		"the same age": {
			others: []perennial.CertificateFile{file("a", root+"/web", time.Hour), file("z", root+"/web", time.Hour)},
			owner:  "a"},
		"within an older one": {
			others: []perennial.CertificateFile{file("a", root, 2*time.Hour), file("b", filepath.Dir(root), 2*time.Hour)}},
		"around an older one":     {others: []perennial.CertificateFile{file("a", root+"/web/sub", 2*time.Hour)}, owner: "a"},
		"the same through a link": {others: []perennial.CertificateFile{file("a", other+"/web", 2*time.Hour)}, owner: "a"},
		"the oldest of several": {
			others: []perennial.CertificateFile{file("a", root+"/web", 2*time.Hour), file("b", root+"/web", 3*time.Hour)},
			owner:  "b"},
		"one that is nowhere allowed": {others: []perennial.CertificateFile{file("a", "/elsewhere/web", 2*time.Hour)}},
	} {
		t.Run(name, func(t *testing.T) {
			owner := ""
			if o := ownerOf(roots, &mine, placeIn(t, root, "web"), append(test.others, mine)); o != nil {
				owner = o.Name
			}
			if owner != test.owner {
				t.Errorf("the directory belongs to %q, want %q", owner, test.owner)
			}
		})
	}
	inner := file("inner", root+"/web/sub", time.Hour)
	if o := ownerOf(roots, &inner, placeIn(t, root, "web/sub"),
		[]perennial.CertificateFile{file("a", root+"/web", 2*time.Hour)}); o == nil {
		t.Error("a directory within that of an older one is taken for its own")
	}
}

func TestWhatACertificateVouchesFor(t *testing.T) {
	end := time.Now().Add(time.Hour).Truncate(time.Second)
	leaf := &x509.Certificate{NotAfter: end}
	for name, test := range map[string]vouchCase{
		"ready": {ready: &cmapi.CertificateCondition{Status: cmmeta.ConditionTrue}, end: end},
		"ready, issued for it": {
			ready: &cmapi.CertificateCondition{Status: cmmeta.ConditionTrue}, end: end, holder: "web"},
		"ready, no end in the status": {ready: &cmapi.CertificateCondition{Status: cmmeta.ConditionTrue}},
		"not looked at":               {reason: reasonWaiting},
		"not ready": {
			ready: &cmapi.CertificateCondition{Status: cmmeta.ConditionFalse, Reason: "IncorrectCertificate",
				Message: "another's"}, end: end, reason: "IncorrectCertificate"},
		"unknown":   {ready: &cmapi.CertificateCondition{Status: cmmeta.ConditionUnknown}, end: end, reason: reasonWaiting},
		"no Secret": {ready: &cmapi.CertificateCondition{Status: cmmeta.ConditionTrue}, none: true, reason: reasonWaiting},
		"a Secret of another": {
			ready: &cmapi.CertificateCondition{Status: cmmeta.ConditionTrue}, end: end, holder: "other", reason: reasonWaiting},
		"expired": {
			ready: &cmapi.CertificateCondition{Status: cmmeta.ConditionTrue}, end: end, now: end.Add(time.Second),
			reason: reasonExpired},
		"newer than the status": {
			ready: &cmapi.CertificateCondition{Status: cmmeta.ConditionTrue}, end: end.Add(-time.Minute), reason: reasonWaiting,
			waiting: true},
	} {
		t.Run(name, func(t *testing.T) {
			test.check(t, leaf, end)
		})
	}
}

// vouchCase is a Certificate, its Secret, and what is to be found wrong.
type vouchCase struct {
	ready   *cmapi.CertificateCondition
	holder  string
	none    bool // no Secret
	end     time.Time
	now     time.Time
	reason  string // "" if the certificate is verified
	waiting bool   // for the Certificate to judge what is new
}

func (test vouchCase) check(t *testing.T, leaf *x509.Certificate, end time.Time) {
	t.Helper()
	crt := &cmapi.Certificate{}
	crt.Name = "web"
	if test.ready != nil {
		test.ready.Type = cmapi.CertificateConditionReady
		crt.Status.Conditions = []cmapi.CertificateCondition{*test.ready}
	}
	if !test.end.IsZero() {
		crt.Status.NotAfter = &metav1.Time{Time: test.end}
	}
	secret := &corev1.Secret{}
	if test.holder != "" {
		secret.Annotations = map[string]string{cmapi.CertificateNameKey: test.holder}
	}
	if test.none {
		secret = nil
	}
	now := test.now
	if now.IsZero() {
		now = end.Add(-time.Minute)
	}
	wrong := vouched(crt, secret)
	if wrong == nil {
		wrong = current(crt, leaf, now)
	}
	switch {
	case wrong == nil && test.reason != "", wrong != nil && wrong.reason != test.reason, wrong != nil &&
		wrong.unconfirmed != test.waiting:
		t.Errorf("got %+v, want reason %q, waiting %v", wrong, test.reason, test.waiting)
	case wrong != nil && !wrong.kept:
		t.Error("the files that are there do not stay")
	}
}

func TestPausesGrowToALimit(t *testing.T) {
	for n, want := range map[int]time.Duration{0: 5 * time.Second, 1: 10 * time.Second, 5: 160 * time.Second,
		6: 5 * time.Minute, 10: 5 * time.Minute, 1000: 5 * time.Minute, -1: 5 * time.Second} {
		if got := pauseAfter(n, 5*time.Second, 5*time.Minute); got != want {
			t.Errorf("after %d failures: %s, want %s", n, got, want)
		}
	}
}
