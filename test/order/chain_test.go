package order_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// TestTheChainOfTheIssuersChoiceIsTakenIfItIsGood uses a CA with three chains. Its roots are
// numbered: the first belongs to the default chain.
func TestTheChainOfTheIssuersChoiceIsTakenIfItIsGood(t *testing.T) {
	other := func(rootNames) string { return "no CA's root" }
	root := func(n int) func(rootNames) string { return func(all rootNames) string { return all[n] } }
	for name, test := range map[string]chainCase{
		"no choice":                     {nil, nil, 0, nil, 1},
		"the default one":               {root(0), nil, 0, nil, 1},
		"another one":                   {root(2), nil, 2, nil, 3},
		"one that the CA does not have": {other, nil, 0, []string{`The CA has no chain of "no CA's root", which the issuer prefers`, "Correct spec.acme.preferredChain"}, 3},
		"one that is not good":          {root(1), []int{1}, 0, []string{"that the issuer prefers is not used", "its certificate 1 is not signed by the next one"}, 3},
		"no choice, and the default one is not good":   {nil, []int{0}, 1, []string{"The CA's default chain is not used", "its certificate 1 is not signed by the next one"}, 2},
		"another one, and the default one is not good": {root(2), []int{0, 1}, 2, nil, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.check(t)
		})
	}
}

// rootNames are the names of the CA's roots.
type rootNames [3]string

// chainCase is a preferred chain, and which chain is taken.
type chainCase struct {
	prefers func(rootNames) string // nothing if nil
	bad     []int                  // the chains that lack what has signed the leaf
	takes   int
	says    []string // in an event; none if empty
	asks    int      // for chains
}

func (test chainCase) check(t *testing.T) {
	f := &front{}
	r, options := shop(t, f, pebble.Options{AlternateRoots: 2})
	roots, err := r.ca.Roots()
	if err != nil {
		t.Fatal(err)
	}
	all := rootNames{roots[0].Subject.CommonName, roots[1].Subject.CommonName, roots[2].Subject.CommonName}
	f.behave(nil, func(q *http.Request, _ map[string]any, reply *httptest.ResponseRecorder) {
		if !strings.HasPrefix(q.URL.Path, pathCertificate) || reply.Code != http.StatusOK {
			return
		}
		for _, n := range test.bad {
			spoil(t, reply, all[n], roots[n])
		}
	})
	cluster.Run(t, options)
	r.issuer(func(spec *cmacme.ACMEIssuer) {
		if test.prefers != nil {
			spec.PreferredChain = test.prefers(all)
		}
	})
	r.ready(r.certificate("site", "www.example.com"))

	chain, _ := cluster.Pair(t, client.ObjectKey{Namespace: r.namespace, Name: "site"})
	trusted, between := x509.NewCertPool(), x509.NewCertPool()
	trusted.AddCert(roots[test.takes])
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	if _, err := chain[0].Verify(
		x509.VerifyOptions{DNSName: "www.example.com", Roots: trusted, Intermediates: between},
	); err != nil {
		t.Errorf("a client that trusts root %d: %v", test.takes, err)
	}
	if len(test.says) > 0 {
		r.tells("OtherChain", test.says...)
	} else {
		var events corev1.EventList
		if err := r.admin.List(t.Context(), &events, client.InNamespace(r.namespace)); err != nil {
			t.Fatal(err)
		}
		for _, e := range events.Items {
			if e.Reason == "OtherChain" {
				t.Errorf("an event says %s", e.Message)
			}
		}
	}
	if n := f.asked(pathCertificate); n != test.asks {
		t.Errorf("the CA was asked for %d chains, instead of %d", n, test.asks)
	}
}

// spoil replaces the issuer of the leaf with a root, if the chain ends in that root.
func spoil(t *testing.T, reply *httptest.ResponseRecorder, of string, root *x509.Certificate) {
	var chain []*x509.Certificate
	for rest := reply.Body.Bytes(); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Error(err)
			return
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 || chain[len(chain)-1].Issuer.CommonName != of {
		return
	}
	var b bytes.Buffer
	for _, c := range []*x509.Certificate{chain[0], root} {
		fmt.Fprintf(&b, "%s", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	reply.Body = &b
}
