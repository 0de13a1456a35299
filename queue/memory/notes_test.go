package memory

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
)

// book is notes with a low limit, and counts what is dropped.
func book(t *testing.T, most int) (x *Notes, write func(notes ...queue.Note), dropped *[]string) {
	dropped = new([]string)
	x = NewNotes(func(queue.ID) bool { return false }, func(n Note) { *dropped = append(*dropped, n.Key) })
	x.most = most
	return x, func(notes ...queue.Note) {
		made, end, err := x.Begin(t.Context(), notes)
		require.NoError(t, err)
		defer end()
		x.Put("place", made...)
	}, dropped
}

func keysOf(x *Notes, kind string) (keys []string) {
	found, _ := x.List(kind, "", "", 0, time.Now())
	for _, n := range found {
		keys = append(keys, n.Key)
	}
	return keys
}

// Of more notes than a kind may have, those that end first go.
func TestMostNotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, write, dropped := book(t, 3)
		at := func(h int) time.Time { return time.Now().Add(time.Duration(h) * time.Hour) }
		write(queue.Note{Kind: "a", Key: "5", Until: at(5)}, queue.Note{Kind: "a", Key: "for ever", Value: "x"}, queue.Note{Kind: "a", Key: "4", Until: at(4)})
		write(queue.Note{Kind: "b", Key: "other", Until: at(1)})
		write(queue.Note{Kind: "a", Key: "6", Until: at(6)})
		assert.Equal(t, []string{"5", "6", "for ever"}, keysOf(x, "a"))
		write(queue.Note{Kind: "a", Key: "3", Until: at(3)})
		assert.Equal(t, []string{"5", "6", "for ever"}, keysOf(x, "a"), "the new one may be the first to go")
		write(queue.Note{Kind: "a", Key: "6", Until: at(1)}, queue.Note{Kind: "a", Key: "7", Until: at(7)})
		assert.Equal(t, []string{"5", "7", "for ever"}, keysOf(x, "a"))
		assert.Equal(t, []string{"other"}, keysOf(x, "b"), "another kind has its own")
		assert.Equal(t, []string{"4", "3", "6", "6"}, *dropped)
		time.Sleep(10 * time.Hour)
		x.Sweep(time.Now())
		assert.Len(t, *dropped, 4+3)
		assert.Empty(t, keysOf(x, "b"))
		assert.Len(t, x.kinds, 1, "a kind without notes costs nothing")
	})
}

// A clock that was set back between two runs keeps no note for longer than it was made for.
//
// std: Q12
func TestNotesClamp(t *testing.T) {
	x, _, _ := book(t, 10)
	now := time.Now()
	x.Put("place",
		Note{Note: queue.Note{Kind: "a", Key: "hour", Value: "x", Until: now.Add(25 * time.Hour)}, For: time.Hour},
		Note{Note: queue.Note{Kind: "a", Key: "day", Value: "x", Until: now.Add(26 * time.Hour)}, For: 24 * time.Hour},
		Note{Note: queue.Note{Kind: "a", Key: "minutes", Value: "x", Until: now.Add(5 * time.Minute)}, For: time.Hour},
		Note{Note: queue.Note{Kind: "a", Key: "for ever", Value: "x"}},
	)
	x.Clamp(now)
	for key, want := range map[string]time.Duration{"hour": time.Hour, "day": 24 * time.Hour, "minutes": 5 * time.Minute} {
		n, ok := x.Lookup("a", key, now)
		require.True(t, ok)
		assert.Equal(t, want, n.Until.Sub(now), key)
	}
	x.Sweep(now.Add(2 * time.Hour))
	assert.Equal(t, []string{"day", "for ever"}, keysOf(x, "a"), "the order of ends is that of the new ones")
	x.Shift(-48 * time.Hour)
	x.Sweep(now)
	assert.Equal(t, []string{"for ever"}, keysOf(x, "a"))
}

// The list is right whatever comes and goes between looks at it.
func TestNotesOrder(t *testing.T) {
	x, write, _ := book(t, 1000)
	for round := range 30 {
		for i := range 20 {
			key := fmt.Sprintf("%03d", (round*20+i)*7%100)
			if write(queue.Note{Kind: "a", Key: key, Value: "x"}); i%3 > 0 {
				write(queue.Note{Kind: "a", Key: key})
			}
		}
		if round%4 == 0 {
			keys := keysOf(x, "a")
			assert.IsIncreasing(t, keys)
			assert.Len(t, keys, len(x.kinds["a"].notes))
			assert.LessOrEqual(t, len(x.kinds["a"].order.all), 2*len(keys)+1, "what is gone does not pile up")
		}
	}
}

func BenchmarkNotes(b *testing.B) {
	x := NewNotes(func(queue.ID) bool { return false }, nil)
	until := time.Now().Add(time.Hour)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		x.Put(nil, Note{Note: queue.Note{Kind: "a", Key: fmt.Sprint(i % 100_000), Value: "x", Until: until.Add(time.Duration(i))}})
	}
}
