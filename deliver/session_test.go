package deliver_test

import (
	"bufio"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/route"
)

// megabytes is a body that no buffer on the way holds.
var megabytes = hello + strings.Repeat("A line to fill buffers with.\r\n", 50_000)

// stuck are the points at which a host can fall silent, and how long it may.
var stuck = map[string]struct {
	behaviours []lab.Behaviour
	hops       string // of the route; direct where ""
	body       string
	stage      deliver.Stage
	timeout    func(*deliver.Timeouts) *time.Duration
	std        time.Duration
}{
	"connect": {
		behaviours: some(lab.Hang(lab.AtConnect)), stage: deliver.StageConnect,
		timeout: func(t *deliver.Timeouts) *time.Duration { return &t.Connect }, std: 30 * time.Second,
	},
	"greeting": {
		behaviours: some(lab.Hang(lab.AtGreeting)), stage: deliver.StageGreeting,
		timeout: func(t *deliver.Timeouts) *time.Duration { return &t.Greeting }, std: 5 * time.Minute,
	},
	"ehlo": {
		behaviours: some(lab.Hang(lab.AtEHLO)), stage: deliver.StageEHLO,
		timeout: func(t *deliver.Timeouts) *time.Duration { return &t.EHLO }, std: 5 * time.Minute,
	},
	"starttls": {
		behaviours: some(lab.Hang(lab.AtTLS), lab.Offer{TLS: lab.TLSOffered}), hops: "direct tls=required", stage: deliver.StageTLS,
		timeout: func(t *deliver.Timeouts) *time.Duration { return &t.EHLO }, std: 5 * time.Minute,
	},
	"handshake": {
		behaviours: some(lab.Script("S: 220 x\nC: EHLO *\nS: 250-x\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\nS-HANG")),
		hops:       "direct tls=required", stage: deliver.StageTLS,
		timeout: func(t *deliver.Timeouts) *time.Duration { return &t.TLS }, std: time.Minute,
	},
	"implicit TLS": {
		behaviours: some(lab.Script("S-HANG")), hops: "smtps://mx.aol.test:25", stage: deliver.StageTLS,
		timeout: func(t *deliver.Timeouts) *time.Duration { return &t.TLS }, std: time.Minute,
	},
	"auth": {
		behaviours: some(lab.Hang(lab.AtAuth), lab.Offer{Users: users, AuthInClear: true}),
		hops:       "smtp://user@mx.aol.test secret=env:PASSWORD tls=none", stage: deliver.StageAuth,
		timeout: func(t *deliver.Timeouts) *time.Duration { return &t.Auth }, std: 2 * time.Minute,
	},
	"mail": {
		behaviours: some(lab.Hang(lab.AtMail)), stage: deliver.StageMail,
		timeout: func(t *deliver.Timeouts) *time.Duration { return &t.Mail }, std: 5 * time.Minute,
	},
	"mail, lockstep": {
		behaviours: some(lab.Hang(lab.AtMail), lab.Offer{Capabilities: []string{}}), stage: deliver.StageMail,
		timeout: func(t *deliver.Timeouts) *time.Duration { return &t.Mail }, std: 5 * time.Minute,
	},
	"rcpt": {
		behaviours: some(lab.Hang(lab.AtRcpt)), stage: deliver.StageRcpt,
		timeout: func(t *deliver.Timeouts) *time.Duration { return &t.Rcpt }, std: 5 * time.Minute,
	},
	"rcpt, lockstep": {
		behaviours: some(lab.Hang(lab.AtRcpt), lab.Offer{Capabilities: []string{}}), stage: deliver.StageRcpt,
		timeout: func(t *deliver.Timeouts) *time.Duration { return &t.Rcpt }, std: 5 * time.Minute,
	},
	"data": {
		behaviours: some(lab.Hang(lab.AtData)), stage: deliver.StageData,
		timeout: func(t *deliver.Timeouts) *time.Duration { return &t.Data }, std: 2 * time.Minute,
	},
	"body": { // two seconds more, in which the host may say why
		behaviours: some(lab.Hang(lab.AtBody)), body: megabytes, stage: deliver.StageDot,
		timeout: func(t *deliver.Timeouts) *time.Duration { return &t.Block }, std: 3 * time.Minute,
	},
	"dot": {
		behaviours: some(lab.Hang(lab.AtDot)), stage: deliver.StageDot,
		timeout: func(t *deliver.Timeouts) *time.Duration { return &t.Dot }, std: 10 * time.Minute,
	},
}

