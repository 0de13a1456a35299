package queue

import (
	"fmt"
	"sync"
	"time"

	"github.com/sortie-mail/sortie/deliver"
)

// outageMemory is how long it is remembered that a destination could not be reached: longer than mail waits for it.
const outageMemory = 6 * time.Hour

// outages are the destinations that could not be reached a moment ago, and the lanes that wait for them. Whether one may be asked
// again its Shaper says; what comes due for it meanwhile is put off without a connection, with what the last one found out. The zero
// value is ready.
type outages struct {
	mu    sync.Mutex
	known map[string]*outage // guarded by mu
	sweep int                // guarded by mu
}

type outage struct {
	since   time.Time // of the try that found out
	outcome deliver.Outcome
	back    bool // it was reached again; what waits for it is kept until it took mail

	lanes map[string]bool // the lanes that wait for it
	width int             // how many of them were woken at once
}

// maxWaiting is how many lanes are known to wait for a destination; the others wait for their time.
const maxWaiting = 10_000

// lastWords gives what is known of a destination that is away.
func (o *outages) lastWords(destination string) deliver.Outcome {
	o.mu.Lock()
	defer o.mu.Unlock()
	known := o.known[destination]
	if known == nil {
		return deliver.Outcome{Status: "4.4.1", Stage: deliver.StageConnect, Detail: "not tried now, because its hosts could not be reached"}
	}
	out := known.outcome
	why := out.Detail
	if why == "" {
		why = out.Reply.String()
	}
	out.Detail = fmt.Sprintf("not tried now, because at %s: %s", known.since.UTC().Format("15:04:05 MST"), why)
	return out
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

// begin notes that a destination could not be reached.
func (o *outages) begin(destination string, outcome *deliver.Outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	o.forget(now)
	known := o.known[destination]
	if known == nil {
		known = &outage{}
		o.known[destination] = known
	}
	if known.back {
		known.back, known.width = false, 0
	}
	known.since, known.outcome = now, *outcome
	known.outcome.Tried = nil
}

// end notes that a destination was reached.
func (o *outages) end(destination string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if known := o.known[destination]; known != nil {
		known.back = true
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
