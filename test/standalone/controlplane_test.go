package standalone_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/perennial-pki/perennial/standalone/controlplane"
	"github.com/perennial-pki/perennial/standalone/serviceaccount"
)

func TestASecondStartContinuesWhereTheFirstStopped(t *testing.T) {
	dir := t.TempDir()
	first := start(t, controlplane.Options{DataDir: dir})
	made, err := admin(t, first).CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "kept"}, Data: map[string]string{"key": "value"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := read(t, first.KubeconfigPath())
	first.Stop()
	if err := first.Err(); err != nil {
		t.Errorf("Err after Stop: %v", err)
	}

	second := start(t, controlplane.Options{DataDir: dir})
	kept, err := admin(t, second).CoreV1().ConfigMaps("default").Get(t.Context(), "kept", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if kept.UID != made.UID || kept.Data["key"] != "value" {
		t.Errorf("got %v with UID %s, made %v with UID %s", kept.Data, kept.UID, made.Data, made.UID)
	}
	if second.Port() != first.Port() {
		t.Errorf("port %d, before it was %d", second.Port(), first.Port())
	}
	if read(t, second.KubeconfigPath()) != kubeconfig {
		t.Error("the kubeconfig is another")
	}
}

func TestAStartAfterTheProcessWasKilledContinues(t *testing.T) {
	dir := filepath.Join(openDir(t, 0), "data")
	process, _, line := alone(t, dir, 0)
	if line != "ready" {
		t.Fatal(line)
	}
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(dir, "kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	k, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	made, err := k.CoreV1().
		Namespaces().
		Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kept"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = process.Process.Wait()

	kept, err := admin(
		t,
		start(t, controlplane.Options{DataDir: dir}),
	).CoreV1().
		Namespaces().
		Get(t.Context(), "kept", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if kept.UID != made.UID {
		t.Errorf("UID %s, made %s", kept.UID, made.UID)
	}
}

func TestWhatPreventsAStartIsSaidInOneLine(t *testing.T) {
	held := plane(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	free := t.TempDir()
	for name, test := range map[string]struct {
		options controlplane.Options
		want    string
	}{
		"no directory is given": {controlplane.Options{}, "start control plane: no data directory given"},
		"another process holds the directory": {controlplane.Options{DataDir: held.DataDir()},
			fmt.Sprintf(
				"data directory %s is in use by process %d: stop that one or give another directory", held.DataDir(),
				os.Getpid(),
			)},
		"the port is taken": {controlplane.Options{DataDir: free, Port: port},
			fmt.Sprintf("port %d on 127.0.0.1 is taken by another process: give another port, or 0 for a free one", port)},
		"the port is no port": {controlplane.Options{DataDir: free, Port: 65536}, "port 65536 is not between 0 " +
			"and 65535"},
		"the directory is a file":      {controlplane.Options{DataDir: file}, "create data directory: mkdir " + file + ": not a directory"},
		"the directory lies in a file": {controlplane.Options{DataDir: filepath.Join(file, "data")}, "create data directory: mkdir " + file + ": not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := controlplane.Start(t.Context(), test.options)
			if err == nil {
				c.Stop()
				t.Fatal("it started")
			}
			if err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
	t.Run("what failed for its port leaves the directory free", func(t *testing.T) {
		start(t, controlplane.Options{DataDir: free})
	})
	t.Run("the directory is not writable", func(t *testing.T) {
		dir := openDir(t, 0)
		closed := filepath.Join(dir, "closed")
		if err := os.Mkdir(closed, 0o500); err != nil {
			t.Fatal(err)
		}
		var uid uint32
		if os.Geteuid() == 0 { // root can write everywhere
			uid = 65534
			if err := os.Chown(closed, int(uid), int(uid)); err != nil {
				t.Fatal(err)
			}
		}
		_, _, line := alone(t, closed, uid)
		if want := "data directory " + closed + " is not writable: permission denied"; line != want {
			t.Errorf("got  %s\nwant %s", line, want)
		}
		_, _, line = alone(t, filepath.Join(closed, "below"), uid)
		if want := "create data directory: mkdir " + filepath.Join(closed, "below") + ": permission denied"; line != want {
			t.Errorf("got  %s\nwant %s", line, want)
		}
	})
}

func TestAnOrdinaryUserCanStartIt(t *testing.T) {
	var uid uint32
	if os.Geteuid() == 0 {
		uid = 65534
	}
	dir := filepath.Join(openDir(t, uid), strings.Repeat("long", 40)) // longer than the path of a socket can be
	process, stdin, line := alone(t, dir, uid)
	if line != "ready" {
		t.Fatal(line)
	}
	stdin.Close()
	if err := process.Wait(); err != nil {
		t.Errorf("stopped with: %v", err)
	}
}

func TestWithoutCredentialsNothingIsServed(t *testing.T) {
	c := plane(t)
	config := rest.AnonymousClientConfig(c.AdminConfig())
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/healthz", "/version", "/api/v1/namespaces", "/openid/v1/jwks"} {
		response, err := (&http.Client{Transport: transport}).Get(config.Host + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusUnauthorized {
			t.Errorf("GET %s: %s", path, response.Status)
		}
	}
}

func TestItListensOnTheLoopbackInterfaceOnly(t *testing.T) {
	port := plane(t).Port()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	others := 0
	for _, a := range addresses {
		ip := a.(*net.IPNet).IP
		if ip.IsLoopback() || ip.To4() == nil {
			continue
		}
		others++
		if conn, err := net.Dial("tcp", net.JoinHostPort(ip.String(), strconv.Itoa(port))); err == nil {
			conn.Close()
			t.Errorf("it answers on %s", ip)
		}
	}
	// The addresses of a machine without network prove nothing, the kernel's table does.
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		for _, line := range strings.Split(read(t, table), "\n") {
			fields := strings.Fields(line)
			if len(fields) > 3 && fields[3] == "0A" && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) &&
				fields[1] != fmt.Sprintf("0100007F:%04X", port) {
				t.Errorf("it listens on %s", fields[1])
			}
		}
	}
}

func TestFilesOfTheDataDirectoryAreTheOwnersAlone(t *testing.T) {
	c := plane(t)
	info, err := os.Stat(c.DataDir())
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("the data directory has mode %04o", info.Mode().Perm())
	}
	files := 0
	err = filepath.WalkDir(c.DataDir(), func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // etcd is at work
			return nil
		} else if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		files++
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %04o", path, info.Mode().Perm())
		}
		return nil
	})
	if err != nil || files < 10 {
		t.Errorf("saw %d files: %v", files, err)
	}
}

