package lifecycle

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/pki"
)

// secretManager is the field manager of all that the controller writes into the Secrets of
// Certificates. It is cert-manager's, so that the controller can change and remove what
// cert-manager wrote.
const secretManager = "cert-manager-certificates-issuing"

// temporaryLife is how long a temporary certificate is valid. It is replaced as soon as the issuer
// answers.
const temporaryLife = 90 * 24 * time.Hour

// secretConfig has the fields of a Secret that the controller is to own.
type secretConfig struct {
	labels, annotations map[string]string
	data                map[string][]byte
	owner               *metav1.OwnerReference
	// keystores has the names of the entries with keystores, which have other bytes each time they are
	// made. Their values in data are nil until encodeKeystores makes them.
	keystores []string
}

// configOf returns what the Secret is to be, but for its keystores.
func configOf(o *Observation, c *Content) (*secretConfig, error) {
	spec := &o.Certificate.Spec
	_, encoding := keySpec(spec)
	keyPEM, err := pki.EncodeKeyPEM(c.Key, encoding)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	if o.Secret != nil {
		keyPEM = keepBytes(o, c.Key, keyPEM)
	}
	chainPEM := pki.EncodeCertificatePEM(c.Chain...)
	if o.Secret != nil {
		chainPEM = keepChain(o, c.Chain, chainPEM)
	}
	cfg := &secretConfig{
		labels:      map[string]string{cmapi.PartOfCertManagerControllerLabelKey: "true"},
		annotations: map[string]string{},
		data:        map[string][]byte{corev1.TLSPrivateKeyKey: keyPEM, corev1.TLSCertKey: chainPEM},
	}
	if len(c.CA) > 0 {
		cfg.data[cmmeta.TLSCAKey] = pki.PEMForAll(c.CA)
	}
	for _, f := range spec.AdditionalOutputFormats {
		switch f.Type {
		case cmapi.CertificateOutputFormatDER:
			block, _ := pem.Decode(keyPEM)
			cfg.data[cmapi.CertificateOutputFormatDERKey] = block.Bytes
		case cmapi.CertificateOutputFormatCombinedPEM:
			cfg.data[cmapi.CertificateOutputFormatCombinedPEMKey] = pki.CombinedPEM(keyPEM, chainPEM)
		}
	}
	if t := spec.SecretTemplate; t != nil {
		for k, v := range t.Labels {
			if k != cmapi.PartOfCertManagerControllerLabelKey {
				cfg.labels[k] = v
			}
		}
		maps.Copy(cfg.annotations, t.Annotations)
	}
	details, err := detailsOf(c.Chain[0])
	if err != nil {
		return nil, err
	}
	maps.Copy(cfg.annotations, details)
	if c.CertificateName != "" {
		cfg.annotations[cmapi.CertificateNameKey] = c.CertificateName
	}
	maps.Copy(cfg.annotations, issuerAnnotations(o.Secret, c.Issuer))
	if c.Temporary {
		cfg.annotations[temporaryAnnotation] = "true"
	}
	cfg.owner = ownerOf(o)
	if jks := jksOf(spec); jks != nil {
		cfg.keystores = append(cfg.keystores, cmapi.JKSSecretKey)
		if len(c.CA) > 0 {
			cfg.keystores = append(cfg.keystores, cmapi.JKSTruststoreKey)
		}
	}
	if p12 := pkcs12Of(spec); p12 != nil {
		cfg.keystores = append(cfg.keystores, cmapi.PKCS12SecretKey)
		if len(c.CA) > 0 {
			cfg.keystores = append(cfg.keystores, cmapi.PKCS12TruststoreKey)
		}
	}
	return cfg, nil
}

