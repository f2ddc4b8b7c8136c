package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"cloud.google.com/go/auth"
	googleauth "cloud.google.com/go/auth/credentials"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver/dns01/resolver"
	"github.com/perennial-pki/perennial/pki"
)

const (
	googleScope    = "https://www.googleapis.com/auth/ndev.clouddns.readwrite"
	googleUniverse = "googleapis.com"
	cloudDNSField  = "dns01.cloudDNS.serviceAccountSecretRef"
	// maxGoogleKey is how long the key of a service account may be.
	maxGoogleKey = 64 << 10
)

var cloudDNSService = service{
	field:      "cloudDNS",
	configured: func(s *spec) bool { return s.CloudDNS != nil },
	check: func(f *Factory, issuer *signer.Issuer, s *spec) error {
		if s.CloudDNS.ServiceAccount == nil && !f.Ambient.allows(issuer) {
			return noAmbient(issuer, "dns01.cloudDNS", "serviceAccountSecretRef")
		}
		return nil
	},
	references: func(s *spec) []reference { return referenceIfSet(cloudDNSField, s.CloudDNS.ServiceAccount) },
	checkCredential: func(issuer *signer.Issuer, _, value string) error {
		return checkGoogleKey(value, issuer)
	},
	open:   openCloudDNS,
	traits: traits(Traits{Settles: true}),
}

// googleTokenEndpoints are all token endpoints that Google has ever written into keys.
var googleTokenEndpoints = []string{
	"",
	"https://oauth2.googleapis.com/token",
	"https://accounts.google.com/o/oauth2/token",
	"https://www.googleapis.com/oauth2/v4/token",
}

// cloudDNS changes the record sets of managed zones. One change replaces a whole set, and removes
// it exactly as it was read, so that a concurrent change by another client is never lost.
type cloudDNS struct {
	rest
	project string
	zone    string // name of the managed zone; found if empty
}

// googleKey is the key file of a service account.
type googleKey struct {
	Type       string `json:"type"`
	Email      string `json:"client_email"`
	PrivateKey string `json:"private_key"`
	TokenURI   string `json:"token_uri"`
	Universe   string `json:"universe_domain"`
}

// checkGoogleKey refuses a file that is not the key of a service account: other credential files
// name hosts to connect to, files to read and programs to run. Only a ClusterIssuer may name a
// token endpoint that is not Google's.
func checkGoogleKey(text string, issuer *signer.Issuer) error {
	refuse := func(format string, args ...any) error {
		return fault.Misconfiguredf("InvalidSolver", "the Secret of %s %s", cloudDNSField, fmt.Sprintf(format, args...))
	}
	var key googleKey
	if len(text) > maxGoogleKey || json.Unmarshal([]byte(text), &key) != nil {
		return refuse("is not the JSON key of a service account")
	}
	if key.Type != "service_account" {
		return refuse(
			"has credentials of type %.40q: only the key of a service account is taken, whose type is \"service_account\"",
			key.Type,
		)
	}
	if key.Email == "" || key.PrivateKey == "" {
		return refuse("is not the whole key of a service account: client_email or private_key is missing")
	}
	if _, err := pki.DecodeKeyPEM([]byte(key.PrivateKey)); err != nil {
		return refuse("has a private_key that cannot be read: %v", err)
	}
	if issuer.Kind == signer.KindClusterIssuer {
		return nil
	}
	if !slices.Contains(googleTokenEndpoints, key.TokenURI) {
		return refuse("has the token_uri %.100q, which is not Google's own: use a ClusterIssuer", key.TokenURI)
	}
	if key.Universe != "" && key.Universe != googleUniverse {
		return refuse("is of the universe_domain %.100q, which is not Google's own: use a ClusterIssuer", key.Universe)
	}
	return nil
}

// openCloudDNS returns the provider for settings that have been checked, from the cache if it
// exists.
func openCloudDNS(ctx context.Context, f *Factory, r request, secrets credentials) (Provider, error) {
	c, key, from := r.spec().CloudDNS, secrets[cloudDNSField], ownCredentials
	if c.ServiceAccount != nil {
		from = "the Secret of " + cloudDNSField
	}
	return openOnce(&f.opened, "cloudDNS", []string{key, c.Project, c.HostedZoneName}, func() (Provider, error) {
		if err := limiter.Acquire(ctx, r.target); err != nil { // it may ask the metadata service
			return nil, err
		}
		found, err := googleCredentials(c, key)
		if err != nil {
			return nil, fault.Misconfiguredf(
				"InvalidSolver",
				"find credentials for Cloud DNS: %s. Correct %s",
				brief(err.Error()),
				from,
			)
		}
		universe, err := found.UniverseDomain(ctx)
		if err != nil {
			return nil, fault.Transientf("PresentError", "ask where Google's services are: %s", brief(err.Error()))
		}
		p := newCloudDNS("https://dns."+universe, c.Project, c.HostedZoneName)
		p.credentials, p.now = from, f.Now
		p.sign = func(request *http.Request, _ []byte) error {
			token, err := found.Token(request.Context())
			if err != nil {
				return p.tokenFault(err)
			}
			request.Header.Set("Authorization", "Bearer "+token.Value)
			return nil
		}
		return &recordSets[cloudDNSSets]{api: p}, nil
	})
}

