package earlyissuance

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/internal/fault"
)

const (
	// entry is the key of the histories in each ConfigMap.
	entry = "histories"
	// shards is the number of ConfigMaps that the histories are divided into, so that each write is
	// small.
	shards = 64
	// ioLimit is the time limit of one attempt to read or write.
	ioLimit = 10 * time.Second
	// writeTries is how often a write is tried if another process writes at the same time.
	writeTries = 4
	// latestKept is how long the start of an issuance is remembered.
	latestKept = 24 * time.Hour
)

// Reasons of the errors of a Store.
const (
	// ReasonNotSaved: the ConfigMap with the count cannot be written.
	ReasonNotSaved = "IssuanceCountNotSaved"
	reasonNotRead  = "IssuanceCountNotRead"
)

// failed gives an error of the API server about the ConfigMap a class. Its text is for the users of
// other namespaces, and does not name the ConfigMap.
func failed(reason, configMap string, err error) error {
	is := fault.Unnamed(err, configMap)
	if reason == reasonNotRead {
		is = fmt.Errorf("the count of issuances, which the controller stores in its own namespace: %w", is)
	}
	class := fault.Transient
	if fault.RefusedByAPI(err) {
		class = fault.Refused
	}
	return &fault.Error{Class: class, Reason: reason, Err: is}
}

// Store keeps the records of all Certificates.
type Store struct {
	// Client reads and writes ConfigMaps in Namespace, without a cache.
	Client    client.Client
	Namespace string
	Clock     clock.PassiveClock
	Log       logr.Logger

	all [shards]shard

	mu     sync.Mutex
	latest map[types.NamespacedName]Latest
	pruned time.Time // when old entries of latest were dropped
}

// shard is one ConfigMap.
type shard struct {
	io sync.Mutex // held while it is read or written

	mu        sync.Mutex
	histories histories         // nil until it is read
	object    *corev1.ConfigMap // as it was last seen; nil if there is none
	changes   uint64            // of the histories
	saved     uint64            // changes that are written
}

// key returns the key of a Certificate in the histories. It is a hash, which does not reveal the
// name.
func key(name types.NamespacedName) string {
	sum := sha256.Sum256([]byte(name.String()))
	return hex.EncodeToString(sum[:16])
}

func (s *Store) shardOf(key string) (*shard, types.NamespacedName) {
	b, _ := hex.DecodeString(key[:2])
	n := int(b[0]) % shards
	return &s.all[n], types.NamespacedName{Namespace: s.Namespace, Name: fmt.Sprintf("perennial-issuances-%02x", n)}
}

// Get returns what is known of the Certificate.
func (s *Store) Get(ctx context.Context, name types.NamespacedName) (Record, error) {
	k := key(name)
	shard, object := s.shardOf(k)
	if err := s.load(ctx, shard, object); err != nil {
		return Record{}, err
	}
	now := s.Clock.Now()
	var r Record
	shard.mu.Lock()
	if h, ok := shard.histories[k]; ok {
		r.History = h.At(now)
		shard.histories[k] = r.History // times in the future stay corrected
	}
	shard.mu.Unlock()
	s.mu.Lock()
	r.Latest = s.latest[name]
	s.mu.Unlock()
	return r, nil
}

// Count counts an issuance for the cause that starts now. The ConfigMap has it when Count returns.
// undo takes it back, in this process only, if the issuance could not be started.
func (s *Store) Count(ctx context.Context, name types.NamespacedName, cause Cause) (undo func(), err error) {
	k := key(name)
	shard, object := s.shardOf(k)
	if err := s.load(ctx, shard, object); err != nil {
		return nil, err
	}
	shard.mu.Lock()
	was := shard.histories[k]
	is := was.Count(cause, s.Clock.Now())
	shard.histories[k] = is
	shard.changes++
	must := shard.changes
	shard.mu.Unlock()
	undo = func() {
		shard.mu.Lock()
		defer shard.mu.Unlock()
		if shard.histories[k] == is {
			shard.histories[k] = was
		}
	}
	if err := s.save(ctx, shard, object, must); err != nil {
		undo()
		s.Log.Error(err, "cannot save the count of issuances", "configMap", object, "certificate", name)
		return nil, failed(ReasonNotSaved, object.Name, err)
	}
	return undo, nil
}

