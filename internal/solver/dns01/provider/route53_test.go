package provider

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awscredentials "github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/route53"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/version"
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

func TestAWSSeesWhichVersionAsks(t *testing.T) {
	var agent string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { agent = r.UserAgent() }))
	defer server.Close()
	spec := &cmacme.ACMEIssuerDNS01ProviderRoute53{SecretAccessKey: cmmeta.SecretKeySelector{
		LocalObjectReference: cmmeta.LocalObjectReference{Name: "aws"},
	}}
	cfg, err := awsConfig(t.Context(), spec, awsKey{"id", "s3cret"})
	if err != nil {
		t.Fatal(err)
	}
	cfg.BaseEndpoint = aws.String(server.URL)
	_, _ = route53.NewFromConfig(cfg).ListHostedZones(t.Context(), nil) // the answer is empty
	if want := "app/perennial-" + version.Get(); !strings.Contains(agent, want) {
		t.Errorf("User-Agent %q, want %s in it", agent, want)
	}
}

func TestErrorsContainNothingThatAWSRepeatsOfARequest(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(
			w,
			"<ErrorResponse><Error><Type>Sender</Type><Code>SignatureDoesNotMatch</Code><Message>The signature does not "+
				"match.%s\n\n"+
				"The Canonical String for this request should have been\n'GET\n"+
				"x-amz-security-token:%s'</Message></Error></ErrorResponse>",
			strings.Repeat(" Check your key.", 100),
			r.Header.Get("X-Amz-Security-Token"),
		)
	}))
	defer server.Close()
	p := &recordSets[*route53Set]{api: &amazonRoute53{zone: "Z1", api: route53.New(route53.Options{
		BaseEndpoint: aws.String(
			server.URL,
		),
		Region:           awsRegion,
		RetryMaxAttempts: 1,
		Credentials:      awscredentials.NewStaticCredentialsProvider("id", "key", "s3cret"),
	})}}
	err := p.Present(t.Context(), Record{FQDN: "_acme-challenge.example.com.", Zone: "example.com.", Value: "v"})
	if fault.Of(err).Class != fault.Misconfigured || !strings.Contains(err.Error(), "SignatureDoesNotMatch: The "+
		"signature does not match.") ||
		strings.Contains(err.Error(), "s3cret") ||
		strings.Contains(err.Error(), "\n") ||
		len(err.Error()) > 2*maxProblem {
		t.Errorf("got %v", err)
	}
}

func TestABlankAtTheEndOfAnAccessKeyIDIsNotOfIt(t *testing.T) {
	c := &cmacme.ACMEIssuerDNS01ProviderRoute53{AccessKeyID: "AKIA\n", HostedZoneID: "/hostedzone/Z1",
		SecretAccessKey: secretRef("aws")}
	p, err := open(t, new(Factory), signer.KindIssuer, &spec{Route53: c}, "secret")
	if err != nil {
		t.Fatal(err)
	}
	service := p.(*recordSets[*route53Set]).api.(*amazonRoute53)
	got, err := service.api.Options().Credentials.Retrieve(t.Context())
	if err != nil || got.AccessKeyID != "AKIA" || got.SecretAccessKey != "secret" || service.zone != "Z1" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestRoute53SaysWhichCredentialsAreMissing(t *testing.T) {
	account := &cmacme.Route53Auth{Kubernetes: &cmacme.Route53KubernetesAuth{
		ServiceAccountRef: &cmacme.ServiceAccountRef{Name: "dns"},
	}}
	for name, test := range map[string]struct {
		spec cmacme.ACMEIssuerDNS01ProviderRoute53
		says string
	}{
		"a key without its secret":        {cmacme.ACMEIssuerDNS01ProviderRoute53{AccessKeyID: "AKIA"}, "set both, or none"},
		"a ServiceAccount without a role": {cmacme.ACMEIssuerDNS01ProviderRoute53{Auth: account}, "needs role"},
		"a key beside a ServiceAccount": {cmacme.ACMEIssuerDNS01ProviderRoute53{
			AccessKeyID: "AKIA", SecretAccessKey: secretRef("aws"), Role: "arn:aws:iam::1:role/r", Auth: account,
		}, "keep one of them"},
		"nothing, on an Issuer": {cmacme.ACMEIssuerDNS01ProviderRoute53{}, "--issuer-ambient-credentials"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &Factory{Ambient: Ambient{ClusterIssuers: true}}
			issuer := &signer.Issuer{
				GenericIssuer:   &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: "le"}},
				Kind:            signer.KindIssuer,
				SecretNamespace: "shop",
			}
			err := f.Check(issuer, &cmacme.ACMEChallengeSolverDNS01{Route53: &test.spec})
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestARegionIsNoPartOfAnotherHost(t *testing.T) {
	issuer := &signer.Issuer{GenericIssuer: &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: "le"}},
		Kind: signer.KindIssuer, SecretNamespace: "shop"}
	for region, ok := range map[string]bool{
		"": true, "us-east-1": true, "cn-northwest-1": true, "us-east-1.example.com": false, "a/@127.0.0.1:80/": false,
		"127.0.0.1#": false, "US EAST": false,
	} {
		c := cmacme.ACMEIssuerDNS01ProviderRoute53{Region: region, AccessKeyID: "AKIA",
			SecretAccessKey: secretRef("aws")}
		err := new(Factory).Check(issuer, &cmacme.ACMEChallengeSolverDNS01{Route53: &c})
		if ok != (err == nil) || err != nil && !strings.Contains(err.Error(), "is not a region of AWS") {
			t.Errorf("%q: %v", region, err)
		}
	}
}
