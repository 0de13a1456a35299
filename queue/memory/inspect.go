package memory

import (
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/sortie-mail/sortie/queue"
)

// List, Show and Stats are those of [queue.Inspector].
func (x *Index) List(f queue.Filter, cursor string, limit int, now time.Time) ([]queue.Info, string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	id, lane, _ := strings.Cut(cursor, " ")
	after := Key{queue.ID(id), lane}
	var found []queue.Info
	for m := range x.from(after.ID, f.ID) {
		first := 0
		if m.ID == after.ID {
			i, ok := m.find(after.Lane)
			if first = i; ok {
				first++
			}
		}
		for _, e := range m.entries[first:] {
			info := e.info()
			if !f.Matches(&info, now) {
				continue
			}
			if limit > 0 && len(found) == limit {
				last := found[limit-1]
				return found, string(last.ID) + " " + last.Lane
			}
			found = append(found, info)
		}
	}
	return found, ""
}

// from gives the messages from an ID on, oldest first, or the one message that only names.
func (x *Index) from(id, only queue.ID) iter.Seq[*message] {
	return func(yield func(*message) bool) {
		if only == "" {
			x.order.from(id, yield)
		} else if m := x.messages[only]; m != nil && only >= id {
			yield(m)
		}
	}
}

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
