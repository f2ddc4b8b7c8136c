package dns01

import (
	"context"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/secrets"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver/dns01/internal/dnstest"
	"github.com/perennial-pki/perennial/internal/solver/dns01/provider"
)

// noSecrets is a cluster without Secrets.
type noSecrets struct{ client.Reader }

func (noSecrets) Get(_ context.Context, key client.ObjectKey, _ client.Object, _ ...client.GetOption) error {
	return apierrors.NewNotFound(corev1.Resource("secrets"), key.Name)
}

func TestARecordThatIsSeenNeedsNoCredentialsAnyMore(t *testing.T) {
	server := dnstest.Serve(
		t,
		"127.0.0.1",
		dnstest.Records(
			t,
			true,
			"example.com. 60 IN SOA ns1.example.com. a.example.com. 1 1 1 1 1",
			`_acme-challenge.example.com. 60 IN TXT "v"`,
		),
	)
	ref := cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "gone"}, Key: "k"}
	s := &Solver{Now: time.Now, Providers: &provider.Factory{
		Secrets: &secrets.Store{OursCache: noSecrets{}, OthersCache: noSecrets{}, Live: noSecrets{}}, Now: time.Now,
		Allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	}}
	for name, test := range map[string]struct {
		spec cmacme.ACMEChallengeSolverDNS01
		asks bool // whether its service is asked if the change is settled
	}{
		"Cloudflare":   {cmacme.ACMEChallengeSolverDNS01{Cloudflare: &cmacme.ACMEIssuerDNS01ProviderCloudflare{APIToken: &ref}}, false},
		"DigitalOcean": {cmacme.ACMEChallengeSolverDNS01{DigitalOcean: &cmacme.ACMEIssuerDNS01ProviderDigitalOcean{Token: ref}}, false},
		"Cloud DNS":    {cmacme.ACMEChallengeSolverDNS01{CloudDNS: &cmacme.ACMEIssuerDNS01ProviderCloudDNS{Project: "p", ServiceAccount: &ref}}, true},
		"Route 53":     {cmacme.ACMEChallengeSolverDNS01{Route53: &cmacme.ACMEIssuerDNS01ProviderRoute53{AccessKeyID: "AKIA", SecretAccessKey: ref}}, true},
	} {
		test.spec.Nameservers = []string{server}
		ch := &cmacme.Challenge{
			Spec: cmacme.ChallengeSpec{DNSName: "example.com", Key: "v", Solver: cmacme.ACMEChallengeSolver{DNS01: &test.spec}},
		}
		seen, err := s.Check(
			t.Context(),
			&signer.Issuer{GenericIssuer: &cmapi.Issuer{}, Kind: signer.KindIssuer, SecretNamespace: "shop"},
			ch,
		)
		if test.asks != (err != nil) || seen.Visible == test.asks {
			t.Errorf("%s: %+v, %v", name, seen, err)
		}
	}
}

func TestWhatNeedsNoCleanUpNeedsNoCredentialsForIt(t *testing.T) {
	store := &secrets.Store{OursCache: noSecrets{}, OthersCache: noSecrets{}, Live: noSecrets{}}
	s := &Solver{Providers: &provider.Factory{Secrets: store, Now: time.Now}, Now: time.Now}
	ch := &cmacme.Challenge{
		Spec: cmacme.ChallengeSpec{
			DNSName: "example.com",
			Key:     "v",
			Solver: cmacme.ACMEChallengeSolver{DNS01: &cmacme.ACMEChallengeSolverDNS01{
				AcmeDNS: &cmacme.ACMEIssuerDNS01ProviderAcmeDNS{
					Host:          "auth.example.org",
					AccountSecret: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "gone"}, Key: "k"},
				},
			}},
		},
	}
	if err := s.CleanUp(
		t.Context(),
		&signer.Issuer{GenericIssuer: &cmapi.Issuer{}, Kind: signer.KindIssuer, SecretNamespace: "shop"},
		ch,
	); err != nil {
		t.Error(err)
	}
	if err := s.CleanUp(t.Context(), nil, ch); err != nil {
		t.Errorf("without its issuer: %v", err)
	}
}
