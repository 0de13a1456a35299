package deliver_test

import (
	"context"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/route"
)

// writes records what a world's connections write, write for write.
func (w *world) writes() func() []string {
	var mu sync.Mutex
	var all []string
	w.d.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := w.Dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &recorded{c, func(s string) {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, s)
		}}, nil
	}
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

type recorded struct {
	net.Conn
	wrote func(string)
}

func (c *recorded) Write(p []byte) (int, error) {
	c.wrote(string(p))
	return c.Conn.Write(p)
}

// std: C5
func TestTheEnvelopeGoesOutInOneWrite(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		writes := w.writes()
		mx := w.Server("mx.aol.test")
		for _, o := range w.all(t, direct, letter("a@aol.test", "b@aol.test")) {
			require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		}
		require.NoError(t, w.d.Close())
		require.Equal(t, []string{
			"EHLO mail.example.org\r\n",
			"MAIL FROM:<me@example.org> SIZE=26\r\nRCPT TO:<a@aol.test>\r\nRCPT TO:<b@aol.test>\r\nDATA\r\n",
			hello + ".\r\n",
			"QUIT\r\n",
		}, writes())
		require.Len(t, mx.Mailbox(), 1)
	})
}

// std: C5
func TestOneCommandAtATimeWithoutPIPELINING(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		writes := w.writes()
		w.Server("mx.aol.test", lab.Offer{Capabilities: []string{}}, lab.Refuse(lab.AtRcpt, "550 5.1.1 who?", "b@*"))
		outcomes := w.all(t, direct, letter("a@aol.test", "b@aol.test"))
		require.Equal(t, deliver.Delivered, outcomes[0].Result, "%v", outcomes[0])
		require.Equal(t, "550 5.1.1 who?", outcomes[1].Reply.Wire())
		require.Equal(t, []string{
			"EHLO mail.example.org\r\n", "MAIL FROM:<me@example.org>\r\n", "RCPT TO:<a@aol.test>\r\n", "RCPT TO:<b@aol.test>\r\n",
			"DATA\r\n", hello + ".\r\n",
		}, writes())
	})
}

// std: C5
func TestNothingIsAskedInVain(t *testing.T) {
	for reply, script := range map[string]string{
		"MAIL is refused": `
			C: MAIL *
			S: 550 5.7.1 no
			C: MAIL *
			S: 250 ok
			C: RCPT *
			S: 250 ok
			C: DATA
			S: 354 go
			C-BODY
			S: 250 taken`,
		"RCPT is refused": `
			C: MAIL *
			S: 250 ok
			C: RCPT *
			S: 550 5.7.1 no
			C: RSET
			S: 250 ok
			C: MAIL *
			S: 250 ok
			C: RCPT *
			S: 250 ok
			C: DATA
			S: 354 go
			C-BODY
			S: 250 taken`,
	} {
		t.Run(reply, func(t *testing.T) {
			bothWays(t, func(t *testing.T, w *world) {
				mx := w.Server("mx.aol.test", lab.Script("S: 220 mx\nC: EHLO *\nS: 250 mx"+script))
				require.Equal(t, "550 5.7.1 no", w.one(t, direct).Reply.String())
				require.Equal(t, deliver.Delivered, w.one(t, direct).Result)
				total, _ := mx.Connections()
				require.Equal(t, 1, total)
			})
		})
	}
}

// Hosts may say 354 though there is nobody to send to, or MAIL was refused. The lone dot ends that, and the session is good
// for the next message.
//
// std: C5
func TestTheLoneDot(t *testing.T) {
	for name, tt := range map[string]struct{ replies, stage string }{
		"RCPT is refused": {"S: 250 ok\nS: 550 5.1.1 no\nS: 550 5.1.1 no\nS: 354 go\nC: .\nS: 554 5.5.1 no recipients\n", "rcpt"},
		"MAIL is refused": {"S: 550 5.1.1 no\nS: 503 5.5.1 MAIL first\nS: 503 5.5.1 MAIL first\nS: 354 go\nC: .\nS: 554 5.5.1 no\n", "mail"},
		"DATA is refused": {"S: 250 ok\nS: 550 5.1.1 no\nS: 550 5.1.1 no\nS: 554 5.5.1 no recipients\nC: RSET\n", "rcpt"},
		"all is refused":  {"S: 550 5.1.1 no\nS: 503 5.5.1 MAIL first\nS: 503 5.5.1 MAIL first\nS: 503 5.5.1 MAIL first\n", "mail"},
		"MAIL waits":      {"S: 451 4.3.0 later\nS: 503 5.5.1 MAIL first\nS: 503 5.5.1 MAIL first\nS: 503 5.5.1 MAIL first\n", "mail"},
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, w *world) {
				reset, ok := "", ""
				if strings.HasSuffix(tt.replies, "C: RSET\n") {
					ok = "S: 250 reset\n"
				}
				w.Server("mx.aol.test", lab.Script("S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250 PIPELINING\n"+
					"C: MAIL *\nC: RCPT *\nC: RCPT *\nC: DATA\n"+tt.replies+reset+
					"C: MAIL *\nC: RCPT *\nC: DATA\n"+ok+"S: 250 ok\nS: 250 ok\nS: 354 go\nC-BODY\nS: 250 taken"))
				for _, o := range w.all(t, direct, letter("a@aol.test", "b@aol.test")) {
					require.Equal(t, tt.stage, string(o.Stage), "%v", o)
					if name == "MAIL waits" {
						require.Equal(t, "451 4.3.0 later", o.Reply.String())
						continue
					}
					require.Equal(t, deliver.PermFail, o.Result, "%v", o)
					require.Equal(t, "550 5.1.1 no", o.Reply.String())
				}
				require.Equal(t, deliver.Delivered, w.one(t, direct).Result)
			})
		})
	}
}

