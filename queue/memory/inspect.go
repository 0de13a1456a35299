package memory

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/sortie-mail/sortie/queue"
)

// A search is a filter, with what of it can be told without words.
type search struct {
	f        queue.Filter
	now      time.Time
	words    bool    // the words of an entry decide
	lane     string  // of f.Lane or f.Recipient
	sender   uint32  // of f.Sender
	youngest instant // accepted at the latest
	unread   error   // why some words could not be read
}

func (x *Index) searchFor(f queue.Filter, now time.Time) search {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := search{f: f, now: now, words: f.Sender != "" || f.Recipient != "", lane: f.Lane}
	if f.Sender != "<>" {
		s.sender = SenderOf(f.Sender)
	}
	if f.Recipient != "" && f.Lane == "" {
		s.lane = queue.LaneOf(f.Recipient)
	}
	s.youngest = x.clock.instant(now) - instant(max(f.OlderThan, 0))
	return s
}

// may reports whether an entry may match, but for its state.
func (x *Index) may(s *search, l *lane, e *entry) bool {
	m := x.messageOf(e)
	return (s.lane == "" || (l != nil && e.lane == l.number)) &&
		(s.f.Sender == "" || m.sender == s.sender) &&
		(s.f.OlderThan <= 0 || m.accepted <= s.youngest)
}

// state reports whether an entry is in the state that is looked for.
func (s *search) state(e *entry) bool { return s.f.State == "" || s.f.State == e.state() }

// scan calls yield with the entries among which those are that may match, in any order.
func (x *Index) scan(s *search, yield func(uint32) bool) {
	switch {
	case s.f.ID != "":
		if n := x.message(s.f.ID); n != 0 {
			each(x.entriesOf(n, x.messages.at(n)), yield)
		}
	case s.lane != "":
		if l := x.lanes[s.lane]; l != nil {
			x.eachIn(l, yield)
		}
	default:
		x.from(0, yield)
	}
}

// from calls yield with the entries of the messages from an ID on, in order.
func (x *Index) from(id uint64, yield func(uint32) bool) {
	x.order.from(id, func(n uint32) bool { return each(x.entriesOf(n, x.messages.at(n)), yield) })
}

func each(numbers []uint32, yield func(uint32) bool) bool {
	return !slices.ContainsFunc(numbers, func(n uint32) bool { return !yield(n) })
}

// eachIn calls yield with the entries of a lane.
func (x *Index) eachIn(l *lane, yield func(uint32) bool) {
	for i := range l.levels {
		for k := range l.levels[i].flows {
			if !each(l.levels[i].flows[k].heap, yield) {
				return
			}
		}
	}
	if !each(l.held, yield) || l.leased == 0 {
		return
	}
	for _, made := range x.ends {
		if x.entries.at(made.entry).lane == l.number && !yield(made.entry) {
			return
		}
	}
}

// Bounds on a page of a list: how many entries are read at once, and how many are looked at while others wait.
const (
	pageLen  = 1_000
	pageLook = 100_000
)

// List, Show and Stats are those of [queue.Inspector].
func (x *Index) List(f queue.Filter, cursor string, limit int, now time.Time) (found []queue.Info, next string) {
	s := x.searchFor(f, now)
	id, lane, _ := strings.Cut(cursor, " ")
	after := Key{queue.ID(id), lane}
	if cursor != "" && !IsID(after.ID) {
		return nil, "" // no list has given it
	}
	for more := true; more; {
		most := pageLen
		if limit > 0 && !s.words {
			most = min(most, limit-len(found)+1)
		}
		var views []view
		views, after, more = x.page(&s, after, most)
		for _, info := range x.infos(views) {
			switch {
			case !f.Matches(&info, now):
			case limit > 0 && len(found) == limit:
				last := &found[limit-1]
				return found, string(last.ID) + " " + last.Lane
			default:
				found = append(found, info)
			}
		}
	}
	return found, ""
}

// page gives the next entries after one that may match, at most so many. last is the one up to which it has looked; more says
// that it was not the last of all.
func (x *Index) page(s *search, after Key, most int) (views []view, last Key, more bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	l, looked := x.lanes[s.lane], 0
	x.following(s, l, after, func(n uint32) bool {
		e := x.entries.at(n)
		if m := x.messageOf(e); after.ID != "" && x.laneOf(e).name <= after.Lane && encodeID(m.id) == after.ID {
			return true
		}
		if x.may(s, l, e) && s.state(e) {
			views = append(views, x.view(n))
		}
		looked++
		if more = len(views) == most || looked == pageLook; more {
			last = x.key(e)
		}
		return !more
	})
	return views, last, more
}

// following gives the entries from the message of a key on, in the order of a list.
func (x *Index) following(s *search, l *lane, after Key, yield func(uint32) bool) {
	start, _ := number(after.ID)
	switch {
	case s.f.ID != "":
		if n := x.message(s.f.ID); n != 0 && s.f.ID >= after.ID {
			each(x.entriesOf(n, x.messages.at(n)), yield)
		}
	case s.lane == "":
		x.from(start, yield)
	case l == nil:
	case int(l.entries) > x.entries.used/20: // looking at all others costs less than sorting the lane's
		x.from(start, yield)
	default:
		var numbers []uint32
		x.eachIn(l, func(n uint32) bool {
			if x.messageOf(x.entries.at(n)).id >= start {
				numbers = append(numbers, n)
			}
			return true
		})
		slices.SortFunc(numbers, func(a, b uint32) int {
			return cmp.Compare(x.messageOf(x.entries.at(a)).id, x.messageOf(x.entries.at(b)).id)
		})
		each(numbers, yield)
	}
}

// infos reads some entries. Those that are gone meanwhile are left out.
func (x *Index) infos(views []view) []queue.Info {
	infos := make([]queue.Info, 0, len(views))
	x.readAll(views, func(v *view, m *Message, e *Entry) {
		switch {
		case v.err == nil:
			infos = append(infos, v.info(m, e))
		case !errors.Is(v.err, queue.ErrNotFound):
			infos = append(infos, v.unread())
		}
	})
	return infos
}

// Show gives everything about a message.
func (x *Index) Show(id queue.ID) (d queue.Detail, err error) {
	d.ID = id
	x.readAll(x.viewsOf(id), func(v *view, m *Message, e *Entry) {
		if v.err != nil {
			err = v.err
			return
		}
		d.Envelope, d.Accepted, d.Size, d.Hops = v.envelope(m), v.accepted, v.size, v.hops
		d.Entries = append(d.Entries, queue.History{Info: v.info(m, e), Attempts: slices.Clone(e.History)})
	})
	if len(d.Entries) == 0 && err == nil {
		err = queue.ErrNotFound
	}
	if err != nil {
		return queue.Detail{}, err
	}
	return d, nil
}

func (x *Index) viewsOf(id queue.ID) (views []view) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if n := x.message(id); n != 0 {
		for _, e := range x.entriesOf(n, x.messages.at(n)) {
			views = append(views, x.view(e))
		}
	}
	return views
}

// Stats counts.
func (x *Index) Stats() queue.Stats {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := queue.Stats{
		Messages: x.messages.used, Lanes: len(x.lanes), Leased: len(x.leases), Held: x.held, Bytes: x.bytes,
		Waiting: x.entries.used - len(x.leases) - x.held,
	}
	if n := x.order.first(); n != 0 {
		s.Oldest = x.clock.time(x.messages.at(n).accepted)
	}
	return s
}
