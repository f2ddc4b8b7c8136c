package cluster

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// The ports for FreePort. They are below the ephemeral ports, one of which an outgoing connection
// could take before the test uses it.
const firstPort, portBlocks, blockSize = 20000, 100, 100

// freePorts are the blocks of ports that this process has. It listens at the first port of each
// until it ends, so that test programs that run at the same time have different blocks.
var freePorts struct {
	sync.Mutex
	blocks    []net.Listener
	next, end int
}

// FreePort returns a free port of 127.0.0.1, each only once.
func FreePort(t testing.TB) int {
	t.Helper()
	p := &freePorts
	p.Lock()
	defer p.Unlock()
	for {
		if p.next == p.end && !takeBlock() {
			t.Fatal("no port is free")
		}
		port := p.next
		p.next++
		if l, err := listen(port); err == nil {
			l.Close()
			return port
		}
	}
}

func takeBlock() bool {
	p := &freePorts
	for _, i := range rand.Perm(portBlocks) {
		first := firstPort + i*blockSize
		if l, err := listen(first); err == nil {
			p.blocks, p.next, p.end = append(p.blocks, l), first+1, first+blockSize
			return true
		}
	}
	return false
}

func listen(port int) (net.Listener, error) {
	return net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
}
