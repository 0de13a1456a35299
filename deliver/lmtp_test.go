package deliver_test

import (
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
)

// std: C18
func TestLMTP(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("store.test", "@ MX 10 elsewhere\n@ A 192.0.2.60\nelsewhere A 192.0.2.61"))
		store := w.Server("store.test:24", lab.Offer{LMTP: true}, lab.Refuse(lab.AtRcpt, "550 5.1.1 who?", "no@*"),
			lab.Refuse(lab.AtDot, "452 4.2.2 full", "full@*"), lab.Refuse(lab.AtDot, "550 5.7.1 sieve says no", "sieve@*"))
		r := by(t, "lmtp://store.test:24")
		r.Hops[0].LookupMX = true
		for range 2 {
			outcomes := w.all(t, r, letter("a@aol.test", "no@aol.test", "full@aol.test", "sieve@aol.test", "b@aol.test"))
			var got []string
			for _, o := range outcomes {
				got = append(got, o.Result.String()+" "+string(o.Stage)+" "+o.Reply.String())
			}
			require.Equal(t, []string{
				"delivered dot 250 2.0.0 Ok: taken", "permfail rcpt 550 5.1.1 who?", "tempfail dot 452 4.2.2 full",
				"permfail dot 550 5.7.1 sieve says no", "delivered dot 250 2.0.0 Ok: taken",
			}, got)
		}
		require.Contains(t, store.Transcript(), "C: LHLO mail.example.org")
		require.NotContains(t, store.Transcript(), "EHLO")
		require.Equal(t, 1, opened(store))
		require.Equal(t, []string{"a@aol.test", "b@aol.test"}, store.Mailbox()[1].Addresses())
		require.NotContains(t, w.Queries(), "store.test. MX")
	})
}

// std: C18
func TestLMTPThatBreaksBetweenReplies(t *testing.T) {
	for name, tt := range map[string]struct {
		end      string
		second   bool // is possibly delivered
		words    string
		possibly bool // and the third
	}{
		"lost": {"S-CLOSE", true, "the connection was lost", true},
		"421":  {"S: 421 4.3.2 bye\nS-CLOSE", false, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				w.Server("store.test:24", lab.Script("S: 220 x\nC: LHLO *\nS: 250 x\nC: MAIL *\nS: 250 x\n"+
					strings.Repeat("C: RCPT *\nS: 250 x\n", 3)+"C: DATA\nS: 354 x\nC-BODY\nS: 250 a has it\n"+tt.end))
				outcomes := w.all(t, by(t, "lmtp://store.test:24"), letter("a@aol.test", "b@aol.test", "c@aol.test"))
				require.Equal(t, deliver.Delivered, outcomes[0].Result)
				require.Equal(t, "250 a has it", outcomes[0].Reply.String())
				require.Equal(t, tt.second, outcomes[1].PossiblyDelivered, "%v", outcomes[1])
				require.Contains(t, outcomes[1].Detail, tt.words)
				require.Equal(t, tt.possibly, outcomes[2].PossiblyDelivered, "%v", outcomes[2])
			})
		})
	}
}

// Each recipient has a reply of its own also where the message comes in chunks, on a connection that is known to keep step.
//
// std: C18
func TestLMTPInChunks(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("store.test", "@ A 192.0.2.60"))
		store := w.Server("store.test:24", lab.Refuse(lab.AtDot, "452 4.2.2 full", "full@*"),
			lab.Offer{LMTP: true, Capabilities: []string{"PIPELINING", "CHUNKING", "8BITMIME"}})
		for range 3 {
			outcomes := w.all(t, by(t, "lmtp://store.test:24"), letter("a@aol.test", "full@aol.test", "b@aol.test"))
			require.Equal(t, deliver.Delivered, outcomes[0].Result, "%v", outcomes[0])
			require.Equal(t, "452 4.2.2 full", outcomes[1].Reply.Wire(), "%v", outcomes[1])
			require.Equal(t, deliver.Delivered, outcomes[2].Result, "%v", outcomes[2])
			require.Equal(t, deliver.Delivered, w.all(t, by(t, "lmtp://store.test:24"), letter("c@aol.test"))[0].Result)
		}
		require.Contains(t, store.Transcript(), "C: BDAT", "a message for one goes with its envelope")
		require.Equal(t, 1, opened(store))
		require.Len(t, store.Mailbox(), 6)
	})
}

// A no in the middle of the message may be the first recipient's alone.
//
// std: C18
func TestLMTPThatRefusesInTheMiddle(t *testing.T) {
	for to, want := range map[string]deliver.Result{"a@aol.test": deliver.PermFail, "a@aol.test b@aol.test": deliver.TempFail} {
		inMemory(t, func(t *testing.T, w *world) {
			rcpts := strings.Fields(to)
			w.Server("store.test:24", lab.Script("S: 220 x\nC: LHLO *\nS: 250 x\nC: MAIL *\nS: 250 x\n"+
				strings.Repeat("C: RCPT *\nS: 250 x\n", len(rcpts))+"C: DATA\nS: 354 x\nC: Subject: *\nS: 550 5.7.1 a says no\nS-CLOSE"))
			for _, o := range w.all(t, by(t, "lmtp://store.test:24"), letterOf(strings.Repeat(megabytes, 8), rcpts...)) {
				require.Equal(t, want, o.Result, "%v", o)
				require.Equal(t, "550 5.7.1 a says no", o.Reply.Wire())
			}
		})
	}
}

// std: C18
func TestLMTPKnowsNoHELO(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		store := w.Server("store.test:24")
		o := w.one(t, by(t, "lmtp://store.test:24"))
		require.Equal(t, deliver.TempFail, o.Result, "%v", o)
		require.Equal(t, deliver.StageEHLO, o.Stage)
		require.NotContains(t, store.Transcript(), "HELO")
	})
}

// std: C18
func TestLMTPOverAUnixSocket(t *testing.T) {
	t.Setenv("PASSWORD", password)
	w := sockets(t)
	w.d.Dial = nil
	store := w.Server("store.test:24", lab.Offer{LMTP: true, Users: users, AuthInClear: true})
	path := filepath.Join(t.TempDir(), "lmtp.sock")
	listen(t, path, store.Addr())
	for range 2 {
		o := w.one(t, by(t, "lmtp://user@unix:"+path+" secret=env:PASSWORD"))
		require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		require.Equal(t, path, o.Host)
		require.False(t, o.Addr.IsValid())
	}
	require.Equal(t, "user", store.Mailbox()[0].User, "a socket needs no TLS for a password")
	require.Equal(t, 1, opened(store))

	o := w.one(t, by(t, "lmtp://unix:"+path+".gone"))
	require.Equal(t, deliver.TempFail, o.Result, "%v", o)
	require.Equal(t, deliver.StageConnect, o.Stage)
	require.NoError(t, w.d.Close())
}

// listen makes a unix socket that leads to an address, until the end of the test.
func listen(t *testing.T, path, to string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", to)
			if err != nil {
				_ = c.Close()
				continue
			}
			for _, pair := range [][2]net.Conn{{c, there}, {there, c}} {
				wg.Go(func() {
					_, _ = io.Copy(pair[0], pair[1])
					_, _ = c.Close(), there.Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
}