// std: C5
func TestRepliesOutOfStepEndTheSession(t *testing.T) {
	for name, script := range map[string]string{
		"one too many after EHLO": "S: 220 mx\nC: EHLO *\nS-RAW \"250-mx\\r\\n250 PIPELINING\\r\\n250 and more\\r\\n\"\nC-CLOSE",
		"354 to MAIL":             "S: 220 mx\nC: EHLO *\nS: 250 mx\nC: MAIL *\nS: 354 go\nC-CLOSE",
		"354 to RCPT":             "S: 220 mx\nC: EHLO *\nS: 250 mx\nC: MAIL *\nS: 250 ok\nC: RCPT *\nS: 334 go\nC-CLOSE",
		"250 to DATA": "S: 220 mx\nC: EHLO *\nS: 250 mx\nC: MAIL *\nS: 250 ok\n" +
			"C: RCPT *\nS: 250 ok\nC: RCPT *\nS: 250 ok\nC: DATA\nS: 250 ok\nC-CLOSE",
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, w *world) {
				w.Server("mx.aol.test", lab.Script(script))
				for _, o := range w.all(t, direct, letter("a@aol.test", "b@aol.test")) {
					require.Equal(t, deliver.TempFail, o.Result, "%v", o)
					require.Equal(t, "4.5.0", o.Status.String())
					require.False(t, o.PossiblyDelivered)
				}
			})
		})
	}
}

// A host whose reply to the dot is no reply to a dot may have the message.
func TestAnOddReplyToTheDotLeavesItOpen(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.Server("mx.aol.test", lab.Refuse(lab.AtDot, "354 go on"))
		o := w.one(t, direct)
		require.True(t, o.PossiblyDelivered, "%v", o)
		require.Equal(t, "354 go on", o.Reply.String())
	})
}

// The envelope of a thousand recipients, and the replies to it, fill every buffer on the way. A client that wrote all of
// it before it read would wait for the host, and the host for the client (RFC 2920, section 3.1).
//
// std: C5
func TestALargeEnvelopeDoesNotDeadlock(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		w.d.Limits.Recipients = 1000
		mx := w.Server("mx.aol.test", lab.Raw(lab.AtRcpt, strings.Repeat("250-"+strings.Repeat("x", 500)+"\r\n", 30)+"250 ok\r\n"))
		m := letter()
		for i := range 1000 {
			m.To = append(m.To, deliver.Recipient{Address: fmt.Sprintf("%s%d@aol.test", strings.Repeat("a-very-long-name", 30), i)})
		}
		for _, o := range w.all(t, direct, m) {
			require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		}
		mail := mx.Mailbox()
		require.Len(t, mail, 1)
		require.Len(t, mail[0].To, 1000)
	})
}

