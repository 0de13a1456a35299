package deliver_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
)

// opened is how many connections a server has had.
func opened(s *lab.Server) int {
	total, _ := s.Connections()
	return total
}

// std: C15
func TestConnectionsAreUsedAgain(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		seen := w.watch()
		mx := w.Server("mx.aol.test", lab.Offer{TLS: lab.TLSOffered})
		for range 3 {
			require.Equal(t, deliver.Delivered, w.one(t, direct).Result)
		}
		require.Equal(t, 1, opened(mx))
		const mxAt = "mx.aol.test 192.0.2.10:25"
		require.Equal(t, []string{mxAt, mxAt + " reused", mxAt + " reused"}, seen.connects)
		require.NotContains(t, mx.Transcript(), "C: RSET", "a message that arrived needs none (RFC 5321, section 4.1.1.4)")
		require.NoError(t, w.d.Close())
		require.NoError(t, mx.Wait(t.Context(), func() bool { _, open := mx.Connections(); return open == 0 }))
		require.Equal(t, 1, strings.Count(mx.Transcript(), "C: QUIT"))
		require.Equal(t, deliver.Delivered, w.one(t, direct).Result, "a Deliverer can be used again")
	})
}

// std: C15
func TestRSETEndsWhatIsOpen(t *testing.T) {
	for name, offer := range map[string]lab.Offer{"pipelined": {}, "one at a time": {Capabilities: []string{}}} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, w *world) {
				later := func(s lab.Step) lab.Answer {
					if len(s.To) == 0 {
						return lab.Answer{}
					}
					return lab.Answer{Reply: "451 4.3.0 later"}
				}
				mx := w.Server("mx.aol.test", offer,
					lab.Times(1, lab.Refuse(lab.AtRcpt, "550 5.1.1 who?")), lab.Times(1, lab.On(lab.AtData, later)))
				require.Equal(t, deliver.PermFail, w.one(t, direct).Result)
				require.Equal(t, deliver.TempFail, w.one(t, direct).Result)
				require.Equal(t, deliver.Delivered, w.one(t, direct).Result)
				require.Equal(t, 2, strings.Count(mx.Transcript(), "C: RSET"))
				require.Equal(t, 1, opened(mx))
			})
		})
	}
}

// std: C15
func TestARefusedRSETIsNotAnAttempt(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		mx := w.Server("mx.aol.test", lab.Times(1, lab.Refuse(lab.AtRcpt, "550 5.1.1 who?")), lab.Refuse(lab.AtRset, "500 5.5.1 what?"))
		require.Equal(t, deliver.PermFail, w.one(t, direct).Result)
		o := w.one(t, direct)
		require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		require.Empty(t, o.Tried)
		require.Equal(t, 2, opened(mx))
	})
}

// std: C15
func TestAConnectionThatDiedIdleIsNotAnAttempt(t *testing.T) {
	for name, die := range map[string]func(*lab.Server){
		"the host is gone":      (*lab.Server).Hangup,
		"the host says goodbye": func(mx *lab.Server) { mx.Behave(lab.Times(1, lab.Refuse(lab.AtMail, "421 4.4.2 idle for too long"))) },
		"the host says junk":    func(mx *lab.Server) { mx.Behave(lab.Times(1, lab.Junk(lab.AtMail))) },
		"the host drops":        func(mx *lab.Server) { mx.Behave(lab.Times(1, lab.Drop(lab.AtMail))) },
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, w *world) {
				mx := w.Server("mx.aol.test", lab.Offer{TLS: lab.TLSOffered})
				require.Equal(t, deliver.Delivered, w.one(t, direct).Result)
				die(mx)
				o := w.all(t, direct, letter("a@aol.test", "jörg@aol.test", "bad address", "b@aol.test"))
				require.Equal(t, deliver.Delivered, o[0].Result, "%v", o[0])
				require.Empty(t, o[0].Tried)
				require.Empty(t, o[1].Tried)
				require.Empty(t, o[2].Tried)
				require.Len(t, mx.Mailbox(), 2)
				require.Equal(t, 2, opened(mx))
			})
		})
	}
}

