package memory

import (
	"slices"
	"strings"
	"time"

	"github.com/sortie-mail/sortie/queue"
)

// List, Show and Stats are those of [queue.Inspector].
func (x *Index) List(f queue.Filter, cursor string, limit int, now time.Time) ([]queue.Info, string) {
	found := x.matching(f, cursor, now)
	slices.SortFunc(found, func(a, b queue.Info) int { return strings.Compare(cursorOf(a), cursorOf(b)) })
	if limit < 1 || len(found) <= limit {
		return found, ""
	}
	return found[:limit], cursorOf(found[limit-1])
}

func (x *Index) matching(f queue.Filter, cursor string, now time.Time) []queue.Info {
	x.mu.Lock()
	defer x.mu.Unlock()
	var found []queue.Info
	x.each(f.ID, func(e *entry) {
		info := e.info()
		if cursorOf(info) > cursor && f.Matches(&info, now) {
			found = append(found, info)
		}
	})
	return found
}

// cursorOf orders entries by the age of their message, then by lane.
func cursorOf(i queue.Info) string { return string(i.ID) + " " + i.Lane }

// Show gives everything about a message.
func (x *Index) Show(id queue.ID) (queue.Detail, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	m := x.messages[id]
	if m == nil {
		return queue.Detail{}, queue.ErrNotFound
	}
	d := queue.Detail{ID: id, Envelope: m.Envelope, Accepted: m.Accepted, Size: m.Size, Hops: m.Hops}
	for _, e := range m.entries {
		d.Entries = append(d.Entries, queue.History{Info: e.info(), Attempts: slices.Clone(e.History)})
	}
	slices.SortFunc(d.Entries, func(a, b queue.History) int { return strings.Compare(a.Lane, b.Lane) })
	return d, nil
}

// Stats counts.
func (x *Index) Stats() queue.Stats {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := queue.Stats{Messages: len(x.messages), Lanes: len(x.lanes), Leased: len(x.leases), Bytes: x.bytes}
	for _, m := range x.messages {
		if s.Oldest.IsZero() || m.Accepted.Before(s.Oldest) {
			s.Oldest = m.Accepted
		}
		for _, e := range m.entries {
			switch e.state() {
			case queue.Held:
				s.Held++
			case queue.Waiting:
				s.Waiting++
			}
		}
	}
	return s
}

// Bytes is the size of all messages together.
func (x *Index) Bytes() int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.bytes
}
