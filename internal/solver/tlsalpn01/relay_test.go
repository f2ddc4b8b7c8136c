package tlsalpn01

import (
	"errors"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// echo is a site that sends back what it gets, and counts its connections.
func echo(t *testing.T) (site net.Listener, open *atomic.Int64) {
	t.Helper()
	site, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { site.Close() })
	open = &atomic.Int64{}
	go func() {
		for {
			conn, err := site.Accept()
			if err != nil {
				return
			}
			open.Add(1)
			go func() {
				defer open.Add(-1)
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return site, open
}

// visit connects as a client of the site does, and waits for the echo.
func visit(t *testing.T, address string, hello []byte) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := conn.Write(hello); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, len(hello))); err != nil {
		t.Fatal(err)
	}
	return conn
}

// untilClosed waits until the other side has closed a connection.
func untilClosed(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	timeout := net.Error(nil)
	if _, err := io.Copy(io.Discard, conn); errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatal("it is still open")
	}
}

func TestRelaysAreCapped(t *testing.T) {
	site, open := echo(t)
	hello := recordedHello(t, "a.example.com", "h2")
	const most = 5
	l := &Listener{PassthroughTo: site.Addr().String()}
	l.relays.most = most
	address := listen(t, l)
	before := runtime.NumGoroutine()
	active := visit(t, address, hello)
	var idle []net.Conn
	for range 20 {
		idle = append(idle, visit(t, address, hello))
		if _, err := active.Write([]byte("x")); err != nil { // a connection in use stays open
			t.Fatal(err)
		}
		if _, err := io.ReadFull(active, make([]byte, 1)); err != nil {
			t.Fatalf("the connection in use was closed: %v", err)
		}
	}
	for _, conn := range idle[:len(idle)-most+1] {
		untilClosed(t, conn)
	}
	for range 1000 {
		if open.Load() <= most && runtime.NumGoroutine()-before < most*10 {
			return
		}
		runtime.Gosched()
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("the site has %d connections, and there are %d goroutines more", open.Load(), runtime.NumGoroutine()-before)
}

func TestRelaysEndWhenTheyAreIdleOrHalfClosed(t *testing.T) {
	site, open := echo(t)
	hello := recordedHello(t, "a.example.com", "h2")
	ended := func(what string) {
		t.Helper()
		for range 1000 {
			if open.Load() == 0 {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("%s: the site still has its connection", what)
	}
	idle := &Listener{PassthroughTo: site.Addr().String()}
	idle.relays.idle, idle.relays.halfClosed = 50*time.Millisecond, 20*time.Millisecond
	untilClosed(t, visit(t, listen(t, idle), hello))
	ended("idle")

	// The site ends its direction, and the client keeps its own open.
	deaf, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	gone := make(chan error, 1)
	go func() {
		conn, err := deaf.Accept()
		if err != nil {
			gone <- err
			return
		}
		_ = conn.(*net.TCPConn).CloseWrite()
		_, err = io.Copy(io.Discard, conn) // until the relay ends
		gone <- err
	}()
	half := &Listener{PassthroughTo: deaf.Addr().String()}
	half.relays.idle, half.relays.halfClosed = time.Hour, 50*time.Millisecond
	conn, err := net.Dial("tcp", listen(t, half))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(hello); err != nil {
		t.Fatal(err)
	}
	select {
	case <-gone:
	case <-time.After(time.Minute):
		t.Error("half closed: the site still has its connection")
	}
}
