package trust

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	api "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
	"github.com/perennial-pki/perennial/pki"
)

const (
	// maxSelected is how many objects one selector may select.
	maxSelected = 100
	// defaultKey is the entry that holds the certificates.
	defaultKey = "ca.crt"
	// maxName bounds the name of a source, which is as long as its selector.
	maxName = 1024
)

// gathered is the present content of the sources.
type gathered struct {
	found    []found
	problems []string
	// wrong says that there is a problem other than a missing object.
	wrong bool
	// settled has the sources that were read and that say themselves which certificates are no longer
	// needed.
	settled map[string]bool
}

// found is a certificate of a source that may be distributed.
type found struct {
	cert *x509.Certificate
	// source is the name of the source, by nameOf.
	source string
	// literal says that the certificate is in the spec itself.
	literal bool
}

// nameOf names a source in messages and in the status. By the name in the status, resolve finds out
// whether the spec still has the source.
func nameOf(s *api.TrustSource) string {
	switch {
	case s.Issuer != nil:
		return issuerKey(s.Issuer)
	case s.Secret != nil:
		return objectName("Secret", s.Secret)
	case s.ConfigMap != nil:
		return objectName("ConfigMap", s.ConfigMap)
	}
	return "inLine"
}

func objectName(kind string, o *api.TrustObjectSource) string {
	name := kind + " " + o.Name
	if o.Selector != nil {
		name = fmt.Sprintf("%ss with labels %.*q", kind, maxName, metav1.FormatLabelSelector(o.Selector))
	}
	if o.AllKeys {
		return name + ", all keys"
	}
	return name + ", " + keyOf(o)
}

func keyOf(o *api.TrustObjectSource) string {
	if o.Key == "" {
		return defaultKey
	}
	return o.Key
}

// issuerKey is the name of an issuer, and the value under which it is found in the index bySource.
func issuerKey(i *api.TrustIssuerSource) string {
	if i.Kind == issuerKind {
		return issuerKind + " " + i.Namespace + "/" + i.Name
	}
	return clusterIssuerKind + " " + i.Name
}

