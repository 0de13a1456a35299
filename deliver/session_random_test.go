package deliver_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"mime/quotedprintable"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/route"
)

// A deed is what a random host does when it comes to a stage.
type deed struct {
	kind string
	text string        // of a reply or octets
	wait time.Duration // before it
}

// deeds are the kinds of deeds, and what each does at a step.
var deeds = map[string]func(d deed, s lab.Step) lab.Answer{
	"good":   func(deed, lab.Step) lab.Answer { return lab.Answer{Accept: true} },
	"reply":  func(d deed, s lab.Step) lab.Answer { return lab.Answer{Reply: d.text + " " + whose(s)} },
	"lines":  func(d deed, s lab.Step) lab.Answer { return lab.Answer{Reply: d.text + " one\ntwo\n" + whose(s)} },
	"drop":   func(deed, lab.Step) lab.Answer { return lab.Answer{Drop: true} },
	"reset":  func(deed, lab.Step) lab.Answer { return lab.Answer{Reset: true} },
	"hang":   func(deed, lab.Step) lab.Answer { return lab.Answer{Hang: true} },
	"close":  func(deed, lab.Step) lab.Answer { return lab.Answer{Close: true} },
	"keep":   func(deed, lab.Step) lab.Answer { return lab.Answer{Drop: true, Keep: true} },
	"octets": func(d deed, _ lab.Step) lab.Answer { return lab.Answer{Raw: d.text} },
	"body":   func(d deed, _ lab.Step) lab.Answer { return lab.Answer{Drop: true, After: int64(len(d.text))} },
	"twice":  func(deed, lab.Step) lab.Answer { return lab.Answer{Twice: true} },
	"mute":   func(deed, lab.Step) lab.Answer { return lab.Answer{Mute: true} },
}

// whose is what a refusal is about, so that it can be told whose it was.
func whose(s lab.Step) string {
	return fmt.Sprintf("[%s %s]", s.Stage, strings.Join(s.To, " "))
}

var whoses = regexp.MustCompile(`\[(\w+) ([^\]]*)\]`)

// A farEnd is one random host.
type farEnd struct {
	offer lab.Offer
	acts  map[lab.Stage][]deed // in turn; after the last one it is good

	mu    sync.Mutex // guards the fields below
	count map[lab.Stage]int
	heard map[int][]byte // by connection
}

func (f *farEnd) behaviour() lab.Behaviour {
	return lab.On(lab.Anywhere, func(s lab.Step) lab.Answer {
		f.mu.Lock()
		defer f.mu.Unlock()
		n := f.count[s.Stage]
		f.count[s.Stage]++
		if n >= len(f.acts[s.Stage]) {
			return lab.Answer{}
		}
		d := f.acts[s.Stage][n]
		a := deeds[d.kind](d, s)
		a.Delay = d.wait
		return a
	})
}

func (f *farEnd) hear(connection int, octets []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard[connection] = append(f.heard[connection], octets...)
}

// A randomSession is a message and the hosts that it meets.
type randomSession struct {
	hops     string
	lmtp     bool
	hosts    []*farEnd
	to       []string
	texts    []string // one an attempt
	outOfRow bool     // hosts may answer what they were not asked, or not answer
}

// GoString is what a failure says of the case.
func (s *randomSession) GoString() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s to %q, texts %q, out of row %t", s.hops, s.to, s.texts, s.outOfRow)
	for _, f := range s.hosts {
		fmt.Fprintf(&b, "\n%+v %+v", f.offer, f.acts)
	}
	return b.String()
}

var replyTexts = []string{
	"250 2.0.0", "251", "421 4.3.2", "450 4.2.1", "451", "452 4.5.3", "452 4.2.2", "500", "503 5.5.1", "535 5.7.8", "550 5.1.1", "550",
	"552 5.2.2", "553 4.1.3", "554 5.7.1", "334", "354", "555", "599 5.9.9", "200",
}

var octetTexts = []string{
	"", "25", "250", "250-", "250-x\r\n550 y\r\n", "\r\n", "\x00\xff\r\n", "999 x\r\n", "250 ok\n", "550 no\n", "2\x0050 x\r\n",
	"250-a\r\n250-b\r\n250 c\r\n", "354-a\r\n354 b\r\n", "220 \r\n", "250 \x1b[31mred\r\n", "-1 x\r\n",
}

