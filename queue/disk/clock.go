package disk

import (
	"sync"
	"time"
)

// jumpMin is the smallest difference between the wall clock and the monotonic clock that counts as a jump. NTP
// steers smaller ones away.
const jumpMin = time.Minute

// A clock notices that the wall clock was set. Waits and ages in memory go by the monotonic clock, and don't care; but
// the log holds wall times, and needs to know by how much those written earlier are off.
type clock struct {
	mu   sync.Mutex
	wall time.Time // guarded by mu: without a monotonic reading
	mono time.Time // guarded by mu: the same instant with one
}

func (c *clock) start(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall, c.mono = now.Round(0), now
}

// jump gives by how much the wall clock was set since the last call, 0 for less than jumpMin.
func (c *clock) jump(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	jump := now.Round(0).Sub(c.wall) - now.Sub(c.mono)
	if jump.Abs() < jumpMin {
		return 0
	}
	c.wall, c.mono = now.Round(0), now
	return jump
}

// onClock expresses a time by the clock as it stands at now, which may have jumped since the time was made.
func onClock(t, now time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return now.Add(t.Sub(now))
}

// checkClock records a jump of the clock. A record that cannot be written is no harm now: the mail goes on by the
// monotonic clock.
func (q *Queue) checkClock() {
	now := time.Now()
	jump := q.clock.jump(now)
	if jump == 0 {
		return
	}
	q.logger.Warn("the clock has jumped; mail neither expires nor waits by that", "by", jump)
	q.index.Rebase(now)
	q.notes.Rebase(now)
	rec, err := newRecord(typeClock, clockMeta{Jump: jump})
	if err == nil {
		_, err = q.log.append(rec)
	}
	if err != nil {
		q.logger.Error("a jump of the clock could not be recorded", "error", err)
	}
}