// gather reads all sources. It returns an error if a source cannot be read for the moment.
func (r *Reconciler) gather(ctx context.Context, bundle *api.TrustBundle, now time.Time) (*gathered, error) {
	g := &gathered{settled: map[string]bool{}}
	seen := map[string]bool{}
	for i := range bundle.Spec.Sources {
		s := &sourceReader{
			TrustSource: &bundle.Spec.Sources[i], index: i, name: nameOf(&bundle.Spec.Sources[i]),
			limits: r.Limits, now: now, seen: seen, into: g,
		}
		if err := r.readSource(ctx, s); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// readSource reads one source. Like gather, it returns an error only if the source cannot be read
// for the moment. A mistake in the source is recorded as a problem.
func (r *Reconciler) readSource(ctx context.Context, s *sourceReader) error {
	switch {
	case s.Issuer != nil:
		return r.readIssuer(ctx, s)
	case s.InLine != "":
		s.add("", []byte(s.InLine))
		return nil
	}
	objects, err := r.objects(ctx, s.TrustSource)
	if wrong := new(rejected); errors.As(err, &wrong) {
		s.reject("", err)
		return nil
	} else if err != nil {
		return err
	}
	for _, o := range objects {
		s.addObject(o)
	}
	return nil
}

// readIssuer adds the CA of an issuer, and those before it that have not expired.
func (r *Reconciler) readIssuer(ctx context.Context, s *sourceReader) error {
	ca, err := r.issuerCA(ctx, s.Issuer)
	if err != nil {
		return err
	}
	if ca == nil {
		s.reject(
			"",
			absent{errors.New("it does not exist, or does not tell its CA as issuers of type ca do once they are ready")},
		)
		return nil
	}
	s.into.settled[s.name] = true
	s.add("status.ca.certificate", []byte(ca.Certificate))
	for j, previous := range ca.Previous {
		if s.now.Before(previous.NotAfter.Time) { // the issuer removes it at that time, or a moment later
			s.add(fmt.Sprintf("status.ca.previous[%d].certificate", j), []byte(previous.Certificate))
		}
	}
	return nil
}

// sourceReader adds the certificates of one source of a bundle to what is gathered.
type sourceReader struct {
	*api.TrustSource
	index  int
	name   string
	limits pki.Limits
	now    time.Time
	seen   map[string]bool // fingerprints of the bundle's certificates
	into   *gathered
}

// reject records a problem with the source, or with a part of it if part is not empty.
func (s *sourceReader) reject(part string, err error) {
	if part != "" {
		part += ": "
	}
	s.into.wrong = s.into.wrong || !errors.As(err, new(absent))
	s.into.problems = append(s.into.problems, fmt.Sprintf("spec.sources[%d] (%s): %s%v", s.index, s.name, part, err))
}

// add adds the certificates in data that may be distributed and are not in the bundle yet.
func (s *sourceReader) add(part string, data []byte) {
	certs, err := usable(data, s.limits, s.now, func(err error) { s.reject(part, err) })
	if err != nil {
		s.reject(part, err)
	}
	for _, cert := range certs {
		if fingerprint := pki.Fingerprint(cert); !s.seen[fingerprint] {
			s.seen[fingerprint] = true
			s.into.found = append(s.into.found, found{cert: cert, source: s.name, literal: s.InLine != ""})
		}
	}
}

// addObject adds the entries of a Secret or ConfigMap that the source names.
func (s *sourceReader) addObject(o object) {
	source := s.Secret
	if source == nil {
		source = s.ConfigMap
	}
	keys := []string{keyOf(source)}
	if source.AllKeys {
		keys = slices.Sorted(maps.Keys(o.data))
	}
	for _, key := range keys {
		part := ""
		if source.Selector != nil || source.AllKeys {
			part = o.name + ", " + key
		}
		if data, ok := o.data[key]; ok {
			s.add(part, data)
		} else {
			s.reject(part, absent{errors.New("it has no such key")})
		}
	}
}

// usable returns the certificates in data that may be distributed, and calls reject for each other
// one.
func usable(data []byte, limits pki.Limits, now time.Time, reject func(error)) ([]*x509.Certificate, error) {
	certs, err := limits.DecodeBundlePEM(data)
	if err != nil {
		return nil, err
	}
	var out []*x509.Certificate
	for i, cert := range certs {
		which := fmt.Sprintf("certificate %d (%s)", i+1, subjectOf(cert))
		switch {
		case !cert.BasicConstraintsValid || !cert.IsCA:
			reject(fmt.Errorf("%s is not that of a CA", which))
		case cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageCertSign == 0:
			reject(fmt.Errorf("%s is of a CA that must not sign certificates", which))
		case !now.Before(cert.NotAfter):
			reject(fmt.Errorf("%s expired at %s", which, cert.NotAfter.UTC().Format(time.RFC3339)))
		default:
			if _, err := limits.DecodeCertificatePEM(pki.EncodeCertificatePEM(cert)); err != nil {
				reject(fmt.Errorf("%s: %w", which, err)) // too large
				continue
			}
			out = append(out, cert)
		}
	}
	return out, nil
}

// subjectOf returns a name of a certificate for messages.
func subjectOf(cert *x509.Certificate) string {
	subject := strings.ToValidUTF8(cert.Subject.String(), "?")
	if subject == "" {
		return "serial number " + cert.SerialNumber.Text(16)
	}
	if len(subject) > 200 {
		subject = strings.ToValidUTF8(subject[:200], "") + "..."
	}
	return subject
}

const (
	issuerKind        = "Issuer"
	clusterIssuerKind = "ClusterIssuer"
)

// issuerCA returns the CA in the status of an issuer, or nil.
func (r *Reconciler) issuerCA(ctx context.Context, s *api.TrustIssuerSource) (*cmapi.CAIssuerStatus, error) {
	var issuer interface {
		cmapi.GenericIssuer
		client.Object
	} = &cmapi.ClusterIssuer{}
	if s.Kind == issuerKind {
		issuer = &cmapi.Issuer{}
	}
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: s.Namespace, Name: s.Name}, issuer)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("get %s: %w", issuerKey(s), err)
	}
	return issuer.GetStatus().CA, nil
}

