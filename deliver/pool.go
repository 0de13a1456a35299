package deliver

import (
	"sync"
	"time"
)

// A pool keeps idle sessions for a while, so that the next message for the same host finds one. It owns every session
// that is idle or saying QUIT.
type pool struct {
	max            int
	crowded        func() bool // attempts wait for a connection to end
	idleTime, quit time.Duration

	census census

	mu      sync.Mutex       // guards the fields below
	idle    map[key]*session // the newest, with the others below
	count   int              // of idle
	leaving int              // sessions that are saying QUIT, and connections that are given up
	left    sync.Cond        // leaving has changed
}

func (p *pool) init(set *settings) {
	p.max, p.idleTime, p.quit = set.limits.Idle, set.limits.IdleTime, set.timeouts.Quit
	p.idle = map[key]*session{}
	p.left.L = &p.mu
}

// take gives the newest idle session for a key, nil where there is none.
func (p *pool) take(k key) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.idle[k]
	if s == nil {
		return nil
	}
	p.remove(s)
	s.timer.Stop()
	s.reused, s.warm = true, time.Since(s.rested) < warmTime
	return s
}

// has reports whether an idle session is kept for a key.
func (p *pool) has(k key) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.idle[k] != nil
}

// remove takes a session out, with mu held. It reports false where the session is not there.
func (p *pool) remove(s *session) bool {
	top := p.idle[s.key]
	if top == s {
		if s.below == nil {
			delete(p.idle, s.key)
		} else {
			p.idle[s.key] = s.below
		}
	} else {
		for top != nil && top.below != s {
			top = top.below
		}
		if top == nil {
			return false
		}
		top.below = s.below
	}
	s.below = nil
	p.count--
	return true
}

// warmTime is how long an idle session is taken to be alive. No host gives a client less before it hangs up, and no box on
// the way forgets a connection so fast.
const warmTime = time.Second

// put keeps a session, or ends it where there are too many.
func (p *pool) put(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count >= p.max || p.crowded() {
		p.leave(s)
		return
	}
	s.below, p.idle[s.key] = p.idle[s.key], s
	p.count++
	s.rested = time.Now()
	if s.timer == nil {
		s.timer = time.AfterFunc(p.idleTime, func() { p.expire(s) })
	} else {
		s.timer.Reset(p.idleTime)
	}
}

// expire ends a session that was idle for too long. One that was taken out meanwhile is left alone.
func (p *pool) expire(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.remove(s) {
		p.leave(s)
	}
}

// dismiss ends a session that no attempt has.
func (p *pool) dismiss(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leave(s)
}

// leave lets a session say QUIT, with mu held.
func (p *pool) leave(s *session) { p.run(func() { s.quit(p.quit) }) }

// aside runs what nobody waits for but close.
func (p *pool) aside(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.run(f)
}

// run is aside with mu held.
func (p *pool) run(f func()) {
	p.leaving++
	go func() {
		f()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.leaving--
		p.left.Broadcast()
	}()
}

// close ends all idle sessions together, and waits until all that are saying QUIT, and connections that were given up, are
// gone.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.idle {
		for ; s != nil; s = s.below {
			s.timer.Stop()
			p.leave(s)
		}
	}
	clear(p.idle)
	p.count = 0
	for p.leaving > 0 {
		p.left.Wait()
	}
}

// release puts a session into the pool, or ends it.
func (d *Deliverer) release(s *session) {
	used := d.enough(s) || time.Since(s.born) >= d.set.limits.Age
	if s.broken || used || !s.detach() {
		d.dismiss(s)
		return
	}
	d.pool.put(s)
}

// dismiss ends a session, with QUIT where the host still listens.
func (d *Deliverer) dismiss(s *session) {
	if !s.detach() || s.broken {
		s.close()
		return
	}
	d.pool.dismiss(s)
}
