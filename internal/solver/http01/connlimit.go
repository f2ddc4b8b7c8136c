package http01

import (
	"cmp"
	"net"
	"net/http"
	"sync"
)

// maxConnections is how many connections the challenge listener holds. One more closes the oldest
// connection without a request under way, so that clients with many open connections do not block a
// CA.
const maxConnections = 1000

// Connections bounds the connections of an http.Server. Its State is the server's ConnState. The
// zero value is ready.
type Connections struct {
	most int // maxConnections if zero

	mu   sync.Mutex
	of   map[net.Conn]*connection
	made uint64
}

type connection struct {
	n    uint64 // in the order in which they were made
	busy bool
}

// State is the ConnState hook of the server.
func (c *Connections) State(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		if c.of == nil {
			c.of = map[net.Conn]*connection{}
		}
		if len(c.of) >= cmp.Or(c.most, maxConnections) {
			if old := c.oldest(); old != nil {
				delete(c.of, old)
				old.Close()
			}
		}
		c.made++
		c.of[conn] = &connection{n: c.made}
	case http.StateActive, http.StateIdle:
		if is := c.of[conn]; is != nil {
			is.busy = state == http.StateActive
		}
	case http.StateClosed, http.StateHijacked:
		delete(c.of, conn)
	}
}

// oldest returns the connection to close: the oldest without a request under way, else the oldest.
func (c *Connections) oldest() (old net.Conn) {
	for conn, is := range c.of {
		if old == nil || c.of[old].busy && !is.busy || c.of[old].busy == is.busy && is.n < c.of[old].n {
			old = conn
		}
	}
	return old
}
