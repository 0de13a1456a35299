package deliver

import (
	"net/netip"
	"strconv"
	"sync"

	"github.com/sortie-mail/sortie/deliver/shape"
	"github.com/sortie-mail/sortie/route"
)

// A site is whose hosts an attempt goes to, and what they take.
type site struct {
	at     siteKey
	limits shape.Limits
}

// A siteKey tells whose connections count together: those to one site from one source address of ours.
type siteKey struct {
	name   string
	source netip.Addr
}

// siteFor finds the site of a hop's targets.
func (d *Deliverer) siteFor(hop *route.Hop, targets []target) site {
	name := ""
	switch {
	case hop.Kind != route.Smarthost:
		name = d.Sites.Site(names(targets))
	case hop.IsUnix():
		name = shape.Smarthost(hop.User, hop.Host, "")
	default:
		name = shape.Smarthost(hop.User, hop.Host, strconv.Itoa(int(hop.EffectivePort())))
	}
	return site{siteKey{name, hop.Source}, d.Sites.Limits(name)}
}

// recipients is how many go in one transaction, and messages how many on one connection: what the site's rule says, or else Limits.
func (d *Deliverer) recipients(s *site) int {
	return orElse(s.limits.Recipients, d.set.limits.Recipients)
}

func (d *Deliverer) messages(s *site) int { return orElse(s.limits.Messages, d.set.limits.Messages) }

// A census counts the connections to each site, idle ones and those that are being made included. The zero value is ready.
type census struct {
	mu   sync.Mutex
	open map[siteKey]int // guarded by mu
}

// enter counts a connection, and reports whether there are more then than the site takes; most of 0 is no limit.
func (c *census) enter(at siteKey, most int) (tooMany bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = map[siteKey]int{}
	}
	c.open[at]++
	return most > 0 && c.open[at] > most
}

// leave counts one less.
func (c *census) leave(at siteKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[at]--; c.open[at] <= 0 {
		delete(c.open, at)
	}
}

// enterSite counts a connection that is about to be made, and where it would be one too many, waits until an idle one to the same
// site has said QUIT. Where all are in use it is made all the same: how many attempts there are is not the pool's matter.
func (p *pool) enterSite(s *site) {
	if !p.census.enter(s.at, s.limits.Connections) {
		return
	}
	p.mu.Lock()
	idle := p.idleAt(s.at)
	if idle == nil {
		p.mu.Unlock()
		return
	}
	p.leaving++
	p.mu.Unlock()
	idle.quit(p.quit)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaving--
	p.left.Broadcast()
}

// idleAt takes out the session to a site that has been idle for longest, nil where there is none, with mu held.
func (p *pool) idleAt(at siteKey) *session {
	var oldest *session
	for _, top := range p.idle {
		for s := top; s != nil; s = s.below {
			if s.site == at && (oldest == nil || s.rested.Before(oldest.rested)) {
				oldest = s
			}
		}
	}
	if oldest != nil {
		p.remove(oldest)
		oldest.timer.Stop()
	}
	return oldest
}

// shed ends all idle sessions to a site that has asked for less.
func (p *pool) shed(at siteKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := p.idleAt(at); s != nil; s = p.idleAt(at) {
		p.leave(s)
	}
}
