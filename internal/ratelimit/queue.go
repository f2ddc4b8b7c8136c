package ratelimit

import (
	"cmp"
	"slices"
	"time"
)

// urgent is how long before it expires a certificate is renewed before everything else.
const urgent = 24 * time.Hour

// The classes of orders that wait, in the order in which they are served.
const (
	classUrgent  = iota // renewals of certificates that expire within a day, by that time
	classFirst          // orders of Certificates that have no certificate yet
	classRenewal        // other renewals
)

// queue holds the orders that wait. Within a class the namespace that was not served for longest is
// next, so that a thousand certificates of one namespace delay no other namespace. Orders that the
// For has accepted and that are stuck count as ahead of the others of their namespace. The queue is
// not stored: after a restart all orders ask again.
type queue struct {
	waiting map[string]*waiter // by ID
	wants   map[key]int64      // how many of them need a token of each bucket
	// namespaces counts those of each namespace.
	namespaces map[key]map[string]int64
	last       map[string]time.Time
	stuck      map[string]int // the orders of each namespace that are stuck
	// left counts those that left the queue without being served.
	left uint64
	// inOrder has the waiters in the order of service for one hour. Some of its entries may be gone.
	inOrder []*waiter
	hour    int64
}

// waiter is an order in the queue.
type waiter struct {
	*candidate
	decision Decision
	wants    []key
	class    int
	rank     int // how many orders of its namespace and class are ahead
	gone     bool
	left     uint64 // queue.left when the decision was made
}

// classify sets the class.
func (w *waiter) classify(at time.Time) {
	switch {
	case w.Expires.IsZero():
		w.class = classFirst
	case w.Expires.Before(at.Add(urgent)):
		w.class = classUrgent
	default:
		w.class = classRenewal
	}
}

func (q *queue) get(id string) *waiter { return q.waiting[id] }

// put adds an order, or updates what it waits for.
func (q *queue) put(c *candidate, d Decision) {
	if q.waiting == nil {
		q.waiting, q.wants, q.last = map[string]*waiter{}, map[key]int64{}, map[string]time.Time{}
		q.namespaces = map[key]map[string]int64{}
	}
	w := q.waiting[c.ID]
	if w == nil {
		w = &waiter{candidate: c}
		q.waiting[c.ID] = w
		if q.inOrder != nil {
			q.insert(w)
		}
	}
	q.count(w, -1)
	w.candidate, w.decision, w.wants, w.left = c, d, nil, q.left
	// A paused or refused order takes no token soon.
	if d.Kind != Paused && d.Kind != Refused {
		for _, charges := range [][]charge{c.orders, c.certificates} {
			for _, b := range charges {
				w.wants = append(w.wants, b.key)
			}
		}
	}
	q.count(w, 1)
}

// count adds the buckets that a waiter wants, or removes them.
func (q *queue) count(w *waiter, by int64) {
	for _, k := range w.wants {
		if q.wants[k] += by; q.wants[k] == 0 {
			delete(q.wants, k)
		}
		add(q.namespaces, k, w.Namespace, by)
	}
}

func (q *queue) remove(id string) {
	w := q.waiting[id]
	if w == nil {
		return
	}
	q.count(w, -1)
	w.gone = true
	delete(q.waiting, id)
}

// deleted removes the order of an object that was deleted.
func (q *queue) deleted(namespace, name string) {
	for id, w := range q.waiting {
		if w.Namespace == namespace && w.Name == name {
			q.leave(id)
		}
	}
}

// addStuck counts a stuck order of a namespace, or removes it.
func (q *queue) addStuck(namespace string, by int) {
	if q.stuck == nil {
		q.stuck = map[string]int{}
	}
	if q.stuck[namespace] += by; q.stuck[namespace] == 0 {
		delete(q.stuck, namespace)
	}
}

// leave removes an order that was not admitted.
func (q *queue) leave(id string) {
	if q.waiting[id] != nil {
		q.left++
		q.remove(id)
	}
}

// served removes an order that was admitted.
func (q *queue) served(w *waiter, at time.Time) {
	q.last[w.Namespace] = at
	q.remove(w.ID)
}

// waitingFor returns how many orders wait for a token of a bucket.
func (q *queue) waitingFor(k key) int64 { return q.wants[k] }

// ahead returns how many orders take a token of a bucket before an order in the queue.
func (q *queue) ahead(id string, at time.Time) func(key) int64 {
	var shared []key // those that others want, too: few, so that a slice is faster than a map
	for _, k := range q.waiting[id].wants {
		if q.wants[k] > 1 {
			shared = append(shared, k)
		}
	}
	counts := make([]int64, len(shared))
	for _, w := range q.sorted(at) {
		if w.ID == id {
			break
		}
		if !w.gone {
			w.count(shared, counts)
		}
	}
	return func(k key) int64 {
		if i := slices.Index(shared, k); i >= 0 {
			return counts[i]
		}
		return 0
	}
}

// count counts those buckets that a waiter wants.
func (w *waiter) count(buckets []key, counts []int64) {
	for _, k := range w.wants {
		if i := slices.Index(buckets, k); i >= 0 {
			counts[i]++
		}
	}
}

// insert puts a new waiter behind those of its class and rank.
func (q *queue) insert(w *waiter) {
	w.classify(time.Unix(q.hour*3600, 0))
	w.rank = q.stuck[w.Namespace]
	for _, o := range q.inOrder {
		if !o.gone && o.class == w.class && o.Namespace == w.Namespace {
			w.rank++
		}
	}
	at := slices.IndexFunc(q.inOrder, func(o *waiter) bool {
		switch {
		case o.class != w.class:
			return o.class > w.class
		case w.class == classUrgent:
			return o.Expires.After(w.Expires)
		}
		return o.rank > w.rank
	})
	if at < 0 {
		at = len(q.inOrder)
	}
	q.inOrder = slices.Insert(q.inOrder, at, w)
}

// sorted returns the waiters in the order in which they are served. Some may be gone.
func (q *queue) sorted(at time.Time) []*waiter {
	hour := at.Unix() / 3600
	if q.inOrder != nil && q.hour == hour {
		return q.inOrder
	}
	all := make([]*waiter, 0, len(q.waiting))
	for _, w := range q.waiting {
		w.classify(at)
		all = append(all, w)
	}
	slices.SortFunc(all, func(a, b *waiter) int {
		return cmp.Or(cmp.Compare(a.class, b.class), a.Expires.Compare(b.Expires), a.Created.Compare(b.Created),
			cmp.Compare(a.ID, b.ID))
	})
	behind := map[string]int{}
	for _, w := range all {
		w.rank = q.stuck[w.Namespace] + behind[w.Namespace]
		behind[w.Namespace]++
	}
	slices.SortStableFunc(all, func(a, b *waiter) int {
		if a.class != b.class || a.class == classUrgent {
			return cmp.Compare(a.class, b.class)
		}
		return cmp.Or(cmp.Compare(a.rank, b.rank), q.last[a.Namespace].Compare(q.last[b.Namespace]))
	})
	q.inOrder, q.hour = all, hour
	return all
}