// issuerAnnotations are the annotations that name the issuer. If the Secret already names the same
// issuer, its annotations stay as they are: cert-manager leaves kind and group empty if the
// Certificate does.
func issuerAnnotations(secret *corev1.Secret, issuer cmmeta.IssuerReference) map[string]string {
	if issuer.Name == "" {
		return nil
	}
	if secret != nil && sameIssuer(issuerOf(secret), issuer) {
		had := map[string]string{}
		for _, k := range []string{cmapi.IssuerNameAnnotationKey, cmapi.IssuerKindAnnotationKey,
			cmapi.IssuerGroupAnnotationKey} {
			if v, ok := secret.Annotations[k]; ok {
				had[k] = v
			}
		}
		return had
	}
	return map[string]string{
		cmapi.IssuerNameAnnotationKey:  issuer.Name,
		cmapi.IssuerKindAnnotationKey:  issuer.KindOrDefault(),
		cmapi.IssuerGroupAnnotationKey: issuer.GroupOrDefault(),
	}
}

// issuerOf is the issuer that the annotations of a Secret name. Its Name is empty if they name
// none.
func issuerOf(secret *corev1.Secret) cmmeta.IssuerReference {
	return cmmeta.IssuerReference{
		Name:  secret.Annotations[cmapi.IssuerNameAnnotationKey],
		Kind:  secret.Annotations[cmapi.IssuerKindAnnotationKey],
		Group: secret.Annotations[cmapi.IssuerGroupAnnotationKey],
	}
}

// keepBytes returns the private key as the Secret has it, if that is the same key in the same form:
// a change of line ends alone would make workloads reload for nothing.
func keepBytes(o *Observation, key crypto.Signer, encoded []byte) []byte {
	had := o.Secret.Data[corev1.TLSPrivateKeyKey]
	was, err := o.Limits.DecodeKeyPEM(had)
	if err != nil || !pki.SamePublicKey(was.Public(), key.Public()) {
		return encoded
	}
	a, _ := pem.Decode(had)
	b, _ := pem.Decode(encoded)
	if a == nil || a.Type != b.Type {
		return encoded
	}
	return had
}

func keepChain(o *Observation, chain []*x509.Certificate, encoded []byte) []byte {
	had := o.Secret.Data[corev1.TLSCertKey]
	was, err := o.Limits.DecodeChainPEM(had)
	if err != nil || !slices.EqualFunc(was, chain, (*x509.Certificate).Equal) {
		return encoded
	}
	return pki.PEMForAll(had)
}

// detailsOf are the annotations that describe a certificate. Some of them are set even if empty, as
// in cert-manager.
func detailsOf(cert *x509.Certificate) (map[string]string, error) {
	subject := cert.Subject
	var ips, uris []string
	for _, ip := range cert.IPAddresses {
		ips = append(ips, ip.String())
	}
	for _, u := range cert.URIs {
		uris = append(uris, u.String())
	}
	details := map[string]string{cmapi.CommonNameAnnotationKey: subject.CommonName}
	if subject.SerialNumber != "" {
		details[cmapi.SubjectSerialNumberAnnotationKey] = subject.SerialNumber
	}
	for _, list := range []struct {
		key    string
		values []string
		always bool
	}{
		{cmapi.AltNamesAnnotationKey, cert.DNSNames, true},
		{cmapi.IPSANAnnotationKey, ips, true},
		{cmapi.URISANAnnotationKey, uris, true},
		{cmapi.EmailsAnnotationKey, cert.EmailAddresses, false},
		{cmapi.SubjectOrganizationsAnnotationKey, subject.Organization, false},
		{cmapi.SubjectOrganizationalUnitsAnnotationKey, subject.OrganizationalUnit, false},
		{cmapi.SubjectCountriesAnnotationKey, subject.Country, false},
		{cmapi.SubjectProvincesAnnotationKey, subject.Province, false},
		{cmapi.SubjectLocalitiesAnnotationKey, subject.Locality, false},
		{cmapi.SubjectPostalCodesAnnotationKey, subject.PostalCode, false},
		{cmapi.SubjectStreetAddressesAnnotationKey, subject.StreetAddress, false},
	} {
		if len(list.values) == 0 && !list.always {
			continue
		}
		line, err := pki.JoinCSV(list.values)
		if err != nil {
			return nil, fmt.Errorf("annotation %s: %w", list.key, err)
		}
		details[list.key] = line
	}
	return details, nil
}

