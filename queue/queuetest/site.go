package queuetest

import (
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
)

// leaseWithin gives the lanes that are leased where there is such room, and when there is more.
func (s *suite) leaseWithin(room func(queue.Ask) queue.Grant) ([]queue.Lease, time.Time) {
	s.Helper()
	leases, next, err := s.q.Lease(s.ctx, queue.LeaseRequest{Max: 5, For: time.Hour, Room: room})
	require.NoError(s, err)
	return leases, next
}

func (s *suite) roomLater() {
	s.enqueue("x@late.test")
	s.enqueue("x@now.test")
	at, asked := time.Now().Add(time.Minute), 0
	room := func(ask queue.Ask) queue.Grant {
		if ask.Lane == "late.test" && time.Now().Before(at) {
			asked++
			return queue.Grant{Again: at}
		}
		return queue.Grant{N: 1}
	}
	leases, next := s.leaseWithin(room)
	assert.Equal(s, []string{"now.test"}, laneNames(leases))
	equalTime(s, at, next, "next is when to ask again")
	for range 59 {
		time.Sleep(time.Second)
		leases, _ = s.leaseWithin(room)
		assert.Empty(s, leases)
	}
	assert.LessOrEqual(s, asked, 2, "a lane that has no room is left alone until then")
	time.Sleep(time.Second)
	leases, _ = s.leaseWithin(room)
	assert.Equal(s, []string{"late.test"}, laneNames(leases))
}

func (s *suite) roomOfSite() {
	for _, to := range []string{"1@a.test", "1@b.test", "1@c.test"} {
		s.enqueue(to)
	}
	for _, l := range s.lease(3) {
		s.settle(l, queue.Settlement{Attempt: attempt(1), Site: "site"})
	}
	one := func(ask queue.Ask) queue.Grant {
		if ask.Site == "" {
			return queue.Grant{N: 1}
		}
		return queue.Grant{N: 1 - ask.SiteLeased, Site: ask.Site}
	}
	for i := range 3 {
		if i == 1 {
			s.enqueue("1@other.test")
		}
		leases, _ := s.leaseWithin(one)
		if i == 1 {
			assert.Contains(s, laneNames(leases), "other.test", "a full site delays no other lane")
		}
		require.Len(s, leases, 1+i%2)
		more, _ := s.leaseWithin(one)
		require.Empty(s, more, "the lanes of a site share its room")
		for _, l := range leases {
			s.done(l)
		}
	}
	more, _ := s.leaseWithin(one)
	assert.Empty(s, more)
}
