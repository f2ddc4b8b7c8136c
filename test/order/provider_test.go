package order_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/pebble"
)

// powerDNS is the API of a PowerDNS server in front of the rig's DNS server.
type powerDNS struct {
	names *dnsserver.Server
	key   string
	// keeps makes it say that it has removed what it has not.
	keeps bool

	mu sync.Mutex
	// changed are names that were changed.
	changed []string
}

type rrset struct {
	Name       string   `json:"name"`
	Type       string   `json:"type"`
	TTL        int      `json:"ttl"`
	ChangeType string   `json:"changetype,omitempty"`
	Records    []record `json:"records"`
}

type record struct {
	Content  string `json:"content"`
	Disabled bool   `json:"disabled"`
}

func (p *powerDNS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	reply := func(v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case r.Header.Get("X-API-Key") != p.key:
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, "Unauthorized")
	case r.URL.Path == "/api":
		reply([]map[string]any{{"url": "/api/v1", "version": 1}})
	case r.URL.Path == "/api/v1/servers/localhost/zones/example.com./notify":
		reply(map[string]string{"result": "Notification queued"})
	case r.URL.Path != "/api/v1/servers/localhost/zones/example.com.":
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodGet:
		sets := []rrset{}
		for _, name := range append([]string{"_acme-challenge.example.com."}, p.changed...) {
			s := rrset{Name: name, Type: "TXT", TTL: 60}
			for _, v := range p.names.TXT(name) {
				s.Records = append(s.Records, record{Content: `"` + v + `"`})
			}
			if len(s.Records) > 0 {
				sets = append(sets, s)
			}
		}
		reply(
			map[string]any{
				"id":     "example.com.",
				"name":   "example.com.",
				"url":    "/api/v1/servers/localhost/zones/example.com.",
				"kind":   "Master",
				"rrsets": sets,
			},
		)
	case r.Method == http.MethodPatch:
		var change struct {
			Sets []rrset `json:"rrsets"`
		}
		if err := json.NewDecoder(r.Body).Decode(&change); err != nil {
			w.WriteHeader(http.StatusUnprocessableEntity)
			return
		}
		for _, s := range change.Sets {
			var values []string
			for _, v := range s.Records {
				values = append(values, strings.Trim(v.Content, `"`))
			}
			if s.ChangeType == "DELETE" {
				values = nil
			}
			if len(values) >= len(p.names.TXT(s.Name)) || !p.keeps {
				p.names.SetTXT(s.Name, values...)
				p.changed = slices.Compact(append(p.changed, s.Name))
			}
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

func (r *rig) powerDNS(key string) (*powerDNS, string) {
	r.t.Helper()
	api := &powerDNS{names: r.names, key: key}
	server := httptest.NewServer(api)
	r.t.Cleanup(server.Close)
	return api, server.URL
}

func ownMachine(o *controller.Options) { o.OwnMachine = true }

// byProvider makes the issuer solve DNS-01 challenges by a provider of lego.
func (r *rig) byProvider(name, config string) func(*cmacme.ACMEIssuer) {
	return func(spec *cmacme.ACMEIssuer) {
		p := &cmacme.ACMEIssuerDNS01ProviderLego{Name: name}
		if config != "" {
			p.Config = &apiextensionsv1.JSON{Raw: []byte(config)}
		}
		spec.Solvers = []cmacme.ACMEChallengeSolver{
			{DNS01: &cmacme.ACMEChallengeSolverDNS01{Nameservers: []string{r.names.Addr}, Provider: p}},
		}
	}
}

// events returns the messages of the namespace's events with a reason.
func (r *rig) events(reason string) []string { return r.eventsOf("", reason) }

// eventsOf returns the messages of the events of a kind, or of any if it is empty, with a reason.
func (r *rig) eventsOf(kind, reason string) []string {
	r.t.Helper()
	var list corev1.EventList
	if err := r.admin.List(r.t.Context(), &list, client.InNamespace(r.namespace)); err != nil {
		r.t.Fatal(err)
	}
	var all []string
	for _, e := range list.Items {
		if e.Reason == reason && (kind == "" || e.InvolvedObject.Kind == kind) {
			all = append(all, e.Message)
		}
	}
	return all
}

func (r *rig) eventually(what string, says func() bool) {
	r.t.Helper()
	cluster.Eventually(r.t, func() error {
		if !says() {
			return cluster.NotYet("%s:\n%s", what, r.story())
		}
		return nil
	})
}

func (r *rig) noChallenges() bool {
	var list cmacme.ChallengeList
	return r.admin.List(r.t.Context(), &list, client.InNamespace(r.namespace)) == nil && len(list.Items) == 0
}

func TestTheExampleOfAProviderIssuesAndForeignRecordsStay(t *testing.T) {
	const name = "_acme-challenge.example.com"
	r := start(t, pebble.Options{}, ownMachine) // the server of the test is on this machine
	r.names.AddTXT(name, "another client's")
	_, address := r.powerDNS("good-key")
	crt := r.example("dns-provider/issuer.yaml", "${API_KEY}", "good-key", "http://ns1.example.com:8081", address)
	r.ready(crt)
	r.eventually(
		"the zone is as it was",
		func() bool { return slices.Equal(r.names.TXT(name), []string{"another client's"}) },
	)
	r.eventually("the Challenges are gone", r.noChallenges)
	for _, e := range append(r.events("CleanUpError"), r.events("PresentError")...) {
		t.Errorf("an event says %s", e)
	}
}

// TestSolversThatLeadToOneRecordChangeItOneAfterTheOther uses an Issuer and a ClusterIssuer with
// different accounts and settings, at a service that replaces whole record sets, so that concurrent
// changes would be lost.
func TestSolversThatLeadToOneRecordChangeItOneAfterTheOther(t *testing.T) {
	r := start(t, pebble.Options{}, ownMachine)
	api := &powerDNS{names: r.names, key: "good-key"}
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		reply := httptest.NewRecorder()
		api.ServeHTTP(reply, q)
		if q.Method == http.MethodGet {
			time.Sleep(300 * time.Millisecond) // what was read is old when it is used
		}
		maps.Copy(w.Header(), reply.Header())
		w.WriteHeader(reply.Code)
		_, _ = w.Write(reply.Body.Bytes())
	}))
	t.Cleanup(service.Close)
	r.names.AddTXT("_acme-challenge.example.com", "of another tool")
	for _, namespace := range []string{r.namespace, "kube-system"} {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: r.namespace},
			StringData: map[string]string{"apiKey": "good-key"}}
		if err := r.admin.Create(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.admin.Delete(context.Background(), secret) })
	}
	spec := func(account, config string) cmapi.IssuerSpec {
		s := &cmacme.ACMEIssuer{
			Server: r.ca.Directory, CABundle: r.ca.CABundle,
			PrivateKey: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: r.namespace + account}},
		}
		r.byProvider("pdns", config)(s)
		s.Solvers[0].DNS01.Provider.SecretRef = &cmmeta.LocalObjectReference{Name: r.namespace}
		return cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{ACME: s}}
	}
	wide := &cmapi.ClusterIssuer{ObjectMeta: metav1.ObjectMeta{Name: r.namespace},
		Spec: spec("-c", fmt.Sprintf(`{"host": %q}`, service.URL))}
	if err := r.admin.Create(t.Context(), wide); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.admin.Delete(context.Background(), wide) })
	r.create(&cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: "slash"},
		Spec: spec("-s", fmt.Sprintf(`{"host": %q}`, service.URL+"/"))})
	r.create(&cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: "ttl"},
		Spec: spec("-t", fmt.Sprintf(`{"host": %q, "ttl": 60}`, service.URL))})
	var all []*cmapi.Certificate
	for _, ref := range []cmmeta.IssuerReference{{Name: r.namespace, Kind: "ClusterIssuer"}, {Name: "slash"},
		{Name: "ttl"}} {
		crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: ref.Name}, Spec: cmapi.CertificateSpec{
			SecretName: ref.Name + "-tls", DNSNames: []string{"example.com", "*.example.com"}, IssuerRef: ref,
		}}
		r.create(crt)
		all = append(all, crt)
	}
	for _, crt := range all {
		r.ready(crt)
	}
	r.eventually("the Challenges are gone", r.noChallenges)
	if got := r.names.TXT("_acme-challenge.example.com"); !slices.Equal(got, []string{"of another tool"}) {
		t.Errorf("the zone has %q", got)
	}
	for _, reason := range []string{"PresentedAgain", "CleanUpError", "PresentError"} {
		for _, e := range r.events(reason) {
			t.Errorf("an event says %s: %s", reason, e)
		}
	}
	for _, crt := range all {
		if got := r.ordersOf(crt.Name); len(got) != 1 {
			t.Errorf("%s has %d Orders", crt.Name, len(got))
		}
	}
}

