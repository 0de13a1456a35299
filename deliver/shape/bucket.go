package shape

import "time"

// A bucket lets a number of messages through in a time, evenly, but for a tenth of it that may go at once. The zero bucket lets
// all through. It is the virtual scheduling algorithm of ITU-T I.371: one time says it all.
type bucket struct {
	step  time.Duration // between two messages
	burst time.Duration // how far ahead of their times messages may go
	full  time.Time     // when the next one would go that kept its time
}

func newBucket(n Rate, per time.Duration) bucket {
	if n <= 0 {
		return bucket{}
	}
	step := max(per/time.Duration(n), 1)
	return bucket{step: step, burst: step * time.Duration(max(n/10, 1)-1)}
}

// room is how many may go now; where there is none, again is when the next one may.
func (b *bucket) room(now time.Time) (n int, again time.Time) {
	if b.step == 0 {
		return unlimited, time.Time{}
	}
	ahead := max(b.full.Sub(now), 0)
	if ahead > b.burst {
		return 0, b.full.Add(-b.burst)
	}
	return int((b.burst-ahead)/b.step) + 1, time.Time{}
}

// take lets one through.
func (b *bucket) take(now time.Time) {
	if b.step == 0 {
		return
	}
	if b.full.Before(now) {
		b.full = now
	}
	b.full = b.full.Add(b.step)
}

// unlimited is more than anybody asks for.
const unlimited = 1 << 30