// Domains that share a host share its connections, whatever they call it by, and not where their routes ask for more.
//
// std: C15
func TestDomainsWithOneHostShareItsConnections(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		mx := w.Server("mx.aol.test", lab.Offer{TLS: lab.TLSOffered})
		require.NoError(t, w.Zone("one.test", "@ MX 10 mx.aol.test."))
		require.NoError(t, w.Zone("two.test", "@ MX 5 MX.aol.test."))
		for i, tt := range []struct {
			to, hops string
			opened   int
		}{
			{"you@aol.test", "direct", 1},
			{"you@one.test", "direct", 1},
			{"you@two.test", "direct", 1},
			{"you@two.test", "smtp://mx.aol.test", 1},
			{"you@two.test", "direct tls=verified", 2}, // a connection under a weaker policy does not do
			{"you@one.test", "direct tls=verified", 2},
			{"you@one.test", "direct tls=required", 3},
			{"you@aol.test", "direct", 3},
			{"you@aol.test", "direct helo6=six.example", 3}, // which is for IPv6
		} {
			o := w.all(t, by(t, tt.hops), letter(tt.to))[0]
			require.Equal(t, deliver.Delivered, o.Result, "%v", o)
			require.Equal(t, tt.opened, opened(mx), "%d: %s by %s", i, tt.to, tt.hops)
		}
		for _, o := range w.all(t, direct, letter("you@one.test", "you@aol.test", "you@two.test")) {
			require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		}
		require.Equal(t, 3, opened(mx), "within one message too")
	})
}

// A host with several addresses is not connected to again where one of them has a connection.
func TestAKeptConnectionIsBetterThanAnotherAddress(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("aol.test", both))
		mx := w.Server("mx.aol.test")
		r := w.roads(map[string]road{six: {lost: true}})
		for range 10 {
			o := w.one(t, direct)
			require.Equal(t, deliver.Delivered, o.Result)
			require.Empty(t, o.Tried)
		}
		require.Equal(t, 1, opened(mx))
		require.Len(t, r.dials, 2)
	})
}

// std: C15
func TestAnIdleConnectionThatFellSilentIsNotAnAttempt(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		mx := w.Server("mx.aol.test")
		require.Equal(t, deliver.Delivered, w.one(t, direct).Result)
		mx.Behave(lab.Times(1, lab.Hang(lab.AtMail)))
		o := w.one(t, direct)
		require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		require.Empty(t, o.Tried)
	})
}

// Where one idle connection has died those beside it have too, most likely: a new one is made.
func TestSeveralIdleConnectionsThatFellSilent(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		mx := w.Server("mx.aol.test", lab.On(lab.AtMail, func(lab.Step) lab.Answer { return lab.Answer{Delay: time.Second} }))
		w.many(t, 3, "you@aol.test")
		require.Equal(t, 3, opened(mx))
		mx.Behave(lab.On(lab.AtMail, func(s lab.Step) lab.Answer { return lab.Answer{Hang: s.Session <= 3} }))
		o := w.one(t, direct)
		require.Equal(t, 4, opened(mx))
		require.Equal(t, 5*time.Minute+time.Second, o.End.Sub(o.Start), "of one, and what the new one took")
	})
}

// Idle connections end by themselves.
//
// std: C15
func TestIdleConnectionsEnd(t *testing.T) {
	for _, idle := range []time.Duration{0, time.Minute} {
		inMemory(t, func(t *testing.T, w *world) {
			w.d.Limits.IdleTime = idle
			mx := w.Server("mx.aol.test")
			require.Equal(t, deliver.Delivered, w.one(t, direct).Result)
			begin := time.Now()
			require.NoError(t, mx.WaitTranscript(t.Context(), "C: QUIT"))
			require.Equal(t, max(idle, 5*time.Second*time.Duration(b2i(idle == 0))), time.Since(begin))
			require.Equal(t, deliver.Delivered, w.one(t, direct).Result)
			require.Equal(t, 2, opened(mx))
			// One that is used in time stays.
			for range 3 {
				time.Sleep(max(idle, 5*time.Second) - time.Second)
				require.Equal(t, deliver.Delivered, w.one(t, direct).Result)
			}
			require.Equal(t, 2, opened(mx))
		})
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// std: C15
func TestConnectionsServeSoManyMessagesForSoLong(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.d.Limits.Messages = 3
		mx := w.Server("mx.aol.test")
		for range 7 {
			require.Equal(t, deliver.Delivered, w.one(t, direct).Result)
		}
		require.Equal(t, 3, opened(mx))
	})
	inMemory(t, func(t *testing.T, w *world) {
		mx := w.Server("mx.aol.test")
		for range 100 {
			require.Equal(t, deliver.Delivered, w.one(t, direct).Result)
			time.Sleep(4 * time.Second)
		}
		require.Equal(t, 2, opened(mx), "after five minutes it is used no more")
	})
	inMemory(t, func(t *testing.T, w *world) { // within one attempt
		w.d.Limits.Messages, w.d.Limits.Recipients = 2, 1
		mx := w.Server("mx.aol.test")
		for _, o := range w.all(t, direct, letter("a@aol.test", "b@aol.test", "c@aol.test", "d@aol.test", "e@aol.test")) {
			require.Equal(t, deliver.Delivered, o.Result)
			require.Empty(t, o.Tried)
		}
		require.Equal(t, 3, opened(mx))
	})
}

