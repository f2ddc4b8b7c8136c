package provider

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awscredentials "github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/route53"

	"github.com/perennial-pki/perennial/internal/fault"
)

// sets is a service with record sets of the zone example.com, which are written as a whole.
type sets struct {
	mu sync.Mutex
	of map[string][]string // values by name
	// meanwhile is called once, just before a set is written.
	meanwhile func()
	// more are further answers by method and path, with a status, before all others.
	more map[string]string
	// pending is how often a change is reported as pending.
	pending int
	// last is the body of the last write.
	last string
}

func (s *sets) values(name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(slices.Values(s.of[name]))
}

// serve answers by a handler, which is called by one after the other, with the body.
func (s *sets) serve(t *testing.T, handle func(w http.ResponseWriter, r *http.Request, body []byte)) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if r.Method != http.MethodGet {
			s.last = string(body)
			if meanwhile := s.meanwhile; meanwhile != nil {
				s.meanwhile = nil
				meanwhile()
			}
		}
		if answer, found := s.more[r.Method+" "+r.URL.RequestURI()]; found {
			var status int
			var text string
			if _, err := fmt.Sscanf(answer, "%d", &status); err != nil {
				t.Error(err)
			}
			_, text, _ = strings.Cut(answer, " ")
			w.WriteHeader(status)
			fmt.Fprint(w, text)
			return
		}
		handle(w, r, body)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func answerJSON(w http.ResponseWriter, status int, body any) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// bearer is the credentials of an API that takes tokens.
func bearer(token string) func(*http.Request, []byte) error {
	return func(r *http.Request, _ []byte) error {
		r.Header.Set("Authorization", "Bearer "+token)
		return nil
	}
}

func newTestCloudDNS(t *testing.T, s *sets, token, zone string) *recordSets[cloudDNSSets] {
	refuse := func(w http.ResponseWriter, code int, reason string) {
		answerJSON(
			w,
			code,
			map[string]any{
				"error": map[string]any{
					"code":    code,
					"message": "No: " + reason,
					"errors":  []any{map[string]string{"reason": reason}},
				},
			},
		)
	}
	base := s.serve(t, func(w http.ResponseWriter, r *http.Request, body []byte) {
		path, inProject := strings.CutPrefix(r.URL.Path, "/dns/v1/projects/p/managedZones")
		switch {
		case r.Header.Get("Authorization") != "Bearer good" || !inProject:
			refuse(w, http.StatusForbidden, "forbidden")
		case path == "":
			zones := []any{}
			if r.URL.Query().Get("dnsName") == "example.com." {
				zones = append(
					zones,
					map[string]string{"name": "inside", "dnsName": "example.com.", "visibility": "private"},
					map[string]string{"name": "z1", "dnsName": "example.com.", "visibility": "public"},
				)
			}
			answerJSON(w, http.StatusOK, map[string]any{"managedZones": zones})
		case !strings.HasPrefix(path, "/z1/"):
			refuse(w, http.StatusNotFound, "notFound")
		case path == "/z1/rrsets":
			all := []any{}
			if values := s.of[r.URL.Query().Get("name")]; len(values) > 0 {
				all = append(all, map[string]any{"name": r.URL.Query().Get("name"), "type": "TXT", "ttl": 300, "rrdatas": values})
			}
			answerJSON(w, http.StatusOK, map[string]any{"rrsets": all})
		case path == "/z1/changes":
			var change cloudDNSChange
			if err := json.Unmarshal(body, &change); err != nil {
				t.Error(err)
			}
			next := maps.Clone(s.of)
			for _, d := range change.Deletions {
				if d.TTL != 300 || !slices.Equal(next[d.Name], d.Values) {
					refuse(w, http.StatusPreconditionFailed, "conditionNotMet")
					return
				}
				delete(next, d.Name)
			}
			for _, a := range change.Additions {
				if len(next[a.Name]) > 0 {
					refuse(w, http.StatusConflict, "alreadyExists")
					return
				}
				next[a.Name] = a.Values
			}
			s.of = next
			answerJSON(w, http.StatusOK, map[string]string{"id": "7", "status": "pending"})
		case path == "/z1/changes/7":
			status := "done"
			if s.pending > 0 {
				s.pending--
				status = "pending"
			}
			answerJSON(w, http.StatusOK, map[string]string{"id": "7", "status": status})
		}
	})
	p := newCloudDNS(base, "p", zone)
	p.sign, p.now, p.credentials = bearer(token), time.Now, "the Secret of "+cloudDNSField
	return &recordSets[cloudDNSSets]{api: p}
}

