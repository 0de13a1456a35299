package queue

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// A Note is a small fact that a queue keeps beside the mail until a certain time. Kind and Key name it.
type Note struct {
	Kind  string    `json:"kind"`            // whose it is: 1 to 32 letters, digits and hyphens
	Key   string    `json:"key"`             // what it is about: UTF-8, 1 to 400 octets
	Value string    `json:"value,omitempty"` // UTF-8, at most [MaxNoteValue]
	Until time.Time `json:"until,omitzero"`  // when it vanishes; the zero time is never
}

// A Notebook keeps notes as safe as mail. The queues of this project are Notebooks; it is safe for concurrent use.
//
// A kind has at most [MaxNotes]; of more, those that end first go. A jump of the clock neither ends a note early nor keeps it.
type Notebook interface {
	// Note writes notes, all of them or none; they are durable when it returns. A note takes the place of the one of the
	// same kind and key. One without value and end removes it, and so does one whose end is over.
	//
	// Errors: an [*EnvelopeError] for a note that is none; one that wraps [ErrFull] when there is no room now; [ErrClosed].
	Note(ctx context.Context, notes ...Note) error
	// Lookup gives the note of a kind and key, if there is one.
	Lookup(ctx context.Context, kind, key string) (n Note, ok bool, err error)
	// Notes gives the notes of a kind whose keys begin with prefix, in the order of their keys, from the one after cursor on ("" is
	// the start), at most limit of them, 0 for all. next is the cursor for the rest; "" is the end.
	Notes(ctx context.Context, kind, prefix, cursor string, limit int) (notes []Note, next string, err error)
}

// Bounds on notes.
const (
	MaxNoteValue  = 4 << 10
	MaxNotes      = 1_000_000 // of one kind
	MaxNoteChange = 100_000   // notes that are written at once

	maxNoteKind = 32
	maxNoteKey  = 400 // an address with the longest local part and domain has room
)

// KindKey is the kind of the notes that remember the [Envelope.Key] of messages, for [KeyMemory] and as long as the message is in the
// queue. Their value is the message's [ID]. The queue writes them itself, and takes them from nobody else.
const KindKey = "key"

// KeyMemory is how long after its acceptance a message's [Envelope.Key] is remembered at least; of more than [MaxNotes] keys
// those of the oldest messages are forgotten earlier.
const KeyMemory = 24 * time.Hour

// MaxKey is how long an [Envelope.Key] may be, in octets.
const MaxKey = 200

// Removes reports whether the note is the removal of another.
func (n *Note) Removes() bool { return n.Value == "" && n.Until.IsZero() }

// Validate reports what is wrong with a note, as an [*EnvelopeError].
func (n *Note) Validate() error {
	problem := ""
	switch {
	case n.Kind == "" || len(n.Kind) > maxNoteKind || strings.ContainsFunc(n.Kind, badKind):
		problem = fmt.Sprintf("the kind has 1 to %d letters, digits and hyphens", maxNoteKind)
	case n.Kind == KindKey:
		problem = "notes of this kind are the queue's own: enqueue a message with that key"
	case n.Key == "" || len(n.Key) > maxNoteKey || !utf8.ValidString(n.Key):
		problem = fmt.Sprintf("the key has 1 to %d octets of UTF-8", maxNoteKey)
	case len(n.Value) > MaxNoteValue || !utf8.ValidString(n.Value):
		problem = fmt.Sprintf("the value has at most %d octets of UTF-8", MaxNoteValue)
	default:
		return nil
	}
	return &EnvelopeError{"note", shortened(n.Kind+" "+n.Key, maxNoteKind+1+maxNoteKey), problem}
}

func badKind(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
}

// CheckNotes does so for all that are to be written at once.
func CheckNotes(notes []Note) error {
	if len(notes) > MaxNoteChange {
		return &EnvelopeError{"notes", strconv.Itoa(len(notes)), fmt.Sprintf("write at most %d at once", MaxNoteChange)}
	}
	for i := range notes {
		if err := notes[i].Validate(); err != nil {
			return err
		}
	}
	return nil
}

// checkKey reports what is wrong with the key of an envelope.
func checkKey(key string) error {
	if len(key) > MaxKey || !utf8.ValidString(key) {
		return &EnvelopeError{"key", shortened(key, MaxKey), fmt.Sprintf("write at most %d octets of UTF-8", MaxKey)}
	}
	return nil
}

// shortened gives at most max octets of a text, as UTF-8.
func shortened(s string, max int) string {
	if len(s) > max {
		s = s[:max]
	}
	return strings.ToValidUTF8(s, "")
}
