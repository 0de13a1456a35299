package shape

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Shaper says how many attempts may be made at each site, and learns from what becomes of them. Its fields must not change once it
// is in use; the zero value works. It is safe for concurrent use, and makes no goroutines and no calls but to the Logger.
type Shaper struct {
	Rules  *Rules       // nil is the embedded rules
	Logger *slog.Logger // is told at level debug of each change; nil is no log

	// Connections and SmarthostConnections are what a site gets at once that has no rule of its own, and a smarthost; 0 is as the
	// rules "default" and "smarthost" say.
	Connections          int
	SmarthostConnections int

	mu    sync.Mutex
	sites map[string]*site // guarded by mu
	sweep int              // guarded by mu: how many may be known before idle ones are forgotten
}

// How many sites are known, and how long idle ones are. A site costs some 400 octets.
const (
	maxSites   = 100_000
	siteMemory = 15 * time.Minute
	downMemory = 6 * time.Hour // of one that was down last
)

// A Verdict says whether an attempt may begin.
type Verdict uint8

// The verdicts.
const (
	Go    Verdict = iota // it may, and End must follow
	Probe                // it may, and is to find out whether a site is back that was down; End must follow
	Full                 // the site has as much as it gets now
	Down                 // the site is down, and not to be asked now
)

var verdictNames = [...]string{"go", "probe", "full", "down"}

// String is the name in lower case.
func (v Verdict) String() string { return verdictNames[v] }

// News is what an attempt says about its site.
type News uint8

// The news. Of several that one attempt brings, for several recipients, the last in this order counts.
const (
	Nothing     News = iota // it was not made, or ended for a reason of its own
	Unreachable             // no host answered
	Answered                // a host answered, and what it said is about the recipients or the message
	Refused                 // a host takes no mail now, or none of ours
	Took                    // a host took mail
	SlowDown                // a host asks for less at once, or in a time
)

// A Result is what became of an attempt.
type Result struct {
	News  News
	Began time.Time     // the attempt
	Words string        // why: what the host said, or what failed; shown to people
	Wait  time.Duration // of an attempt that reached nobody: the site is asked again after this at the latest; 0 is no such time
}

// A Room is how much may begin at a site.
type Room struct {
	N      int       // attempts
	Again  time.Time // when to ask again where there is none; the zero time is when an attempt ends
	Down   bool      // the site is down: at most one may ask whether it is back
	Proven bool      // the site has taken mail, and was not down since
}

// Ask gives how many attempts may begin at a site, where leased are under way or about to begin.
func (sh *Shaper) Ask(name string, leased int) Room {
	now := time.Now()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s := sh.sites[name]; s != nil {
		return s.room(now, leased)
	}
	return Room{N: max(min(startConnections, sh.limits(name).connections())-leased, 0)}
}

func (l Limits) connections() int {
	if l.Connections <= 0 {
		return unlimited
	}
	return l.Connections
}

// Begin lets an attempt begin at a site, or says why not and when to come again; the zero time is when another attempt ends.
func (sh *Shaper) Begin(name string) (v Verdict, again time.Time) {
	now := time.Now()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s := sh.sites[name]
	if s == nil {
		s = newSite(sh.limits(name))
		sh.add(name, s, now)
	}
	return s.begin(now)
}

// End takes what became of an attempt that had begun.
func (sh *Shaper) End(name string, r Result) {
	now := time.Now()
	r.Words = oneLine(r.Words)
	sh.mu.Lock()
	s := sh.sites[name]
	if s == nil || s.active == 0 {
		sh.mu.Unlock()
		return
	}
	before := s.limit
	if !s.end(now, &r) {
		sh.mu.Unlock()
		return
	}
	state := *s
	sh.mu.Unlock()
	sh.tell(name, &state, before, &r)
}

// Again makes the next attempt ask, of all sites that are down: something has changed on our side.
func (sh *Shaper) Again() {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for _, s := range sh.sites {
		s.until, s.asked = time.Time{}, time.Time{}
	}
}

// limits gives those of a site.
func (sh *Shaper) limits(name string) Limits {
	l := sh.Rules.Limits(name)
	n := sh.Connections
	if _, isSmarthost := hostOf(name); isSmarthost {
		n = sh.SmarthostConnections
	}
	if n > 0 && !sh.Rules.named(name) {
		l.Connections = n
	}
	return l
}