func TestADirectoryThatOthersCanEnterIsClosed(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	start(t, controlplane.Options{DataDir: dir})
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("mode %04o", info.Mode().Perm())
	}
}

func TestTheKubeconfigStandsAlone(t *testing.T) {
	config, err := clientcmd.LoadFromFile(plane(t).KubeconfigPath())
	if err != nil {
		t.Fatal(err)
	}
	cluster := config.Clusters[config.Contexts[config.CurrentContext].Cluster]
	user := config.AuthInfos[config.Contexts[config.CurrentContext].AuthInfo]
	if len(cluster.CertificateAuthorityData) == 0 || cluster.InsecureSkipTLSVerify || cluster.CertificateAuthority != "" {
		t.Error("the CA is not embedded")
	}
	block, _ := pem.Decode(user.ClientCertificateData)
	if block == nil || len(user.ClientKeyData) == 0 || user.ClientCertificate != "" || user.ClientKey != "" {
		t.Fatal("the client's certificate and key are not embedded")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if got := cert.Subject.String(); got != "CN=kubernetes-admin,O=system:masters" {
		t.Errorf("the client is %s", got)
	}
}

func TestTheServerKnowsItsVersion(t *testing.T) {
	version, err := admin(t, plane(t)).Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	want := kubernetesVersion(t)
	if version.GitVersion != want || !strings.HasPrefix(want, "v"+version.Major+"."+version.Minor+".") {
		t.Errorf("says %s (%s.%s), is made of %s", version.GitVersion, version.Major, version.Minor, want)
	}
}

func TestAServiceAccountHasItsRightsAndNoOthers(t *testing.T) {
	c := plane(t)
	k := admin(t, c)
	namespace := newNamespace(t, k)
	if _, err := serviceaccount.Config(t.Context(), c.AdminConfig(), namespace, "missing"); !apierrors.IsNotFound(err) {
		t.Errorf("of an account that does not exist: %v", err)
	}
	if _, err := k.CoreV1().
		ServiceAccounts(namespace).
		Create(
			t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "reader"}}, metav1.CreateOptions{},
		); err != nil {
		t.Fatal(err)
	}
	if _, err := k.RbacV1().RoleBindings(namespace).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "reader"},
		RoleRef:    rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "ClusterRole", Name: "view"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: namespace, Name: "reader"}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	config, err := serviceaccount.Config(t.Context(), c.AdminConfig(), namespace, "reader")
	if err != nil {
		t.Fatal(err)
	}
	reader, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	// The rules of "view" are put together by a control loop.
	eventually(t, func() error {
		_, err := reader.CoreV1().ConfigMaps(namespace).List(t.Context(), metav1.ListOptions{})
		return err
	})
	if _, err := reader.CoreV1().Secrets(namespace).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("reading Secrets: %v", err)
	}
	if _, err := reader.CoreV1().
		ConfigMaps("default").
		List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(
		err,
	) {
		t.Errorf("reading another namespace: %v", err)
	}
}

