package lego

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/perennial-pki/perennial/internal/fault"
)

func TestSettings(t *testing.T) {
	for what, test := range map[string]struct {
		name, config string
		secret       map[string]string
		says         string
	}{
		"a provider that is not there":           {name: "unknown", says: `there is no provider "unknown": docs/dns-providers.md lists all`},
		"one that Perennial has itself":          {name: "route53", says: `for "route53" use dns01.route53`},
		"a setting that is not there":            {name: "hetzner", config: `{"apiTokn": "x"}`, says: `dns01.provider.config: provider hetzner has no setting "apiTokn": it has apiKey (in the Secret), apiToken (in the Secret), ttl`},
		"an entry of the Secret that is not one": {name: "hetzner", secret: map[string]string{"token": "x"}, says: `the Secret of dns01.provider.secretRef: provider hetzner has no setting "token"`},
		"a secret in the issuer":                 {name: "hetzner", config: `{"apiToken": "s3cret"}`, says: `apiToken is secret: put it into a Secret`},
		"a setting twice":                        {name: "hetzner", config: `{"ttl": 60}`, secret: map[string]string{"ttl": "60"}, says: "ttl is in dns01.provider.config, too"},
		"no object": {name: "hetzner", config: `["ttl"]`, says: "dns01.provider.config is " +
			"no object of settings"},
		"an object in it": {name: "hetzner", config: `{"ttl": {}}`, says: "ttl must be a string, " +
			"a number, true or false"},
		"a number that is none": {name: "hetzner", config: `{"ttl": "soon"}`, says: "ttl must be a number"},
		"a flag that is none":   {name: "efficientip", config: `{"insecureSkipVerify": "yes"}`, says: "insecureSkipVerify must be true or false"},
		"a URL that is none": {name: "pdns", config: `{"host": "ns1.example.com"}`, says: "host must be a URL that " +
			"begins with http:// or https://"},
		"pairs that are none":  {name: "hurricane", secret: map[string]string{"credentials": "example.com"}, says: "credentials must have the form name:value,name:value"},
		"a host elsewhere":     {name: "otc", config: `{"identityEndpoint": "https://169.254.169.254/"}`, says: "of a host in otc.t-systems.com"},
		"too long":             {name: "hetzner", secret: map[string]string{"apiToken": strings.Repeat("x", maxSetting+1)}, says: "apiToken is longer than"},
		"a key that is none":   {name: "regru", config: `{"username": "a"}`, secret: map[string]string{"password": "b", "tlsCert": "c", "tlsKey": "d"}, says: "tlsCert: decode certificate chain: no PEM block found"},
		"exec in a cluster":    {name: "exec", config: `{"program": "/bin/true"}`, says: `"exec" can only be used with perenniald`},
		"manual in a cluster":  {name: "manual", says: `"manual" can only be used with perenniald`},
		"httpreq in a cluster": {name: "httpreq", config: `{"endpoint": "http://127.0.0.1"}`, says: `"httpreq" can only be used with perenniald`},
	} {
		t.Run(what, func(t *testing.T) {
			secret := map[string][]byte{}
			for k, v := range test.secret {
				secret[k] = []byte(v)
			}
			_, err := New(test.name, []byte(test.config), secret, Tenant, time.Now)
			if err == nil || !strings.Contains(err.Error(), test.says) || fault.Of(err).Class != fault.Misconfigured {
				t.Errorf("it says %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Error("the message has a secret")
			}
		})
	}
}

func TestWrongSettingsAreReportedWithoutTheSecret(t *testing.T) {
	for what, test := range map[string]struct {
		name, config string
		secret       bool
		by           Author
		says         string
	}{
		"all is there":                  {name: "hetzner", config: `{"ttl": 60}`, secret: true},
		"no Secret where one is needed": {name: "gandiv5", secret: true},
		"a name that there is not":      {name: "hetzer", secret: true, says: `there is no provider "hetzer"`},
		"a setting that there is not":   {name: "hetzner", config: `{"token": "x"}`, secret: true, says: `provider hetzner has no setting "token": it has`},
		"a setting of another form":     {name: "hetzner", config: `{"ttl": "long"}`, secret: true, says: "ttl must be a number"},
		"a secret in the issuer":        {name: "hetzner", config: `{"apiToken": "x"}`, says: "apiToken is secret"},
		"a Secret is needed": {name: "abion", says: "dns01.provider.secretRef: provider abion needs " +
			"apiKey: put it into a Secret"},
		"a setting is needed, and a Secret": {name: "artfiles", says: "dns01.provider.config: provider artfiles needs " +
			"username"},
		"what may be in the Secret":  {name: "artfiles", secret: true},
		"a program in a cluster":     {name: "exec", config: `{"program": "/bin/true"}`, by: Admin, says: "only be used with perenniald"},
		"a program":                  {name: "exec", config: `{"program": "/bin/true"}`, by: Owner},
		"a program without its path": {name: "exec", by: Owner, says: "exec needs program"},
		"nothing is needed":          {name: "manual", by: Owner},
		"what Perennial has itself":  {name: "route53", says: `for "route53" use dns01.route53`},
		"what cannot be used":        {name: "plesk", says: `"plesk" cannot be used`},
	} {
		err := Check(test.name, []byte(test.config), nil, !test.secret, test.by)
		if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestCredentialsThatAreMissingAreNamed(t *testing.T) {
	p, err := New("hetzner", nil, nil, Tenant, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	err = finish(t, p.Present, record("www.example.com", "token"))
	if fault.Of(err).Class != fault.Misconfigured || !strings.Contains(err.Error(), "credentials missing") ||
		!strings.Contains(err.Error(), "apiToken (in the Secret)") {
		t.Errorf("it says %v", err)
	}
}

func FuzzSettings(f *testing.F) {
	f.Add("hetzner", []byte(`{"ttl": 60}`), []byte("s3cret"))
	f.Add("hurricane", []byte(`{}`), []byte("a:b,c:d"))
	f.Add("selfhostdev2", []byte(`{"recordsMapping": "a:1:2"}`), []byte("a:b"))
	f.Fuzz(func(t *testing.T, name string, config, secret []byte) {
		k, err := find(name)
		if err != nil {
			return
		}
		entries := map[string][]byte{}
		for _, s := range k.settings {
			if s.secret {
				entries[s.name] = secret
			}
		}
		v, err := k.read(config, entries)
		if err != nil {
			return
		}
		for _, s := range k.settings {
			if err := s.check(v[s.name]); v[s.name] != "" && err != nil {
				t.Errorf("%s: %v", s.name, err)
			}
		}
		if k.make != nil {
			switch name { // these ask their service
			case "namecheap", "rackspace":
				return
			}
			_, _ = k.make(v, &http.Client{Transport: unreachable{}})
		}
	})
}
