package lab_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
)

// converse plays the client: C: lines are sent, S: lines must match (as in path.Match), C+ lines are sent without
// waiting for what the server says in one write with the line after them, STARTTLS starts TLS, S-EOF expects the end.
func converse(t *testing.T, n *lab.Internet, addr, dialogue string) {
	t.Helper()
	conn, err := n.Dial(t.Context(), "tcp", addr)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	r := bufio.NewReader(conn)
	held := ""
	for line := range strings.SplitSeq(strings.TrimSpace(dialogue), "\n") {
		op, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch op {
		case "C+":
			held += arg + "\r\n"
		case "C:":
			_, err := io.WriteString(conn, held+arg+"\r\n")
			require.NoError(t, err, line)
			held = ""
		case "S:":
			got, err := r.ReadString('\n')
			require.NoError(t, err, line)
			ok, err := path.Match(strings.ReplaceAll(arg, "/", "?"), strings.ReplaceAll(strings.TrimRight(got, "\r\n"), "/", "?"))
			require.NoError(t, err)
			require.True(t, ok, "expected %q, got %q", arg, got)
		case "STARTTLS":
			conn, r = secure(t, n, conn)
		case "S-EOF":
			rest, _ := io.ReadAll(r)
			require.Empty(t, string(rest))
		default:
			t.Fatalf("no such step: %s", line)
		}
	}
}

func secure(t *testing.T, n *lab.Internet, conn net.Conn) (net.Conn, *bufio.Reader) {
	t.Helper()
	cfg := n.CA().ClientConfig()
	cfg.ServerName = "mx.aol.test"
	client := tls.Client(conn, cfg)
	require.NoError(t, client.HandshakeContext(t.Context()))
	return client, bufio.NewReader(client)
}

// arrived says what a server is expected to have in its mailbox: the recipients of each message.
type arrived [][]string

// A played dialogue is a server's behaviour and what a client sees of it.
type played struct {
	name       string
	behaviours []lab.Behaviour
	dialogue   string
	arrived    arrived
}