// std: C6
func TestEachRecipientHasItsOwnOutcome(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		mx := w.Server("mx.aol.test",
			lab.Refuse(lab.AtRcpt, "550 5.1.1 No such user", "nobody@*"), lab.Refuse(lab.AtRcpt, "452 4.2.2 Mailbox full", "full@*"),
			lab.Refuse(lab.AtRcpt, "450 busy", "busy@*"), lab.Refuse(lab.AtRcpt, "551 User not local", "moved@*"),
			lab.Refuse(lab.AtRcpt, "553 4.1.3 odd", "odd@*"), lab.Refuse(lab.AtRcpt, "251 Will forward", "forward@*"))
		outcomes := w.all(t, direct, letter("a@aol.test", "nobody@aol.test", "full@aol.test", "busy@aol.test",
			"moved@aol.test", "odd@aol.test", "forward@aol.test", "b@aol.test"))
		var got []string
		for _, o := range outcomes {
			got = append(got, o.Result.String()+" "+o.Status.String()+" "+string(o.Stage))
		}
		require.Equal(t, []string{
			"delivered 2.0.0 dot", "permfail 5.1.1 rcpt", "tempfail 4.2.2 rcpt", "tempfail 4.0.0 rcpt", "permfail 5.1.6 rcpt",
			"permfail 5.0.0 rcpt", "delivered 2.0.0 dot", "delivered 2.0.0 dot",
		}, got)
		mail := mx.Mailbox()
		require.Len(t, mail, 1)
		require.Equal(t, []string{"a@aol.test", "forward@aol.test", "b@aol.test"}, mail[0].Addresses())
	})
}

// std: C6
func TestTooManyRecipientsGoInMoreTransactions(t *testing.T) {
	for name, offer := range map[string]lab.Offer{
		"pipelined":     {MaxRecipients: 2},
		"one at a time": {MaxRecipients: 2, Capabilities: []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, w *world) {
				mx := w.Server("mx.aol.test", offer)
				for _, o := range w.all(t, direct, letter("a@aol.test", "b@aol.test", "c@aol.test", "d@aol.test", "e@aol.test")) {
					require.Equal(t, deliver.Delivered, o.Result, "%v", o)
					require.Empty(t, o.Tried)
				}
				var to [][]string
				for _, m := range mx.Mailbox() {
					to = append(to, m.Addresses())
				}
				require.Equal(t, [][]string{{"a@aol.test", "b@aol.test"}, {"c@aol.test", "d@aol.test"}, {"e@aol.test"}}, to)
				total, _ := mx.Connections()
				require.Equal(t, 1, total)
				require.Equal(t, 3, strings.Count(mx.Transcript(), "452 4.5.3"), "a host is not asked again for what it just refused")
			})
		})
	}
}

// std: C6
func TestWhatCountsAsTooMany(t *testing.T) {
	for reply, again := range map[string]bool{
		"452 4.5.3 too many": true, "452 too many": true, "552 too many recipients": true, "550 5.5.3 too many": true,
		"452 4.3.1 disk full": false, "552 5.2.2 mailbox full": false, "450 4.2.1 busy": false,
	} {
		t.Run(reply, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				w.Server("mx.aol.test", lab.Times(1, lab.Refuse(lab.AtRcpt, reply, "b@*")))
				outcomes := w.all(t, direct, letter("a@aol.test", "b@aol.test"))
				require.Equal(t, deliver.Delivered, outcomes[0].Result)
				require.Equal(t, again, outcomes[1].Result == deliver.Delivered, "%v", outcomes[1])
			})
		})
	}
}

// A host that has room for nobody at all is not asked for ever.
//
// std: C6
func TestTooManyAtTheFirstRecipient(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		mx := w.Server("mx.aol.test", lab.Refuse(lab.AtRcpt, "452 4.5.3 too many"))
		for _, o := range w.all(t, direct, letter("a@aol.test", "b@aol.test")) {
			require.Equal(t, deliver.TempFail, o.Result)
			require.Equal(t, "4.5.3", o.Status.String())
		}
		require.Equal(t, 1, strings.Count(mx.Transcript(), "C: MAIL"))
	})
}

// std: C6
func TestSoManyRecipientsInATransaction(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		mx := w.Server("mx.aol.test")
		m := letter()
		for i := range 250 {
			m.To = append(m.To, deliver.Recipient{Address: fmt.Sprintf("u%d@aol.test", i)})
		}
		for _, o := range w.all(t, direct, m) {
			require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		}
		var sizes []int
		for _, m := range mx.Mailbox() {
			sizes = append(sizes, len(m.To))
		}
		require.Equal(t, []int{100, 100, 50}, sizes)
	})
}