func jksOf(spec *cmapi.CertificateSpec) *cmapi.JKSKeystore {
	if spec.Keystores == nil || spec.Keystores.JKS == nil || !spec.Keystores.JKS.Create {
		return nil
	}
	return spec.Keystores.JKS
}

func pkcs12Of(spec *cmapi.CertificateSpec) *cmapi.PKCS12Keystore {
	if spec.Keystores == nil || spec.Keystores.PKCS12 == nil || !spec.Keystores.PKCS12.Create {
		return nil
	}
	return spec.Keystores.PKCS12
}

func (o *Observation) jksOptions() pki.JKSOptions {
	options := pki.JKSOptions{Password: o.JKSPassword.Value}
	if alias := jksOf(&o.Certificate.Spec).Alias; alias != nil {
		options.Alias = *alias
	}
	return options
}

// keystoreDigest is a digest, keyed with the private key, of all that the keystores are made from.
func keystoreDigest(o *Observation, c *Content) string {
	mac := hmac.New(sha256.New, pki.EncodeKeyDER(c.Key, pki.PKCS8))
	add := func(kind string, parts ...string) {
		for _, p := range append([]string{kind}, parts...) {
			fmt.Fprintf(mac, "%d:%s,", len(p), p)
		}
	}
	add("ca", string(c.CA))
	for _, cert := range c.Chain {
		add("certificate", string(cert.Raw))
	}
	if jksOf(&o.Certificate.Spec) != nil {
		options := o.jksOptions()
		add("jks", options.Password, options.Alias)
		if !pki.JavaTakesPKCS12Password(options.Password) {
			add("encoding", "UTF-16") // earlier versions encoded such passwords otherwise
		}
	}
	if p12 := pkcs12Of(&o.Certificate.Spec); p12 != nil {
		add("pkcs12", o.PKCS12Password.Value, string(p12.Profile))
	}
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// encodeKeystores makes the keystores, except those that are right in the Secret: each encoding
// gives other bytes, and new bytes make workloads reload for nothing.
func encodeKeystores(o *Observation, c *Content, cfg *secretConfig) error {
	if len(cfg.keystores) == 0 {
		return nil
	}
	var cas []*x509.Certificate
	var err error
	if len(c.CA) > 0 {
		if cas, err = o.Limits.DecodeBundlePEM(c.CA); err != nil {
			return fault.Refusedf(reasonKeystore, "the CA for the keystores cannot be read: %w", err)
		}
	}
	for _, entry := range cfg.keystores {
		if keystoreRight(o, c, cas, entry) {
			cfg.data[entry] = o.Secret.Data[entry]
			continue
		}
		var data []byte
		password := o.JKSPassword
		if entry == cmapi.PKCS12SecretKey || entry == cmapi.PKCS12TruststoreKey {
			password = o.PKCS12Password
		}
		switch entry {
		case cmapi.JKSSecretKey:
			data, err = pki.EncodeJKS(o.jksOptions(), c.Key, c.Chain, cas)
		case cmapi.JKSTruststoreKey:
			data, err = pki.EncodeJKSTruststore(o.jksOptions(), cas)
		case cmapi.PKCS12SecretKey:
			data, err = pki.EncodePKCS12(
				pki.PKCS12Profile(pkcs12Of(&o.Certificate.Spec).Profile),
				o.PKCS12Password.Value,
				c.Key,
				c.Chain,
				cas,
			)
		case cmapi.PKCS12TruststoreKey:
			data, err = pki.EncodePKCS12Truststore(
				pki.PKCS12Profile(pkcs12Of(&o.Certificate.Spec).Profile),
				o.PKCS12Password.Value,
				cas,
			)
		}
		if err != nil {
			return fault.Misconfiguredf(reasonKeystore,
				"%s cannot be made with the password in %s: %w. Write another password there",
				entry, password.Source, err)
		}
		cfg.data[entry] = data
	}
	return nil
}

// keystoresRight reports whether the keystores in the Secret are those that are wanted.
func keystoresRight(o *Observation, c *Content, cfg *secretConfig) bool {
	cas, _ := o.Limits.DecodeBundlePEM(c.CA)
	return !slices.ContainsFunc(cfg.keystores, func(entry string) bool { return !keystoreRight(o, c, cas, entry) })
}

// keystoreRight reports whether a keystore in the Secret is the one that is wanted. The digest in
// the status answers that. Without a digest, for a keystore of cert-manager, it is opened, which is
// slow by design.
func keystoreRight(o *Observation, c *Content, cas []*x509.Certificate, entry string) bool {
	if o.Secret == nil || len(o.Secret.Data[entry]) == 0 {
		return false
	}
	if digest := o.Certificate.Status.KeystoreDigest; digest != "" {
		return digest == keystoreDigest(o, c)
	}
	if was, err := o.Limits.DecodeChainPEM(o.Secret.Data[corev1.TLSCertKey]); err != nil ||
		!slices.EqualFunc(was, c.Chain, (*x509.Certificate).Equal) || !bytes.Equal(o.Secret.Data[cmmeta.TLSCAKey], c.CA) {
		return false
	}
	return openKeystore(o, c, cas, entry) == nil
}

// openKeystore returns an error if a keystore in the Secret is not the one that is wanted.
func openKeystore(o *Observation, c *Content, cas []*x509.Certificate, entry string) error {
	data := o.Secret.Data[entry]
	switch entry {
	case cmapi.JKSSecretKey:
		return pki.CheckJKS(data, o.jksOptions(), c.Chain[0])
	case cmapi.JKSTruststoreKey:
		return pki.CheckJKSTruststore(data, o.jksOptions(), cas)
	}
	want := pki.PKCS12Profile(pkcs12Of(&o.Certificate.Spec).Profile)
	if want == "" {
		want = pki.LegacyRC2
	}
	switch profile, err := pki.PKCS12ProfileOf(data); {
	case err != nil:
		return err
	case profile != want:
		return fmt.Errorf("its profile is %s", profile)
	case entry == cmapi.PKCS12SecretKey:
		return pki.CheckPKCS12(data, o.PKCS12Password.Value, c.Chain[0])
	}
	return pki.CheckPKCS12Truststore(data, o.PKCS12Password.Value, cas)
}

// driftOf names the first difference between the Secret and what c asks for, or returns "". It
// compares the fields that the controller owns or should own.
func driftOf(o *Observation, c *Content) string {
	cfg, err := configOf(o, c)
	if err != nil {
		return err.Error()
	}
	if entry, ok := keystoresDrift(o, c, cfg); !ok {
		return entry
	}
	if d := valuesDiffer("label", cfg.labels, o.Secret.Labels); d != "" {
		return d
	}
	if d := valuesDiffer("annotation", cfg.annotations, o.Secret.Annotations); d != "" {
		return d
	}
	for k, v := range cfg.data {
		if had, ok := o.Secret.Data[k]; !ok || !bytes.Equal(had, v) {
			return "entry " + k
		}
	}
	owned, err := ownedFields(o.Secret)
	if err != nil {
		return "managed fields: " + err.Error()
	}
	if d := keysDiffer("label", owned.labels, maps.Keys(cfg.labels)); d != "" {
		return d
	}
	if d := keysDiffer("annotation", owned.annotations, maps.Keys(cfg.annotations)); d != "" {
		return d
	}
	if d := keysDiffer("entry", owned.data, maps.Keys(cfg.data)); d != "" {
		return d
	}
	wantOwner := map[string]bool{}
	if cfg.owner != nil {
		wantOwner[string(cfg.owner.UID)] = true
		if !slices.ContainsFunc(o.Secret.OwnerReferences, func(r metav1.OwnerReference) bool {
			return r.UID == cfg.owner.UID && r.Name == cfg.owner.Name && r.Kind == cfg.owner.Kind && r.Controller != nil &&
				*r.Controller
		}) {
			return "owner reference"
		}
	}
	return keysDiffer("owner reference", owned.owners, maps.Keys(wantOwner))
}

// keystoresDrift checks the keystores, and takes those that are right into the configuration.
// Without the passwords they cannot be checked: they stay if all are there.
func keystoresDrift(o *Observation, c *Content, cfg *secretConfig) (string, bool) {
	unread := o.JKSPassword.Problem != "" || o.PKCS12Password.Problem != ""
	if len(cfg.keystores) > 0 && !unread && !keystoresRight(o, c, cfg) {
		return "keystores", false
	}
	for _, entry := range cfg.keystores {
		if unread && len(o.Secret.Data[entry]) == 0 {
			return "keystores", false
		}
		cfg.data[entry] = o.Secret.Data[entry]
	}
	return "", true
}

// valuesDiffer names a value that is not as it must be, or "".
func valuesDiffer(what string, must, has map[string]string) string {
	for k, v := range must {
		if had, ok := has[k]; !ok || had != v {
			return what + " " + k
		}
	}
	return ""
}

func keysDiffer(what string, owned map[string]bool, want func(func(string) bool)) string {
	n := 0
	for k := range want {
		if !owned[k] {
			return what + " " + k + " is not ours"
		}
		n++
	}
	if n != len(owned) {
		return what + " of ours that is no longer wanted"
	}
	return ""
}

// fields has the names of what secretManager owns in a Secret.
type fields struct{ labels, annotations, data, owners map[string]bool }

func ownedFields(secret *corev1.Secret) (fields, error) {
	f := fields{map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}}
	for _, m := range secret.ManagedFields {
		if m.Manager != secretManager || m.Operation != metav1.ManagedFieldsOperationApply || m.Subresource != "" ||
			m.FieldsV1 == nil {
			continue
		}
		var set fieldpath.Set
		if err := set.FromJSON(bytes.NewReader(m.FieldsV1.GetRawBytes())); err != nil {
			return f, err
		}
		set.Iterate(f.add)
	}
	return f, nil
}

