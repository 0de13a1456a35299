package memory

import (
	"container/heap"
	"slices"
	"time"

	"github.com/sortie-mail/sortie/queue"
)

// A site is a group of lanes that share a limit of the caller. While it is full its lanes stand aside, whose time has come, and
// cost nothing. When it has room again, one of them after the other has its turn, until it is full.
type site struct {
	name   string
	lanes  int // that belong to it
	leased int // entries of them
	full   bool
	again  instant // when it is asked again although nothing was settled; never is at no time
	pos    int     // in the heap of sites with such a time; -1 where it is not there
	front  *lane   // that was refused last, and is the first to ask again
	aside  []slot  // the others, first come, first served; those that do not stand here any more count for nothing
	scout  *lane   // that has its turn now
}

// enter makes a lane belong to a site; "" leaves it where it is.
func (x *Index) enter(l *lane, name string) {
	if name == "" || (l.site != nil && l.site.name == name) {
		return
	}
	aside := l.place == inSite
	x.exit(l)
	s := x.sites[name]
	if s == nil {
		s = &site{name: name, again: never, pos: -1}
		x.sites[name] = s
	}
	l.site = s
	s.lanes++
	s.leased += int(l.leased)
	if aside {
		x.place(l)
	}
}

// exit takes a lane out of its site, and forgets a site without lanes.
func (x *Index) exit(l *lane) {
	s := l.site
	if s == nil {
		return
	}
	l.site = nil
	s.lanes--
	s.leased -= int(l.leased)
	if l.place == inSite {
		l.place = nowhere
	}
	x.scouted(l, s)
	if s.lanes == 0 {
		x.untime(s)
		delete(x.sites, s.name)
	}
}

// ask is the question that the caller's room answers, where it is the turn of e.
func (x *Index) ask(l *lane, e *entry) queue.Ask {
	m := x.messageOf(e)
	a := queue.Ask{
		Lane: l.name, Leased: int(l.leased),
		Accepted: x.clock.time(m.accepted), Timed: m.flags&timed != 0, Attempts: int(e.attempts),
	}
	if l.site != nil {
		a.Site, a.SiteLeased = l.site.name, l.site.leased
	}
	return a
}

// refuse puts a lane without room where it waits for some.
func (x *Index) refuse(l *lane, g queue.Grant, now time.Time) {
	again := never
	if !g.Again.IsZero() {
		again = x.clock.instant(g.Again)
	}
	soon := x.clock.instant(now.Add(time.Second)) // where nobody will settle anything
	if g.Site == "" {
		if again == never && l.leased == 0 {
			again = soon
		}
		if l.again = again; again == never {
			l.place = isFull
		} else {
			x.place(l)
		}
		return
	}
	x.enter(l, g.Site)
	s := l.site
	if again == never && s.leased == 0 {
		again = soon
	}
	s.full, s.again = true, again
	x.untime(s)
	if again != never {
		heap.Push(&x.closed, s)
	}
	if s.front == nil || s.front.place != inSite || s.front.site != s {
		l.place, s.front = inSite, l
		return
	}
	x.stand(l)
}

// stand puts a lane aside whose site is full.
func (x *Index) stand(l *lane) {
	s := l.site
	x.rings.last++
	l.place, l.slot = inSite, x.rings.last
	s.aside = append(s.aside, slot{l, l.slot})
	if len(s.aside) > 2*s.lanes+100 {
		s.aside = slices.DeleteFunc(s.aside, func(t slot) bool { return !s.has(t) })
	}
}

func (s *site) has(t slot) bool {
	return t.lane.place == inSite && t.lane.site == s && t.lane.slot == t.number
}

// pop takes out the next lane that stands aside; nil is none.
func (s *site) pop() *lane {
	if l := s.front; l != nil {
		s.front = nil
		if l.place == inSite && l.site == s {
			return l
		}
	}
	for len(s.aside) > 0 {
		t := s.aside[0]
		s.aside[0] = slot{}
		s.aside = s.aside[1:]
		if s.has(t) {
			return t.lane
		}
	}
	return nil
}

// reopen lets the lanes of a site have their turns again.
func (x *Index) reopen(s *site) {
	if !s.full {
		return
	}
	s.full, s.again = false, never
	x.untime(s)
	x.send(s)
}

func (x *Index) untime(s *site) {
	if s.pos >= 0 {
		heap.Remove(&x.closed, s.pos)
	}
}

// send gives the next lane that stands aside its turn, where none has it.
func (x *Index) send(s *site) {
	if s.scout != nil || s.full {
		return
	}
	if l := s.pop(); l != nil {
		l.place = nowhere
		s.scout = l
		x.rings.add(l, x.tier(l, x.pauses.now))
	}
}

// scouted notes that a lane has had its turn.
func (x *Index) scouted(l *lane, s *site) {
	if s != nil && s.scout == l {
		s.scout = nil
		x.send(s)
	}
}

// settledIn notes that a lease of a lane has ended, which makes room in the lane and its site.
func (x *Index) settledIn(l *lane) {
	if s := l.site; s != nil {
		s.leased--
		if s.full {
			x.reopen(s)
			x.signal()
		}
	}
	if l.place == isFull {
		l.place = nowhere
	} else if l.again == never {
		return
	}
	l.again = never
	x.place(l)
	x.signal()
}

// siteHeap orders sites by the time at which they are asked again.
type siteHeap []*site

func (h siteHeap) Len() int           { return len(h) }
func (h siteHeap) Less(i, j int) bool { return h[i].again < h[j].again }

func (h siteHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}

func (h *siteHeap) Push(x any) {
	s := x.(*site)
	s.pos = len(*h)
	*h = append(*h, s)
}

func (h *siteHeap) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	s.pos = -1
	return s
}