// What a host says of its limits is kept to, and never met.
//
// std: C6
func TestLimitsThatAHostTells(t *testing.T) {
	for name, tt := range map[string]struct {
		limits string
		sizes  []int // of the transactions
		opened int
	}{
		"recipients":             {"RCPTMAX=2", []int{2, 2, 1, 1}, 1},
		"messages":               {"MAILMAX=1", []int{5, 1}, 2},
		"both":                   {"MAILMAX=2 RCPTMAX=2", []int{2, 2, 1, 1}, 2},
		"domains":                {"RCPTDOMAINMAX=1", []int{2, 1, 2, 1}, 1},
		"all":                    {"MAILMAX=3 RCPTMAX=4 RCPTDOMAINMAX=2", []int{3, 2, 1}, 1},
		"more than we would use": {"MAILMAX=1000 RCPTMAX=1000 RCPTDOMAINMAX=1000", []int{5, 1}, 1},
		"none that make sense":   {"RCPTMAX=x RCPTDOMAINMAX=-1 MAILMAX RCPTMAX= =", []int{5, 1}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, w *world) {
				mx := w.Server("mx.aol.test", lab.Offer{Capabilities: []string{"PIPELINING", "LIMITS " + tt.limits}})
				to := letter("a@one.test", "b@ONE.test", "a@two.test", "a@three.test", "b@three.test")
				for _, o := range append(w.all(t, by(t, "smtp://mx.aol.test"), to), w.one(t, direct)) {
					require.Equal(t, deliver.Delivered, o.Result, "%v", o)
					require.Empty(t, o.Tried)
				}
				var sizes []int
				for _, m := range mx.Mailbox() {
					sizes = append(sizes, len(m.To))
				}
				require.Equal(t, tt.sizes, sizes)
				require.Equal(t, tt.opened, opened(mx))
				require.NotContains(t, mx.Transcript(), "S: 4", "no limit is met")
			})
		})
	}
}

// A host that gives more replies than it gets commands has said nothing for good about anybody: nobody knows whose its
// refusals were.
//
// std: C5
func TestRefusalsAmongTooManyReplies(t *testing.T) {
	ends := map[string]struct {
		script string
		want   []string
	}{
		"a refusal is taken for that of DATA": {
			"C: MAIL *\nC: RCPT *\nC: RCPT *\nC: DATA\nS: 250 ok\nS: 250 a\nS: 250 a\nS: 550 5.1.1 b is nobody\nS: 354 go\nS-HANG",
			[]string{"tempfail", "tempfail"},
		},
		"a refusal is taken for another's": {
			"C: MAIL *\nC: RCPT *\nC: RCPT *\nC: DATA\nS: 250 ok\nS: 550 5.1.1 a\nS: 550 5.1.1 a\nS: 250 b\nS: 354 go\nS-HANG",
			[]string{"tempfail", "tempfail"},
		},
		"all refusals are shifted": {
			"C: MAIL *\nC: RCPT *\nC: RCPT *\nC: DATA\nS: 500 5.5.1 what?\nS: 250 ok\nS: 250 a\nS: 250 b\nS: 354 go\nS-HANG",
			[]string{"tempfail", "tempfail"},
		},
		"none is too many": {
			"C: MAIL *\nC: RCPT *\nC: RCPT *\nC: DATA\nS: 250 ok\nS: 550 5.1.1 a\nS: 550 5.1.1 b\nS: 503 5.5.1 nobody\nS-HANG",
			[]string{"permfail", "permfail"},
		},
		"a goodbye is none": {
			"C: MAIL *\nC: RCPT *\nC: RCPT *\nC: DATA\nS: 250 ok\nS: 550 5.1.1 a\nS: 550 5.1.1 b\nS: 503 5.5.1 nobody\nS: 421 4.7.0 too many errors\nS-CLOSE",
			[]string{"permfail", "permfail"},
		},
	}
	for name, tt := range ends {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				// All replies come at once.
				said := regexp.MustCompile(`(?:S: .*\n)+`).ReplaceAllStringFunc(tt.script, func(lines string) string {
					return "S-RAW " + strconv.Quote(strings.ReplaceAll(strings.ReplaceAll(lines, "S: ", ""), "\n", "\r\n")) + "\n"
				})
				w.Server("mx.aol.test", lab.Script("S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250 PIPELINING\n"+said))
				for i, o := range w.all(t, direct, letter("a@aol.test", "b@aol.test")) {
					require.Equal(t, tt.want[i], o.Result.String(), "%v", o)
					require.False(t, o.PossiblyDelivered)
				}
			})
		})
	}
}

// When the session is lost between two transactions, those of the first have their answer, and the others go to the next
// host.
func TestALossBetweenTransactions(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("aol.test", twoHosts))
		w.d.Limits.Recipients = 2
		calls := 0
		w.Server("mx.aol.test", lab.On(lab.AtMail, func(lab.Step) lab.Answer {
			calls++
			return lab.Answer{Drop: calls == 2}
		}))
		second := w.Server("second.aol.test")
		outcomes := w.all(t, direct, letter("a@aol.test", "b@aol.test", "c@aol.test", "d@aol.test", "e@aol.test"))
		for i, host := range []string{"mx.aol.test", "mx.aol.test", "second.aol.test", "second.aol.test", "second.aol.test"} {
			require.Equal(t, deliver.Delivered, outcomes[i].Result, "%v", outcomes[i])
			require.Equal(t, host, outcomes[i].Host)
		}
		require.Len(t, second.Mailbox(), 2)
	})
}

