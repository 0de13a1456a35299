package queue

import (
	"sync"
	"time"
)

// startConcurrency is how many attempts at once a lane begins with. A destination that hangs costs no more than these.
const startConcurrency = 4

// Bounds on how long a lane is not woken again: where a provider takes some mail and refuses other, each success must not
// make all of what is refused be tried again. It is longer each time that a wake did not help.
const (
	wakePause    = 5 * time.Minute
	maxWakePause = 4 * time.Hour
)

// laneMemory is how long an idle lane is remembered, where no mail waits for its destination: else it is as long as an outage.
const laneMemory = 15 * time.Minute

// maxFailing is how many routes of one lane are known to be in trouble.
const maxFailing = 100

// lanes is what a Runner knows of the lanes that it works in: how many attempts each may have at once, and whether
// mail waits for its destination. The zero value is ready once max is set.
type lanes struct {
	max int

	mu    sync.Mutex
	known map[string]*laneState // guarded by mu
	sweep int                   // guarded by mu: how many may be known before idle ones are forgotten
}

type laneState struct {
	active  int             // attempts under way
	proven  bool            // one of them had success
	limit   int             // attempts at once
	unknown bool            // mail may wait that any success is good news for: since before the lane was known, or for its route
	hung    bool            // the newest attempt that said something of it ended without a word of a host
	failing map[string]bool // the ways by which mail could not go, that waits for the destination therefore
	woken   time.Time       // when the lane was last woken
	pause   time.Duration   // how long it is not woken again
	used    time.Time

	site   string    // where its mail went first, the last time; "" where that is not known
	mixed  time.Time // until when it is remembered that its mail goes to several sites
	direct string    // the site of its own hosts
	looked time.Time // when that was looked up
}

// news is what an attempt says about its lane.
type news struct {
	good   []*group // took mail
	bad    []*group // left mail waiting for the destination
	nobody bool     // no host of any of them could be reached
	silent bool     // no host said anything to any of them
	lost   bool     // mail waits because no route could be found
}

// A standing is how a lane stands.
type standing struct {
	limit  int  // attempts at once
	proven bool // its destination has taken mail
	hung   bool // its destination said nothing the last time
}

func (ls *lanes) standing(lane string) standing {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if s := ls.known[lane]; s != nil {
		return standing{s.limit, s.proven, s.hung}
	}
	return standing{limit: min(startConcurrency, ls.max)}
}

// begin notes that an attempt begins in a lane, and tells whether the lane has proven anything.
func (ls *lanes) begin(lane string) (proven bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	s := ls.known[lane]
	if s == nil {
		ls.forget()
		s = &laneState{limit: min(startConcurrency, ls.max), unknown: true}
		ls.known[lane] = s
	}
	s.active++
	s.used = time.Now()
	return s.proven
}

// site is where the mail of a lane goes first, as far as it is known and all of it goes there, and how many of its entries are leased.
func (ls *lanes) site(ask *Ask) (site string, leased int) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	s := ls.known[ask.Lane]
	switch {
	case s == nil || s.site == "" || s.site == ask.Site:
		site, leased = ask.Site, ask.SiteLeased
	default:
		site, leased = s.site, ask.Leased
	}
	if s != nil && time.Now().Before(s.mixed) {
		return "", 0
	}
	return site, leased
}

// goes notes where mail of a lane goes first, and reports whether all of it goes there, as far as is known. "" is mail that has other
// ways too: what is said about one site is not said about it.
func (ls *lanes) goes(lane, site string) (alone bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	s := ls.known[lane]
	if s == nil {
		return false
	}
	now := time.Now()
	if site == "" || (s.site != "" && s.site != site) {
		s.mixed = now.Add(siteMemory)
	}
	if s.site != site {
		s.site = site
	}
	return !now.Before(s.mixed)
}

// directSite is the site of a lane's own hosts; "" where it is to be looked up.
func (ls *lanes) directSite(lane string) string {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if s := ls.known[lane]; s != nil && time.Since(s.looked) < siteMemory {
		return s.direct
	}
	return ""
}

func (ls *lanes) setDirectSite(lane, site string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if s := ls.known[lane]; s != nil {
		s.direct, s.looked = site, time.Now()
	}
}

func (ls *lanes) end(lane string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	s := ls.known[lane]
	s.active--
	s.used = time.Now()
}

// learn takes the news of an attempt, and reports whether what waits for the lane's destination is to be woken. A success
// earns the lane one attempt more; trouble halves them; a destination that cannot be reached is probed by one at a time.
func (ls *lanes) learn(lane string, n *news) (wake bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	s := ls.known[lane]
	for _, g := range n.bad {
		s.fail(g.way)
	}
	s.unknown = s.unknown || n.lost
	success, trouble := len(n.good) > 0, len(n.bad) > 0
	s.limit = nextLimit(s.limit, ls.max, success, trouble, n.nobody)
	if trouble && n.nobody {
		s.pause = min(s.pause, wakePause) // when it is back, that is news
	}
	s.proven = success || (s.proven && !(trouble && n.nobody))
	s.hung = !success && ((trouble && n.silent) || (s.hung && !trouble))
	return success && s.wake(n.good, time.Now())
}

// nextLimit is how many attempts at once there may be after one that had success or met with trouble, where nobody answered
// for one. Whatever it was is more than trouble.
func nextLimit(limit, most int, success, trouble, nobody bool) int {
	switch {
	case success:
		return min(limit+1, most)
	case trouble && nobody:
		return 1
	case trouble:
		return max(limit/2, 1)
	}
	return limit
}

func (s *laneState) fail(way string) {
	if s.failing == nil {
		s.failing = map[string]bool{}
	}
	if len(s.failing) < maxFailing {
		s.failing[way] = true
	}
}

// wake reports whether mail that went by some ways now says that what waits may go too: one of the ways was in trouble, and
// the last wake is long enough ago.
func (s *laneState) wake(good []*group, now time.Time) bool {
	back := s.unknown
	for _, g := range good {
		back = back || s.failing[g.way]
	}
	switch ago := now.Sub(s.woken); {
	case !back || (!s.woken.IsZero() && ago < s.pause):
		return false
	case s.woken.IsZero() || ago >= 4*s.pause:
		s.pause = wakePause
	default:
		s.pause = min(2*s.pause, maxWakePause)
	}
	s.unknown, s.failing, s.woken = false, nil, now
	return true
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
		idle := now.Sub(s.used)
		if s.active == 0 && (idle > outageMemory || (idle > laneMemory && len(s.failing) == 0)) {
			delete(ls.known, lane)
		}
	}
	ls.sweep = max(2*len(ls.known), 1024)
}
