package dns01

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/route53"
	r53types "github.com/aws/aws-sdk-go-v2/service/route53/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/signer"
)

const (
	// awsRegion is the default region of signatures. Route 53 is the same in every region.
	awsRegion = "us-east-1"
	// awsAudience is the audience that STS requires in ServiceAccount tokens.
	awsAudience = "sts.amazonaws.com"
	awsSession  = "perennial"
	// awsAttempts is how often the SDK sends a request. After that the queue retries.
	awsAttempts = 2
	// maxChanges is how many changes are remembered until all servers have them.
	maxChanges = 1000
)

// amazonRoute53 changes the record sets of hosted zones. One batch replaces a whole set, and
// removes it exactly as it was read, so that a concurrent change by another client is never lost.
type amazonRoute53 struct {
	api  *route53.Client
	zone string // ID; found by name if empty

	zones zoneNames

	mu      sync.Mutex
	changes map[string]string // IDs of the last changes by name and value
}

// route53Account returns the ServiceAccount whose token is exchanged, or nil.
func route53Account(c *cmacme.ACMEIssuerDNS01ProviderRoute53) *cmacme.ServiceAccountRef {
	if c.Auth == nil || c.Auth.Kubernetes == nil {
		return nil
	}
	return c.Auth.Kubernetes.ServiceAccountRef
}

// checkRoute53 returns an error if a solver's settings are wrong.
func (s *Solver) checkRoute53(issuer *signer.Issuer, c *cmacme.ACMEIssuerDNS01ProviderRoute53) error {
	id, key, account := c.AccessKeyID != "" || c.SecretAccessKeyID != nil, c.SecretAccessKey.Name != "", route53Account(c)
	switch {
	case c.Region != "" && !awsRegions.MatchString(c.Region): // it becomes part of host names
		return fault.Misconfiguredf("InvalidSolver",
			"dns01.route53.region: %.60q is not a region of AWS: name one such as us-east-1, or leave it out", c.Region)
	case id != key:
		return fault.Misconfiguredf(
			"InvalidSolver",
			"dns01.route53 has an access key ID or a secret access key, but not both: set both, or none",
		)
	case id && account != nil:
		return fault.Misconfiguredf(
			"InvalidSolver",
			"dns01.route53 has both an access key and auth.kubernetes: keep one of them",
		)
	case account != nil && c.Role == "":
		return fault.Misconfiguredf(
			"InvalidSolver",
			"dns01.route53.auth.kubernetes needs role: the ARN of the role that the ServiceAccount may assume",
		)
	case !id && account == nil && !s.Ambient.allows(issuer):
		return noAmbient(issuer, "dns01.route53", "accessKeyID and secretAccessKeySecretRef, or auth.kubernetes")
	}
	return nil
}

// awsRegions matches the names of regions.
var awsRegions = regexp.MustCompile(`^[a-z0-9-]{1,63}$`)

