package queuetest

import (
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sortie-mail/sortie/queue"
)

// modelNotes are the notes and keys that a queue should have.
type modelNotes struct {
	notes map[string]queue.Note
	keys  map[string]queue.ID // for a day: longer than a check takes
}

func newModelNotes() modelNotes {
	return modelNotes{notes: map[string]queue.Note{}, keys: map[string]queue.ID{}}
}

// drawNotes draws notes to write: new ones, others in the place of old ones, and removals.
func drawNotes(r *rapid.T) (notes []queue.Note) {
	for range rapid.IntRange(0, 3).Draw(r, "notes") {
		n := queue.Note{Kind: "model", Key: fmt.Sprint("key", rapid.IntRange(0, 5).Draw(r, "key"))}
		if rapid.IntRange(0, 3).Draw(r, "keep") > 0 {
			n.Value = rapid.StringN(0, 20, -1).Draw(r, "value")
			n.Until = time.Now().Add(time.Duration(rapid.IntRange(0, 100).Draw(r, "until")) * time.Second)
		}
		notes = append(notes, n)
	}
	return notes
}

func (m *modelNotes) write(notes []queue.Note) {
	for _, n := range notes {
		if m.notes[n.Key] = n; n.Removes() {
			delete(m.notes, n.Key)
		}
	}
}

func (m *model) note(r *rapid.T) {
	notes := drawNotes(r)
	require.NoError(m, m.q.Note(m.tb.Context(), notes...))
	m.known.write(notes)
}

// compareNotes holds the notes that can be seen against the model.
func (m *model) compareNotes() {
	found, _, err := m.q.Notes(m.tb.Context(), "model", "", "", 0)
	require.NoError(m, err)
	got := map[string]string{}
	for _, n := range found {
		require.True(m, n.Until.Equal(m.known.notes[n.Key].Until), "%s ends at %v, not %v", n.Key, n.Until, m.known.notes[n.Key].Until)
		got[n.Key] = n.Value
	}
	want := map[string]string{}
	for key, n := range m.known.notes {
		if n.Until.After(time.Now()) {
			want[key] = n.Value
		}
	}
	require.Equal(m, want, got)
	for key, id := range m.known.keys {
		n, ok, err := m.q.Lookup(m.tb.Context(), queue.KindKey, key)
		require.NoError(m, err)
		require.True(m, ok && n.Value == string(id), "key %s is that of %s, not of %q", key, id, n.Value)
	}
}

// enqueueKeyed enqueues a message with a key, and reports whether it is new.
func (m *model) enqueueKeyed(env queue.Envelope) (id queue.ID, isNew bool, err error) {
	first := m.known.keys[env.Key]
	id, err = m.q.Enqueue(m.tb.Context(), env, strings.NewReader(text))
	if err != nil || env.Key == "" {
		return id, true, err
	}
	m.known.keys[env.Key] = id
	if first != "" {
		require.Equal(m, first, id)
	}
	return id, first == "", nil
}
