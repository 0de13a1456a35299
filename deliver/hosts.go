package deliver

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// maxAbsent is how many addresses are remembered not to answer: more than a busy server meets in the time that they are
// remembered, and a few MB at most.
const maxAbsent = 10_000

// absences are the addresses that did not answer a moment ago, for all attempts of a Deliverer. They are tried last, by one
// attempt at a time: ten thousand messages for a domain whose best host is away do not each wait for it. An address that
// has been left alone for long enough is tried in its place again, at first by one attempt alone.
type absences struct {
	length time.Duration // how long an address is left alone; negative: not at all

	mu    sync.Mutex
	known map[way]*absence // guarded by mu
}

// A way is how an address is connected to.
type way struct {
	to     netip.AddrPort
	source netip.Addr
	proxy  string
}

type absence struct {
	since time.Time
	why   string
	asked bool // an attempt is finding out whether it is back
}

// An absentee is a place that was passed over.
type absentee struct {
	place
	way  way
	why  *Error
	told bool // the outcomes have it
}

// away reports an address that is better not tried now, and why. Of one whose time is over the caller is to find out
// whether it is back: asks, until begin, end or release.
func (l *absences) away(w way) (why *Error, asks bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := l.known[w]
	switch {
	case known == nil:
		return nil, false
	case known.asked || time.Since(known.since) < l.length:
		return known.err(), false
	}
	known.asked = true
	return nil, true
}

func (a *absence) err() *Error {
	return tempErr(StageConnect, "4.4.1", "not tried again: at %s: %s", a.since.UTC().Format("15:04:05 MST"), a.why)
}

// ask takes addresses to find out whether they are back, but for those that another attempt has taken. It is all in one
// step, so that of two attempts at the same addresses one gets none.
func (l *absences) ask(list []absentee) (mine, others []absentee) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range list {
		known := l.known[a.way]
		if known != nil && known.asked {
			others = append(others, a)
			continue
		}
		if known != nil {
			known.asked = true
		}
		mine = append(mine, a)
	}
	return mine, others
}

// enter asks after a single address that others have no way around: it fails where another attempt is finding out.
func (l *absences) enter(w way) *Error {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := l.known[w]
	switch {
	case known == nil:
		return nil
	case known.asked:
		return known.err()
	}
	known.asked = true
	return nil
}

// begin notes that an address did not answer.
func (l *absences) begin(w way, why string) {
	if l.length < 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil {
		l.known = map[way]*absence{}
	}
	if l.known[w] == nil && len(l.known) >= maxAbsent {
		l.makeRoom()
	}
	l.known[w] = &absence{since: time.Now(), why: why}
}

// makeRoom forgets what is over, or else anything, with mu held.
func (l *absences) makeRoom() {
	for w, known := range l.known {
		if time.Since(known.since) >= l.length {
			delete(l.known, w)
		}
	}
	for w := range l.known {
		if len(l.known) < maxAbsent {
			break
		}
		delete(l.known, w)
	}
}

// end notes that an address has answered.
func (l *absences) end(w way) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.known, w)
}

// release gives back what was asked and not found out.
func (l *absences) release(ways []way) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range ways {
		if known := l.known[w]; known != nil {
			known.asked = false
		}
	}
}

// absent reports whether an error means that nobody answers at an address: it fell silent, or something on the way there
// says no. What is wrong on this side, with its network or its number of connections, tells nothing of a host.
func absent(e *Error) bool {
	return isTimeout(e) || (e.Stage == StageConnect && (errors.Is(e, errNotThere) || isSilence(e)))
}

func isSilence(err error) bool {
	return isTimeout(err) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH)
}

// learn remembers what a new connection came to.
func (a *attempt) learn(ctx context.Context, w way, e *Error) {
	answered := e == nil || !e.Reply.IsZero() || (e.Stage != StageConnect && e.Stage != StageGreeting)
	switch {
	case !w.to.IsValid() || ctx.Err() != nil: // a socket of this machine answers at once or not at all
	case answered:
		a.d.absent.end(w)
	case !e.RouteTrouble && absent(e):
		a.d.absent.begin(w, e.detail())
	}
}

// attend divides the addresses of a host into those to try now, and those that did not answer a moment ago.
func (a *attempt) attend(places []place) (present []place, absent []absentee) {
	for _, p := range places {
		k := newKey(a.hop, a.mode, p, false)
		w := k.way()
		why, asks := a.d.absent.away(w)
		if asks {
			a.asking = append(a.asking, w)
		}
		if why == nil || a.d.pool.has(k) { // a host may have enough connections, and not more
			present = append(present, p)
			continue
		}
		why.Host, why.Addr = p.target.host, p.addrPort()
		absent = append(absent, absentee{place: p, way: w, why: why})
	}
	return present, absent
}

// release lets other attempts ask after the addresses that this one did not come to.
func (a *attempt) release() {
	if len(a.asking) > 0 {
		a.d.absent.release(a.asking)
		a.asking = nil
	}
}

// pass tells the outcomes which addresses are passed over, before another one is tried.
func (a *attempt) pass() {
	for i := range a.absent {
		if at := &a.absent[i]; !at.told {
			at.told = true
			a.note(at.why)
			failAll(a.pending, at.why)
		}
	}
}

// note writes an error into the transcript that no connection has.
func (a *attempt) note(e *Error) {
	if a.d.Transcript != nil {
		a.d.Transcript.Line(TranscriptLine{Time: time.Now(), ID: a.m.ID, Host: e.Host, Addr: e.Addr, From: '*', Text: e.detail()})
	}
}

// last tries what was passed over, where no other host has taken the message: nobody fails without a try, unless another
// attempt is just finding out.
func (a *attempt) last(ctx context.Context) {
	if len(a.absent) == 0 || a.done(ctx) {
		return
	}
	defer a.release()
	mine, others := a.d.absent.ask(a.absent)
	for _, at := range mine {
		a.asking = append(a.asking, at.way)
	}
	for len(mine) > 0 && !a.done(ctx) {
		host := mine[0].target
		var places []place
		for ; len(mine) > 0 && mine[0].target == host; mine = mine[1:] {
			places = append(places, mine[0].place)
		}
		a.approach(ctx, places, false)
	}
	for _, at := range others {
		if !at.told && len(a.pending) > 0 {
			a.note(at.why)
			failAll(a.pending, at.why)
		}
	}
}