// route53 returns the provider for settings that have been checked, from the pool if it exists.
func (s *Solver) route53(
	ctx context.Context,
	issuer *signer.Issuer,
	c *cmacme.ACMEIssuerDNS01ProviderRoute53,
	service limiter.Target,
	secret func(field, name, key string) (string, error),
) (Provider, error) {
	id, key := strings.TrimSpace(c.AccessKeyID), ""
	var err error
	if ref := c.SecretAccessKeyID; ref != nil {
		if id, err = secret("dns01.route53.accessKeyIDSecretRef", ref.Name, ref.Key); err != nil {
			return nil, err
		}
	}
	if c.SecretAccessKey.Name != "" {
		if key, err = secret(
			"dns01.route53.secretAccessKeySecretRef",
			c.SecretAccessKey.Name,
			c.SecretAccessKey.Key,
		); err != nil {
			return nil, err
		}
	}
	account := route53Account(c)
	settings := []string{id, key, c.Role, c.Region, c.HostedZoneID}
	if account != nil {
		settings = append(settings, issuer.SecretNamespace, account.Name, fmt.Sprint(account.TokenAudiences))
	}
	return s.pool.get("route53", settings, func() (Provider, error) {
		if err := limiter.Enter(ctx, service); err != nil { // the following asks STS for the identity
			return nil, err
		}
		options := []func(*config.LoadOptions) error{
			config.WithRetryMaxAttempts(
				awsAttempts,
			),
			config.WithAppID("perennial"),
			config.WithAPIOptions([]func(*middleware.Stack) error{capAnswers}),
		}
		if c.Region != "" {
			options = append(options, config.WithRegion(c.Region))
		} else {
			options = append(options, config.WithDefaultRegion(awsRegion))
		}
		if c.SecretAccessKey.Name != "" || account != nil { // ignore the credentials of the environment
			options = append(options, config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(id, key, "")))
		}
		cfg, err := config.LoadDefaultConfig(ctx, options...)
		if err != nil {
			return nil, fault.Misconfiguredf("InvalidSolver", "configure AWS: %w", err)
		}
		role := c.Role
		if account != nil {
			tokens := serviceAccountTokens{
				s.Tokens,
				types.NamespacedName{Namespace: issuer.SecretNamespace, Name: account.Name},
				account.TokenAudiences,
			}
			cfg.Credentials = aws.NewCredentialsCache(stscreds.NewWebIdentityRoleProvider(sts.NewFromConfig(cfg), role, tokens,
				func(o *stscreds.WebIdentityRoleOptions) { o.RoleSessionName = awsSession }))
			role = ""
		}
		if role != "" {
			client := sts.NewFromConfig(cfg)
			is, err := client.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
			if err != nil {
				return nil, awsFault("find out which identity the credentials are", err)
			}
			// Skip a role that is already assumed: by default AWS refuses a role that assumes itself.
			if !sameRole(aws.ToString(is.Arn), role) {
				cfg.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(client, role,
					func(o *stscreds.AssumeRoleOptions) { o.RoleSessionName = awsSession }))
			}
		}
		return &amazonRoute53{api: route53.NewFromConfig(cfg), zone: strings.TrimPrefix(c.HostedZoneID, "/hostedzone/")}, nil
	})
}

// capAnswers bounds the length of answers.
func capAnswers(stack *middleware.Stack) error {
	return stack.Deserialize.Add(
		middleware.DeserializeMiddlewareFunc(
			"capAnswers",
			func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (
				middleware.DeserializeOutput, middleware.Metadata, error,
			) {
				out, metadata, err := next.HandleDeserialize(ctx, in)
				if response, ok := out.RawResponse.(*smithyhttp.Response); ok && response.Body != nil {
					capBody(response.Response)
				}
				return out, metadata, err
			},
		),
		middleware.After,
	)
}

// serviceAccountTokens requests the ServiceAccount tokens that are exchanged for credentials.
type serviceAccountTokens struct {
	ask       Tokens
	account   types.NamespacedName
	audiences []string
}

func (t serviceAccountTokens) GetIdentityToken() ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), attempt)
	defer cancel()
	audiences := t.audiences
	if len(audiences) == 0 {
		audiences = []string{awsAudience}
	}
	token, err := t.ask(ctx, t.account, audiences)
	switch {
	case apierrors.IsNotFound(err):
		return nil, fault.Misconfiguredf(
			"InvalidSolver",
			"ServiceAccount %s, dns01.route53.auth.kubernetes.serviceAccountRef, does not exist: create it",
			t.account,
		)
	case apierrors.IsForbidden(err):
		return nil, fault.Misconfiguredf(
			"InvalidSolver",
			"the controller may not ask for tokens of ServiceAccount %s: allow it by a Role with the verb create on "+
				"serviceaccounts/token: %w",
			t.account,
			err,
		)
	case err != nil:
		return nil, err
	}
	return []byte(token), nil
}

// sameRole reports whether an identity is that of a role already:
// arn:aws:sts::ACCOUNT:assumed-role/NAME/SESSION of arn:aws:iam::ACCOUNT:role/PATH/NAME.
func sameRole(identity, role string) bool {
	is, err := arn.Parse(identity)
	if err != nil {
		return false
	}
	want, err := arn.Parse(role)
	if err != nil {
		return false
	}
	name, assumed := strings.CutPrefix(is.Resource, "assumed-role/")
	name, _, _ = strings.Cut(name, "/")
	wanted, isRole := strings.CutPrefix(want.Resource, "role/")
	return assumed && isRole && is.AccountID == want.AccountID && is.Partition == want.Partition &&
		name == wanted[strings.LastIndex(wanted, "/")+1:]
}

