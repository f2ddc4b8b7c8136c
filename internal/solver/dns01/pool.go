package dns01

import (
	"crypto/sha256"
	"fmt"
	"sync"
)

// maxPool is how many providers are kept. Clusters have a few. Beyond this number providers are
// made again.
const maxPool = 128

// pool keeps providers that are costly to make or have state, by a digest of their settings.
type pool[P any] struct {
	mu sync.Mutex
	of map[[sha256.Size]byte]P
}

// get returns the provider for these settings, which include secrets.
func (p *pool[P]) get(kind string, settings []string, make func() (P, error)) (P, error) {
	key := sha256.Sum256(fmt.Appendf(nil, "%s %q", kind, settings))
	p.mu.Lock()
	found, ok := p.of[key]
	p.mu.Unlock()
	if ok {
		return found, nil
	}
	made, err := make()
	if err != nil {
		return made, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if found, ok := p.of[key]; ok { // another goroutine was faster
		return found, nil
	}
	if p.of == nil {
		p.of = map[[sha256.Size]byte]P{}
	}
	if len(p.of) >= maxPool {
		for other := range p.of { // any
			delete(p.of, other)
			break
		}
	}
	p.of[key] = made
	return made, nil
}
