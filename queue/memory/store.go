package memory

import (
	"errors"

	"github.com/sortie-mail/sortie/queue"
)

// A Store keeps what an [Index] does not: the words of messages and entries, which are their envelopes, recipients and histories.
// An Index asks for them when somebody needs them, without locks held and from several goroutines. What it gets is
// not changed any more by anybody.
type Store interface {
	// Message gives the message whose record is at a place, with its entries as they were then, by lane.
	Message(id queue.ID, at Place) (*Message, error)
	// Entry gives the entry of a lane of a message with what was settled since, the newest of it at last.
	Entry(m *Message, lane string, last Mark) (Entry, error)
	// Dropped tells that the last entry of a message is gone, so that the backend frees what it took. The Index does not know
	// the message any more.
	Dropped(id queue.ID, at Place, size int64)
}

// A Place is where a backend keeps a message. What it says is the backend's business; 0 is a value like others.
type Place struct {
	Segment, Record uint32 // of the words
	Body            uint32
	Sum             uint32 // of the body
	File            bool   // the body is in a file of its own
}

// A Mark is where a backend keeps a settlement. The zero Mark is none.
type Mark struct{ Segment, Record uint32 }

// ErrDamaged is what an error of a [Store] wraps where the words will not be there later either. Such an entry is held.
var ErrDamaged = errors.New("what describes the message is damaged or missing")

// IsDamage tells such errors.
func IsDamage(err error) bool { return errors.Is(err, ErrDamaged) }
