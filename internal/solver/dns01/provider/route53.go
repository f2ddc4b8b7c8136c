package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/config"
	awscredentials "github.com/aws/aws-sdk-go-v2/credentials"
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
	"github.com/perennial-pki/perennial/internal/solver/dns01/resolver"
	"github.com/perennial-pki/perennial/internal/version"
)

const (
	// awsRegion is the default region of signatures. Route 53 is the same in every region.
	awsRegion = "us-east-1"
	// awsAudience is the audience that STS requires in ServiceAccount tokens.
	awsAudience = "sts.amazonaws.com"
	awsSession  = "perennial"
	// awsAttempts is how often the SDK sends a request. After that the queue retries.
	awsAttempts = 2
)

const (
	route53IDField  = "dns01.route53.accessKeyIDSecretRef"
	route53KeyField = "dns01.route53.secretAccessKeySecretRef"
)

var route53Service = service{
	field:      "route53",
	configured: func(s *spec) bool { return s.Route53 != nil },
	check: func(f *Factory, issuer *signer.Issuer, s *spec) error {
		return checkRoute53(f.Ambient, issuer, s.Route53)
	},
	references: func(s *spec) []reference {
		all := referenceIfSet(route53IDField, s.Route53.SecretAccessKeyID)
		if s.Route53.SecretAccessKey.Name != "" {
			all = append(all, referenceTo(route53KeyField, s.Route53.SecretAccessKey))
		}
		return all
	},
	open:   openRoute53,
	traits: traits(Traits{Settles: true}),
}

// amazonRoute53 changes the record sets of hosted zones. One batch replaces a whole set, and
// removes it exactly as it was read, so that a concurrent change by another client is never lost.
type amazonRoute53 struct {
	api  *route53.Client
	zone string // ID; found by name if empty
}

// route53Account returns the ServiceAccount whose token is exchanged, or nil.
func route53Account(c *cmacme.ACMEIssuerDNS01ProviderRoute53) *cmacme.ServiceAccountRef {
	if c.Auth == nil || c.Auth.Kubernetes == nil {
		return nil
	}
	return c.Auth.Kubernetes.ServiceAccountRef
}

// checkRoute53 returns an error if a solver's settings are wrong.
func checkRoute53(ambient Ambient, issuer *signer.Issuer, c *cmacme.ACMEIssuerDNS01ProviderRoute53) error {
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
	case !id && account == nil && !ambient.allows(issuer):
		return noAmbient(issuer, "dns01.route53", "accessKeyID and secretAccessKeySecretRef, or auth.kubernetes")
	}
	return nil
}

// awsRegions matches the names of regions.
var awsRegions = regexp.MustCompile(`^[a-z0-9-]{1,63}$`)

// openRoute53 returns the provider for settings that have been checked, from the cache if it
// exists.
func openRoute53(ctx context.Context, f *Factory, r request, secrets credentials) (Provider, error) {
	c, account := r.spec().Route53, route53Account(r.spec().Route53)
	key := awsKey{id: cmp.Or(secrets[route53IDField], strings.TrimSpace(c.AccessKeyID)), secret: secrets[route53KeyField]}
	settings := []string{key.id, key.secret, c.Role, c.Region, c.HostedZoneID}
	if account != nil {
		settings = append(settings, r.issuer.SecretNamespace, account.Name, fmt.Sprint(account.TokenAudiences))
	}
	return openOnce(&f.opened, "route53", settings, func() (Provider, error) {
		if err := limiter.Acquire(ctx, r.target); err != nil { // the following asks STS
			return nil, err
		}
		cfg, err := awsConfig(ctx, c, key)
		if err != nil {
			return nil, err
		}
		if account != nil {
			tokens := serviceAccountTokens{f.Tokens, r.issuer, account.Name, account.TokenAudiences}
			cfg.Credentials = aws.NewCredentialsCache(stscreds.NewWebIdentityRoleProvider(sts.NewFromConfig(cfg), c.Role, tokens,
				func(o *stscreds.WebIdentityRoleOptions) { o.RoleSessionName = awsSession }))
		} else if err := assumeRole(ctx, &cfg, c.Role); err != nil {
			return nil, err
		}
		p := &amazonRoute53{api: route53.NewFromConfig(cfg), zone: strings.TrimPrefix(c.HostedZoneID, "/hostedzone/")}
		return &recordSets[*route53Set]{api: p}, nil
	})
}

// awsKey is an access key.
type awsKey struct{ id, secret string }

