package disk

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
)

// TestClockIsSetBetweenLives opens a spool on a machine whose clock was set while no process had it: back by a day, or on by five.
// Nothing is lost, nothing waits longer than it was told to, nothing was accepted in the future, and new IDs come after old ones.
//
// std: Q12
func TestClockIsSetBetweenLives(t *testing.T) {
	const start, wait = 10 * 24 * time.Hour, time.Hour
	for _, jump := range []time.Duration{-24 * time.Hour, 5 * 24 * time.Hour} {
		disk, dir := newMemoryDisk(t)
		var last queue.ID
		synctest.Test(t, func(t *testing.T) { // a bubble's clock begins anew
			time.Sleep(start)
			q, err := openOn(disk, dir, defaultSegment)
			require.NoError(t, err)
			last = waitingMail(t, q, wait)
			require.NoError(t, q.Close())
		})
		for range 2 { // the second process after the change finds what the first one wrote by the new clock
			disk = disk.snapshot()
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(start + jump)
				q, err := openOn(disk, dir, defaultSegment)
				require.NoError(t, err)
				last = compareClock(t, q, jump, wait, last)
				require.NoError(t, q.Close())
			})
		}
	}
}

// waitingMail enqueues a message that was tried and waits, one that is due, and one that is held.
func waitingMail(t *testing.T, q *Queue, wait time.Duration) (last queue.ID) {
	for _, to := range []string{"1@waits.test", "1@due.test", "1@held.test"} {
		id, err := q.Enqueue(t.Context(), queue.Envelope{To: queue.To(to)}, strings.NewReader(to))
		require.NoError(t, err)
		last = id
	}
	_, err := q.Hold(t.Context(), queue.Filter{Lane: "held.test"}, "why")
	require.NoError(t, err)
	leases, _, err := q.Lease(t.Context(), queue.LeaseRequest{Max: 1, For: time.Hour})
	require.NoError(t, err)
	require.Equal(t, "waits.test", leases[0].Lane)
	require.NoError(t, q.Settle(t.Context(), leases[0], queue.Settlement{Attempt: queue.Attempt{Time: time.Now()}, Next: time.Now().Add(wait)}))
	return last
}

func compareClock(t *testing.T, q *Queue, jump, wait time.Duration, last queue.ID) queue.ID {
	entries, _, err := q.List(t.Context(), queue.Filter{}, "", 3)
	require.NoError(t, err)
	require.Len(t, entries, 3)
	for _, e := range entries {
		assert.False(t, e.Accepted.After(time.Now()), "%v: %s was accepted in the future", jump, e.Lane)
		assert.LessOrEqual(t, time.Until(e.Due), wait, "%v: %s waits longer than it was told to", jump, e.Lane)
	}
	if jump < 0 {
		assert.Greater(t, time.Until(entries[0].Due), wait/2, "a clock that was set back makes nothing due")
	}
	id, err := q.Enqueue(t.Context(), queue.Envelope{To: queue.To("1@new.test")}, strings.NewReader("new"))
	require.NoError(t, err)
	assert.Greater(t, id, last, "%v: an ID comes after all that were given", jump)
	leases, _, err := q.Lease(t.Context(), queue.LeaseRequest{Max: 10, For: time.Hour})
	require.NoError(t, err)
	lanes := map[string]bool{}
	for _, l := range leases {
		lanes[l.Lane] = true
	}
	assert.Equal(t, map[string]bool{"due.test": true, "new.test": true, "waits.test": jump > 0}, map[string]bool{
		"due.test": lanes["due.test"], "new.test": lanes["new.test"], "waits.test": lanes["waits.test"],
	}, "%v: what is due is given out, and nothing else", jump)
	assert.False(t, lanes["held.test"])
	return id
}
