package lab_test

import (
	"crypto/tls"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
)

// chunks is a dialogue up to the first BDAT.
const chunks = `
	S: 220 *
	C: EHLO c
	S: 250-*
	S: 250-CHUNKING
	S: 250 PIPELINING
	C: MAIL FROM:<a@b.test>
	S: 250 *
	C: RCPT TO:<a@aol.test>
	S: 250 *
	`

func chunked(more ...lab.Behaviour) []lab.Behaviour {
	return append(more, lab.Offer{Capabilities: []string{"CHUNKING", "PIPELINING"}})
}

// RFC 3030, sections 2 and 4.
func chunkDialogues() []played {
	return []played{
		{
			name: "one chunk", behaviours: chunked(), arrived: arrived{{"a@aol.test"}},
			dialogue: chunks + "C+ BDAT 3 LAST\nC: x\nS: 250 *",
		},
		{
			name: "an empty last chunk, all in one write", behaviours: chunked(), arrived: arrived{{"a@aol.test"}},
			dialogue: chunks + "C+ BDAT 3\nC+ x\nC+ BDAT 0 LAST\nC: NOOP\nS: 250 2.0.0 3 octets *\nS: 250 2.0.0 Ok: taken\nS: 250 2.0.0 Ok",
		},
		{
			name: "an empty message", behaviours: chunked(), arrived: arrived{{"a@aol.test"}},
			dialogue: chunks + "C: BDAT 0 LAST\nS: 250 *",
		},
		{
			name: "commands in a chunk are none", behaviours: chunked(), arrived: arrived{{"a@aol.test"}},
			dialogue: chunks + "C+ BDAT 15\nC+ .\nC+ DATA\nC+ RSET\nC: BDAT 0 LAST\nS: 250 2.0.0 15 *\nS: 250 2.0.0 Ok: taken",
		},
		{
			name: "BDAT, then DATA", behaviours: chunked(),
			dialogue: chunks + "C+ BDAT 3\nC: x\nS: 250 *\nC: DATA\nS: 503 5.5.1 DATA after BDAT\nC: RCPT TO:<b@aol.test>\nS: 503 *",
		},
		{
			name: "RSET between chunks", behaviours: chunked(), arrived: arrived{{"b@aol.test"}},
			dialogue: chunks + "C+ BDAT 3\nC: x\nS: 250 *\nC: RSET\nS: 250 *\n" +
				"C: MAIL FROM:<a@b.test>\nS: 250 *\nC: RCPT TO:<b@aol.test>\nS: 250 *\nC+ BDAT 3 LAST\nC: y\nS: 250 *",
		},
		{
			name: "every recipient was refused", behaviours: chunked(lab.Refuse(lab.AtRcpt, "550 5.1.1 no")),
			dialogue: `
				S: 220 *
				C: EHLO c
				S: 250-*
				S: 250-CHUNKING
				S: 250 PIPELINING
				C: MAIL FROM:<a@b.test>
				S: 250 *
				C+ RCPT TO:<a@aol.test>
				C+ BDAT 6
				C+ QUIT
				C: NOOP
				S: 550 5.1.1 no
				S: 554 5.5.1 No valid recipients
				S: 250 *`,
		},
		{
			name: "MAIL was refused, and the chunks came with it", behaviours: chunked(lab.Refuse(lab.AtMail, "550 5.7.1 no")),
			dialogue: `
				S: 220 *
				C: EHLO c
				S: 250-*
				S: 250-CHUNKING
				S: 250 PIPELINING
				C+ MAIL FROM:<a@b.test>
				C+ RCPT TO:<a@aol.test>
				C+ BDAT 6
				C+ QUIT
				C+ BDAT 6 LAST
				C+ QUIT
				C: NOOP
				S: 550 *
				S: 503 *
				S: 503 5.5.1 Say MAIL first
				S: 503 5.5.1 Say MAIL first
				S: 250 *`,
		},
		{
			name: "a chunk after the last one", behaviours: chunked(), arrived: arrived{{"a@aol.test"}},
			dialogue: chunks + "C+ BDAT 3 LAST\nC+ x\nC+ BDAT 6 LAST\nC+ QUIT\nC: NOOP\nS: 250 *\nS: 503 *\nS: 250 *",
		},
		{
			name: "a chunk is refused, and those that were on the way", behaviours: chunked(lab.Refuse(lab.AtChunk, "452 4.3.1 disk full")),
			dialogue: chunks + "C+ BDAT 3\nC+ x\nC+ BDAT 3\nC+ y\nC+ BDAT 3 LAST\nC+ z\nC: NOOP\n" +
				"S: 452 4.3.1 disk full\nS: 503 *\nS: 503 *\nS: 250 *",
		},
		{
			name: "the session cannot go on after a bad size", behaviours: chunked(),
			dialogue: chunks + "C: BDAT -1 LAST\nS: 501 *\nS-EOF",
		},
		{
			name:       "chunks wait for each other without PIPELINING",
			behaviours: some(lab.Offer{Capabilities: []string{"CHUNKING"}}),
			dialogue: `
				S: 220 *
				C: EHLO c
				S: 250-*
				S: 250 CHUNKING
				C: MAIL FROM:<a@b.test>
				S: 250 *
				C: RCPT TO:<a@aol.test>
				S: 250 *
				C+ BDAT 3
				C+ x
				C: BDAT 0 LAST
				S: 503 5.5.0 Pipelining is not offered
				S: 250 *`,
			arrived: arrived{{"a@aol.test"}},
		},
		{
			name:       "LMTP answers the last chunk for each recipient",
			behaviours: some(lab.Offer{LMTP: true, Capabilities: []string{"CHUNKING"}}, lab.Refuse(lab.AtDot, "452 4.2.2 full", "b@*")),
			dialogue: `
				S: 220 *
				C: LHLO c
				S: 250-*
				S: 250 CHUNKING
				C: MAIL FROM:<a@b.test>
				S: 250 *
				C: RCPT TO:<a@aol.test>
				S: 250 *
				C: RCPT TO:<b@aol.test>
				S: 250 *
				C+ BDAT 3 LAST
				C: x
				S: 250 *
				S: 452 4.2.2 full`,
			arrived: arrived{{"a@aol.test"}},
		},
	}
}