func TestARecordThatAProviderLeavesIsNamedInAnEvent(t *testing.T) {
	clock := &cluster.Clock{}
	r := start(t, pebble.Options{}, ownMachine, func(o *controller.Options) { o.Clock = clock })
	api, address := r.powerDNS("good-key")
	api.keeps = true
	r.create(
		&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: "powerdns"},
			StringData: map[string]string{"apiKey": "good-key", "host": address},
		},
	)
	r.issuer(r.byProvider("pdns", ""), func(spec *cmacme.ACMEIssuer) {
		spec.Solvers[0].DNS01.Provider.SecretRef = &cmmeta.LocalObjectReference{Name: "powerdns"}
	})
	r.ready(r.certificate("site", "example.com"))
	var value string
	r.eventually("the Challenge is being deleted", func() bool {
		var list cmacme.ChallengeList
		if r.admin.List(t.Context(), &list, client.InNamespace(r.namespace)) != nil || len(list.Items) != 1 {
			return false
		}
		value = list.Items[0].Spec.Key
		return list.Items[0].DeletionTimestamp != nil
	})
	clock.Step(11 * time.Minute) // longer than the retries last, if there was a first attempt
	r.eventually("an event names the record", func() bool {
		clock.Step(10 * time.Second)
		return slices.ContainsFunc(r.events("CleanUpError"), func(e string) bool {
			return strings.Contains(e, "_acme-challenge.example.com") && strings.Contains(e, value) &&
				strings.Contains(e, "although pdns was asked to remove it")
		})
	})
	r.eventually("the Challenge is gone", r.noChallenges)
}

