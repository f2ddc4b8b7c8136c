package dns01

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/signer"
)

func TestARoleIsNotAssumedByItself(t *testing.T) {
	const role = "arn:aws:iam::123456789012:role/team/dns"
	for identity, want := range map[string]bool{
		"arn:aws:sts::123456789012:assumed-role/dns/session":        true,
		"arn:aws:sts::123456789012:assumed-role/dns-2/session":      false,
		"arn:aws:sts::999999999999:assumed-role/dns/session":        false,
		"arn:aws-us-gov:sts::123456789012:assumed-role/dns/session": false,
		"arn:aws:iam::123456789012:user/dns":                        false,
		"":                                                          false,
	} {
		if got := sameRole(identity, role); got != want {
			t.Errorf("%q: %v", identity, got)
		}
	}
}

func TestRoute53SaysWhichCredentialsAreMissing(t *testing.T) {
	for name, test := range map[string]struct {
		spec cmacme.ACMEIssuerDNS01ProviderRoute53
		says string
	}{
		"a key without its secret": {cmacme.ACMEIssuerDNS01ProviderRoute53{AccessKeyID: "AKIA"}, "set both, or none"},
		"a ServiceAccount without a role": {cmacme.ACMEIssuerDNS01ProviderRoute53{Auth: &cmacme.Route53Auth{
			Kubernetes: &cmacme.Route53KubernetesAuth{ServiceAccountRef: &cmacme.ServiceAccountRef{Name: "dns"}}}}, "needs role"},
		"a key beside a ServiceAccount": {cmacme.ACMEIssuerDNS01ProviderRoute53{
			AccessKeyID: "AKIA", SecretAccessKey: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "aws"}, Key: "key"}, Role: "arn:aws:iam::1:role/r",
			Auth: &cmacme.Route53Auth{Kubernetes: &cmacme.Route53KubernetesAuth{ServiceAccountRef: &cmacme.ServiceAccountRef{Name: "dns"}}},
		}, "keep one of them"},
		"nothing, on an Issuer": {cmacme.ACMEIssuerDNS01ProviderRoute53{}, "--issuer-ambient-credentials"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Solver{Ambient: Ambient{ClusterIssuers: true}}
			issuer := &signer.Issuer{GenericIssuer: &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: "le"}}, Kind: signer.KindIssuer, SecretNamespace: "shop"}
			err := s.Settings(issuer, &cmacme.ACMEChallengeSolverDNS01{Route53: &test.spec})
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v", err)
			}
		})
	}
}