func TestChunks(t *testing.T) { play(t, chunkDialogues) }

func TestChunksAreCounted(t *testing.T) {
	bothModes(t, func(t *testing.T, n *lab.Internet) {
		mx := n.Server("mx.aol.test", chunked()...)
		converse(t, n, "mx.aol.test:25", chunks+"C+ BDAT 3\nC+ x\nC+ BDAT 4\nC+ .y\nC: BDAT 0 LAST\nS: 250 *\nS: 250 *\nS: 250 *"+
			"\nC: MAIL FROM:<a@b.test>\nS: 250 *\nC: RCPT TO:<a@aol.test>\nS: 250 *\nC: DATA\nS: 354 *\nC+ ..z\nC: .\nS: 250 *")
		msgs := mx.Mailbox()
		require.Len(t, msgs, 2)
		require.True(t, msgs[0].BDAT)
		require.Equal(t, 3, msgs[0].Chunks)
		require.Equal(t, "x\r\n.y\r\n", string(msgs[0].Body))
		require.False(t, msgs[1].BDAT)
		require.Zero(t, msgs[1].Chunks)
		require.Equal(t, ".z\r\n", string(msgs[1].Body))
	})
}

// What MAIL and RCPT may ask for, and what they get.
func TestParameters(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"MAIL FROM:<a@b.test> BODY=7BIT", "250 *"},
		{"MAIL FROM:<a@b.test> BODY=8bitmime", "250 *"},
		{"MAIL FROM:<a@b.test> BODY=BINARYMIME", "250 *"},
		{"MAIL FROM:<a@b.test> BODY=", "501 *"},
		{"MAIL FROM:<a@b.test> BODY=9BIT", "501 *"},
		{"MAIL FROM:<a@b.test> SIZE=20", "250 *"},
		{"MAIL FROM:<a@b.test> SIZE=21", "552 5.3.4 *"},
		{"MAIL FROM:<a@b.test> SIZE=", "501 *"},
		{"MAIL FROM:<a@b.test> SIZE=-1", "501 *"},
		{"MAIL FROM:<a@b.test> SIZE=1 SIZE=1", "501 *"},
		{"MAIL FROM:<a@b.test> SMTPUTF8=yes", "501 *"},
		{"MAIL FROM:<a@b.test>SIZE=1", "501 *"},
		{"MAIL FROM: <a@b.test>", "501 *"},
		{"MAIL FROM:<a@b.test> RET=HDRS ENVID=a+2Bb", "250 *"},
		{"MAIL FROM:<a@b.test> RET=BODY", "501 *"},
		{"MAIL FROM:<a@b.test> ENVID=", "501 *"},
		{"MAIL FROM:<a@b.test> ENVID=a=b", "501 *"},
		{"MAIL FROM:<a@b.test> ENVID=a+2", "501 *"},
		{"MAIL FROM:<a@b.test> FROB=1", "555 *"},
		{"MAIL FROM:<a@b.test> REQUIRETLS", "555 *"}, // not in the clear
		{"MAIL FROM:<a@b.test> AUTH=<>", "555 *"},
		{"MAIL FROM:<a@b.test> MT-PRIORITY=9", "250 *"},
		{"MAIL FROM:<a@b.test> MT-PRIORITY=-9", "250 *"},
		{"MAIL FROM:<a@b.test> MT-PRIORITY=10", "501 *"},
		{"MAIL FROM:<a@b.test> MT-PRIORITY=+1", "501 *"},
		{"MAIL FROM:<a@b.test> MT-PRIORITY", "501 *"},
		{"MAIL FROM:<a@b.test> BY=60;R", "250 *"},
		{"MAIL FROM:<a@b.test> BY=59;R", "555 *"},
		{"MAIL FROM:<a@b.test> BY=59;N", "250 *"},
		{"MAIL FROM:<a@b.test> BY=-5;NT", "250 *"},
		{"MAIL FROM:<a@b.test> BY=0;R", "501 *"},
		{"MAIL FROM:<a@b.test> BY=1234567890;R", "501 *"},
		{"MAIL FROM:<a@b.test> BY=60", "501 *"},
		{"MAIL FROM:<a@b.test> BY=60;X", "501 *"},
		{"MAIL FROM:<a@b.test> BY=60;RX", "501 *"},
		{"RCPT TO:<a@aol.test> NOTIFY=NEVER", "250 *"},
		{"RCPT TO:<a@aol.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@aol.test", "250 *"},
		{"RCPT TO:<a@aol.test> NOTIFY=NEVER,DELAY", "501 *"},
		{"RCPT TO:<a@aol.test> NOTIFY=DELAY,DELAY", "501 *"},
		{"RCPT TO:<a@aol.test> ORCPT=a@aol.test", "501 *"},
		{"RCPT TO:<a@aol.test> ORCPT=utf-8;\\x{E4}@aol.test", "250 *"},
		{"RCPT TO:<a@aol.test> SIZE=1", "555 *"},
	} {
		t.Run(tt.line, func(t *testing.T) {
			n, err := lab.New(lab.Options{InMemory: true})
			require.NoError(t, err)
			defer func() { require.NoError(t, n.Close()) }()
			n.Server("mx.aol.test", lab.Offer{TLS: lab.TLSOffered, Capabilities: []string{
				"SIZE 20", "8BITMIME", "BINARYMIME", "CHUNKING", "DSN", "SMTPUTF8", "REQUIRETLS", "MT-PRIORITY MIXER", "DELIVERBY 60",
			}})
			hello := "S: 220 *\nC: EHLO c\nS: 250-*\nS: 250-SIZE 20\nS: 250-8BITMIME\nS: 250-BINARYMIME\nS: 250-CHUNKING\nS: 250-DSN\n" +
				"S: 250-SMTPUTF8\nS: 250-MT-PRIORITY *\nS: 250-DELIVERBY 60\nS: 250 STARTTLS\n"
			if tt.line[0] == 'R' {
				hello += "C: MAIL FROM:<a@b.test>\nS: 250 *\n"
			}
			converse(t, n, "mx.aol.test:25", hello+"C: "+tt.line+"\nS: "+tt.want)
		})
	}
}