// awsFault gives an error of AWS its class.
func awsFault(doing string, err error) error {
	var known *fault.Error
	if errors.As(err, &known) {
		return known
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		said, _, _ := strings.Cut(
			api.ErrorMessage(),
			"\n",
		) // if there is more, it is the request, with the token of its session
		said = brief(said)
		switch api.ErrorCode() {
		case "AccessDenied",
			"AccessDeniedException",
			"InvalidClientTokenId",
			"SignatureDoesNotMatch",
			"UnrecognizedClientException",
			"ExpiredToken",
			"InvalidIdentityToken":
			return fault.Misconfiguredf(
				"PresentError",
				"AWS does not let us %s: %s: %s. Correct the credentials or their policy",
				doing,
				api.ErrorCode(),
				said,
			)
		case "NoSuchHostedZone", "InvalidInput":
			return fault.Misconfiguredf("PresentError", "%s: %s: %s", doing, api.ErrorCode(), said)
		}
		return fault.Transientf("PresentError", "%s: %s: %s", doing, api.ErrorCode(), said)
	}
	return fault.Transientf("PresentError", "%s: %w", doing, err)
}

// hostedZone finds the hosted zone of a name: the public one with the longest name.
func (p *amazonRoute53) hostedZone(ctx context.Context, r Record) (string, error) {
	if p.zone != "" {
		return p.zone, nil
	}
	if id := p.zones.get(r.Zone); id != "" {
		return id, nil
	}
	private := ""
	for _, apex := range apexes(r) {
		in := &route53.ListHostedZonesByNameInput{DNSName: aws.String(fqdn(apex))}
		for range maxPages {
			out, err := p.api.ListHostedZonesByName(ctx, in)
			if err != nil {
				return "", awsFault("list the hosted zones by name (route53:ListHostedZonesByName)", err)
			}
			// The list is sorted by name and begins with this one.
			further := out.IsTruncated
			for _, z := range out.HostedZones {
				if fqdn(aws.ToString(z.Name)) != fqdn(apex) {
					further = false
					continue
				}
				id := strings.TrimPrefix(aws.ToString(z.Id), "/hostedzone/")
				if z.Config != nil && z.Config.PrivateZone {
					private = id
					continue
				}
				p.zones.put(r, apex, id)
				return id, nil
			}
			if !further {
				break
			}
			in.DNSName, in.HostedZoneId = out.NextDNSName, out.NextHostedZoneId
		}
	}
	if private != "" {
		return "", fault.Misconfiguredf(
			"PresentError",
			"the only hosted zone for %s is private (%s): name it in dns01.route53.hostedZoneID if the CA can see it",
			r.FQDN,
			private,
		)
	}
	return "", fault.Misconfiguredf(
		"PresentError",
		"there is no public hosted zone for %s in this account: create it, correct the credentials, or set "+
			"dns01.route53.hostedZoneID",
		r.FQDN,
	)
}

// Present adds the value to the record set.
func (p *amazonRoute53) Present(ctx context.Context, r Record) error {
	return p.replace(ctx, r, func(values []string) []string {
		if slices.Contains(values, quote(r.Value)) {
			return values
		}
		return append(values, quote(r.Value))
	})
}

// CleanUp removes the value from the record set.
func (p *amazonRoute53) CleanUp(ctx context.Context, r Record) error {
	p.mu.Lock()
	delete(p.changes, r.FQDN+" "+r.Value)
	p.mu.Unlock()
	return p.replace(ctx, r, func(values []string) []string {
		return slices.DeleteFunc(values, func(v string) bool { return v == quote(r.Value) })
	})
}

func quote(value string) string { return `"` + value + `"` }

// replace changes the values of a record set.
func (p *amazonRoute53) replace(ctx context.Context, r Record, change func([]string) []string) error {
	zone, err := p.hostedZone(ctx, r)
	if err != nil {
		return err
	}
	err = swap(r, func() error {
		err := p.replaceOnce(ctx, zone, r, change)
		var refused *r53types.InvalidChangeBatch
		if !errors.As(err, &refused) {
			return err
		}
		why := strings.Join(append(refused.Messages, refused.ErrorMessage()), " ")
		if strings.Contains(why, "Tried to ") { // the set is not as it was read
			return fmt.Errorf("%w: %s", errConflict, brief(why))
		}
		return fault.Misconfiguredf(
			"PresentError",
			"Route 53 refuses to change the TXT records of %s: %s",
			r.FQDN,
			brief(why),
		)
	})
	var gone *r53types.NoSuchHostedZone
	if errors.As(err, &gone) {
		p.zones.forget(r.Zone)
	}
	if err != nil {
		return awsFault("change the TXT records of "+r.FQDN, err)
	}
	return nil
}

