package resolve_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/resolve"
)

func TestQuestionsMixTheCase(t *testing.T) { // std: R10
	const name = "a-name-of-many-letters.example"
	spellings := make(map[string]bool)
	r := alone(func(network string, query *dns.Msg) []byte {
		spelling := query.Question[0].Name
		spellings[spelling] = true
		return zone(t, spelling+" 300 IN MX 10 mx.example.")(network, query)
	})
	r.CacheSize = -1
	for range 20 {
		answer, err := r.Lookup(t.Context(), name, dns.TypeMX)
		require.NoError(t, err)
		assert.Equal(t, name, answer.Name)
		assert.Equal(t, name+".", answer.Records[0].Header().Name, "no caller sees the mixed case")
	}
	assert.Greater(t, len(spellings), 15)
	for spelling := range spellings {
		assert.True(t, strings.EqualFold(name+".", spelling))
	}
}

// Nobody can forge what a server on the same machine says, so its questions are plain.
func TestQuestionsToLoopbackAreInLowerCase(t *testing.T) {
	for _, server := range []string{"127.0.0.1", "[::1]:5353"} {
		l := &link{udp: zone(t, long+". 300 IN MX 10 mx.example.")}
		r := l.resolver()
		r.Servers = []string{server}
		_, err := r.LookupMX(t.Context(), long)
		require.NoError(t, err)
		assert.Equal(t, []string{"udp lower"}, l.take())
	}
}

// far asks a server on this machine as if it were elsewhere.
func far(server string) *resolve.Resolver {
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server)
	}
	return &resolve.Resolver{Servers: []string{"192.0.2.53"}, Dial: dial}
}

// fold answers as a server does that does not repeat the case of a question.
func fold(next answerer) answerer {
	return func(network string, query *dns.Msg) []byte {
		query = query.Copy()
		query.Question[0].Name = asked(query)
		return next(network, query)
	}
}

// A link is how one server is reached: datagrams and streams, each with an answerer, and what was asked over which.
type link struct {
	udp, tcp answerer
	mu       sync.Mutex
	seen     []string // guarded by mu
}

func (l *link) see(network string, query *dns.Msg) {
	spelling := "mixed"
	if query.Question[0].Name == asked(query) {
		spelling = "lower"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, network+" "+spelling)
}

// take returns what was asked since it was called last.
func (l *link) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := l.seen
	l.seen = nil
	return seen
}

func (l *link) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if network == "udp" {
		return newPackets(func(query *dns.Msg) [][]byte {
			l.see(network, query)
			if raw := l.udp(network, query); raw != nil {
				return [][]byte{raw}
			}
			return nil
		}), nil
	}
	if l.tcp == nil {
		return memory{}.dial(ctx, network, addr)
	}
	return memory{addr: func(network string, query *dns.Msg) []byte {
		l.see(network, query)
		return l.tcp(network, query)
	}}.dial(ctx, network, addr)
}

func (l *link) resolver() *resolve.Resolver {
	return &resolve.Resolver{Servers: []string{"192.0.2.53:53"}, Dial: l.dial, CacheSize: -1, Attempts: 1}
}

// long is a name whose letters are all in lower case by chance too seldom to be seen.
const long = "a-name-of-very-many-letters-that-no-coin-leaves-alone.example"

// The case of an answer that comes as a datagram is part of the proof that it is one.
func TestCaseOfAnswers(t *testing.T) {
	good, evil := zone(t, long+". 300 IN MX 10 mx.example."), zone(t, long+". 300 IN MX 10 evil.example.")
	onlyMixed := func(network string, query *dns.Msg) []byte { // someone forges what he need not guess
		if query.Question[0].Name != asked(query) {
			return fold(evil)(network, query)
		}
		return nil
	}
	tests := []struct {
		name        string
		udp, tcp    answerer
		first, next []string
		fails       string
	}{
		{"repeated", good, nil, []string{"udp mixed"}, []string{"udp mixed"}, ""},
		{"forged", fold(evil), good, []string{"udp mixed", "tcp mixed"}, []string{"udp mixed", "tcp mixed"}, ""},
		{"forged, and the server fails", fold(evil), rcode(t, dns.RcodeServerFailure), []string{"udp mixed", "tcp mixed"}, nil, "SERVFAIL"},
		{"forged, and nothing else answers", onlyMixed, nil, []string{"udp mixed", "udp lower"}, nil, "no answer within 3s over udp"},
		{"not repeated", fold(good), fold(good), []string{"udp mixed", "tcp mixed"}, []string{"udp lower"}, ""},
		{"not repeated, no TCP", fold(good), nil, []string{"udp mixed", "udp lower"}, []string{"udp lower"}, ""},
		{"not repeated, TCP refused", fold(good), fold(rcode(t, dns.RcodeRefused)), []string{"udp mixed", "tcp mixed", "udp lower"}, []string{"udp lower"}, ""},
		{"not repeated, TCP silent", fold(good), silence, []string{"udp mixed", "tcp mixed", "udp lower"}, []string{"udp lower"}, ""},
		{"shouted", shout(good), nil, []string{"udp mixed", "udp lower"}, []string{"udp lower"}, ""},
		{"errors may be in any case", fold(rcode(t, dns.RcodeServerFailure)), good, []string{"udp mixed"}, nil, "SERVFAIL"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &link{udp: tt.udp, tcp: tt.tcp}
				r := l.resolver()
				got, err := r.LookupMX(t.Context(), long)
				assert.Equal(t, tt.first, l.take())
				if tt.next == nil {
					requireTemporary(t, err)
					assert.Contains(t, err.Error(), tt.fails)
					return
				}
				for _, want := range [][]string{tt.next, tt.first} {
					require.NoError(t, err)
					require.Equal(t, []resolve.MX{{Host: "mx.example", Preference: 10}}, got)
					got, err = r.LookupMX(t.Context(), long)
					assert.Equal(t, want, l.take())
					time.Sleep(time.Hour)
				}
			})
		})
	}
}

