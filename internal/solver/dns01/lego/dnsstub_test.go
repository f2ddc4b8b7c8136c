package lego

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-acme/lego/v5/challenge/dns01"

	"github.com/perennial-pki/perennial/acme"
	"github.com/perennial-pki/perennial/internal/solver"
)

func TestLegoFindsWhatTheSolverFound(t *testing.T) {
	f, err := startDNSStub()
	if err != nil {
		t.Fatal(err)
	}
	look := func(ctx context.Context, domain string) (string, string) {
		info := dns01.GetChallengeInfo(ctx, domain, "key")
		zone, err := dns01.DefaultClient().FindZoneByFqdn(ctx, info.EffectiveFQDN)
		if err != nil {
			return info.EffectiveFQDN, err.Error()
		}
		return info.EffectiveFQDN, zone
	}
	t.Setenv("LEGO_DISABLE_CNAME_SUPPORT", "") // that startDNSStub took away is not for this test alone
	for what, x := range map[string]finding{
		"the record is at the name itself": {"_acme-challenge.www.example.com.", "_acme-challenge.www.example.com.", "example.com."},
		"a CNAME is followed":              {"_acme-challenge.www.example.com.", "www.challenges.example.net.", "challenges.example.net."},
		"the zone is below another":        {"_acme-challenge.www.example.com.", "_acme-challenge.www.example.com.", "www.example.com."},
	} {
		t.Run(what, func(t *testing.T) {
			if name, zone := look(f.with(t.Context(), x), "www.example.com"); name != x.effective || zone != x.zone {
				t.Errorf("lego found %s in %s", name, zone)
			}
		})
	}
	// Without a finding no server gets a query.
	if name, zone := look(
		t.Context(),
		"www.example.com",
	); name != "_acme-challenge.www.example.com." ||
		!strings.Contains(zone, "start of authority") {
		t.Errorf("lego found %s in %s", name, zone)
	}
}

// hanging is a service that does not answer before the end of the test. asked receives its
// requests.
func hanging(asked chan<- string, end <-chan struct{}) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case asked <- r.URL.Path:
		default:
		}
		<-end
		w.WriteHeader(http.StatusServiceUnavailable)
	})
}

func TestASlowLookupOfANameBlocksNoOtherCall(t *testing.T) {
	ours := record("www.example.com", "ours")
	for what, theirs := range map[string]Record{
		"a zone of their own making at a name below":  {FQDN: "_acme-challenge.a.www.example.com.", Zone: "www.example.com.", Domain: "a.www.example.com"},
		"a zone of their own making at the same name": {FQDN: ours.FQDN, Zone: "www.example.com.", Domain: ours.Domain},
		"a zone above":                     {FQDN: ours.FQDN, Zone: "com.", Domain: ours.Domain},
		"a CNAME at the same name":         {FQDN: "www.challenges.example.net.", Zone: "example.net.", Domain: ours.Domain},
		"the same zone, under our name":    {FQDN: ours.FQDN, Zone: ours.Zone, Domain: ours.Domain},
		"our name as the zone of a record": {FQDN: ours.FQDN, Zone: ours.FQDN, Domain: ours.Domain},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			theirs.Token, theirs.KeyAuthorization = "theirs", "theirs.thumbprint"
			theirs.Value = acme.DNS01Value(theirs.KeyAuthorization)
			asked, end := make(chan string, 1), make(chan struct{})
			z := newZone()
			secret := map[string]string{"authToken": "good-token"}
			tenant := standIn(t, "vercel", secret, hanging(asked, end))()
			t.Cleanup(func() { // before the service of the tenant is closed
				close(end)
				if err := finish(t, tenant.Present, theirs); err == nil {
					t.Error("the call that hung has made the record")
				}
			})
			begun := tenant.Present(t.Context(), theirs)
			if later := new(solver.RetryLaterError); !errors.As(begun, &later) {
				t.Fatalf("it does not hang: %v", begun)
			}
			if at, want := <-asked, "/v2/domains/"+strings.TrimSuffix(theirs.Zone, ".")+"/records"; at != want {
				t.Errorf("the tenant's service was asked for %s, not %s", at, want)
			}
			mustFinish(t, standIn(t, "vercel", secret, vercelAPI(z))().Present, ours)
			if got := z.all(); !slices.Equal(got, []string{ours.Value}) {
				t.Errorf("there is %q", got)
			}
		})
	}
}

func TestConcurrentCallsGetTheirOwnAnswers(t *testing.T) {
	f, err := startDNSStub()
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for i := range 8 {
		x := finding{"_acme-challenge.www.example.com.", "_acme-challenge.www.example.com.", "example.com."}
		switch i % 4 {
		case 1:
			x.zone = "www.example.com."
		case 2:
			x.effective, x.zone = "www.challenges.example.net.", "challenges.example.net."
		case 3:
			x.effective, x.zone = "www.challenges.example.net.", "example.net."
		}
		group.Go(func() {
			ctx := f.with(t.Context(), x)
			for range 50 {
				name := dns01.GetChallengeInfo(ctx, "www.example.com", "key").EffectiveFQDN
				if zone, err := dns01.DefaultClient().
					FindZoneByFqdn(ctx, name); err != nil || name != x.effective ||
					zone != x.zone {
					t.Errorf("for %+v lego found %s in %s, %v", x, name, zone, err)
				}
			}
		})
	}
	group.Wait()
}

func TestACallThatEndsBeforeItAsksBlocksNoOtherCall(t *testing.T) {
	f, err := startDNSStub()
	if err != nil {
		t.Fatal(err)
	}
	x := finding{"_acme-challenge.www.example.com.", "_acme-challenge.www.example.com.", "example.com."}
	for what, hangUp := range map[string]func(t *testing.T){
		"as it is over": func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			over := httptrace.WithClientTrace(f.with(ctx, finding{zone: "example.net."}),
				&httptrace.ClientTrace{ConnectStart: func(string, string) { cancel() }})
			if _, err := new(net.Dialer).DialContext(over, "udp", f.at); !errors.Is(err, context.Canceled) {
				t.Errorf("it connects: %v", err)
			}
		},
		"after it has connected": func(t *testing.T) {
			conn, err := new(net.Dialer).DialContext(f.with(t.Context(), finding{zone: "example.net."}), "udp", f.at)
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
		},
	} {
		t.Run(what, func(t *testing.T) {
			hangUp(t)
			if zone, err := dns01.DefaultClient().
				FindZoneByFqdn(f.with(t.Context(), x), x.effective); err != nil ||
				zone != x.zone {
				t.Errorf("lego found %s, %v", zone, err)
			}
		})
	}
}
