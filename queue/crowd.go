package queue

import (
	"context"
	"errors"
	"sync"
	"time"
)

// A crowd are the attempts in lanes that have proven nothing, which may all hang: at most three in four of the slots are theirs, so that
// the others are there for lanes whose destinations take mail. A lane that was never tried gets in all the same: the attempt
// that has waited longest for a word of its host makes room for it. Lanes that have hung before come after it, and have
// half as much. The zero value is ready once slots is set.
type crowd struct {
	slots int

	mu          sync.Mutex
	first, last *waiter // guarded by mu: the oldest is first
	n           int     // guarded by mu

	lasting  time.Duration // guarded by mu: about how long an attempt stays
	promised time.Time     // guarded by mu: when the newest lane without room is to ask again
}

// A waiter is an attempt of which no host has said anything about a recipient yet.
type waiter struct {
	began    time.Time
	cut      context.CancelCauseFunc // ends the attempt; nil until it has begun
	in       bool                    // the crowd
	next     *waiter
	previous *waiter
}

// patience is how long an attempt waits for a word at the least, before it has to make room.
const patience = 3 * time.Second

// crowdAgain is how often lanes that have hung are looked at again, all together, while there is no room for them.
const crowdAgain = time.Minute

// errMadeRoom is why an attempt was ended for others.
var errMadeRoom = errors.New("no answer yet, and many others wait: given up for now, to make room for mail to other destinations")

// most is how many attempts are in the crowd at once.
func (c *crowd) most() int { return max(c.slots*3/4, 1) }

// isLarge is when a lane that has proven nothing has one attempt only.
func (c *crowd) isLarge() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n > c.slots/4
}

// room reports whether an attempt may begin in a lane that has proven nothing, and where it may not when to ask again. hung is
// whether its last attempt ended without a word.
func (c *crowd) room(hung bool, now time.Time) (ok bool, again time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case hung && c.n >= max(c.most()/2, 1):
		return false, now.Truncate(crowdAgain).Add(crowdAgain)
	case c.n < c.most():
		return true, time.Time{}
	}
	w := c.first
	for w != nil && w.cut == nil {
		w = w.next
	}
	if w == nil || now.Sub(w.began) < patience {
		again = now.Add(patience)
		if w != nil {
			again = w.began.Add(patience)
		}
		return false, c.promise(now, again)
	}
	w.cut(errMadeRoom)
	c.remove(w)
	return true, time.Time{}
}

// leastPace bounds how often lanes ask that find no room.
const leastPace = 250 * time.Microsecond

// promise is when a lane that found no room is to ask again. Where attempts end soon the lanes come one after the other, twice as fast as
// attempts end, so that a place that becomes free is taken at once and not all lanes ask for it; where they hang it is when patience is over.
func (c *crowd) promise(now, over time.Time) time.Time {
	if c.lasting == 0 || c.lasting > patience/4 {
		return over
	}
	if c.promised.Before(now) {
		c.promised = now
	}
	c.promised = c.promised.Add(max(c.lasting/time.Duration(2*c.most()), leastPace))
	if c.promised.After(over) {
		c.promised = over
	}
	return c.promised
}

// enter adds an attempt.
func (c *crowd) enter() *waiter {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := &waiter{began: time.Now(), in: true, previous: c.last}
	if c.last != nil {
		c.last.next = w
	} else {
		c.first = w
	}
	c.last = w
	c.n++
	return w
}

// started tells how an attempt is ended.
func (c *crowd) started(w *waiter, cut context.CancelCauseFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w.cut = cut
}

// leave takes an attempt out that has had a word, or has ended. It may be called again.
func (c *crowd) leave(w *waiter) {
	if w == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(w)
}

func (c *crowd) remove(w *waiter) {
	if !w.in {
		return
	}
	if lasted := min(max(time.Since(w.began), 1), patience); c.lasting == 0 {
		c.lasting = lasted
	} else {
		c.lasting += (lasted - c.lasting) / 8
	}
	if w.previous != nil {
		w.previous.next = w.next
	} else {
		c.first = w.next
	}
	if w.next != nil {
		w.next.previous = w.previous
	} else {
		c.last = w.previous
	}
	w.in, w.next, w.previous = false, nil, nil
	c.n--
}
