package cluster

import (
	"sync/atomic"
	"time"

	"k8s.io/utils/clock"
)

// Clock is the system's, until it is put forward.
type Clock struct {
	clock.RealClock
	ahead atomic.Int64
}

// Step puts the clock forward. Who waits by a timer is not woken.
func (c *Clock) Step(d time.Duration) { c.ahead.Add(int64(d)) }

// Now is the time that the clock shows.
func (c *Clock) Now() time.Time { return c.RealClock.Now().Add(time.Duration(c.ahead.Load())) }

// Since is how long ago t is by this clock.
func (c *Clock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }
