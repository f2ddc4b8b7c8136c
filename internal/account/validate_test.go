package account

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/perennial-pki/perennial/acme"
	"github.com/perennial-pki/perennial/internal/fault"
)

func TestAProfileMustBeOneOfTheDirectory(t *testing.T) {
	many := map[string]string{}
	for n := range 30 {
		many[fmt.Sprintf("p%02d-%s", n, strings.Repeat("x", 1000))] = ""
	}
	for name, test := range map[string]struct {
		listed map[string]string
		says   string
	}{
		"it is listed":               {map[string]string{"classic": "", "short": ""}, ""},
		"others are":                 {map[string]string{"tls": "", "classic": ""}, `Its directory lists "classic", "tls"`},
		"none is":                    {nil, "Its directory lists none: leave it out"},
		"only in another spelling":   {map[string]string{"Short": ""}, `Its directory lists "Short"`},
		"so many that not all stand": {many, "20 more"},
	} {
		t.Run(name, func(t *testing.T) {
			err := OfferedProfile("short", test.listed)
			if test.says == "" && err == nil {
				return
			}
			if test.says == "" || err == nil || !strings.Contains(err.Error(), test.says) || len(err.Error()) > 1000 {
				t.Fatalf("it says %v", err)
			}
			if f := fault.Of(err); f.Class != fault.Refused || f.Reason != "InvalidProfile" {
				t.Errorf("it is %s, %s", f.Class, f.Reason)
			}
		})
	}
}

func TestAServerMustBeAnHTTPSURL(t *testing.T) {
	for server, right := range map[string]bool{
		"https://acme-v02.api.letsencrypt.org/directory": true,
		"https://127.0.0.1:14000/dir":                    true,
		"https://[2001:db8::1]/dir?x=1":                  true,
		"HTTPS://ca.example/dir":                         true,
		"http://ca.example/dir":                          false,
		"ca.example/dir":                                 false,
		"ca.example":                                     false,
		"https:///dir":                                   false,
		"https://":                                       false,
		"https//ca.example/dir":                          false,
		" https://ca.example/dir":                        false,
		"https://ca.example/dir\n":                       false,
		"https://user:secret@ca.example/dir":             false,
		"":                                               false,
	} {
		err := checkServer(server)
		if (err == nil) != right {
			t.Errorf("%q: %v", server, err)
		}
		if err != nil && (fault.Of(err).Reason != "InvalidURL" || fault.Of(err).Class != fault.Misconfigured) {
			t.Errorf("%q: %+v", server, fault.Of(err))
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error shows a password: %v", err)
		}
	}
}

func TestWhatIsAnOutage(t *testing.T) {
	now := time.Now()
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"nothing is wrong": {nil, ""},
		"nothing listens": {
			&url.Error{Op: "Get", URL: "https://ca.example/dir", Err: errors.New("connection refused")}, "Unreachable"},
		"no whole reply":       {&acme.NoReply{Action: "newOrder", Err: errors.New("EOF")}, "Unreachable"},
		"the CA is in trouble": {&acme.Problem{Status: 502}, "Unreachable"},
		"the CA is busy":       {&acme.Problem{Status: 503, RetryAfter: now.Add(time.Minute)}, "Unreachable"},
		"a limit":              {&acme.Problem{Status: 429, Type: acme.ProblemRateLimited}, "RateLimited"},
		"a refusal":            {&acme.Problem{Status: 403, Type: acme.ProblemUnauthorized}, ""},
		"a page to visit":      {&acme.Problem{Status: 403, Type: acme.ProblemUserActionRequired}, ""},
		"no ACME server":       {&acme.ProtocolError{Action: "directory", URL: "https://ca.example", Reason: "not JSON"}, ""},
		"the Kubernetes API refuses": {
			fmt.Errorf("store: %w", apierrors.NewForbidden(corev1.Resource("secrets"), "account", nil)), ""},
		"a wrong setting": {fault.Misconfiguredf("InvalidConfig", "wrong"), ""},
	} {
		if got := UnreachableReason(Classify("", now, test.err)); got != test.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestAnErrorOfTheNetworkSaysWhatWasTriedAndWhatToDo(t *testing.T) {
	get := func(err error) error {
		return fmt.Errorf("newAccount: directory: %w", &url.Error{Op: "Get", URL: "https://ca.example/dir", Err: err})
	}
	for want, err := range map[string]error{
		"Get https://ca.example/dir: lookup ca.example: no such host: correct spec.acme.server": get(&net.DNSError{
			Err: "no such host", Name: "ca.example", IsNotFound: true}),
		"Get https://ca.example/dir: connection refused: see whether the controller can connect there": get(
			errors.New("connection refused")),
		"put that into spec.acme.caBundle":             get(x509.UnknownAuthorityError{}),
		"or the controller's clock":                    get(x509.CertificateInvalidError{Reason: x509.Expired}),
		"newOrder: the reply is not what it should be": errors.New("newOrder: the reply is not what it should be"),
	} {
		got := Classify("", time.Now(), err).Error()
		if !strings.Contains(got, want) || strings.Count(got, "ca.example") > 2 || !errors.Is(Classify("", time.Now(), err),
			err) {
			t.Errorf("it says %s", got)
		}
	}
}

func TestSomethingElseThanADirectorySaysWhatToCorrect(t *testing.T) {
	for name, err := range map[string]error{
		"nothing is there":  &acme.Problem{Action: "directory", Status: 404},
		"a page is there":   &acme.ProtocolError{Action: "directory", URL: "https://ca.example.com/", Reason: "it is no JSON"},
		"before an account": fmt.Errorf("newAccount: %w", &acme.Problem{Action: "directory", Status: 403}),
	} {
		if got := Classify(
			"x",
			time.Now(),
			err,
		); !strings.HasSuffix(
			got.Error(),
			": correct spec.acme.server, which must be the URL of the CA's directory",
		) {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got := Classify(
		"x",
		time.Now(),
		&acme.Problem{Action: "newOrder", Status: 403},
	); strings.Contains(
		got.Error(),
		"spec.acme.server",
	) {
		t.Errorf("a refused order: %v", got)
	}
}
