package disk

import (
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
)

// jumped gives what time.Now would have given instead of t had the wall clock been set by d before. The seconds of the
// wall clock stand above the 30 bits of nanoseconds in a time with a monotonic reading.
func jumped(t time.Time, d time.Duration) time.Time {
	*(*uint64)(unsafe.Pointer(&t)) += uint64(int64(d/time.Second)) << 30
	return t
}

// std: Q12
func TestOnClock(t *testing.T) {
	then := time.Now()
	for _, d := range []time.Duration{5 * 24 * time.Hour, -24 * time.Hour} {
		now := jumped(then.Add(time.Minute), d)
		assert.Equal(t, time.Minute, now.Sub(then), "the monotonic clock goes on")
		got := onClock(then, now)
		assert.WithinDuration(t, then.Add(d), got.Round(0), 0, "the log gets the new wall clock's time")
		assert.True(t, onClock(time.Time{}, now).IsZero())

		var c clock
		c.start(then)
		assert.Equal(t, d, c.jump(now))
		assert.Zero(t, c.jump(now.Add(time.Hour)), "a jump is told once")
		assert.Zero(t, c.jump(jumped(now.Add(2*time.Hour), jumpMin-time.Second)), "NTP steers small ones away")
	}
}
