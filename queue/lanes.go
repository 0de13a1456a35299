package queue

import (
	"sync"
	"time"
)

// startConcurrency is how many attempts at once a lane begins with. A destination that hangs costs no more than these.
const startConcurrency = 4

// wakePause is how long a lane is not woken again: where a provider takes some mail and refuses other, each success must not
// make all of what is refused be tried again.
const wakePause = 5 * time.Minute

// laneMemory is how long an idle lane is remembered.
const laneMemory = 15 * time.Minute

// lanes is what a Runner knows of the lanes that it works in: how many attempts each may have at once, and whether
// mail waits for its destination. The zero value is ready once max is set.
type lanes struct {
	max int

	mu    sync.Mutex
	known map[string]*laneState // guarded by mu
	sweep int                   // guarded by mu: how many may be known before idle ones are forgotten
}

type laneState struct {
	active  int       // attempts under way
	limit   int       // attempts at once
	failing bool      // mail may wait for the destination
	woken   time.Time // when the lane was last woken
	used    time.Time
}

// room is LeaseRequest.Room.
func (ls *lanes) room(lane string, leased int) int {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if s := ls.known[lane]; s != nil {
		return s.limit - leased
	}
	return min(startConcurrency, ls.max) - leased
}

func (ls *lanes) begin(lane string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	s := ls.known[lane]
	if s == nil {
		ls.forget()
		s = &laneState{limit: min(startConcurrency, ls.max), failing: true} // what was before is not known
		ls.known[lane] = s
	}
	s.active++
	s.used = time.Now()
}

func (ls *lanes) end(lane string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	s := ls.known[lane]
	s.active--
	s.used = time.Now()
}

// succeeded lets a lane have one attempt more, and reports whether what waits for its destination is to be woken.
func (ls *lanes) succeeded(lane string) (wake bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	s := ls.known[lane]
	s.limit = min(s.limit+1, ls.max)
	now := time.Now()
	if !s.failing || (!s.woken.IsZero() && now.Sub(s.woken) < wakePause) {
		return false
	}
	s.failing, s.woken = false, now
	return true
}

// failed notes trouble with the destination of a lane. One that cannot be reached is probed by one attempt at a time.
func (ls *lanes) failed(lane string, unreachable bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	s := ls.known[lane]
	s.failing = true
	if s.limit = max(s.limit/2, 1); unreachable {
		s.limit = 1
	}
}

// forget drops lanes that were idle for a while, with mu held, whenever there are twice as many as after the last time.
func (ls *lanes) forget() {
	if ls.known == nil {
		ls.known, ls.sweep = map[string]*laneState{}, 1024
	}
	if len(ls.known) < ls.sweep {
		return
	}
	now := time.Now()
	for lane, s := range ls.known {
		if s.active == 0 && now.Sub(s.used) > laneMemory {
			delete(ls.known, lane)
		}
	}
	ls.sweep = max(2*len(ls.known), 1024)
}
