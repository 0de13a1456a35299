package memory

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/sortie-mail/sortie/queue"
)

// A log that is read again names messages in any order, and some twice.
func TestListAfterReplay(t *testing.T) {
	x := NewIndex(nil)
	rng := rand.New(rand.NewPCG(1, 2))
	var want []queue.ID
	for _, n := range rng.Perm(200) {
		id := queue.ID(fmt.Sprintf("%03d", n))
		want = append(want, id)
		for range 1 + rng.IntN(2) {
			x.Add(Message{ID: id, Size: 1, Envelope: queue.Envelope{To: queue.To("1@a.test")}})
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
	assert.EqualValues(t, 200, x.Stats().Bytes, "a message that is there twice counts once")
}

// Times move with the clock, and what waits for them moves along.
//
// std: Q12
func TestShift(t *testing.T) {
	now := time.Now()
	for _, d := range []time.Duration{-time.Hour, time.Hour} {
		x := NewIndex(nil)
		x.Add(Message{ID: "1", Accepted: now, Envelope: queue.Envelope{To: queue.To("1@a.test")}})
		leases, _ := x.Lease(now, queue.LeaseRequest{Max: 1, For: time.Second})
		key, err := x.BeginSettle(leases[0])
		assert.NoError(t, err)
		x.CommitSettle(key, queue.Settlement{Next: now.Add(2 * time.Hour), Pause: 150 * time.Minute}, now, nil)
		x.Shift(d)
		due := now.Add(150*time.Minute + d)
		leases, next := x.Lease(due.Add(-time.Nanosecond), queue.LeaseRequest{Max: 1, For: time.Second})
		assert.Empty(t, leases)
		assert.True(t, next.Equal(due), "%v", next)
		leases, _ = x.Lease(due, queue.LeaseRequest{Max: 1, For: time.Second})
		assert.Len(t, leases, 1)
		assert.True(t, leases[0].Accepted.Equal(now.Add(d)))
	}
}

// What is gone leaves nothing behind, however much passes through beside what stays.
func TestNothingStaysBehind(t *testing.T) {
	x := NewIndex(nil)
	now := time.Now()
	add := func(n int, lane string) Key {
		id := queue.ID(fmt.Sprintf("%06d", n))
		x.Add(Message{ID: id, Envelope: queue.Envelope{To: queue.To("1@" + lane)}})
		return Key{id, lane}
	}
	add(0, "stays.test")
	for n := range 10_000 {
		lane := fmt.Sprintf("lane%d.test", n)
		key := add(n+1, lane)
		x.CommitSettle(key, queue.Settlement{Done: []string{"1@" + lane}, Pause: time.Minute}, now, nil)
		if n%10 == 0 {
			now = now.Add(time.Minute)
			x.Lease(now, queue.LeaseRequest{Max: 0, For: time.Minute})
		}
	}
	assert.Len(t, x.messages, 1)
	assert.Len(t, x.lanes, 1)
	assert.LessOrEqual(t, len(x.order.all), 10)
	assert.LessOrEqual(t, len(x.pauses.until), 300)
}
