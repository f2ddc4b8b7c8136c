package shim

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/egress"
	"github.com/perennial-pki/perennial/internal/revocation"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// Annotations of an object for fields of the Certificate that are ours.
const (
	// DeletionPolicyAnnotation says what becomes of the Secret when its Certificate is deleted.
	DeletionPolicyAnnotation = "perennial.dev/deletion-policy"
	// RehearsalIssuerAnnotation names the issuer that must sign first, by its kind and name:
	// ClusterIssuer/letsencrypt-staging.
	RehearsalIssuerAnnotation = "perennial.dev/rehearsal-issuer"
	// RevokeOnDeleteAnnotation, if true, has the certificates revoked when their Certificate is
	// deleted,
	RevokeOnDeleteAnnotation = "perennial.dev/revoke-on-delete"
	// and RevocationReasonAnnotation says why.
	RevocationReasonAnnotation = "perennial.dev/revocation-reason"
)

const (
	// maxItems is how many items a list in an annotation may have, and maxTemplate how long a secret
	// template may be. The API server takes annotations of 256 KiB altogether.
	maxItems    = 1000
	maxTemplate = 64 << 10
)

// setter writes the value of an annotation into a Certificate. The error says which values are
// valid.
type setter func(crt *cmapi.Certificate, value string) error

// annotation is an annotation that sets a field of the Certificate.
type annotation struct {
	key string
	set setter
	// copy copies the field from one spec to another. It is nil for names, because they also come from
	// the hosts.
	copy func(to, from *cmapi.CertificateSpec)
	// unsynced is the field, if another value of it causes a new issuance and cert-manager does not
	// notice that its Certificate lacks what the annotation says.
	unsynced string
}

