package memory

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
)

// A change by a person waits for entries that are being changed just now, and does not pass them over.
func TestChangeWaits(t *testing.T) {
	for name, begin := range map[string]func(*Index, queue.Lease) (end func()){
		"settlement": func(x *Index, l queue.Lease) func() {
			s, err := x.BeginSettle(l)
			require.NoError(t, err)
			return func() { x.CommitSettle(s, Outcome{}, time.Now()) }
		},
		"failed settlement": func(x *Index, l queue.Lease) func() {
			s, err := x.BeginSettle(l)
			require.NoError(t, err)
			return func() { x.AbortSettle(s) }
		},
		"move": func(x *Index, l queue.Lease) func() {
			_, at, ok, err := x.BeginMove(l.ID)
			require.NoError(t, err)
			require.True(t, ok)
			return func() { x.EndMove(l.ID, at) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newIndex()
				for id := range uint64(2) {
					x.Add(testMessage(id, "1@a.test"))
				}
				leases, _ := x.Lease(time.Now(), queue.LeaseRequest{Max: 1, For: time.Hour})
				end := begin(x, leases[0])
				written, n := 0, 0
				go func() {
					n, _ = x.Change(Delete, "", queue.Filter{Lane: "a.test"}, time.Now(), func(k []Key) error {
						written += len(k)
						return nil
					})
				}()
				synctest.Wait()
				require.Equal(t, 1, written, "the free one is changed at once")
				require.Equal(t, 0, n)
				end()
				synctest.Wait()
				require.Equal(t, 2, n)
				require.Zero(t, x.Stats().Messages)
			})
		})
	}
}

// A change that cannot be written changes nothing, and leaves nothing marked.
func TestChangeFails(t *testing.T) {
	x := newIndex()
	x.Add(testMessage(1, "1@a.test", "1@b.test"))
	broken := errors.New("broken")
	n, err := x.Change(Delete, "", queue.Filter{All: true}, time.Now(), func([]Key) error { return broken })
	require.ErrorIs(t, err, broken)
	require.Zero(t, n)
	n, err = x.Change(Delete, "", queue.Filter{All: true}, time.Now(), func([]Key) error { return nil })
	require.NoError(t, err)
	require.Equal(t, 2, n)
}
