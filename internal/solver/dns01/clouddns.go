package dns01

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
	"sync"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/auth/credentials"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

const (
	googleScope    = "https://www.googleapis.com/auth/ndev.clouddns.readwrite"
	googleUniverse = "googleapis.com"
	cloudDNSField  = "dns01.cloudDNS.serviceAccountSecretRef"
	// maxGoogleKey is how long the key of a service account may be.
	maxGoogleKey = 64 << 10
)

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
	zones   zoneNames

	mu      sync.Mutex
	changes map[string]string // paths of the last changes by name and value
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

// cloudDNS returns the provider for settings that have been checked, from the pool if it exists.
func (s *Solver) cloudDNS(
	ctx context.Context,
	issuer *signer.Issuer,
	c *cmacme.ACMEIssuerDNS01ProviderCloudDNS,
	service limiter.Target,
	secret func(field, name, key string) (string, error),
) (Provider, error) {
	key, from := "", ownCredentials
	if ref := c.ServiceAccount; ref != nil {
		from = "the Secret of " + cloudDNSField
		var err error
		if key, err = secret(cloudDNSField, ref.Name, ref.Key); err != nil {
			return nil, err
		}
		if err := checkGoogleKey(key, issuer); err != nil {
			return nil, err
		}
	}
	return s.pool.get("cloudDNS", []string{key, c.Project, c.HostedZoneName}, func() (Provider, error) {
		if err := limiter.Enter(ctx, service); err != nil { // it may ask the metadata service
			return nil, err
		}
		// an environment variable could make it log bodies
		options := &credentials.DetectOptions{Scopes: []string{googleScope}, Client: restClient, DisableAsyncRefresh: true,
			Logger: slog.New(slog.DiscardHandler)}
		var found *auth.Credentials
		var err error
		if c.ServiceAccount != nil {
			found, err = credentials.NewCredentialsFromJSON(credentials.ServiceAccount, []byte(key), options)
		} else {
			found, err = credentials.DetectDefault(options)
		}
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
		p.credentials, p.now = from, s.Now
		p.sign = func(request *http.Request, _ []byte) error {
			token, err := found.Token(request.Context())
			if err != nil {
				return p.tokenFault(err)
			}
			request.Header.Set("Authorization", "Bearer "+token.Value)
			return nil
		}
		return p, nil
	})
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
	return p.noToken("Google", refused.Response, refused.Body, func(body []byte) string {
		var reply struct {
			Error       string `json:"error"`
			Description string `json:"error_description"`
		}
		if json.Unmarshal(body, &reply) != nil || reply.Error == "" {
			return ""
		}
		return strings.TrimSpace(reply.Error + ": " + reply.Description)
	})
}

// managedZone finds the managed zone of a name: the public one with the longest name.
func (p *cloudDNS) managedZone(ctx context.Context, r Record) (string, error) {
	if p.zone != "" {
		return p.zone, nil
	}
	if name := p.zones.get(r.Zone); name != "" {
		return name, nil
	}
	private := ""
	for _, apex := range apexes(r) {
		var public []string
		next := ""
		for range maxPages {
			var reply struct {
				Zones []struct {
					Name       string `json:"name"`
					DNSName    string `json:"dnsName"`
					Visibility string `json:"visibility"`
				} `json:"managedZones"`
				Next string `json:"nextPageToken"`
			}
			query := url.Values{"dnsName": {fqdn(apex)}}
			if next != "" {
				query.Set("pageToken", next)
			}
			if _, err := p.send(ctx, call{method: http.MethodGet, path: "/managedZones?" + query.Encode(), out: &reply,
				needs: fmt.Sprintf("dns.managedZones.list in project %s, or set hostedZoneName", p.project)}); err != nil {
				return "", err
			}
			for _, z := range reply.Zones {
				switch {
				case fqdn(z.DNSName) != fqdn(apex):
				case z.Visibility == "private":
					private = z.Name
				default:
					public = append(public, z.Name)
				}
			}
			if next = reply.Next; next == "" {
				break
			}
		}
		if len(public) > 1 {
			return "", fault.Misconfiguredf(
				"PresentError",
				"project %s has several public zones for %s (%s): name the one that the domain is delegated to in "+
					"dns01.cloudDNS.hostedZoneName",
				p.project,
				apex,
				strings.Join(public, ", "),
			)
		}
		if len(public) == 1 {
			p.zones.put(r, apex, public[0])
			return public[0], nil
		}
	}
	if private != "" {
		return "", fault.Misconfiguredf(
			"PresentError",
			"the only managed zone for %s in project %s is private (%s): name it in dns01.cloudDNS.hostedZoneName if the "+
				"CA can see it",
			r.FQDN,
			p.project,
			private,
		)
	}
	return "", fault.Misconfiguredf(
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
	Values        []string        `json:"rrdatas"`
	RoutingPolicy json.RawMessage `json:"routingPolicy,omitempty"`
}

type cloudDNSChange struct {
	Additions []cloudDNSSet `json:"additions,omitempty"`
	Deletions []cloudDNSSet `json:"deletions,omitempty"`
	ID        string        `json:"id,omitempty"`
	Status    string        `json:"status,omitempty"`
}

// Present adds the value to the record set.
func (p *cloudDNS) Present(ctx context.Context, r Record) error { return p.replace(ctx, r, true) }

// CleanUp removes the value from the record set.
func (p *cloudDNS) CleanUp(ctx context.Context, r Record) error {
	p.mu.Lock()
	delete(p.changes, r.FQDN+" "+r.Value)
	p.mu.Unlock()
	return p.replace(ctx, r, false)
}

func (p *cloudDNS) replace(ctx context.Context, r Record, add bool) error {
	zone, err := p.managedZone(ctx, r)
	if err != nil {
		return err
	}
	return swap(r, func() error { return p.replaceOnce(ctx, zone, r, add) })
}

func (p *cloudDNS) replaceOnce(ctx context.Context, zone string, r Record, add bool) error {
	base := "/managedZones/" + url.PathEscape(zone)
	var list struct {
		Sets []cloudDNSSet `json:"rrsets"`
	}
	status, err := p.send(
		ctx,
		call{
			method: http.MethodGet,
			path:   base + "/rrsets?" + url.Values{"name": {r.FQDN}, "type": {"TXT"}}.Encode(),
			out:    &list,
			needs:  "dns.resourceRecordSets.list in project " + p.project,
		},
	)
	if status == http.StatusNotFound {
		p.zones.forget(r.Zone)
		return fault.Misconfiguredf(
			"PresentError",
			"project %s has no managed zone %q: correct dns01.cloudDNS.hostedZoneName",
			p.project,
			zone,
		)
	}
	if err != nil {
		return err
	}
	var change cloudDNSChange
	next := cloudDNSSet{Name: r.FQDN, Type: "TXT", TTL: int(r.TTL.Seconds())}
	ours := func(value string) bool { return unquoted(value) == r.Value }
	for _, is := range list.Sets {
		if is.Type != "TXT" || fqdn(is.Name) != r.FQDN {
			continue
		}
		if len(is.RoutingPolicy) > 0 {
			return fault.Misconfiguredf(
				"PresentError",
				"the TXT records of %s are chosen by a routing policy: remove that, or point a CNAME elsewhere",
				r.FQDN,
			)
		}
		next.TTL, next.Values = is.TTL, slices.Clone(is.Values)
		change.Deletions = []cloudDNSSet{is}
	}
	if slices.ContainsFunc(next.Values, ours) == add {
		return nil
	}
	if add {
		next.Values = append(next.Values, quote(r.Value))
	} else {
		next.Values = slices.DeleteFunc(next.Values, ours)
	}
	if len(next.Values) > 0 {
		change.Additions = []cloudDNSSet{next}
	}
	var made cloudDNSChange
	status, err = p.send(ctx, call{method: http.MethodPost, path: base + "/changes", in: change, out: &made,
		needs: "dns.changes.create and dns.resourceRecordSets.create, update and delete in project " + p.project})
	// The set has changed since it was read: it differs, exists already, or is gone.
	if status == http.StatusPreconditionFailed || status == http.StatusConflict || status == http.StatusNotFound {
		return fmt.Errorf("%w: %w", errConflict, err)
	}
	if err != nil || !add || made.ID == "" {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.changes == nil || len(p.changes) >= maxChanges {
		p.changes = map[string]string{}
	}
	p.changes[r.FQDN+" "+r.Value] = base + "/changes/" + url.PathEscape(made.ID)
	return nil
}

// Settled asks whether all servers of Cloud DNS have the change.
func (p *cloudDNS) Settled(ctx context.Context, r Record) (bool, error) {
	p.mu.Lock()
	path := p.changes[r.FQDN+" "+r.Value]
	p.mu.Unlock()
	if path == "" {
		return true, nil // an earlier process made it: rely on the answers of the servers
	}
	var change cloudDNSChange
	status, err := p.send(
		ctx,
		call{method: http.MethodGet, path: path, out: &change, needs: "dns.changes.get in project " + p.project},
	)
	if status == http.StatusForbidden && fault.Of(err).Class == fault.Misconfigured {
		return true, nil // roles that were made for other tools may lack the permission
	}
	if err != nil {
		return false, err
	}
	if change.Status != "done" {
		return false, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.changes, r.FQDN+" "+r.Value)
	return true, nil
}
