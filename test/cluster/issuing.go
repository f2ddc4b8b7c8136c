package cluster

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
)

// IssuingSays waits until the message of the condition Issuing of a Certificate has each of the
// words.
func IssuingSays(t testing.TB, c client.Reader, name types.NamespacedName, words ...string) {
	t.Helper()
	Eventually(t, func() error {
		crt := &cmapi.Certificate{}
		if err := c.Get(t.Context(), name, crt); err != nil {
			return err
		}
		issuing := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionIssuing)
		for _, w := range words {
			if issuing == nil || !strings.Contains(issuing.Message, w) {
				return NotYet("the condition does not say %q: %+v", w, issuing)
			}
		}
		return nil
	})
}
