package provider

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver/dns01/resolver"
)

const azureDNSField = "dns01.azureDNS.clientSecretSecretRef"

var azureDNSService = service{
	field:      "azureDNS",
	configured: func(s *spec) bool { return s.AzureDNS != nil },
	check: func(f *Factory, issuer *signer.Issuer, s *spec) error {
		return checkAzureDNS(f.Ambient, issuer, s.AzureDNS)
	},
	references: func(s *spec) []reference { return referenceIfSet(azureDNSField, s.AzureDNS.ClientSecret) },
	open:       openAzureDNS,
}

// azureClouds has the identity endpoints and the Resource Manager of each cloud.
var azureClouds = map[cmacme.AzureDNSEnvironment]struct {
	cloud   cloud.Configuration
	manager string
}{
	"":                            {cloud.AzurePublic, "https://management.azure.com"},
	cmacme.AzurePublicCloud:       {cloud.AzurePublic, "https://management.azure.com"},
	cmacme.AzureUSGovernmentCloud: {cloud.AzureGovernment, "https://management.usgovcloudapi.net"},
	cmacme.AzureChinaCloud:        {cloud.AzureChina, "https://management.chinacloudapi.cn"},
}

// azureKind has Resource Manager's names for a type of zone.
type azureKind struct{ zones, version, ttl, values string }

var azureKinds = map[cmacme.AzureZoneType]azureKind{
	"":                      {"dnsZones", "2018-05-01", "TTL", "TXTRecords"},
	cmacme.PublicAzureZone:  {"dnsZones", "2018-05-01", "TTL", "TXTRecords"},
	cmacme.PrivateAzureZone: {"privateDnsZones", "2020-06-01", "ttl", "txtRecords"},
}

// azureDNS changes the record sets of zones. It writes a set only if its ETag is unchanged, so that
// a concurrent change by another client is never lost.
type azureDNS struct {
	rest
	group string // the resource group, for messages
	kind  azureKind
	zone  string // found if empty
}

// checkAzureDNS returns an error if a solver's settings are wrong.
func checkAzureDNS(ambient Ambient, issuer *signer.Issuer, c *cmacme.ACMEIssuerDNS01ProviderAzureDNS) error {
	if c.Environment == cmacme.AzureGermanCloud {
		return fault.Misconfiguredf(
			"InvalidSolver",
			"dns01.azureDNS.environment: Microsoft closed AzureGermanCloud in 2021: move the zone to another cloud, and "+
				"name that",
		)
	}
	if _, known := azureClouds[c.Environment]; !known {
		return fault.Misconfiguredf(
			"InvalidSolver",
			"dns01.azureDNS.environment: %.60q is none of AzurePublicCloud, AzureUSGovernmentCloud, AzureChinaCloud",
			c.Environment,
		)
	}
	if _, known := azureKinds[c.ZoneType]; !known {
		return fault.Misconfiguredf(
			"InvalidSolver",
			"dns01.azureDNS.zoneType: %.60q is none of AzurePublicZone, AzurePrivateZone",
			c.ZoneType,
		)
	}
	identity, workload := azureIdentity(c), os.Getenv("AZURE_FEDERATED_TOKEN_FILE") != ""
	switch {
	case c.ClientSecret != nil && (c.ClientID == "" || c.TenantID == ""):
		return fault.Misconfiguredf(
			"InvalidSolver",
			"dns01.azureDNS: clientID, clientSecretSecretRef and tenantID belong together: set all three, or none",
		)
	case c.ClientSecret != nil:
		return nil
	case c.ClientID != "" || c.TenantID != "":
		return fault.Misconfiguredf(
			"InvalidSolver",
			"dns01.azureDNS: clientID and tenantID need clientSecretSecretRef beside them; for a managed or workload "+
				"identity use managedIdentity",
		)
	case !ambient.allows(issuer):
		return noAmbient(issuer, "dns01.azureDNS", "clientID, clientSecretSecretRef and tenantID")
	case identity.ResourceID != "" && workload:
		return fault.Misconfiguredf(
			"InvalidSolver",
			"dns01.azureDNS.managedIdentity.resourceID names an identity of machines, but the controller has a workload "+
				"identity: set clientID instead",
		)
	case identity.TenantID != "" && !workload:
		return fault.Misconfiguredf(
			"InvalidSolver",
			"dns01.azureDNS.managedIdentity.tenantID is for workload identities, and the controller has none "+
				"(AZURE_FEDERATED_TOKEN_FILE is not set): remove it",
		)
	}
	return nil
}

// azureIdentity returns the managed or workload identity of a solver.
func azureIdentity(c *cmacme.ACMEIssuerDNS01ProviderAzureDNS) cmacme.AzureManagedIdentity {
	if c.ManagedIdentity == nil {
		return cmacme.AzureManagedIdentity{}
	}
	return *c.ManagedIdentity
}