// googleCredentials returns those of the key of a service account if the issuer names one, or else
// those of the environment.
func googleCredentials(c *cmacme.ACMEIssuerDNS01ProviderCloudDNS, key string) (*auth.Credentials, error) {
	// an environment variable could make it log bodies
	options := &googleauth.DetectOptions{Scopes: []string{googleScope}, Client: restClient, DisableAsyncRefresh: true,
		Logger: slog.New(slog.DiscardHandler)}
	if c.ServiceAccount != nil {
		return googleauth.NewCredentialsFromJSON(googleauth.ServiceAccount, []byte(key), options)
	}
	return googleauth.DetectDefault(options)
}

func newCloudDNS(base, project, zone string) *cloudDNS {
	return &cloudDNS{project: project, zone: zone, rest: rest{
		name: "Cloud DNS", base: base + "/dns/v1/projects/" + url.PathEscape(project),
		problem: func(body []byte) string {
			e := googleProblem(body)
			if e.Message == "" {
				return ""
			}
			return fmt.Sprintf("%s (%s)", e.Message, strings.Join(e.reasons(), ", "))
		},
		busy: func(body []byte) bool {
			return slices.ContainsFunc(googleProblem(body).reasons(), func(reason string) bool {
				return reason == "rateLimitExceeded" || reason == "userRateLimitExceeded" || reason == "dailyLimitExceeded"
			})
		},
	}}
}

// googleError is the body of an error.
type googleError struct {
	Message string `json:"message"`
	Status  string `json:"status"`
	Errors  []struct {
		Reason string `json:"reason"`
	} `json:"errors"`
}

func (e googleError) reasons() []string {
	var all []string
	for _, one := range e.Errors {
		all = append(all, one.Reason)
	}
	if e.Status != "" {
		all = append(all, e.Status)
	}
	return all
}

func googleProblem(body []byte) googleError {
	var reply struct {
		Error googleError `json:"error"`
	}
	if json.Unmarshal(body, &reply) != nil {
		return googleError{}
	}
	return reply.Error
}

// tokenFault gives the error of a failed token request its class.
func (p *cloudDNS) tokenFault(err error) error {
	var refused *auth.Error
	if !errors.As(err, &refused) || refused.Response == nil {
		return fault.Transientf("PresentError", "get a token of Google: %s", brief(err.Error()))
	}
	return p.tokenRefusal("Google", refused.Response, refused.Body)
}

func (p *cloudDNS) zoneNamed(Record) (string, error) { return p.zone, nil }

// zoneAt finds the public managed zone with an apex.
func (p *cloudDNS) zoneAt(ctx context.Context, apex string) (string, error) {
	public, private, err := p.managedZones(ctx, apex)
	switch {
	case err != nil:
		return "", err
	case len(public) > 1:
		return "", fault.Misconfiguredf(
			"PresentError",
			"project %s has several public zones for %s (%s): name the one that the domain is delegated to in "+
				"dns01.cloudDNS.hostedZoneName",
			p.project,
			apex,
			strings.Join(public, ", "),
		)
	case len(public) == 1:
		return public[0], nil
	case private != "":
		return "", privateZone{private}
	}
	return "", errNoZone
}

// managedZones returns the names of the public zones with an apex, and of the last private one.
func (p *cloudDNS) managedZones(ctx context.Context, apex string) (public []string, private string, err error) {
	query := url.Values{"dnsName": {resolver.FQDN(apex)}}
	for range maxPages {
		var reply struct {
			Zones []struct {
				Name       string `json:"name"`
				DNSName    string `json:"dnsName"`
				Visibility string `json:"visibility"`
			} `json:"managedZones"`
			Next string `json:"nextPageToken"`
		}
		if _, err := p.send(ctx, call{method: http.MethodGet, path: "/managedZones?" + query.Encode(), out: &reply,
			needs: fmt.Sprintf("dns.managedZones.list in project %s, or set hostedZoneName", p.project)}); err != nil {
			return nil, "", err
		}
		for _, z := range reply.Zones {
			switch {
			case resolver.FQDN(z.DNSName) != resolver.FQDN(apex):
			case z.Visibility == "private":
				private = z.Name
			default:
				public = append(public, z.Name)
			}
		}
		if reply.Next == "" {
			break
		}
		query.Set("pageToken", reply.Next)
	}
	return public, private, nil
}

