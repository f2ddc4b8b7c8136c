// Package keygen generates private keys that take long, such as RSA keys of 4096 bits, which keep a
// core busy for seconds. It runs outside of the workers of controllers. Few keys are generated at
// once, and namespaces take turns.
package keygen

import (
	"crypto"
	"crypto/rand"
	"runtime"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/perennial-pki/perennial/pki"
)

// ID says what a private key is for.
type ID struct {
	Certificate types.NamespacedName
	UID         types.UID
	Rehearsal   bool
}

// Pool generates private keys, and keeps each until Drop. The process does not wait for it at its
// end: an unfinished key is lost.
type Pool struct {
	size     int // keys that are generated at once
	share    int // of these for one namespace
	generate func(pki.KeySpec) (crypto.Signer, error)
	wake     func(types.NamespacedName)

	mu      sync.Mutex
	jobs    map[ID]*job
	waiting map[string][]*job // by namespace
	turns   []string          // namespaces with a job that waits, the next one first
	busy    map[string]int    // keys that are being generated, by namespace
}

// job is one private key. A job that is not in Pool.jobs was given up.
type job struct {
	id    ID
	spec  pki.KeySpec
	since time.Time
	key   crypto.Signer
	err   error
}

// New returns a pool for half of the cores, but two keys at once at least.
func New() *Pool {
	return newPool(max(2, runtime.GOMAXPROCS(0)/2), func(spec pki.KeySpec) (crypto.Signer,
		error) {
		return spec.Generate(rand.Reader)
	})
}

func newPool(size int, generate func(pki.KeySpec) (crypto.Signer, error)) *Pool {
	return &Pool{
		size: size, share: max(1, size/2), generate: generate, wake: func(types.NamespacedName) {},
		jobs: map[ID]*job{}, waiting: map[string][]*job{}, busy: map[string]int{},
	}
}

// OnDone sets the function that is called with the Certificate of each finished key. Call it before
// the first Get.
func (p *Pool) OnDone(wake func(types.NamespacedName)) { p.wake = wake }

// Get returns the private key that was generated for id, nil while it is not there. now is the
// time, and since is when the key was first asked for.
func (p *Pool) Get(id ID, spec pki.KeySpec, now time.Time) (key crypto.Signer, since time.Time, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	j := p.jobs[id]
	if j != nil && j.spec == spec && j.err == nil {
		return j.key, j.since, nil
	}
	if j != nil && j.spec == spec {
		delete(p.jobs, id) // the next Get tries again
		return nil, j.since, j.err
	}
	p.drop(id)
	j = &job{id: id, spec: spec, since: now}
	p.jobs[id] = j
	namespace := id.Certificate.Namespace
	if len(p.waiting[namespace]) == 0 {
		p.turns = append(p.turns, namespace)
	}
	p.waiting[namespace] = append(p.waiting[namespace], j)
	p.begin()
	return nil, j.since, nil
}

// Drop forgets the private keys for a Certificate: they are stored, or no longer needed.
func (p *Pool) Drop(certificate types.NamespacedName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.jobs) == 0 {
		return
	}
	for id := range p.jobs {
		if id.Certificate == certificate {
			p.drop(id)
		}
	}
}

// drop forgets a job. A job that is under way cannot be stopped; its key is thrown away.
func (p *Pool) drop(id ID) {
	j := p.jobs[id]
	if j == nil {
		return
	}
	delete(p.jobs, id)
	namespace := id.Certificate.Namespace
	if i := slices.Index(p.waiting[namespace], j); i >= 0 {
		p.dequeue(namespace, i)
	}
}

// dequeue takes the ith job of a namespace from those that wait.
func (p *Pool) dequeue(namespace string, i int) *job {
	j := p.waiting[namespace][i]
	p.waiting[namespace] = slices.Delete(p.waiting[namespace], i, i+1)
	if len(p.waiting[namespace]) == 0 {
		delete(p.waiting, namespace)
		p.turns = slices.DeleteFunc(p.turns, func(n string) bool { return n == namespace })
	}
	return j
}

// begin starts as many jobs as the limits allow. p.mu must be held.
func (p *Pool) begin() {
	for {
		total := 0
		for _, n := range p.busy {
			total += n
		}
		next := slices.IndexFunc(p.turns, func(n string) bool { return p.busy[n] < p.share })
		if total >= p.size || next < 0 {
			return
		}
		namespace := p.turns[next]
		p.turns = append(slices.Delete(p.turns, next, next+1), namespace) // behind the others
		p.busy[namespace]++
		go p.run(namespace, p.dequeue(namespace, 0))
	}
}

func (p *Pool) run(namespace string, j *job) {
	key, err := p.generate(j.spec)
	p.mu.Lock()
	j.key, j.err = key, err
	wanted := p.jobs[j.id] == j
	if p.busy[namespace]--; p.busy[namespace] == 0 {
		delete(p.busy, namespace)
	}
	p.begin()
	p.mu.Unlock()
	if wanted {
		p.wake(j.id.Certificate)
	}
}
