package tlsalpn01

import (
	"cmp"
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxRelays is how many connections are relayed at once. One more closes the relay that is idle
	// for longest, so that clients with many open connections do not block others.
	maxRelays = 4096
	// idleRelay is how long a relay may be idle in both directions. Sites close idle connections
	// sooner, and WebSockets send keep-alives.
	idleRelay = 15 * time.Minute
	// halfClosedRelay is the same once one direction has ended.
	halfClosedRelay = time.Minute
	// relayBuffer is the size of one read.
	relayBuffer = 32 << 10
)

// relays are the connections that are relayed to the site. The zero value is ready.
type relays struct {
	most             int           // maxRelays if zero
	idle, halfClosed time.Duration // idleRelay and halfClosedRelay if zero

	mu  sync.Mutex
	all map[*relay]struct{}
}

// relay is one connection of a client, and the one to the site.
type relay struct {
	client, site net.Conn
	last         atomic.Int64 // when something passed, in ns
	half         atomic.Bool  // one direction has ended
}

func (r *relay) close() {
	r.client.Close()
	r.site.Close()
}

// enter adds a relay. If there are too many, it closes the one that is idle for longest.
func (s *relays) enter(r *relay) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[*relay]struct{}{}
	}
	if len(s.all) >= cmp.Or(s.most, maxRelays) {
		var idlest *relay
		for other := range s.all {
			if idlest == nil || other.last.Load() < idlest.last.Load() {
				idlest = other
			}
		}
		idlest.close()
		delete(s.all, idlest)
	}
	s.all[r] = struct{}{}
}

func (s *relays) leave(r *relay) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, r)
}

// run relays until both directions have ended, ctx ends, or the relay is idle for too long.
func (s *relays) run(ctx context.Context, client, site net.Conn) {
	r := &relay{client: client, site: site}
	r.last.Store(time.Now().UnixNano())
	s.enter(r)
	defer s.leave(r)
	done := make(chan struct{})
	defer close(done)
	go s.watch(ctx, r, done)
	var group sync.WaitGroup
	group.Go(func() { r.copy(site, client) })
	r.copy(client, site)
	group.Wait()
}

// watch closes an idle relay.
func (s *relays) watch(ctx context.Context, r *relay, done <-chan struct{}) {
	idle, half := cmp.Or(s.idle, idleRelay), cmp.Or(s.halfClosed, halfClosedRelay)
	ticker := time.NewTicker(half / 4)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-ctx.Done():
			r.close()
			return
		case <-ticker.C:
		}
		limit := idle
		if r.half.Load() {
			limit = half
		}
		if time.Since(time.Unix(0, r.last.Load())) >= limit {
			r.close()
			return
		}
	}
}

// copy relays one direction.
func (r *relay) copy(to, from net.Conn) {
	buffer := make([]byte, relayBuffer)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			r.last.Store(time.Now().UnixNano())
			if _, err := to.Write(buffer[:n]); err != nil {
				r.close() // the data cannot be delivered
				return
			}
			r.last.Store(time.Now().UnixNano())
		}
		if err != nil {
			if err != io.EOF { //nolint:errorlint // a connection returns it as it is
				r.close()
				return
			}
			r.half.Store(true)
			if half, ok := to.(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite()
			}
			return
		}
	}
}