// dialogues are made anew for every run: some behaviours count.
func dialogues() []played {
	return []played{
		{
			name: "accepts everything, also a pipelined group",
			dialogue: `
			S: 220 mx.aol.test *
			C: EHLO c
			S: 250-mx.aol.test
			S: 250-PIPELINING
			S: 250-SIZE 52428800
			S: 250-8BITMIME
			S: 250-SMTPUTF8
			S: 250-DSN
			S: 250 ENHANCEDSTATUSCODES
			C+ MAIL FROM:<> SIZE=10 RET=HDRS ENVID=x
			C+ RCPT TO:<a@aol.test> NOTIFY=NEVER
			C: DATA
			S: 250 2.1.0 *
			S: 250 2.1.5 *
			S: 354 *
			C+ Subject: x
			C+
			C+ ..stuffed
			C: .
			S: 250 2.0.0 *
			C: QUIT
			S: 221 *
			S-EOF`,
			arrived: arrived{{"a@aol.test"}},
		},
		{
			name:       "refuses at the greeting and understands QUIT alone",
			behaviours: []lab.Behaviour{lab.Refuse(lab.AtGreeting, "554 5.7.1 open relay, open proxy\nor a dynamic address")},
			dialogue: `
			S: 554-5.7.1 open relay, open proxy
			S: 554 or a dynamic address
			C: EHLO c
			S: 503 *
			C: QUIT
			S: 221 *
			S-EOF`,
		},
		{
			name:       "refuses EHLO and takes HELO",
			behaviours: []lab.Behaviour{lab.On(lab.AtEHLO, refuseEHLO)},
			dialogue: `
			S: 220 *
			C: EHLO c
			S: 502 *
			C: HELO c
			S: 250 mx.aol.test
			C: MAIL FROM:<a@b.test> SIZE=3
			S: 555 5.5.4 *
			C: MAIL FROM:<a@b.test>
			S: 250 *`,
		},
		{
			name:       "refuses at MAIL",
			behaviours: []lab.Behaviour{lab.Refuse(lab.AtMail, "550 5.7.1 not you")},
			dialogue: `
			S: 220 *
			C: HELO c
			S: 250 *
			C: MAIL FROM:<a@b.test>
			S: 550 5.7.1 not you
			C: RCPT TO:<a@aol.test>
			S: 503 *`,
		},
		{
			name:       "refuses some recipients",
			behaviours: []lab.Behaviour{lab.Refuse(lab.AtRcpt, "550 5.1.1 who?", "no*@aol.test", "x@aol.test")},
			dialogue: `
			S: 220 *
			C: HELO c
			S: 250 *
			C: MAIL FROM:<a@b.test>
			S: 250 *
			C: RCPT TO:<nobody@AOL.test>
			S: 550 5.1.1 who?
			C: RCPT TO:<yes@aol.test>
			S: 250 *
			C: DATA
			S: 354 *
			C: .
			S: 250 *`,
			arrived: arrived{{"yes@aol.test"}},
		},
		{
			name:       "refuses DATA",
			behaviours: []lab.Behaviour{lab.Refuse(lab.AtData, "451 4.3.0 not now")},
			dialogue: `
			S: 220 *
			C: HELO c
			S: 250 *
			C: MAIL FROM:<a@b.test>
			S: 250 *
			C: RCPT TO:<a@aol.test>
			S: 250 *
			C: DATA
			S: 451 4.3.0 not now
			C: NOOP
			S: 250 *`,
		},
		{
			name:       "refuses after the dot",
			behaviours: []lab.Behaviour{lab.Refuse(lab.AtDot, "554 5.6.0 what a text")},
			dialogue:   transaction + "S: 554 5.6.0 what a text",
		},
		{
			name:       "a 421 ends the session",
			behaviours: []lab.Behaviour{lab.Refuse(lab.AtMail, "421 4.3.2 going down")},
			dialogue: `
			S: 220 *
			C: HELO c
			S: 250 *
			C: MAIL FROM:<a@b.test>
			S: 421 4.3.2 going down
			S-EOF`,
		},
		{name: "drops at the greeting", behaviours: []lab.Behaviour{lab.Drop(lab.AtGreeting)}, dialogue: "S-EOF"},
		{name: "drops before the dot is answered", behaviours: []lab.Behaviour{lab.Drop(lab.AtDot)}, dialogue: transaction + "S-EOF"},
		{
			name: "drops after taking", behaviours: []lab.Behaviour{lab.DropAfterTaking()}, dialogue: transaction + "S-EOF",
			arrived: arrived{{"a@aol.test"}},
		},
		{
			name:       "fails for a while, then no more",
			behaviours: []lab.Behaviour{lab.Tempfail(lab.AtRcpt, 2)},
			dialogue: `
			S: 220 *
			C: HELO c
			S: 250 *
			C: MAIL FROM:<a@b.test>
			S: 250 *
			C: RCPT TO:<a@aol.test>
			S: 451 4.3.0 *
			C: RCPT TO:<a@aol.test>
			S: 451 4.3.0 *
			C: RCPT TO:<a@aol.test>
			S: 250 *`,
		},
		{
			name:       "takes so many recipients and no more",
			behaviours: []lab.Behaviour{lab.Offer{MaxRecipients: 1}},
			dialogue: `
			S: 220 *
			C: HELO c
			S: 250 *
			C: MAIL FROM:<a@b.test>
			S: 250 *
			C: RCPT TO:<a@aol.test>
			S: 250 *
			C: RCPT TO:<b@aol.test>
			S: 452 4.5.3 *
			C: DATA
			S: 354 *
			C: .
			S: 250 *`,
			arrived: arrived{{"a@aol.test"}},
		},
		{
			name:       "LMTP answers for each recipient",
			behaviours: []lab.Behaviour{lab.Offer{LMTP: true}, lab.Refuse(lab.AtDot, "452 4.2.2 full", "b@*")},
			dialogue: `
			S: 220 *
			C: EHLO c
			S: 500 5.5.1 *
			C: HELO c
			S: 500 5.5.1 *
			C: LHLO c
			S: 250-*
			S: 250-*
			S: 250-*
			S: 250-*
			S: 250-*
			S: 250-*
			S: 250 *
			C: MAIL FROM:<a@b.test>
			S: 250 *
			C: RCPT TO:<a@aol.test>
			S: 250 *
			C: RCPT TO:<b@aol.test>
			S: 250 *
			C: DATA
			S: 354 *
			C: .
			S: 250 *
			S: 452 4.2.2 full`,
			arrived: arrived{{"a@aol.test"}},
		},
		{
			name:       "BDAT, also pipelined",
			behaviours: []lab.Behaviour{lab.Offer{Capabilities: []string{"CHUNKING", "BINARYMIME", "PIPELINING"}}},
			dialogue: `
			S: 220 *
			C: EHLO c
			S: 250-*
			S: 250-CHUNKING
			S: 250-BINARYMIME
			S: 250 PIPELINING
			C: MAIL FROM:<a@b.test> BODY=8BITMIME
			S: 555 *
			C: MAIL FROM:<a@b.test> BODY=BINARYMIME
			S: 250 *
			C: RCPT TO:<a@aol.test>
			S: 250 *
			C: DATA
			S: 503 *
			C+ BDAT 3
			C+ x
			C: BDAT 7 LAST
			S: 250 2.0.0 3 octets *
			C: .....
			S: 250 2.0.0 *`,
			arrived: arrived{{"a@aol.test"}},
		},
		{
			name:       "what is not offered is not taken",
			behaviours: []lab.Behaviour{lab.Offer{Capabilities: []string{}}},
			dialogue: `
			S: 220 *
			C: EHLO c
			S: 250 mx.aol.test
			C: MAIL FROM:<a@b.test> BODY=8BITMIME
			S: 555 *
			C: MAIL FROM:<ä@b.test>
			S: 553 5.6.7 *
			C: STARTTLS
			S: 502 *
			C: AUTH PLAIN AGEAYg==
			S: 502 *
			C: MAIL FROM:<a@b.test>
			S: 250 *
			C: RCPT TO:<a@b.test> NOTIFY=NEVER
			S: 555 *
			C: RCPT TO:<a@b.test>
			S: 250 *
			C: BDAT 0 LAST
			S: 502 *
			C: DATA
			S: 354 *`,
		},
		{
			name:       "pipelining that is not offered is noticed",
			behaviours: []lab.Behaviour{lab.Offer{Capabilities: []string{}}},
			dialogue: `
			S: 220 *
			C: EHLO c
			S: 250 mx.aol.test
			C+ NOOP
			C: NOOP
			S: 503 5.5.0 *
			S: 250 *`,
		},
		{
			name:       "SIZE is enforced, declared or not",
			behaviours: []lab.Behaviour{lab.Offer{Capabilities: []string{"SIZE 10"}}, lab.Refuse(lab.AtDot, "250 2.0.0 As you like")},
			dialogue: `
			S: 220 *
			C: EHLO c
			S: 250-*
			S: 250 SIZE 10
			C: MAIL FROM:<a@b.test> SIZE=11
			S: 552 5.3.4 *
			C: MAIL FROM:<a@b.test> SIZE=10
			S: 250 *
			C: RCPT TO:<a@aol.test>
			S: 250 *
			C: DATA
			S: 354 *
			C+ 123456789
			C: .
			S: 552 5.3.4 *`,
		},
		{
			name:       "octets come one by one",
			behaviours: []lab.Behaviour{lab.Offer{OneByte: true}},
			dialogue:   transaction + "S: 250 *",
			arrived:    arrived{{"a@aol.test"}},
		},
		{
			name:       "250 for everything, and nothing arrives",
			behaviours: []lab.Behaviour{lab.AlwaysOK()},
			dialogue: `
			S: 250 OK
			C: EHLO c
			S: 250 OK
			C: MAIL FROM:<a@b.test>
			S: 250 OK
			C: RCPT TO:<a@aol.test>
			S: 250 OK
			C: DATA
			S: 250 OK
			C: Subject:
			S: 250 OK
			C: .
			S: 250 OK
			C: QUIT
			S: 250 OK
			S-EOF`,
		},
		{
			name:       "AUTH PLAIN and LOGIN in the clear where that is offered",
			behaviours: []lab.Behaviour{lab.Offer{Users: users, AuthInClear: true, AuthRequired: true, Capabilities: []string{}}},
			dialogue: `
			S: 220 *
			C: EHLO c
			S: 250-*
			S: 250 AUTH PLAIN LOGIN
			C: MAIL FROM:<a@b.test>
			S: 530 5.7.0 *
			C: AUTH PLAIN AHVzZXIAd3Jvbmc=
			S: 535 5.7.8 *
			C: AUTH PLAIN !
			S: 501 *
			C: AUTH LOGIN
			S: 334 VXNlcm5hbWU6
			C: *
			S: 501 5.7.0 *
			C: AUTH LOGIN dXNlcg==
			S: 334 UGFzc3dvcmQ6
			C: c2VjcmV0
			S: 235 *
			C: AUTH PLAIN
			S: 503 *
			C: MAIL FROM:<a@b.test>
			S: 250 *`,
		},
		{
			name:       "AUTH over TLS only",
			behaviours: []lab.Behaviour{lab.Offer{Users: users, TLS: lab.TLSOffered, Capabilities: []string{}}},
			dialogue: `
			S: 220 *
			C: EHLO c
			S: 250-*
			S: 250 STARTTLS
			C: AUTH PLAIN AHVzZXIAc2VjcmV0
			S: 538 5.7.11 *
			C: STARTTLS
			S: 220 *
			STARTTLS
			C: MAIL FROM:<a@b.test>
			S: 503 *
			C: EHLO c
			S: 250-*
			S: 250 AUTH PLAIN LOGIN
			C: AUTH PLAIN
			S: 334 *
			C: AHVzZXIAc2VjcmV0
			S: 235 *`,
		},
		{
			name:       "TLS required",
			behaviours: []lab.Behaviour{lab.Offer{TLS: lab.TLSRequired, Capabilities: []string{}}},
			dialogue: `
			S: 220 *
			C: EHLO c
			S: 250-*
			S: 250 STARTTLS
			C: MAIL FROM:<a@b.test>
			S: 530 5.7.0 *
			C: STARTTLS
			S: 220 *
			STARTTLS
			C: EHLO c
			S: 250 mx.aol.test
			C: MAIL FROM:<a@b.test>
			S: 250 *`,
		},
		{
			name:       "TLS refused",
			behaviours: []lab.Behaviour{lab.Offer{TLS: lab.TLSRefused, Capabilities: []string{}}},
			dialogue: `
			S: 220 *
			C: EHLO c
			S: 250-*
			S: 250 STARTTLS
			C: STARTTLS
			S: 454 4.7.0 *
			C: MAIL FROM:<a@b.test>
			S: 250 *`,
		},
		{
			name:       "junk, then the session goes on",
			behaviours: []lab.Behaviour{lab.Times(1, lab.Junk(lab.AtMail)), lab.Raw(lab.AtRset, "250 a\r\n250 b\r\n")},
			dialogue: `
			S: 220 *
			C: HELO c
			S: 250 *
			C: MAIL FROM:<a@b.test>
			S: ` + "\x00\x01\x02\x16\x03\xff\xfe" + `
			S: ` + "\x80\x81\x82" + `
			C: MAIL FROM:<a@b.test>
			S: 250 *
			C: RSET
			S: 250 a
			S: 250 b`,
		},
		{
			name:     "commands out of order and commands that do not exist",
			dialogue: outOfOrder,
		},
	}
}

