package deliver

import (
	"sync"
	"time"
)

// A pool keeps idle sessions for a while, so that the next message for the same host finds one.
type pool struct {
	max      int
	idleTime time.Duration

	mu    sync.Mutex
	idle  map[key][]*session // guarded by mu; the newest is last
	count int                // guarded by mu
	quits sync.WaitGroup     // sessions that are saying QUIT
}

// take gives the newest idle session for a key, nil where there is none.
func (p *pool) take(k key) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		list := p.idle[k]
		if len(list) == 0 {
			return nil
		}
		s := list[len(list)-1]
		if p.drop(k, s) {
			s.reused = true
			return s
		}
	}
}

// drop takes a session out. It reports false where its time has ended, and its timer closes it.
func (p *pool) drop(k key, s *session) bool {
	list := p.idle[k]
	for i := range list {
		if list[i] == s {
			list[i] = list[len(list)-1]
			list[len(list)-1] = nil
			p.idle[k] = list[:len(list)-1]
			p.count--
			break
		}
	}
	if len(p.idle[k]) == 0 {
		delete(p.idle, k)
	}
	return s.timer.Stop()
}

// put keeps a session, or ends it where there are too many.
func (p *pool) put(k key, s *session, quit time.Duration) {
	p.mu.Lock()
	if p.count >= p.max {
		p.mu.Unlock()
		s.quit(quit)
		return
	}
	if p.idle == nil {
		p.idle = map[key][]*session{}
	}
	s.timer = time.AfterFunc(p.idleTime, func() { p.expire(k, s, quit) })
	p.idle[k] = append(p.idle[k], s)
	p.count++
	p.mu.Unlock()
}

func (p *pool) expire(k key, s *session, quit time.Duration) {
	p.mu.Lock()
	p.drop(k, s)
	p.quits.Add(1)
	p.mu.Unlock()
	defer p.quits.Done()
	s.quit(quit)
}

// close ends all idle sessions, at once and together.
func (p *pool) close() {
	p.mu.Lock()
	var all []*session
	for _, list := range p.idle {
		for _, s := range list {
			if s.timer.Stop() {
				all = append(all, s)
			}
		}
	}
	p.idle, p.count = nil, 0
	p.mu.Unlock()
	for _, s := range all {
		p.quits.Go(func() { s.quit(time.Second) })
	}
	p.quits.Wait()
}