var users = map[string]string{"user": "open sesame"}

func some(b ...lab.Behaviour) []lab.Behaviour { return b }

// std: C1
func TestEveryStepHasItsTimeout(t *testing.T) {
	t.Setenv("PASSWORD", users["user"])
	for name, tt := range stuck {
		for _, own := range []time.Duration{0, 7 * time.Second} {
			t.Run(name+" "+own.String(), func(t *testing.T) {
				inMemory(t, func(t *testing.T, w *world) {
					w.Server("mx.aol.test", tt.behaviours...)
					want := tt.std
					if own > 0 {
						*tt.timeout(&w.d.Timeouts) = own
						want = own
					}
					if name == "body" {
						want += 2 * time.Second
					}
					begin := time.Now()
					o := w.all(t, stuckRoute(t, tt.hops), letterOf(orElse(tt.body, hello), "you@aol.test"))[0]
					require.Equal(t, deliver.TempFail, o.Result, "%v", o)
					require.Equal(t, tt.stage, o.Stage, "%v", o)
					require.Equal(t, want, time.Since(begin))
					require.Equal(t, name == "dot", o.PossiblyDelivered)
				})
			})
		}
	}
}

func stuckRoute(t *testing.T, hops string) route.Route {
	if hops == "" {
		return direct
	}
	return by(t, hops)
}

func orElse(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// std: C1
func TestAReplyInDropsGainsNoTime(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.Server("mx.aol.test", lab.Script("S-RAW \"22\"\n"+strings.Repeat("S-WAIT 1m\nS-RAW \"0\"\n", 4)+"S-HANG"))
		begin := time.Now()
		o := w.one(t, direct)
		require.Equal(t, deliver.StageGreeting, o.Stage, "%v", o)
		require.Contains(t, o.Detail, "did not answer within 5m0s")
		require.Equal(t, 5*time.Minute, time.Since(begin))
	})
}

// std: C1
func TestAnAttemptHasALimit(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.d.Timeouts.Total = 12 * time.Minute
		require.NoError(t, w.Zone("aol.test", "@ MX 10 mx\nmx A 192.0.2.1\nmx A 192.0.2.2\nmx A 192.0.2.3\nmx A 192.0.2.4"))
		w.Server("mx.aol.test", lab.Hang(lab.AtGreeting))
		begin := time.Now()
		o := w.one(t, direct)
		require.Equal(t, 12*time.Minute, time.Since(begin))
		require.Equal(t, deliver.TempFail, o.Result)
		require.Contains(t, o.Detail, "the attempt took longer than 12m0s")
		require.Len(t, o.Tried, 2)
	})
}

// A far end that takes the message drop by drop meets the limit of the attempt.
func TestABodyInDropsMeetsTheLimit(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.d.Timeouts.Total = 20 * time.Minute
		w.Server("mx.aol.test", lab.Script(upToBody+
			strings.Repeat("S-WAIT 1m\nC: *\n", 50)+"S-HANG"))
		begin := time.Now()
		o := w.all(t, direct, letterOf(megabytes, "you@aol.test"))[0]
		require.Equal(t, deliver.TempFail, o.Result, "%v", o)
		require.LessOrEqual(t, time.Since(begin), 20*time.Minute)
		require.False(t, o.PossiblyDelivered)
	})
}

