package memory

import (
	"time"

	"github.com/sortie-mail/sortie/queue"
)

// A site is a group of lanes that share a limit of the caller.
type site struct {
	name   string
	lanes  int // that belong to it
	leased int // entries of them
	full   map[*lane]struct{}
}

// enter makes a lane belong to a site; "" leaves it where it is.
func (x *Index) enter(l *lane, name string) {
	if name == "" || (l.site != nil && l.site.name == name) {
		return
	}
	x.exit(l)
	s := x.sites[name]
	if s == nil {
		s = &site{name: name, full: map[*lane]struct{}{}}
		x.sites[name] = s
	}
	l.site = s
	s.lanes++
	s.leased += l.leased
}

// exit takes a lane out of its site, and forgets a site without lanes.
func (x *Index) exit(l *lane) {
	s := l.site
	if s == nil {
		return
	}
	l.site = nil
	s.lanes--
	s.leased -= l.leased
	delete(s.full, l)
	if s.lanes == 0 {
		delete(x.sites, s.name)
	}
}

// ask is the question that the caller's room answers.
func (l *lane) ask() queue.Ask {
	a := queue.Ask{Lane: l.name, Leased: l.leased}
	if l.site != nil {
		a.Site, a.SiteLeased = l.site.name, l.site.leased
	}
	return a
}

// setAside puts a lane without room where it waits for some.
func (x *Index) setAside(l *lane, g queue.Grant, now time.Time) {
	x.enter(l, g.Site)
	leased := l.leased
	if g.Site != "" {
		leased = l.site.leased
	}
	if g.Again.IsZero() && leased == 0 { // nobody will settle anything: ask again soon
		g.Again = now.Add(time.Second)
	}
	if !g.Again.IsZero() {
		l.paused = g.Again
		x.place(l)
		return
	}
	l.place = isFull
	if g.Site != "" {
		l.site.full[l] = struct{}{}
	}
}

// settledIn gives the lanes of a site their turns that were full, because a lease of it ended.
func (x *Index) settledIn(s *site) {
	if len(s.full) == 0 {
		return
	}
	for l := range s.full {
		l.place = nowhere
		x.place(l)
	}
	clear(s.full)
	x.signal()
}