func TestSoManyIdleConnections(t *testing.T) {
	for name, tt := range map[string]struct{ idle, kept int }{"so many": {2, 2}, "none": {-1, 0}} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				w.d.Limits.Idle = tt.idle
				var servers []*lab.Server
				for _, domain := range []string{"a.test", "b.test", "c.test"} {
					servers = append(servers, w.Server(domain))
					require.Equal(t, deliver.Delivered, w.all(t, direct, letter("you@"+domain))[0].Result)
				}
				for i, s := range servers {
					if i >= tt.kept {
						require.NoError(t, s.WaitTranscript(t.Context(), "C: QUIT"))
					} else {
						require.NotContains(t, s.Transcript(), "C: QUIT")
					}
				}
			})
		})
	}
}

// QUIT waits for its answer, but not for long, and nobody waits for QUIT.
//
// std: C15
func TestQUITIsPatientForAMoment(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.d.Limits.Idle = -1
		w.Server("mx.aol.test", lab.Hang(lab.AtQuit))
		begin := time.Now()
		require.Equal(t, deliver.Delivered, w.one(t, direct).Result)
		require.Zero(t, time.Since(begin))
		require.NoError(t, w.d.Close())
		require.Equal(t, 2*time.Second, time.Since(begin))
	})
}

// A connection serves one login, one name, one source and one protocol.
func TestConnectionsAreNotSharedBetweenRoutes(t *testing.T) {
	t.Setenv("PASSWORD", password)
	t.Setenv("OTHER", "other secret")
	inMemory(t, func(t *testing.T, w *world) {
		mx := w.Server("mx.aol.test", lab.Offer{AuthInClear: true, Users: map[string]string{"user": password, "other": "other secret"}})
		for i, hops := range []string{
			"direct", "smtp://user@mx.aol.test secret=env:PASSWORD tls=none", "smtp://other@mx.aol.test secret=env:OTHER tls=none",
			"smtp://mx.aol.test helo=other.example", "smtp://mx.aol.test tls=none",
		} {
			for range 2 {
				require.Equal(t, deliver.Delivered, w.one(t, by(t, hops)).Result, hops)
				require.Equal(t, i+1, opened(mx), hops)
			}
		}
		require.Equal(t, deliver.Delivered, w.one(t, by(t, "smtp://mx.aol.test")).Result)
		require.Equal(t, 5, opened(mx), "the same host in the same way is the same connection")
		var who []string
		for _, m := range mx.Mailbox() {
			who = append(who, m.User+" "+m.HELO)
		}
		require.Equal(t, []string{
			" mail.example.org", " mail.example.org", "user mail.example.org", "user mail.example.org",
			"other mail.example.org", "other mail.example.org",
			" other.example", " other.example", " mail.example.org", " mail.example.org", " mail.example.org",
		}, who)
	})
}

// Whoever prints a Deliverer, for want of anything better, prints no password of the connections that it keeps.
func TestAPrintedDelivererShowsNoPassword(t *testing.T) {
	t.Setenv("PASSWORD", password)
	inMemory(t, func(t *testing.T, w *world) {
		w.Server("mx.aol.test", lab.Offer{AuthInClear: true, Users: users})
		o := w.one(t, by(t, "smtp://user@mx.aol.test secret=env:PASSWORD tls=none"))
		require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		for _, verb := range []string{"%v", "%+v", "%#v"} {
			text := fmt.Sprintf(verb+" "+verb, w.d, o)
			require.Contains(t, text, "mx.aol.test")
			require.NotContains(t, text, password)
		}
	})
}
