package tlsalpn01

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"github.com/perennial-pki/perennial/acme"
)

const (
	// helloTimeout is how long a client may take for its ClientHello, and for the handshake of a
	// challenge.
	helloTimeout = 10 * time.Second
	// maxHello is larger than any ClientHello that is not split over many records.
	maxHello = 64 << 10
	// maxWaiting is how many connections may be without a ClientHello at once. One more closes the
	// oldest, so that clients with many idle connections do not block others.
	maxWaiting = 1000
	// handshakeRecord is the type of the record with which TLS begins.
	handshakeRecord = 22
	connectLimit    = 10 * time.Second
	acceptAgain     = 100 * time.Millisecond
)

// A Listener answers challenge connections, and relays all others to the site.
type Listener struct {
	Solver *Solver
	// PassthroughTo is the host:port of the site that receives, unmodified, all connections that do
	// not offer exactly the protocol acme-tls/1. If it is empty, they are closed.
	PassthroughTo string
	Log           logr.Logger

	site     lostConnections
	relays   relays
	patience time.Duration // helloTimeout if zero
	most     int           // maxWaiting if zero
}

// Serve answers until ctx ends. It closes the listener.
func (l *Listener) Serve(ctx context.Context, listener net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	var group sync.WaitGroup
	defer group.Wait()
	waiting := make([]atomic.Pointer[net.Conn], cmp.Or(l.most, maxWaiting))
	for n := 0; ; n++ {
		conn, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			select { // out of file descriptors, or the client was gone at once: the next may be better
			case <-ctx.Done():
				return nil
			case <-time.After(acceptAgain):
			}
			continue
		}
		place, own := &waiting[n%len(waiting)], &conn
		if old := place.Swap(own); old != nil {
			(*old).Close()
		}
		group.Go(func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			hello, read, err := clientHello(ctx, conn, cmp.Or(l.patience, helloTimeout))
			place.CompareAndSwap(own, nil)
			switch {
			case err != nil:
				return
			case hello != nil && len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acme.TLSALPN01Protocol:
				l.answer(ctx, &replayed{Conn: conn, first: read}, hello.ServerName)
			case l.PassthroughTo != "":
				l.relay(ctx, conn, read)
			}
		})
	}
}

// errRead ends a handshake after the ClientHello.
var errRead = errors.New("read")

// clientHello reads the ClientHello from a connection, and returns it with all bytes that were
// read. It is nil if it cannot be parsed: the site may still understand it.
func clientHello(
	ctx context.Context,
	conn net.Conn,
	patience time.Duration,
) (hello *tls.ClientHelloInfo, read []byte, err error) {
	r := &recorded{Conn: conn}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, nil, err
	}
	err = tls.Server(r, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		hello = h
		return nil, errRead
	}}).HandshakeContext(ctx)
	if hello == nil && (r.failed || len(r.read) == 0 || r.read[0] != handshakeRecord) {
		return nil, nil, err
	}
	return hello, r.read, conn.SetReadDeadline(time.Time{})
}

// recorded is a connection that keeps the bytes that are read, and drops writes.
type recorded struct {
	net.Conn
	read   []byte
	failed bool
}

// Read reads and records.
func (r *recorded) Read(p []byte) (int, error) {
	if len(r.read) >= maxHello {
		r.failed = true
		return 0, errors.New("the ClientHello is too long")
	}
	n, err := r.Conn.Read(p)
	r.read, r.failed = append(r.read, p[:n]...), err != nil
	return n, err
}

// Write discards.
func (r *recorded) Write(p []byte) (int, error) { return len(p), nil }

// Close does nothing.
func (r *recorded) Close() error { return nil }

// replayed is a connection that first returns bytes that were read already.
type replayed struct {
	net.Conn
	first []byte
}

// Read reads what was recorded first.
func (r *replayed) Read(p []byte) (int, error) {
	if len(r.first) > 0 {
		n := copy(p, r.first)
		r.first = r.first[n:]
		return n, nil
	}
	return r.Conn.Read(p)
}

// answer makes the handshake of a challenge. No data follows it.
func (l *Listener) answer(ctx context.Context, conn net.Conn, name string) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	certificate, err := l.Solver.certificate(ctx, name)
	if err != nil {
		l.Log.V(1).
			Info("a TLS-ALPN-01 challenge is not answered", "host", name, "from", conn.RemoteAddr().String(), "why", err.Error())
		return
	}
	server := tls.Server(conn, &tls.Config{
		Certificates: []tls.Certificate{
			*certificate,
		},
		NextProtos: []string{acme.TLSALPN01Protocol},
		MinVersion: tls.VersionTLS12,
	})
	if err := server.HandshakeContext(ctx); err == nil {
		_ = server.Close()
	}
}

// lostConnections counts connections that were lost since the site could last be reached.
type lostConnections struct{ n atomic.Int64 }

func (r *lostConnections) lost() int64  { return r.n.Add(1) }
func (r *lostConnections) found() int64 { return r.n.Swap(0) }

// relay relays a connection to the site. It first sends the bytes that were read.
func (l *Listener) relay(ctx context.Context, conn net.Conn, read []byte) {
	dialer := net.Dialer{Timeout: connectLimit}
	site, err := dialer.DialContext(ctx, "tcp", l.PassthroughTo)
	if err != nil {
		if l.site.lost() == 1 && ctx.Err() == nil { // once, because there may be many such connections
			l.Log.Info("the site behind the listener cannot be reached", "address", l.PassthroughTo, "why", err.Error())
		}
		return
	}
	if n := l.site.found(); n > 0 {
		l.Log.Info("the site behind the listener can be reached again", "address", l.PassthroughTo, "connections lost", n)
	}
	defer site.Close()
	if _, err := site.Write(read); err != nil {
		return
	}
	l.relays.run(ctx, conn, site)
}