func TestARecordIsMadeByHand(t *testing.T) {
	const name = "_acme-challenge.example.com"
	r := start(t, pebble.Options{}, ownMachine)
	r.issuer(r.byProvider("manual", ""))
	crt := r.certificate("site", "example.com")
	var value string
	r.eventually("an event says which record to create", func() bool {
		for _, e := range r.events("ActionRequired") {
			if _, rest, found := strings.Cut(e, "create the TXT record "+name+` with the value "`); found {
				value, _, _ = strings.Cut(rest, `"`)
			}
		}
		return value != ""
	})
	if story := r.story(); !strings.Contains(story, value) {
		t.Errorf("the Challenge does not say it:\n%s", story)
	}
	r.names.AddTXT(name, value)
	r.ready(crt)
	r.eventually("an event says that it can be removed", func() bool {
		return slices.ContainsFunc(r.events("ActionRequired"), func(e string) bool {
			return strings.Contains(e, "is over: remove the TXT record "+name) && strings.Contains(e, value)
		})
	})
	r.names.SetTXT(name)
	r.eventually("the Challenge is gone", r.noChallenges)
}

func TestTheChallengeReportsAProviderFault(t *testing.T) {
	r := start(t, pebble.Options{})
	_, address := r.powerDNS("good-key")
	r.issuer()
	half := func(spec *cmacme.ACMEIssuer) {
		half := &cmacme.ACMEIssuerDNS01ProviderRoute53{
			SecretAccessKey: cmmeta.SecretKeySelector{
				LocalObjectReference: cmmeta.LocalObjectReference{Name: "not-there"},
				Key:                  "key",
			},
		}
		spec.Solvers = []cmacme.ACMEChallengeSolver{
			{DNS01: &cmacme.ACMEChallengeSolverDNS01{Nameservers: []string{r.names.Addr}, Route53: half}},
		}
	}
	for name, test := range map[string]struct {
		solver       func(*cmacme.ACMEIssuer)
		says, issuer string
	}{
		"program": {r.byProvider("exec", `{"program": "/bin/true"}`), `"exec" can only be used with perenniald`, `"exec" can only be used with perenniald`},
		"setting": {r.byProvider("hetzner", `{"token": "x"}`), `provider hetzner has no setting "token": it has`, `provider hetzner has no setting "token": it has`},
		"name":    {r.byProvider("hetzer", ""), `there is no provider "hetzer": docs/dns-providers.md lists all`, `there is no provider "hetzer"`},
		"local":   {r.byProvider("technitium", fmt.Sprintf(`{"baseURL": %q}`, address)), "needs apiToken", "provider technitium needs apiToken: put it into a Secret"},
		"half": {half, "an access key ID or a secret access key, but not both", "dns01.route53 has an access key ID " +
			"or a secret access key, but not both: set both, or none"},
	} {
		issuer := &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: name}}
		issuer.Spec.ACME = &cmacme.ACMEIssuer{Server: r.ca.Directory, CABundle: r.ca.CABundle,
			PrivateKey: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: name}}}
		test.solver(issuer.Spec.ACME)
		// Another solver can be used, for other names.
		others := cmacme.ACMEChallengeSolver{
			Selector: &cmacme.CertificateDNSNameSelector{DNSNames: []string{"others.example.com"}},
			HTTP01:   &cmacme.ACMEChallengeSolverHTTP01{Ingress: &cmacme.ACMEChallengeSolverHTTP01Ingress{}},
		}
		issuer.Spec.ACME.Solvers = append(issuer.Spec.ACME.Solvers, others)
		r.create(issuer)
		crt := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: cmapi.CertificateSpec{
			SecretName: name, DNSNames: []string{name + ".example.com"}, IssuerRef: cmmeta.IssuerReference{Name: name},
		}}
		r.create(crt)
		r.eventually(test.says, func() bool { return strings.Contains(r.story(), test.says) })
		r.eventually("the Challenge is pending", func() bool {
			return strings.Contains(r.story(), `: "pending" `+test.says) || strings.Contains(r.story(), `: "pending" dns01`)
		})
		// The issuer also reports errors that are visible without credentials, as soon as it exists.
		r.eventually("the issuer "+name+" says so", func() bool {
			if r.admin.Get(t.Context(), client.ObjectKeyFromObject(issuer), issuer) != nil {
				return false
			}
			c := cmapi.GetIssuerCondition(&issuer.Status, cmapi.IssuerConditionSolversValid)
			ready := cmapi.GetIssuerCondition(&issuer.Status, cmapi.IssuerConditionReady)
			return ready != nil && ready.Status == cmmeta.ConditionTrue && c != nil && c.Status == cmmeta.ConditionFalse &&
				strings.Contains(c.Message, "spec.acme.solvers[0]: ") &&
				strings.Contains(c.Message, test.issuer) &&
				slices.ContainsFunc(r.events("InvalidSolver"), func(e string) bool { return e == c.Message })
		})
		// And no longer when it is mended.
		issuer.Spec.ACME.Solvers = []cmacme.ACMEChallengeSolver{others}
		if err := r.admin.Update(t.Context(), issuer); err != nil {
			t.Fatal(err)
		}
		r.eventually("the issuer "+name+" is silent", func() bool {
			return r.admin.Get(t.Context(), client.ObjectKeyFromObject(issuer), issuer) == nil &&
				cmapi.GetIssuerCondition(&issuer.Status, cmapi.IssuerConditionSolversValid) == nil
		})
	}
}

