package lifecycle

import (
	"time"
)

// agenda has the events to come, ordered by time.
type agenda []moment

type moment struct {
	at time.Time
	n  int
	do func()
}

func (e agenda) Len() int           { return len(e) }
func (e agenda) Less(i, j int) bool { return e[i].at.Before(e[j].at) }
func (e agenda) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *agenda) Push(x any)        { *e = append(*e, x.(moment)) }
func (e *agenda) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}
