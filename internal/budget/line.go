package budget

import (
	"cmp"
	"slices"
	"time"
)

// urgent is how long before its end a certificate must be renewed before everything else.
const urgent = 24 * time.Hour

// line is who waits. First are the renewals of certificates that end within a day, the one that ends first before the others. Then come those who
// have no certificate yet, then the other renewals. Of these each namespace gets as much as the others: whoever was not served for longest is
// next, so that a thousand certificates of one keep no other waiting. It is forgotten at a restart, after which all ask again.
type line struct {
	waiting map[string]*waiter // by ID
	wants   map[key]int64      // how many of them want a token of a bucket
	last    map[string]time.Time
	// left is how many have left it without being served.
	left uint64
	// inOrder is the order of an hour, with some that are gone.
	inOrder []*waiter
	hour    int64
}

type waiter struct {
	*asking
	verdict Verdict
	wants   []key
	// class is 0 for urgent ones, 1 for the first of a Certificate, 2 for other renewals; rank says how many of the namespace are before it.
	class, rank int
	gone        bool
	left        uint64 // those that had left when the verdict was made
}

// classify sets the class.
func (w *waiter) classify(at time.Time) {
	switch {
	case w.Expires.IsZero():
		w.class = 1
	case w.Expires.Before(at.Add(urgent)):
		w.class = 0
	default:
		w.class = 2
	}
}

func (l *line) at(id string) *waiter { return l.waiting[id] }

// put puts an order in, or writes down what it waits for now.
func (l *line) put(p *asking, v Verdict) {
	if l.waiting == nil {
		l.waiting, l.wants, l.last = map[string]*waiter{}, map[key]int64{}, map[string]time.Time{}
	}
	w := l.waiting[p.ID]
	if w == nil {
		w = &waiter{asking: p}
		l.waiting[p.ID] = w
		if l.inOrder != nil {
			l.insert(w)
		}
	}
	l.want(w, -1)
	w.asking, w.verdict, w.wants, w.left = p, v, nil, l.left
	// One that is paused, or refused, takes no token soon.
	if v.Kind != Paused && v.Kind != Refused {
		for _, list := range [][]slot{p.orders, p.certificates} {
			for _, s := range list {
				w.wants = append(w.wants, s.key)
			}
		}
	}
	l.want(w, 1)
}

func (l *line) want(w *waiter, by int64) {
	for _, k := range w.wants {
		if l.wants[k] += by; l.wants[k] == 0 {
			delete(l.wants, k)
		}
	}
}

func (l *line) remove(id string) {
	w := l.waiting[id]
	if w == nil {
		return
	}
	l.want(w, -1)
	w.gone = true
	delete(l.waiting, id)
}

func (l *line) gone(namespace, name string) {
	for id, w := range l.waiting {
		if w.Namespace == namespace && w.Name == name {
			l.leave(id)
		}
	}
}

// leave says that an order does not wait any more, and was not served.
func (l *line) leave(id string) {
	if l.waiting[id] != nil {
		l.left++
		l.remove(id)
	}
}

// served says that an order was let go.
func (l *line) served(w *waiter, at time.Time) {
	l.last[w.Namespace] = at
	l.remove(w.ID)
}

// all returns how many wait for a token of a bucket.
func (l *line) all(k key) int64 { return l.wants[k] }

// before returns how many of them are before an order.
func (l *line) before(id string, at time.Time) func(key) int64 {
	var keys []key // those that others want, too
	for _, k := range l.waiting[id].wants {
		if l.wants[k] > 1 {
			keys = append(keys, k)
		}
	}
	counts := make([]int64, len(keys))
	for _, w := range l.sorted(at) {
		if w.ID == id {
			break
		}
		if w.gone {
			continue
		}
		for _, k := range w.wants {
			for i := range keys {
				if k == keys[i] {
					counts[i]++
				}
			}
		}
	}
	return func(k key) int64 {
		if i := slices.Index(keys, k); i >= 0 {
			return counts[i]
		}
		return 0
	}
}

// insert puts one that is new behind those of its class and rank.
func (l *line) insert(w *waiter) {
	w.classify(time.Unix(l.hour*3600, 0))
	for _, o := range l.inOrder {
		if !o.gone && o.class == w.class && o.Namespace == w.Namespace {
			w.rank++
		}
	}
	at := slices.IndexFunc(l.inOrder, func(o *waiter) bool {
		switch {
		case o.class != w.class:
			return o.class > w.class
		case w.class == 0:
			return o.Expires.After(w.Expires)
		}
		return o.rank > w.rank
	})
	if at < 0 {
		at = len(l.inOrder)
	}
	l.inOrder = slices.Insert(l.inOrder, at, w)
}

// sorted returns all in the order in which they are served, and perhaps some that have gone.
func (l *line) sorted(at time.Time) []*waiter {
	hour := at.Unix() / 3600
	if l.inOrder != nil && l.hour == hour {
		return l.inOrder
	}
	all := make([]*waiter, 0, len(l.waiting))
	for _, w := range l.waiting {
		w.classify(at)
		all = append(all, w)
	}
	slices.SortFunc(all, func(a, b *waiter) int {
		return cmp.Or(cmp.Compare(a.class, b.class), a.Expires.Compare(b.Expires), a.Asked.Compare(b.Asked), cmp.Compare(a.ID, b.ID))
	})
	// Each is so many behind others of its namespace.
	behind := map[string]int{}
	for _, w := range all {
		w.rank = behind[w.Namespace]
		behind[w.Namespace]++
	}
	slices.SortStableFunc(all, func(a, b *waiter) int {
		if a.class != b.class || a.class == 0 {
			return cmp.Compare(a.class, b.class)
		}
		return cmp.Or(cmp.Compare(a.rank, b.rank), l.last[a.Namespace].Compare(l.last[b.Namespace]))
	})
	l.inOrder, l.hour = all, hour
	return all
}
