package queuetest

import (
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
)

func (s *suite) enqueuePriority(priority int, to string) queue.ID {
	s.Helper()
	env := queue.Envelope{From: "me@src.test", To: queue.To(to), Priority: priority}
	id, err := s.q.Enqueue(s.ctx, env, strings.NewReader(text))
	require.NoError(s, err)
	return id
}

// leaseAll leases what is due one after the other, and gives the names of their recipients.
func (s *suite) leaseAll() string {
	s.Helper()
	var names []string
	for {
		leases := s.lease(1)
		if len(leases) == 0 {
			return strings.Join(names, " ")
		}
		name, _, _ := strings.Cut(leases[0].Envelope.To[0].Address, "@")
		names = append(names, name)
		require.Less(s, len(names), 1000, "leases have no end")
	}
}

// std: C19 Q9
func (s *suite) priority() {
	for _, p := range []int{0, -9, 4, 9, -1, 4, 0} {
		s.enqueuePriority(p, fmt.Sprintf("%+d@a.test", p))
		time.Sleep(time.Second)
	}
	late := s.enqueuePriority(9, "late@a.test")
	first := s.leaseOne()
	assert.Equal(s, 9, first.Envelope.Priority)
	require.NotEqual(s, late, first.ID, "of one priority the older goes first")
	s.settle(s.leaseOne(), queue.Settlement{Attempt: attempt(1), Next: time.Now().Add(time.Minute)})
	assert.Equal(s, "+4 +4 +0 +0 -1 -9", s.leaseAll(), "what is not due does not count")
	time.Sleep(time.Minute)
	assert.Equal(s, late, s.leaseOne().ID)
}

// std: Q9
func (s *suite) priorityAges() {
	s.enqueuePriority(0, "old@a.test")
	time.Sleep(2*queue.PriorityStep - time.Second)
	s.enqueuePriority(2, "young@a.test")
	assert.Equal(s, "young old", s.leaseAll())
	s.enqueuePriority(0, "old@b.test")
	time.Sleep(2*queue.PriorityStep + time.Second)
	s.count(s.q.Delete(s.ctx, queue.Filter{Lane: "a.test"}))
	for range 3 {
		s.enqueuePriority(2, "young@b.test")
	}
	assert.Equal(s, "old young young young", s.leaseAll(), "a step of priority is worth a time of waiting, and no more")
}

// std: C19 Q9
func (s *suite) priorityOfLanes() {
	for i := range 3 {
		s.enqueuePriority(-1, fmt.Sprintf("low@low%d.test", i))
		s.enqueuePriority(0, fmt.Sprintf("normal@normal%d.test", i))
	}
	s.lease(0) // all lanes are ready
	s.enqueuePriority(1, "high@normal1.test")
	s.enqueuePriority(5, "high@high.test")
	assert.Equal(s, "high high normal normal normal low low low", s.leaseAll())

	for i := range 50 {
		s.enqueuePriority(9, fmt.Sprintf("high@high%d.test", i))
	}
	for range 2 {
		s.enqueuePriority(0, "normal@a.test")
		s.enqueuePriority(-9, "low@b.test")
		turns := s.leaseSome(11)
		assert.Equal(s, 9, strings.Count(turns, "high"), turns)
		assert.Contains(s, turns, "normal")
		assert.Contains(s, turns, "low")
	}
}

// leaseSome is leaseAll of a few, which are settled.
func (s *suite) leaseSome(n int) string {
	var names []string
	for range n {
		l := s.leaseOne()
		names = append(names, strings.Split(l.Envelope.To[0].Address, "@")[0])
		s.done(l)
	}
	return strings.Join(names, " ")
}
