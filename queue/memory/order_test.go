package memory

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
)

// A log that is read again names messages in any order, and some twice.
func TestListAfterReplay(t *testing.T) {
	x := newIndex()
	rng := rand.New(rand.NewPCG(1, 2))
	var want []queue.ID
	for _, n := range rng.Perm(2000) {
		want = append(want, encodeID(uint64(n)))
		for range 1 + rng.IntN(2) {
			x.Add(testMessage(uint64(n), "1@a.test"))
		}
	}
	slices.Sort(want)
	var got []queue.ID
	for cursor, more := "", true; more; more = cursor != "" {
		var page []queue.Info
		page, cursor = x.List(queue.Filter{}, cursor, 7, time.Now())
		for _, e := range page {
			got = append(got, e.ID)
		}
	}
	assert.Equal(t, want, got)
	assert.EqualValues(t, 2000, x.Stats().Bytes, "a message that is there twice counts once")
}

// Times move with the clock, and what waits for them moves along.
//
// std: Q12
func TestShift(t *testing.T) {
	now := time.Now()
	for _, d := range []time.Duration{-time.Hour, time.Hour} {
		x := newIndex()
		m := testMessage(1, "1@a.test")
		m.Accepted = now
		x.Add(m)
		leases, _ := x.Lease(now, queue.LeaseRequest{Max: 1, For: time.Second})
		s, err := x.BeginSettle(leases[0])
		require.NoError(t, err)
		x.CommitSettle(s, Outcome{Next: now.Add(2 * time.Hour), Pause: 150 * time.Minute}, now)
		x.Shift(d)
		due := now.Add(150*time.Minute + d)
		leases, next := x.Lease(due.Add(-time.Nanosecond), queue.LeaseRequest{Max: 1, For: time.Second})
		assert.Empty(t, leases)
		assert.True(t, next.Equal(due), "%v", next)
		leases, _ = x.Lease(due, queue.LeaseRequest{Max: 1, For: time.Second})
		require.Len(t, leases, 1)
		assert.True(t, leases[0].Accepted.Equal(now.Add(d)))
	}
}

// What is gone leaves nothing behind, however much passes through beside what stays.
func TestNothingStaysBehind(t *testing.T) {
	x := newIndex()
	now := time.Now()
	add := func(n int, lane string) Key {
		x.Add(testMessage(uint64(n), "1@"+lane))
		return Key{encodeID(uint64(n)), lane}
	}
	add(0, "stays.test")
	for n := range 10_000 {
		lane := fmt.Sprintf("lane%d.test", n)
		key := add(n+1, lane)
		x.Settled(key, Outcome{End: true, Pause: time.Minute}, now)
		if n%10 == 0 {
			now = now.Add(time.Minute)
			x.Lease(now, queue.LeaseRequest{Max: 0, For: time.Minute})
		}
	}
	assert.Equal(t, 1, x.messages.used)
	assert.Equal(t, 1, x.entries.used)
	assert.Len(t, x.messages.chunks, 1)
	assert.Len(t, x.lanes, 1)
	assert.LessOrEqual(t, len(x.table), 2)
	assert.Len(t, x.order.chunks, 1)
	assert.Len(t, x.cache.words, 1)
	assert.LessOrEqual(t, len(x.pauses.until), 300)
}
