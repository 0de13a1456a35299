package memory

import (
	"github.com/sortie-mail/sortie/queue"
)

// BeginMove marks a message as being written anew, and gives it with its entries as they are. It reports false where the
// message is gone or one of its entries is being changed. Where its words cannot be read there is an error, and nothing is marked.
func (x *Index) BeginMove(id queue.ID) (m Message, at Place, ok bool, err error) {
	views, at := x.beginMove(id)
	if len(views) == 0 {
		return Message{}, Place{}, false, nil
	}
	var entries []Entry
	read := x.readAll(views, func(v *view, words *Message, e *Entry) {
		if v.err != nil {
			return
		}
		if entries == nil {
			m = Message{ID: id, Envelope: v.envelope(words), Accepted: v.accepted, Size: v.size, Hops: v.hops}
		}
		entries = append(entries, v.whole(e))
	})
	if read < len(views) {
		for i := range views {
			if err == nil {
				err = views[i].err
			}
		}
		x.EndMove(id, at)
		return Message{}, Place{}, false, err
	}
	m.Entries = entries
	return m, at, true, nil
}

func (x *Index) beginMove(id queue.ID) (views []view, at Place) {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := x.message(id)
	if n == 0 {
		return nil, at
	}
	m := x.messages.at(n)
	if m.busy > 0 || m.flags&moving != 0 {
		return nil, at
	}
	m.flags |= moving
	for _, e := range x.entriesOf(n, m) {
		views = append(views, x.view(e))
	}
	return views, m.at()
}

// whole is an entry with all that the index and its words say.
func (v *view) whole(e *Entry) Entry {
	w := Entry{
		Lane: v.Lane, To: e.To, Due: v.due, Wait: v.wait, Attempts: v.attempts, Warned: e.Warned, History: e.History,
		Held: v.flags&held != 0, Unreached: v.flags&unreached != 0,
	}
	if v.fails {
		w.Fail = v.why
	} else {
		w.Why = v.why
	}
	return w
}

// EndMove ends what BeginMove began; at is where the message is now. Where that is another place than before, all words of its
// entries are there.
func (x *Index) EndMove(id queue.ID, at Place) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if n := x.message(id); n != 0 {
		m := x.messages.at(n)
		m.flags &^= moving
		if m.at() != at {
			m.move(at)
			x.cache.drop(m.id)
			for _, e := range x.entriesOf(n, m) {
				e := x.entries.at(e)
				e.last, e.chain = Mark{}, 0
			}
		}
	}
	x.free.Broadcast()
}
