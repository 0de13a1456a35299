package memory

import (
	"cmp"
	"slices"

	"github.com/sortie-mail/sortie/queue"
)

// An order holds messages by ID, so that a list of all takes one pass however many pages it has. New messages have the
// greatest ID, and cost an append; those that a log names out of order are sorted when somebody looks.
type order struct {
	all      []*message
	unsorted bool
	gone     int // messages in all that are out of the index
}

func (o *order) add(m *message) {
	if n := len(o.all); n > 0 && m.ID < o.all[n-1].ID {
		o.unsorted = true
	}
	o.all = append(o.all, m)
}

// remove leaves the message's empty shell to the next tidying, which comes before half of all are such.
func (o *order) remove(m *message) {
	*m = message{Message: Message{ID: m.ID}, gone: true}
	o.gone++
	if o.gone > len(o.all)/2 {
		o.tidy()
	}
}

func (o *order) tidy() {
	o.all = slices.DeleteFunc(o.all, func(m *message) bool { return m.gone })
	o.gone = 0
}

// from calls yield with the messages from an ID on until it returns false.
func (o *order) from(id queue.ID, yield func(*message) bool) {
	if o.unsorted {
		o.tidy() // a message that was replaced is there twice until then
		slices.SortFunc(o.all, compareMessages)
		o.unsorted = false
	}
	first, _ := slices.BinarySearchFunc(o.all, id, func(m *message, id queue.ID) int { return cmp.Compare(m.ID, id) })
	for _, m := range o.all[first:] {
		if !m.gone && !yield(m) {
			return
		}
	}
}

func compareMessages(a, b *message) int { return cmp.Compare(a.ID, b.ID) }