// setters are the annotations that set a field of the Certificate, each by its key. The algorithm
// comes before the size.
var setters = []annotation{
	{key: cmapi.CommonNameAnnotationKey,
		set:  func(c *cmapi.Certificate, v string) error { c.Spec.CommonName = v; return nil },
		copy: field(func(s *cmapi.CertificateSpec) *string { return &s.CommonName })},
	{key: cmapi.AltNamesAnnotationKey, set: func(c *cmapi.Certificate, v string) error {
		return list(&c.Spec.DNSNames,
			v)
	}},
	{key: cmapi.IPSANAnnotationKey, set: func(c *cmapi.Certificate, v string) error {
		return list(&c.Spec.IPAddresses,
			v)
	}},
	{key: cmapi.URISANAnnotationKey, set: func(c *cmapi.Certificate, v string) error { return list(&c.Spec.URIs, v) },
		copy: field(func(s *cmapi.CertificateSpec) *[]string { return &s.URIs }), unsynced: "spec.uris"},
	{key: cmapi.EmailsAnnotationKey, set: func(c *cmapi.Certificate, v string) error {
		return list(&c.Spec.EmailAddresses,
			v)
	},
		copy:     field(func(s *cmapi.CertificateSpec) *[]string { return &s.EmailAddresses }),
		unsynced: "spec.emailAddresses"},
	subject(cmapi.SubjectOrganizationsAnnotationKey, "organizations",
		func(s *cmapi.X509Subject) *[]string { return &s.Organizations }),
	subject(cmapi.SubjectOrganizationalUnitsAnnotationKey, "organizationalUnits",
		func(s *cmapi.X509Subject) *[]string { return &s.OrganizationalUnits }),
	subject(cmapi.SubjectCountriesAnnotationKey, "countries",
		func(s *cmapi.X509Subject) *[]string { return &s.Countries }),
	subject(cmapi.SubjectProvincesAnnotationKey, "provinces",
		func(s *cmapi.X509Subject) *[]string { return &s.Provinces }),
	subject(cmapi.SubjectLocalitiesAnnotationKey, "localities",
		func(s *cmapi.X509Subject) *[]string { return &s.Localities }),
	subject(cmapi.SubjectPostalCodesAnnotationKey, "postalCodes",
		func(s *cmapi.X509Subject) *[]string { return &s.PostalCodes }),
	subject(cmapi.SubjectStreetAddressesAnnotationKey, "streetAddresses",
		func(s *cmapi.X509Subject) *[]string { return &s.StreetAddresses }),
	{key: cmapi.SubjectSerialNumberAnnotationKey, set: func(c *cmapi.Certificate, v string) error {
		if v != "" {
			subjectOf(&c.Spec).SerialNumber = v
		}
		return nil
	}, copy: field(func(s *cmapi.CertificateSpec) *string { return &subjectOf(s).SerialNumber }),
		unsynced: "spec.subject.serialNumber"},
	{key: cmapi.DurationAnnotationKey, set: func(c *cmapi.Certificate, v string) error {
		return duration(&c.Spec.Duration,
			v)
	},
		copy: field(func(s *cmapi.CertificateSpec) **metav1.Duration { return &s.Duration })},
	{key: cmapi.RenewBeforeAnnotationKey,
		set:  func(c *cmapi.Certificate, v string) error { return duration(&c.Spec.RenewBefore, v) },
		copy: field(func(s *cmapi.CertificateSpec) **metav1.Duration { return &s.RenewBefore })},
	{key: cmapi.RenewBeforePercentageAnnotationKey, set: func(c *cmapi.Certificate, v string) error {
		n, err := number(v, math.MinInt32, math.MaxInt32)
		c.Spec.RenewBeforePercentage = ptr.To(int32(n))
		return err
	}, copy: field(func(s *cmapi.CertificateSpec) **int32 { return &s.RenewBeforePercentage })},
	{key: cmapi.UsagesAnnotationKey, set: usages,
		copy: field(func(s *cmapi.CertificateSpec) *[]cmapi.KeyUsage { return &s.Usages }), unsynced: "spec.usages"},
	{key: cmapi.RevisionHistoryLimitAnnotationKey, set: func(c *cmapi.Certificate, v string) error {
		n, err := number(v, 1, 1<<31-1)
		c.Spec.RevisionHistoryLimit = ptr.To(int32(n))
		return err
	}, copy: field(func(s *cmapi.CertificateSpec) **int32 { return &s.RevisionHistoryLimit })},
	{key: cmapi.PrivateKeyAlgorithmAnnotationKey, set: func(c *cmapi.Certificate, v string) error {
		return oneOf(&keyOf(&c.Spec).Algorithm, v, cmapi.RSAKeyAlgorithm, cmapi.ECDSAKeyAlgorithm, cmapi.Ed25519KeyAlgorithm)
	}, copy: field(func(s *cmapi.CertificateSpec) *cmapi.PrivateKeyAlgorithm { return &keyOf(s).Algorithm })},
	{key: cmapi.PrivateKeyEncodingAnnotationKey, set: func(c *cmapi.Certificate, v string) error {
		return oneOf(&keyOf(&c.Spec).Encoding, v, cmapi.PKCS1, cmapi.PKCS8)
	}, copy: field(func(s *cmapi.CertificateSpec) *cmapi.PrivateKeyEncoding { return &keyOf(s).Encoding })},
	{key: cmapi.PrivateKeySizeAnnotationKey, set: keySize,
		copy: field(func(s *cmapi.CertificateSpec) *int { return &keyOf(s).Size })},
	{key: cmapi.PrivateKeyRotationPolicyAnnotationKey, set: func(c *cmapi.Certificate, v string) error {
		return oneOf(&keyOf(&c.Spec).RotationPolicy, v, cmapi.RotationPolicyAlways, cmapi.RotationPolicyNever)
	}, copy: field(func(s *cmapi.CertificateSpec) *cmapi.PrivateKeyRotationPolicy { return &keyOf(s).RotationPolicy })},
	{key: cmapi.IngressSecretTemplate, set: secretTemplate,
		copy: field(func(s *cmapi.CertificateSpec) **cmapi.CertificateSecretTemplate { return &s.SecretTemplate })},
	{key: signer.ProfileAnnotation, set: func(c *cmapi.Certificate, v string) error { c.Spec.ACMEProfile = v; return nil },
		copy: field(func(s *cmapi.CertificateSpec) *string { return &s.ACMEProfile }), unsynced: "spec.acmeProfile"},
	{key: DeletionPolicyAnnotation, set: func(c *cmapi.Certificate, v string) error {
		return oneOf(&c.Spec.DeletionPolicy, v, cmapi.DeletionPolicyRetain, cmapi.DeletionPolicyDelete)
	}, copy: field(func(s *cmapi.CertificateSpec) *cmapi.DeletionPolicy { return &s.DeletionPolicy })},
	{key: RehearsalIssuerAnnotation, set: rehearsalIssuer,
		copy: field(func(s *cmapi.CertificateSpec) **cmmeta.IssuerReference { return &s.RehearsalIssuerRef })},
	{key: RevokeOnDeleteAnnotation, set: func(c *cmapi.Certificate, v string) error {
		var word string
		err := oneOf(&word, v, "true", "false")
		revocationOf(&c.Spec).OnDelete = word == "true"
		return err
	}, copy: field(func(s *cmapi.CertificateSpec) *bool { return &revocationOf(s).OnDelete })},
	{key: RevocationReasonAnnotation, set: func(c *cmapi.Certificate, v string) error {
		return oneOf(&revocationOf(&c.Spec).Reason, v, slices.Sorted(maps.Keys(revocation.Reasons))...)
	}, copy: field(func(s *cmapi.CertificateSpec) *cmapi.RevocationReason { return &revocationOf(s).Reason })},
}

