// Package memory keeps what a reconciler remembers of each object. A record goes with its object,
// and none survives a restart.
package memory

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Records has a record for each object. The zero value is ready. A record belongs to the pass of
// its object, of which there is one at a time.
type Records[T any] struct {
	mu      sync.Mutex
	records map[types.NamespacedName]*record[T]
}

type record[T any] struct {
	uid types.UID
	is  T
}

// Of returns the record of an object, which is a new one if there is none for its UID.
func (r *Records[T]) Of(o client.Object) *T {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := client.ObjectKeyFromObject(o)
	found := r.records[key]
	if found == nil || found.uid != o.GetUID() {
		found = &record[T]{uid: o.GetUID()}
		if r.records == nil {
			r.records = map[types.NamespacedName]*record[T]{}
		}
		r.records[key] = found
	}
	return &found.is
}

// Drop forgets an object.
func (r *Records[T]) Drop(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.records, key)
}

// Len is how many objects have a record.
func (r *Records[T]) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.records)
}

// Timestamp is when something began, zero if it has not.
type Timestamp struct{ time.Time }

// Start returns when it began, which is now if it had not.
func (t *Timestamp) Start(now time.Time) time.Time {
	if t.IsZero() {
		t.Time = now
	}
	return t.Time
}

// Clear says that it has ended.
func (t *Timestamp) Clear() { t.Time = time.Time{} }

// KeepEarlier moves it to an earlier time. Zero changes nothing.
func (t *Timestamp) KeepEarlier(to time.Time) {
	if !to.IsZero() && (t.IsZero() || to.Before(t.Time)) {
		t.Time = to
	}
}