// object is a Secret or ConfigMap.
type object struct {
	name string
	data map[string][]byte
}

// rejected is the error of a source that has a mistake.
type rejected struct{ error }

func (r *rejected) Unwrap() error { return r.error }

// absent is the error of a missing object, which may still be created.
type absent struct{ error }

// objects returns the Secrets or ConfigMaps of a source, in the order of their names.
func (r *Reconciler) objects(ctx context.Context, s *api.TrustSource) ([]object, error) {
	if s.Secret != nil {
		if s.Secret.Selector == nil {
			secret, err := r.Secrets.Get(ctx, r.Namespace, s.Secret.Name)
			if err != nil {
				return nil, r.notThere(err)
			}
			return []object{{secret.Name, secret.Data}}, nil
		}
		list := &corev1.SecretList{}
		if err := r.selected(ctx, list, s.Secret.Selector); err != nil {
			return nil, err
		}
		var out []object
		for i := range list.Items {
			out = append(out, object{list.Items[i].Name, list.Items[i].Data})
		}
		return checked(out)
	}
	if s.ConfigMap.Selector == nil {
		configMap := &corev1.ConfigMap{}
		if err := r.Live.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: s.ConfigMap.Name}, configMap); err != nil {
			return nil, r.notThere(err)
		}
		return []object{{configMap.Name, dataOf(configMap)}}, nil
	}
	list := &corev1.ConfigMapList{}
	if err := r.selected(ctx, list, s.ConfigMap.Selector); err != nil {
		return nil, err
	}
	var out []object
	for i := range list.Items {
		out = append(out, object{list.Items[i].Name, dataOf(&list.Items[i])})
	}
	return checked(out)
}

func (r *Reconciler) notThere(err error) error {
	if apierrors.IsNotFound(err) {
		return &rejected{absent{fmt.Errorf("it does not exist in namespace %s", r.Namespace)}}
	}
	return err
}

// selected lists the objects that a selector selects, except those that TrustBundles wrote: a
// bundle that is its own source would never lose a certificate.
func (r *Reconciler) selected(ctx context.Context, list client.ObjectList, s *metav1.LabelSelector) error {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return &rejected{fmt.Errorf("selector: %w", err)}
	}
	foreign, err := labels.NewRequirement(api.TrustBundleLabelKey, selection.DoesNotExist, nil)
	if err != nil {
		return err
	}
	err = r.Live.List(ctx, list, client.InNamespace(r.Namespace),
		client.MatchingLabelsSelector{Selector: selector.Add(*foreign)}, client.Limit(maxSelected+1))
	if err != nil {
		return fmt.Errorf("list the objects with labels %s: %w", selector, err)
	}
	return nil
}

func checked(objects []object) ([]object, error) {
	switch {
	case len(objects) == 0:
		return nil, &rejected{absent{errors.New("there are none")}}
	case len(objects) > maxSelected:
		return nil, &rejected{fmt.Errorf("there are more than %d", maxSelected)}
	}
	slices.SortFunc(objects, func(a, b object) int { return strings.Compare(a.name, b.name) })
	return objects, nil
}

func dataOf(c *corev1.ConfigMap) map[string][]byte {
	data := make(map[string][]byte, len(c.Data)+len(c.BinaryData))
	for key, value := range c.Data {
		data[key] = []byte(value)
	}
	maps.Copy(data, c.BinaryData)
	return data
}
