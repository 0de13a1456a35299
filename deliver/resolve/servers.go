package resolve

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

const dnsPort = "53"

// servers returns the servers to ask, in order, those that rest last.
func (r *Resolver) servers() []string {
	servers := r.Servers
	if len(servers) == 0 {
		file := r.ConfigFile
		if file == "" {
			file = defaultConfigFile
		}
		servers = r.system.read(file)
	}
	ordered := make([]string, len(servers))
	for i, server := range servers {
		ordered[i] = withPort(server)
	}
	return r.manners.restingLast(ordered)
}

// withPort adds the port of the DNS to a server that is named without.
func withPort(server string) string {
	if _, _, err := net.SplitHostPort(server); err == nil {
		return server
	}
	return net.JoinHostPort(strings.Trim(server, "[]"), dnsPort)
}

func isLoopback(server string) bool {
	host, _, err := net.SplitHostPort(server)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// manners remembers how each server behaves.
type manners struct {
	mu sync.Mutex
	of map[string]manner // guarded by mu
}

// A manner is what is known of one server. All of it is forgotten after a while, since servers are repaired and replaced.
type manner struct {
	// rest is until when it is asked last, because it did not answer. It is not given up, so that a machine whose network was away for
	// a moment recovers at once, and one dead server does not slow down every lookup.
	rest time.Time
	// bare is until when it is asked without EDNS, which it does not understand.
	bare time.Time
	// lower is until when it is asked in lower case, since it does not repeat the case of a question.
	lower time.Time
}

func (s *manners) get(server string) manner {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of[server]
}

// learn changes what is known of a server.
func (s *manners) learn(server string, change func(m *manner, now time.Time)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = make(map[string]manner)
	}
	m := s.of[server]
	change(&m, time.Now())
	s.of[server] = m
}

// silent lets a server rest, and reports whether it did not before.
func (s *manners) silent(server string) (fresh bool) {
	s.learn(server, func(m *manner, now time.Time) {
		fresh = !m.rest.After(now)
		m.rest = now.Add(serverRest)
	})
	return fresh
}

// answered ends the rest of a server.
func (s *manners) answered(server string) {
	if !s.get(server).rest.IsZero() {
		s.learn(server, func(m *manner, _ time.Time) { m.rest = time.Time{} })
	}
}

func (s *manners) withoutEDNS(server string) {
	s.learn(server, func(m *manner, now time.Time) { m.bare = now.Add(mannerMemory) })
}

func (s *manners) withoutCase(server string) {
	s.learn(server, func(m *manner, now time.Time) { m.lower = now.Add(mannerMemory) })
}

// restingLast moves servers that rest to the end, in place.
func (s *manners) restingLast(servers []string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	slices.SortStableFunc(servers, func(a, b string) int {
		return resting(s.of[a].rest, now) - resting(s.of[b].rest, now)
	})
	return servers
}

func resting(until, now time.Time) int {
	if until.After(now) {
		return 1
	}
	return 0
}

// systemServers are the servers of a resolv.conf(5) file, read again when it changes.
type systemServers struct {
	latest atomic.Pointer[configuration]
}

type configuration struct {
	checked time.Time
	changed time.Time // as the file says
	servers []string
}

// read returns the servers of a file. Callers that find it due at the same time each read it, which costs less than making them wait.
func (s *systemServers) read(file string) []string {
	now := time.Now()
	known := s.latest.Load()
	if known != nil && now.Sub(known.checked).Abs() < configInterval {
		return known.servers
	}
	next := &configuration{checked: now}
	if info, err := os.Stat(file); err == nil {
		next.changed = info.ModTime()
	}
	if known != nil && next.changed.Equal(known.changed) {
		next.servers = known.servers
	} else {
		next.servers = readServers(file)
	}
	s.latest.Store(next)
	return next.servers
}

// readServers reads the nameserver lines of a file. Without any the server is this machine, as resolv.conf(5) says.
func readServers(file string) []string {
	config, err := dns.ClientConfigFromFile(file)
	if err != nil || len(config.Servers) == 0 {
		return []string{net.JoinHostPort("127.0.0.1", dnsPort), net.JoinHostPort("::1", dnsPort)}
	}
	return config.Servers[:min(len(config.Servers), maxServers)]
}
