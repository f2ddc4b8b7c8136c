package pki

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
)

func TestARequestThatWouldBeTooLongIsRefusedBeforeThereIsAKey(t *testing.T) {
	for _, spec := range []KeySpec{{}, {Algorithm: RSA, Size: 4096}, {Algorithm: ECDSA}, {Algorithm: ECDSA, Size: 521},
		{Algorithm: Ed25519}} {
		t.Run(fmt.Sprintf("%s %d", spec.algorithm(), spec.size()), func(t *testing.T) {
			key, err := spec.Generate(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			var r Request
			for n := 1; n < 2000; n++ {
				r.DNSNames = append(r.DNSNames, fmt.Sprintf("host-%04d.names.example.com", n))
				if n < 880 && n%100 > 0 {
					continue
				}
				der, err := r.CSR(rand.Reader, key)
				if err != nil {
					t.Fatal(err)
				}
				_, readable := DecodeCSRPEM(EncodeCSRPEM(der))
				if refused := (Limits{}).CheckRequest(r, spec); checkRefusal(t, n, len(EncodeCSRPEM(der)), refused, readable) {
					return
				}
			}
			t.Fatal("nothing was too long")
		})
	}
}

// checkRefusal expects of a request for n names, with a CSR of some size, that it is refused if the
// CSR cannot be read, and only then. It reports whether it is refused.
func checkRefusal(t *testing.T, n, size int, refused, readable error) bool {
	t.Helper()
	switch {
	case readable != nil && refused == nil:
		t.Fatalf("%d names pass, and then: %v", n, readable)
	case readable == nil && refused != nil && size < MaxCertificateSize-64:
		t.Fatalf("%d names are refused, and could be read: %v", n, refused)
	case refused == nil || readable == nil:
		return false
	}
	for _, word := range []string{fmt.Sprintf("its %d names", n), "at most 36500", "several Certificates"} {
		if !strings.Contains(refused.Error(), word) {
			t.Errorf("there is no %q in %v", word, refused)
		}
	}
	return true
}