func refuseEHLO(s lab.Step) lab.Answer {
	if strings.HasPrefix(s.Line, "EHLO") {
		return lab.Answer{Reply: "502 5.5.1 what?"}
	}
	return lab.Answer{}
}

var users = map[string]string{"user": "secret"}

const (
	transactionTo = `
			S: 220 *
			C: HELO c
			S: 250 *
			C: MAIL FROM:<a@b.test>
			S: 250 *
			C: RCPT TO:<a@aol.test>
			S: 250 *`
	transaction = transactionTo + `
			C: DATA
			S: 354 *
			C+ Subject: x
			C: .
			`
	outOfOrder = `
			S: 220 *
			C: MAIL FROM:<a@b.test>
			S: 503 *
			C: RCPT TO:<a@b.test>
			S: 503 *
			C: DATA
			S: 503 *
			C: FROB
			S: 500 *
			C: VRFY x
			S: 252 *
			C: HELO c
			S: 250 *
			C: MAIL a@b.test
			S: 501 *
			C: MAIL FROM:a@b.test
			S: 501 *
			C: MAIL FROM:<"a>b"@b.test>
			S: 250 *
			C: MAIL FROM:<a@b.test>
			S: 503 *
			C: RCPT TO:<>
			S: 501 *
			C: DATA
			S: 554 *
			C: RSET
			S: 250 *
			C: RCPT TO:<a@b.test>
			S: 503 *
			C: BDAT x
			S: 502 *`
)

func TestServersBehaveAsTold(t *testing.T) { play(t, dialogues) }

// play plays dialogues that are made anew for every run.
func play(t *testing.T, dialogues func() []played) {
	t.Helper()
	for i, tt := range dialogues() {
		t.Run(tt.name, func(t *testing.T) {
			bothModes(t, func(t *testing.T, n *lab.Internet) {
				require.NoError(t, n.Zone("aol.test", aol))
				mx := n.Server("mx.aol.test", dialogues()[i].behaviours...)
				converse(t, n, "192.0.2.10:25", tt.dialogue)
				require.NoError(t, mx.Wait(t.Context(), func() bool { _, open := mx.Connections(); return open == 0 }))
				var got arrived
				for _, m := range mx.Mailbox() {
					got = append(got, m.Addresses())
				}
				require.Equal(t, tt.arrived, got)
				require.NotContains(t, mx.Transcript(), "c2VjcmV0", "no credentials in the transcript")
			})
		})
	}
}
