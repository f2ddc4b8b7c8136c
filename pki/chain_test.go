package pki

import (
	cryptorand "crypto/rand"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestOrderChain(t *testing.T) {
	root := newRoot(t, "root", ecKey())
	upper := root.intermediate(t, "upper", otherKey())
	lower := upper.intermediate(t, "lower", mustGenerate(KeySpec{Algorithm: ECDSA}))
	leaf := lower.sign(t, Request{CommonName: "leaf"}, edKey())
	twin := lower.sign(t, Request{CommonName: "twin"}, edKey())
	otherRoot := newRoot(t, "other root", edKey())
	// Two roots that signed each other, besides themselves.
	crossed := issuer{otherRoot.sign(t, Request{CommonName: "root", IsCA: true}, ecKey()), ecKey()}
	// A self-signed certificate that is not a CA, as the selfSigned issuer makes.
	selfTemplate, err := Template{
		NotBefore: testStart,
		NotAfter:  testEnd,
	}.Certificate(
		mustCSR(t, Request{CommonName: "self"}, edKey()),
	)
	if err != nil {
		t.Fatal(err)
	}
	self, err := SelfSign(cryptorand.Reader, selfTemplate, edKey())
	if err != nil {
		t.Fatal(err)
	}
	// A root that changed its key: the new key is signed with the old one, under one name.
	newKey := mustGenerate(KeySpec{Algorithm: ECDSA})
	rolled := root.intermediate(t, "root", newKey)
	leafOfRolled := rolled.sign(t, Request{CommonName: "leaf"}, edKey())
	rootTwin := newRoot(t, "root", ecKey())

	certs := func(c ...*x509.Certificate) []*x509.Certificate { return c }
	for name, test := range map[string]struct {
		in, chain []*x509.Certificate
		root      *x509.Certificate
		err       string
	}{
		"in order, with the root":                     {in: certs(leaf, lower.cert, upper.cert, root.cert), chain: certs(leaf, lower.cert, upper.cert), root: root.cert},
		"in order, without the root":                  {in: certs(leaf, lower.cert, upper.cert), chain: certs(leaf, lower.cert, upper.cert), root: upper.cert},
		"the wrong way round":                         {in: certs(root.cert, upper.cert, lower.cert, leaf), chain: certs(leaf, lower.cert, upper.cert), root: root.cert},
		"mixed, with duplicates":                      {in: certs(upper.cert, leaf, root.cert, leaf, lower.cert, root.cert), chain: certs(leaf, lower.cert, upper.cert), root: root.cert},
		"a leaf alone has no root":                    {in: certs(leaf), chain: certs(leaf)},
		"a self-signed CA alone is its own root":      {in: certs(root.cert), chain: certs(root.cert), root: root.cert},
		"a self-signed leaf alone has no root":        {in: certs(self), chain: certs(self)},
		"a root that signed its next key":             {in: certs(root.cert, rolled.cert, leafOfRolled), chain: certs(leafOfRolled, rolled.cert), root: root.cert},
		"a leaf signed by the root":                   {in: certs(root.cert, rolled.cert), chain: certs(rolled.cert), root: root.cert},
		"none":                                        {in: nil, err: "there are no certificates"},
		"nil":                                         {in: certs(leaf, nil), err: "certificate 2 is empty"},
		"one that was not parsed":                     {in: certs(&x509.Certificate{}), err: "certificate 1 is empty"},
		"one in the middle is missing":                {in: certs(leaf, upper.cert, root.cert), err: "not one chain"},
		"one that does not belong":                    {in: certs(leaf, lower.cert, upper.cert, otherRoot.cert), err: `neither "CN=leaf" nor "CN=other root" signed another`},
		"two leaves":                                  {in: certs(leaf, twin, lower.cert), err: `"CN=leaf" and "CN=twin" are both signed by "CN=lower"`},
		"a root and the same, signed by another root": {in: certs(upper.cert, root.cert, crossed.cert, otherRoot.cert), err: "not one chain"},
		"two self-signed roots of one name and key":   {in: certs(upper.cert, root.cert, rootTwin.cert), err: "not one chain"},
	} {
		t.Run(name, func(t *testing.T) {
			chain, root, err := OrderChain(test.in)
			if test.err != "" {
				wantError(t, err, "order certificate chain: ", test.err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(chain, test.chain) {
				t.Errorf("the chain is %v, want %v", subjects(chain), subjects(test.chain))
			}
			if root != test.root {
				t.Errorf("the root is %v, want %v", root, test.root)
			}
		})
	}
}

func subjects(certs []*x509.Certificate) (names []string) {
	for _, cert := range certs {
		names = append(names, cert.Subject.String())
	}
	return names
}

func TestOrderChainIsTheSameForEveryOrder(t *testing.T) {
	ca := newRoot(t, "root", ecKey())
	want := []*x509.Certificate{}
	root := ca.cert
	in := []*x509.Certificate{root}
	for i := range 8 {
		ca = ca.intermediate(t, fmt.Sprint("intermediate ", i), mustGenerate(KeySpec{Algorithm: ECDSA}))
		want = append([]*x509.Certificate{ca.cert}, want...)
		in = append(in, ca.cert)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		random.Shuffle(len(in), func(i, j int) { in[i], in[j] = in[j], in[i] })
		chain, top, err := OrderChain(in)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(chain, want) || top != root {
			t.Fatalf("%v gave %v", subjects(in), subjects(chain))
		}
	}
}

func TestOrderChainBoundsWhatItChecks(t *testing.T) {
	one := newRoot(t, "root", ecKey()).cert
	alike := func(n int) (certs []*x509.Certificate) {
		for i := range n {
			// Different bytes, one name, no key identifiers: all could have signed all.
			cert := *one
			cert.Raw = fmt.Append(nil, i)
			cert.SubjectKeyId, cert.AuthorityKeyId = nil, nil
			cert.Signature = nil
			certs = append(certs, &cert)
		}
		return certs
	}
	_, _, err := OrderChain(alike(maxChainLength))
	wantError(t, err, "too many certificates have the same subject")
	_, _, err = OrderChain(alike(maxChainLength + 1))
	wantError(t, err, "more than 1000 certificates")
}

func FuzzOrderChain(f *testing.F) {
	root := newRoot(f, "root", ecKey())
	upper := root.intermediate(f, "upper", otherKey())
	rolled := root.intermediate(f, "root", mustGenerate(KeySpec{Algorithm: ECDSA}))
	pool := []*x509.Certificate{
		root.cert, upper.cert, rolled.cert, newRoot(f, "root", ecKey()).cert,
		upper.sign(f, Request{CommonName: "leaf"}, edKey()), rolled.sign(f, Request{CommonName: "leaf"}, edKey()),
		newRoot(f, "other", edKey()).cert, nil,
	}
	f.Add([]byte{0, 1, 4})
	f.Add([]byte{5, 2, 0})
	f.Add([]byte{4, 4, 1, 0, 0})
	f.Add([]byte{0, 3, 6})
	f.Add([]byte{7})
	f.Add([]byte{})
	// Each byte picks a certificate of the pool.
	f.Fuzz(func(t *testing.T, picks []byte) {
		var in []*x509.Certificate
		for _, pick := range picks {
			in = append(in, pool[int(pick)%len(pool)])
		}
		chain, root, err := OrderChain(in)
		if err != nil {
			return
		}
		for i, cert := range chain {
			if i > 0 && !SignedBy(chain[i-1], cert) {
				t.Fatalf("certificate %d did not sign the one before it", i)
			}
		}
		if root != nil && root != chain[len(chain)-1] && !SignedBy(chain[len(chain)-1], root) {
			t.Fatal("the root did not sign the last certificate")
		}
		used := make(map[*x509.Certificate]bool)
		for _, cert := range append(chain, root) {
			used[cert] = true
		}
		for _, cert := range in {
			if !used[cert] {
				t.Fatalf("%s was dropped", cert.Subject)
			}
		}
	})
}
