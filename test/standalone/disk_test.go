package standalone_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// smallDisk mounts a file system of so many MiB.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0700", size))
	if err != nil {
		t.Fatalf("mount a file system, for which the tests of this package run as root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes the space that is left for a file and returns its path.
func fill(t *testing.T, dir string) string {
	t.Helper()
	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, zeroes{}); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filling the disk ended with %v", err)
	}
	return ballast
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// complaints are the lines without a time, which perenniald writes on standard error.
func (d *daemon) complaints() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var lines []string
	for _, line := range d.lines {
		if !regexp.MustCompile(`^\d\d:\d\d:\d\d `).MatchString(line) {
			lines = append(lines, line)
		}
	}
	return lines
}

func (d *daemon) endsOnAFullDisk(data string) {
	d.t.Helper()
	select {
	case err := <-d.done:
		lines := d.complaints()
		if err == nil || len(lines) != 1 || !strings.HasPrefix(lines[0], "perenniald: ") ||
			!strings.Contains(lines[0], "the file system of "+data+" is full") || !strings.Contains(lines[0], "start again") {
			d.t.Fatalf("on a full disk it ended with %v and said\n%s\nwant one line that names the disk", err,
				strings.Join(lines, "\n"))
		}
	case <-time.After(time.Minute):
		d.t.Fatalf("on a full disk it goes on:\n%s", d.output())
	}
}

func TestAFullDiskIsOneLineAndARestartLosesNothing(t *testing.T) {
	disk := smallDisk(t, 230) // below the limit of the warning when etcd has its log
	data, manifests := filepath.Join(disk, "data"), filepath.Join(t.TempDir(), "manifests")
	copyDir(t, quickstart, manifests)
	d := startDaemon(t, "--data-dir", data, "--manifests", manifests)
	d.until("warning: the file system of "+data+" has ", " MiB left")
	d.until("certificate default/api-client issued: valid until ")
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(data, "kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	config.Timeout, config.QPS = 10*time.Second, -1
	k, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}

	ballast := fill(t, disk)
	content := make([]byte, 400<<10)
	_, _ = rand.Read(content)
	stored := 0
	for ; stored < 1000; stored++ {
		_, err := k.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("stored-%d", stored)}, BinaryData: map[string][]byte{
				"content": content},
		}, metav1.CreateOptions{})
		if err != nil {
			break
		}
	}
	d.endsOnAFullDisk(data)

	t.Run("a start on the full disk says so, too", func(t *testing.T) {
		again := startDaemon(t, "--data-dir", data, "--manifests", manifests)
		again.endsOnAFullDisk(data)
	})

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	again := startDaemon(t, "--data-dir", data, "--manifests", manifests, "--table")
	again.until("kubeconfig: ")
	for i := range stored {
		kept, err := k.CoreV1().ConfigMaps("default").Get(t.Context(), fmt.Sprintf("stored-%d", i), metav1.GetOptions{})
		if err != nil || !bytes.Equal(kept.BinaryData["content"], content) {
			t.Errorf("ConfigMap %d of the %d that were stored is lost: %v", i, stored, err)
		}
	}
	again.until("default", "api-client", "True", "ClusterIssuer ca")
	if strings.Contains(again.output(), "certificate default/api-client issued") {
		t.Errorf("a certificate was issued again:\n%s", again.output())
	}
	again.stop()
}

func TestAFirstStartOnAFullDiskIsOneLine(t *testing.T) {
	disk := smallDisk(t, 20)
	data := filepath.Join(disk, "data")
	d := startDaemon(t, "--data-dir", data)
	d.endsOnAFullDisk(data)
	fill(t, disk)
	startDaemon(t, "--data-dir", filepath.Join(disk, "another")).endsOnAFullDisk(filepath.Join(disk, "another"))
}
