package queue

import (
	"math/rand/v2"
	"time"

	"github.com/sortie-mail/sortie/dsn/reason"
)

// A Schedule says when mail is tried again, when its sender is told of a delay, and when it is given up. Zero fields have
// the default of their comment.
type Schedule struct {
	// Waits are the times between tries; the last one repeats. Default: 5 min, 15 min, 30 min, 1 h, 2 h, 4 h. Greylisted
	// mail stays with the first one for its first tries; mail that somebody's help must free, or whose mailbox is full, skips
	// two. What is not positive is a minute.
	Waits []time.Duration
	// Jitter is the share by which each wait is made longer or shorter at random, so that what failed together is not
	// tried together. Default: 0.1. Negative: none. More than 0.9 is 0.9.
	Jitter float64
	// DelayAfter is the age at which the sender is told that a message is late, once. Default: 4 h. Negative, or not less
	// than Lifetime: never.
	DelayAfter time.Duration
	// Lifetime is the age at which a message is tried for the last time. Default: 5 days (RFC 5321, section 4.5.4.1).
	// Negative: each message is tried once.
	Lifetime time.Duration
}

// DefaultWaits are the times between tries where a Schedule has none.
func DefaultWaits() []time.Duration {
	return []time.Duration{5 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour}
}

func (s Schedule) filled() Schedule {
	if len(s.Waits) == 0 {
		s.Waits = DefaultWaits()
	}
	s.Jitter = min(orDefault(s.Jitter, 0.1), 0.9)
	s.DelayAfter = orDefault(s.DelayAfter, 4*time.Hour)
	s.Lifetime = orDefault(s.Lifetime, 5*24*time.Hour)
	return s
}

// soonTries is how many tries greylisted mail has at the first wait.
const soonTries = 4

// wait is how long to wait after the try of number n, from 0 on.
func (s *Schedule) wait(n int, retry reason.Retry) time.Duration {
	switch {
	case retry == reason.RetrySoon && n < soonTries:
		n = 0
	case retry == reason.RetrySoon:
		n -= soonTries - 1
	case retry == reason.RetrySlowly || retry == reason.RetryNever:
		n += 2
	}
	w := min(positive(s.Waits[min(n, len(s.Waits)-1)], time.Minute), longestWait)
	if s.Jitter > 0 {
		w += time.Duration(float64(w) * s.Jitter * (2*rand.Float64() - 1))
	}
	return max(w, time.Millisecond)
}

// longestWait keeps a wait within what a time can be.
const longestWait = 10 * 365 * 24 * time.Hour

// expires is when a message is given up.
func (s *Schedule) expires(accepted time.Time) time.Time { return accepted.Add(s.Lifetime) }

// late is when the sender of a message is told that it is late; the zero time is never.
func (s *Schedule) late(accepted time.Time) time.Time {
	if s.DelayAfter < 0 || s.DelayAfter >= s.Lifetime {
		return time.Time{}
	}
	return accepted.Add(s.DelayAfter)
}

// inTime brings a next try forward to when the message's delay is to be reported, so that the report is in time and tells the
// newest state, and to when it expires.
func inTime(t, now, late, expires time.Time) time.Time {
	if now.Before(late) && t.After(late) {
		t = late
	}
	if t.After(expires) {
		t = expires
	}
	return t
}