func newTestAzureDNS(t *testing.T, s *sets, token, zone string, kind azureKind) *recordSets[*azureSet] {
	refuse := func(w http.ResponseWriter, status int, code string) {
		answerJSON(
			w,
			status,
			map[string]any{"error": map[string]string{"code": code, "message": "The request is not possible."}},
		)
	}
	base := s.serve(t, func(w http.ResponseWriter, r *http.Request, body []byte) {
		path, known := strings.CutPrefix(
			r.URL.Path,
			"/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/"+kind.zones+"/",
		)
		name, isSet := strings.CutPrefix(path, "example.com/TXT/")
		name = strings.TrimPrefix(name+".example.com.", "@.")
		etag := func() string {
			if len(s.of[name]) == 0 {
				return ""
			}
			return fmt.Sprintf("%x", sha256.Sum256(fmt.Append(nil, s.of[name])))
		}
		matches := (r.Header.Get("If-Match") == "" || r.Header.Get("If-Match") == etag()) &&
			(r.Header.Get("If-None-Match") != "*" || etag() == "")
		switch {
		case r.Header.Get("Authorization") != "Bearer good":
			refuse(w, http.StatusForbidden, "AuthorizationFailed")
		case !known || r.URL.Query().Get("api-version") != kind.version:
			refuse(w, http.StatusBadRequest, "InvalidResourceType")
		case path == "example.com":
			answerJSON(w, http.StatusOK, map[string]string{"name": "example.com"})
		case !isSet:
			refuse(w, http.StatusNotFound, "ResourceNotFound")
		case r.Method == http.MethodGet && etag() == "":
			refuse(w, http.StatusNotFound, "NotFound")
		case r.Method == http.MethodGet:
			all := []azureTXT{}
			for _, v := range s.of[name] {
				all = append(all, azureTXT{strings.SplitAfter(v, " ")}) // in parts
			}
			answerJSON(w, http.StatusOK, map[string]any{"etag": etag(), "properties": map[string]any{
				kind.ttl:            300,
				kind.values:         all,
				"metadata":          map[string]string{"owner": "somebody"},
				"provisioningState": "Succeeded",
			}})
		case !matches:
			refuse(w, http.StatusPreconditionFailed, "PreconditionFailed")
		case r.Method == http.MethodDelete:
			delete(s.of, name)
		default:
			var set struct {
				Properties map[string]json.RawMessage `json:"properties"`
			}
			var values []azureTXT
			if json.Unmarshal(body, &set) != nil || json.Unmarshal(set.Properties[kind.values], &values) != nil {
				t.Errorf("it sends %s", body)
			}
			s.of[name] = nil
			for _, v := range values {
				s.of[name] = append(s.of[name], strings.Join(v.Value, ""))
			}
			answerJSON(w, http.StatusOK, map[string]string{})
		}
	})
	p := newAzureDNS(base, "s", "g", zone, kind)
	p.sign, p.now, p.credentials = bearer(token), time.Now, "the Secret of "+azureDNSField
	return &recordSets[*azureSet]{api: p}
}

