package queue

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// gates keep the attempts of many lanes from coming all at once to the smarthost that they share. The zero value is ready
// once its settings are made.
type gates struct {
	max   int             // attempts at once through one
	queue int             // attempts that may wait for their turn at one
	stop  <-chan struct{} // nothing waits any more once it is closed

	mu    sync.Mutex
	known map[string]*gate // guarded by mu
	sweep int              // guarded by mu: how many may be known before idle ones are forgotten
}

type gate struct {
	active  int             // attempts that are through
	limit   int             // how many may be
	waiting []chan struct{} // closed when it is the attempt's turn; first come, first served
	used    time.Time
}

// crowdWait is how long mail is put back for that found too many waiting for their turn: from this to twice as long.
const crowdWait = 30 * time.Second

// enter waits for a turn at a destination. It reports false where too many wait already, where ctx has ended, or the Runner
// is to stop; otherwise leave must follow.
func (gs *gates) enter(ctx context.Context, destination string) bool {
	turn := gs.join(destination)
	if turn == nil {
		return false
	}
	select {
	case <-turn:
		return true
	case <-ctx.Done():
	case <-gs.stop:
	}
	gs.giveUp(destination, turn)
	return false
}

func (gs *gates) join(destination string) (turn chan struct{}) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	g := gs.known[destination]
	if g == nil {
		gs.forget()
		g = &gate{limit: min(startConcurrency, gs.max)}
		gs.known[destination] = g
	}
	if len(g.waiting) >= gs.queue && g.active >= g.limit {
		return nil
	}
	turn = make(chan struct{})
	g.waiting = append(g.waiting, turn)
	g.admit()
	return turn
}

// admit lets in who waits, as far as the limit goes.
func (g *gate) admit() {
	g.used = time.Now()
	for len(g.waiting) > 0 && g.active < g.limit {
		close(g.waiting[0])
		g.waiting[0] = nil
		g.waiting = g.waiting[1:]
		g.active++
	}
}

// giveUp leaves the queue, or the gate where the turn has just come.
func (gs *gates) giveUp(destination string, turn chan struct{}) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	g := gs.known[destination]
	if i := slices.Index(g.waiting, turn); i >= 0 {
		g.waiting = slices.Delete(g.waiting, i, i+1)
		return
	}
	g.active--
	g.admit()
}

func (gs *gates) leave(destination string) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	g := gs.known[destination]
	g.active--
	g.admit()
}

// learn changes the limit by what an attempt says about the destination, as that of a lane.
func (gs *gates) learn(destination string, success, trouble, nobody bool) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	g := gs.known[destination]
	if g == nil {
		return
	}
	g.limit = nextLimit(g.limit, gs.max, success, trouble, nobody)
	g.admit()
}

// forget drops gates that were idle for a while, with mu held.
func (gs *gates) forget() {
	if gs.known == nil {
		gs.known, gs.sweep = map[string]*gate{}, 1024
	}
	if len(gs.known) < gs.sweep {
		return
	}
	now := time.Now()
	for destination, g := range gs.known {
		if g.active == 0 && len(g.waiting) == 0 && now.Sub(g.used) > laneMemory {
			delete(gs.known, destination)
		}
	}
	gs.sweep = max(2*len(gs.known), 1024)
}

// crowded is when mail is tried that could not wait for its turn.
func (gs *gates) crowded(now time.Time) time.Time {
	select {
	case <-gs.stop:
		return now
	default:
		return now.Add(crowdWait + rand.N(crowdWait))
	}
}
