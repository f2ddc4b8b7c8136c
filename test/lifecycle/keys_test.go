package lifecycle_test

import (
	"crypto"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/pki"
	"github.com/perennial-pki/perennial/test/cluster"
)

// triedKeys are the public keys of the writes that are refused.
type triedKeys struct {
	mu  sync.Mutex
	all []crypto.PublicKey
}

func (k *triedKeys) add(key crypto.PublicKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.all = append(k.all, key)
}

func (k *triedKeys) list() []crypto.PublicKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.all)
}

// refuse refuses the Secret of a next private key, or the request that a signer of the process
// gets, and records its key.
func (k *triedKeys) refuse(w cluster.Write) bool {
	if w.Verb != "create" || !strings.HasPrefix(w.Name, "a-") {
		return false
	}
	switch o := w.Object.(type) {
	case *corev1.Secret:
		key, err := pki.Limits{}.DecodeKeyPEM(o.Data[corev1.TLSPrivateKeyKey])
		if err != nil {
			return false
		}
		k.add(key.Public())
		return true
	case *cmapi.CertificateRequest:
		csr, err := pki.Limits{}.DecodeCSRPEM(o.Spec.Request)
		if err != nil {
			return false
		}
		k.add(csr.PublicKey)
		return true
	}
	return false
}

// TestAGeneratedKeyIsKeptUntilItsWriteSucceeds refuses the write of a key that took long to
// generate, again and again: each attempt has the same key, and it is the key that is stored in the
// end.
func TestAGeneratedKeyIsKeptUntilItsWriteSucceeds(t *testing.T) {
	const attempts = 3
	for _, signer := range []string{"selfSigned", "external"} {
		t.Run(signer, func(t *testing.T) {
			t.Parallel()
			r := newRefusable(t)
			options, names := signers[signer](r)
			tried := &triedKeys{}
			r.Begin(tried.refuse)
			r.start(options)
			r.create(certificate("a", "signer", names, func(crt *cmapi.Certificate) {
				crt.Spec.PrivateKey = &cmapi.CertificatePrivateKey{Algorithm: cmapi.RSAKeyAlgorithm, Size: 2048}
			}))
			for n := range attempts {
				cluster.Eventually(t, func() error {
					c := cmapi.GetCertificateCondition(&r.getCertificate("a").Status, cmapi.CertificateConditionIssuing)
					if c == nil || c.Status != cmmeta.ConditionFalse || len(tried.list()) <= n {
						return cluster.NotYet("%d attempts; the condition is %+v", len(tried.list()), c)
					}
					return nil
				})
				r.saysRefusal(cmapi.GetCertificateCondition(&r.getCertificate("a").Status,
					cmapi.CertificateConditionIssuing).Message)
				if n == attempts-1 {
					r.End()
				}
				r.clock.Step(11 * time.Minute) // past the pause
				r.nudge("a")
			}
			r.untilReady("a", 1)
			stored := r.leaf(r.secret("a")).PublicKey
			for i, key := range tried.list() {
				if !pki.SamePublicKey(key, stored) {
					t.Errorf("attempt %d had another key than the one that is stored", i+1)
				}
			}
		})
	}
}
