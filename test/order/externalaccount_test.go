package order_test

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

const macKey = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"

// bound makes the issuer register with an external account.
func bound(spec *cmacme.ACMEIssuer) {
	spec.ExternalAccountBinding = &cmacme.ACMEExternalAccountBinding{
		KeyID: "kid-1",
		Key:   cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "eab"}, Key: "mac"},
	}
}

func TestAnExternalAccountThatIsDemandedIsAskedForUntilItIsRight(t *testing.T) {
	t.Parallel()
	r, options := shop(t, &front{}, pebble.Options{ExternalAccounts: map[string]string{"kid-1": macKey}})
	cluster.Run(t, options)
	r.issuer()
	r.issuerSays(cmmeta.ConditionFalse, "set spec.acme.externalAccountBinding")
	r.changeIssuer(bound)
	r.issuerSays(cmmeta.ConditionFalse, "/eab, spec.acme.externalAccountBinding.keySecretRef, does not exist: create it")
	wrong := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "eab"},
		StringData: map[string]string{"mac": strings.Repeat("A", 64)},
	}
	r.create(wrong)
	r.issuerSays(cmmeta.ConditionFalse, "the CA refuses: newAccount: ")
	wrong.StringData = map[string]string{"mac": "not base64!"}
	if err := r.admin.Update(t.Context(), wrong); err != nil {
		t.Fatal(err)
	}
	r.issuerSays(cmmeta.ConditionFalse, "is not base64url")
	// People copy base64 with its padding, and a line break.
	mac, err := base64.RawURLEncoding.DecodeString(macKey)
	if err != nil {
		t.Fatal(err)
	}
	wrong.StringData = map[string]string{"mac": base64.StdEncoding.EncodeToString(mac) + "\n"}
	if err := r.admin.Update(t.Context(), wrong); err != nil {
		t.Fatal(err)
	}
	r.issuerSays(cmmeta.ConditionTrue)
	r.ready(r.certificate("site", "www.example.com"))
}

// TestABindingThatCanBeUsedOnceIsUsedOnce loses the reply to the registration in each way, at a CA
// that accepts a binding once.
func TestABindingThatCanBeUsedOnceIsUsedOnce(t *testing.T) {
	for name, dies := range map[string]bool{"the reply is lost on the way": false, "the controller is killed before " +
		"it has written it down": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bindsOnce(t, dies)
		})
	}
}

// bindsOnce has the first reply lost, or the controller killed, and expects that the binding is not
// sent again.
func bindsOnce(t *testing.T, dies bool) {
	var used atomic.Int32
	f := &front{}
	f.answer = func(w http.ResponseWriter, r *http.Request, payload map[string]any) bool {
		if !strings.HasPrefix(r.URL.Path, pathNewAccount) || payload["externalAccountBinding"] == nil {
			return false
		}
		if used.Add(1) > 1 {
			refuse(w, http.StatusUnauthorized, "unauthorized", "this binding was used before")
			return true
		}
		return false
	}
	f.change = func(r *http.Request, payload map[string]any, _ *httptest.ResponseRecorder) {
		if !dies && strings.HasPrefix(r.URL.Path, pathNewAccount) && payload["externalAccountBinding"] != nil {
			panic(http.ErrAbortHandler)
		}
	}
	r, options := shop(t, f, pebble.Options{ExternalAccounts: map[string]string{"kid-1": macKey}})
	eab := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "eab"}, StringData: map[string]string{"mac": macKey}}
	r.create(eab)
	r.issuer(bound)
	if dies {
		life := cluster.NewLife(2, false) // the key is stored, the status is not written
		mortal := options
		mortal.WrapClient = life.Wrap
		first := cluster.Run(t, mortal)
		<-life.Died()
		if err := first.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	running := cluster.Run(t, options)
	uri := r.issuerSays(cmmeta.ConditionTrue).URI
	if n := used.Load(); n != 1 {
		t.Errorf("the binding was sent %d times", n)
	}

	// It is not needed any more: neither when the issuer changes, nor when the controller starts.
	if err := r.admin.Delete(t.Context(), eab); err != nil {
		t.Fatal(err)
	}
	r.changeIssuer(func(spec *cmacme.ACMEIssuer) { spec.Email = "others@example.org" })
	if again := r.issuerSays(cmmeta.ConditionTrue).URI; again != uri {
		t.Errorf("the account was %s and is %s", uri, again)
	}
	if err := running.Stop(); err != nil {
		t.Fatal(err)
	}
	cluster.Run(t, options)
	r.ready(r.certificate("site", "www.example.com"))
}