// add adds a field of a Secret that is owned.
func (f fields) add(p fieldpath.Path) {
	name := func(i int) string {
		if i < len(p) && p[i].FieldName != nil {
			return *p[i].FieldName
		}
		return ""
	}
	switch {
	case len(p) == 2 && name(0) == "data":
		f.data[name(1)] = true
	case len(p) == 3 && name(0) == "metadata" && name(1) == "labels":
		f.labels[name(2)] = true
	case len(p) == 3 && name(0) == "metadata" && name(1) == "annotations":
		f.annotations[name(2)] = true
	case len(p) >= 3 && name(0) == "metadata" && name(1) == "ownerReferences" && p[2].Key != nil:
		for _, k := range *p[2].Key {
			if k.Name == "uid" && k.Value.IsString() {
				f.owners[k.Value.AsString()] = true
			}
		}
	}
}

// temporary makes a temporary certificate.
func temporary(o *Observation, key crypto.Signer) (*x509.Certificate, error) {
	cert, err := pki.TemporaryCertificate(
		rand.Reader,
		requestOf(&o.Certificate.Spec),
		key,
		o.Now,
		o.Now.Add(temporaryLife),
	)
	if err != nil {
		return nil, fmt.Errorf("make temporary certificate: %w", err)
	}
	return cert, nil
}

// shorten returns name, or, if it is longer than n, its beginning and a hash of the whole, as
// cert-manager does.
func shorten(name string, n int) string {
	if len(name) <= n {
		return name
	}
	h := sha256.New()
	_, _ = io.WriteString(h, name)
	return name[:n-65] + "-" + hex.EncodeToString(h.Sum(nil))
}

// KeySecretName is the name of the Secret that holds the private key of a revision until its
// certificate is there. It follows from the UID of the Certificate and the revision: a new process
// finds the Secret, and no two Certificates share one.
func KeySecretName(crt *cmapi.Certificate, revision int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d", crt.UID, revision))
	prefix := crt.Name
	if len(prefix) > 52 {
		prefix = strings.TrimRight(prefix[:52], "-.")
	}
	return prefix + "-" + hex.EncodeToString(sum[:5])
}