// std: C7
func TestSizeIsDeclaredAndHeeded(t *testing.T) {
	for name, tt := range map[string]struct {
		capability string
		param      string
		result     deliver.Result
	}{
		"no limit said":   {"SIZE", "26", deliver.Delivered},
		"no limit":        {"SIZE 0", "26", deliver.Delivered},
		"just right":      {"size 26", "26", deliver.Delivered},
		"too big":         {"SIZE 25", "", deliver.PermFail},
		"beyond numbers":  {"SIZE 99999999999999999999999", "26", deliver.Delivered},
		"no number":       {"SIZE lots", "26", deliver.Delivered},
		"negative":        {"SIZE -1", "26", deliver.Delivered},
		"SIZE is unknown": {"HELP", "", deliver.Delivered},
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, w *world) {
				mx := w.Server("mx.aol.test", lab.Offer{Capabilities: []string{tt.capability}})
				o := w.one(t, direct)
				require.Equal(t, tt.result, o.Result, "%v", o)
				if o.Result == deliver.Delivered {
					require.Equal(t, tt.param, mx.Mailbox()[0].Params["SIZE"])
					return
				}
				require.Equal(t, "5.3.4", o.Status.String())
				require.Equal(t, "mx.aol.test", o.Host)
				require.NotContains(t, mx.Transcript(), "C: MAIL")
			})
		})
	}
}

// std: C8
func TestEightBitText(t *testing.T) {
	const seven = "Subject: x\r\n\r\nseven\r\n"
	late := seven + strings.Repeat("a line of seven bits\r\n", 5000) + "und ein ä am Ende\r\n"
	for name, tt := range map[string]struct {
		text  string
		offer []string
		found string // a line that arrives; "" is all as it was
	}{
		"8BITMIME takes it":         {"Subject: x\r\n\r\nä\r\n", []string{"8BITMIME"}, ""},
		"seven bits go anywhere":    {seven, []string{}, ""},
		"8-bit body, nowhere":       {"Subject: x\r\n\r\nä\r\n", []string{}, "w6QNCg=="},
		"8-bit header, nowhere":     {"Subject: ä\r\n\r\nx\r\n", []string{}, "Subject: =?utf-8?q?=C3=A4?="},
		"8-bit header with LF":      {"Subject: x\nX: ä\n\nx\n", []string{}, "X: =?utf-8?q?=C3=A4?="},
		"8-bit at the far end":      {late, []string{}, "und ein =C3=A4 am Ende"},
		"8-bit in a very long line": {"Subject: " + strings.Repeat("x", 100_000) + "ä\r\n\r\nx\r\n", []string{}, ""},
		"nothing at all":            {"", []string{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				mx := w.Server("mx.aol.test", lab.Offer{Capabilities: tt.offer})
				o := w.all(t, direct, letterOf(tt.text, "you@aol.test"))[0]
				require.Equal(t, deliver.Delivered, o.Result, "%v", o)
				got := mx.Mailbox()[0]
				switch {
				case len(tt.offer) > 0:
					require.Equal(t, "8BITMIME", got.Params["BODY"])
				case tt.text != seven && tt.text != "":
					for _, line := range strings.Split(string(got.Body), "\r\n") {
						require.LessOrEqual(t, len(line), 998)
						require.NotRegexp(t, "[^\\x00-\\x7f]", line)
					}
					require.Contains(t, string(got.Body), tt.found)
					return
				}
				require.Equal(t, tt.text, string(got.Body))
			})
			inMemory(t, func(t *testing.T, w *world) { // and as it is or not at all
				w.d.NoConversion = true
				mx := w.Server("mx.aol.test", lab.Offer{Capabilities: tt.offer})
				o := w.all(t, direct, letterOf(tt.text, "you@aol.test"))[0]
				if tt.found == "" && len(tt.text) < 100_000 {
					require.Equal(t, tt.text, string(mx.Mailbox()[0].Body))
					return
				}
				require.Equal(t, "permfail 5.6.3", o.Result.String()+" "+o.Status.String(), "%v", o)
				require.NotContains(t, mx.Transcript(), "C: MAIL")
			})
		})
	}
}

