// Package aws simulates the parts of AWS that the Route 53 solver uses: STS, which issues
// credentials for roles and refuses a role that assumes itself, and Route 53, where changes are
// PENDING for a while before the DNS servers have them. Both speak the real protocols on real
// sockets; a real DNS server answers for the zones.
package aws

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/perennial-pki/perennial/test/dnsserver"
)

// Cloud is a simulated AWS.
type Cloud struct {
	// Token is the token that AssumeRoleWithWebIdentity accepts for the roles in Web.
	Token string
	Web   []string
	// Pod is the role that the EKS agent gives to a pod that presents Token.
	Pod string
	// Trust says which roles may be assumed by which.
	Trust map[string][]string
	// OIDC, if set, accepts the tokens of a cluster's ServiceAccounts for a role.
	OIDC func(token, role string) bool
	// Keys are the keys of users by their IDs.
	Keys map[string]Key
	// DNS receives the TXT records of Zones, which are names by ID, when a change is INSYNC. Inside,
	// if set, receives those of private zones. Access says which roles or users may change a zone.
	DNS, Inside *dnsserver.Server
	Zones       map[string]string
	Access      map[string][]string
	// Private are the IDs of the zones that are private.
	Private []string
	// Pending is how long a change is PENDING.
	Pending time.Duration

	// STS and Route53 are the URLs of the endpoints, and Agent that of the agent for pod identities,
	// once started.
	STS, Route53, Agent string

	mu      sync.Mutex
	keys    map[string]Key
	sets    map[string]map[string]set
	changes map[string]time.Time
	calls   []string
	regions []string
}

// Key is an access key: the ARN of its owner, and its secret.
type Key struct{ Of, Secret string }

type set struct {
	ttl    int64
	values []string
}

// Start starts the endpoints.
func (c *Cloud) Start() (stop func()) {
	c.keys, c.sets, c.changes = map[string]Key{}, map[string]map[string]set{}, map[string]time.Time{}
	maps.Copy(c.keys, c.Keys)
	for id := range c.Zones {
		c.sets[id] = map[string]set{}
	}
	s, r, a := httptest.NewServer(
		http.HandlerFunc(c.sts),
	), httptest.NewServer(
		http.HandlerFunc(c.route53),
	), httptest.NewServer(
		http.HandlerFunc(c.agent),
	)
	c.STS, c.Route53, c.Agent = s.URL, r.URL, a.URL
	return func() { s.Close(); r.Close(); a.Close() }
}

// Put sets the values of a name, without their quotes.
func (c *Cloud) Put(zone, name string, values ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var quoted []string
	for _, v := range values {
		quoted = append(quoted, `"`+v+`"`)
	}
	c.sets[zone][name] = set{300, quoted}
	c.publish(zone, name)
}

// publish sends the records of a name to the servers of its zone.
func (c *Cloud) publish(zone, name string) {
	server := c.DNS
	if slices.Contains(c.Private, zone) {
		server = c.Inside
	}
	if server != nil {
		server.SetTXT(name, unquoted(c.sets[zone][name].values)...)
	}
}

// Values returns the values of a name, without their quotes.
func (c *Cloud) Values(zone, name string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return unquoted(c.sets[zone][name].values)
}

// Calls returns the actions that were called, each with the caller.
func (c *Cloud) Calls() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.calls)
}

// Regions returns the regions that requests were signed for, in their order.
func (c *Cloud) Regions() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.regions)
}

func unquoted(values []string) []string {
	var all []string
	for _, v := range values {
		all = append(all, strings.Trim(v, `"`))
	}
	return all
}

// signature is the parsed signature of a request: its key, time, region, service and headers.
var signature = regexp.MustCompile(
	`Credential=([^/]+)/\d+/([^/]+)/([^/]+)/aws4_request, SignedHeaders=([^,]+), Signature=`,
)