func TestCancellationEndsAnAttemptAtOnce(t *testing.T) {
	t.Setenv("PASSWORD", users["user"])
	for name, tt := range stuck {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				require.NoError(t, w.Zone("aol.test", twoHosts+"mx AAAA 2001:db8::10"))
				w.Server("mx.aol.test", tt.behaviours...)
				second := w.Server("second.aol.test")
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(time.Second, func() { cancel(errors.New("the server stops")) })
				begin := time.Now()
				r := stuckRoute(t, tt.hops)
				r.Hops = append(r.Hops[:1:1], route.Hop{Kind: route.Hold, On: route.OnAny})
				o := w.allIn(ctx, t, r, letterOf(orElse(tt.body, hello), "you@aol.test"))[0]
				require.Equal(t, time.Second, time.Since(begin))
				require.Equal(t, deliver.TempFail, o.Result, "another hop is no answer to that: %v", o)
				require.Equal(t, tt.stage, o.Stage)
				require.Equal(t, name == "dot", o.PossiblyDelivered)
				require.Contains(t, o.Detail, "the server stops")
				require.Empty(t, second.Transcript())
			})
		})
	}
}

func TestCancellationOverRealSockets(t *testing.T) {
	t.Setenv("PASSWORD", users["user"])
	for name, tt := range map[string]struct {
		behaviour lab.Behaviour
		until     string // in the server's transcript
	}{
		"greeting": {lab.Hang(lab.AtGreeting), "hangs at greeting"},
		"mail":     {lab.Hang(lab.AtMail), "hangs at mail"},
		"body":     {lab.Hang(lab.AtBody), "hangs at body"},
		"dot":      {lab.Hang(lab.AtDot), "hangs at dot"},
	} {
		t.Run(name, func(t *testing.T) {
			w := sockets(t)
			mx := w.Server("mx.aol.test", tt.behaviour, lab.Offer{TLS: lab.TLSOffered})
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				_ = mx.WaitTranscript(t.Context(), tt.until)
				cancel()
			}()
			m := letter("you@aol.test")
			if name == "body" {
				m = letterOf(strings.Repeat(megabytes, 10), "you@aol.test")
			}
			o := w.allIn(ctx, t, direct, m)[0]
			require.Equal(t, deliver.TempFail, o.Result)
			require.Equal(t, name == "dot", o.PossiblyDelivered)
		})
	}
}

func TestAnAttemptThatIsOverBeforeItBegins(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		mx := w.Server("mx.aol.test")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, r := range []route.Route{direct, by(t, "smtp://192.0.2.10")} {
			o := w.allIn(ctx, t, r, letter("you@aol.test"))[0]
			require.Equal(t, deliver.TempFail, o.Result)
			require.Contains(t, o.Detail, "context canceled", "%v", o)
		}
		require.Empty(t, mx.Transcript())
	})
}

// std: C2
func TestHELOWhereEHLOIsUnknown(t *testing.T) {
	for _, reply := range []string{"500 5.5.1 what?", "502 5.5.1 not here", "550 no"} {
		bothWays(t, func(t *testing.T, w *world) {
			mx := w.Server("mx.aol.test", lab.On(lab.AtEHLO, func(s lab.Step) lab.Answer {
				if strings.HasPrefix(s.Line, "EHLO") {
					return lab.Answer{Reply: reply}
				}
				return lab.Answer{}
			}))
			o := w.one(t, direct)
			require.Equal(t, deliver.Delivered, o.Result, "%v", o)
			require.Equal(t, "mail.example.org", mx.Mailbox()[0].HELO)
			require.Empty(t, mx.Mailbox()[0].Params, "what EHLO did not offer is not used")
			require.Contains(t, mx.Transcript(), "C: EHLO mail.example.org")
			require.Contains(t, mx.Transcript(), "C: HELO mail.example.org")
		})
	}
}

