package queuetest

import (
	"sync"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
)

func (s *suite) leasedOnce() {
	for range 5 {
		s.enqueue("x@a.test")
	}
	assert.Len(s, s.lease(3), 3)
	assert.Len(s, s.lease(3), 2)
	assert.Empty(s, s.lease(3))
}

func (s *suite) turns() {
	for _, to := range []string{"1@a.test", "2@a.test", "3@a.test", "1@b.test", "2@b.test", "1@c.test"} {
		s.enqueue(to)
		time.Sleep(time.Millisecond)
	}
	got := laneNames(s.lease(3))
	assert.Equal(s, []string{"a.test", "b.test", "c.test"}, sorted(got), "the first three leases serve three lanes")
	assert.Equal(s, []string{"a.test", "b.test"}, sorted(laneNames(s.lease(2))))
	assert.Equal(s, []string{"a.test"}, laneNames(s.lease(2)))
}

func (s *suite) room() {
	for range 100 {
		s.enqueue("x@full.test")
	}
	s.enqueue("x@free.test")
	room := func(lane string, leased int) int {
		if lane == "full.test" {
			return 2 - leased
		}
		return 10
	}
	var got []string
	for range 10 {
		leases, _, err := s.q.Lease(s.ctx, queue.LeaseRequest{Max: 5, For: time.Hour, Room: room})
		require.NoError(s, err)
		got = append(got, laneNames(leases)...)
	}
	assert.Equal(s, []string{"free.test", "full.test", "full.test"}, sorted(got))
}

func (s *suite) roomAgain() {
	for range 3 {
		s.enqueue("x@a.test")
	}
	one := func(_ string, leased int) int { return 1 - leased }
	for range 3 {
		leases, _, err := s.q.Lease(s.ctx, queue.LeaseRequest{Max: 5, For: time.Hour, Room: one})
		require.NoError(s, err)
		require.Len(s, leases, 1)
		again, _, err := s.q.Lease(s.ctx, queue.LeaseRequest{Max: 5, For: time.Hour, Room: one})
		require.NoError(s, err)
		require.Empty(s, again)
		s.done(leases[0])
	}
}

func (s *suite) waitingLane() {
	s.enqueue("x@late.test")
	s.settle(s.leaseOne(), queue.Settlement{Attempt: attempt(1), Next: time.Now().Add(time.Hour)})
	s.enqueue("x@now.test")
	leases, next, err := s.q.Lease(s.ctx, queue.LeaseRequest{Max: 5, For: 2 * time.Hour})
	require.NoError(s, err)
	assert.Equal(s, []string{"now.test"}, laneNames(leases))
	equalTime(s, time.Now().Add(time.Hour), next, "next")
	s.enqueue("y@late.test")
	leases = s.lease(5)
	require.Len(s, leases, 1, "a new message in a lane does not wait for an old one's retry")
	s.done(leases[0])
	time.Sleep(time.Hour)
	assert.Equal(s, []string{"late.test"}, laneNames(s.lease(5)))
}

func (s *suite) leaseEnds() {
	id := s.enqueue("x@a.test")
	_, next, err := s.q.Lease(s.ctx, queue.LeaseRequest{Max: 1, For: time.Minute})
	require.NoError(s, err)
	equalTime(s, time.Now().Add(time.Minute), next, "next is the end of the lease")
	time.Sleep(59 * time.Second)
	assert.Empty(s, s.lease(1))
	time.Sleep(time.Second)
	l := s.leaseOne() // std: Q4
	assert.Equal(s, id, l.ID)
	assert.Equal(s, 1, l.Attempts, "the attempt counts")
}

func (s *suite) leaseLost() {
	s.enqueue("x@a.test")
	leases, _, err := s.q.Lease(s.ctx, queue.LeaseRequest{Max: 1, For: time.Minute})
	require.NoError(s, err)
	time.Sleep(time.Minute)
	second := s.leaseOne()
	err = s.q.Settle(s.ctx, leases[0], queue.Settlement{Done: addresses(leases[0])})
	assert.ErrorIs(s, err, queue.ErrLeaseLost)
	s.done(second)
	assert.ErrorIs(s, s.q.Settle(s.ctx, second, queue.Settlement{}), queue.ErrLeaseLost, "a lease is settled once")
}

func (s *suite) pause() {
	s.enqueue("1@a.test")
	s.enqueue("2@a.test")
	first := s.leaseOne()
	s.settle(first, queue.Settlement{Attempt: attempt(1), Next: time.Now().Add(time.Hour), Pause: 10 * time.Minute})
	assert.Empty(s, s.lease(5), "the lane pauses")
	s.enqueue("1@b.test")
	assert.Equal(s, []string{"b.test"}, laneNames(s.lease(5)), "and no other")
	time.Sleep(10 * time.Minute)
	probe := s.leaseOne()
	assert.Equal(s, []string{"2@a.test"}, addresses(probe))
	s.settle(probe, queue.Settlement{Done: addresses(probe), Wake: true})
	assert.Equal(s, first.ID, s.leaseOne().ID, "std: Q7: the destination is back, what waits for it is due")
}

func (s *suite) wakeWithoutPause() {
	s.enqueue("1@a.test")
	s.settle(s.leaseOne(), queue.Settlement{Attempt: attempt(1), Next: time.Now().Add(time.Hour)})
	s.enqueue("2@a.test")
	l := s.leaseOne()
	s.settle(l, queue.Settlement{Done: addresses(l), Wake: true})
	assert.Empty(s, s.lease(5), "a full mailbox is not tried again because another took mail")
}

func (s *suite) changed() {
	drain := func() {
		select {
		case <-s.q.Changed():
		default:
		}
	}
	told := func(what string) {
		s.Helper()
		select {
		case <-s.q.Changed():
		case <-time.After(time.Minute):
			assert.Fail(s, "not told of "+what)
		}
	}
	s.enqueue("x@a.test")
	told("new mail")
	l := s.leaseOne()
	drain()
	assert.Empty(s, s.lease(1))
	select {
	case <-s.q.Changed():
		assert.Fail(s, "a Lease that changes nothing is told of: its caller would never rest")
	default:
	}
	s.settle(l, queue.Settlement{Attempt: attempt(1), Next: time.Now().Add(time.Hour)})
	told("a settlement")
	drain()
	_, err := s.q.Retry(s.ctx, queue.Filter{All: true})
	require.NoError(s, err)
	told("a retry")
}

func (s *suite) workers() {
	const messages, workers = 300, 8
	var senders sync.WaitGroup
	for w := range workers {
		senders.Go(func() {
			for i := w; i < messages; i += workers {
				s.enqueue("x@a.test", "y@b.test")
			}
		})
	}
	var mu sync.Mutex
	seen := map[string]int{}
	var workersDone sync.WaitGroup
	for range workers {
		workersDone.Go(func() {
			for {
				mu.Lock()
				n := len(seen)
				mu.Unlock()
				if n == 2*messages {
					return
				}
				for _, l := range s.lease(5) {
					mu.Lock()
					seen[string(l.ID)+l.Lane]++
					mu.Unlock()
					s.done(l)
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	senders.Wait()
	workersDone.Wait()
	for key, n := range seen {
		assert.Equal(s, 1, n, key)
	}
	stats, err := s.q.Stats(s.ctx)
	require.NoError(s, err)
	assert.Zero(s, stats.Messages)
}
