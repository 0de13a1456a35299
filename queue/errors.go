package queue

import (
	"errors"
	"strconv"
)

// What callers compare with errors.Is.
var (
	ErrNotFound  = errors.New("queue: no such message")
	ErrClosed    = errors.New("queue: closed")
	ErrFull      = errors.New("queue: no room for more mail now") // 452 4.3.1 at the door
	ErrLeaseLost = errors.New("queue: the lease has ended, or its entry was deleted")
	ErrNoFilter  = errors.New("queue: the filter matches everything: set All to mean that")
)

// An EnvelopeError is what no retry would make acceptable: at the door a 5xx.
type EnvelopeError struct {
	Field   string // "reverse-path", "recipient", "recipients", "priority", "key", "message", "note", "notes"
	Value   string // the offending text; "" where it has none
	Problem string // what is wrong, and what to write instead
}

func (e *EnvelopeError) Error() string {
	if e.Value == "" {
		return "queue: " + e.Field + ": " + e.Problem
	}
	return "queue: " + e.Field + " " + strconv.Quote(e.Value) + ": " + e.Problem
}
