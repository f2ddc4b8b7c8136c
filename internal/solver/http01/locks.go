package http01

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// locks has a lock for each object, so that challenges change an object one after the other. The
// zero value is ready.
type locks struct {
	mu sync.Mutex
	of map[types.NamespacedName]*lock
}

type lock struct {
	held  chan struct{} // has one entry while it is held
	users int
}

// take waits until an object is free, and holds it until done.
func (l *locks) take(ctx context.Context, key types.NamespacedName) (done func(), err error) {
	l.mu.Lock()
	if l.of == nil {
		l.of = map[types.NamespacedName]*lock{}
	}
	is := l.of[key]
	if is == nil {
		is = &lock{held: make(chan struct{}, 1)}
		l.of[key] = is
	}
	is.users++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if is.users--; is.users == 0 {
			delete(l.of, key)
		}
	}
	select {
	case is.held <- struct{}{}:
		return func() { <-is.held; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, fmt.Errorf("wait until other challenges have changed %s: %w", key, ctx.Err())
	}
}
