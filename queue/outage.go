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
	since   time.Time // of the try that found out
	length  time.Duration
	outcome deliver.Outcome
}

// during gives what is known of a destination that is not to be asked now.
func (o *outages) during(destination string, now time.Time) (deliver.Outcome, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	known := o.known[destination]
	if known == nil || !now.Before(known.until) {
		return deliver.Outcome{}, false
	}
	out := known.outcome
	out.Detail = fmt.Sprintf("not tried now, because at %s: %s", known.since.UTC().Format("15:04:05 MST"), out.Detail)
	return out, true
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
	if now.Before(known.until) {
		return // found out by another attempt at the same time
	}
	known.length = min(max(2*known.length, firstOutage), maxOutage)
	known.since, known.until = now, now.Add(min(known.length, wait))
	known.outcome = *outcome
	known.outcome.Tried = nil
}

// end notes that a destination was reached.
func (o *outages) end(destination string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.known, destination)
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
		if now.Sub(known.until) > maxOutage {
			delete(o.known, destination)
		}
	}
	o.sweep = max(2*len(o.known), 1024)
}