func (p *cloudDNS) noZone(r Record, private string) error {
	if private != "" {
		return fault.Misconfiguredf(
			"PresentError",
			"the only managed zone for %s in project %s is private (%s): name it in dns01.cloudDNS.hostedZoneName if the "+
				"CA can see it",
			r.FQDN,
			p.project,
			private,
		)
	}
	return fault.Misconfiguredf(
		"PresentError",
		"project %s has no public zone for %s: create it, or correct dns01.cloudDNS.project or hostedZoneName",
		p.project,
		r.FQDN,
	)
}

// cloudDNSSet is a record set.
type cloudDNSSet struct {
	Name          string          `json:"name"`
	Type          string          `json:"type"`
	TTL           int             `json:"ttl"`
	Values        quotedValues    `json:"rrdatas"`
	RoutingPolicy json.RawMessage `json:"routingPolicy,omitempty"`
}

// cloudDNSSets is the record set of a name, or empty.
type cloudDNSSets []cloudDNSSet

func (s cloudDNSSets) has(value string) bool {
	return slices.ContainsFunc(s, func(set cloudDNSSet) bool { return set.Values.has(value) })
}

type cloudDNSChange struct {
	Additions []cloudDNSSet `json:"additions,omitempty"`
	Deletions []cloudDNSSet `json:"deletions,omitempty"`
	ID        string        `json:"id,omitempty"`
	Status    string        `json:"status,omitempty"`
}

func cloudDNSPath(zone string) string { return "/managedZones/" + url.PathEscape(zone) }

func (p *cloudDNS) read(ctx context.Context, zone string, r Record) (cloudDNSSets, error) {
	var list struct {
		Sets []cloudDNSSet `json:"rrsets"`
	}
	status, err := p.send(
		ctx,
		call{
			method: http.MethodGet,
			path:   cloudDNSPath(zone) + "/rrsets?" + url.Values{"name": {r.FQDN}, "type": {"TXT"}}.Encode(),
			out:    &list,
			needs:  "dns.resourceRecordSets.list in project " + p.project,
		},
	)
	switch {
	case status == http.StatusNotFound:
		return nil, goneZone{fault.Misconfiguredf(
			"PresentError",
			"project %s has no managed zone %q: correct dns01.cloudDNS.hostedZoneName",
			p.project,
			zone,
		)}
	case err != nil:
		return nil, err
	}
	var found cloudDNSSets
	for _, set := range list.Sets {
		if set.Type != "TXT" || resolver.FQDN(set.Name) != r.FQDN {
			continue
		}
		if len(set.RoutingPolicy) > 0 {
			return nil, fault.Misconfiguredf(
				"PresentError",
				"the TXT records of %s are chosen by a routing policy: remove that, or point a CNAME elsewhere",
				r.FQDN,
			)
		}
		found = cloudDNSSets{set}
	}
	return found, nil
}

// write removes the set exactly as it was read, and creates the next one, in one change.
func (p *cloudDNS) write(ctx context.Context, zone string, r Record, was cloudDNSSets, add bool) (string, error) {
	next := cloudDNSSet{Name: r.FQDN, Type: "TXT", TTL: int(r.TTL.Seconds())}
	if len(was) > 0 {
		next.TTL, next.Values = was[0].TTL, was[0].Values
	}
	change := cloudDNSChange{Deletions: was}
	if next.Values = next.Values.with(r.Value, add); len(next.Values) > 0 {
		change.Additions = []cloudDNSSet{next}
	}
	var made cloudDNSChange
	_, err := p.send(ctx, call{method: http.MethodPost, path: cloudDNSPath(zone) + "/changes", in: change, out: &made,
		needs: "dns.changes.create and dns.resourceRecordSets.create, update and delete in project " + p.project,
		// The set has changed since it was read: it differs, exists already, or is gone.
		isConflict: isStatus(http.StatusPreconditionFailed, http.StatusConflict, http.StatusNotFound)})
	if err != nil || !add || made.ID == "" {
		return "", err
	}
	return cloudDNSPath(zone) + "/changes/" + url.PathEscape(made.ID), nil
}

// propagated asks whether all servers of Cloud DNS have the change at a path.
func (p *cloudDNS) propagated(ctx context.Context, path string) (bool, error) {
	var change cloudDNSChange
	status, err := p.send(
		ctx,
		call{method: http.MethodGet, path: path, out: &change, needs: "dns.changes.get in project " + p.project},
	)
	if status == http.StatusForbidden && fault.Of(err).Class == fault.Misconfigured {
		return true, nil // roles that were made for other tools may lack the permission
	}
	return err == nil && change.Status == "done", err
}
