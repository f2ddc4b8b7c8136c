package provider

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/signer"
)

// reference is an entry of a Secret that a field of a solver names.
type reference struct{ field, name, key string }

func referenceTo(field string, s cmmeta.SecretKeySelector) reference {
	return reference{field, s.Name, s.Key}
}

// referenceIfSet returns no reference if the field is not set.
func referenceIfSet(field string, s *cmmeta.SecretKeySelector) []reference {
	if s == nil {
		return nil
	}
	return []reference{referenceTo(field, *s)}
}

// credentials are the entries of Secrets that a solver names, by field.
type credentials map[string]string

// credentialsOf returns the Secret entries with the credentials of a solver.
func (s *service) credentialsOf(of *spec) []reference {
	if s.references == nil {
		return nil
	}
	return s.references(of)
}

// SecretNames returns the Secrets that a solver names.
func SecretNames(s *cmacme.ACMEChallengeSolverDNS01) []string {
	var names []string
	if found := find(s); found != nil {
		for _, r := range found.credentialsOf(s) {
			names = append(names, r.name)
		}
	}
	if s.Provider != nil && s.Provider.SecretRef != nil {
		names = append(names, s.Provider.SecretRef.Name)
	}
	return names
}

// ownCredentials says in messages where the credentials are if an issuer names none.
const ownCredentials = "the credentials of the controller's environment"

// noAmbient is the error of a solver without credentials that may not use those of the environment.
// instead has the fields to set.
func noAmbient(issuer *signer.Issuer, field, instead string) error {
	return fault.Misconfiguredf(
		"InvalidSolver",
		"%s names no credentials, and solvers of %s may not use the controller's own: set %s, or start the controller "+
			"with --%s-ambient-credentials",
		field,
		issuer,
		instead,
		map[string]string{signer.KindIssuer: "issuer", signer.KindClusterIssuer: "cluster-issuer"}[issuer.Kind],
	)
}

// credentials reads the credentials of a solver.
func (f *Factory) credentials(ctx context.Context, issuer *signer.Issuer, of *service, s *spec) (credentials, error) {
	all := credentials{}
	for _, r := range of.credentialsOf(s) {
		value, err := f.credential(ctx, issuer, of, r)
		if err != nil {
			return nil, err
		}
		all[r.field] = value
	}
	return all, nil
}

// credential reads a credential, without the space around it, and checks its form.
func (f *Factory) credential(ctx context.Context, issuer *signer.Issuer, of *service, r reference) (string, error) {
	secretName := issuer.SecretInRequests(r.name)
	if r.key == "" {
		return "", fault.Misconfiguredf("PresentError", "%s names no entry of %s: set key", r.field, secretName)
	}
	got, err := issuer.ReadSecret(ctx, f.Secrets, r.name)
	switch {
	case apierrors.IsNotFound(err):
		return "", fault.Missingf("PresentError", "%s, %s, does not exist: create it with the entry %s%s",
			secretName, r.field, r.key, issuer.SecretsHint())
	case err != nil:
		return "", fault.Transientf("PresentError", "%w", err)
	}
	value, err := entryOf(got, secretName, r.field, r.key)
	if err == nil && of.checkCredential != nil {
		err = of.checkCredential(issuer, r.field, value)
	}
	return value, err
}

// entryOf returns an entry of a Secret without the space around it. A blank entry is an error:
// without a credential some libraries use those of the environment.
func entryOf(secret *corev1.Secret, secretName, field, key string) (string, error) {
	value := strings.TrimSpace(string(secret.Data[key]))
	if value == "" {
		return "", fault.Misconfiguredf("PresentError", "%s, %s, has no entry %s: add it, or correct the key", secretName,
			field, key)
	}
	return value, nil
}
