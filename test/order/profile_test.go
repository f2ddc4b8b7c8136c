package order_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

func TestACertificateChoosesItsProfile(t *testing.T) {
	r := start(t, pebble.Options{Profiles: map[string]ca.Profile{
		"classic": {
			Description:    "90 days",
			ValidityPeriod: 90 * 86400,
		},
		"shortlived": {Description: "160 hours", ValidityPeriod: 160 * 3600},
	}})
	r.issuer(func(spec *cmacme.ACMEIssuer) { spec.Profile = "classic" })
	crt := r.certificate("site", "www.example.com")
	r.ready(crt)
	if life := crt.Status.NotAfter.Sub(crt.Status.NotBefore.Time); life < 80*24*time.Hour {
		t.Errorf("by the issuer's profile it lives %s", life)
	}
	profile := func(name string) {
		t.Helper()
		cluster.Eventually(t, func() error {
			if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
				return err
			}
			crt.Spec.ACMEProfile = name
			return r.admin.Update(t.Context(), crt)
		})
	}
	profile("shortlived")
	cluster.Eventually(t, func() error {
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			return err
		}
		if life := crt.Status.NotAfter.Sub(crt.Status.NotBefore.Time); life > 161*time.Hour {
			return cluster.NotYet("it lives %s:\n%s", life, r.story())
		}
		return nil
	})
	if at := crt.Status.RenewalTime; at == nil || !at.Before(crt.Status.NotAfter) {
		t.Errorf("it is renewed at %s", at)
	}
	profile("nonesuch")
	r.says(`the CA has no profile "nonesuch"`, `Its directory lists "classic", "shortlived"`)
}

func TestAProfileThatTheCADoesNotHaveIsNotAskedFor(t *testing.T) {
	t.Parallel()
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	f.behave(nil, func(r *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
		if strings.HasPrefix(r.URL.Path, pathDirectory) {
			edit(t, reply, func(o map[string]any) { delete(o["meta"].(map[string]any), "profiles") })
		}
	})
	cluster.Run(t, options)
	r.issuer()
	crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: "site"}, Spec: cmapi.CertificateSpec{
		SecretName: "site", DNSNames: []string{"www.example.com"}, IssuerRef: cmmeta.IssuerReference{Name: "pebble"},
		ACMEProfile: "shortlived",
	}}
	r.create(crt)
	r.failed(
		crt,
		`the CA has no profile "shortlived", which acmeProfile of the Certificate, or spec.acme.profile of the issuer, asks for. Its directory lists none`,
	)
	if n := f.asked(pathNewOrder); n > 0 {
		t.Errorf("the CA was asked for %d orders", n)
	}
	crt.Spec.ACMEProfile = ""
	cluster.Eventually(t, func() error {
		crt := &cmapi.Certificate{}
		if err := r.admin.Get(t.Context(), client.ObjectKey{Namespace: r.namespace, Name: "site"}, crt); err != nil {
			return err
		}
		crt.Spec.ACMEProfile = ""
		return r.admin.Update(t.Context(), crt)
	})
	r.ready(crt)
}

func TestAnOrderOfAnotherProfileIsRefused(t *testing.T) {
	t.Parallel()
	f := &front{}
	r, options := shop(t, f, pebble.Options{})
	f.behave(nil, func(r *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
		if strings.HasPrefix(r.URL.Path, pathNewOrder) && reply.Code == http.StatusCreated {
			edit(t, reply, func(o map[string]any) { o["profile"] = "another" })
		}
	})
	cluster.Run(t, options)
	r.issuer(func(spec *cmacme.ACMEIssuer) { spec.Profile = "default" })
	r.failed(r.certificate("site", "www.example.com"), `the CA made an order of profile "another", not of "default"`)
	if n := f.asked(pathFinalize); n > 0 {
		t.Errorf("%d orders were finalized", n)
	}
}

func TestAProfileWithoutAnACMEServerIsRefused(t *testing.T) {
	r := start(t, pebble.Options{})
	r.create(
		&cmapi.Issuer{
			ObjectMeta: metav1.ObjectMeta{Name: "self"},
			Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}},
		},
	)
	crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: "site"}, Spec: cmapi.CertificateSpec{
		SecretName:  "site",
		DNSNames:    []string{"www.example.com"},
		IssuerRef:   cmmeta.IssuerReference{Name: "self"},
		ACMEProfile: "shortlived",
	}}
	r.create(crt)
	cluster.Eventually(t, func() error {
		if story := r.story(); !strings.Contains(story, "spec.acmeProfile: Issuer \"self\" is not an ACME issuer") {
			return cluster.NotYet("it says\n%s", story)
		}
		return nil
	})
}
