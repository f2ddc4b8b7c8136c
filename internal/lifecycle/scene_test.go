package lifecycle

import (
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// scene is an Observation that a test builds step by step.
type scene struct {
	*testing.T
	*Observation
	key crypto.Signer // of the next request
	// life is how long certificates live. Zero means 90 days.
	life time.Duration
}

const day = 24 * time.Hour

func duration(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }

func weekly(zone, cron string, length time.Duration) *cmapi.CertificateRenewal {
	return &cmapi.CertificateRenewal{
		Policy:  "RenewBefore",
		Windows: []cmapi.CertificateRenewalWindows{{Timezone: zone, Cron: cron, WindowDuration: duration(length)}},
	}
}

var created = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// newScene is a Certificate that was created just now, with an in-process issuer that is ready.
func newScene(t *testing.T) *scene {
	issuer := &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: "ca", Namespace: "ns", UID: "issuer", Generation: 1}}
	issuer.Spec.SelfSigned = &cmapi.SelfSignedIssuer{}
	cmapi.SetIssuerCondition(&issuer.Status, created, cmapi.IssuerCondition{Type: cmapi.IssuerConditionReady,
		Status: cmmeta.ConditionTrue})
	return &scene{T: t, Observation: &Observation{
		Now:    created,
		Issuer: &signer.Issuer{GenericIssuer: issuer, Kind: "Issuer", SecretNamespace: "ns"},
		Certificate: &cmapi.Certificate{
			ObjectMeta: metav1.ObjectMeta{
				Name:              "web",
				Namespace:         "ns",
				UID:               "web",
				Generation:        1,
				CreationTimestamp: metav1.NewTime(created),
			},
			Spec: cmapi.CertificateSpec{
				DNSNames: []string{"web.example.com"}, SecretName: "web", IssuerRef: cmmeta.IssuerReference{Name: "ca"},
				PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm}, Duration: duration(90 * day),
			},
		},
	}}
}

// after lets time pass.
func (s *scene) after(d time.Duration) *scene { s.Now = s.Now.Add(d); return s }

// external replaces the issuer with one that is not in this process.
func (s *scene) external() *scene {
	s.Issuer = nil
	s.Certificate.Spec.IssuerRef = cmmeta.IssuerReference{Name: "ca", Kind: "Thing", Group: "example.com"}
	return s
}

// solvedBy makes the issuer one of an ACME server, with one solver.
func (s *scene) solvedBy(solver cmacme.ACMEChallengeSolver) *scene {
	s.Issuer.GetSpec().IssuerConfig = cmapi.IssuerConfig{
		ACME: &cmacme.ACMEIssuer{Solvers: []cmacme.ACMEChallengeSolver{solver}},
	}
	return s
}

func (s *scene) newKey() crypto.Signer {
	s.Helper()
	key, err := pki.KeySpec{Algorithm: pki.ECDSA}.Generate(rand.Reader)
	if err != nil {
		s.Fatal(err)
	}
	return key
}

// rsa makes the spec ask for a key that takes long to generate.
func (s *scene) rsa() *scene {
	s.Certificate.Spec.PrivateKey = &cmapi.CertificatePrivateKey{Algorithm: cmapi.RSAKeyAlgorithm, Size: 4096}
	return s
}

// requested adds the request of the next revision, made now, with its key in memory.
func (s *scene) requested() *scene {
	s.Helper()
	s.key = s.newKey()
	s.KeyInMemory = s.key
	s.Next = s.requestFor(s.revision()+1, s.key)
	return s
}

// manuallyTriggered is requested with the manual trigger of the Certificate.
func (s *scene) manuallyTriggered() *scene {
	s.Helper()
	s.requested()
	s.Next.Annotations[signer.ManualTriggerAnnotation] = Decide(s.unrequested()).Request.ManualTrigger
	return s
}

// unrequested returns the observation without the request.
func (s *scene) unrequested() *Observation {
	o := *s.Observation
	o.Next, o.KeyInMemory = nil, nil
	return &o
}

func (s *scene) requestFor(revision int, key crypto.Signer) *cmapi.CertificateRequest {
	s.Helper()
	der, err := requestOf(&s.Certificate.Spec).CSR(rand.Reader, key)
	if err != nil {
		s.Fatal(err)
	}
	name := RequestName("web", revision)
	cr := &cmapi.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			Name:              name,
			Namespace:         "ns",
			CreationTimestamp: metav1.NewTime(s.Now),
			Annotations: map[string]string{
				cmapi.CertificateRequestRevisionAnnotationKey: strings.TrimPrefix(name, "web-"), cmapi.CertificateNameKey: "web",
			},
			OwnerReferences: []metav1.OwnerReference{
				*metav1.NewControllerRef(s.Certificate, cmapi.SchemeGroupVersion.WithKind("Certificate")),
			},
		},
		Spec: cmapi.CertificateRequestSpec{
			Request:   pki.EncodeCSRPEM(der),
			IssuerRef: s.Certificate.Spec.IssuerRef,
			Duration:  s.Certificate.Spec.Duration,
		},
	}
	if s.Issuer != nil {
		cr.Annotations[issuerAnnotation] = s.Issuer.Generation()
	}
	return cr
}

