package signer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/secrets"
	"github.com/perennial-pki/perennial/pki"
)

func TestTheCAOfAChain(t *testing.T) {
	sign := func(name string, isCA bool, parent *x509.Certificate, by crypto.Signer) (*x509.Certificate, crypto.Signer) {
		t.Helper()
		key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := pki.Request{CommonName: name, IsCA: isCA}.CSR(rand.Reader, key)
		if err != nil {
			t.Fatal(err)
		}
		csr, err := pki.DecodeCSRPEM(pki.EncodeCSRPEM(der))
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		template, err := pki.Template{NotBefore: now, NotAfter: now.Add(time.Hour), IsCA: isCA}.Certificate(csr)
		if err != nil {
			t.Fatal(err)
		}
		if parent == nil {
			cert, err := pki.SelfSign(rand.Reader, template, key)
			if err != nil {
				t.Fatal(err)
			}
			return cert, key
		}
		cert, err := pki.Sign(rand.Reader, template, parent, key.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		return cert, key
	}
	root, rootKey := sign("root", true, nil, nil)
	between, betweenKey := sign("intermediate", true, root, rootKey)
	leaf, _ := sign("leaf", false, between, betweenKey)

	for name, test := range map[string]struct {
		include cmacme.ACMEIncludeCA
		chain   []*x509.Certificate
		want    *x509.Certificate
	}{
		"not asked for":                {"", []*x509.Certificate{leaf, between, root}, nil},
		"expressly not asked for":      {"None", []*x509.Certificate{leaf, between, root}, nil},
		"the root, if it is sent":      {"FromChain", []*x509.Certificate{leaf, between, root}, root},
		"else the highest that is":     {"FromChain", []*x509.Certificate{leaf, between}, between},
		"a leaf alone tells of no CA":  {"FromChain", []*x509.Certificate{leaf}, nil},
		"a CA alone is not its own CA": {"FromChain", []*x509.Certificate{root}, nil},
		"nor does a broken chain tell": {"FromChain", []*x509.Certificate{leaf, root}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			issuer := &cmapi.Issuer{}
			issuer.Spec.ACME = &cmacme.ACMEIssuer{IncludeCA: test.include}
			var want []byte
			if test.want != nil {
				want = pki.EncodeCertificatePEM(test.want)
			}
			if got := (&Issuer{GenericIssuer: issuer, Kind: KindIssuer}).CAFromChain(test.chain); !bytes.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	other := &cmapi.Issuer{}
	other.Spec.SelfSigned = &cmapi.SelfSignedIssuer{}
	if got := (&Issuer{GenericIssuer: other, Kind: KindIssuer}).CAFromChain(
		[]*x509.Certificate{leaf, between, root},
	); got != nil {
		t.Errorf("an issuer of another type says %q", got)
	}
}

func TestWhichIssuerASecretNames(t *testing.T) {
	by := cmmeta.IssuerReference{Name: "ca"}
	for name, test := range map[string]struct {
		annotations map[string]string
		want        bool
	}{
		"as we write it": {map[string]string{cmapi.IssuerNameAnnotationKey: "ca", cmapi.IssuerKindAnnotationKey: "Issuer", cmapi.IssuerGroupAnnotationKey: "cert-manager.io"}, true},
		"as cert-manager does, if the Certificate does not name the group": {map[string]string{
			cmapi.IssuerNameAnnotationKey: "ca", cmapi.IssuerKindAnnotationKey: "Issuer", cmapi.IssuerGroupAnnotationKey: "",
		}, true},
		"by its name alone":           {map[string]string{cmapi.IssuerNameAnnotationKey: "ca"}, true},
		"another":                     {map[string]string{cmapi.IssuerNameAnnotationKey: "other"}, false},
		"another kind":                {map[string]string{cmapi.IssuerNameAnnotationKey: "ca", cmapi.IssuerKindAnnotationKey: "ClusterIssuer"}, false},
		"another group":               {map[string]string{cmapi.IssuerNameAnnotationKey: "ca", cmapi.IssuerGroupAnnotationKey: "example.com"}, false},
		"no account, as far as known": {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := SecretNamesIssuer(
				by,
				&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Annotations: test.annotations}},
			); got != test.want {
				t.Errorf("it is said to be of %+v: %v", by, got)
			}
		})
	}
}