func newTestAkamai(t *testing.T, s *sets, secret string) *akamaiRecords {
	refuse := func(w http.ResponseWriter, status int, kind, detail string) {
		answerJSON(
			w,
			status,
			map[string]any{"type": "https://problems.example/" + kind, "title": kind, "detail": detail, "status": status},
		)
	}
	now := time.Now
	base := s.serve(t, func(w http.ResponseWriter, r *http.Request, body []byte) {
		// The stand-in signs again, with the right secret, what the request says that it signed.
		r.URL.Scheme, r.URL.Host = "http", r.Host
		claimed := r.Header.Get("Authorization")
		unsigned, _, _ := strings.Cut(claimed, "signature=")
		stamp := unsigned[strings.Index(unsigned, "timestamp=")+len("timestamp="):]
		stamp, _, _ = strings.Cut(stamp, ";")
		hash := ""
		if r.Method == http.MethodPost {
			sum := sha256.Sum256(body)
			hash = base64.StdEncoding.EncodeToString(sum[:])
		}
		text := strings.Join([]string{r.Method, "http", r.Host, r.URL.RequestURI(), "", hash, unsigned}, "\t")
		path := strings.TrimPrefix(r.URL.Path, "/config-dns/v2/zones/")
		name, isSet := strings.CutPrefix(path, "example.com/names/")
		name = strings.TrimSuffix(name, "/types/TXT") + "."
		_, exists := s.of[name]
		switch {
		case claimed != unsigned+"signature="+mac(mac("good", stamp), text):
			refuse(w, http.StatusUnauthorized, "Not authorized", "The signature does not match")
		case path == "example.com":
			answerJSON(w, http.StatusOK, map[string]string{"zone": "example.com", "type": "PRIMARY"})
		case !isSet || r.Method == http.MethodGet && !exists:
			refuse(w, http.StatusNotFound, "Not Found", "There is no such thing")
		case r.Method == http.MethodGet:
			answerJSON(w, http.StatusOK, akamaiSet{Name: strings.TrimSuffix(name, "."), Type: "TXT", TTL: 300, Values: s.of[name]})
		case r.Method == http.MethodPost && exists:
			refuse(w, http.StatusConflict, "Already exists", "The record set exists")
		case r.Method == http.MethodPut && !exists:
			refuse(w, http.StatusBadRequest, "Bad Request", "The record set does not exist")
		case r.Method == http.MethodDelete && !exists:
			refuse(w, http.StatusNotFound, "Not Found", "There is no such thing")
		case r.Method == http.MethodDelete:
			delete(s.of, name)
			w.WriteHeader(http.StatusNoContent)
		default:
			var set akamaiSet
			if err := json.Unmarshal(body, &set); err != nil || set.Name+"." != name || set.Type != "TXT" || set.TTL < 60 {
				t.Errorf("it sends %s: %v", body, err)
			}
			s.of[name] = set.Values
			answerJSON(w, http.StatusOK, set)
		}
	})
	p := newAkamai(base, edgeGrid{clientToken: "c", clientSecret: secret, accessToken: "a", now: now})
	p.now = now
	return &akamaiRecords{recordSets: recordSets[*akamaiSet]{api: p}, host: base}
}