func TestBINARYMIMENeedsCHUNKING(t *testing.T) {
	bothModes(t, func(t *testing.T, n *lab.Internet) {
		n.Server("mx.aol.test", lab.Offer{Capabilities: []string{"8BITMIME", "BINARYMIME"}})
		converse(t, n, "mx.aol.test:25", `
			S: 220 *
			C: EHLO c
			S: 250-*
			S: 250-8BITMIME
			S: 250 BINARYMIME
			C: MAIL FROM:<a@b.test> BODY=BINARYMIME
			S: 555 *`)
	})
}

func TestWhatMAILAsksForIsKept(t *testing.T) {
	bothModes(t, func(t *testing.T, n *lab.Internet) {
		mx := n.Server("mx.aol.test", lab.Offer{
			TLS: lab.TLSOffered, Capabilities: []string{"REQUIRETLS", "MT-PRIORITY", "DELIVERBY"},
		})
		converse(t, n, "mx.aol.test:25", `
			S: 220 *
			C: EHLO c
			S: 250-*
			S: 250-MT-PRIORITY
			S: 250-DELIVERBY
			S: 250 STARTTLS
			C: STARTTLS
			S: 220 *
			STARTTLS
			C: EHLO c
			S: 250-*
			S: 250-REQUIRETLS
			S: 250-MT-PRIORITY
			S: 250 DELIVERBY
			C: MAIL FROM:<a@b.test> REQUIRETLS MT-PRIORITY=-3 BY=120;rt
			S: 250 *
			C: RCPT TO:<a@aol.test>
			S: 250 *
			C: DATA
			S: 354 *
			C: .
			S: 250 *
			C: MAIL FROM:<a@b.test>
			S: 250 *
			C: RCPT TO:<a@aol.test>
			S: 250 *
			C: DATA
			S: 354 *
			C: .
			S: 250 *`)
		msgs := mx.Mailbox()
		require.Len(t, msgs, 2)
		require.True(t, msgs[0].RequireTLS)
		require.Equal(t, -3, msgs[0].Priority)
		require.Equal(t, lab.DeliverBy{Within: 2 * time.Minute, Mode: 'R', Trace: true}, msgs[0].DeliverBy)
		require.False(t, msgs[1].RequireTLS)
		require.Zero(t, msgs[1].Priority)
		require.Zero(t, msgs[1].DeliverBy)
	})
}

