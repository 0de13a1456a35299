package deliver_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/deliver/resolve"
	"github.com/sortie-mail/sortie/route"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A Deliverer tells a routing table the MX hosts of domains.
var (
	_ route.MXLookup   = (*deliver.Deliverer)(nil)
	_ deliver.Resolver = (*resolve.Resolver)(nil)
)

// A world is a lab and a Deliverer that lives in it.
type world struct {
	*lab.Internet
	d    *deliver.Deliverer
	said *said        // the transcript
	log  bytes.Buffer // of the Deliverer, once it has returned
}

// said is a transcript that can be read while it is written.
type said struct {
	mu    sync.Mutex
	lines []deliver.TranscriptLine
	text  strings.Builder
}

func (s *said) Line(l deliver.TranscriptLine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, l)
	s.text.WriteString(string(l.From) + ": " + l.Text + "\n")
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// by are the lines of one side.
func (s *said) by(from byte) (texts []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lines {
		if l.From == from {
			texts = append(texts, l.Text)
		}
	}
	return texts
}

const aol = `
@   MX 10 mx
mx  A  192.0.2.10
`

// twoHosts is aol.test with a second host.
const twoHosts = "@ MX 10 mx\n@ MX 20 second\nmx A 192.0.2.10\nsecond A 192.0.2.20\n"

// upToBody is a script of a host that offers nothing and waits for the message.
const upToBody = "S: 220 mx\nC: EHLO *\nS: 250 mx\nC: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\nC: DATA\nS: 354 go\n"

func newWorld(t *testing.T, n *lab.Internet) *world {
	t.Helper()
	w := &world{Internet: n, said: new(said)}
	w.d = &deliver.Deliverer{
		Hostname:   "mail.example.org",
		Resolver:   &resolve.Resolver{Servers: []string{n.DNS()}, Dial: n.Dial, CacheSize: -1},
		Dial:       n.Dial,
		TLS:        n.CA().ClientConfig(),
		Transcript: w.said,
		Logger:     slog.New(slog.NewJSONHandler(&w.log, nil)),
	}
	require.NoError(t, n.Zone("aol.test", aol))
	w.d.Limits.Connections = 10_000 // more than enough, so that each test shows that none of them is forgotten
	t.Cleanup(func() {
		_ = w.d.Close()
		assert.Zero(t, deliver.InUse(w.d), "connections that are closed still count")
	})
	return w
}

// sockets makes a world of real sockets.
func sockets(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, lab.Test(t))
	w.d.Timeouts.NextAddress = -1 // no race against the clock of the machine
	return w
}

// inMemory runs a test in a bubble, with connections in memory and a clock that costs no time.
func inMemory(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newWorld(t, lab.TestInMemory(t))) })
}

// bothWays runs a test over real sockets and in a bubble.
func bothWays(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	t.Run("sockets", func(t *testing.T) { f(t, sockets(t)) })
	t.Run("memory", func(t *testing.T) { inMemory(t, f) })
}

var direct = route.Route{Hops: []route.Hop{{}}}

// by is the route that an entry of a routing file says.
func by(t *testing.T, hops string) route.Route {
	t.Helper()
	table, err := route.Parse("routes", strings.NewReader("* "+hops+"\n"))
	require.NoError(t, err)
	r, err := table.Route(t.Context(), route.Query{Recipient: "you@aol.test"})
	require.NoError(t, err)
	return r
}

const hello = "Subject: Hello\r\n\r\nHello.\r\n"

// letter is a message to somebody.
func letter(to ...string) *deliver.Message { return letterOf(hello, to...) }

func letterOf(text string, to ...string) *deliver.Message {
	m := &deliver.Message{
		ID: "m1", From: "me@example.org", Size: int64(len(text)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil },
	}
	for _, a := range to {
		m.To = append(m.To, deliver.Recipient{Address: a})
	}
	return m
}

// one delivers a message to you@aol.test.
func (w *world) one(t *testing.T, r route.Route) deliver.Outcome {
	t.Helper()
	return w.all(t, r, letter("you@aol.test"))[0]
}

// all delivers a message, and checks what holds for all outcomes.
func (w *world) all(t *testing.T, r route.Route, m *deliver.Message) []deliver.Outcome {
	t.Helper()
	return w.allIn(t.Context(), t, r, m)
}

func (w *world) allIn(ctx context.Context, t *testing.T, r route.Route, m *deliver.Message) []deliver.Outcome {
	t.Helper()
	outcomes := w.d.Deliver(ctx, r, m)
	require.Len(t, outcomes, len(m.To))
	for i := range outcomes {
		checkOutcome(t, &outcomes[i], m.To[i].Address)
	}
	return outcomes
}

func checkOutcome(t *testing.T, o *deliver.Outcome, recipient string) {
	t.Helper()
	require.Equal(t, recipient, o.Recipient)
	class := map[deliver.Result]int{
		deliver.TempFail: 4, deliver.PermFail: 5, deliver.Delivered: 2, deliver.Relayed: 2, deliver.Held: 2, deliver.Discarded: 2,
	}[o.Result]
	require.Equal(t, class, o.Status.Class(), "the class of the status agrees with the result: %v", o)
	require.NotEmpty(t, o.Stage)
	if o.PossiblyDelivered || o.RouteTrouble {
		require.Equal(t, deliver.TempFail, o.Result, "%v", o)
	}
	if o.Result == deliver.TempFail || o.Result == deliver.PermFail {
		require.True(t, !o.Reply.IsZero() || o.Detail != "", "a failure says why: %v", o)
		require.Error(t, o.Err())
	}
	require.NotContains(t, o.String(), "\n")
	require.False(t, o.End.Before(o.Start))
}