// awsConfig returns the configuration of clients. It ignores the credentials of the environment if
// the issuer names some.
func awsConfig(ctx context.Context, c *cmacme.ACMEIssuerDNS01ProviderRoute53, key awsKey) (aws.Config, error) {
	options := []func(*config.LoadOptions) error{
		config.WithRetryMaxAttempts(awsAttempts),
		config.WithAppID("perennial-" + version.Get()), // part of the User-Agent
		config.WithAPIOptions([]func(*middleware.Stack) error{capAnswers}),
	}
	if c.Region != "" {
		options = append(options, config.WithRegion(c.Region))
	} else {
		options = append(options, config.WithDefaultRegion(awsRegion))
	}
	if c.SecretAccessKey.Name != "" || route53Account(c) != nil {
		static := awscredentials.NewStaticCredentialsProvider(key.id, key.secret, "")
		options = append(options, config.WithCredentialsProvider(static))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return aws.Config{}, fault.Misconfiguredf("InvalidSolver", "configure AWS: %w", err)
	}
	return cfg, nil
}

// assumeRole lets a configuration use the credentials of a role, unless it has them already: by
// default AWS refuses a role that assumes itself. Without a role it changes nothing.
func assumeRole(ctx context.Context, cfg *aws.Config, role string) error {
	if role == "" {
		return nil
	}
	client := sts.NewFromConfig(*cfg)
	is, err := client.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return awsFault("find out which identity the credentials are", err)
	}
	if !sameRole(aws.ToString(is.Arn), role) {
		cfg.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(client, role,
			func(o *stscreds.AssumeRoleOptions) { o.RoleSessionName = awsSession }))
	}
	return nil
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
	issuer    *signer.Issuer
	name      string
	audiences []string
}

// GetIdentityToken requests a token.
func (t serviceAccountTokens) GetIdentityToken() ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	audiences := t.audiences
	if len(audiences) == 0 {
		audiences = []string{awsAudience}
	}
	token, err := t.ask(ctx, types.NamespacedName{Namespace: t.issuer.SecretNamespace, Name: t.name}, audiences)
	account, err := t.issuer.ServiceAccountInRequests(t.name), t.issuer.ErrorInRequests(err, t.name)
	switch {
	case apierrors.IsNotFound(err):
		return nil, fault.Misconfiguredf(
			"InvalidSolver",
			"%s, dns01.route53.auth.kubernetes.serviceAccountRef, does not exist: create it",
			account,
		)
	case apierrors.IsForbidden(err):
		return nil, fault.Misconfiguredf(
			"InvalidSolver",
			"the controller may not ask for tokens of %s: allow it by a Role with the verb create on "+
				"serviceaccounts/token: %w",
			account,
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
		text, _, _ := strings.Cut(
			api.ErrorMessage(),
			"\n",
		) // if there is more, it is the request, with the token of its session
		text = brief(text)
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
				text,
			)
		case "NoSuchHostedZone", "InvalidInput":
			return fault.Misconfiguredf("PresentError", "%s: %s: %s", doing, api.ErrorCode(), text)
		}
		return fault.Transientf("PresentError", "%s: %s: %s", doing, api.ErrorCode(), text)
	}
	return fault.Transientf("PresentError", "%s: %w", doing, err)
}

func (p *amazonRoute53) zoneNamed(Record) (string, error) { return p.zone, nil }

// zoneAt finds the public hosted zone with an apex.
func (p *amazonRoute53) zoneAt(ctx context.Context, apex string) (string, error) {
	private := ""
	in := &route53.ListHostedZonesByNameInput{DNSName: aws.String(resolver.FQDN(apex))}
	for range maxPages {
		out, err := p.api.ListHostedZonesByName(ctx, in)
		if err != nil {
			return "", awsFault("list the hosted zones by name (route53:ListHostedZonesByName)", err)
		}
		// The list is sorted by name and begins with this one.
		further := out.IsTruncated
		for _, z := range out.HostedZones {
			if resolver.FQDN(aws.ToString(z.Name)) != resolver.FQDN(apex) {
				further = false
				continue
			}
			id := strings.TrimPrefix(aws.ToString(z.Id), "/hostedzone/")
			if z.Config == nil || !z.Config.PrivateZone {
				return id, nil
			}
			private = id
		}
		if !further {
			break
		}
		in.DNSName, in.HostedZoneId = out.NextDNSName, out.NextHostedZoneId
	}
	if private != "" {
		return "", privateZone{private}
	}
	return "", errNoZone
}

func (*amazonRoute53) noZone(r Record, private string) error {
	if private != "" {
		return fault.Misconfiguredf(
			"PresentError",
			"the only hosted zone for %s is private (%s): name it in dns01.route53.hostedZoneID if the CA can see it",
			r.FQDN,
			private,
		)
	}
	return fault.Misconfiguredf(
		"PresentError",
		"there is no public hosted zone for %s in this account: create it, correct the credentials, or set "+
			"dns01.route53.hostedZoneID",
		r.FQDN,
	)
}

