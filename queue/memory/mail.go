package memory

import (
	"slices"
	"sync"

	"github.com/sortie-mail/sortie/queue"
)

// mail is the [Store] of a [Queue]: messages with their entries as they are now, and their bytes.
type mail struct {
	mu  sync.Mutex
	all map[queue.ID]*stored // guarded by mu
}

type stored struct {
	m    *Message // replaced and not changed
	body []byte
}

func (s *mail) put(m *Message, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[m.ID] = &stored{m, body}
}

func (s *mail) body(id queue.ID) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.all[id]
	if kept == nil {
		return nil, false
	}
	return kept.body, true
}

// settle writes a settlement into an entry.
func (s *mail) settle(k Key, st *queue.Settlement) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.all[k.ID]
	if kept == nil {
		return
	}
	m := *kept.m
	m.Entries = slices.Clone(m.Entries)
	if e := m.Entry(k.Lane); e != nil {
		e.Settle(st.Done, st.Warned, st.Attempt)
	}
	kept.m = &m
}

// Message implements [Store].
func (s *mail) Message(id queue.ID, _ Place) (*Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.all[id]
	if kept == nil {
		return nil, queue.ErrNotFound
	}
	return kept.m, nil
}

// Entry implements [Store]. It is not called: no settlement has a mark.
func (s *mail) Entry(m *Message, lane string, _ Mark) (Entry, error) { return *m.Entry(lane), nil }

// Dropped implements [Store].
func (s *mail) Dropped(id queue.ID, _ Place, _ int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, id)
}
