package http01

import (
	"io"
	"net"
	"net/http"
	"runtime"
	"testing"
	"time"
)

// TestStrangersThatHoldConnectionsOpenKeepNoCAOut opens many connections that send nothing, a part
// of a request, or one request only.
func TestStrangersThatHoldConnectionsOpenKeepNoCAOut(t *testing.T) {
	const most = 20
	c := &Connections{most: most}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: answer(func(*http.Request, string, string) (string, error) {
		return "the proof",
			nil
	}), ConnState: c.State, ReadHeaderTimeout: time.Hour}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()
	before := runtime.NumGoroutine()
	for i := range 10 * most {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, []string{"", "GET /healthz HTTP/1.1\r\n",
			"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"}[i%3]); err != nil {
			continue // it was closed already
		}
		if i%most != 0 {
			continue
		}
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
		response, err := client.Get("http://" + listener.Addr().String() +
			"/.well-known/acme-challenge/0123456789012345678901")
		if err != nil {
			t.Fatalf("after %d connections: %v", i, err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if string(body) != "the proof" {
			t.Errorf("it answers %q", body)
		}
	}
	for range 1000 {
		c.mu.Lock()
		held := len(c.of)
		c.mu.Unlock()
		if goroutines := runtime.NumGoroutine() - before; held <= most && goroutines <= 2*most {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d connections are held, by %d goroutines", len(c.of), runtime.NumGoroutine()-before)
}
