package controller_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
)

// TestMetricsAreServedByTLSAndProfilesOnRequest has a controller serve its metrics with a
// certificate that another one has issued.
func TestMetricsAreServedByTLSAndProfilesOnRequest(t *testing.T) {
	namespace := cluster.Namespace(t)
	issuing, _ := run(t, nil)
	clusterCA(t, "metrics-tls")
	create(t, leaf(namespace, "scraped", cmmeta.IssuerReference{Kind: "ClusterIssuer", Name: "metrics-tls"}))
	untilReady(t, namespace, "scraped")
	if err := issuing.Stop(); err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{}
	key := client.ObjectKey{Namespace: namespace, Name: "scraped"}
	if err := cluster.Admin(t).Get(t.Context(), key, secret); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range secret.Data {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, o := run(t, func(o *controller.Options) {
		o.MetricsCertificate, o.MetricsKey = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
		o.ProfilerAddress = freeAddress(t)
	})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(secret.Data["ca.crt"])
	scraper := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: roots, ServerName: "scraped.example.com",
	}}}
	get := func(c *http.Client, url, want string) {
		t.Helper()
		cluster.Eventually(t, func() error {
			response, err := c.Get(url)
			if err != nil {
				return cluster.NotYet("%v", err)
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			if err != nil || response.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
				return cluster.NotYet("%s: %d, %v", url, response.StatusCode, err)
			}
			return nil
		})
	}
	get(scraper, "https://"+o.MetricsAddress+"/metrics", "perennial_build_info")
	get(http.DefaultClient, "http://"+o.ProfilerAddress+"/debug/pprof/", "goroutine")
}