// field copies the field that at returns.
func field[T any](at func(*cmapi.CertificateSpec) *T) func(to, from *cmapi.CertificateSpec) {
	return func(to, from *cmapi.CertificateSpec) { *at(to) = *at(from) }
}

// translate writes all annotations into a Certificate. Each mistake names its annotation.
func translate(crt *cmapi.Certificate, annotations map[string]string) []Mistake {
	var mistakes []Mistake
	for _, s := range setters {
		value, found := annotations[s.key]
		if !found {
			continue
		}
		if err := s.set(crt, value); err != nil {
			mistakes = append(mistakes, Mistake{Field: s.key, Message: err.Error()})
		}
	}
	return mistakes
}

func subjectOf(s *cmapi.CertificateSpec) *cmapi.X509Subject {
	if s.Subject == nil {
		s.Subject = &cmapi.X509Subject{}
	}
	return s.Subject
}

func keyOf(s *cmapi.CertificateSpec) *cmapi.CertificatePrivateKey {
	if s.PrivateKey == nil {
		s.PrivateKey = &cmapi.CertificatePrivateKey{}
	}
	return s.PrivateKey
}

func revocationOf(s *cmapi.CertificateSpec) *cmapi.CertificateRevocation {
	if s.Revocation == nil {
		s.Revocation = &cmapi.CertificateRevocation{}
	}
	return s.Revocation
}

// list adds the items of a list to those that are there.
func list(to *[]string, value string) error {
	for item := range strings.SplitSeq(value, ",") {
		if item = strings.TrimSpace(item); item != "" && !slices.Contains(*to, item) {
			*to = append(*to, item)
		}
		if len(*to) > maxItems {
			return fmt.Errorf("more than %d items", maxItems)
		}
	}
	return nil
}

func subject(key, name string, of func(*cmapi.X509Subject) *[]string) annotation {
	return annotation{key: key, set: func(c *cmapi.Certificate, value string) error {
		items, err := pki.SplitCSV(value)
		switch {
		case err != nil:
			return fmt.Errorf("%w: write a list separated by commas, with quotes around what has commas itself", err)
		case len(items) > maxItems:
			return fmt.Errorf("more than %d items", maxItems)
		case len(items) > 0:
			*of(subjectOf(&c.Spec)) = items
		}
		return nil
	}, copy: field(func(s *cmapi.CertificateSpec) *[]string { return of(subjectOf(s)) }), unsynced: "spec.subject." + name}
}

func duration(to **metav1.Duration, value string) error {
	d, err := time.ParseDuration(value)
	if err != nil {
		return fmt.Errorf(
			"%q is not a duration: write a number with the unit h, m or s, such as 2160h for 90 days",
			short(value),
		)
	}
	*to = &metav1.Duration{Duration: d}
	return nil
}

func number(value string, low, high int) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("%q is not a number from %d to %d", short(value), low, high)
	}
	return n, nil
}