// std: C2
func TestEHLORefusedForNow(t *testing.T) {
	for _, reply := range []string{"421 4.3.2 no", "451 4.3.0 no"} {
		inMemory(t, func(t *testing.T, w *world) {
			mx := w.Server("mx.aol.test", lab.Refuse(lab.AtEHLO, reply))
			o := w.one(t, direct)
			require.Equal(t, deliver.TempFail, o.Result)
			require.Equal(t, deliver.StageEHLO, o.Stage)
			require.NotContains(t, mx.Transcript(), "C: HELO")
		})
	}
}

func TestEHLOAndHELORefused(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.Server("mx.aol.test", lab.Refuse(lab.AtEHLO, "550 5.7.1 your name is bad"))
		o := w.one(t, direct)
		require.Equal(t, deliver.TempFail, o.Result, "a word about the host is not one about the recipient")
		require.Equal(t, "550 5.7.1 your name is bad", o.Reply.Wire(), "and still what it said, exactly")
		require.Equal(t, "4.7.1", o.Status.String())
	})
}

// std: C2
func TestCapabilitiesAreAskedForAgainAfterSTARTTLS(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		w.Server("mx.aol.test", lab.Script(`
			S: 220 mx.aol.test
			C: EHLO mail.example.org
			S: 250-mx.aol.test
			S: 250-PIPELINING
			S: 250-SIZE 5
			S: 250-DSN
			S: 250-8BITMIME
			S: 250 STARTTLS
			C: STARTTLS
			S: 220 go
			STARTTLS
			C: EHLO mail.example.org
			S: 250-mx.aol.test
			S: 250 SIZE
			C: MAIL FROM:<me@example.org> SIZE=26
			S: 250 ok
			C: RCPT TO:<you@aol.test>
			S: 250 ok
			C: DATA
			S: 354 go
			C-BODY
			S: 250 taken`))
		m := letter("you@aol.test")
		m.To[0].Notify = 2
		require.True(t, w.all(t, direct, m)[0].Result.Success())
	})
}

// std: C2
func TestCapabilitiesAreForgottenWhereOnlyHELOWorksAfterSTARTTLS(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		w.Server("mx.aol.test", lab.Script(`
			S: 220 mx.aol.test
			C: EHLO mail.example.org
			S: 250-mx.aol.test
			S: 250-PIPELINING
			S: 250-SIZE
			S: 250 STARTTLS
			C: STARTTLS
			S: 220 go
			STARTTLS
			C: EHLO mail.example.org
			S: 502 what?
			C: HELO mail.example.org
			S: 250 mx.aol.test
			C: MAIL FROM:<me@example.org>
			S: 250 ok
			C: RCPT TO:<you@aol.test>
			S: 250 ok
			C: DATA
			S: 354 go
			C-BODY
			S: 250 taken`))
		require.Equal(t, deliver.Delivered, w.one(t, direct).Result)
	})
}

// std: C3
func TestARefusalOfTheHostIsTemporary(t *testing.T) {
	for _, tt := range []struct{ at, reply, status string }{
		{"greeting", "554 5.7.1 open relay, open proxy\nor a dynamic address", "4.7.1"},
		{"greeting", "554 go away", "4.3.2"},
		{"greeting", "550 5.3.2 closed", "4.3.2"},
		{"greeting", "421 4.7.0 too many connections", "4.7.0"},
		{"greeting", "450 4.3.2 busy", "4.3.2"},
		{"greeting", "250 odd", "4.5.0"},
		{"ehlo", "421 4.3.2 no", "4.3.2"},
		{"mail", "421 4.3.2 shutting down", "4.3.2"},
		{"rcpt", "421 4.3.2 shutting down", "4.3.2"},
		{"data", "421 shutting down", "4.3.2"},
		{"dot", "421 4.3.2 shutting down", "4.3.2"},
	} {
		t.Run(tt.at+" "+tt.reply[:3], func(t *testing.T) {
			bothWays(t, func(t *testing.T, w *world) {
				mx := w.Server("mx.aol.test", lab.Refuse(lab.Stage(tt.at), tt.reply))
				o := w.one(t, direct)
				assert.Equal(t, deliver.TempFail, o.Result, "%v", o)
				assert.Equal(t, tt.status, o.Status.String())
				assert.Equal(t, tt.at, string(o.Stage))
				assert.Equal(t, "mx.aol.test", o.Host)
				assert.Equal(t, strings.ReplaceAll(tt.reply, "\n", " "), o.Reply.String(), "the host's words are kept")
				assert.False(t, o.PossiblyDelivered)
				assert.False(t, o.RouteTrouble)
				require.NoError(t, w.d.Close())
				if tt.reply[:3] != "421" && tt.reply[:3] != "250" {
					assert.Contains(t, mx.Transcript(), "C: QUIT")
				}
			})
		})
	}
}

