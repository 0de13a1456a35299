package deliver_test

import (
	"context"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
)

// stages are those at which a host answers.
var stages = []lab.Stage{lab.AtGreeting, lab.AtEHLO, lab.AtTLS, lab.AtMail, lab.AtRcpt, lab.AtData, lab.AtDot}

// A far end may send what it likes for as long as it likes: what is read of it is bounded, and the attempt ends in a
// temporary failure.
func TestFarEndsThatSayTooMuchOrNonsense(t *testing.T) {
	for name, b := range map[string]func(lab.Stage) lab.Behaviour{
		"a reply without end": lab.EndlessReply,
		"a line without end":  lab.EndlessLine,
		"binary junk":         lab.Junk,
		"a dropped line":      lab.Drop,
		"NULs": func(at lab.Stage) lab.Behaviour {
			return lab.Raw(at, strings.Repeat("\x00", 5000))
		},
		"a 421": func(at lab.Stage) lab.Behaviour { return lab.Refuse(at, "421 4.3.2 no") },
	} {
		for _, at := range stages {
			t.Run(name+" at "+string(at), func(t *testing.T) {
				bothWays(t, func(t *testing.T, w *world) {
					mx := w.Server("mx.aol.test", b(at), lab.Offer{TLS: lab.TLSOffered})
					r := by(t, "direct tls=required")
					for _, o := range w.all(t, r, letter("a@aol.test", "b@aol.test")) {
						require.Equal(t, deliver.TempFail, o.Result, "%v", o)
						require.Equal(t, at == lab.AtDot && name != "a 421", o.PossiblyDelivered, "%v", o)
						require.Less(t, len(o.Detail), 2000)
					}
					if at != lab.AtDot {
						require.Empty(t, mx.Mailbox())
					}
					require.Less(t, len(w.said.String()), 64<<10, "what is kept of it is bounded")
				})
			})
		}
	}
}

// A far end that sends a hundred megabytes, and more, costs no more than one that sends a few lines: it is let go.
func TestAHundredMegabytesOfReply(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		var read atomic.Int64
		w.d.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := w.Dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &readCounter{c, &read}, nil
		}
		megabyte := strings.Repeat("250-and on it goes\r\n", 50_000)
		w.Server("mx.aol.test", lab.On(lab.AtRcpt, func(lab.Step) lab.Answer { return lab.Answer{Raw: megabyte, Endless: true} }))
		o := w.one(t, direct)
		require.Equal(t, deliver.TempFail, o.Result)
		require.Contains(t, o.Detail, "has no end")
		require.Less(t, read.Load(), int64(64<<10))
		require.Less(t, len(w.said.String()), 64<<10)
	})
}

type readCounter struct {
	net.Conn
	n *atomic.Int64
}

func (c *readCounter) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func TestAFarEndThatSays250ToEverything(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		w.Server("mx.aol.test", lab.AlwaysOK())
		o := w.one(t, direct)
		require.Equal(t, deliver.TempFail, o.Result, "nothing was delivered: %v", o)
		require.Equal(t, deliver.StageGreeting, o.Stage)
		require.Equal(t, "250 OK", o.Reply.String())
		require.Contains(t, o.String(), "makes no sense here")
	})
	bothWays(t, func(t *testing.T, w *world) {
		w.Server("mx.aol.test", lab.Refuse(lab.AtGreeting, "220 hello"), lab.AlwaysOK())
		o := w.one(t, direct)
		require.Equal(t, deliver.TempFail, o.Result, "%v", o)
		require.Equal(t, deliver.StageData, o.Stage)
		require.False(t, o.PossiblyDelivered)
	})
}

func TestOctetsOneByOne(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		w.Server("mx.aol.test", lab.Offer{OneByte: true, TLS: lab.TLSOffered}, lab.Refuse(lab.AtRcpt, "550-5.1.1 no\nnobody", "no@*"))
		outcomes := w.all(t, direct, letter("you@aol.test", "no@aol.test"))
		require.Equal(t, deliver.Delivered, outcomes[0].Result, "%v", outcomes[0])
		require.NotEmpty(t, outcomes[0].TLS.Version)
		require.Equal(t, deliver.PermFail, outcomes[1].Result)
	})
}

func TestAServerOfSomethingElse(t *testing.T) {
	for name, greeting := range map[string]string{
		"SSH": "SSH-2.0-OpenSSH_9.6\r\n", "IMAP": "* OK IMAP4rev1 ready\r\n", "POP3": "+OK ready\r\n",
		"MySQL": "J\x00\x00\x00\x0a8.0.36\x00",
		"TLS":   "\x15\x03\x01\x00\x02\x02\x28",
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				w.Server("mx.aol.test", lab.Raw(lab.AtGreeting, greeting))
				o := w.one(t, direct)
				require.Equal(t, deliver.TempFail, o.Result, "%v", o)
				require.Equal(t, deliver.StageGreeting, o.Stage)
			})
		})
	}
}

// Whatever a far end answers, in whatever order, an attempt ends, decides every recipient and does not panic.
func TestRandomFarEnds(t *testing.T) {
	replies := []string{
		"220 hi\r\n", "250 ok\r\n", "250-x\r\n250 PIPELINING\r\n", "250-x\r\n250-STARTTLS\r\n250 DSN\r\n", "354 go\r\n",
		"421 bye\r\n", "450 later\r\n",
		"452 4.5.3 too many\r\n", "550 5.1.1 no\r\n", "554 no\r\n", "250-", "25", "\r\n", "\x00\xff\r\n", "250 a\r\n250 b\r\n250 c\r\n",
		"334 \r\n", "235 in\r\n", "250-x\r\n550 y\r\n", "999 x\r\n", "250 ok\n", "530 5.7.0 TLS first\r\n",
	}
	for seed := range uint64(300) {
		var mu sync.Mutex // guards r
		r := rand.New(rand.NewPCG(seed, 1))
		answer := func(s lab.Step) lab.Answer {
			mu.Lock()
			defer mu.Unlock()
			switch n := r.IntN(10); {
			case n < 4 && s.Stage != lab.AtConnect:
				return lab.Answer{} // as a good server
			case n == 9:
				return lab.Answer{Drop: true}
			case n == 8:
				return lab.Answer{Hang: true}
			}
			return lab.Answer{Raw: replies[r.IntN(len(replies))]}
		}
		inMemory(t, func(t *testing.T, w *world) {
			require.NoError(t, w.Zone("aol.test", "@ MX 10 mx\n@ MX 20 mx2\nmx A 192.0.2.10\nmx2 A 192.0.2.11"))
			w.Server("mx.aol.test", lab.On(lab.Anywhere, answer), lab.Offer{TLS: lab.TLSOffered})
			w.Server("mx2.aol.test", lab.On(lab.Anywhere, answer))
			for range 3 {
				w.all(t, direct, letter("a@aol.test", "b@aol.test", "c@aol.test"))
			}
		})
	}
}