func genDeed(at lab.Stage, outOfRow bool) *rapid.Generator[deed] {
	kinds := []string{"good", "good", "reply", "reply", "reply", "lines", "drop", "reset", "hang", "close", "octets"}
	switch at {
	case lab.AtConnect:
		kinds = []string{"good", "drop", "hang"}
	case lab.AtBody:
		kinds = []string{"good", "drop", "hang", "body"}
	case lab.AtDot:
		kinds = append(kinds, "keep")
	}
	if outOfRow && at != lab.AtConnect && at != lab.AtBody {
		kinds = append(kinds, "twice", "mute")
	}
	return rapid.Custom(func(t *rapid.T) deed {
		d := deed{kind: rapid.SampledFrom(kinds).Draw(t, "kind")}
		switch d.kind {
		case "reply", "lines":
			d.text = rapid.SampledFrom(replyTexts).Draw(t, "reply")
		case "octets":
			d.text = rapid.SampledFrom(octetTexts).Draw(t, "octets")
		case "body":
			d.text = strings.Repeat("x", rapid.IntRange(0, 40).Draw(t, "after"))
		}
		if rapid.IntRange(0, 5).Draw(t, "slow") == 0 {
			d.wait = time.Duration(rapid.IntRange(1, 700).Draw(t, "seconds")) * time.Second
		}
		return d
	})
}

var keywords = []string{
	"PIPELINING", "SIZE", "SIZE 10000", "SIZE 60", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "CHUNKING", "BINARYMIME",
	"LIMITS RCPTMAX=2", "LIMITS MAILMAX=1", "DELIVERBY", "MT-PRIORITY", "REQUIRETLS", "X-ODD a=b", "",
}

// oddStages are those at which a host may be odd; what decides about a message comes more often.
var oddStages = append([]lab.Stage{
	lab.AtConnect, lab.AtBody, lab.AtChunk, lab.AtRset, lab.AtQuit, lab.AtRcpt, lab.AtRcpt, lab.AtDot, lab.AtDot, lab.AtDot,
}, stages...)

func genFarEnd(lmtp, outOfRow bool) *rapid.Generator[*farEnd] {
	return rapid.Custom(func(t *rapid.T) *farEnd {
		f := &farEnd{acts: map[lab.Stage][]deed{}, count: map[lab.Stage]int{}, heard: map[int][]byte{}}
		f.offer = lab.Offer{
			Capabilities:  rapid.SliceOfNDistinct(rapid.SampledFrom(keywords), 0, len(keywords), firstWord).Draw(t, "capabilities"),
			MaxRecipients: rapid.IntRange(0, 3).Draw(t, "most"),
			OneByte:       rapid.IntRange(0, 4).Draw(t, "octets") == 0,
			LMTP:          lmtp,
		}
		if rapid.IntRange(0, 3).Draw(t, "hasTLS") == 0 {
			f.offer.TLS = rapid.SampledFrom([]lab.TLSMode{lab.TLSOffered, lab.TLSBroken, lab.TLSRefused, lab.TLSStalled, lab.TLSCut}).Draw(t, "tls")
		}
		for _, at := range rapid.SliceOfNDistinct(rapid.SampledFrom(oddStages), 0, 4, rapid.ID).Draw(t, "odd") {
			f.acts[at] = rapid.SliceOfN(genDeed(at, outOfRow), 1, 4).Draw(t, string(at))
		}
		return f
	})
}

func firstWord(s string) string { return strings.Fields(s + " .")[0] }

var pieces = []string{
	"Hello.\r\n", "\r\n", ".\r\n", "..\r\n", ".hidden\r\n", "LF alone\n", "\n.\n", "CR\ralone\r\n", "\r.\r\n", "NUL \x00\r\n", "grüß dich\r\n",
	"\xff\xfe\r\n", "no end", "MAIL FROM:<x@y>\r\n", "QUIT\r\n", "BDAT 5 LAST\r\n", strings.Repeat("x", 997) + "\r\n",
	strings.Repeat("0123456789\r\n", 3000),
}

func genSession(hops string) *rapid.Generator[*randomSession] {
	return rapid.Custom(func(t *rapid.T) *randomSession {
		s := &randomSession{hops: hops, lmtp: strings.HasPrefix(hops, "lmtp"), outOfRow: rapid.IntRange(0, 3).Draw(t, "outOfRow") == 0}
		s.hosts = rapid.SliceOfN(genFarEnd(s.lmtp, s.outOfRow), 1, 2).Draw(t, "hosts")
		s.to = rapid.SliceOfNDistinct(rapid.SampledFrom(
			[]string{"a@aol.test", "b@aol.test", "c@aol.test", "d@aol.test", "ü@aol.test", `"e f"@aol.test`}), 1, 5, rapid.ID).Draw(t, "to")
		for i := range rapid.IntRange(1, 3).Draw(t, "attempts") {
			body := strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 0, 6).Draw(t, "body"), "")
			s.texts = append(s.texts, fmt.Sprintf("X-Attempt: %d\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n%s", i, body))
		}
		return s
	})
}

