package shape

import "time"

// What a site begins with and how fast it changes.
const (
	startConnections = 4                // a site that hangs costs no more than these
	raiseEvery       = 10 * time.Second // after a refusal, one more at once in this time, and a quarter less apart
	minPace          = 10 * time.Millisecond
	maxPace          = time.Minute
)

// Bounds on how long a site that could not be reached is not asked again, and how long one attempt alone asks.
const (
	firstOutage = 30 * time.Second
	maxOutage   = 10 * time.Minute
	askTime     = time.Minute
)

// enoughFailures is how many attempts in a row find nobody before a site counts as down that took mail before: one domain's
// host may be away of the many that a provider has.
const enoughFailures = 4

// A site is what is known of one site from one source address. Its methods are called with the Shaper's lock held.
type site struct {
	limits  Limits
	active  int
	limit   int  // attempts at once, now
	knee    int  // up to this the limit grows with each success, beyond it slowly
	proven  bool // it has taken mail, and was not down since
	buckets [3]bucket

	changed time.Time     // when the limit or the pace was last changed
	refused time.Time     // when it was last lowered
	pace    time.Duration // between two attempts, because the site asked for less
	gap     time.Duration // between two attempts, on average
	last    time.Time     // when the newest attempt began

	failures int       // attempts in a row that reached nobody
	down     bool      // it is left alone, but for one attempt that asks
	found    time.Time // when it was found to be down
	until    time.Time // it is not asked before
	asked    time.Time // until when the answer of the attempt that asks is awaited
	length   time.Duration

	why   string // the words that lowered it, or took it down
	since time.Time
}

func newSite(l Limits) *site {
	s := &site{limits: l, buckets: l.rates()}
	s.limit = min(startConnections, s.most())
	s.knee = s.most()
	return s
}

func (s *site) most() int {
	if s.limits.Connections <= 0 {
		return unlimited
	}
	return s.limits.Connections
}

// room is how many attempts may begin, where leased are about to or have begun.
func (s *site) room(now time.Time, leased int) Room {
	coming := max(leased-s.active, 0)
	if s.down {
		switch {
		case now.Before(s.until):
			return Room{Again: s.until, Down: true}
		case now.Before(s.asked):
			return Room{Again: s.asked, Down: true}
		case coming > 0: // one is about to ask
			return Room{Again: now.Add(askTime), Down: true}
		}
		return Room{N: 1, Down: true}
	}
	n := s.limit - max(s.active, leased)
	rate, again := s.rate(now)
	if rate -= coming; rate < 1 && again.IsZero() {
		again = now.Add(minPace) // what is about to begin takes it
	}
	if rate < n {
		return Room{N: max(rate, 0), Again: again, Proven: s.proven}
	}
	return Room{N: max(n, 0), Proven: s.proven}
}

// rate is how many messages may go now by their rate, and where none may, when one may.
func (s *site) rate(now time.Time) (n int, again time.Time) {
	n = unlimited
	for i := range s.buckets {
		m, t := s.buckets[i].room(now)
		if n = min(n, m); t.After(again) {
			again = t
		}
	}
	if s.pace > 0 {
		if t := s.last.Add(s.pace); now.Before(t) {
			return 0, later(again, t)
		}
		n = min(n, 1)
	}
	return n, again
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// begin lets an attempt begin, where it may.
func (s *site) begin(now time.Time) (Verdict, time.Time) {
	if s.down {
		if now.Before(s.until) || now.Before(s.asked) {
			return Down, later(s.until, s.asked)
		}
		s.asked = now.Add(askTime)
		s.active++
		return Probe, time.Time{}
	}
	if s.active >= s.limit {
		return Full, time.Time{}
	}
	if n, again := s.rate(now); n < 1 {
		return Full, again
	}
	for i := range s.buckets {
		s.buckets[i].take(now)
	}
	if !s.last.IsZero() {
		s.gap += (min(now.Sub(s.last), maxPace) - s.gap) / 8
	}
	s.last = now
	s.active++
	return Go, time.Time{}
}

// end takes the result of an attempt. It reports whether anything about the site has changed that people want to know.
func (s *site) end(now time.Time, r *Result) (changed bool) {
	s.active--
	before, wasDown := s.limit, s.down
	switch r.News {
	case Nothing:
		s.asked = time.Time{}
		return false
	case Unreachable:
		s.unreachable(now, r)
	case Answered, Took, Refused, SlowDown:
		s.reached(now)
	}
	switch r.News {
	case Took:
		s.proven = true
		s.grow(now)
	case Refused, SlowDown:
		s.shrink(now, r)
	}
	return s.limit != before || s.down != wasDown
}

// reached notes that somebody answered.
func (s *site) reached(now time.Time) {
	s.failures = 0
	if s.down {
		s.down, s.length, s.until, s.asked = false, 0, time.Time{}, time.Time{}
		s.since, s.changed = now, now
	}
}

// grow earns an attempt more, and a shorter time between two.
func (s *site) grow(now time.Time) {
	due := now.Sub(s.changed) >= raiseEvery
	if s.pace > 0 && due {
		if s.pace -= s.pace / 4; s.pace < minPace {
			s.pace = 0
		}
		s.changed = now
	}
	if s.limit < s.most() && (s.limit < s.knee || due) {
		s.limit++
		s.changed = now
		s.knee = max(s.knee, s.limit)
	}
}

// shrink halves what the site gets at once, and where it asks for less also how often. What attempts say that were under way when
// it was last lowered is said already.
func (s *site) shrink(now time.Time, r *Result) {
	if !r.Began.IsZero() && r.Began.Before(s.refused) {
		return
	}
	s.limit = max(s.limit/2, 1)
	if r.News == SlowDown {
		s.knee = s.limit
		s.pace = min(max(2*max(s.gap, s.pace), minPace), maxPace)
	}
	s.refused, s.changed = now, now
	s.why, s.since = r.Words, now
}

// unreachable takes the site down, where it is not one that took mail a moment ago: of that several must find nobody. Attempts that
// began before it was found to be down have found out the same thing.
func (s *site) unreachable(now time.Time, r *Result) {
	if s.down && (now.Before(s.until) || (!r.Began.IsZero() && r.Began.Before(s.found))) {
		return
	}
	s.failures++
	enough := !s.proven || s.failures >= min(enoughFailures, s.limit)
	s.limit = max(s.limit/2, 1)
	s.changed = now
	if !enough {
		return
	}
	s.limit, s.proven, s.down = 1, false, true
	s.length = min(max(2*s.length, firstOutage), maxOutage)
	s.found, s.until, s.asked = now, now.Add(s.length), time.Time{}
	if r.Wait > 0 {
		s.until = now.Add(min(s.length, r.Wait))
	}
	s.why, s.since = r.Words, now
}

// idle reports whether the site may be forgotten at a time.
func (s *site) idle(now time.Time, used time.Duration) bool {
	return s.active == 0 && !now.Before(s.until) && now.Sub(s.last) > used && now.Sub(s.since) > used
}