// std: C10
func TestInternationalMail(t *testing.T) {
	const utf8Header = "Subject: Grüße\r\n\r\nx\r\n"
	all, eight := []string{"8BITMIME", "SMTPUTF8"}, []string{"8BITMIME"}
	plain := []string{"me@example.org", "you@aol.test"}
	for name, tt := range map[string]struct {
		from, to, text string
		utf8           bool // the submitter asked for SMTPUTF8
		offer          []string
		status         string
		wire           []string // MAIL and RCPT addresses as they arrive
		used           bool     // SMTPUTF8 in MAIL
		found          string   // in the message that arrives
	}{
		"taken as it is": {
			from: "jörg@bücher.test", to: "hans@bücher.test", text: utf8Header, utf8: true, offer: all,
			status: "2.0.0", wire: []string{"jörg@bücher.test", "hans@bücher.test"}, used: true,
		},
		"domains become A-labels": {
			from: "me@bücher.test", to: "you@bücher.test", text: hello, utf8: false, offer: eight,
			status: "2.0.0", wire: []string{"me@xn--bcher-kva.test", "you@xn--bcher-kva.test"}, used: false,
		},
		"asked for and not needed": {
			from: "me@example.org", to: "you@aol.test", text: hello, utf8: true, offer: eight,
			status: "2.0.0", wire: plain, used: false,
		},
		"a local part in UTF-8": {
			from: "me@example.org", to: "jörg@aol.test", text: hello, utf8: true, offer: eight,
			status: "5.6.7", wire: nil, used: false,
		},
		"a reverse-path in UTF-8": {
			from: "jörg@example.org", to: "you@aol.test", text: hello, utf8: true, offer: eight,
			status: "5.6.7", wire: nil, used: false,
		},
		"a header in UTF-8": {
			from: "me@example.org", to: "you@aol.test", text: utf8Header, utf8: true, offer: eight,
			status: "2.0.0", wire: plain, used: false, found: "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=",
		},
		"an address in UTF-8 in the header": {
			from: "me@example.org", to: "you@aol.test", text: "From: <jörg@example.org>\r\n\r\nx\r\n", utf8: true, offer: eight,
			status: "5.6.7", wire: nil, used: false,
		},
		"a header in UTF-8, unasked but taken": {
			from: "me@example.org", to: "you@aol.test", text: utf8Header, utf8: false, offer: all,
			status: "2.0.0", wire: plain, used: true,
		},
		"a header of eight bits, unasked": {
			from: "me@example.org", to: "you@aol.test", text: utf8Header, utf8: false, offer: eight,
			status: "2.0.0", wire: plain, used: false,
		},
		"unasked but needed": {
			from: "me@example.org", to: "jörg@aol.test", text: hello, utf8: false, offer: all,
			status: "2.0.0", wire: []string{"me@example.org", "jörg@aol.test"}, used: true,
		},
		"not used where not needed": {
			from: "me@example.org", to: "you@aol.test", text: hello, utf8: false, offer: all,
			status: "2.0.0", wire: plain, used: false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				require.NoError(t, w.Zone("xn--bcher-kva.test", "@ MX 10 mx.aol.test."))
				mx := w.Server("mx.aol.test", lab.Offer{Capabilities: tt.offer})
				m := letterOf(tt.text, tt.to)
				m.From, m.UTF8 = tt.from, tt.utf8
				o := w.all(t, direct, m)[0]
				require.Equal(t, tt.status, o.Status.String(), "%v", o)
				if tt.wire == nil {
					require.Empty(t, mx.Mailbox())
					return
				}
				mail := mx.Mailbox()[0]
				require.Equal(t, tt.wire, append([]string{mail.From}, mail.Addresses()...))
				_, used := mail.Params["SMTPUTF8"]
				require.Equal(t, tt.used, used)
				require.Contains(t, string(mail.Body), tt.found)
			})
		})
	}
}

// One recipient that a host cannot be told of does not stop the others.
//
// std: C10
func TestOneRecipientInUTF8AmongOthers(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		mx := w.Server("mx.aol.test", lab.Offer{Capabilities: []string{"8BITMIME"}})
		outcomes := w.all(t, direct, letter("a@aol.test", "jörg@aol.test", "b@aol.test"))
		require.Equal(t, "5.6.7", outcomes[1].Status.String())
		require.Equal(t, []string{"a@aol.test", "b@aol.test"}, mx.Mailbox()[0].Addresses())
	})
}

