package queue

import (
	"fmt"
	"sync"
	"time"

	"github.com/sortie-mail/sortie/deliver"
)

// Bounds on how long a destination that could not be reached is not asked again.
const (
	firstOutage = 30 * time.Second
	maxOutage   = 10 * time.Minute
)

// outageMemory is how long it is remembered that a destination could not be reached: longer than mail waits for it.
const outageMemory = 6 * time.Hour

// outages are the destinations that could not be reached a moment ago. What comes due for one of them meanwhile is put
// off without a connection, with what the last one found out: a thousand messages do not each wait for the timeout. The
// zero value is ready.
type outages struct {
	mu    sync.Mutex
	known map[string]*outage // guarded by mu
	sweep int                // guarded by mu
}

type outage struct {
	until   time.Time
	asked   time.Time // until when the answer of an attempt that asks again is awaited
	since   time.Time // of the try that found out
	length  time.Duration
	outcome deliver.Outcome
	back    bool // it was reached again; what waits for it is kept until it took mail

	lanes map[string]bool // the lanes that wait for it
	width int             // how many of them were woken at once
}

// askTime is how long one attempt alone asks whether a destination is back, while others are put off.
const askTime = time.Minute

// maxWaiting is how many lanes are known to wait for a destination; the others wait for their time.
const maxWaiting = 10_000

// A standing is how a destination stands.
type standing uint8

const (
	open  standing = iota // nothing is known against it
	asked                 // it was away: the caller is to ask whether it is back
	away                  // it is not to be asked now
)

// during gives how a destination stands, and what is known of one that is away.
func (o *outages) during(destination string, now time.Time) (standing, deliver.Outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	known := o.known[destination]
	if known == nil || known.back {
		return open, deliver.Outcome{}
	}
	if !now.Before(known.until) && !now.Before(known.asked) {
		known.asked = now.Add(askTime)
		return asked, deliver.Outcome{}
	}
	out := known.outcome
	why := out.Detail
	if why == "" {
		why = out.Reply.String()
	}
	out.Detail = fmt.Sprintf("not tried now, because at %s: %s", known.since.UTC().Format("15:04:05 MST"), why)
	return away, out
}

// join notes that mail of a lane waits for a destination. It reports true where that is back already, and nobody will wake
// the mail.
func (o *outages) join(destination, lane string) (back bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	known := o.known[destination]
	if known == nil || known.back {
		return true
	}
	if known.lanes == nil {
		known.lanes = map[string]bool{}
	}
	if len(known.lanes) < maxWaiting {
		known.lanes[lane] = true
	}
	return false
}

// joinOutages notes for which destinations the mail waits. It reports whether one that it was put off for, without a try, is
// back since.
func (a *attempt) joinOutages() (back bool) {
	for k := range a.groups {
		if g := &a.groups[k]; g.waits {
			back = (a.r.down.join(g.destination, a.lease.Lane) && g.putOff) || back
		}
	}
	return back
}

// begin notes that a destination could not be reached. It is left alone for longer each time, and never for longer than
// the message that found out waits.
func (o *outages) begin(destination string, outcome *deliver.Outcome, wait time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	o.forget(now)
	known := o.known[destination]
	if known == nil {
		known = &outage{}
		o.known[destination] = known
	}
	if now.Before(known.until) || (!outcome.Start.IsZero() && outcome.Start.Before(known.since)) {
		return // found out by another attempt at the same time
	}
	if known.back {
		known.back, known.length, known.width = false, 0, 0
	}
	known.length = min(max(2*known.length, firstOutage), maxOutage)
	known.since, known.until, known.asked = now, now.Add(min(known.length, wait)), time.Time{}
	known.outcome = *outcome
	known.outcome.Tried = nil
}

// end notes that a destination was reached.
func (o *outages) end(destination string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if known := o.known[destination]; known != nil {
		known.back, known.until = true, time.Time{}
	}
}

// waiting gives lanes that waited for a destination that has just taken mail of another lane: few at first and then one for
// each mail, so that a smarthost that is back does not get at once what has come together. What it gives it forgets.
func (o *outages) waiting(destination, lane string, most int) (lanes []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	known := o.known[destination]
	if known == nil {
		return nil
	}
	delete(known.lanes, lane)
	n := 1
	if known.width < most-1 {
		known.width++
		n = 2
	}
	for other := range known.lanes {
		if len(lanes) == n {
			break
		}
		lanes = append(lanes, other)
		delete(known.lanes, other)
	}
	if len(known.lanes) == 0 {
		delete(o.known, destination)
	}
	return lanes
}

// again makes the next attempt ask, whatever is known.
func (o *outages) again() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, known := range o.known {
		known.until, known.asked = time.Time{}, time.Time{}
	}
}

// forget drops what ended long ago, with mu held.
func (o *outages) forget(now time.Time) {
	if o.known == nil {
		o.known, o.sweep = map[string]*outage{}, 1024
	}
	if len(o.known) < o.sweep {
		return
	}
	for destination, known := range o.known {
		if now.Sub(known.since) > outageMemory {
			delete(o.known, destination)
		}
	}
	o.sweep = max(2*len(o.known), 1024)
}