// callerOf returns the ARN of the signer of a request, or "" if the request is not signed. refused
// is the AWS error code if the signature is not valid.
func (c *Cloud) callerOf(r *http.Request) (caller, refused string, err error) {
	claimed := r.Header.Get("Authorization")
	if claimed == "" {
		return "", "", nil
	}
	m := signature.FindStringSubmatch(claimed)
	if m == nil {
		return "", "IncompleteSignature", nil
	}
	key, found := c.keys[m[1]]
	if !found {
		return "", "InvalidClientTokenId", nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return "", "", err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil {
		return "", "IncompleteSignature", nil
	}
	again, err := http.NewRequest(r.Method, "http://"+r.Host+r.URL.RequestURI(), nil)
	if err != nil {
		return "", "", err
	}
	again.ContentLength = r.ContentLength
	for name := range strings.SplitSeq(m[4], ";") {
		if values := r.Header.Values(name); len(values) > 0 {
			again.Header[http.CanonicalHeaderKey(name)] = values
		}
	}
	sum := sha256.Sum256(body)
	err = v4.NewSigner().
		SignHTTP(
			r.Context(), sdk.Credentials{AccessKeyID: m[1], SecretAccessKey: key.Secret}, again,
			hex.EncodeToString(sum[:]), m[3], m[2], at,
		)
	if err != nil {
		return "", "", err
	}
	if again.Header.Get("Authorization") != claimed {
		return "", "SignatureDoesNotMatch", nil
	}
	c.regions = append(c.regions, m[2])
	return key.Of, "", nil
}

// roleOf returns the role of an assumed identity, or the ARN itself.
func roleOf(identity string) string {
	rest, found := strings.CutPrefix(identity, "arn:aws:sts::")
	account, resource, _ := strings.Cut(rest, ":assumed-role/")
	if !found {
		return identity
	}
	name, _, _ := strings.Cut(resource, "/")
	return "arn:aws:iam::" + account + ":role/" + name
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	fmt.Fprintf(
		w,
		`<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>r</RequestId></ErrorResponse>`,
		code,
		message,
	)
}

func (c *Cloud) sts(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	caller, refused, err := c.callerOf(r)
	if err == nil && refused == "" {
		err = r.ParseForm()
	}
	if err != nil || refused != "" {
		refuse(w, http.StatusForbidden, cmp.Or(refused, "MalformedQueryString"), "The request cannot be authenticated")
		return
	}
	action, role := r.Form.Get("Action"), r.Form.Get("RoleArn")
	c.calls = append(c.calls, action+" "+roleOf(caller))
	switch action {
	case "GetCallerIdentity":
		if caller == "" {
			refuse(w, http.StatusForbidden, "InvalidClientTokenId", "The security token included in the request is invalid")
			return
		}
		fmt.Fprintf(
			w,
			`<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult><Arn>%s</Arn><UserId>u</UserId><Account>a</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`,
			caller,
		)
	case "AssumeRoleWithWebIdentity":
		token := r.Form.Get("WebIdentityToken")
		if (token != c.Token || !slices.Contains(c.Web, role)) && (c.OIDC == nil || !c.OIDC(token, role)) {
			refuse(w, http.StatusForbidden, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")
			return
		}
		c.grant(w, action, role, r.Form.Get("RoleSessionName"))
	case "AssumeRole":
		if caller == "" || roleOf(caller) == role || !slices.Contains(c.Trust[role], roleOf(caller)) {
			refuse(
				w,
				http.StatusForbidden,
				"AccessDenied",
				fmt.Sprintf("User: %s is not authorized to perform: sts:AssumeRole on resource: %s", caller, role),
			)
			return
		}
		c.grant(w, action, role, r.Form.Get("RoleSessionName"))
	default:
		refuse(w, http.StatusBadRequest, "InvalidAction", action)
	}
}

// grant returns credentials of a role.
func (c *Cloud) grant(w http.ResponseWriter, action, role, session string) {
	id, key := c.assume(role, session)
	fmt.Fprintf(
		w,
		`<%[1]sResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><%[1]sResult><AssumedRoleUser><Arn>%[2]s</Arn><AssumedRoleId>x:y</AssumedRoleId></AssumedRoleUser><Credentials><AccessKeyId>%[3]s</AccessKeyId><SecretAccessKey>%[5]s</SecretAccessKey><SessionToken>token</SessionToken><Expiration>%[4]s</Expiration></Credentials></%[1]sResult></%[1]sResponse>`,
		action,
		key.Of,
		id,
		inAnHour(),
		key.Secret,
	)
}

// assume creates a key of a role. The identity has the name of the role, not its path.
func (c *Cloud) assume(role, session string) (id string, key Key) {
	account, path, _ := strings.Cut(strings.TrimPrefix(role, "arn:aws:iam::"), ":role/")
	id, key = "ASIA"+random(), Key{
		Of:     fmt.Sprintf("arn:aws:sts::%s:assumed-role/%s/%s", account, path[strings.LastIndex(path, "/")+1:], session),
		Secret: random(),
	}
	c.keys[id] = key
	return id, key
}

func inAnHour() string { return time.Now().Add(time.Hour).UTC().Format(time.RFC3339) }

// agent serves the credentials of a pod's role.
func (c *Cloud) agent(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Pod == "" || r.Header.Get("Authorization") != c.Token {
		http.Error(w, `{"code": "AccessDeniedException", "message": "Unauthorized"}`, http.StatusForbidden)
		return
	}
	id, key := c.assume(c.Pod, "eks-cluster-perennial")
	fmt.Fprintf(
		w,
		`{"AccessKeyId": %q, "SecretAccessKey": %q, "Token": "token", "Expiration": %q}`,
		id,
		key.Secret,
		inAnHour(),
	)
}

func random() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // it never fails
	return strings.ToUpper(hex.EncodeToString(b))
}

type changeBatch struct {
	XMLName xml.Name `xml:"ChangeResourceRecordSetsRequest"`
	Changes []struct {
		Action string
		Set    struct {
			Name   string
			Type   string
			TTL    int64
			Values []string `xml:"ResourceRecords>ResourceRecord>Value"`
		} `xml:"ResourceRecordSet"`
	} `xml:"ChangeBatch>Changes>Change"`
}

const namespace = `xmlns="https://route53.amazonaws.com/doc/2013-04-01/"`

func (c *Cloud) route53(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	identity, refused, err := c.callerOf(r)
	if err != nil || refused != "" {
		c.calls = append(c.calls, "refused "+r.URL.Path)
		refuse(w, http.StatusForbidden, cmp.Or(refused, "InternalFailure"), "The request cannot be authenticated")
		return
	}
	caller := roleOf(identity)
	c.settle()
	parts := strings.Split(strings.Trim(strings.TrimPrefix(r.URL.Path, "/2013-04-01"), "/"), "/")
	if len(parts) > 1 && parts[0] == "hostedzone" && !slices.Contains(c.Access[parts[1]], caller) || caller == "" {
		c.calls = append(c.calls, "denied "+r.URL.Path+" "+caller)
		refuse(
			w,
			http.StatusForbidden,
			"AccessDenied",
			fmt.Sprintf("User: %s is not authorized to access this resource", caller),
		)
		return
	}
	w.Header().Set("Content-Type", "text/xml")
	switch {
	case parts[0] == "hostedzonesbyname":
		c.calls = append(c.calls, "ListHostedZonesByName "+caller)
		fmt.Fprintf(w, `<ListHostedZonesByNameResponse %s><HostedZones>`, namespace)
		for id, name := range c.Zones {
			if name+"." == strings.TrimSuffix(r.URL.Query().Get("dnsname"), ".")+"." && slices.Contains(c.Access[id], caller) {
				fmt.Fprintf(
					w,
					`<HostedZone><Id>/hostedzone/%s</Id><Name>%s.</Name><CallerReference>r</CallerReference><Config><PrivateZone>%v</PrivateZone></Config></HostedZone>`,
					id,
					name,
					slices.Contains(c.Private, id),
				)
			}
		}
		fmt.Fprint(w, `</HostedZones><IsTruncated>false</IsTruncated><MaxItems>10</MaxItems></ListHostedZonesByNameResponse>`)
	case parts[0] == "change":
		c.calls = append(c.calls, "GetChange "+caller)
		at, found := c.changes[parts[1]]
		if !found {
			refuse(w, http.StatusNotFound, "NoSuchChange", parts[1])
			return
		}
		status := "INSYNC"
		if time.Now().Before(at) {
			status = "PENDING"
		}
		fmt.Fprintf(
			w,
			`<GetChangeResponse %s><ChangeInfo><Id>/change/%s</Id><Status>%s</Status><SubmittedAt>%s</SubmittedAt></ChangeInfo></GetChangeResponse>`,
			namespace,
			parts[1],
			status,
			time.Now().UTC().Format(time.RFC3339),
		)
	case len(parts) == 3 && parts[2] == "rrset" && r.Method == http.MethodGet:
		c.calls = append(c.calls, "ListResourceRecordSets "+caller)
		name := strings.TrimSuffix(r.URL.Query().Get("name"), ".")
		fmt.Fprintf(w, `<ListResourceRecordSetsResponse %s><ResourceRecordSets>`, namespace)
		if s, found := c.sets[parts[1]][name]; found {
			fmt.Fprintf(w, `<ResourceRecordSet><Name>%s.</Name><Type>TXT</Type><TTL>%d</TTL><ResourceRecords>`, name, s.ttl)
			for _, v := range s.values {
				fmt.Fprint(w, `<ResourceRecord><Value>`)
				_ = xml.EscapeText(w, []byte(v))
				fmt.Fprint(w, `</Value></ResourceRecord>`)
			}
			fmt.Fprint(w, `</ResourceRecords></ResourceRecordSet>`)
		}
		fmt.Fprint(
			w,
			`</ResourceRecordSets><IsTruncated>false</IsTruncated><MaxItems>1</MaxItems></ListResourceRecordSetsResponse>`,
		)
	case len(parts) == 3 && parts[2] == "rrset" && r.Method == http.MethodPost:
		c.change(w, r, parts[1], caller)
	default:
		refuse(w, http.StatusBadRequest, "InvalidInput", r.Method+" "+r.URL.Path)
	}
}

// change applies a batch atomically.
func (c *Cloud) change(w http.ResponseWriter, r *http.Request, zone, caller string) {
	c.calls = append(c.calls, "ChangeResourceRecordSets "+caller)
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	var batch changeBatch
	if err == nil {
		err = xml.Unmarshal(body, &batch)
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, "InvalidInput", err.Error())
		return
	}
	next := map[string]set{}
	for name, s := range c.sets[zone] {
		next[name] = s
	}
	for _, change := range batch.Changes {
		name := strings.TrimSuffix(change.Set.Name, ".")
		is, found := next[name]
		switch {
		case change.Set.Type != "TXT" || !strings.HasSuffix("."+name, "."+c.Zones[zone]):
			refuse(w, http.StatusBadRequest, "InvalidChangeBatch", "not in this zone")
			return
		case change.Action == "CREATE" && !found:
			next[name] = set{change.Set.TTL, change.Set.Values}
		case change.Action == "DELETE" && found && is.ttl == change.Set.TTL && slices.Equal(is.values, change.Set.Values):
			delete(next, name)
		default:
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(
				w,
				`<InvalidChangeBatch %s><Messages><Message>Tried to %s %s, but it does not match</Message></Messages></InvalidChangeBatch>`,
				namespace,
				change.Action,
				name,
			)
			return
		}
	}
	c.sets[zone] = next
	id := "C" + random()
	c.changes[id] = time.Now().Add(c.Pending)
	fmt.Fprintf(
		w,
		`<ChangeResourceRecordSetsResponse %s><ChangeInfo><Id>/change/%s</Id><Status>PENDING</Status><SubmittedAt>%s</SubmittedAt></ChangeInfo></ChangeResourceRecordSetsResponse>`,
		namespace,
		id,
		time.Now().UTC().Format(time.RFC3339),
	)
	time.AfterFunc(c.Pending, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.settle()
	})
}

// settle publishes the changes that are due.
func (c *Cloud) settle() {
	for _, at := range c.changes {
		if time.Now().Before(at) {
			return // the servers get everything at once, after the last change
		}
	}
	for zone, sets := range c.sets {
		for name := range sets {
			c.publish(zone, name)
		}
	}
}