// Started notes that a request, or a rehearsal, was made now.
func (s *Store) Started(name types.NamespacedName, rehearsal bool) {
	now := s.Clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest == nil {
		s.latest = map[types.NamespacedName]Latest{}
	}
	s.latest[name] = Latest{Started: now, Rehearsed: rehearsal}
	if now.Sub(s.pruned) < time.Hour && !now.Before(s.pruned) {
		return
	}
	s.pruned = now
	for n, l := range s.latest {
		if now.Sub(l.Started) > latestKept {
			delete(s.latest, n)
		}
	}
}

// Issued notes when the certificate of the issuance that was started last is due.
func (s *Store) Issued(name types.NamespacedName, due time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, ok := s.latest[name]; ok {
		l.Due = due
		s.latest[name] = l
	}
}

// load reads a shard, if it has not been read yet.
func (s *Store) load(ctx context.Context, shard *shard, name types.NamespacedName) error {
	loaded := func() bool {
		shard.mu.Lock()
		defer shard.mu.Unlock()
		return shard.histories != nil
	}
	if loaded() {
		return nil
	}
	shard.io.Lock()
	defer shard.io.Unlock()
	if loaded() {
		return nil
	}
	all, object, err := s.read(ctx, name)
	if err != nil {
		return err
	}
	shard.mu.Lock()
	defer shard.mu.Unlock()
	shard.histories, shard.object = all, object
	return nil
}

func (s *Store) read(ctx context.Context, name types.NamespacedName) (histories, *corev1.ConfigMap, error) {
	ctx, cancel := context.WithTimeout(ctx, ioLimit)
	defer cancel()
	object := &corev1.ConfigMap{}
	err := s.Client.Get(ctx, name, object)
	switch {
	case apierrors.IsNotFound(err):
		return histories{}, nil, nil
	case err != nil:
		s.Log.Error(err, "cannot read the count of issuances", "configMap", name)
		return nil, nil, failed(reasonNotRead, name.Name, err)
	}
	all, err := decode([]byte(object.Data[entry]))
	if err != nil {
		s.Log.Error(err, "how often Certificates were issued cannot be read; it is counted anew", "configMap", name)
		all = histories{}
	}
	return all, object, nil
}

// save returns when the changes up to number must are written. Callers that wait share one write.
func (s *Store) save(ctx context.Context, shard *shard, name types.NamespacedName, must uint64) error {
	shard.io.Lock()
	defer shard.io.Unlock()
	ctx, cancel := context.WithTimeout(ctx, ioLimit)
	defer cancel()
	for try := 1; ; try++ {
		shard.mu.Lock()
		if shard.saved >= must {
			shard.mu.Unlock()
			return nil
		}
		changes, was := shard.changes, shard.object
		text, err := shard.histories.encode(s.Clock.Now())
		shard.mu.Unlock()
		if err != nil {
			return err
		}
		is := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}}
		if was != nil {
			is = was.DeepCopy()
		}
		is.Data = map[string]string{entry: string(text)}
		if was == nil {
			err = s.Client.Create(ctx, is)
		} else {
			err = s.Client.Patch(ctx, is, client.MergeFromWithOptions(was, client.MergeFromWithOptimisticLock{}))
		}
		if err == nil {
			shard.mu.Lock()
			shard.object, shard.saved = is, changes
			shard.mu.Unlock()
			return nil
		}
		others := apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || was != nil && apierrors.IsNotFound(err)
		if try == writeTries || !others {
			return err
		}
		// Another process has written, or the ConfigMap was deleted: merge its content with what is known
		// here.
		all, object, err := s.read(ctx, name)
		if err != nil {
			return err
		}
		shard.mu.Lock()
		shard.histories.merge(all)
		shard.object = object
		shard.mu.Unlock()
	}
}
