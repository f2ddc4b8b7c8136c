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
			if status, reason := s.changeCloudDNS(change); status != http.StatusOK {
				refuse(w, status, reason)
				return
			}
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

// changeCloudDNS carries a change out, whole or not at all.
func (s *sets) changeCloudDNS(change cloudDNSChange) (status int, reason string) {
	next := maps.Clone(s.of)
	for _, d := range change.Deletions {
		if d.TTL != 300 || !slices.Equal(next[d.Name], d.Values) {
			return http.StatusPreconditionFailed, "conditionNotMet"
		}
		delete(next, d.Name)
	}
	for _, a := range change.Additions {
		if len(next[a.Name]) > 0 {
			return http.StatusConflict, "alreadyExists"
		}
		next[a.Name] = a.Values
	}
	s.of = next
	return http.StatusOK, ""
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
				"metadata":          map[string]string{"owner": "another client"},
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
			answerJSON(
				w,
				http.StatusOK,
				akamaiSet{Name: strings.TrimSuffix(name, "."), Type: "TXT", TTL: 300, Values: s.of[name]},
			)
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

type (
	route53TestRecord struct{ Value string }
	route53TestSet    struct {
		Name    string
		Type    string
		TTL     int64
		Records []route53TestRecord `xml:"ResourceRecords>ResourceRecord"`
	}
	route53TestChange struct {
		Action string
		Set    route53TestSet `xml:"ResourceRecordSet"`
	}
)

// changeRoute53 carries a batch out, whole or not at all. It returns why it refuses to.
func (s *sets) changeRoute53(batch []route53TestChange) (refusal string) {
	next := maps.Clone(s.of)
	for _, c := range batch {
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
			return fmt.Sprintf("Tried to %s resource record set [name='%s', type='TXT'] but it is otherwise",
				strings.ToLower(c.Action), c.Set.Name)
		}
	}
	s.of = next
	return ""
}

// newTestRoute53 speaks with a stand-in for Route 53, which carries batches out whole or not at
// all. Its key ID is the token.
func newTestRoute53(t *testing.T, s *sets, token, zone string) *recordSets[*route53Set] {
	const namespace = `xmlns="https://route53.amazonaws.com/doc/2013-04-01/"`
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
				found = "<HostedZone><Id>/hostedzone/Z1</Id><Name>example.com.</Name>" +
					"<CallerReference>r</CallerReference></HostedZone>"
			}
			fmt.Fprintf(
				w,
				"<ListHostedZonesByNameResponse "+
					"%s><HostedZones>%s</HostedZones><IsTruncated>false</IsTruncated>"+
					"<MaxItems>10</MaxItems></ListHostedZonesByNameResponse>",
				namespace,
				found,
			)
		case path == "/hostedzone/Z1/rrset" && r.Method == http.MethodGet:
			name := r.URL.Query().Get("name")
			var list struct {
				XMLName xml.Name         `xml:"ResourceRecordSets"`
				Sets    []route53TestSet `xml:"ResourceRecordSet"`
			}
			if values := s.of[name]; len(values) > 0 {
				set := route53TestSet{Name: name, Type: "TXT", TTL: 300}
				for _, v := range values {
					set.Records = append(set.Records, route53TestRecord{v})
				}
				list.Sets = append(list.Sets, set)
			}
			answer(w, "ListResourceRecordSetsResponse", list)
		case path == "/hostedzone/Z1/rrset":
			var batch struct {
				Changes []route53TestChange `xml:"ChangeBatch>Changes>Change"`
			}
			if err := xml.Unmarshal(body, &batch); err != nil || len(batch.Changes) == 0 {
				t.Errorf("it sends %s: %v", body, err)
			}
			if refusal := s.changeRoute53(batch.Changes); refusal != "" {
				w.WriteHeader(http.StatusBadRequest)
				answer(w, "InvalidChangeBatch", struct {
					XMLName xml.Name `xml:"Messages"`
					Message string
				}{Message: refusal})
				return
			}
			fmt.Fprintf(
				w,
				"<ChangeResourceRecordSetsResponse "+
					"%s><ChangeInfo><Id>/change/C1</Id><Status>PENDING</Status>"+
					"<SubmittedAt>2026-01-01T00:00:00Z</SubmittedAt></ChangeInfo></ChangeResourceRecordSetsResponse>",
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
