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
	return r.rest.last(ordered)
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

// rest remembers which servers did not answer. They are not given up, only asked last, so that one dead server does not slow down every
// lookup and a machine whose network was away for a moment recovers at once.
type rest struct {
	mu    sync.Mutex
	until map[string]time.Time // guarded by mu
}

// begin lets a server rest, and reports whether it did not before.
func (s *rest) begin(server string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.until == nil {
		s.until = make(map[string]time.Time)
	}
	now := time.Now()
	fresh := now.After(s.until[server])
	s.until[server] = now.Add(serverRest)
	return fresh
}

func (s *rest) end(server string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.until, server)
}

// last moves servers that rest to the end, in place.
func (s *rest) last(servers []string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	slices.SortStableFunc(servers, func(a, b string) int {
		return resting(s.until[a], now) - resting(s.until[b], now)
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
