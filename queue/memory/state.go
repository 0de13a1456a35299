package memory

import (
	"slices"
	"strings"

	"github.com/sortie-mail/sortie/queue"
)

// A message and an entry are what the index keeps of a [Message] and an [Entry]: without pointers and without words, which are
// in the [Store]. There are millions of them, so that each octet counts.
type message struct {
	id       uint64
	accepted instant
	size     int64
	place    place
	sender   uint32    // see senderOf
	only     [1]uint32 // the number of its entry; 0 where it has several, which are in Index.several then
	busy     uint16    // entries with a change under way
	hops     uint16
	priority int8
	flags    uint8
}

// place is a [Place] but for its File.
type place struct{ segment, record, body, sum uint32 }

// Of the flags of a message.
const (
	inFile uint8 = 1 << iota // its body is in a file of its own
	moving                   // it is being written anew
	timed                    // its sender has set a time for it
)

type entry struct {
	due      instant
	message  uint32
	lane     uint32
	wait     uint32 // seconds, see [Entry]
	pos      uint32 // in the list in which it stands: the heap of its flow, the held ones of its lane, or those leased
	why      uint32 // it is held or to fail: a reason
	last     Mark   // of its newest settlement; the zero Mark is none since the record of its message
	attempts uint16
	chain    uint8 // settlements from last on back to a record that has all of its words
	flags    uint8
}

// Of the flags of an entry.
const (
	held      uint8 = 1 << iota
	failing         // it is to fail
	unreached       // see [Entry]
	busy            // a change of it is being written
	leased
	inFlow // it waits
	inHeld // it is held and not leased
)

func (e *entry) is(flags uint8) bool { return e.flags&flags != 0 }

func (e *entry) set(flag uint8, on bool) {
	if on {
		e.flags |= flag
	} else {
		e.flags &^= flag
	}
}

func (e *entry) state() queue.State {
	switch {
	case e.is(leased):
		return queue.Leased
	case e.is(held):
		return queue.Held
	}
	return queue.Waiting
}

// at is where the backend keeps a message.
func (m *message) at() Place {
	return Place{m.place.segment, m.place.record, m.place.body, m.place.sum, m.flags&inFile != 0}
}

func (m *message) move(p Place) {
	m.place = place{p.Segment, p.Record, p.Body, p.Sum}
	m.flags &^= inFile
	if p.File {
		m.flags |= inFile
	}
}

// entriesOf gives the numbers of a message's entries, by lane.
func (x *Index) entriesOf(n uint32, m *message) []uint32 {
	if m.only[0] != 0 {
		return m.only[:]
	}
	return x.several[n]
}

// find tells where the entry of a lane is among several, or would be.
func (x *Index) find(numbers []uint32, lane string) (int, bool) {
	return slices.BinarySearchFunc(numbers, lane, func(n uint32, lane string) int {
		return strings.Compare(x.laneOf(x.entries.at(n)).name, lane)
	})
}

// entry gives the entry of a key, 0 where there is none.
func (x *Index) entry(k Key) uint32 {
	n := x.message(k.ID)
	if n == 0 {
		return 0
	}
	numbers := x.entriesOf(n, x.messages.at(n))
	if i, ok := x.find(numbers, k.Lane); ok {
		return numbers[i]
	}
	return 0
}

// message gives the message of an ID, 0 where there is none.
func (x *Index) message(id queue.ID) uint32 {
	n, ok := number(id)
	if !ok {
		return 0
	}
	return x.order.get(n)
}

func (x *Index) laneOf(e *entry) *lane       { return x.table[e.lane] }
func (x *Index) messageOf(e *entry) *message { return x.messages.at(e.message) }
func (x *Index) key(e *entry) Key            { return Key{encodeID(x.messageOf(e).id), x.laneOf(e).name} }

// detach takes an entry that is out of its lane out of its message, and reports whether it was the last.
func (x *Index) detach(n uint32, e *entry) (last bool) {
	m := x.messageOf(e)
	if m.only[0] == n {
		m.only[0], last = 0, true
	} else {
		rest := x.several[e.message]
		i := slices.Index(rest, n)
		rest = slices.Delete(rest, i, i+1)
		x.several[e.message] = rest
		if last = len(rest) == 0; last {
			delete(x.several, e.message)
		}
	}
	x.reasons.drop(e.why)
	x.entries.remove(n)
	return last
}
