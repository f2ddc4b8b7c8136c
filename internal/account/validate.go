package account

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"net/mail"
	"net/url"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/egress"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/signer"
)

// SettingsProblem is what can be known of an issuer's account settings without the CA.
type SettingsProblem struct {
	// Wrong is what must be corrected before the CA is asked.
	Wrong []error
	// Binding is what is wrong with the binding to an external account. The CA decides whether one is
	// needed where there is an account key: the account of that key may exist.
	Binding error
}

// CheckLocal checks everything about an issuer's account that needs no CA. The error is that of a
// Secret that could not be read.
func (a *Accounts) CheckLocal(ctx context.Context, issuer *signer.Issuer) (SettingsProblem, error) {
	spec := issuer.GetSpec().ACME
	var l SettingsProblem
	_, bundle := a.bundle(spec)
	for _, err := range []error{checkServer(spec.Server), bundle, checkEmail(issuer)} {
		if err != nil {
			l.Wrong = append(l.Wrong, err)
		}
	}
	keyExists, err := a.checkKey(ctx, issuer, &l)
	if err != nil {
		return l, err
	}
	b := spec.ExternalAccountBinding
	if b == nil || issuer.GetStatus().ACME != nil && issuer.GetStatus().ACME.URI != "" && keyExists {
		return l, nil // a registered account needs its binding no more
	}
	_, err = a.macKey(ctx, issuer, b)
	switch {
	case err == nil:
	case fault.Of(err).Class != fault.Misconfigured:
		return l, err
	case keyExists:
		l.Binding = err
	default:
		l.Wrong = append(l.Wrong, err)
	}
	return l, nil
}

// checkServer reports a server that cannot be an ACME directory.
func checkServer(server string) error {
	u, err := url.Parse(server)
	if err == nil && u.Scheme == "https" && u.Hostname() != "" && u.User == nil {
		return nil
	}
	if err == nil {
		server = u.Redacted()
	}
	return fault.Misconfiguredf("InvalidURL",
		"spec.acme.server %.200q is no https URL: set the URL of the CA's directory, "+
			"such as https://acme-v02.api.letsencrypt.org/directory", server)
}

// bundle reads the certificates that the CA's server is verified with.
func (a *Accounts) bundle(spec *cmacme.ACMEIssuer) ([]*x509.Certificate, error) {
	if len(spec.CABundle) == 0 {
		return nil, nil
	}
	bundle, err := a.Limits.DecodeBundlePEM(spec.CABundle)
	if err != nil {
		return nil, fault.Misconfiguredf("InvalidConfig",
			"spec.acme.caBundle holds no certificate in PEM: put the CA of %.200s there: %w", spec.Server, err)
	}
	return bundle, nil
}

// checkEmail reports an address that no CA takes. One that was registered is not checked again.
func checkEmail(issuer *signer.Issuer) error {
	email := issuer.GetSpec().ACME.Email
	if old := issuer.GetStatus().ACME; email == "" || old != nil && old.URI != "" && old.LastRegisteredEmail == email {
		return nil
	}
	if a, err := mail.ParseAddress(email); err == nil && a.Address == email {
		return nil
	}
	return fault.Misconfiguredf("InvalidConfig",
		"spec.acme.email %.100q is no address: set one, such as ops@example.com, or leave it out", email)
}

// checkKey checks the account key, and reports whether there is one.
func (a *Accounts) checkKey(ctx context.Context, issuer *signer.Issuer, l *SettingsProblem) (exists bool, err error) {
	ref := issuer.GetSpec().ACME.PrivateKey
	if faults := validation.IsDNS1123Subdomain(ref.Name); len(faults) > 0 {
		l.Wrong = append(l.Wrong, fault.Misconfiguredf("InvalidConfig",
			"spec.acme.privateKeySecretRef.name %.100q cannot be the name of a Secret: use lower case letters, digits, '-' "+
				"and '.'", ref.Name))
		return false, nil
	}
	if faults := validation.IsConfigMapKey(keyEntry(ref)); len(faults) > 0 {
		l.Wrong = append(l.Wrong, fault.Misconfiguredf("InvalidConfig",
			"spec.acme.privateKeySecretRef.key %.100q cannot be an entry of a Secret: use letters, digits, '-', '_' and '.', "+
				"or leave it out", ref.Key))
		return false, nil
	}
	_, err = a.key(ctx, issuer)
	switch {
	case err == nil:
		return true, nil
	case apierrors.IsNotFound(err):
		if issuer.GetSpec().ACME.DisableAccountKeyGeneration {
			l.Wrong = append(l.Wrong, fault.Missingf("ErrVerifyACMEAccount",
				"%s with the account key, spec.acme.privateKeySecretRef, does not exist, and "+
					"disableAccountKeyGeneration is set: create it%s",
				issuer.SecretInRequests(ref.Name), issuer.SecretsHint()))
		}
		return false, nil
	case fault.Of(err).Class == fault.Misconfigured:
		l.Wrong = append(l.Wrong, err)
		return true, nil
	}
	return false, fault.Transientf("ErrVerifyACMEAccount", "the account key: %w", err)
}

// ShortProfile is the name of a profile, short enough for a message.
func ShortProfile(name string) string {
	const most = 64
	return egress.Truncate(name, most)
}

// OfferedProfile reports a profile that the CA's directory does not list. A CA that knows no
// profiles would take the order, and ignore the profile.
func OfferedProfile(profile string, listed map[string]string) error {
	if _, is := listed[profile]; is {
		return nil
	}
	const most = 10
	names := slices.Sorted(maps.Keys(listed))
	var has []string
	for _, name := range names[:min(len(names), most)] {
		has = append(has, strconv.Quote(ShortProfile(name)))
	}
	switch n := len(names) - most; {
	case len(names) == 0:
		has = []string{"none: leave it out"}
	case n > 0:
		has = append(has, fmt.Sprintf("%d more", n))
	}
	return fault.Refusedf("InvalidProfile",
		"the CA has no profile %q, which acmeProfile of the Certificate, or spec.acme.profile of the issuer, asks for. Its "+
			"directory lists %s",
		profile, strings.Join(has, ", "))
}