// newTestRoute53 speaks with a stand-in for Route 53, which carries batches out whole or not at
// all. Its key ID is the token.
func newTestRoute53(t *testing.T, s *sets, token, zone string) *recordSets[*route53Set] {
	const namespace = `xmlns="https://route53.amazonaws.com/doc/2013-04-01/"`
	type record struct{ Value string }
	type recordSet struct {
		Name    string
		Type    string
		TTL     int64
		Records []record `xml:"ResourceRecords>ResourceRecord"`
	}
	answer := func(w http.ResponseWriter, name string, body any) {
		fmt.Fprintf(w, "<%s %s>", name, namespace)
		if err := xml.NewEncoder(w).Encode(body); err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, "</%s>", name)
	}
	base := s.serve(t, func(w http.ResponseWriter, r *http.Request, body []byte) {
		w.Header().Set("Content-Type", "text/xml")
		path := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/2013-04-01"), "/")
		switch {
		case !strings.Contains(r.Header.Get("Authorization"), "Credential=good/"):
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(
				w,
				"<ErrorResponse %s><Error><Code>InvalidClientTokenId</Code><Message>The security token is "+
					"invalid.</Message></Error></ErrorResponse>",
				namespace,
			)
		case path == "/hostedzonesbyname":
			found := ""
			if r.URL.Query().Get("dnsname") == "example.com." {
				found = "<HostedZone><Id>/hostedzone/Z1</Id><Name>example.com.</Name><CallerReference>r</CallerReference></HostedZone>"
			}
			fmt.Fprintf(
				w,
				"<ListHostedZonesByNameResponse "+
					"%s><HostedZones>%s</HostedZones><IsTruncated>false</IsTruncated><MaxItems>10</MaxItems></ListHostedZonesByNameResponse>",
				namespace,
				found,
			)
		case path == "/hostedzone/Z1/rrset" && r.Method == http.MethodGet:
			name := r.URL.Query().Get("name")
			var list struct {
				XMLName xml.Name    `xml:"ResourceRecordSets"`
				Sets    []recordSet `xml:"ResourceRecordSet"`
			}
			if values := s.of[name]; len(values) > 0 {
				set := recordSet{Name: name, Type: "TXT", TTL: 300}
				for _, v := range values {
					set.Records = append(set.Records, record{v})
				}
				list.Sets = append(list.Sets, set)
			}
			answer(w, "ListResourceRecordSetsResponse", list)
		case path == "/hostedzone/Z1/rrset":
			var batch struct {
				Changes []struct {
					Action string
					Set    recordSet `xml:"ResourceRecordSet"`
				} `xml:"ChangeBatch>Changes>Change"`
			}
			if err := xml.Unmarshal(body, &batch); err != nil || len(batch.Changes) == 0 {
				t.Errorf("it sends %s: %v", body, err)
			}
			next := maps.Clone(s.of)
			for _, c := range batch.Changes {
				is, found := next[c.Set.Name]
				var values []string
				for _, r := range c.Set.Records {
					values = append(values, r.Value)
				}
				switch {
				case c.Action == "CREATE" && !found:
					next[c.Set.Name] = values
				case c.Action == "DELETE" && found && c.Set.TTL == 300 && slices.Equal(is, values):
					delete(next, c.Set.Name)
				default:
					w.WriteHeader(http.StatusBadRequest)
					answer(w, "InvalidChangeBatch", struct {
						XMLName xml.Name `xml:"Messages"`
						Message string
					}{Message: fmt.Sprintf("Tried to %s resource record set [name='%s', type='TXT'] but it is otherwise", strings.ToLower(c.Action), c.Set.Name)})
					return
				}
			}
			s.of = next
			fmt.Fprintf(
				w,
				"<ChangeResourceRecordSetsResponse "+
					"%s><ChangeInfo><Id>/change/C1</Id><Status>PENDING</Status><SubmittedAt>2026-01-01T00:00:00Z</SubmittedAt></ChangeInfo></ChangeResourceRecordSetsResponse>",
				namespace,
			)
		default:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprintf(
				w,
				"<ErrorResponse %s><Error><Code>NoSuchHostedZone</Code><Message>No hosted zone "+
					"found</Message></Error></ErrorResponse>",
				namespace,
			)
		}
	})
	api := route53.New(route53.Options{
		BaseEndpoint: aws.String(
			base,
		),
		Region:           awsRegion,
		RetryMaxAttempts: 1,
		Credentials:      awscredentials.NewStaticCredentialsProvider(token, "secret", ""),
	})
	return &recordSets[*route53Set]{api: &amazonRoute53{api: api, zone: zone}}
}

// setProviders make a provider that writes sets, with good or bad credentials.
var setProviders = map[string]func(t *testing.T, s *sets, token string) Provider{
	"cloudDNS":             func(t *testing.T, s *sets, token string) Provider { return newTestCloudDNS(t, s, token, "") },
	"cloudDNS, zone named": func(t *testing.T, s *sets, token string) Provider { return newTestCloudDNS(t, s, token, "z1") },
	"azureDNS": func(t *testing.T, s *sets, token string) Provider {
		return newTestAzureDNS(t, s, token, "", azureKinds["AzurePublicZone"])
	},
	"azureDNS, zone named": func(t *testing.T, s *sets, token string) Provider {
		return newTestAzureDNS(t, s, token, "example.com", azureKinds[""])
	},
	"azureDNS, private": func(t *testing.T, s *sets, token string) Provider {
		return newTestAzureDNS(t, s, token, "", azureKinds["AzurePrivateZone"])
	},
	"akamai":              func(t *testing.T, s *sets, token string) Provider { return newTestAkamai(t, s, token) },
	"route53":             func(t *testing.T, s *sets, token string) Provider { return newTestRoute53(t, s, token, "") },
	"route53, zone named": func(t *testing.T, s *sets, token string) Provider { return newTestRoute53(t, s, token, "Z1") },
}

