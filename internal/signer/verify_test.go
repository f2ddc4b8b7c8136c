package signer

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"k8s.io/utils/clock"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/pki"
)

// answering is a Signer that always returns the same.
type answering struct {
	Signer
	answer Result
}

func (a answering) Sign(context.Context, *Issuer, Request) (Result, error) { return a.answer, nil }

// TestWhatEachSignerSignsIsJudged has a signer of each type return what clients refuse.
func TestWhatEachSignerSignsIsJudged(t *testing.T) {
	key := func() crypto.Signer {
		key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	request := func(key crypto.Signer) *x509.CertificateRequest {
		der, err := pki.Request{CommonName: "a", DNSNames: []string{"a.example.com"}}.CSR(rand.Reader, key)
		if err != nil {
			t.Fatal(err)
		}
		csr, err := pki.DecodeCSRPEM(pki.EncodeCSRPEM(der))
		if err != nil {
			t.Fatal(err)
		}
		return csr
	}
	own, other := key(), key()
	sign := func(key crypto.Signer, from, until time.Duration) []byte {
		now := time.Now()
		template, err := pki.Template{NotBefore: now.Add(from), NotAfter: now.Add(until)}.Certificate(request(key))
		if err != nil {
			t.Fatal(err)
		}
		cert, err := pki.SelfSign(rand.Reader, template, key)
		if err != nil {
			t.Fatal(err)
		}
		return pki.EncodeCertificatePEM(cert)
	}
	good := sign(own, 0, time.Hour)
	specs := map[string]cmapi.IssuerConfig{
		TypeSelfSigned: {SelfSigned: &cmapi.SelfSignedIssuer{}},
		TypeCA:         {CA: &cmapi.CAIssuer{}},
		TypeACME:       {ACME: &cmacme.ACMEIssuer{}},
	}
	for name, test := range map[string]struct {
		answer Result
		reason string // "" if it is good
	}{
		"good":            {Result{Certificate: good, CA: good}, ""},
		"under way":       {Result{Pending: "it is"}, ""},
		"for another key": {Result{Certificate: sign(other, 0, time.Hour)}, string(pki.KeyMismatch)},
		"expired":         {Result{Certificate: sign(own, -2*time.Hour, -time.Hour)}, string(pki.Expired)},
		"unreadable":      {Result{Certificate: []byte("x")}, "InvalidCertificate"},
	} {
		for kind, spec := range specs {
			t.Run(name+" of "+kind, func(t *testing.T) {
				judged(t, kind, spec, test.answer, test.reason, request(own))
			})
		}
	}
}

// judged has a signer return an answer, and expects that it is refused for a reason, or returned.
func judged(
	t *testing.T,
	kind string,
	spec cmapi.IssuerConfig,
	answers Result,
	reason string,
	csr *x509.CertificateRequest,
) {
	t.Helper()
	signers := WithVerification(ByType{kind: answering{answer: answers}}, pki.Limits{}, clock.RealClock{})
	issuer := Scope{}.Of(&cmapi.Issuer{Spec: cmapi.IssuerSpec{IssuerConfig: spec}})
	answer, err := signers[kind].Sign(t.Context(), issuer, Request{CSR: csr})
	if reason == "" {
		if err != nil || string(answer.Certificate) != string(answers.Certificate) {
			t.Errorf("%v", err)
		}
		return
	}
	if f := fault.Of(err); err == nil || f.Class != fault.Refused || f.Reason != reason ||
		!strings.Contains(err.Error(), "cannot sign this") || len(answer.Certificate) > 0 {
		t.Errorf("reason %s: %v, want %s", f.Reason, err, reason)
	}
}
