package deliver

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/route"
)

// A scene is a dialogue as text. Settings come first ("offer:", "to:", "chunk:", "tls:", "lmtp", "open"), then what is said in
// order ("C:", "S:"), then what comes of it: "!" the error for all that were left ("STATUS STAGE"), "=" everything else.
type scene struct {
	offer, to, chunk string
	tls              route.TLSMode
	lmtp, open       bool
	said             []string
	want             []string
}

func readScene(t *testing.T, file string) *scene {
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	s := &scene{to: "a@x.test b@x.test", tls: route.TLSOpportunistic}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		name, value, _ := strings.Cut(line, ": ")
		switch {
		case strings.HasPrefix(line, "#"):
		case name == "offer":
			s.offer = value
		case name == "to":
			s.to = value
		case name == "chunk":
			s.chunk = value
		case name == "tls":
			s.tls = map[string]route.TLSMode{"none": route.TLSNone, "verified": route.TLSVerified}[value]
		case line == "lmtp":
			s.lmtp = true
		case line == "open":
			s.open = true
		case name == "C" || name == "S":
			s.said = append(s.said, line)
		default:
			s.want = append(s.want, line)
		}
	}
	return s
}

// lines takes the next line of the scene.
func (s *scene) next() (who, what string) {
	if len(s.said) == 0 {
		return "", "(nothing more)"
	}
	who, what, _ = strings.Cut(s.said[0], ": ")
	s.said = s.said[1:]
	return who, what
}

// reply takes the next reply, or the end of the connection.
func (s *scene) reply(t *testing.T) (dsn.Reply, *Error) {
	var lines []string
	for {
		who, what := s.next()
		require.Equal(t, "S", who, "the machine waits for an answer; the scene has %q", what)
		switch what {
		case "(gone)":
			return dsn.Reply{}, tempErr(StageDot, "4.4.2", "gone: %w", io.ErrUnexpectedEOF)
		case "(gone before it was sent)":
			e := tempErr(StageDot, "4.4.2", "gone: %w", io.ErrUnexpectedEOF)
			e.unsent = true
			return dsn.Reply{}, e
		}
		if lines = append(lines, what); len(what) < 4 || what[3] != '-' {
			reply, err := dsn.ParseReply(strings.Join(lines, "\r\n"))
			require.NoError(t, err)
			return reply, nil
		}
	}
}

// play acts out a scene with a machine.
func (s *scene) play(t *testing.T, d dialogue) *Error {
	for {
		m := d.next()
		if m.do == doEnd {
			require.Empty(t, s.said, "the machine is at its end; the scene is not")
			return nil
		}
		if m.do == doHear {
			reply, e := s.reply(t)
			if e != nil {
				return e
			}
			d.hear(reply)
			continue
		}
		who, what := s.next()
		require.Equal(t, "C", who, "the machine says %q; the scene has %q", m.line, what)
		switch m.do {
		case doSay:
			require.Equal(t, what, m.line)
		case doSend:
			require.Equal(t, "(message)", what)
			d.sent(true)
		default:
			require.Contains(t, what, "chunk)")
			d.sent(what == "(last chunk)")
		}
	}
}

// TestMachines plays what is said in a session with the machines alone: no connection, no clock.
//
// std: C2, std: C5, std: C6, std: C9, std: C14, std: C15, std: C18
func TestMachines(t *testing.T) {
	files, err := filepath.Glob("testdata/machines/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		t.Run(name, func(t *testing.T) {
			s := readScene(t, file)
			want := s.want
			if strings.HasPrefix(name, "hello") {
				require.Equal(t, want, s.hello(t))
			} else {
				require.Equal(t, want, s.transfer(t))
			}
		})
	}
}

func (s *scene) hello(t *testing.T) []string {
	h := &hello{peer: &peer{}, name: "mail.example.org", lmtp: s.lmtp, mode: s.tls}
	require.Nil(t, s.play(t, h))
	switch {
	case h.err != nil:
		return []string{"! " + string(h.err.Status) + " " + string(h.err.Stage)}
	case h.secure:
		return []string{"= handshake"}
	}
	return []string{"= ready"}
}

// newTransfer is one for recipients, as a session would begin it.
func newTransfer(offer string, to []string, by manner, lmtp bool) (*transfer, []Outcome) {
	outcomes := make([]Outcome, len(to))
	rcpts := make([]*Outcome, len(to))
	for i, address := range to {
		outcomes[i] = Outcome{Recipient: address, to: &Recipient{Address: address}}
		rcpts[i] = &outcomes[i]
	}
	caps := parseCapabilities(dsn.Reply{Code: 250, Lines: append([]string{"x"}, strings.Fields(offer)...)})
	x := &transfer{
		peer:  &peer{caps: caps, reused: true},
		form:  &form{mail: "MAIL FROM:<me@example.org>", pipelining: caps.pipelining, by: by},
		rcpts: rcpts, lmtp: lmtp, judge: plainly{},
	}
	return x, outcomes
}

// plainly takes a refusal for what it says.
type plainly struct{}

func (plainly) refusal(stage Stage, r dsn.Reply) *Error { return replyErr(stage, r) }

