package deliver_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/route"
)

// std: C11
func TestMessagesOnTheWire(t *testing.T) {
	for name, tt := range map[string]struct{ text, wire string }{
		"CRLF as it is":            {"a: b\r\n\r\nc\r\n", "a: b\r\n\r\nc\r\n.\r\n"},
		"LF becomes CRLF":          {"a: b\n\nc\n", "a: b\r\n\r\nc\r\n.\r\n"},
		"mixed ends":               {"a\nb\r\nc\n\r\n", "a\r\nb\r\nc\r\n\r\n.\r\n"},
		"a lone CR is a line end":  {"a\rb\r\n", "a\r\nb\r\n.\r\n"},
		"lone CRs":                 {"a\r\r\rb\r\n", "a\r\n\r\n\r\nb\r\n.\r\n"},
		"CR CR LF is one line end": {"a\r\r\nb\r\n", "a\r\nb\r\n.\r\n"},
		"CR at the end":            {"a\r", "a\r\n.\r\n"},
		"no end of line":           {"a: b\r\n\r\nc", "a: b\r\n\r\nc\r\n.\r\n"},
		"nothing":                  {"", ".\r\n"},
		"one octet":                {"x", "x\r\n.\r\n"},
		"dots are doubled":         {".a\r\n..b\r\nc.d\r\n.\r\n", "..a\r\n...b\r\nc.d\r\n..\r\n.\r\n"},
		"a dot alone":              {".", "..\r\n.\r\n"},
		"smuggling by LF":          {"a\n.\nMAIL FROM:<x@y>\n", "a\r\n..\r\nMAIL FROM:<x@y>\r\n.\r\n"},
		"smuggling by CR":          {"a\r.\rMAIL FROM:<x@y>\r", "a\r\n..\r\nMAIL FROM:<x@y>\r\n.\r\n"},
		"smuggling by LF.CRLF":     {"a\n.\r\nMAIL FROM:<x@y>\r\n", "a\r\n..\r\nMAIL FROM:<x@y>\r\n.\r\n"},
		"smuggling by CRLF.CR":     {"a\r\n.\rMAIL FROM:<x@y>\r\n", "a\r\n..\r\nMAIL FROM:<x@y>\r\n.\r\n"},
		"smuggling by CRCRLF":      {"a\r\r\n.\r\r\nMAIL FROM:<x@y>\r\n", "a\r\n..\r\nMAIL FROM:<x@y>\r\n.\r\n"},
		"NUL passes":               {"a\x00b\r\n\x00\r\n", "a\x00b\r\n\x00\r\n.\r\n"},
		"eight bits pass":          {"\xff\xfe\r\n", "\xff\xfe\r\n.\r\n"},
		"a long line":              {strings.Repeat("x", 998) + "\r\n", strings.Repeat("x", 998) + "\r\n.\r\n"},
		"many dots and blocks":     {strings.Repeat(".\r\n", 50_000), strings.Repeat("..\r\n", 50_000) + ".\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			for i, reader := range []func(io.Reader) io.Reader{
				func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.DataErrReader, iotest.HalfReader,
			} {
				if len(tt.text) > 60_000 {
					reader = func(r io.Reader) io.Reader { return r }
				}
				inMemory(t, func(t *testing.T, w *world) {
					writes := w.writes()
					w.Server("mx.aol.test")
					m := letterOf(tt.text, "you@aol.test")
					m.Size *= int64(i % 2) // 0 is not known
					m.Open = func() (io.ReadCloser, error) { return io.NopCloser(reader(strings.NewReader(tt.text))), nil }
					require.Equal(t, deliver.Delivered, w.all(t, direct, m)[0].Result)
					require.Equal(t, tt.wire, strings.Join(writes()[2:], ""))
				})
			}
		})
	}
}