// shout answers in capitals.
func shout(next answerer) answerer {
	return func(network string, query *dns.Msg) []byte {
		query = query.Copy()
		query.Question[0].Name = strings.ToUpper(query.Question[0].Name)
		return next(network, query)
	}
}

// The same over real sockets.
func TestServerThatFoldsCase(t *testing.T) {
	r := far(listen(t, fold(zone(t, exampleZone...))))
	for _, name := range []string{"two.example", "alias.example", "two.example"} {
		got, err := r.LookupMX(t.Context(), name)
		require.NoError(t, err)
		assert.Len(t, got, 3)
	}
}

// Each question comes from a port of its own, so that whoever forges an answer has to guess it (RFC 5452, section 9.2).
func TestSourcePortsDiffer(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	var mu sync.Mutex
	ports := make(map[string]bool)
	serve(t, &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) {
		mu.Lock()
		ports[w.RemoteAddr().String()] = true
		mu.Unlock()
		_ = w.WriteMsg(new(dns.Msg).SetRcode(query, dns.RcodeNameError))
	})})
	r := &resolve.Resolver{Servers: []string{conn.LocalAddr().String()}}
	for i := range 50 {
		_, err := r.LookupMX(t.Context(), fmt.Sprintf("n%d.example", i))
		require.Error(t, err)
	}
	mu.Lock()
	defer mu.Unlock()
	assert.Greater(t, len(ports), 40)
}

// edns answers queries with EDNS by one answerer and those without by another.
func edns(with, without answerer) answerer {
	return func(network string, query *dns.Msg) []byte {
		if query.IsEdns0() != nil {
			return with(network, query)
		}
		return without(network, query)
	}
}

func TestServersWithoutEDNS(t *testing.T) {
	good, formErr := zone(t, exampleZone...), rcode(t, dns.RcodeFormatError)
	tests := []struct {
		name        string
		with        answerer
		first, next int64 // queries
		after       time.Duration
	}{
		{"FORMERR", formErr, 2, 1, 0},
		{"NOTIMP", rcode(t, dns.RcodeNotImplemented), 2, 1, 0},
		{"FORMERR, the header alone", edit(formErr, func(_ string, raw []byte) []byte {
			return append(raw[:4:4], 0, 0, 0, 0, 0, 0, 0, 0)
		}), 2, 1, 0},
		{"silence", silence, 2, 2, 3 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				count := &counter{next: edns(tt.with, good)}
				r := alone(count.answer)
				r.CacheSize = -1
				for _, want := range []int64{tt.first, tt.next, tt.first} {
					began := time.Now()
					got, err := r.LookupMX(t.Context(), "null.example")
					require.NoError(t, err)
					assert.Equal(t, []resolve.MX{{}}, got)
					assert.Equal(t, want, count.n.Swap(0))
					assert.Equal(t, tt.after, time.Since(began))
					if want == tt.next {
						time.Sleep(time.Hour)
					}
				}
			})
		})
	}
}

// A server that stumbles over a question, whatever its form, is asked the next one with EDNS.
func TestFormErrForOneNameIsNotRemembered(t *testing.T) {
	good, formErr := zone(t, exampleZone...), rcode(t, dns.RcodeFormatError)
	count := &counter{next: func(network string, query *dns.Msg) []byte {
		if asked(query) == "odd.example." {
			return formErr(network, query)
		}
		return edns(good, silence)(network, query)
	}}
	r := alone(count.answer)
	_, err := r.LookupMX(t.Context(), "odd.example")
	requireTemporary(t, err)
	_, err = r.LookupMX(t.Context(), "two.example")
	require.NoError(t, err)
	assert.EqualValues(t, 3, count.n.Load())
}
