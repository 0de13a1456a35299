package memory

import (
	"math"
	"time"
)

// An instant is a time inside the index: nanoseconds by a clock that nobody sets. The order of instants is that of the times.
type instant int64

// never is no instant; it is before all others.
const never instant = math.MinInt64

// farOff keeps sums of instants and durations in range.
const farOff = math.MaxInt64 / 4

// A clock gives times for instants. What it reads and writes moves when the wall clock is set, and instants don't.
type clock struct {
	base time.Time
	at   instant // the same
}

func (c *clock) instant(t time.Time) instant {
	return c.at + instant(min(max(t.Sub(c.base), -farOff), farOff))
}

func (c *clock) time(i instant) time.Time { return c.base.Add(time.Duration(i - c.at)) }

// shift moves all times that were read so far by d.
func (c *clock) shift(d time.Duration) { c.base = c.base.Add(d) }

// rebase expresses all times by the clock as it stands at now.
func (c *clock) rebase(now time.Time) { c.base, c.at = now, c.instant(now) }

// seconds is a duration in an entry, rounded up.
func seconds(d time.Duration) uint32 {
	return uint32(min(max((d+time.Second-1)/time.Second, 0), math.MaxUint32))
}