// program is a program for the provider exec that passes requests to a service. The service keeps
// one value for a name.
func (r *rig) program() string {
	return r.programOf(func(verb, name, value string) bool {
		if verb == "present" {
			r.names.SetTXT(name, value)
		} else {
			r.names.SetTXT(name)
		}
		return true
	})
}

// programOf is program for a service that a test controls.
func (r *rig) programOf(do func(verb, name, value string) bool) string {
	r.t.Helper()
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if !do(request.FormValue("verb"), request.FormValue("name"), request.FormValue("value")) {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	r.t.Cleanup(service.Close)
	path := filepath.Join(r.t.TempDir(), "program")
	script := fmt.Sprintf(
		"#!/bin/bash\nexec 3<>/dev/tcp/%s\nprintf 'GET /?verb=%%s&name=%%s&value=%%s HTTP/1.0\\r\\n\\r\\n' \"$@\" >&3\n"+
			"grep -q ' 200 ' <&3\n",
		strings.Replace(service.Listener.Addr().String(), ":", "/", 1),
	)
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		r.t.Fatal(err)
	}
	return path
}

func TestAValueThatAProviderWouldRemoveIsWaitedForAndThenNamed(t *testing.T) {
	clock := &cluster.Clock{}
	r := start(t, pebble.Options{}, ownMachine, func(o *controller.Options) { o.Clock = clock })
	const busy, odd = "_acme-challenge.busy.example.com", "_acme-challenge.odd.example.com"
	theirs := acme.DNS01Value("another client's")
	r.names.AddTXT(busy, theirs)
	r.names.AddTXT(odd, "a note")
	r.issuer(r.byProvider("exec", fmt.Sprintf(`{"program": %q}`, r.program())))

	// What is no challenge's is named before it is lost.
	r.ready(r.certificate("odd", "odd.example.com"))
	if got := r.events("ForeignRecords"); len(got) != 1 ||
		!strings.Contains(got[0], `at `+odd+` there is "a note" that Perennial did not make`) {
		t.Errorf("the events are %q", got)
	}

	// What may be one is let be, and a Challenge that is given up meanwhile takes nothing away.
	waits := func() bool {
		return strings.Contains(r.story(), "another ACME client may be at work at "+busy) &&
			strings.Contains(r.story(), theirs)
	}
	given := r.certificate("given-up", "busy.example.com")
	r.eventually("the Challenge waits", waits)
	if err := r.admin.Delete(t.Context(), given); err != nil {
		t.Fatal(err)
	}
	r.eventually("the Challenge is gone", r.noChallenges)
	crt := r.certificate("busy", "busy.example.com")
	r.eventually("the Challenge waits", waits)
	if got := r.names.TXT(busy); !slices.Equal(got, []string{theirs}) {
		t.Fatalf("the zone has %q", got)
	}
	r.names.SetTXT(busy) // the other client ends
	r.ready(crt)

	// But not for ever.
	r.eventually("the Challenges are gone", r.noChallenges)
	r.names.SetTXT(busy, theirs)
	crt = r.certificate("again", "busy.example.com", "www.busy.example.com")
	r.eventually("the Challenge waits", waits)
	clock.Step(6 * time.Minute)
	r.ready(crt)
}

// silent is a server that accepts UDP and TCP and never answers. heard reports whether it received
// a request.
func silent(t *testing.T) (address string, heard func() bool) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	var asked atomic.Bool
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			asked.Store(true)
			t.Cleanup(func() { conn.Close() })
		}
	}()
	if conn, err := net.ListenPacket("udp", listener.Addr().String()); err == nil { // else closed
		t.Cleanup(func() { conn.Close() })
		go func() {
			for {
				if _, _, err := conn.ReadFrom(make([]byte, 512)); err != nil {
					return
				}
				asked.Store(true)
			}
		}()
	}
	return listener.Addr().String(), asked.Load
}

func TestADNSServerOrServiceThatNeverAnswersKeepsNoOtherProviderWaiting(t *testing.T) {
	r := start(t, pebble.Options{}, ownMachine)
	_, address := r.powerDNS("good-key")
	deadNames, namesAsked := silent(t)
	deadAPI, apiAsked := silent(t)
	by := func(issuer, nameserver, host string) {
		t.Helper()
		r.create(
			&corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Name: issuer},
				StringData: map[string]string{"apiKey": "good-key", "host": host},
			},
		)
		o := &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: issuer}}
		o.Spec.ACME = &cmacme.ACMEIssuer{Server: r.ca.Directory, CABundle: r.ca.CABundle,
			PrivateKey: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: issuer + "-account"}}}
		r.byProvider("pdns", "")(o.Spec.ACME)
		o.Spec.ACME.Solvers[0].DNS01.Nameservers = []string{nameserver}
		o.Spec.ACME.Solvers[0].DNS01.Provider.SecretRef = &cmmeta.LocalObjectReference{Name: issuer}
		r.create(o)
	}
	by("dead-names", deadNames, address)
	by("dead-api", r.names.Addr, "http://"+deadAPI)
	by("live", r.names.Addr, address)
	certificate := func(issuer string, n int) *cmapi.Certificate {
		crt := &cmapi.Certificate{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", issuer, n)},
			Spec: cmapi.CertificateSpec{
				SecretName: fmt.Sprintf(
					"%s-%d",
					issuer,
					n,
				),
				DNSNames:  []string{fmt.Sprintf("%s-%d.example.com", issuer, n)},
				IssuerRef: cmmeta.IssuerReference{Name: issuer},
			},
		}
		r.create(crt)
		return crt
	}
	var dead []*cmapi.Certificate
	for n := range 3 {
		dead = append(dead, certificate("dead-names", n), certificate("dead-api", n))
	}
	r.eventually("both dead servers are asked", func() bool { return namesAsked() && apiAsked() })
	var live []*cmapi.Certificate
	for n := range 3 {
		live = append(live, certificate("live", n))
	}
	for _, crt := range live {
		r.ready(crt)
	}
	for _, crt := range dead {
		if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			t.Fatal(err)
		}
		if c := cmapi.GetCertificateCondition(
			&crt.Status,
			cmapi.CertificateConditionReady,
		); c == nil ||
			c.Status == cmmeta.ConditionTrue {
			t.Errorf("%s: %+v", crt.Name, c)
		}
	}
	r.eventually("it is said which server does not answer", func() bool { return strings.Contains(r.story(), deadNames) })
}