func (p *amazonRoute53) replaceOnce(ctx context.Context, zone string, r Record, change func([]string) []string) error {
	list, err := p.api.ListResourceRecordSets(ctx, &route53.ListResourceRecordSetsInput{
		HostedZoneId: aws.String(
			zone,
		),
		StartRecordName: aws.String(r.FQDN),
		StartRecordType: r53types.RRTypeTxt,
		MaxItems:        aws.Int32(1),
	})
	if err != nil {
		return err
	}
	var is *r53types.ResourceRecordSet
	for i := range list.ResourceRecordSets {
		if s := &list.ResourceRecordSets[i]; s.Type == r53types.RRTypeTxt && fqdn(aws.ToString(s.Name)) == r.FQDN {
			is = s
		}
	}
	var was []string
	if is != nil {
		if is.SetIdentifier != nil || is.AliasTarget != nil {
			return fault.Misconfiguredf(
				"PresentError",
				"the TXT records of %s are an alias, or chosen by a routing policy: remove those, or point a CNAME elsewhere",
				r.FQDN,
			)
		}
		for _, v := range is.ResourceRecords {
			was = append(was, aws.ToString(v.Value))
		}
	}
	should := change(slices.Clone(was))
	if slices.Equal(was, should) {
		return nil
	}
	var changes []r53types.Change
	if is != nil {
		changes = append(changes, r53types.Change{Action: r53types.ChangeActionDelete, ResourceRecordSet: is})
	}
	if len(should) > 0 {
		next := &r53types.ResourceRecordSet{
			Name: aws.String(r.FQDN),
			Type: r53types.RRTypeTxt,
			TTL:  aws.Int64(int64(r.TTL.Seconds())),
		}
		if is != nil && is.TTL != nil {
			next.TTL = is.TTL
		}
		for _, v := range should {
			next.ResourceRecords = append(next.ResourceRecords, r53types.ResourceRecord{Value: aws.String(v)})
		}
		changes = append(changes, r53types.Change{Action: r53types.ChangeActionCreate, ResourceRecordSet: next})
	}
	out, err := p.api.ChangeResourceRecordSets(ctx, &route53.ChangeResourceRecordSetsInput{
		HostedZoneId: aws.String(
			zone,
		),
		ChangeBatch: &r53types.ChangeBatch{Comment: aws.String("ACME challenge, by Perennial"), Changes: changes},
	})
	if err != nil {
		return err
	}
	if out.ChangeInfo != nil && len(should) > len(was) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.changes == nil || len(p.changes) >= maxChanges {
			p.changes = map[string]string{}
		}
		p.changes[r.FQDN+" "+r.Value] = strings.TrimPrefix(aws.ToString(out.ChangeInfo.Id), "/change/")
	}
	return nil
}

// Settled asks whether the change is INSYNC: all servers of Route 53 have it.
func (p *amazonRoute53) Settled(ctx context.Context, r Record) (bool, error) {
	p.mu.Lock()
	id := p.changes[r.FQDN+" "+r.Value]
	p.mu.Unlock()
	if id == "" {
		return true, nil // an earlier process made it: rely on the answers of the servers
	}
	out, err := p.api.GetChange(ctx, &route53.GetChangeInput{Id: aws.String(id)})
	if err != nil {
		var response interface{ HTTPStatusCode() int }
		if errors.As(err, &response) && response.HTTPStatusCode() == http.StatusForbidden {
			return true, nil // policies that were written for other tools may lack route53:GetChange
		}
		return false, awsFault("look at a change (route53:GetChange)", err)
	}
	if out.ChangeInfo.Status != r53types.ChangeStatusInsync {
		return false, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.changes, r.FQDN+" "+r.Value)
	return true, nil
}