// openAzureDNS returns the provider for settings that have been checked, from the cache if it
// exists.
func openAzureDNS(_ context.Context, f *Factory, r request, secrets credentials) (Provider, error) {
	c := r.spec().AzureDNS
	where, identity, password, from := azureClouds[c.Environment], azureIdentity(c), secrets[azureDNSField], ownCredentials
	if c.ClientSecret != nil {
		from = "the Secret of " + azureDNSField
	}
	settings := []string{
		password,
		c.ClientID,
		c.TenantID,
		identity.ClientID,
		identity.ResourceID,
		identity.TenantID,
		string(c.Environment),
		string(c.ZoneType),
		c.SubscriptionID,
		c.ResourceGroupName,
		c.HostedZoneName,
	}
	return openOnce(&f.opened, "azureDNS", settings, func() (Provider, error) {
		// The queue repeats what fails.
		options := azcore.ClientOptions{Cloud: where.cloud, Transport: restClient, Retry: policy.RetryOptions{MaxRetries: -1}}
		token, err := azureCredential(c, identity, password, options)
		if err != nil {
			return nil, fault.Misconfiguredf(
				"InvalidSolver",
				"find credentials for Azure: %s. Correct dns01.azureDNS, or %s",
				brief(err.Error()),
				from,
			)
		}
		p := newAzureDNS(where.manager, c.SubscriptionID, c.ResourceGroupName, c.HostedZoneName, azureKinds[c.ZoneType])
		p.credentials, p.secrets, p.now = from, []string{password}, f.Now
		p.sign = func(request *http.Request, _ []byte) error {
			got, err := token.GetToken(
				request.Context(),
				policy.TokenRequestOptions{Scopes: []string{where.manager + "/.default"}},
			)
			if err != nil {
				return p.tokenFault(err)
			}
			request.Header.Set("Authorization", "Bearer "+got.Token)
			return nil
		}
		return &recordSets[*azureSet]{api: p}, nil
	})
}

// azureCredential returns a service principal if the issuer names a password, else the workload
// identity of the environment if there is one, else the managed identity of the machine.
func azureCredential(
	c *cmacme.ACMEIssuerDNS01ProviderAzureDNS,
	identity cmacme.AzureManagedIdentity,
	password string,
	options azcore.ClientOptions,
) (azcore.TokenCredential, error) {
	if c.ClientSecret != nil {
		return azidentity.NewClientSecretCredential(
			c.TenantID,
			c.ClientID,
			password,
			&azidentity.ClientSecretCredentialOptions{ClientOptions: options},
		)
	}
	if os.Getenv("AZURE_FEDERATED_TOKEN_FILE") != "" {
		return azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
			ClientOptions: options, ClientID: identity.ClientID, TenantID: identity.TenantID,
		})
	}
	machine := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: options}
	switch {
	case identity.ClientID != "":
		machine.ID = azidentity.ClientID(identity.ClientID)
	case identity.ResourceID != "":
		machine.ID = azidentity.ResourceID(identity.ResourceID)
	}
	return azidentity.NewManagedIdentityCredential(machine)
}

func newAzureDNS(manager, subscription, group, zone string, kind azureKind) *azureDNS {
	return &azureDNS{group: group, kind: kind, zone: zone, rest: rest{
		name: "Azure",
		base: fmt.Sprintf(
			"%s/subscriptions/%s/resourceGroups/%s/providers/Microsoft.Network/%s",
			manager,
			url.PathEscape(subscription),
			url.PathEscape(group),
			kind.zones,
		),
		problem: func(body []byte) string {
			var reply struct {
				Error azureError `json:"error"`
				azureError
			}
			if json.Unmarshal(body, &reply) != nil {
				return ""
			}
			for _, e := range []azureError{reply.Error, reply.azureError} {
				if e.Message != "" {
					return fmt.Sprintf("%s (%s)", e.Message, e.Code)
				}
			}
			return ""
		},
	}}
}

// azureError is the body of an error, or is in it.
type azureError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// tokenFault gives the error of a failed token request its class.
func (p *azureDNS) tokenFault(err error) error {
	var refused *azidentity.AuthenticationFailedError
	if !errors.As(err, &refused) || refused.RawResponse == nil {
		return fault.Transientf("PresentError", "get a token of Azure: %s", brief(err.Error()))
	}
	body, err := io.ReadAll(io.LimitReader(refused.RawResponse.Body, maxReply))
	if err != nil {
		return fault.Transientf("PresentError", "get a token of Azure: %w", err)
	}
	return p.tokenRefusal("Azure", refused.RawResponse, body)
}