// signed gives the next request its certificate.
func (s *scene) signed() *scene {
	s.Helper()
	s.Next.Status.Certificate = pki.EncodeCertificatePEM(s.certificateFor(s.key))
	cmapi.SetCertificateRequestCondition(
		&s.Next.Status,
		s.Now,
		cmapi.CertificateRequestCondition{Type: "Ready", Status: "True", Reason: "Issued"},
	)
	return s
}

func (s *scene) certificateFor(key crypto.Signer) *x509.Certificate {
	s.Helper()
	der, err := requestOf(&s.Certificate.Spec).CSR(rand.Reader, key)
	if err != nil {
		s.Fatal(err)
	}
	csr, err := pki.DecodeCSRPEM(pki.EncodeCSRPEM(der))
	if err != nil {
		s.Fatal(err)
	}
	template, err := pki.Template{NotBefore: s.Now, NotAfter: s.Now.Add(cmp.Or(s.life, 90*day))}.Certificate(csr)
	if err != nil {
		s.Fatal(err)
	}
	cert, err := pki.SelfSign(rand.Reader, template, key)
	if err != nil {
		s.Fatal(err)
	}
	return cert
}

// failed ends the next request.
func (s *scene) failed(reason string) *scene {
	s.Next.Status.FailureTime = ptr.To(metav1.NewTime(s.Now))
	cmapi.SetCertificateRequestCondition(
		&s.Next.Status,
		s.Now,
		cmapi.CertificateRequestCondition{Type: "Ready", Status: "False", Reason: reason, Message: "the CA said no"},
	)
	return s
}

// failedInWindow is a renewal that failed half an hour after its window, of an hour each week,
// began.
func (s *scene) failedInWindow() *scene {
	s.Helper()
	s.issued().Certificate.Spec.Renewal = weekly("", "0 12 * * 1", time.Hour)
	s.carryOut(Decide(s.Observation))
	s.after(56*day + 30*time.Minute).requested().failed("Failed")
	s.carryOut(Decide(s.Observation))
	return s
}

// paused says that names of the next request are paused.
func (s *scene) paused() *scene {
	for _, c := range []cmapi.CertificateRequestCondition{
		{Type: "Ready", Status: "False", Reason: "Pending"}, {Type: signer.ConditionPaused, Status: "True", Reason: signer.ReasonValidationsFailed},
	} {
		cmapi.SetCertificateRequestCondition(&s.Next.Status, s.Now, c)
	}
	return s
}

// issued stores the first revision of the Certificate.
func (s *scene) issued() *scene {
	s.Helper()
	s.requested().signed()
	s.carryOut(Decide(s.Observation))
	return s
}

// carryOut carries out a decision, as far as the next observation shows it.
func (s *scene) carryOut(d *Decision) {
	s.Helper()
	if d.Apply != nil {
		cfg, err := configOf(s.Observation, d.Apply)
		if err != nil {
			s.Fatal(err)
		}
		if err := encodeKeystores(s.Observation, d.Apply, cfg); err != nil {
			s.Fatal(err)
		}
		s.Secret = &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{
				Name:          "web",
				Namespace:     "ns",
				Labels:        cfg.labels,
				Annotations:   cfg.annotations,
				ManagedFields: managedFields(cfg),
			},
			Data: cfg.data,
			Type: corev1.SecretTypeTLS,
		}
	}
	if d.Issued != nil {
		s.Current, s.Next, s.KeyInMemory = d.Issued, nil, nil
	}
	if slices.Contains(d.DeleteRequests, s.Next) {
		s.Next = nil
	}
	if slices.Contains(d.DeleteRequests, s.Rehearsal) {
		s.Rehearsal = nil
	}
	if s.Next != nil && d.ForgetKey == s.Next.Name {
		s.KeyInMemory = nil
	}
	s.KeySecrets = slices.DeleteFunc(s.KeySecrets, func(k *corev1.Secret) bool { return slices.Contains(d.DeleteKeys, k) })
	if !d.HoldStatus {
		s.Certificate.Status = d.Status
	}
}

