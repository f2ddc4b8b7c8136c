package cluster

import (
	"sync/atomic"
	"time"

	"k8s.io/utils/clock"
)

// Clock is the system clock until it is advanced.
type Clock struct {
	clock.RealClock
	ahead atomic.Int64
}

// Step advances the clock. It does not fire timers.
func (c *Clock) Step(d time.Duration) { c.ahead.Add(int64(d)) }

// Now returns the time of the clock.
func (c *Clock) Now() time.Time { return c.RealClock.Now().Add(time.Duration(c.ahead.Load())) }

// Since returns the time since t by this clock.
func (c *Clock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }
