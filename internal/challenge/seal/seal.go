// Package seal marks the Challenges that the controller makes, so that it knows them again when
// their Order is gone or their issuer has changed. Field managers, owners and names show nothing:
// any user that could once create a Challenge could write them.
package seal

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/fault"
)

// Annotation has the seal of a Challenge.
const Annotation = "perennial.dev/seal"

// SecretName names the Secret with the key of the seals, in the cluster resource namespace. Without
// it, seals from before its loss are not valid.
const SecretName = "perennial-challenge-seal"

const (
	keyEntry = "key"
	keySize  = 32
)

// Sealer makes and checks seals.
type Sealer struct {
	// Client reads from the API server.
	Client client.Client
	// Namespace is the cluster resource namespace.
	Namespace string

	mu  sync.Mutex
	key []byte
}

// Seal sets the seal of a Challenge that is about to be created.
func (s *Sealer) Seal(ctx context.Context, ch *cmacme.Challenge) error {
	key, err := s.read(ctx, true)
	if err != nil {
		return err
	}
	sum, err := sumOf(key, ch)
	if err != nil {
		return err
	}
	metav1.SetMetaDataAnnotation(&ch.ObjectMeta, Annotation, base64.RawURLEncoding.EncodeToString(sum))
	return nil
}

// Sealed reports whether the controller made the Challenge as it is.
func (s *Sealer) Sealed(ctx context.Context, ch *cmacme.Challenge) (bool, error) {
	seal, err := base64.RawURLEncoding.DecodeString(ch.Annotations[Annotation])
	if err != nil || len(seal) != sha256.Size {
		return false, nil
	}
	key, err := s.read(ctx, false)
	if err != nil || key == nil {
		return false, err
	}
	sum, err := sumOf(key, ch)
	return err == nil && hmac.Equal(seal, sum), err
}

// sumOf returns the authentication code of what a Challenge is and asks for.
func sumOf(key []byte, ch *cmacme.Challenge) ([]byte, error) {
	spec, err := canonical(ch.Spec)
	if err != nil {
		return nil, fmt.Errorf("seal Challenge %s: %w", ch.Name, err)
	}
	text, err := json.Marshal([]string{ch.Namespace, ch.Name, string(spec)})
	if err != nil {
		return nil, fmt.Errorf("seal Challenge %s: %w", ch.Name, err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(text)
	return mac.Sum(nil), nil
}

// canonical returns JSON that is the same before and after the API server has stored it: the
// settings of a webhook are kept as they were written.
func canonical(spec cmacme.ChallengeSpec) ([]byte, error) {
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		return nil, err
	}
	return json.Marshal(value)
}

// read returns the key, which is kept as long as the process runs. If there is none, read creates
// it or returns nil.
func (s *Sealer) read(ctx context.Context, create bool) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.key != nil {
		return s.key, nil
	}
	secret := &corev1.Secret{}
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: s.Namespace, Name: SecretName}, secret)
	if apierrors.IsNotFound(err) && !create {
		return nil, nil
	}
	if apierrors.IsNotFound(err) {
		err = s.create(ctx, secret)
	}
	// The errors are in the status of Challenges, the log names the Secret.
	if err != nil {
		log.FromContext(ctx).Error(err, "cannot read the key of the seals of Challenges", "namespace", s.Namespace)
		return nil, fmt.Errorf("the key of the controller's seals of Challenges: %w", fault.Unnamed(err, SecretName))
	}
	if n := len(secret.Data[keyEntry]); n < keySize {
		log.FromContext(ctx).Info("the Secret with the key of the seals of Challenges has no key: delete it, and another "+
			"one is made", "namespace", s.Namespace, "name", SecretName, "entry", keyEntry, "bytes", keySize)
		return nil, errors.New("the key of the controller's seals of Challenges is damaged: the administrator of the " +
			"controller finds in its log which Secret to delete")
	}
	s.key = secret.Data[keyEntry]
	return s.key, nil
}

// create makes the Secret. If another process is faster, create reads that one's.
func (s *Sealer) create(ctx context.Context, secret *corev1.Secret) error {
	key := make([]byte, keySize)
	if _, err := rand.Read(key); err != nil {
		return err
	}
	*secret = corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: SecretName},
		Data: map[string][]byte{keyEntry: key}}
	err := s.Client.Create(ctx, secret)
	if apierrors.IsAlreadyExists(err) {
		return s.Client.Get(ctx, client.ObjectKey{Namespace: s.Namespace, Name: SecretName}, secret)
	}
	return err
}