// std: C11
func FuzzMessage(f *testing.F) {
	for _, s := range []string{hello, "a\n.\nb", "a\r.\r\nb\r", ".\r\n", "\r", "\n\r\n\r.\r\r\n..", ""} {
		f.Add(s, 3)
	}
	net, err := lab.New(lab.Options{InMemory: true})
	require.NoError(f, err)
	f.Cleanup(func() { _ = net.Close() })
	require.NoError(f, net.Zone("aol.test", aol))
	mx := net.Server("mx.aol.test")
	d := &deliver.Deliverer{Hostname: "mail.example.org", Dial: net.Dial}
	f.Cleanup(func() { _ = d.Close() })
	to := route.Route{Hops: []route.Hop{{Kind: route.Smarthost, Host: "192.0.2.10"}}}
	f.Fuzz(func(t *testing.T, text string, size int) {
		for line := range strings.SplitSeq(normal(text), "\r\n") {
			if len(line) > 998 {
				t.Skip("it would be converted")
			}
		}
		mx.Forget()
		m := letterOf(text, "you@aol.test")
		m.Size *= int64(size & 1) // 0 is not known
		m.Open = func() (io.ReadCloser, error) {
			return io.NopCloser(&inPieces{strings.NewReader(text), max(1, size%100)}), nil
		}
		o := d.Deliver(t.Context(), to, m)[0]
		require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		mail := mx.Mailbox()
		require.Len(t, mail, 1, "one message, never two")
		require.Equal(t, normal(text), string(mail[0].Body))
	})
}

// inPieces reads so many octets at once.
type inPieces struct {
	io.Reader
	size int
}

func (r *inPieces) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(len(p), r.size)]) }

// normal is a message with CRLF at the end of each line, said in another way than the code says it.
func normal(text string) string {
	for strings.Contains(text, "\r\r\n") {
		text = strings.ReplaceAll(text, "\r\r\n", "\r\n")
	}
	text = strings.ReplaceAll(text, "\r\n", "\n")
	text = strings.ReplaceAll(text, "\r", "\n")
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return strings.ReplaceAll(text, "\n", "\r\n")
}

// A body is not in memory: a gigabyte goes through in blocks, and the blocks are small.
func TestBodiesAreStreamed(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.Server("mx.aol.test", lab.SizeLimit(1000), lab.Offer{Capabilities: []string{}}) // counts, and keeps nothing
		line := []byte(strings.Repeat("x", 998) + "\r\n")
		const lines = 64 << 10
		var largest atomic.Int64
		m := letter("you@aol.test")
		m.Size = 0
		m.Open = func() (io.ReadCloser, error) {
			return io.NopCloser(&counted{io.LimitReader(&endless{line: line}, lines*1000), &largest}), nil
		}
		o := w.all(t, direct, m)[0]
		require.Equal(t, "552 5.3.4 Message too big", o.Reply.String(), "%v", o)
		require.LessOrEqual(t, largest.Load(), int64(64<<10))
		require.Contains(t, w.said.String(), "65536000 octets of message sent")
	})
}

type endless struct {
	line []byte
	at   int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.line[e.at:])
	e.at = (e.at + n) % len(e.line)
	return n, nil
}

// counted notes the largest read that was asked for.
type counted struct {
	io.Reader
	largest *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	c.largest.Store(max(c.largest.Load(), int64(len(p))))
	return c.Reader.Read(p)
}

// closed counts what was opened and not closed.
type closed struct {
	io.Reader
	open *int
}

func (c *closed) Close() error { *c.open--; return nil }