func (p *azureDNS) zoneNamed(r Record) (string, error) {
	if p.zone != "" && !resolver.Under(r.FQDN, resolver.FQDN(p.zone)) {
		return "", fault.Misconfiguredf(
			"PresentError",
			"%s is not in zone %s: correct dns01.azureDNS.hostedZoneName, or leave it out",
			r.FQDN,
			p.zone,
		)
	}
	return p.zone, nil
}

func (p *azureDNS) zoneAt(ctx context.Context, apex string) (string, error) {
	status, err := p.send(
		ctx,
		call{method: http.MethodGet, path: "/" + url.PathEscape(apex) + "?api-version=" + p.kind.version,
			needs: fmt.Sprintf("Microsoft.Network/%s/read in resource group %s, or set hostedZoneName", p.kind.zones, p.group)},
	)
	switch status {
	case http.StatusForbidden:
		// Credentials for a single zone are refused for all others, also for zones that do not exist.
		return "", zoneRefused{err}
	case http.StatusNotFound:
		return "", errNoZone
	}
	return apex, err
}

func (p *azureDNS) noZone(r Record, _ string) error {
	return fault.Misconfiguredf(
		"PresentError",
		"resource group %s has no zone for %s: create it, or correct dns01.azureDNS.subscriptionID, resourceGroupName, "+
			"zoneType or hostedZoneName",
		p.group,
		r.FQDN,
	)
}

// azureSet is a record set. Its fields are those of public zones; the ones of private zones differ
// in case, which reading ignores.
type azureSet struct {
	ETag       string `json:"etag"`
	Properties struct {
		TTL      int               `json:"TTL"`
		Values   []azureTXT        `json:"TXTRecords"`
		Metadata map[string]string `json:"metadata"`
	} `json:"properties"`
}

// azureTXT is a value, in parts of at most 255 bytes.
type azureTXT struct {
	Value []string `json:"value"`
}

func (t azureTXT) is(value string) bool { return strings.Join(t.Value, "") == value }

func (s *azureSet) has(value string) bool {
	return slices.ContainsFunc(s.Properties.Values, func(t azureTXT) bool { return t.is(value) })
}

func (p *azureDNS) path(zone string, r Record) string {
	name := strings.TrimSuffix(strings.TrimSuffix(r.FQDN, resolver.FQDN(zone)), ".")
	return fmt.Sprintf(
		"/%s/TXT/%s?api-version=%s",
		url.PathEscape(strings.TrimSuffix(zone, ".")),
		url.PathEscape(cmp.Or(name, "@")),
		p.kind.version,
	)
}

// permission names an action on the record sets of a zone.
func (p *azureDNS) permission(verb, zone string) string {
	return fmt.Sprintf("Microsoft.Network/%s/TXT/%s on zone %s", p.kind.zones, verb, zone)
}

func (p *azureDNS) read(ctx context.Context, zone string, r Record) (*azureSet, error) {
	set := &azureSet{}
	get := call{method: http.MethodGet, path: p.path(zone, r), out: set, needs: p.permission("read", zone)}
	if status, err := p.send(ctx, get); err != nil && status != http.StatusNotFound {
		return nil, err
	}
	return set, nil
}

// write writes a set only if its ETag is unchanged.
func (p *azureDNS) write(ctx context.Context, zone string, r Record, was *azureSet, add bool) (string, error) {
	next := call{method: http.MethodPut, path: p.path(zone, r), header: http.Header{"If-Match": {was.ETag}},
		needs:      p.permission("write", zone),
		isConflict: isStatus(http.StatusPreconditionFailed, http.StatusConflict)}
	if was.ETag == "" {
		next.header = http.Header{"If-None-Match": {"*"}}
	}
	values := slices.Clone(was.Properties.Values)
	if add {
		values = append(values, azureTXT{[]string{r.Value}})
	} else {
		values = slices.DeleteFunc(values, func(t azureTXT) bool { return t.is(r.Value) })
		next.isDone = isStatus(http.StatusNotFound)
	}
	if len(values) == 0 {
		next.method, next.needs = http.MethodDelete, p.permission("delete", zone)
	} else {
		properties := map[string]any{
			p.kind.ttl:    cmp.Or(was.Properties.TTL, int(r.TTL.Seconds())),
			p.kind.values: values,
		}
		if len(was.Properties.Metadata) > 0 {
			properties["metadata"] = was.Properties.Metadata
		}
		next.in = map[string]any{"properties": properties}
	}
	status, err := p.send(ctx, next)
	if err != nil && status == http.StatusNotFound {
		return "", goneZone{fault.Misconfiguredf(
			"PresentError",
			"resource group %s has no zone %s: correct dns01.azureDNS.subscriptionID, resourceGroupName, zoneType or "+
				"hostedZoneName",
			p.group,
			zone,
		)}
	}
	return "", err
}