// std: C3
func Test421InTheMiddleIsTheWordForAllThatIsOpen(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("aol.test", "@ MX 10 mx\n@ MX 20 second\nmx A 192.0.2.10\nsecond A 192.0.2.20"))
		w.Server("mx.aol.test", lab.Refuse(lab.AtRcpt, "550 5.1.1 who?", "no@*"), lab.Refuse(lab.AtRcpt, "421 4.3.2 bye", "c@*"))
		second := w.Server("second.aol.test")
		m := letter("a@aol.test", "no@aol.test", "c@aol.test", "d@aol.test")
		outcomes := w.all(t, direct, m)
		require.Equal(t, deliver.PermFail, outcomes[1].Result)
		for _, i := range []int{0, 2, 3} {
			require.Equal(t, deliver.Delivered, outcomes[i].Result, "%v", outcomes[i])
			require.Equal(t, "421 4.3.2 bye", outcomes[i].Tried[0].Reply.String())
		}
		require.Equal(t, []string{"a@aol.test", "c@aol.test", "d@aol.test"}, second.Mailbox()[0].Addresses())
	})
}

// std: C4
func TestReplies(t *testing.T) {
	long := strings.Repeat("x", deliver.MaxReplyLine)
	for name, tt := range map[string]struct {
		in    string
		want  string // the reply's wire form; "" is an error
		error string
	}{
		"one line":           {"250 ok\r\n", "250 ok", ""},
		"several lines":      {"250-a\r\n250-\r\n250 c\r\n", "250-a\n250-\n250 c", ""},
		"no text":            {"250\r\n", "250 ", ""},
		"a space alone":      {"250 \r\n", "250 ", ""},
		"last without text":  {"250-a\r\n250\r\n", "250-a\n250 ", ""},
		"bare LF":            {"250-a\n250 b\n", "250-a\n250 b", ""},
		"octets over 127":    {"550 \xc3\xa4 \xff\r\n", "550 \xc3\xa4 \xff", ""},
		"two replies":        {"250 a\r\n550 b\r\n", "250 a", ""},
		"codes differ":       {"250-a\r\n550 b\r\n", "", "250 and 550"},
		"no code":            {"hello\r\n", "", `it answered "hello"`},
		"empty line":         {"\r\n", "", `it answered ""`},
		"code 199":           {"199 x\r\n", "", "does not speak SMTP"},
		"code 600":           {"600 x\r\n", "", "does not speak SMTP"},
		"four digits":        {"2500 x\r\n", "", "does not speak SMTP"},
		"a long line":        {"250 " + long + "\r\n", "", "longer than 4096"},
		"nearly a long line": {"250 " + long[:4000] + "\r\n", "250 " + long[:4000], ""},
		"too many lines":     {strings.Repeat("250-x\r\n", deliver.MaxReplyLines) + "250 x\r\n", "", "has no end"},
		"nearly so": {
			strings.Repeat("250-x\r\n", deliver.MaxReplyLines-1) + "250 x\r\n",
			strings.Repeat("250-x\n", deliver.MaxReplyLines-1) + "250 x", "",
		},
		"too many octets":     {strings.Repeat("250-"+long[:4000]+"\r\n", 5) + "250 x\r\n", "", "has no end"},
		"the end":             {"", "", "EOF"},
		"the end in a line":   {"250 o", "", "unexpected EOF"},
		"the end after lines": {"250-a\r\n", "", "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			r := bufio.NewReaderSize(strings.NewReader(tt.in), deliver.MaxReplyLine)
			reply, err := deliver.ReadReply(r)
			if tt.want == "" {
				require.ErrorContains(t, err, tt.error)
				require.True(t, reply.IsZero())
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, reply.Wire())
		})
	}
}