// Trouble with the message is ours: no host gets half of it for the whole, no other host is tried, and no other hop.
func TestAMessageThatCannotBeRead(t *testing.T) {
	broken := errors.New("the disk is gone")
	whole := func() (io.Reader, error) { return strings.NewReader(hello), nil }
	fails := func() (io.Reader, error) { return nil, broken }
	none := func() (io.Reader, error) { return iotest.ErrReader(broken), nil }
	half := func() (io.Reader, error) {
		return io.MultiReader(strings.NewReader(hello), iotest.ErrReader(broken)), nil
	}
	endless := func() (io.Reader, error) { return idle{}, nil }
	chunks := lab.Offer{Capabilities: []string{"CHUNKING", "PIPELINING", "8BITMIME"}}
	for name, tt := range map[string]struct {
		first, then func() (io.Reader, error) // when it is looked into, and when it is sent
		offer       lab.Offer
		stage       deliver.Stage
		words       string
	}{
		"at once":                {fails, fails, lab.Offer{}, deliver.StageMail, "the disk is gone"},
		"when it is looked into": {half, whole, lab.Offer{}, deliver.StageMail, "the disk is gone"},
		"it is gone meanwhile":   {whole, fails, lab.Offer{}, deliver.StageMail, "the disk is gone"},
		"at the beginning":       {whole, none, lab.Offer{}, deliver.StageDot, "the disk is gone"},
		"in the middle":          {whole, half, lab.Offer{}, deliver.StageDot, "the disk is gone"},
		"no end of nothing":      {whole, endless, lab.Offer{}, deliver.StageDot, io.ErrNoProgress.Error()},
		"in the chunks":          {whole, half, chunks, deliver.StageDot, "the disk is gone"},
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, w *world) {
				require.NoError(t, w.Zone("aol.test", twoHosts))
				mx, second := w.Server("mx.aol.test", tt.offer), w.Server("second.aol.test")
				open, next := 0, tt.first
				m := letter("you@aol.test", "two@aol.test")
				m.Size = 0 // small ones are in memory once they were looked into
				m.Open = func() (io.ReadCloser, error) {
					r, err := next()
					next = tt.then
					if err != nil {
						return nil, err
					}
					open++
					return &closed{r, &open}, nil
				}
				r := route.Route{Hops: []route.Hop{{}, {Kind: route.Reject, On: route.OnAny, Reply: "550 no"}}}
				for _, o := range w.all(t, r, m) {
					require.Equal(t, deliver.TempFail, o.Result, "%v", o)
					require.Equal(t, "4.3.0", o.Status.String())
					require.Equal(t, tt.stage, o.Stage)
					require.Contains(t, o.Detail, tt.words)
					require.False(t, o.PossiblyDelivered)
				}
				require.Zero(t, open, "everything that was opened is closed")
				require.NoError(t, w.d.Close())
				require.NoError(t, mx.Wait(t.Context(), func() bool { _, open := mx.Connections(); return open == 0 }))
				require.Empty(t, mx.Mailbox())
				require.Empty(t, second.Transcript())
			})
		})
	}
}

// A message that has lost something, or has something more than before, is not sent for the one that it was.
//
// std: C11
func TestAMessageThatChanges(t *testing.T) {
	whole := hello + strings.Repeat("A line.\r\n", 20_000)
	for name, tt := range map[string]struct {
		size        int64
		first, then string // when it is looked into, and when it is sent
		offer       []string
		words       string
	}{
		"cut short on the disk":   {int64(len(whole)), whole[:100_000], whole[:100_000], nil, "it has 100000 octets, and should have 180026"},
		"a small one, cut short":  {int64(len(hello)), hello[:20], hello[:20], nil, "it has 20 octets, and should have 26"},
		"nothing is left":         {int64(len(hello)), "", "", nil, "it has 0 octets, and should have 26"},
		"cut short meanwhile":     {int64(len(whole)), whole, whole[:100_000], nil, "not as long as it was"},
		"nothing left meanwhile":  {int64(len(whole)), whole, "", nil, "not as long as it was"},
		"of a size not known":     {0, whole, whole[:len(whole)-1], nil, "not as long as it was"},
		"grown meanwhile":         {int64(len(whole)), whole, whole + "x", nil, "not as long as it was"},
		"in chunks":               {int64(len(whole)), whole, whole[:100_000], []string{"CHUNKING", "PIPELINING"}, "not as long as it was"},
		"while it is converted":   {int64(len(whole)) + 2, whole + "ä", whole, []string{}, "not as long as it was"},
		"larger than it is said":  {10, whole, whole, nil, ""},
		"small, and larger so":    {10, hello, hello, nil, ""},
		"exactly what is said":    {int64(len(whole)), whole, whole, nil, ""},
		"exactly what is read":    {32 << 10, strings.Repeat("x\r\n\r\n\r\n\r\n.", 1<<15)[:32<<10], strings.Repeat("x\r\n\r\n\r\n\r\n.", 1<<15)[:32<<10], nil, ""},
		"exactly one chunk":       {64 << 10, strings.Repeat("seven..\n", 8<<10), strings.Repeat("seven..\n", 8<<10), []string{"CHUNKING"}, ""},
		"exactly two chunks":      {128 << 10, strings.Repeat("six...\r\n", 16<<10), strings.Repeat("six...\r\n", 16<<10), []string{"CHUNKING"}, ""},
		"nothing, and so is said": {0, "", "", []string{"CHUNKING", "PIPELINING"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				require.NoError(t, w.Zone("aol.test", twoHosts))
				mx, second := w.Server("mx.aol.test", lab.Offer{Capabilities: tt.offer}), w.Server("second.aol.test")
				text := tt.first
				m := letter("you@aol.test")
				m.Size = tt.size
				m.Open = func() (io.ReadCloser, error) {
					r := io.NopCloser(strings.NewReader(text))
					if text = tt.then; strings.Contains(tt.first, "ä") && strings.Contains(name, "converted") {
						tt.first, text = "", tt.first // once more, to see what to convert
					}
					return r, nil
				}
				o := w.all(t, direct, m)[0]
				require.NoError(t, w.d.Close())
				require.NoError(t, mx.Wait(t.Context(), func() bool { _, open := mx.Connections(); return open == 0 }))
				require.Empty(t, second.Transcript())
				if tt.words == "" {
					require.Equal(t, deliver.Delivered, o.Result, "%v", o)
					require.Equal(t, normal(tt.then), string(mx.Mailbox()[0].Body))
					return
				}
				require.Equal(t, "tempfail 4.3.0", o.Result.String()+" "+o.Status.String(), "%v", o)
				require.Contains(t, o.Detail, tt.words)
				require.Empty(t, mx.Mailbox())
			})
		})
	}
}

