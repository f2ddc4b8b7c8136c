package dnstest

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
)

// Network is a network in which public addresses lead to sockets of this machine.
type Network struct {
	// Sockets has the sockets by address, host:port.
	Sockets map[string]string

	mu      sync.Mutex
	dialled []string
}

// Dial returns a function that connects to Sockets, and to the recursive servers as they are.
func (n *Network) Dial(recursive ...string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		n.mu.Lock()
		n.dialled = append(n.dialled, address)
		n.mu.Unlock()
		to, found := n.Sockets[address]
		if !found {
			if !slices.Contains(recursive, address) {
				return nil, errors.New("no route to host")
			}
			to = address
		}
		return new(net.Dialer).DialContext(ctx, network, to)
	}
}

// Dialled returns all addresses that were connected to.
func (n *Network) Dialled() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.dialled)
}
