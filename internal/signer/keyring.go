package signer

import (
	"crypto"
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// Keyring has the private keys of requests that are under way at in-process signers. A key is only
// in memory until it is stored with its certificate, or in a Secret of its own if the request is
// not answered at once. The zero value is ready to use.
type Keyring struct {
	mu   sync.Mutex
	keys map[types.NamespacedName]crypto.Signer
}

// Put keeps the private key of the named request until Drop.
func (k *Keyring) Put(request types.NamespacedName, key crypto.Signer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys == nil {
		k.keys = map[types.NamespacedName]crypto.Signer{}
	}
	k.keys[request] = key
}

// Get returns the private key of the named request, or nil. The caller must compare it with the
// request, which may have been deleted and made anew under its name.
func (k *Keyring) Get(request types.NamespacedName) crypto.Signer {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys[request]
}

// Drop forgets the private key of the named request.
func (k *Keyring) Drop(request types.NamespacedName) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.keys, request)
}