// A host that takes no such address is passed over for one that does.
//
// std: C10
func TestAnotherHostMayTakeUTF8(t *testing.T) {
	for name, m := range map[string]*deliver.Message{
		"recipient": letter("jörg@aol.test"), "sender": letter("you@aol.test"), "header": letterOf("From: <jörg@example.org>\r\n\r\nx\r\n", "you@aol.test"),
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				if m.UTF8 = true; name == "sender" {
					m.From = "jörg@example.org"
				}
				require.NoError(t, w.Zone("aol.test", twoHosts))
				mx := w.Server("mx.aol.test", lab.Offer{Capabilities: []string{"8BITMIME"}})
				second := w.Server("second.aol.test", lab.Offer{Capabilities: []string{"8BITMIME", "SMTPUTF8"}})
				o := w.all(t, direct, m)[0]
				require.Equal(t, deliver.Delivered, o.Result, "%v", o)
				require.Equal(t, "second.aol.test", o.Host)
				require.NotContains(t, mx.Transcript(), "MAIL")
				second.Behave(lab.Offer{Capabilities: []string{"8BITMIME"}})
				require.NoError(t, w.d.Close())
				o = w.all(t, direct, m)[0]
				require.Equal(t, "permfail 5.6.7", o.Result.String()+" "+o.Status.String(), "no host takes it: %v", o)
			})
		})
	}
}

// std: C13
func TestRequestsForReportsArePassedOn(t *testing.T) {
	const taken = deliver.Delivered
	for name, tt := range map[string]struct {
		offer []string
		mail  map[string]string
		rcpt  []map[string]string
		want  []deliver.Result
	}{
		"DSN offered": {
			[]string{"DSN"},
			map[string]string{"RET": "HDRS", "ENVID": "a+2Bb+3Dc+20d"},
			[]map[string]string{
				{"NOTIFY": "SUCCESS,FAILURE", "ORCPT": "rfc822;orig+2Binal@aol.test"},
				{"NOTIFY": "NEVER"},
				{},
				{"ORCPT": `utf-8;j\x{F6}rg\x{2B}x@aol.test`},
				{"ORCPT": "rfc822;no-type@aol.test"},
				{"NOTIFY": "SUCCESS"},
			},
			[]deliver.Result{taken, taken, taken, taken, taken, taken},
		},
		"DSN not offered": {
			[]string{},
			map[string]string{},
			[]map[string]string{{}, {}, {}, {}, {}, {}},
			[]deliver.Result{deliver.Relayed, taken, taken, taken, taken, deliver.Relayed},
		},
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, w *world) {
				mx := w.Server("mx.aol.test", lab.Offer{Capabilities: tt.offer})
				m := letter()
				m.EnvelopeID, m.Return = "a+b=c d", dsn.ReturnHeaders
				m.To = []deliver.Recipient{
					{
						Address: "a@aol.test", Notify: dsn.NotifySuccess | dsn.NotifyFailure,
						Original: dsn.Address{Type: "rfc822", Addr: "orig+inal@aol.test"},
					},
					{Address: "b@aol.test", Notify: dsn.NotifyNever},
					{Address: "c@aol.test"},
					{Address: "d@aol.test", Original: dsn.Address{Type: "utf-8", Addr: "jörg+x@aol.test"}},
					{Address: "e@aol.test", Original: dsn.Address{Addr: "no-type@aol.test"}},
					{Address: "f@aol.test", Notify: dsn.NotifySuccess},
				}
				outcomes := w.all(t, direct, m)
				mail := mx.Mailbox()[0]
				require.Equal(t, tt.mail, mail.Params)
				for i, r := range mail.To {
					require.Equal(t, tt.rcpt[i], r.Params)
					require.Equal(t, tt.want[i], outcomes[i].Result)
				}
			})
		})
	}
}

func TestNothingInAnEnvelopeAddsToACommand(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.d.Hostname = "mail.example.org\r\nRSET"
		mx := w.Server("mx.aol.test")
		m := letter("you@aol.test")
		m.EnvelopeID, m.Return = "x\r\nRSET", "FULL\r\nRSET"
		m.To[0].Original = dsn.Address{Type: "rfc822;x\r\nRSET", Addr: "y\r\nRSET"}
		r := route.Route{Hops: []route.Hop{{HELO: "x\r\nRSET"}}}
		require.Equal(t, deliver.Delivered, w.all(t, r, m)[0].Result)
		require.Equal(t, deliver.Delivered, w.one(t, direct).Result)
		require.NotContains(t, mx.Transcript(), "C: RSET")
	})
}