// Whatever hosts say, and whatever the message is: no attempt panics or hangs, every recipient has one outcome, what
// counts as delivered is with a host as it was sent, what does not is not, a permanent failure is a host's word about that
// recipient or the message, no CR or LF stands alone on the wire, and nothing is used that was not offered.
//
// std: C4
// std: C5
// std: C6
// std: C9
// std: C11
func TestRandomSessions(t *testing.T) {
	for name, hops := range map[string]string{
		"direct": "direct", "required TLS": "direct tls=required", "no TLS": "direct tls=none", "verified TLS": "direct tls=verified",
		"a smarthost": "smtp://mx.aol.test", "LMTP": "lmtp://mx.aol.test:25",
	} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				s, c := genSession(hops).Draw(rt, "session"), new(collector)
				synctest.Test(t, func(t *testing.T) { s.play(t, c) })
				if len(c.said) > 0 {
					rt.Fatalf("%s", strings.Join(c.said, "\n"))
				}
			})
		})
	}
}

// A collector notes what assertions say, so that rapid can look for a smaller case.
type collector struct{ said []string }

func (c *collector) Errorf(format string, args ...any) {
	c.said = append(c.said, fmt.Sprintf(format, args...))
}

func (s *randomSession) play(t *testing.T, c *collector) {
	w := newWorld(t, lab.TestInMemory(t))
	var servers []*lab.Server
	for i, f := range s.hosts {
		servers = append(servers, w.Server([]string{"mx.aol.test", "second.aol.test"}[i], f.behaviour(), f.offer, lab.Tap(f.hear)))
	}
	if len(servers) > 1 && !s.lmtp {
		assert.NoError(c, w.Zone("aol.test", twoHosts))
	}
	r := by(t, s.hops)
	all := make([][]deliver.Outcome, len(s.texts))
	for i, text := range s.texts {
		all[i] = s.attempt(w, c, r, letterOf(text, s.to...))
	}
	assert.NoError(c, w.d.Close())
	for _, srv := range servers {
		_ = srv.Wait(t.Context(), func() bool { return atRest(srv) })
	}
	for i := range all {
		s.accounted(c, servers, i, all[i])
	}
	for i, f := range s.hosts {
		f.wire(c)
		s.complaints(c, servers[i])
	}
	if len(c.said) > 0 {
		c.Errorf("%s", w.said)
	}
}

// attempt makes one, and checks its outcomes by themselves.
func (s *randomSession) attempt(w *world, c *collector, r route.Route, m *deliver.Message) []deliver.Outcome {
	begin := time.Now()
	outcomes := w.d.Deliver(context.Background(), r, m)
	assert.LessOrEqual(c, time.Since(begin), time.Hour+5*time.Second, "an attempt is bounded")
	assert.Len(c, outcomes, len(m.To))
	for i := range outcomes {
		o := &outcomes[i]
		assert.Equal(c, m.To[i].Address, o.Recipient)
		class, ok := map[deliver.Result]int{deliver.TempFail: 4, deliver.PermFail: 5, deliver.Delivered: 2, deliver.Relayed: 2}[o.Result]
		assert.True(c, ok && class == o.Status.Class(), "%v", o)
		assert.False(c, o.PossiblyDelivered && o.Result != deliver.TempFail, "%v", o)
		assert.NotEmpty(c, o.Host, "a host decided: %v", o)
		if o.Result == deliver.PermFail {
			s.permanent(c, o)
		}
	}
	return outcomes
}

// permanent checks that what ends a recipient was said about it, or about the message.
func (s *randomSession) permanent(c *collector, o *deliver.Outcome) {
	if o.Reply.IsZero() {
		assert.Contains(c, []string{"5.3.4", "5.6.0", "5.6.1", "5.6.3", "5.6.7", "5.6.9"}, o.Status.String(), "the message or the address: %v", o)
		return
	}
	assert.True(c, o.Reply.Permanent(), "%v", o)
	assert.Contains(c, []deliver.Stage{deliver.StageMail, deliver.StageRcpt, deliver.StageData, deliver.StageDot}, o.Stage, "%v", o)
	about := whoses.FindStringSubmatch(o.Reply.Text())
	if s.outOfRow || about == nil { // nobody can tell then whose a reply is
		return
	}
	assert.Contains(c, []string{string(o.Stage), map[deliver.Stage]string{deliver.StageDot: "chunk"}[o.Stage]}, about[1], "%v", o)
	if o.Stage == deliver.StageRcpt || (s.lmtp && about[1] == "dot") {
		assert.Equal(c, o.Recipient, about[2], "%v", o)
	}
}

