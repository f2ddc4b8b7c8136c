package order

import (
	"maps"
	"sync"
	"time"

	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/fault"
)

const (
	firstPoll = time.Second
	lastPoll  = time.Minute
	// A server that names a later time is obeyed up to here: then it is asked all the same.
	latestPoll = time.Hour
	// worthSaying is the shortest wait that a status speaks of: each costs a write.
	worthSaying = time.Minute
)

// pace says when to ask the server again about an object that is under way. It forgets at a restart, which costs one question.
type pace struct {
	mu sync.Mutex
	of map[string]question
}

// question is what was asked last: how long after that it is to be asked again if the server does not say, when that is, and whether the server said so.
type question struct {
	delay time.Duration
	again time.Time
	told  bool
}

// next returns the delay before the next question: until the server's Retry-After, if there was one, else 1 s, and half as much again
// each time, up to a minute, so that nobody waits half as long again as the server needs. A server that wants to be asked at once, again and
// again, is asked after a tenth of that.
func (p *pace) next(uid string, now, retryAfter time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of == nil {
		p.of = map[string]question{}
	}
	d := min(max(p.of[uid].delay*3/2, firstPoll), lastPoll)
	wait, least := d, d/10
	if !retryAfter.IsZero() {
		wait = min(max(retryAfter.Sub(now), least), latestPoll)
	}
	p.of[uid] = question{d, now.Add(wait), !retryAfter.IsZero() && wait > least}
	return wait
}

// early returns how long it is until the next question. It is not positive if that may be asked.
func (p *pace) early(uid string, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of[uid].again.Sub(now)
}

// told is early for a server that has said when to ask again.
func (p *pace) told(uid string, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if q := p.of[uid]; q.told {
		return q.again.Sub(now)
	}
	return 0
}

// slow reports whether the server is asked as rarely as it gets, as it came to nothing so far.
func (p *pace) slow(uid string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of[uid].delay >= lastPoll
}

func (p *pace) forget(uid string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.of, uid)
}

// mended is when it is looked again whether somebody has mended what is missing for something of this age: whoever does so does it soon, or not for
// long.
func mended(age time.Duration) time.Duration { return min(max(age/10, mendedSoonest), mendedAgain) }

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

// by sees to it that it is so no later than that. Zero is no time.
func (i *instants) by(key string, at time.Time) {
	if at.IsZero() || !at.Before(i.since(key, at)) {
		return
	}
	i.drop(key)
	i.since(key, at)
}

// is reports whether it is so.
func (i *instants) is(key string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	_, found := i.of[key]
	return found
}

// rest has something rest after an error that names a time: whatever happens before, such as the write that tells of the error, is no reason to ask.
func (i *instants) rest(key string, now time.Time, err error) {
	if err == nil {
		return
	}
	f := fault.Of(account.Fault("", now, err))
	if f.Class != fault.Limited {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	maps.DeleteFunc(i.of, func(_ string, until time.Time) bool { return !now.Before(until) }) // some may be gone
	if i.of == nil {
		i.of = map[string]time.Time{}
	}
	i.of[key] = f.Until
}

// rests returns how long it rests still. It is not positive if it does not.
func (i *instants) rests(key string, now time.Time) time.Duration {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.of[key].Sub(now)
}

// drop says that it is no longer so.
func (i *instants) drop(key string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.of, key)
}