// std: C4
func TestRepliesThatAreNone(t *testing.T) {
	for name, tt := range map[string]struct {
		octets string
		detail string
	}{
		"codes differ": {"250-a\r\n550 b\r\n", "one reply has the codes 250 and 550"},
		"web server":   {"HTTP/1.1 400 Bad Request\r\n\r\n", `it answered "HTTP/1.1 400 Bad Request"`},
		"binary":       {"\x00\x01\x02\r\n", `it answered "\x00\x01\x02"`},
	} {
		for _, at := range []lab.Stage{lab.AtGreeting, lab.AtEHLO, lab.AtMail, lab.AtRcpt, lab.AtData} {
			t.Run(name+" "+string(at), func(t *testing.T) {
				bothWays(t, func(t *testing.T, w *world) {
					w.Server("mx.aol.test", lab.Raw(at, tt.octets))
					o := w.one(t, direct)
					require.Equal(t, deliver.TempFail, o.Result, "%v", o)
					require.Equal(t, "4.5.0", o.Status.String())
					require.Equal(t, string(at), string(o.Stage))
					require.Contains(t, o.Detail, tt.detail)
					require.True(t, o.Reply.IsZero())
					require.False(t, o.PossiblyDelivered)
				})
			})
		}
	}
}

// std: C4
func TestLineFeedsAloneEndReplies(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		w.Server("mx.aol.test", lab.Raw(lab.AtGreeting, "220-hello\n220 world\n"), lab.Raw(lab.AtEHLO, "250-mx\n250 PIPELINING\n"),
			lab.Raw(lab.AtRcpt, "250 ok\n"), lab.Refuse(lab.AtDot, "554 5.6.0 a\nb"))
		o := w.one(t, direct)
		require.Equal(t, "554-5.6.0 a\n554 b", o.Reply.Wire())
	})
}

func FuzzReply(f *testing.F) {
	seeds := []string{"250 ok\r\n", "250-a\r\n250 b\r\n", "250-a\n250\n", "250-a\r\n550 b\r\n", "\x00\r\n", "25", "250-\r\n"}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		reply, err := deliver.ReadReply(bufio.NewReaderSize(strings.NewReader(in), deliver.MaxReplyLine))
		if err != nil {
			require.True(t, reply.IsZero())
			return
		}
		require.True(t, reply.Code >= 200 && reply.Code <= 599)
		require.NotEmpty(t, reply.Lines)
		require.LessOrEqual(t, len(reply.Lines), deliver.MaxReplyLines)
		size := 0
		for _, l := range reply.Lines {
			require.NotContains(t, l, "\n")
			size += len(l)
		}
		require.LessOrEqual(t, size, deliver.MaxReply+deliver.MaxReplyLine)
		wire := strings.ReplaceAll(reply.Wire(), "\n", "\r\n") + "\r\n"
		again, err := deliver.ReadReply(bufio.NewReaderSize(strings.NewReader(wire), deliver.MaxReplyLine))
		if err == nil { // a lone CR at the end of a line is lost
			require.Equal(t, reply.Code, again.Code)
			require.Len(t, again.Lines, len(reply.Lines))
		}
	})
}