// Whatever an envelope has in it, the commands are those of one message for one recipient.
func FuzzEnvelope(f *testing.F) {
	f.Add("me@example.org", "you@aol.test", "id", "rfc822", "orig@aol.test", "mail.example.org")
	f.Add("", "\"a b\\\"<>\"@aol.test", "a b+=\x00", "utf-8", "jörg\\+\r\n@aol.test", "x\r\nRSET")
	f.Add("jörg@bücher.test", "jörg@bücher.test.", "", "x;y", "z", "[IPv6:::1]")
	f.Add("a@b\r\nRSET", "you@aol.test> NOTIFY=NEVER", "x\nRSET", "x\r\n", "", " ")
	net, err := lab.New(lab.Options{InMemory: true})
	require.NoError(f, err)
	f.Cleanup(func() { _ = net.Close() })
	require.NoError(f, net.Zone("aol.test", aol))
	net.Server("mx.aol.test")
	commands := regexp.MustCompile(`^EHLO [^\r\n]+\r\n` +
		`(MAIL FROM:<[^\r\n]*>[^\r\n]*\r\nRCPT TO:<[^\r\n]*>[^\r\n]*\r\nDATA\r\n(` + regexp.QuoteMeta(hello) + `)?(\.\r\n)?)?(QUIT\r\n)?$`)
	f.Fuzz(func(t *testing.T, from, to, id, kind, original, helo string) {
		d := &deliver.Deliverer{Hostname: "mail.example.org", Limits: deliver.Limits{Idle: -1}}
		w := &world{Internet: net, d: d}
		writes := w.writes()
		m := letter(to)
		m.From, m.EnvelopeID, m.Return, m.UTF8 = from, id, dsn.Return(kind), len(id)%2 == 0
		m.To[0].Original, m.To[0].Notify = dsn.Address{Type: kind, Addr: original}, dsn.NotifySuccess
		r := route.Route{Hops: []route.Hop{{Kind: route.Smarthost, Host: "192.0.2.10", HELO: helo}}}
		o := d.Deliver(t.Context(), r, m)[0]
		require.NoError(t, d.Close())
		checkOutcome(t, &o, to)
		if said := strings.Join(writes(), ""); said != "" {
			require.Regexp(t, commands, said)
		}
	})
}

// std: C14
func TestALossAfterTheDotIsPossiblyADelivery(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Zone("aol.test", twoHosts))
		mx := w.Server("mx.aol.test", lab.Times(1, lab.DropAfterTaking()))
		second := w.Server("second.aol.test")
		m := letterOf("Message-ID: <1@example.org>\r\n\r\nx\r\n", "you@aol.test")
		r := route.Route{Hops: []route.Hop{{}, {Kind: route.Hold, On: route.OnAny}}}
		o := w.all(t, r, m)[0]
		require.Equal(t, deliver.TempFail, o.Result, "%v", o)
		require.True(t, o.PossiblyDelivered)
		require.Equal(t, deliver.StageDot, o.Stage)
		require.Contains(t, o.String(), "[possibly delivered]")
		require.Contains(t, w.log.String(), `"possibly_delivered":true`)
		require.Empty(t, second.Transcript(), "another host, or another hop, would deliver it twice")

		require.Equal(t, deliver.Delivered, w.all(t, direct, m)[0].Result)
		mail := mx.Mailbox()
		require.Len(t, mail, 2)
		require.Equal(t, mail[0].Body, mail[1].Body, "the retry is the same message, Message-ID and all")
	})
}

// std: C14
func TestSilenceAfterTheDotIsPossiblyADelivery(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.Server("mx.aol.test", lab.Delay(lab.AtDot, 11*time.Minute))
		o := w.one(t, direct)
		require.True(t, o.PossiblyDelivered)
		require.Contains(t, o.Detail, "did not answer within 10m0s")
	})
}

// Only those who were in the transaction may have the message.
//
// std: C14
func TestOthersAreNotPossiblyDelivered(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		w.d.Limits.Recipients = 1
		w.Server("mx.aol.test", lab.Drop(lab.AtDot))
		outcomes := w.all(t, direct, letter("a@aol.test", "b@aol.test"))
		require.True(t, outcomes[0].PossiblyDelivered)
		require.False(t, outcomes[1].PossiblyDelivered)
		require.Equal(t, deliver.TempFail, outcomes[1].Result)
	})
}

// std: C13
func TestWhoReportsSuccess(t *testing.T) {
	inMemory(t, func(t *testing.T, w *world) {
		m := letter("you@aol.test")
		m.To[0].Notify = dsn.NotifySuccess
		mx := w.Server("mx.aol.test", lab.Offer{Capabilities: []string{}})
		require.Equal(t, deliver.Relayed, w.all(t, direct, m)[0].Result)
		require.NoError(t, w.d.Close())
		mx.Behave(lab.Offer{Capabilities: []string{"DSN"}})
		require.Equal(t, deliver.Delivered, w.all(t, direct, m)[0].Result)
	})
}