// stored puts the private key of the next request into a Secret of its own.
func (s *scene) stored() *scene {
	s.Helper()
	encoded, err := pki.EncodeKeyPEM(s.key, pki.PKCS8)
	if err != nil {
		s.Fatal(err)
	}
	s.KeyInMemory = nil
	s.KeySecrets = []*corev1.Secret{{ObjectMeta: metav1.ObjectMeta{Name: KeySecretName(s.Certificate, s.revision()+1)},
		Data: map[string][]byte{"tls.key": encoded}}}
	return s
}

// managedFields returns the managed fields that the API server records for an apply.
func managedFields(cfg *secretConfig) []metav1.ManagedFieldsEntry {
	set := func(names []string) string {
		slices.Sort(names)
		return `{"f:` + strings.Join(names, `":{},"f:`) + `":{}}`
	}
	raw := `{"f:data":` + set(
		slices.Collect(maps.Keys(cfg.data)),
	) + `,"f:metadata":{"f:annotations":` + set(
		slices.Collect(maps.Keys(cfg.annotations)),
	) +
		`,"f:labels":` + set(
		slices.Collect(maps.Keys(cfg.labels)),
	) + `}}`
	return []metav1.ManagedFieldsEntry{
		{Manager: secretManager, Operation: metav1.ManagedFieldsOperationApply, FieldsV1: metav1.NewFieldsV1(raw)},
	}
}

// suggested issues an ACME certificate that the CA suggests to renew so long after its issuance.
func (s *scene) suggested(from, to time.Duration) *scene {
	s.Helper()
	s.ofACME().issued()
	start, end := metav1.NewTime(created.Add(from)), metav1.NewTime(created.Add(to))
	s.Certificate.Status.ACME = &cmapi.CertificateACMEStatus{
		ARI: &cmapi.CertificateACMEARIStatus{SuggestedWindow: &cmapi.ACMERenewalWindow{Start: &start, End: &end}},
	}
	if to > 0 {
		s.carryOut(Decide(s.Observation))
	}
	return s
}

// renewedAtOnce makes the certificate follow one that the CA wanted to be renewed at once, so that
// it is held so long.
func (s *scene) renewedAtOnce(hold time.Duration) *scene {
	s.Certificate.Status.ACME.ARI.AtOnce = &cmapi.ACMERenewalAtOnce{
		Renewals:  1,
		Since:     metav1.NewTime(created),
		NotBefore: metav1.NewTime(created.Add(hold)),
	}
	return s
}

// issuingBecause sets Issuing to True, now.
func (s *scene) issuingBecause(reason string) *scene {
	cmapi.SetCertificateCondition(
		&s.Certificate.Status,
		s.Now,
		cmapi.CertificateCondition{Type: "Issuing", Status: "True", Reason: reason, Message: "because"},
	)
	return s
}

// outcome is a decision in a few words.
func outcome(d *Decision) string {
	var words []string
	for _, cr := range d.DeleteRequests {
		words = append(words, "delete "+cr.Name)
	}
	if d.Generate != nil {
		words = append(words, "generate key")
	}
	if d.StoreKey != nil {
		words = append(words, "store key")
	}
	if d.Rehearse != nil {
		words = append(words, "rehearse")
	}
	if d.Request != nil {
		words = append(words, "request "+RequestName("web", d.Request.Revision))
	}
	if d.Apply != nil {
		if d.Apply.Temporary {
			words = append(words, "stand in")
		} else {
			words = append(words, "apply")
		}
	}
	if len(d.DeleteKeys) > 0 {
		words = append(words, "delete keys")
	}
	if d.HoldStatus {
		words = append(words, "hold status")
		return strings.Join(words, ", ")
	}
	for _, t := range []cmapi.CertificateConditionType{"Ready", "Issuing", "Paused"} {
		if c := cmapi.GetCertificateCondition(&d.Status, t); c != nil {
			words = append(words, string(t)+"="+string(c.Status)+"/"+c.Reason)
		}
	}
	return strings.Join(words, ", ")
}

// signedByCA is a certificate of a key that names its authority, as those of ACME servers do.
func (s *scene) signedByCA(key crypto.Signer) *x509.Certificate {
	s.Helper()
	leaf, root := s.certificateFor(key), s.certificateFor(key)
	root.IsCA, root.SubjectKeyId, root.KeyUsage = true, []byte("authority"), x509.KeyUsageCertSign
	signed, err := pki.Sign(rand.Reader, leaf, root, key.Public(), key)
	if err != nil {
		s.Fatal(err)
	}
	return signed
}

// eventsOf returns all events that a decision reports when it is carried out.
func eventsOf(d *Decision) []Event {
	var all []Event
	for _, n := range []*NewRequest{d.Request, d.Rehearse} {
		if n != nil {
			all = append(all, n.Events...)
		}
	}
	if d.Apply != nil {
		all = append(all, d.Apply.Events...)
	}
	return append(all, d.Events...)
}
