package cluster

import (
	"context"
	"errors"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

var errDead = errors.New("the process is dead")

// Life is the lifetime of a simulated process. It ends at the n-th write: later writes do not reach
// the server, as after a kill.
type Life struct {
	mu     sync.Mutex
	left   int  // writes until the end
	after  bool // the last write still reaches the server
	died   chan struct{}
	ended  bool
	closed bool   // writes no longer reach the server
	then   func() // runs at the last write, instead of the end
}

func (l *Life) write(write func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errDead
	}
	if l.left--; l.left > 0 || l.left < 0 && l.then != nil {
		return write()
	}
	if l.then != nil {
		defer l.end()
		if !l.after {
			l.then()
			return write()
		}
		defer l.then()
		return write()
	}
	if l.after {
		_ = write()
	}
	l.end()
	return errDead
}

// mortal is the client of a process that dies.
type mortal struct {
	client.Client
	life *Life
}

func (m *mortal) Create(ctx context.Context, o client.Object, options ...client.CreateOption) error {
	if o.GetObjectKind().GroupVersionKind().Group == "authorization.k8s.io" || o.GetName() == "" {
		return m.Client.Create(ctx, o, options...) // a review, not a write
	}
	return m.life.write(func() error { return m.Client.Create(ctx, o, options...) })
}

func (m *mortal) Delete(ctx context.Context, o client.Object, options ...client.DeleteOption) error {
	return m.life.write(func() error { return m.Client.Delete(ctx, o, options...) })
}

func (m *mortal) Patch(ctx context.Context, o client.Object, p client.Patch, options ...client.PatchOption) error {
	return m.life.write(func() error { return m.Client.Patch(ctx, o, p, options...) })
}

func (m *mortal) Apply(ctx context.Context, o runtime.ApplyConfiguration, options ...client.ApplyOption) error {
	return m.life.write(func() error { return m.Client.Apply(ctx, o, options...) })
}

func (m *mortal) Status() client.SubResourceWriter {
	return &mortalStatus{m.Client.Status(), m.life}
}

type mortalStatus struct {
	client.SubResourceWriter
	life *Life
}

func (m *mortalStatus) Patch(
	ctx context.Context,
	o client.Object,
	p client.Patch,
	options ...client.SubResourcePatchOption,
) error {
	return m.life.write(func() error { return m.SubResourceWriter.Patch(ctx, o, p, options...) })
}

// NewLife returns a Life that ends at the given write. If after is set, that write still reaches
// the server.
func NewLife(writes int, after bool) *Life {
	return &Life{left: writes, after: after, died: make(chan struct{})}
}

// NewMoment returns a Life that does not end. Before or after the n-th write, it calls a function
// and closes Died.
func NewMoment(writes int, after bool, then func()) *Life {
	l := NewLife(writes, after)
	l.then = then
	return l
}

// Wrap returns a client that can write as long as the process lives.
func (l *Life) Wrap(c client.Client) client.Client { return &mortal{c, l} }

// End ends the life now.
func (l *Life) End() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end()
}

func (l *Life) end() {
	if !l.ended {
		l.ended, l.closed = true, l.then == nil
		close(l.died)
	}
}

// Died is closed when the life has ended.
func (l *Life) Died() <-chan struct{} { return l.died }