// accounted compares the outcomes of an attempt with what the hosts have.
func (s *randomSession) accounted(c *collector, servers []*lab.Server, attempt int, outcomes []deliver.Outcome) {
	mark := []byte(fmt.Sprintf("X-Attempt: %d\r\n", attempt))
	has := map[string]int{}
	for _, srv := range servers {
		for _, m := range srv.Mailbox() {
			if !bytes.Contains(m.Body, mark) {
				continue
			}
			s.same(c, s.texts[attempt], m)
			for _, to := range m.To {
				has[to.Address]++
			}
		}
	}
	for _, o := range outcomes {
		if s.outOfRow && s.lmtp {
			continue // nothing like 354 shows that one reply is taken for another
		}
		n := has[o.Recipient]
		switch {
		case o.Result.Success():
			assert.GreaterOrEqual(c, n, 1, "the host does not have it: %v", o)
		case !o.PossiblyDelivered:
			assert.Zero(c, n, "a host has it: %v", o)
		}
		assert.LessOrEqual(c, n, 1, "delivered twice: %v", o)
	}
}

// same checks that what arrived is what was sent: octet by octet, or what it decodes to where it had to be encoded for the
// way (8-bit text for a host without 8BITMIME, lines that DATA cannot carry).
func (s *randomSession) same(c *collector, text string, m lab.Message) {
	got := string(m.Body)
	if m.Params["BODY"] != "8BITMIME" && m.Params["BODY"] != "BINARYMIME" && strings.ContainsFunc(got, func(r rune) bool { return r >= 0x80 }) {
		c.Errorf("8-bit text for a host that was not told of it: %.200q", got)
	}
	if !m.BDAT && longestLine(got) > 998 {
		c.Errorf("a line of %d octets by DATA", longestLine(got))
	}
	if text = canonical(text); got == text {
		return
	}
	_, want, _ := strings.Cut(text, "\r\n\r\n")
	if decoded, ok := decode(got); !ok || canonical(decoded) != canonical(want) {
		c.Errorf("sent %.2000q, arrived %.2000q", text, got)
	}
}

func longestLine(text string) (longest int) {
	for line := range strings.SplitSeq(text, "\r\n") {
		longest = max(longest, len(line))
	}
	return longest
}

// decode gives the body of a message of one part; ok where it says that it is encoded.
func decode(text string) (body string, ok bool) {
	header, body, _ := strings.Cut(text, "\r\n\r\n")
	var r io.Reader
	switch {
	case strings.Contains(header, "Content-Transfer-Encoding: quoted-printable"):
		r = quotedprintable.NewReader(strings.NewReader(body))
	case strings.Contains(header, "Content-Transfer-Encoding: base64"):
		r = base64.NewDecoder(base64.StdEncoding, strings.NewReader(body))
	default:
		return "", false
	}
	b, err := io.ReadAll(r)
	return string(b), err == nil
}

// canonical is a message with CRLF at the end of every line and nowhere else.
func canonical(text string) string {
	text = regexp.MustCompile(`\r*\n|\r`).ReplaceAllString(text, "\n")
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return strings.ReplaceAll(text, "\n", "\r\n")
}

// wire checks every octet that was said, up to the handshake of TLS where the host did not make one.
func (f *farEnd) wire(c *collector) {
	for _, octets := range f.heard {
		if i := bytes.Index(octets, []byte("STARTTLS\r\n\x16")); i >= 0 {
			octets = octets[:i]
		}
		octets = bytes.TrimSuffix(octets, []byte("\r")) // the host stopped reading between CR and LF
		octets = bytes.ReplaceAll(octets, []byte("\r\n"), nil)
		if i := bytes.IndexAny(octets, "\r\n"); i >= 0 {
			c.Errorf("a CR or LF alone on the wire: %q", octets[max(0, i-40):min(len(octets), i+40)])
		}
	}
}

// complaints looks for what a good server says to a client that uses what it was not offered.
func (s *randomSession) complaints(c *collector, srv *lab.Server) {
	if s.outOfRow {
		return
	}
	for _, words := range []string{
		"belongs to nothing that is offered", "has no such value", "Pipelining is not offered", "Commands end in CRLF", "Line too long",
		"is not offered", "after BDAT", "needs BDAT", "Non-ASCII address", "is not known here", "Size exceeds", "the size of a chunk",
	} {
		assert.NotContains(c, srv.Transcript(), words)
	}
}
