package secrets

import (
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
)

const (
	// namespaceBytes bounds the cached content of the Secrets of a namespace, and allBytes that of all
	// namespaces. Any user can set the label, so a Secret beyond the bounds is read live, as if it had
	// no label. A Secret of a certificate has 5 to 20 KiB.
	namespaceBytes = 16 << 20
	allBytes       = 512 << 20
)

// Bound keeps the content of the cache of Secrets within bounds. The zero value is ready.
type Bound struct {
	namespace, all int // namespaceBytes and allBytes if zero

	mu   sync.Mutex
	size map[types.NamespacedName]int
	sums map[string]int // by namespace
	sum  int
}

// left is the only data key of a cached Secret whose content is beyond the bounds. The API allows
// no such key.
const left = "/not cached"

// Cached reports whether a Secret from the cache has its content.
func Cached(secret *corev1.Secret) bool {
	_, stripped := secret.Data[left]
	return !stripped
}

// Transform is the transform of the cache: it drops the content of a Secret beyond the bounds.
func (b *Bound) Transform(o any) (any, error) {
	secret, ok := o.(*corev1.Secret)
	if !ok || !Cached(secret) {
		return o, nil
	}
	if b.admit(types.NamespacedName{Namespace: secret.Namespace, Name: secret.Name}, sizeOf(secret)) {
		return secret, nil
	}
	return strip(secret), nil
}

// Watch stops counting Secrets that an informer reports as deleted.
func (b *Bound) Watch(informer interface {
	AddEventHandler(cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error)
}) error {
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{DeleteFunc: func(o any) {
		if gone, is := o.(cache.DeletedFinalStateUnknown); is {
			o = gone.Obj
		}
		if secret, is := o.(*corev1.Secret); is {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.forget(types.NamespacedName{Namespace: secret.Namespace, Name: secret.Name})
		}
	}})
	return err
}

// admit counts a Secret, unless it is beyond the bounds.
func (b *Bound) admit(key types.NamespacedName, size int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget(key)
	namespace, all := b.namespace, b.all
	if namespace == 0 {
		namespace, all = namespaceBytes, allBytes
	}
	if b.sums[key.Namespace]+size > namespace || b.sum+size > all {
		return false
	}
	if b.size == nil {
		b.size, b.sums = map[types.NamespacedName]int{}, map[string]int{}
	}
	b.size[key] = size
	b.sums[key.Namespace] += size
	b.sum += size
	return true
}

func (b *Bound) forget(key types.NamespacedName) {
	size, counted := b.size[key]
	if !counted {
		return
	}
	delete(b.size, key)
	b.sum -= size
	if b.sums[key.Namespace] -= size; b.sums[key.Namespace] == 0 {
		delete(b.sums, key.Namespace)
	}
}

// sizeOf estimates the memory that a Secret takes.
func sizeOf(secret *corev1.Secret) int {
	const rest = 1 << 10
	n := rest
	for k, v := range secret.Data {
		n += len(k) + len(v)
	}
	for _, m := range []map[string]string{secret.Annotations, secret.Labels} {
		for k, v := range m {
			n += len(k) + len(v)
		}
	}
	for _, f := range secret.ManagedFields {
		if f.FieldsV1 != nil {
			n += f.FieldsV1.Size()
		}
	}
	return n
}

// strip returns a Secret without its content, with the metadata that it is found by.
func strip(secret *corev1.Secret) *corev1.Secret {
	is := &corev1.Secret{
		TypeMeta: secret.TypeMeta, Type: secret.Type, Data: map[string][]byte{left: nil},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: secret.Namespace, Name: secret.Name, UID: secret.UID, ResourceVersion: secret.ResourceVersion,
			CreationTimestamp: secret.CreationTimestamp, DeletionTimestamp: secret.DeletionTimestamp,
		},
	}
	for _, label := range []string{cmapi.PartOfCertManagerControllerLabelKey, cmapi.IsNextPrivateKeySecretLabelKey} {
		if value, has := secret.Labels[label]; has {
			metav1.SetMetaDataLabel(&is.ObjectMeta, label, value)
		}
	}
	if owner := metav1.GetControllerOf(secret); owner != nil {
		is.OwnerReferences = []metav1.OwnerReference{*owner}
	}
	return is
}
