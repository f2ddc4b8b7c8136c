// Package secrets reads Secrets without keeping all Secrets of the cluster in memory. Secrets with
// the label controller.cert-manager.io/fao=true are cached with their content, as far as Bound
// allows. Of all others only the metadata is cached. The content of the few that an object needs is
// read from the API server, once for each version.
package secrets

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
)

// CachedSelector selects the Secrets that are cached with their content.
func CachedSelector() labels.Selector {
	return labels.SelectorFromSet(labels.Set{cmapi.PartOfCertManagerControllerLabelKey: "true"})
}

// MetadataOnlySelector selects the Secrets of which the metadata alone is cached.
func MetadataOnlySelector() labels.Selector {
	differs, err := labels.NewRequirement(cmapi.PartOfCertManagerControllerLabelKey, selection.NotEquals, []string{"true"})
	if err != nil { // the key and value are constants
		panic(err)
	}
	return labels.NewSelector().Add(*differs)
}

// Metadata returns an empty PartialObjectMetadata for a Secret, to watch or to get.
func Metadata() *metav1.PartialObjectMetadata {
	o := &metav1.PartialObjectMetadata{}
	o.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	return o
}

const (
	// readTimeout bounds a live read.
	readTimeout = 10 * time.Second
	// keep is how many live reads are kept, and keepBytes is how much content. These are the Secrets
	// of issuers and passwords, of which a cluster has few. Beyond these bounds reads are repeated,
	// not refused.
	keep      = 256
	keepBytes = 64 << 20
)

// Store reads Secrets.
type Store struct {
	// OursCache has the content of the Secrets that Ours selects.
	OursCache client.Reader
	// OthersCache has the metadata of the Secrets that Others selects.
	OthersCache client.Reader
	// Live reads from the API server.
	Live client.Reader

	mu    sync.Mutex
	read  map[types.NamespacedName]*corev1.Secret
	bytes int // of what is read
}

// Get returns the Secret, which the caller must not change. If it does not exist, the error is
// apierrors.IsNotFound.
func (s *Store) Get(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	key := types.NamespacedName{Namespace: namespace, Name: name}
	secret := &corev1.Secret{}
	err := s.OursCache.Get(ctx, key, secret, client.UnsafeDisableDeepCopy)
	if err == nil && Cached(secret) || err != nil && !apierrors.IsNotFound(err) {
		return secret, err
	}
	known := Metadata()
	if err == nil {
		known.UID, known.ResourceVersion = secret.UID, secret.ResourceVersion
		secret = &corev1.Secret{}
	} else if err := s.OthersCache.Get(ctx, key, known); err != nil {
		s.forget(key)
		return nil, err
	}
	s.mu.Lock()
	cached := s.read[key]
	s.mu.Unlock()
	if cached != nil && cached.UID == known.UID && cached.ResourceVersion == known.ResourceVersion {
		return cached, nil
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	if err := s.Live.Get(ctx, key, secret); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, err
		}
		return nil, fmt.Errorf("read Secret %s/%s: %w", namespace, name, err)
	}
	s.remember(key, secret)
	return secret, nil
}

func (s *Store) forget(key types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(key)
}

// drop forgets a live read. The lock must be held.
func (s *Store) drop(key types.NamespacedName) {
	if secret := s.read[key]; secret != nil {
		s.bytes -= sizeOf(secret)
		delete(s.read, key)
	}
}

func (s *Store) remember(key types.NamespacedName, secret *corev1.Secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.read == nil {
		s.read = map[types.NamespacedName]*corev1.Secret{}
	}
	s.drop(key)
	size := sizeOf(secret)
	for other := range s.read { // any
		if len(s.read) < keep && s.bytes+size <= keepBytes {
			break
		}
		s.drop(other)
	}
	s.read[key] = secret
	s.bytes += size
}