func (s *scene) transfer(t *testing.T) (came []string) {
	by := map[string]manner{"one": byChunk, "many": byChunks}[s.chunk]
	x, outcomes := newTransfer(s.offer, strings.Fields(s.to), by, s.lmtp)
	x.peer.open = s.open
	x.begin()
	e := s.play(t, x)
	if e == nil {
		e = x.err
	}
	if e = x.lost(e); e != nil {
		came = append(came, "! "+string(e.Status)+" "+string(e.Stage))
		failAll(x.undecided(), e)
	}
	for i := range outcomes {
		o := &outcomes[i]
		line := "= " + o.Recipient
		switch {
		case !o.decided:
			line += " later"
		case o.PossiblyDelivered:
			line += " " + o.Result.String() + " " + string(o.Status) + " " + string(o.Stage) + " possibly delivered"
		default:
			line += " " + o.Result.String() + " " + string(o.Status) + " " + string(o.Stage)
		}
		came = append(came, line)
	}
	if x.peer.reused { // MAIL has no answer
		came = append(came, "= found dead")
	}
	if x.peer.open && !x.peer.broken && e == nil {
		came = append(came, "= open")
	}
	return came
}

// TestTransferWithAnyAnswers has the machine hear whatever there is: it comes to an end, hears as many answers as it said
// commands, never has more on the way than fits, and decides about each recipient once.
func TestTransferWithAnyAnswers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		offer := rapid.SampledFrom([]string{"", "PIPELINING", "CHUNKING", "PIPELINING CHUNKING"}).Draw(t, "offer")
		by := byData
		if strings.Contains(offer, "CHUNKING") {
			by = rapid.SampledFrom([]manner{byData, byChunk, byChunks}).Draw(t, "by")
		}
		to := make([]string, rapid.IntRange(1, 5).Draw(t, "recipients"))
		for i := range to {
			to[i] = strings.Repeat("a", rapid.SampledFrom([]int{1, maxFlight / 2}).Draw(t, "length")+i) + "@x.test"
		}
		lmtp := rapid.Bool().Draw(t, "lmtp")
		x, outcomes := newTransfer(offer, to, by, lmtp)
		x.peer.open = rapid.Bool().Draw(t, "open")
		x.begin()
		chunks := rapid.IntRange(1, 5).Draw(t, "chunks")
		said, heard, ended, message, hearing := 0, 0, false, 0, false
		for range 100 {
			m := x.next()
			if m.do == doEnd {
				ended = true
				break
			}
			switch m.do {
			case doSay:
				require.False(t, hearing && said > heard, "what was said is answered before more is")
				said++
				hearing = false
				require.True(t, x.form.pipelining || said-heard <= 1, "%q came too early", m.line)
				require.True(t, said-heard <= 1 || x.flight <= maxFlight, "more than fits")
			case doSend:
				said++
				message++
				x.sent(true)
			case doChunk:
				said++
				chunks--
				message++
				last := chunks <= 0 || by == byChunk
				x.sent(last)
				require.LessOrEqual(t, x.chunks, chunksAhead)
			case doHear:
				heard++
				hearing = true
				code := rapid.SampledFrom([]int{250, 250, 250, 354, 421, 450, 452, 550, 552}).Draw(t, "code")
				if by == byData && x.state == atEnvelope && x.heard == x.after() && code == 250 {
					code = 354
				}
				x.hear(dsn.Reply{Code: code, Lines: []string{"words"}})
			}
			if message > 0 && by != byChunk {
				require.NotZero(t, len(x.taken)+decided(outcomes), "no message goes to nobody")
			}
		}
		require.True(t, ended, "it has no end")
		failAll(x.undecided(), tempErr(StageDot, "4.4.2", "lost"))
		require.Equal(t, len(to), decided(outcomes)+len(x.later))
		if x.err == nil && !lmtp {
			require.Equal(t, said, heard, "every command has its answer")
		}
	})
}

// FuzzCapabilities reads whatever a host may say to EHLO. What is believed of it is bounded, and the same when the host says
// it twice.
func FuzzCapabilities(f *testing.F) {
	for _, s := range []string{
		"SIZE 52428800\nPIPELINING\n8BITMIME\nAUTH PLAIN LOGIN\nAUTH=LOGIN\nDELIVERBY 240\nLIMITS RCPTMAX=50 MAILMAX=10",
		"size -1", "SIZE 99999999999999999999", "DELIVERBY x", "LIMITS RCPTMAX=4294967296 =1 MAILMAX", "\n \n\x00\t", "CHUNKING BINARYMIME",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		lines := append([]string{"mx.x.test"}, strings.Split(text, "\n")...)
		c := parseCapabilities(dsn.Reply{Code: 250, Lines: lines})
		require.GreaterOrEqual(t, c.maxSize, int64(0))
		require.GreaterOrEqual(t, c.minBy, int64(0))
		require.True(t, c.maxRcpt >= 0 && c.maxMails >= 0)
		require.LessOrEqual(t, len(c.auth), len(text))
		again := parseCapabilities(dsn.Reply{Code: 250, Lines: append(lines, lines[1:]...)})
		again.auth, c.auth = nil, nil
		require.Equal(t, c, again)
		none := parseCapabilities(dsn.Reply{Code: 250, Lines: lines[:1]})
		require.Equal(t, capabilities{}, none)
	})
}

func decided(outcomes []Outcome) (n int) {
	for i := range outcomes {
		if outcomes[i].decided {
			n++
			if len(outcomes[i].Tried) > 0 {
				n += 1000 // decided twice
			}
		}
	}
	return n
}
