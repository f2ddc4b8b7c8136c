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
// each time, up to 15 s. A server that wants to be asked at once, again and again, is asked after a tenth of that.
func (p *pace) next(uid string, now, retryAfter time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.delay == nil {
		p.delay = map[string]time.Duration{}
	}
	d := min(max(p.delay[uid]*3/2, firstPoll), lastPoll)
	p.delay[uid] = d
	if !retryAfter.IsZero() {
		return min(max(retryAfter.Sub(now), d/10), latestPoll)
	}
	return d
}

// slow reports whether the server is asked as rarely as it gets, as it came to nothing so far.
func (p *pace) slow(uid string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.delay[uid] >= lastPoll
}

func (p *pace) forget(uid string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.delay, uid)
}

// mended is when it is looked again whether somebody has mended what is missing for something of this age: whoever does so does it soon, or not for
// long.
func mended(age time.Duration) time.Duration { return min(max(age/10, lastPoll), mendedAgain) }

// lanes keep a CA that is slow, or hangs, from taking all workers: each CA has so many exchanges at once, and few while one of them
// takes long.
type lanes struct {
	mu   sync.Mutex
	of   map[string]map[int]time.Time // when the exchanges under way with a CA began
	next int
}

const (
	// slow is how long an exchange takes with a CA that is in trouble.
	slow = 2 * time.Second
	// whenSlow is how many exchanges there may be with such a CA at once.
	whenSlow = 2
	// laneAgain is when it is looked again whether there is room.
	laneAgain = 250 * time.Millisecond
)

// enter takes a place in the lane of a CA, if there is room, and returns how to leave it, once or more often.
func (l *lanes) enter(ca string, most int, now time.Time) (leave func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	underWay := l.of[ca]
	for _, began := range underWay {
		if now.Sub(began) > slow {
			most = min(most, whenSlow)
		}
	}
	if len(underWay) >= most {
		return nil, false
	}
	if underWay == nil {
		if l.of == nil {
			l.of = map[string]map[int]time.Time{}
		}
		underWay = map[int]time.Time{}
		l.of[ca] = underWay
	}
	l.next++
	n := l.next
	underWay[n] = now
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if delete(underWay, n); len(underWay) == 0 {
			delete(l.of, ca)
		}
	}), true
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

// is reports whether it is so.
func (i *instants) is(key string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	_, found := i.of[key]
	return found
}

// drop says that it is no longer so.
func (i *instants) drop(key string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.of, key)
}
