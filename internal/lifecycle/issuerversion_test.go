package lifecycle

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/signer"
)

func TestAnIssuerChangesWithTheCertificatesAboveItsCA(t *testing.T) {
	const one, other = "1111111111111111aaaa", "2222222222222222aaaa"
	of := func(chain string) *signer.Issuer {
		i := &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{UID: "uid", Generation: 3}}
		i.Spec.CA = &cmapi.CAIssuer{SecretName: "ca"}
		i.Status.CA = &cmapi.CAIssuerStatus{Fingerprint: "f", Certificate: "root", ChainDigest: chain,
			Since: metav1.NewTime(created)}
		return &signer.Issuer{GenericIssuer: i, Kind: signer.KindIssuer}
	}
	bare, _, _ := strings.Cut(issuerVersion(of(one)), chainMark)
	for name, test := range map[string]struct {
		was  string
		is   *signer.Issuer
		want bool
	}{
		"the same":                         {issuerVersion(of(one)), of(one), false},
		"another":                          {issuerVersion(of(one)), of(other), true},
		"one more":                         {issuerVersion(of("")), of(one), true},
		"none any more":                    {issuerVersion(of(one)), of(""), true},
		"a request of an older controller": {bare, of(one), false},
	} {
		if got := issuerChanged(test.is, test.was, created); got != test.want {
			t.Errorf("%s: changed is %t", name, got)
		}
	}
}