// idle gives nothing, for ever.
type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

// The message is opened once for each transaction, and closed.
func TestEveryTransactionOpensTheMessage(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.d.Limits.Recipients = 1
		mx := w.Server("mx.aol.test", lab.Refuse(lab.AtRcpt, "550 5.1.1 who?", "b@*"))
		opens, open := 0, 0
		m := letter("a@aol.test", "b@aol.test", "c@aol.test")
		m.Size = 0
		m.Open = func() (io.ReadCloser, error) {
			opens++
			open++
			return &closed{strings.NewReader(hello), &open}, nil
		}
		w.all(t, direct, m)
		require.Equal(t, 4, opens, "once to look into it, and once for each transaction")
		require.Zero(t, open)
		require.Len(t, mx.Mailbox(), 2)
	})
}

// A host that has read enough says why and hangs up. Its words are the outcome, not the broken connection.
func TestWordsInTheMiddleOfTheBody(t *testing.T) {
	for reply, want := range map[string]deliver.Result{
		"554 5.7.1 Spam, we have seen enough": deliver.PermFail,
		"552 5.3.4 too big":                   deliver.PermFail,
		"451 4.3.0 disk full":                 deliver.TempFail,
		"421 4.3.2 shutting down":             deliver.TempFail,
	} {
		t.Run(reply, func(t *testing.T) {
			bothWays(t, func(t *testing.T, w *world) {
				w.Server("mx.aol.test", lab.Script(upToBody+"C: Subject: *\nS: "+reply+"\nS-CLOSE"))
				o := w.all(t, direct, letterOf(strings.Repeat(megabytes, 8), "you@aol.test"))[0]
				require.Equal(t, want, o.Result, "%v", o)
				require.Equal(t, reply, o.Reply.Wire())
				require.Equal(t, deliver.StageDot, o.Stage)
				require.False(t, o.PossiblyDelivered)
			})
		})
	}
}

// Where the message goes with its envelope, what a host has said before it stopped reading is about the envelope: one
// recipient's refusal is not that of another.
func TestLastWordsAboutAnEnvelope(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.d.Limits.Recipients = 2
		w.d.Dial = func(context.Context, string, string) (net.Conn, error) {
			near, far := net.Pipe()
			go func() {
				defer far.Close()
				h := &host{t: t, r: bufio.NewReader(far), w: far}
				h.say("220 mx")
				h.hear()
				h.say("250-mx\n250-PIPELINING\n250 CHUNKING")
				for h.hear() != "DATA" { // so that the session is known to keep step
				}
				h.say("250 ok\n250 ok\n250 ok\n354 go")
				for h.hear() != "." {
				}
				h.say("250 taken")
				for range 3 {
					h.hear()
				}
				h.say("250 ok\n550 5.1.1 no such user\n250 ok")
			}()
			return near, nil
		}
		text := hello + strings.Repeat("fifteen octets\r\n", (16<<10)/16-2) // with its envelope it is more than is written at once
		outcomes := w.all(t, direct, letterOf(text, "a@aol.test", "b@aol.test", "gone@aol.test", "d@aol.test"))
		require.Equal(t, deliver.Delivered, outcomes[0].Result, "%v", outcomes[0])
		require.Equal(t, deliver.Delivered, outcomes[1].Result)
		require.Contains(t, w.said.String(), "BDAT")
		require.Equal(t, deliver.TempFail, outcomes[3].Result, "the refusal was of another: %v", outcomes[3])
		require.False(t, outcomes[3].PossiblyDelivered)
	})
}

