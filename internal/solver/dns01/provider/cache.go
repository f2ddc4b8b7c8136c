package provider

import (
	"crypto/sha256"
	"fmt"
	"sync"

	"k8s.io/utils/lru"
)

const (
	// maxProviders is how many providers are kept. Clusters have a few. Those used least recently are
	// made again.
	maxProviders = 128
	// maxZones and maxChanges are how many zones, and changes that have not reached all servers, are
	// remembered for each provider.
	maxZones, maxChanges = 1000, 1000
)

// cache is an lru.Cache with types. The zero value is ready.
type cache[K comparable, V any] struct {
	mu      sync.Mutex
	entries *lru.Cache
}

// get returns the value of a key, or the zero value.
func (c *cache[K, V]) get(key K) (value V, found bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil {
		return value, false
	}
	is, found := c.entries.Get(key)
	if found {
		value = is.(V)
	}
	return value, found
}

// add sets the value of a key, and drops the entry that was used least recently if there would be
// more than size.
func (c *cache[K, V]) add(key K, value V, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addLocked(key, value, size)
}

func (c *cache[K, V]) addLocked(key K, value V, size int) {
	if c.entries == nil {
		c.entries = lru.New(size)
	}
	c.entries.Add(key, value)
}

// addFirst sets the value of a key if it has none, and returns its value.
func (c *cache[K, V]) addFirst(key K, value V, size int) V {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries != nil {
		if is, found := c.entries.Get(key); found {
			return is.(V)
		}
	}
	c.addLocked(key, value, size)
	return value
}

// remove drops a key.
func (c *cache[K, V]) remove(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries != nil {
		c.entries.Remove(key)
	}
}

// digest identifies settings, which include secrets.
type digest [sha256.Size]byte

// openOnce returns the provider of a service for these settings from a cache, because it is costly
// to make or has state.
func openOnce[P any](c *cache[digest, P], service string, settings []string, open func() (P, error)) (P, error) {
	key := digest(sha256.Sum256(fmt.Appendf(nil, "%s %q", service, settings)))
	if found, ok := c.get(key); ok {
		return found, nil
	}
	made, err := open()
	if err != nil {
		return made, err
	}
	return c.addFirst(key, made, maxProviders), nil // another goroutine may have been faster
}