// RFC 9422.
func TestLimitsAreKept(t *testing.T) {
	bothModes(t, func(t *testing.T, n *lab.Internet) {
		mx := n.Server("mx.aol.test", lab.Offer{Capabilities: []string{"LIMITS MAILMAX=2 RCPTMAX=1"}})
		transaction := `
			C: MAIL FROM:<a@b.test>
			S: 250 *
			C: RCPT TO:<a@aol.test>
			S: 250 *
			C: RCPT TO:<b@aol.test>
			S: 452 4.5.3 *
			C: DATA
			S: 354 *
			C: .
			S: 250 *`
		converse(t, n, "mx.aol.test:25", "S: 220 *\nC: EHLO c\nS: 250-*\nS: 250 LIMITS *"+transaction+transaction+
			"\nC: MAIL FROM:<a@b.test>\nS: 421 4.7.0 *\nS-EOF")
		require.Len(t, mx.Mailbox(), 2)
	})
}

func TestTLSSessionsAreResumed(t *testing.T) {
	bothModes(t, func(t *testing.T, n *lab.Internet) {
		mx := n.Server("mx.aol.test", lab.Offer{TLS: lab.TLSOffered})
		cfg := n.CA().ClientConfig()
		cfg.ServerName = "mx.aol.test"
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		for range 2 {
			c := dial(t, n, "mx.aol.test:25")
			require.NoError(t, c.StartTLS(cfg))
			require.NoError(t, send(c, "a@b.test", []string{"a@aol.test"}, "x\r\n"))
			_ = c.Quit() // the server may be gone before the client has taken its leave of TLS
		}
		msgs := mx.Mailbox()
		require.False(t, msgs[0].TLS.DidResume)
		require.True(t, msgs[1].TLS.DidResume)
	})
}