func TestASecretForATokenOfAServiceAccountIsFilled(t *testing.T) {
	c := plane(t)
	k := admin(t, c)
	namespace := newNamespace(t, k)
	eventually(t, func() error { // its default account is made by a control loop
		_, err := k.CoreV1().ServiceAccounts(namespace).Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
	if _, err := k.CoreV1().Secrets(namespace).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "token", Annotations: map[string]string{corev1.ServiceAccountNameKey: "default"}},
		Type:       corev1.SecretTypeServiceAccountToken,
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	var token string
	eventually(t, func() error {
		secret, err := k.CoreV1().Secrets(namespace).Get(t.Context(), "token", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if token = string(secret.Data[corev1.ServiceAccountTokenKey]); token == "" {
			return errNotYet
		}
		return nil
	})
	config := rest.AnonymousClientConfig(c.AdminConfig())
	config.BearerToken = token
	account, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { // the API server finds the Secret in a cache
		_, err := account.Discovery().ServerVersion()
		return err
	})
}

func TestADeletedNamespaceTakesItsContentAlong(t *testing.T) {
	k := admin(t, plane(t))
	namespace := newNamespace(t, k)
	if _, err := k.CoreV1().
		ConfigMaps(namespace).
		Create(
			t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "content"}}, metav1.CreateOptions{},
		); err != nil {
		t.Fatal(err)
	}
	if err := k.CoreV1().Namespaces().Delete(t.Context(), namespace, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		_, err := k.CoreV1().Namespaces().Get(t.Context(), namespace, metav1.GetOptions{})
		return gone(err)
	})
	list, err := k.CoreV1().ConfigMaps(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 0 {
		t.Errorf("left: %v", list.Items)
	}
}

func TestObjectsWhoseOwnerIsDeletedAreCollected(t *testing.T) {
	k := admin(t, plane(t))
	namespace := newNamespace(t, k)
	maps := k.CoreV1().ConfigMaps(namespace)
	owner, err := maps.Create(
		t.Context(),
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "owner"}},
		metav1.CreateOptions{},
	)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.CoreV1().Secrets(namespace).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Name:            "owned",
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID}},
	}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := maps.Delete(t.Context(), owner.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		_, err := k.CoreV1().Secrets(namespace).Get(t.Context(), "owned", metav1.GetOptions{})
		return gone(err)
	})
}

// gone is nil if err says that an object does not exist.
func gone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err == nil {
		return errors.New("it still exists")
	}
	return err
}

func newNamespace(t *testing.T, k kubernetes.Interface) string {
	t.Helper()
	ns, err := k.CoreV1().
		Namespaces().
		Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = k.CoreV1().Namespaces().Delete(context.Background(), ns.Name, metav1.DeleteOptions{})
	})
	return ns.Name
}

func read(t testing.TB, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
