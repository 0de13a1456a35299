package queue

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/sortie-mail/sortie/deliver/shape"
)

// gates are where attempts wait for their turn at a site that they share with others, as far as its Shaper lets them. The zero
// value is ready once its settings are made.
type gates struct {
	shaper *shape.Shaper
	queue  int             // attempts that may wait for their turn, at all sites together
	stop   <-chan struct{} // nothing waits any more once it is closed

	mu      sync.Mutex
	waiting int              // guarded by mu: at all sites
	busy    map[string]*gate // guarded by mu: the sites at which somebody waits
}

// A gate has the attempts that wait at one site.
type gate struct {
	turns []chan shape.Verdict // first come, first served
	timer *time.Timer          // lets them in when their rate does
}

// crowdWait is how long mail is put back for that found too many waiting for their turn: from this to twice as long.
const crowdWait = 30 * time.Second

// enter begins an attempt at a site, and waits for its turn where the site has as much as it gets. With Go and Probe leave must
// follow. Full is where too many wait already, or the attempt is not to, where ctx has ended, or the Runner is to stop.
func (gs *gates) enter(ctx context.Context, site string, wait bool) shape.Verdict {
	turn, v := gs.join(site, wait)
	if turn == nil {
		return v
	}
	select {
	case v = <-turn:
		return v
	case <-ctx.Done():
	case <-gs.stop:
	}
	gs.giveUp(site, turn)
	return shape.Full
}

// join lets an attempt in where nobody waits before it, or gives it a place in the queue.
func (gs *gates) join(site string, wait bool) (turn chan shape.Verdict, v shape.Verdict) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	g := gs.busy[site]
	var again time.Time
	if g == nil {
		if v, again = gs.shaper.Begin(site); v != shape.Full {
			return nil, v
		}
	}
	if !wait || gs.waiting >= gs.queue {
		return nil, shape.Full
	}
	if g == nil {
		g = new(gate)
		if gs.busy == nil {
			gs.busy = map[string]*gate{}
		}
		gs.busy[site] = g
		gs.comeAgain(site, g, again)
	}
	turn = make(chan shape.Verdict, 1)
	g.turns = append(g.turns, turn)
	gs.waiting++
	return turn, shape.Full
}

// comeAgain lets in who waits at a time, with mu held; the zero time is when an attempt ends.
func (gs *gates) comeAgain(site string, g *gate, at time.Time) {
	if at.IsZero() {
		return
	}
	if g.timer != nil {
		g.timer.Reset(time.Until(at))
		return
	}
	g.timer = time.AfterFunc(time.Until(at), func() {
		gs.mu.Lock()
		defer gs.mu.Unlock()
		gs.admit(site)
	})
}

// admit lets in who waits at a site, as far as it may, with mu held.
func (gs *gates) admit(site string) {
	g := gs.busy[site]
	if g == nil {
		return
	}
	for len(g.turns) > 0 {
		v, again := gs.shaper.Begin(site)
		if v == shape.Full {
			gs.comeAgain(site, g, again)
			return
		}
		g.turns[0] <- v
		gs.remove(site, g, 0)
	}
}

// remove takes an attempt out of the queue, and a gate away at which nobody waits, with mu held.
func (gs *gates) remove(site string, g *gate, i int) {
	g.turns = slices.Delete(g.turns, i, i+1)
	gs.waiting--
	if len(g.turns) > 0 {
		return
	}
	if g.timer != nil {
		g.timer.Stop()
	}
	delete(gs.busy, site)
}

// giveUp leaves the queue, or the site where the turn has just come.
func (gs *gates) giveUp(site string, turn chan shape.Verdict) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	if g := gs.busy[site]; g != nil {
		if i := slices.Index(g.turns, turn); i >= 0 {
			gs.remove(site, g, i)
			return
		}
	}
	if v := <-turn; v == shape.Go || v == shape.Probe {
		gs.shaper.End(site, shape.Result{})
		gs.admit(site)
	}
}

// leave ends an attempt at a site, and lets in who waits.
func (gs *gates) leave(site string, r shape.Result) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	gs.shaper.End(site, r)
	gs.admit(site)
}

// crowded is when mail is tried that could not wait for its turn: soon where its site is known to the queue, because there it stays where
// it is as long as the site has no room.
func (gs *gates) crowded(now time.Time, soon bool) time.Time {
	select {
	case <-gs.stop:
		return now
	default:
	}
	if soon {
		return now.Add(time.Second)
	}
	return now.Add(crowdWait + rand.N(crowdWait))
}
