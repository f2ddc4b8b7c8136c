package trust

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/perennial-pki/perennial/api/perennial/v1alpha1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/pki"
)

// FieldManager is the field manager of the written ConfigMaps and Secrets.
const FieldManager = "perennial-trust"

// The kinds of objects that are written.
const (
	configMapKind = "ConfigMap"
	secretKind    = "Secret"
)

// metadata returns an empty PartialObjectMetadata for a ConfigMap or Secret, to watch, to get or to
// write.
func metadata(kind string) *metav1.PartialObjectMetadata {
	o := &metav1.PartialObjectMetadata{}
	o.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind))
	return o
}

func metadataList(kind string) *metav1.PartialObjectMetadataList {
	o := &metav1.PartialObjectMetadataList{}
	o.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind + "List"))
	return o
}

// content is the ConfigMap or Secret that each selected namespace is to have.
type content struct {
	kind        string
	name        string
	labels      map[string]string
	annotations map[string]string
	owner       metav1.OwnerReference
	// hash is a digest of all that follows from the bundle and its spec. It leaves out truststores,
	// because they are salted.
	hash    string
	entries []entry
}

// entry is a key of a ConfigMap or Secret and its value.
type entry struct {
	key  string
	data []byte
	// binary says that a ConfigMap has it in binaryData.
	binary bool
	// same reports whether other data has the same meaning.
	same func(data []byte) bool
}