// named reports whether a rule for the site itself says how many connections it gets.
func (r *Rules) named(site string) bool {
	r = r.orEmbedded()
	name, _, _ := strings.Cut(site, from)
	if host, isSmarthost := hostOf(name); isSmarthost {
		name = r.provider(host)
	}
	return name != "" && r.limits[name].Connections != 0
}

// add makes a site known, with mu held, and forgets idle ones whenever there are twice as many as after the last time.
func (sh *Shaper) add(name string, s *site, now time.Time) {
	if sh.sites == nil {
		sh.sites, sh.sweep = map[string]*site{}, 1024
	}
	if len(sh.sites) >= sh.sweep {
		maps.DeleteFunc(sh.sites, func(_ string, s *site) bool {
			return s.idle(now, siteMemory) && (!s.down || s.idle(now, downMemory))
		})
		sh.makeRoom()
		sh.sweep = min(max(2*len(sh.sites), 1024), maxSites)
	}
	sh.sites[name] = s
}

// makeRoom forgets any sites without attempts where there are far too many.
func (sh *Shaper) makeRoom() {
	for name, s := range sh.sites {
		if len(sh.sites) < maxSites*3/4 {
			return
		}
		if s.active == 0 {
			delete(sh.sites, name)
		}
	}
}

// A State is what is known of one site from one source address.
type State struct {
	Site   string `json:"site"`
	Source string `json:"source,omitempty"` // "" is the system's choice
	Limits Limits `json:"limits"`           // by its rule

	Active int     `json:"active"`         // attempts under way
	Limit  int     `json:"limit"`          // attempts at once that it gets now
	Pace   float64 `json:"pace,omitempty"` // seconds between two attempts, because it asked for less
	Left   int     `json:"left"`           // messages that may go now by their rate; -1 is no limit

	Down  bool      `json:"down,omitempty"`
	Until time.Time `json:"until,omitzero"` // when one attempt asks whether it is back
	Since time.Time `json:"since,omitzero"` // of the last change for the worse, or of its being back
	Why   string    `json:"why,omitempty"`  // the words that came with it
}

// Sites shows what is known, in order of the sites' names. Sites without attempts are forgotten after a while.
func (sh *Shaper) Sites() []State {
	now := time.Now()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	states := make([]State, 0, len(sh.sites))
	for name, s := range sh.sites {
		states = append(states, s.state(name, now))
	}
	slices.SortFunc(states, func(a, b State) int {
		return strings.Compare(a.Site+" "+a.Source, b.Site+" "+b.Source)
	})
	return states
}

func (s *site) state(name string, now time.Time) State {
	st := State{
		Limits: s.limits, Active: s.active, Limit: s.limit, Pace: s.pace.Seconds(), Left: -1, Down: s.down, Since: s.since, Why: s.why,
	}
	st.Site, st.Source, _ = strings.Cut(name, from)
	if n, _ := s.rate(now); n < unlimited {
		st.Left = n
	}
	if s.down {
		st.Until = later(s.until, s.asked)
	}
	return st
}

// tell logs a change.
func (sh *Shaper) tell(name string, s *site, before int, r *Result) {
	if sh.Logger == nil || !sh.Logger.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	attrs := []slog.Attr{slog.String("site", name), slog.Int("limit", s.limit), slog.Int("before", before)}
	switch {
	case s.down:
		attrs = append(attrs, slog.Bool("down", true), slog.Time("until", s.until), slog.String("why", r.Words))
	case s.limit < before:
		attrs = append(attrs, slog.Duration("pace", s.pace), slog.String("why", r.Words))
	}
	sh.Logger.LogAttrs(context.Background(), slog.LevelDebug, "site", attrs...)
}

// maxWords is how many octets of a reason are kept.
const maxWords = 300

// oneLine makes words fit to be shown: bounded, and without control characters.
func oneLine(s string) string {
	if len(s) > maxWords {
		s = strings.ToValidUTF8(s[:maxWords], "") + "…"
	}
	if strings.IndexFunc(s, isControl) < 0 {
		return s
	}
	return strings.Map(func(c rune) rune {
		if isControl(c) {
			return ' '
		}
		return c
	}, s)
}

func isControl(c rune) bool { return c < ' ' || c >= 0x7f && c < 0xa0 || c == 0x2028 || c == 0x2029 }