// A host that says in the middle that something else should have been said before says nothing of the message.
func TestWordsInTheMiddleThatAreNotAboutTheMessage(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.Server("mx.aol.test", lab.Script(upToBody+"C: Subject: *\nS: 503 5.5.1 Bad sequence of commands\nS-CLOSE"))
		o := w.all(t, direct, letterOf(strings.Repeat(megabytes, 8), "you@aol.test"))[0]
		require.Equal(t, deliver.TempFail, o.Result, "%v", o)
	})
}

// A host that says no and stops reading, but stays, is understood too.
func TestWordsFromAHostThatStopsReading(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.Server("mx.aol.test", lab.Script(upToBody+"C: Subject: *\nS: 554 5.7.1 enough\nS-WAIT 1h\nS-CLOSE"))
		begin := time.Now()
		o := w.all(t, direct, letterOf(megabytes, "you@aol.test"))[0]
		require.Equal(t, "554 5.7.1 enough", o.Reply.Wire(), "%v", o)
		require.Equal(t, 3*time.Minute, time.Since(begin))
	})
}

// A hangup in the body without words is temporary, and nothing was delivered.
func TestAHangupInTheBody(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		mx := w.Server("mx.aol.test", lab.Script(upToBody+"C: Subject: *\nS-CLOSE"))
		o := w.all(t, direct, letterOf(strings.Repeat(megabytes, 8), "you@aol.test"))[0]
		require.Equal(t, deliver.TempFail, o.Result, "%v", o)
		require.False(t, o.PossiblyDelivered)
		require.Contains(t, o.Detail, "the connection was lost")
		require.Empty(t, mx.Mailbox())
	})
}

// Slow disks do not count against the host.
func TestASlowBodyIsNotTheHostsFault(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.Server("mx.aol.test")
		m := letter("you@aol.test")
		w.d.Timeouts.Total = 24 * time.Hour
		m.Open = func() (io.ReadCloser, error) { return io.NopCloser(&slow{strings.NewReader(megabytes)}), nil }
		o := w.all(t, direct, m)[0]
		require.Equal(t, deliver.Delivered, o.Result, "%v", o)
	})
}

type slow struct{ io.Reader }

func (s *slow) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err == nil && n > 0 {
		time.Sleep(30 * time.Second)
	} else {
		time.Sleep(10 * time.Minute) // longer than any block may take
	}
	return n, err
}

// Concurrent attempts share nothing that they should not.
func TestConcurrentAttempts(t *testing.T) {
	w := sockets(t)
	mx := w.Server("mx.aol.test", lab.Offer{TLS: lab.TLSOffered})
	const attempts = 50
	done := make(chan string, attempts)
	for i := range attempts {
		go func() {
			text := hello + strings.Repeat(string(rune('a'+i%26)), i*20) + "\r\n"
			o := w.d.Deliver(t.Context(), direct, letterOf(text, "you@aol.test"))[0]
			if o.Result != deliver.Delivered {
				done <- o.String()
				return
			}
			done <- ""
		}()
	}
	for range attempts {
		require.Empty(t, <-done)
	}
	require.Len(t, mx.Mailbox(), attempts)
	for _, m := range mx.Mailbox() {
		rest := bytes.TrimSuffix(bytes.TrimPrefix(m.Body, []byte(hello)), []byte("\r\n"))
		require.Empty(t, strings.Trim(string(rest), string(rest[:min(1, len(rest))])), "no message has another's text")
	}
}

// Attempts may run while Close is called, and after it.
func TestCloseAmongAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, lab.TestInMemory(t))
		mx := w.Server("mx.aol.test")
		for range 20 {
			go func() { w.d.Deliver(t.Context(), direct, letter("you@aol.test")) }()
			go func() { _ = w.d.Close() }()
		}
		_, err := mx.WaitMail(t.Context(), 20)
		require.NoError(t, err)
		synctest.Wait()
		require.NoError(t, w.d.Close())
		require.Equal(t, deliver.Delivered, w.one(t, direct).Result)
	})
}