func TestAnIssuerChangesWithItsSpecAndItsCA(t *testing.T) {
	failed := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	of := func(generation int64, ca string, since time.Time) *Issuer {
		i := &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{UID: "uid", Generation: generation}}
		i.Spec.CA = &cmapi.CAIssuer{SecretName: "ca"}
		if ca != "" {
			i.Status.CA = &cmapi.CAIssuerStatus{Fingerprint: ca, Certificate: "root", Since: metav1.NewTime(since)}
		}
		return &Issuer{GenericIssuer: i, Kind: KindIssuer}
	}
	before, after := failed.Add(-time.Hour), failed.Add(time.Second)
	for name, test := range map[string]struct {
		was, is *Issuer
		want    bool
	}{
		"nothing":                           {of(1, "a", before), of(1, "a", before), false},
		"its spec":                          {of(1, "a", before), of(2, "a", before), true},
		"its spec, of ten generations":      {of(1, "", before), of(10, "", before), true},
		"its CA":                            {of(1, "a", before), of(1, "b", after), true},
		"its CA, in the same second":        {of(1, "a", before), of(1, "b", failed), true},
		"its CA, which was not known":       {of(1, "", before), of(1, "a", after), true},
		"only that its CA is known since":   {of(1, "", before), of(1, "a", before), false},
		"nothing, of one without a CA":      {of(1, "", before), of(1, "", before), false},
		"its spec, and its CA is not known": {of(1, "a", before), of(2, "", before), true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.is.ChangedSince(test.was.Generation(), failed); got != test.want {
				t.Errorf("changed: %t", got)
			}
		})
	}
	if of(1, "a", before).ChangedSince("", failed) {
		t.Error("it changed since nothing was noted")
	}
}

// TestARequestRepeatsNoConditionOfAClusterIssuer checks what requests say of an issuer whose own
// condition names a Secret.
func TestARequestRepeatsNoConditionOfAClusterIssuer(t *testing.T) {
	status := cmapi.IssuerStatus{Conditions: []cmapi.IssuerCondition{{Type: cmapi.IssuerConditionReady,
		Status: cmmeta.ConditionFalse, Reason: "ErrGetKeyPair", Message: "Secret elsewhere/pair does not exist"}}}
	scope := Scope{ClusterResourceNamespace: "elsewhere"}
	own := scope.Of(&cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Status: status})
	if ready, why := own.Ready(); ready || why != "Secret elsewhere/pair does not exist" {
		t.Errorf("an Issuer: %t, %q", ready, why)
	}
	shared := scope.Of(&cmapi.ClusterIssuer{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Status: status})
	if ready, why := shared.Ready(); ready ||
		why != `ErrGetKeyPair; the condition Ready of ClusterIssuer "a" says more` {
		t.Errorf("a ClusterIssuer: %t, %q", ready, why)
	}
}

// unreadable is a cluster whose API server refuses each read.
type unreadable struct{ err error }

func (u unreadable) Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error {
	return u.err
}

func (unreadable) List(context.Context, client.ObjectList, ...client.ListOption) error { return nil }

// TestAReadErrorNamesNoSecretOfAClusterIssuer checks errors of the API server, whose words have the
// names of Secrets.
func TestAReadErrorNamesNoSecretOfAClusterIssuer(t *testing.T) {
	resource := schema.GroupResource{Resource: "secrets"}
	scope := Scope{ClusterResourceNamespace: "elsewhere"}
	shared := scope.Of(&cmapi.ClusterIssuer{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
	own := scope.Of(&cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "a"}})
	for name, err := range map[string]error{
		"missing":   apierrors.NewNotFound(resource, "pair"),
		"forbidden": apierrors.NewForbidden(resource, "pair", errors.New("frozen")),
		"too slow":  apierrors.NewGenericServerResponse(504, "get", resource, "pair", "", 0, true),
		"no answer": &url.Error{Op: "Get", URL: "https://api/api/v1/namespaces/elsewhere/secrets/pair",
			Err: context.DeadlineExceeded},
	} {
		in := unreadable{err}
		store := &secrets.Store{OursCache: in, OthersCache: in, Live: in}
		_, got := shared.ReadSecret(t.Context(), store, "pair")
		if text := fmt.Sprint(got); !errors.Is(got, err) || !strings.HasPrefix(text, `get the Secret of ClusterIssuer "a": `) ||
			strings.Contains(text, "pair") || strings.Contains(text, "elsewhere") {
			t.Errorf("%s: a ClusterIssuer: %s", name, text)
		}
		_, got = own.ReadSecret(t.Context(), store, "pair")
		if !errors.Is(got, err) || !strings.HasPrefix(got.Error(), "get Secret ns/pair: ") {
			t.Errorf("%s: an Issuer: %v", name, got)
		}
	}
}
