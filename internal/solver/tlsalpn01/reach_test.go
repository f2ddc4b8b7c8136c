package tlsalpn01

import (
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/go-logr/logr/funcr"
)

func TestASiteThatIsDownIsReportedOnceAndWhenItIsBack(t *testing.T) {
	var mu sync.Mutex
	var logged []string
	site, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := site.Addr().String()
	site.Close()
	l := &Listener{PassthroughTo: address, Log: funcr.New(func(_, args string) {
		mu.Lock()
		defer mu.Unlock()
		logged = append(logged, args)
	}, funcr.Options{})}
	visit := func() {
		client, server := net.Pipe()
		client.Close()
		l.relay(t.Context(), server, []byte("hello"))
	}
	for range 3 {
		visit()
	}
	if site, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	defer site.Close()
	go func() {
		for {
			conn, err := site.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	visit()
	visit()
	if len(logged) != 2 || !strings.Contains(logged[0], "cannot be reached") ||
		!strings.Contains(logged[1], `"connections lost"=3`) {
		t.Errorf("it says %q", logged)
	}
}
