package main

import (
	"errors"
	"sync"
)

// A change is a message that comes, or one that is settled.
type change struct {
	seq        uint64
	meta, body []byte // of one that comes
	record     []byte // of one that is settled; nil of one that comes
}

// A store keeps messages by number. Calls of commit may be concurrent only where it says so.
type store interface {
	commit(changes []change) error // together and durably
	scan(after uint64, most int) ([]entry, error)
	last() (uint64, error) // the highest number that waits, or 0
	read(seq uint64) (meta, body []byte, err error)
	close() error
}

// An entry is what a store has of a message besides its body.
type entry struct {
	seq  uint64
	meta []byte
}

// A group gives all changes that wait to one commit at a time, so that they share its fsyncs.
type group struct {
	commit func([]change) error
	wake   chan struct{}
	done   chan struct{}

	mu     sync.Mutex
	next   *batch // guarded by mu
	closed bool   // guarded by mu
}

type batch struct {
	changes []change
	done    chan struct{}
	err     error
}

var errClosed = errors.New("the engine is closed")

func newGroup(commit func([]change) error) *group {
	g := &group{commit: commit, wake: make(chan struct{}, 1), done: make(chan struct{}), next: &batch{done: make(chan struct{})}}
	go g.run()
	return g
}

// do makes a change durable.
func (g *group) do(c change) error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return errClosed
	}
	b := g.next
	b.changes = append(b.changes, c)
	if len(b.changes) == 1 {
		g.wake <- struct{}{}
	}
	g.mu.Unlock()
	<-b.done
	return b.err
}

func (g *group) run() {
	defer close(g.done)
	for range g.wake {
		g.mu.Lock()
		b := g.next
		g.next = &batch{done: make(chan struct{})}
		g.mu.Unlock()
		b.err = g.commit(b.changes)
		close(b.done)
	}
}

// close ends the group. Calls of do have ended.
func (g *group) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	close(g.wake)
	<-g.done
}