// contents returns the objects to write. It keeps an entry of last, the objects written before, if
// its meaning is the same.
func contents(bundle *api.TrustBundle, certs []*x509.Certificate, last []*content) ([]*content, error) {
	var out []*content
	for _, target := range []struct {
		kind string
		spec *api.TrustTargetObject
	}{{configMapKind, bundle.Spec.Target.ConfigMap}, {secretKind, bundle.Spec.Target.Secret}} {
		if target.spec == nil {
			continue
		}
		c, err := newContent(bundle, target.kind, target.spec, certs, last)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

func newContent(
	bundle *api.TrustBundle,
	kind string,
	spec *api.TrustTargetObject,
	certs []*x509.Certificate,
	last []*content,
) (*content, error) {
	c := &content{
		kind: kind, name: spec.Name, labels: map[string]string{}, annotations: map[string]string{},
		// blockOwnerDeletion stays unset: it would need the right to set finalizers of TrustBundles.
		owner: metav1.OwnerReference{
			APIVersion: api.GroupVersion.String(),
			Kind:       api.TrustBundleKind,
			Name:       bundle.Name,
			UID:        bundle.UID,
			Controller: new(true),
		},
	}
	if c.name == "" {
		c.name = bundle.Name
	}
	hash := sha256.New()
	for _, cert := range certs {
		hash.Write(cert.Raw)
	}
	if err := json.NewEncoder(hash).Encode([]any{kind, spec}); err != nil {
		return nil, err
	}
	c.hash = hex.EncodeToString(hash.Sum(nil))
	maps.Copy(c.labels, spec.Labels)
	c.labels[api.TrustBundleLabelKey] = bundle.Name
	maps.Copy(c.annotations, spec.Annotations)
	c.annotations[api.TrustHashAnnotationKey] = c.hash
	for _, l := range last {
		if l.hash == c.hash {
			c.entries = l.entries
			return c, nil
		}
	}

	if spec.PEM != nil || spec.PKCS12 == nil && spec.JKS == nil {
		pem := pki.EncodeCertificatePEM(certs...)
		key := defaultKey
		if spec.PEM != nil {
			key = string(spec.PEM.Key)
		}
		c.entries = append(
			c.entries,
			entry{key: key, data: pem, same: func(data []byte) bool { return bytes.Equal(data, pem) }},
		)
	}
	if p := spec.PKCS12; p != nil {
		password := passwordOf(p.Password)
		data, err := pki.EncodePKCS12Truststore(pki.PKCS12Profile(p.Profile), password, certs)
		if err != nil {
			return nil, err
		}
		c.entries = append(c.entries, entry{key: string(p.Key), data: data, binary: true, same: func(data []byte) bool {
			return pki.CheckPKCS12Truststore(data, password, certs) == nil
		}})
	}
	if j := spec.JKS; j != nil {
		options := pki.JKSOptions{Password: passwordOf(j.Password)}
		data, err := pki.EncodeJKSTruststore(options, certs)
		if err != nil {
			return nil, err
		}
		c.entries = append(c.entries, entry{key: string(j.Key), data: data, binary: true, same: func(data []byte) bool {
			return pki.CheckJKSTruststore(data, options, certs) == nil
		}})
	}
	return c, nil
}

func passwordOf(p *api.TrustPassword) string {
	if p == nil {
		return "changeit"
	}
	return string(*p)
}

// live is a ConfigMap or Secret as it is.
type live struct {
	metav1.ObjectMeta
	data map[string][]byte
}

// matches reports whether the object is as it should be. If the object has salted data with the
// same meaning, c takes over that data, so that all namespaces get the same.
func (c *content) matches(o *live) bool {
	owned := false
	for _, owner := range o.OwnerReferences {
		owned = owned || owner.UID == c.owner.UID && owner.Controller != nil && *owner.Controller
	}
	if !owned || !includes(o.Labels, c.labels) || !includes(o.Annotations, c.annotations) {
		return false
	}
	for i := range c.entries {
		e := &c.entries[i]
		data, ok := o.data[e.key]
		if !ok || !bytes.Equal(data, e.data) && !e.same(data) {
			return false
		}
		e.data = data
	}
	return true
}

func includes(all, some map[string]string) bool {
	for key, value := range some {
		if have, ok := all[key]; !ok || have != value {
			return false
		}
	}
	return true
}

// patch returns the object for server-side apply. If uid is set, it applies to that object alone.
func (c *content) patch(namespace string, uid types.UID) ([]byte, error) {
	meta := metav1.ObjectMeta{
		Namespace: namespace, Name: c.name, UID: uid, Labels: c.labels, Annotations: c.annotations,
		OwnerReferences: []metav1.OwnerReference{c.owner},
	}
	if c.kind == secretKind {
		secret := &corev1.Secret{
			TypeMeta: metav1.TypeMeta{
				APIVersion: "v1",
				Kind:       secretKind,
			},
			ObjectMeta: meta,
			Type:       corev1.SecretTypeOpaque,
			Data:       map[string][]byte{},
		}
		for _, e := range c.entries {
			secret.Data[e.key] = e.data
		}
		return json.Marshal(secret)
	}
	configMap := &corev1.ConfigMap{
		TypeMeta: metav1.TypeMeta{
			APIVersion: "v1",
			Kind:       configMapKind,
		},
		ObjectMeta: meta,
		Data:       map[string]string{},
		BinaryData: map[string][]byte{},
	}
	for _, e := range c.entries {
		if e.binary {
			configMap.BinaryData[e.key] = e.data
		} else {
			configMap.Data[e.key] = string(e.data)
		}
	}
	return json.Marshal(configMap)
}

// written is an object that is known to be as it should be.
type written struct {
	uid     types.UID
	version string
	hash    string
}

// ensure writes c into a namespace unless it is there. known is its cached metadata, or nil.
// verified has the objects that were found correct, so that an object is read once for each
// version.
func (r *Reconciler) ensure(
	ctx context.Context,
	c *content,
	namespace string,
	known *metav1.PartialObjectMetadata,
	verified map[string]written,
) error {
	at := c.kind + " " + namespace + "/" + c.name
	if known != nil && verified[at] == (written{known.UID, known.ResourceVersion, c.hash}) {
		return nil
	}
	delete(verified, at)
	o, err := r.read(ctx, c.kind, namespace, c.name)
	if err != nil {
		return fmt.Errorf("read %s: %w", at, err)
	}
	var uid types.UID
	if o != nil {
		if name, ok := o.Labels[api.TrustBundleLabelKey]; !ok {
			return fault.Misconfiguredf("TargetExists",
				"%s exists and is not of this TrustBundle: delete it, choose another name in spec.target, or have it taken over: "+
					"kubectl label %s -n %s %s %s=%s", at, strings.ToLower(c.kind), namespace, c.name, api.TrustBundleLabelKey,
				bundleOf(c))
		} else if name != bundleOf(c) {
			return fault.Misconfiguredf("TargetExists", "%s is of TrustBundle %q: choose another name in spec.target", at, name)
		}
		if c.matches(o) {
			verified[at] = written{o.UID, o.ResourceVersion, c.hash}
			return nil
		}
		uid = o.UID
		if err := r.takeOver(ctx, c, o); err != nil {
			return err
		}
	}
	patch, err := c.patch(namespace, uid)
	if err != nil {
		return err
	}
	object := metadata(c.kind)
	object.Namespace, object.Name = namespace, c.name
	// It is not from the client's cache that these objects are read.
	options := []client.PatchOption{client.FieldOwner(FieldManager), client.DisableReadYourWritesConsistency}
	if uid != "" {
		// A new object is not forced: if another client creates it at the same time, the result is a
		// conflict.
		options = append(options, client.ForceOwnership)
	}
	if err := r.Client.Patch(ctx, object, client.RawPatch(types.ApplyPatchType, patch), options...); err != nil {
		return fmt.Errorf("write %s: %w", at, err)
	}
	verified[at] = written{object.UID, object.ResourceVersion, c.hash}
	return nil
}

// trustManager is the API group of trust-manager, whose Bundles own what they write.
const trustManager = "trust.cert-manager.io"

// takeOver removes the owner reference to a Bundle of trust-manager from an object that a user has
// given to a TrustBundle. An object has only one controller, and is deleted with it.
func (r *Reconciler) takeOver(ctx context.Context, c *content, o *live) error {
	i := slices.IndexFunc(o.OwnerReferences, func(owner metav1.OwnerReference) bool {
		return owner.Controller != nil && *owner.Controller && owner.UID != c.owner.UID &&
			(owner.Kind != c.owner.Kind || owner.APIVersion != c.owner.APIVersion)
	})
	if i < 0 {
		return nil // none, or a deleted TrustBundle of this name: its objects are being deleted
	}
	owner, at := o.OwnerReferences[i], c.kind+" "+o.Namespace+"/"+o.Name
	remove := fmt.Sprintf(
		`[{"op": "test", "path": "/metadata/ownerReferences/%d/uid", "value": %q}, {"op": "remove", "path": "/metadata/ownerReferences/%d"}]`,
		i,
		owner.UID,
		i,
	)
	if group, err := schema.ParseGroupVersion(owner.APIVersion); err != nil || group.Group != trustManager {
		return fault.Misconfiguredf("TargetOwned",
			"%s is controlled by %s %q, which would write it, too: choose another name in spec.target, or take it from there: "+
				"kubectl patch %s -n %s %s --type=json -p '%s'", at, owner.Kind, owner.Name, strings.ToLower(c.kind), o.Namespace,
			o.Name, remove)
	}
	object := metadata(c.kind)
	object.Namespace, object.Name = o.Namespace, o.Name
	err := r.Client.Patch(ctx, object, client.RawPatch(types.JSONPatchType, []byte(remove)),
		client.FieldOwner(FieldManager), client.DisableReadYourWritesConsistency)
	if err != nil {
		return fmt.Errorf("take over %s from %s %q of trust-manager: %w", at, owner.Kind, owner.Name, err)
	}
	return nil
}

func bundleOf(c *content) string { return c.labels[api.TrustBundleLabelKey] }

// read reads a ConfigMap or Secret. It is nil if there is none.
func (r *Reconciler) read(ctx context.Context, kind, namespace, name string) (*live, error) {
	key := client.ObjectKey{Namespace: namespace, Name: name}
	if kind == secretKind {
		secret := &corev1.Secret{}
		if err := r.Live.Get(ctx, key, secret); err != nil {
			return nil, client.IgnoreNotFound(err)
		}
		return &live{secret.ObjectMeta, secret.Data}, nil
	}
	configMap := &corev1.ConfigMap{}
	if err := r.Live.Get(ctx, key, configMap); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	return &live{configMap.ObjectMeta, dataOf(configMap)}, nil
}

// distribute brings the namespaces up to date. It returns how many have the bundle, and the
// failures in the others.
func (r *Reconciler) distribute(
	ctx context.Context,
	bundle *api.TrustBundle,
	all []*content,
	namespaces []string,
	verified map[string]written,
) (done int, failures []error) {
	wanted := map[string]bool{}
	known := map[string]*metav1.PartialObjectMetadata{}
	var cached []*metav1.PartialObjectMetadata
	for _, kind := range []string{configMapKind, secretKind} {
		list := metadataList(kind)
		if err := r.known.List(ctx, list, client.MatchingFields{byBundle: bundle.Name}); err != nil {
			return 0, []error{fmt.Errorf("list %ss of TrustBundle %s: %w", kind, bundle.Name, err)}
		}
		for i := range list.Items {
			o := &list.Items[i]
			o.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind))
			cached = append(cached, o)
			known[kind+" "+o.Namespace+"/"+o.Name] = o
		}
	}
	for _, namespace := range namespaces {
		failed := false
		for _, c := range all {
			at := c.kind + " " + namespace + "/" + c.name
			wanted[at] = true
			err := r.ensure(ctx, c, namespace, known[at], verified)
			if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				failed = true // the namespace is being deleted, so nothing needs to be written
				continue
			}
			if err != nil {
				failed = true
				failures = append(failures, err)
			}
		}
		if !failed {
			done++
		}
	}
	for _, o := range cached {
		at := o.Kind + " " + o.Namespace + "/" + o.Name
		owner := metav1.GetControllerOf(o)
		if wanted[at] || owner == nil || owner.UID != bundle.UID || o.DeletionTimestamp != nil {
			continue
		}
		delete(verified, at)
		err := r.Client.Delete(ctx, o, client.Preconditions{UID: &o.UID}, client.DisableReadYourWritesConsistency)
		if client.IgnoreNotFound(err) != nil && !apierrors.IsConflict(err) {
			failures = append(failures, fmt.Errorf("delete %s: %w", at, err))
		}
	}
	return done, failures
}

// conflictInterval is how often the controller checks whether a conflicting object is gone. That
// object lacks the label by which objects are watched.
const conflictInterval = 5 * time.Minute
