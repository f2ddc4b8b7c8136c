package order

import (
	"sync"
	"time"
)

const (
	firstPoll = time.Second
	lastPoll  = 15 * time.Second
	// A server that names a later time is obeyed up to here: then it is asked all the same.
	latestPoll = time.Hour
)

// pace says when to ask the server again about an object that is under way. It forgets at a restart, which costs one question.
type pace struct {
	mu    sync.Mutex
	delay map[string]time.Duration
}

// next returns the delay before the next question: until the server's Retry-After, if there was one, else 1 s, and half as much again
// each time, up to 15 s.
func (p *pace) next(uid string, now, retryAfter time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.delay == nil {
		p.delay = map[string]time.Duration{}
	}
	d := min(max(p.delay[uid]*3/2, firstPoll), lastPoll)
	p.delay[uid] = d
	if !retryAfter.IsZero() {
		return min(max(retryAfter.Sub(now), firstPoll/4), latestPoll)
	}
	return d
}

func (p *pace) forget(uid string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.delay, uid)
}

// instants remember when something was first so.
type instants struct {
	mu sync.Mutex
	of map[string]time.Time
}

// since returns when it was first so, which is now if it was not so before.
func (i *instants) since(key string, now time.Time) time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.of == nil {
		i.of = map[string]time.Time{}
	}
	first, found := i.of[key]
	if !found {
		first = now
		i.of[key] = now
	}
	return first
}

// drop says that it is no longer so.
func (i *instants) drop(key string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.of, key)
}
