package order

import (
	"sync"
	"time"
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

// question is what was asked last: how long after that it is to be asked again if the server does not say, and when that is.
type question struct {
	delay time.Duration
	again time.Time
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
	wait := d
	if !retryAfter.IsZero() {
		wait = min(max(retryAfter.Sub(now), d/10), latestPoll)
	}
	p.of[uid] = question{d, now.Add(wait)}
	return wait
}

// early returns how long it is until the next question. It is not positive if that may be asked.
func (p *pace) early(uid string, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of[uid].again.Sub(now)
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
