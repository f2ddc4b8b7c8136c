package acme

import (
	"strings"
	"testing"
	"time"
)

func TestRecords(t *testing.T) {
	// The example of draft-ietf-acme-dns-account-label.
	if got := DNSAccount01Name(
		"https://example.com/acme/acct/ExampleAccount",
		"*.example.org",
	); got != "_ujmmovf2vn55tgye._acme-challenge.example.org" {
		t.Error(got)
	}
	if got := DNS01Name("*.example.org"); got != "_acme-challenge.example.org" {
		t.Error(got)
	}
	if got := DNSPersist01Name("*.example.org"); got != "_validation-persist.example.org" {
		t.Error(got)
	}
	got := DNSPersist01{"ca.example", "https://ca.example/acct/1", true, time.Unix(1700000000, 0)}.String()
	if got != "ca.example; accounturi=https://ca.example/acct/1; policy=wildcard; persistUntil=1700000000" {
		t.Error(got)
	}
}

func TestWhatAPersistentRecordGrants(t *testing.T) {
	now := time.Unix(1700000000, 0)
	name, wildcard := DNSPersist01{
		IssuerDomainName: "ca.example",
		AccountURI:       "https://ca.example/acct/1",
	}, DNSPersist01{
		IssuerDomainName: "ca.example",
		AccountURI:       "https://ca.example/acct/1",
		Wildcard:         true,
	}
	for value, want := range map[string]string{ // to the name, the wildcard
		"ca.example; accounturi=https://ca.example/acct/1":                                       "name",
		"ca.example;accounturi=https://ca.example/acct/1":                                        "name",
		"\tca.example ;  AccountURI = https://ca.example/acct/1 ":                                "name",
		"ca.example; accounturi=https://ca.example/acct/1; policy=wildcard":                      "name wildcard",
		"ca.example; Policy=WildCard; accounturi=https://ca.example/acct/1":                      "name wildcard",
		"ca.example; accounturi=https://ca.example/acct/1; policy=other":                         "name",
		"ca.example; accounturi=https://ca.example/acct/1; more=1":                               "name",
		"ca.example; accounturi=https://ca.example/acct/1; persistUntil=1700000001":              "name",
		"ca.example; accounturi=https://ca.example/acct/1; persistUntil=1700000000":              "",
		"ca.example; accounturi=https://ca.example/acct/1; persistUntil=soon":                    "",
		"ca.example; accounturi=https://ca.example/acct/1; persistUntil=99999999999999999999":    "",
		"ca.example; accounturi=https://ca.example/acct/2":                                       "",
		"ca.example; accounturi=https://ca.example/ACCT/1":                                       "",
		"ca2.example; accounturi=https://ca.example/acct/1":                                      "",
		"ca.example; accounturi=https://ca.example/acct/1;":                                      "",
		"ca.example; accounturi=https://ca.example/acct/1; accounturi=https://ca.example/acct/1": "",
		"ca.example; accounturi=https://ca.example/a b":                                          "",
		"ca.example":                           "",
		"accounturi=https://ca.example/acct/1": "",
		"":                                     "",
		"ca.example; accounturi=https://ca.example/acct/1; long=" + strings.Repeat("x", maxPersist): "",
	} {
		var got []string
		if p, err := ParseDNSPersist01(value); err == nil {
			if p.Grants(name, now) {
				got = append(got, "name")
			}
			if p.Grants(wildcard, now) {
				got = append(got, "wildcard")
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q grants %q", value, got)
		}
	}
}

func TestAPersistentRecordOfNoOrTooManyNamesIsNotUsed(t *testing.T) {
	for names, want := range map[string]int{
		`"a.example"`: 1, `"a.example", "b.example"`: 2, ``: 0, `"not a name"`: 0, `"a.example;accounturi=x"`: 0,
		`"a"` + strings.Repeat(`, "a"`, 9): 10, `"a"` + strings.Repeat(`, "a"`, 10): 0,
	} {
		z, err := parseAuthorization(
			[]byte(`{"status": "pending", "identifier": {"type": "dns", "value": "example.org"}, "challenges": [
			{"type": "dns-persist-01", "url": "https://ca.example/1", "issuer-domain-names": [`+names+`]},
			{"type": "http-01", "url": "https://ca.example/2", "token": "abc"}]}`),
			origins{"https://ca.example:443"},
		)
		if err != nil || len(z.Challenges) != 2 || len(z.Challenges[0].IssuerDomainNames) != want {
			t.Errorf("%s: %+v, %v", names, z.Challenges, err)
		}
	}
}

func FuzzDNSPersist01(f *testing.F) {
	f.Add("ca.example; accounturi=https://ca.example/acct/1; policy=wildcard; persistUntil=1700000000")
	f.Add(";;==")
	f.Fuzz(func(t *testing.T, value string) {
		p, err := ParseDNSPersist01(value)
		if err != nil {
			return
		}
		if again, err := ParseDNSPersist01(p.String()); err == nil && again != p {
			t.Errorf("%+v becomes %+v", p, again)
		}
	})
}
