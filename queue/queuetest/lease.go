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
	room := func(ask queue.Ask) queue.Grant {
		if ask.Lane == "full.test" {
			return queue.Grant{N: 2 - ask.Leased}
		}
		return queue.Grant{N: 10}
	}
	var got []string
	for range 10 {
		leases, _, err := s.q.Lease(s.ctx, queue.LeaseRequest{Max: 5, For: time.Hour, Room: room})
		require.NoError(s, err)
		got = append(got, laneNames(leases)...)
	}
	assert.Equal(s, []string{"free.test", "full.test", "full.test"}, sorted(got))
	s.enqueue("x@fresh.test") // behind what is full now
	leases, _, err := s.q.Lease(s.ctx, queue.LeaseRequest{Max: 5, For: time.Hour, Room: room})
	require.NoError(s, err)
	assert.Equal(s, []string{"fresh.test"}, laneNames(leases))
}

func (s *suite) roomAgain() {
	for range 3 {
		s.enqueue("x@a.test")
	}
	one := func(ask queue.Ask) queue.Grant { return queue.Grant{N: 1 - ask.Leased} }
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
	for _, to := range []string{"1@a.test", "2@a.test", "3@a.test"} {
		s.enqueue(to)
	}
	first, second := s.leaseOne(), s.leaseOne()
	s.settle(first, queue.Settlement{Attempt: attempt(1), Next: time.Now().Add(time.Hour), Pause: 10 * time.Minute})
	s.settle(second, queue.Settlement{Attempt: attempt(1), Next: time.Now().Add(time.Hour), Pause: time.Minute})
	s.enqueue("1@b.test")
	assert.Equal(s, []string{"b.test"}, laneNames(s.lease(5)), "the lane pauses, and no other")
	time.Sleep(10*time.Minute - time.Nanosecond)
	assert.Empty(s, s.lease(5), "a shorter pause does not end a longer one")
	time.Sleep(time.Nanosecond)
	probe := s.leaseOne()
	assert.Equal(s, []string{"3@a.test"}, addresses(probe))
	s.settle(probe, queue.Settlement{Attempt: attempt(1), Pause: 10 * time.Minute})
	assert.Empty(s, s.lease(5))
	s.enqueue("4@a.test")
	assert.Empty(s, s.lease(5), "new mail waits too")
	assert.Equal(s, 3, s.count(s.q.Retry(s.ctx, queue.Filter{Lane: "a.test", Sender: "me@src.test", OlderThan: time.Second})))
	assert.Len(s, s.lease(5), 4, "a person's retry ends the pause")
}

func (s *suite) pauseOfEmptyLane() {
	for range 2 {
		s.probe(queue.Settlement{Pause: time.Hour})
		stats, err := s.q.Stats(s.ctx)
		require.NoError(s, err)
		assert.Zero(s, stats.Lanes)
		s.enqueue("1@a.test")
		assert.Empty(s, s.lease(1))
		time.Sleep(time.Hour)
		s.done(s.leaseOne())
	}
	s.enqueue("1@a.test")
	s.enqueue("2@a.test")
	first, second := s.leaseOne(), s.leaseOne()
	s.settle(first, queue.Settlement{Done: addresses(first), Pause: time.Hour})
	s.settle(second, queue.Settlement{Done: addresses(second), Wake: true})
	s.enqueue("3@a.test")
	s.done(s.leaseOne()) // the wake has ended the pause, though nothing was there to wake
}

// unreach gives two waiting entries of a lane: one that waits because of the destination, one with a reason of its own.
func (s *suite) unreach() (unreached, own queue.ID) {
	unreached, own = s.enqueue("unreached@a.test"), s.enqueue("own@a.test")
	for _, l := range s.lease(2) {
		st := queue.Settlement{Attempt: attempt(1), Next: time.Now().Add(time.Hour)}
		if l.ID == unreached {
			st.Next, st.Unreached = time.Now().Add(2*time.Hour), true
		}
		s.settle(l, st)
	}
	return unreached, own
}

// probe settles a new message of the lane with what its attempt says about the destination.
func (s *suite) probe(st queue.Settlement) {
	s.Helper()
	id := s.enqueue("probe@a.test")
	l := s.leaseOne()
	require.Equal(s, id, l.ID)
	st.Done = addresses(l)
	s.settle(l, st)
}

// std: Q7
func (s *suite) wake() {
	unreached, own := s.unreach()
	s.enqueue("elsewhere@b.test")
	s.settle(s.leaseOne(), queue.Settlement{Attempt: attempt(1), Next: time.Now().Add(time.Hour), Unreached: true})
	s.probe(queue.Settlement{})
	assert.Empty(s, s.lease(5), "without a wake everything waits")
	s.probe(queue.Settlement{Wake: true})
	l := s.leaseOne()
	assert.Equal(s, unreached, l.ID, "the destination is back, what waits for it is due")
	assert.Empty(s, s.lease(5), "greylisted mail keeps its time, and so does another lane")
	s.settle(l, queue.Settlement{Attempt: attempt(2), Next: time.Now().Add(time.Hour)})
	s.probe(queue.Settlement{Wake: true})
	assert.Empty(s, s.lease(5), "its last settlement gave a reason of its own")
	time.Sleep(time.Hour)
	assert.ElementsMatch(s, []string{"a.test", "a.test", "b.test"}, laneNames(s.lease(5)))
	_, err := s.q.Show(s.ctx, own)
	require.NoError(s, err)
}

func (s *suite) wakeOthers() {
	unreached, _ := s.unreach()
	s.enqueue("probe@b.test")
	l := s.leaseOne()
	s.settle(l, queue.Settlement{Done: addresses(l), WakeLanes: []string{"a.test", "empty.test"}})
	assert.Equal(s, unreached, s.leaseOne().ID)
	assert.Empty(s, s.lease(5), "who waits for a reason of its own keeps its time")
}

func (s *suite) wakeAfterUnreached() {
	unreached, _ := s.unreach()
	s.enqueue("probe@a.test")
	probe := s.leaseOne()
	assert.Equal(s, 1, s.count(s.q.Retry(s.ctx, queue.Filter{ID: unreached})))
	l := s.leaseOne()
	assert.Equal(s, unreached, l.ID)
	s.settle(l, queue.Settlement{Attempt: attempt(2), Next: time.Now().Add(time.Hour), Unreached: true, Pause: 2 * time.Hour})
	assert.Empty(s, s.lease(5))
	s.settle(probe, queue.Settlement{Done: addresses(probe), Wake: true})
	assert.Equal(s, unreached, s.leaseOne().ID, "a wake ends the pause too")
	assert.Empty(s, s.lease(5))
}

func (s *suite) wakeAfterChange() {
	id, _ := s.unreach()
	f := queue.Filter{ID: id}
	s.count(s.q.Hold(s.ctx, f, "look at it"))
	s.probe(queue.Settlement{Wake: true})
	assert.Empty(s, s.lease(5), "a wake releases nothing")
	s.count(s.q.Release(s.ctx, f))
	assert.Equal(s, id, s.leaseOne().ID)
	time.Sleep(time.Hour) // the lease ends, and the other entry is due
	assert.Len(s, s.lease(5), 2)
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
	end := time.Now().Add(10 * time.Second) // of a backend that loses some
	for range workers {
		workersDone.Go(func() {
			for time.Now().Before(end) {
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
	assert.Len(s, seen, 2*messages)
	for key, n := range seen {
		assert.Equal(s, 1, n, key)
	}
	stats, err := s.q.Stats(s.ctx)
	require.NoError(s, err)
	assert.Zero(s, stats.Messages)
}