// written is a value as it is in a set of a service.
func written(provider, value string) string {
	if strings.HasPrefix(provider, "azure") {
		return value
	}
	return quote(value)
}

func TestSetsKeepTheValuesOfOthers(t *testing.T) {
	const name, alone = "_acme-challenge.www.example.com.", "_acme-challenge.example.com."
	for kind, make := range setProviders {
		t.Run(kind, func(t *testing.T) {
			foreign, ours := written(kind, "v=somebody else's"), written(kind, "ours")
			s := &sets{of: map[string][]string{name: {foreign}}}
			p := make(t, s, "good")
			// The apex may be somewhere else than where the controller sees it.
			for _, zone := range []string{"example.com.", "www.example.com."} {
				r := Record{FQDN: name, Zone: zone, Value: "ours", TTL: time.Minute}
				for range 2 { // the second time changes nothing
					if err := p.Present(t.Context(), r); err != nil {
						t.Fatal(err)
					}
				}
				if got := s.values(name); !slices.Equal(got, []string{ours, foreign}) {
					t.Errorf("it has %q", got)
				}
				if kind == "azureDNS" && !strings.Contains(s.last, `"metadata":{"owner":"somebody"}`) {
					t.Errorf("metadata is lost: %s", s.last)
				}
				if !strings.Contains(s.last, "300") {
					t.Errorf("the TTL is lost: %s", s.last)
				}
				// Another process, which remembers nothing, removes it.
				for range 2 {
					if err := make(t, s, "good").CleanUp(t.Context(), r); err != nil {
						t.Fatal(err)
					}
				}
				if got := s.values(name); !slices.Equal(got, []string{foreign}) {
					t.Errorf("afterwards it has %q", got)
				}
			}
			// A set with no other value comes and goes.
			r := Record{FQDN: alone, Zone: "example.com.", Value: "ours", TTL: time.Minute}
			if err := p.Present(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			if got := s.values(alone); !slices.Equal(got, []string{ours}) {
				t.Errorf("it has %q", got)
			}
			if err := make(t, s, "good").CleanUp(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			if _, still := s.of[alone]; still {
				t.Errorf("afterwards it has %q", s.values(alone))
			}
		})
	}
}

func TestSetsThatAreWrittenByTwoHaveTheValuesOfBoth(t *testing.T) {
	const name = "_acme-challenge.example.com."
	for kind, make := range setProviders {
		t.Run(kind, func(t *testing.T) {
			first, second, foreign := written(kind, "1"), written(kind, "2"), written(kind, "theirs")
			record := func(value string) Record {
				return Record{FQDN: name, Zone: "example.com.", Value: value, TTL: time.Minute}
			}

			// A name and its wildcard, at once.
			s := &sets{of: map[string][]string{}}
			p := make(t, s, "good")
			change := func(change func(r Record) error) {
				t.Helper()
				errs := [2]error{}
				var group sync.WaitGroup
				var zone sync.Mutex
				for i, value := range []string{"1", "2"} {
					group.Go(func() {
						if _, ok := p.(Locker); ok { // the Solver lets one challenge at a time change a zone there
							zone.Lock()
							defer zone.Unlock()
						}
						errs[i] = change(record(value))
					})
				}
				group.Wait()
				if errs[0] != nil || errs[1] != nil {
					t.Fatal(errs)
				}
			}
			change(func(r Record) error { return p.Present(t.Context(), r) })
			if got := s.values(name); !slices.Equal(got, []string{first, second}) {
				t.Errorf("it has %q", got)
			}
			change(func(r Record) error { return p.CleanUp(t.Context(), r) })
			if got := s.values(name); len(got) != 0 {
				t.Errorf("afterwards it has %q", got)
			}

			// Another client writes between the read and the write: it makes the set, changes it, and
			// removes it.
			for _, step := range []struct {
				says            string
				before, between []string
				do              func(r Record) error
				after           []string
			}{
				{"made", nil, []string{foreign}, func(r Record) error { return p.Present(t.Context(), r) }, []string{first, foreign}},
				{"removed", []string{foreign}, nil, func(r Record) error { return p.Present(t.Context(), r) }, []string{first}},
				{"removed, when we clean up", []string{first, foreign}, nil, func(r Record) error { return p.CleanUp(t.Context(), r) }, nil},
			} {
				write := func(values []string) {
					if delete(s.of, name); values != nil {
						s.of[name] = values
					}
				}
				write(step.before)
				s.meanwhile = func() { write(step.between) }
				if err := step.do(record("1")); err != nil {
					t.Errorf("%s: %v", step.says, err)
				}
				if got := s.values(name); !slices.Equal(got, step.after) {
					t.Errorf("%s: it has %q", step.says, got)
				}
			}
			// Changes by other clients are safe only at services with conditional writes.
			if kind == "akamai" {
				return
			}
			s.of[name] = []string{first}
			s.meanwhile = func() { s.of[name] = []string{first, foreign} }
			if err := p.CleanUp(t.Context(), record("1")); err != nil {
				t.Error(err)
			}
			if got := s.values(name); !slices.Equal(got, []string{foreign}) {
				t.Errorf("changed: it has %q", got)
			}
		})
	}
}

func TestWhatServicesWithSetsRefuse(t *testing.T) {
	for kind, make := range setProviders {
		t.Run(kind, func(t *testing.T) {
			s := &sets{of: map[string][]string{}}
			err := make(
				t,
				s,
				"wrong",
			).Present(t.Context(), Record{FQDN: "_acme-challenge.example.com.", Zone: "example.com.", Value: "v"})
			says := []string{"refuses the credentials", "SecretRef", "allow them "}
			if strings.HasPrefix(kind, "route53") { // its credentials may come from elsewhere
				says = []string{"InvalidClientTokenId", "Correct the credentials or their policy"}
			}
			missing := slices.ContainsFunc(
				says,
				func(text string) bool { return err == nil || !strings.Contains(err.Error(), text) },
			)
			if fault.Of(err).Class != fault.Misconfigured || missing || strings.Contains(err.Error(), "wrong") {
				t.Errorf("wrong credentials: %v", err)
			}
			if strings.Contains(kind, "named") {
				return
			}
			err = make(
				t,
				s,
				"good",
			).Present(t.Context(), Record{FQDN: "_acme-challenge.example.org.", Zone: "example.org.", Value: "v"})
			if fault.Of(err).Class != fault.Misconfigured || !strings.Contains(err.Error(), "_acme-challenge.example.org.") {
				t.Errorf("a foreign zone: %v", err)
			}
		})
	}
}

func TestRoute53LeavesSetsAloneThatAreChosenOtherwise(t *testing.T) {
	for name, set := range map[string]string{
		"an alias":         "<AliasTarget><HostedZoneId>Z2</HostedZoneId><DNSName>other.example.com.</DNSName><EvaluateTargetHealth>false</EvaluateTargetHealth></AliasTarget>",
		"weighted records": `<SetIdentifier>blue</SetIdentifier><Weight>10</Weight><TTL>300</TTL><ResourceRecords><ResourceRecord><Value>"v"</Value></ResourceRecord></ResourceRecords>`,
	} {
		t.Run(name, func(t *testing.T) {
			s := &sets{more: map[string]string{
				"GET /2013-04-01/hostedzone/Z1/rrset?maxitems=1&name=_acme-challenge.example.com.&type=TXT": "200 <ListResourceRecordSetsResponse><ResourceRecordSets><ResourceRecordSet>" +
					"<Name>_acme-challenge.example.com.</Name><Type>TXT</Type>" + set + "</ResourceRecordSet></ResourceRecordSets><IsTruncated>false</IsTruncated></ListResourceRecordSetsResponse>",
			}}
			err := newTestRoute53(
				t,
				s,
				"good",
				"Z1",
			).Present(t.Context(), Record{FQDN: "_acme-challenge.example.com.", Zone: "example.com.", Value: "v"})
			if fault.Of(err).Class != fault.Misconfigured ||
				!strings.Contains(err.Error(), "an alias, or chosen by a routing policy: remove those") ||
				s.last != "" {
				t.Errorf("got %v, and it wrote %q", err, s.last)
			}
		})
	}
}

func TestCloudDNSFindsThePublicZone(t *testing.T) {
	const search, further = "GET /dns/v1/projects/p/managedZones?dnsName=example.com.", "GET /dns/v1/projects/p/managedZones?dnsName=example.com.&pageToken=2"
	zone := func(name, visibility string) string {
		return fmt.Sprintf(`{"name": %q, "dnsName": "example.com.", "visibility": %q}`, name, visibility)
	}
	for name, test := range map[string]struct {
		more map[string]string
		says string
	}{
		"on the second page":          {map[string]string{search: `200 {"managedZones": [` + zone("inside", "private") + `], "nextPageToken": "2"}`, further: `200 {"managedZones": [` + zone("z1", "public") + `]}`}, ""},
		"and not a private one":       {map[string]string{search: `200 {"managedZones": [` + zone("inside", "private") + `]}`}, "is private (inside): name it in dns01.cloudDNS.hostedZoneName"},
		"and none if there are two":   {map[string]string{search: `200 {"managedZones": [` + zone("z1", "public") + `,` + zone("old", "public") + `]}`}, "several public zones for example.com (z1, old)"},
		"and not if it is asked much": {map[string]string{search: `403 {"error": {"message": "Slower", "errors": [{"reason": "rateLimitExceeded"}]}}`}, "asked too much: Slower (rateLimitExceeded)"},
		"unless it may not look":      {map[string]string{search: `403 {"error": {"message": "Forbidden", "errors": [{"reason": "forbidden"}]}}`}, "dns.managedZones.list in project p, or set hostedZoneName"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &sets{of: map[string][]string{}, more: test.more}
			err := newTestCloudDNS(
				t,
				s,
				"good",
				"",
			).Present(t.Context(), Record{FQDN: "_acme-challenge.example.com.", Zone: "example.com.", Value: "v", TTL: time.Minute})
			if test.says == "" && (err != nil || len(s.values("_acme-challenge.example.com.")) != 1) ||
				test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestCloudDNSSaysWhenAllServersHaveTheRecord(t *testing.T) {
	r := Record{FQDN: "_acme-challenge.example.com.", Zone: "example.com.", Value: "v", TTL: time.Minute}
	s := &sets{of: map[string][]string{}, pending: 2}
	p := newTestCloudDNS(t, s, "good", "z1")
	if settled, err := p.Settled(t.Context(), r); err != nil || !settled {
		t.Errorf("what another process did is not known: %v, %v", settled, err)
	}
	if err := p.Present(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{false, false, true, true} {
		if settled, err := p.Settled(t.Context(), r); err != nil || settled != want {
			t.Errorf("settled: %v, %v", settled, err)
		}
	}
	if err := p.CleanUp(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := p.Present(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	s.more = map[string]string{
		"GET /dns/v1/projects/p/managedZones/z1/changes/7": `403 {"error": {"message": "Forbidden", "errors": [{"reason": "forbidden"}]}}`,
	}
	if settled, err := p.Settled(t.Context(), r); err != nil || !settled {
		t.Errorf("who may not look asks the servers alone: %v, %v", settled, err)
	}
}

func TestZonesThatCannotBeChanged(t *testing.T) {
	r := Record{FQDN: "_acme-challenge.example.com.", Zone: "example.com.", Value: "v", TTL: time.Minute}
	const group = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/dnsZones/"
	for name, test := range map[string]struct {
		more map[string]string
		make func(*sets) Provider
		says string
	}{
		"Cloud DNS: a zone that is not there": {nil, func(s *sets) Provider { return newTestCloudDNS(t, s, "good", "z2") }, `has no managed zone "z2": correct dns01.cloudDNS.hostedZoneName`},
		"Cloud DNS: a routing policy": {
			map[string]string{"GET /dns/v1/projects/p/managedZones/z1/rrsets?name=_acme-challenge.example.com.&type=TXT": `200 {"rrsets": [{"name": "_acme-challenge.example.com.", "type": "TXT", "routingPolicy": {"wrr": {}}}]}`},
			func(s *sets) Provider { return newTestCloudDNS(t, s, "good", "z1") }, "chosen by a routing policy",
		},
		"Azure: a zone of another name": {nil, func(s *sets) Provider { return newTestAzureDNS(t, s, "good", "example.org", azureKinds[""]) }, "is not in zone example.org: correct dns01.azureDNS.hostedZoneName"},
		"Azure: a zone that is not there": {
			map[string]string{"GET " + group + "example.com/TXT/_acme-challenge?api-version=2018-05-01": "404 {}", "PUT " + group + "example.com/TXT/_acme-challenge?api-version=2018-05-01": "404 {}"},
			func(s *sets) Provider { return newTestAzureDNS(t, s, "good", "example.com", azureKinds[""]) }, "resource group g has no zone example.com",
		},
		"Azure: a set that may be read only": {
			map[string]string{"PUT " + group + "example.com/TXT/_acme-challenge?api-version=2018-05-01": `403 {"code": "AuthorizationFailed", "message": "No"}`},
			func(s *sets) Provider { return newTestAzureDNS(t, s, "good", "", azureKinds[""]) }, "No (AuthorizationFailed). Correct the Secret of dns01.azureDNS.clientSecretSecretRef, or allow them Microsoft.Network/dnsZones/TXT/write on zone example.com",
		},
		"Azure: zones that may not be read": {
			map[string]string{"GET " + group + "example.com?api-version=2018-05-01": "403 {}"},
			func(s *sets) Provider { return newTestAzureDNS(t, s, "good", "", azureKinds[""]) }, "Microsoft.Network/dnsZones/read in resource group g, or set hostedZoneName",
		},
		"Akamai: a secondary zone": {
			map[string]string{"GET /config-dns/v2/zones/example.com": `200 {"zone": "example.com", "type": "SECONDARY"}`},
			func(s *sets) Provider { return newTestAkamai(t, s, "good") }, `is of type "SECONDARY"`,
		},
		"Akamai: a zone that others change all the time": {
			map[string]string{"POST /config-dns/v2/zones/example.com/names/_acme-challenge.example.com/types/TXT": `409 {"title": "Concurrent Zone Modification", "detail": "Please try again"}`},
			func(s *sets) Provider { return newTestAkamai(t, s, "good") }, "Please try again",
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.make(&sets{of: map[string][]string{}, more: test.more}).Present(t.Context(), r)
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v", err)
			}
			if class := fault.Of(err).Class; (class == fault.Transient) != strings.Contains(name, "all the time") {
				t.Errorf("it is %s", class)
			}
		})
	}
}

func TestWhoMayReadOneZoneOfAzureOnlyFindsIt(t *testing.T) {
	s := &sets{of: map[string][]string{}, more: map[string]string{
		"GET /subscriptions/s/resourceGroups/g/providers/Microsoft.Network/dnsZones/www.example.com?api-version=2018-05-01":                 "403 {}",
		"GET /subscriptions/s/resourceGroups/g/providers/Microsoft.Network/dnsZones/_acme-challenge.www.example.com?api-version=2018-05-01": "403 {}",
	}}
	r := Record{FQDN: "_acme-challenge.www.example.com.", Zone: "www.example.com.", Value: "v", TTL: time.Minute}
	if err := newTestAzureDNS(
		t,
		s,
		"good",
		"",
		azureKinds[""],
	).Present(t.Context(), r); err != nil ||
		len(s.values(r.FQDN)) != 1 {
		t.Errorf("%v, %v", err, s.of)
	}
}