// route53Set is a record set, or nil if there is none.
type route53Set r53types.ResourceRecordSet

func (s *route53Set) values() quotedValues {
	if s == nil {
		return nil
	}
	var all quotedValues
	for _, v := range s.ResourceRecords {
		all = append(all, aws.ToString(v.Value))
	}
	return all
}

func (s *route53Set) has(value string) bool { return s.values().has(value) }

func (p *amazonRoute53) read(ctx context.Context, zone string, r Record) (*route53Set, error) {
	list, err := p.api.ListResourceRecordSets(ctx, &route53.ListResourceRecordSetsInput{
		HostedZoneId:    aws.String(zone),
		StartRecordName: aws.String(r.FQDN),
		StartRecordType: r53types.RRTypeTxt,
		MaxItems:        aws.Int32(1),
	})
	if err != nil {
		return nil, route53Fault(r, err)
	}
	for _, s := range list.ResourceRecordSets {
		if s.Type != r53types.RRTypeTxt || resolver.FQDN(aws.ToString(s.Name)) != r.FQDN {
			continue
		}
		if s.SetIdentifier != nil || s.AliasTarget != nil {
			return nil, fault.Misconfiguredf(
				"PresentError",
				"the TXT records of %s are an alias, or chosen by a routing policy: remove those, or point a CNAME elsewhere",
				r.FQDN,
			)
		}
		return (*route53Set)(&s), nil
	}
	return nil, nil
}

// write removes the set exactly as it was read, and creates the next one, in one batch.
func (p *amazonRoute53) write(ctx context.Context, zone string, r Record, was *route53Set, add bool) (string, error) {
	next := &r53types.ResourceRecordSet{
		Name: aws.String(r.FQDN),
		Type: r53types.RRTypeTxt,
		TTL:  aws.Int64(int64(r.TTL.Seconds())),
	}
	var changes []r53types.Change
	if was != nil {
		is := (*r53types.ResourceRecordSet)(was)
		changes = append(changes, r53types.Change{Action: r53types.ChangeActionDelete, ResourceRecordSet: is})
		next.TTL = cmp.Or(is.TTL, next.TTL)
	}
	for _, v := range was.values().with(r.Value, add) {
		next.ResourceRecords = append(next.ResourceRecords, r53types.ResourceRecord{Value: aws.String(v)})
	}
	if len(next.ResourceRecords) > 0 {
		changes = append(changes, r53types.Change{Action: r53types.ChangeActionCreate, ResourceRecordSet: next})
	}
	out, err := p.api.ChangeResourceRecordSets(ctx, &route53.ChangeResourceRecordSetsInput{
		HostedZoneId: aws.String(zone),
		ChangeBatch:  &r53types.ChangeBatch{Comment: aws.String("ACME challenge, by Perennial"), Changes: changes},
	})
	if err != nil {
		return "", route53Fault(r, err)
	}
	if out.ChangeInfo == nil || !add {
		return "", nil
	}
	return strings.TrimPrefix(aws.ToString(out.ChangeInfo.Id), "/change/"), nil
}

// route53Fault gives the error of reading or changing a record set its class.
func route53Fault(r Record, err error) error {
	var refused *r53types.InvalidChangeBatch
	if errors.As(err, &refused) {
		why := strings.Join(append(refused.Messages, refused.ErrorMessage()), " ")
		if strings.Contains(why, "Tried to ") { // AWS says only in words that the set is not as it was read
			return fmt.Errorf("%w: %s", errConflict, brief(why))
		}
		return fault.Misconfiguredf(
			"PresentError",
			"Route 53 refuses to change the TXT records of %s: %s",
			r.FQDN,
			brief(why),
		)
	}
	classed := awsFault("change the TXT records of "+r.FQDN, err)
	var gone *r53types.NoSuchHostedZone
	if errors.As(err, &gone) {
		return goneZone{classed}
	}
	return classed
}

// propagated asks whether a change is INSYNC: all servers of Route 53 have it.
func (p *amazonRoute53) propagated(ctx context.Context, id string) (bool, error) {
	out, err := p.api.GetChange(ctx, &route53.GetChangeInput{Id: aws.String(id)})
	if err != nil {
		var response interface{ HTTPStatusCode() int }
		if errors.As(err, &response) && response.HTTPStatusCode() == http.StatusForbidden {
			return true, nil // policies that were written for other tools may lack route53:GetChange
		}
		return false, awsFault("look at a change (route53:GetChange)", err)
	}
	return out.ChangeInfo.Status == r53types.ChangeStatusInsync, nil
}
