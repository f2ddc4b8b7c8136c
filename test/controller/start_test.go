package controller_test

import (
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/deploy"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/standalone/install"
	"github.com/perennial-pki/perennial/test/cluster"
)

// lines is a log whose lines can be waited for.
func lines() (logr.Logger, chan string) {
	all := make(chan string, 10000)
	return funcr.New(func(_, args string) { all <- args }, funcr.Options{}), all
}

// appears waits for a line of a log.
func appears(t *testing.T, log chan string, want string) {
	t.Helper()
	late := time.After(time.Minute)
	for {
		select {
		case line := <-log:
			if strings.Contains(line, want) {
				return
			}
		case <-late:
			t.Fatalf("the log does not say %q", want)
		}
	}
}

func TestTheControllerStartsWhenTheAPIIsInstalled(t *testing.T) {
	t.Parallel()
	plane := cluster.EmptyPlane(t)

	// Nothing is installed: it gives up, and says what is missing.
	err := controller.Run(t.Context(), plane.AdminConfig(), controller.Options{StartTimeout: time.Second})
	if err == nil || !strings.HasPrefix(err.Error(), "the CustomResourceDefinitions ") ||
		!strings.Contains(err.Error(), "certificates.cert-manager.io, ") ||
		!strings.Contains(err.Error(), " are not installed: ") || strings.Contains(err.Error(), "certificatefiles") {
		t.Errorf("it ends with: %v", err)
	}

	// The API is installed while it waits.
	log, said := lines()
	cluster.RunAs(t, plane.AdminConfig(), controller.Options{Log: log, StartTimeout: time.Hour})
	appears(t, said, "waiting to start")
	if err := install.API(t.Context(), plane.AdminConfig()); err != nil {
		t.Fatal(err)
	}
	appears(t, said, "Starting workers")
}

// TestARunningCertManagerIsNamed holds the Lease as cert-manager does.
func TestARunningCertManagerIsNamed(t *testing.T) {
	namespace := cluster.Namespace(t)
	now := metav1.NowMicro()
	const pod = "cert-manager-7cbdfd77b7-nbhrb"
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "cert-manager-controller"},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: ptr.To(pod + "-external-cert-manager-controller"),
			LeaseDurationSeconds: ptr.To(int32(60)), AcquireTime: &now, RenewTime: &now}}
	create(t, lease)
	o := controller.Options{ClusterResourceNamespace: deploy.Namespace, LeaderElection: true, LeaseNamespace: namespace,
		StartTimeout: time.Second}
	cfg := cluster.Plane(t).AdminConfig() // it may read Leases of every namespace
	err := controller.Run(t.Context(), cfg, o)
	want := "cert-manager runs in this cluster: its pod " + pod + " holds the Lease " + namespace +
		"/cert-manager-controller; scale its Deployments to zero"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("it ends with: %v", err)
	}

	// It ends, and releases the Lease.
	log, said := lines()
	o.Log, o.StartTimeout = log, time.Hour
	cluster.RunAs(t, cfg, o)
	appears(t, said, "waiting to start")
	lease.Spec.HolderIdentity = ptr.To("")
	if err := cluster.Admin(t).Update(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	clusterCA(t, "after-cert-manager")
	create(t, leaf(namespace, "a", cmmeta.IssuerReference{Kind: "ClusterIssuer", Name: "after-cert-manager"}))
	untilReady(t, namespace, "a")
}