func oneOf[T ~string](to *T, value string, valid ...T) error {
	if !slices.Contains(valid, T(value)) {
		return fmt.Errorf("%q is none of %s", short(value), joined(valid))
	}
	*to = T(value)
	return nil
}

func joined[T ~string](values []T) string {
	var s []string
	for _, v := range values {
		s = append(s, string(v))
	}
	return strings.Join(s, ", ")
}

func keySize(c *cmapi.Certificate, value string) error {
	key := keyOf(&c.Spec)
	n, err := strconv.Atoi(value)
	switch {
	case err != nil:
		return fmt.Errorf("%q is not a number", short(value))
	case key.Algorithm == cmapi.ECDSAKeyAlgorithm && !slices.Contains([]int{256, 384, 521}, n):
		return fmt.Errorf("%d is no size of an ECDSA key: write 256, 384 or 521", n)
	case (key.Algorithm == "" || key.Algorithm == cmapi.RSAKeyAlgorithm) && (n < 2048 || n > 8192):
		return fmt.Errorf("%d is no size of an RSA key: write a number from 2048 to 8192", n)
	}
	key.Size = n
	return nil
}

func usages(c *cmapi.Certificate, value string) error {
	var words []string
	if err := list(&words, value); err != nil {
		return err
	}
	var found []cmapi.KeyUsage
	for _, w := range words {
		if !slices.Contains(knownUsages, cmapi.KeyUsage(w)) {
			return fmt.Errorf("%q is none of %s", short(w), joined(knownUsages))
		}
		found = append(found, cmapi.KeyUsage(w))
	}
	if len(found) > 0 {
		c.Spec.Usages = found
	}
	return nil
}

// knownUsages are those of the API.
var knownUsages = []cmapi.KeyUsage{
	"signing",
	"digital signature",
	"content commitment",
	"key encipherment",
	"key agreement",
	"data encipherment",
	"cert sign",
	"crl sign",
	"encipher only",
	"decipher only",
	"any",
	"server auth",
	"client auth",
	"code signing",
	"email protection",
	"s/mime",
	"ipsec end system",
	"ipsec tunnel",
	"ipsec user",
	"timestamping",
	"ocsp signing",
	"microsoft sgc",
	"netscape sgc",
}

// rehearsalIssuer reads KIND/NAME or, of an issuer of another system, KIND.GROUP/NAME.
func rehearsalIssuer(c *cmapi.Certificate, value string) error {
	resource, name, found := strings.Cut(value, "/")
	kind, group, external := strings.Cut(resource, ".")
	switch {
	case !found || kind == "" || name == "" || strings.Contains(name, "/") || external && group == "":
	case !external && kind != signer.KindIssuer && kind != signer.KindClusterIssuer:
	default:
		c.Spec.RehearsalIssuerRef = &cmmeta.IssuerReference{
			Name:  name,
			Kind:  kind,
			Group: cmp.Or(group, cmmeta.DefaultIssuerGroup),
		}
		return nil
	}
	return fmt.Errorf(
		"%q is no issuer: write ClusterIssuer/NAME, Issuer/NAME or, of another system, KIND.GROUP/NAME",
		short(value),
	)
}

func secretTemplate(c *cmapi.Certificate, value string) error {
	if len(value) > maxTemplate {
		return fmt.Errorf("longer than %d KiB", maxTemplate>>10)
	}
	decoder := json.NewDecoder(strings.NewReader(value))
	decoder.DisallowUnknownFields()
	template := &cmapi.CertificateSecretTemplate{}
	if err := decoder.Decode(template); err != nil {
		return fmt.Errorf(`not JSON of the form {"annotations": {...}, "labels": {...}}: %w`, err)
	}
	for key := range template.Annotations {
		if strings.HasPrefix(key, "cert-manager.io/") && key != cmapi.AllowsInjectionFromSecretAnnotation {
			return fmt.Errorf("annotation %q belongs to cert-manager.io: leave it out", short(key))
		}
	}
	if len(template.Annotations)+len(template.Labels) > 0 {
		c.Spec.SecretTemplate = template
	}
	return nil
}

// short cuts a text that a message quotes.
func short(s string) string { return egress.Truncate(s, 60) }
