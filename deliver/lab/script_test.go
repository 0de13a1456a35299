package lab_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
)

const refusal = `
# A provider that refuses at RCPT, in its own words.
S: 220 mx.aol.test ESMTP
C: EHLO *
S: 250-mx.aol.test
S: 250 STARTTLS
C: STARTTLS
S: 220 go
STARTTLS
C: EHLO *
S: 250 mx.aol.test
C: MAIL FROM:<*@here.test>*
S: 250 ok
C: RCPT TO:<you@aol.test>
S-WAIT 1s
S-RAW "554-no\x00\r\n554 never\r\n"
C: QUIT
S: 221 bye
S-CLOSE
----
S: 220 second connection
C: HELO c
S: 250 ok
C: MAIL FROM:<a@b.test>
S: 250 ok
C: RCPT TO:<a@aol.test>
S: 250 ok
C: DATA
S: 354 go
C-BODY
S: 250 taken
C: MAIL FROM:<b@b.test>
S: 250 ok
C: RCPT TO:<b@aol.test>
S: 250 ok
C-CHUNK
S: 250 ok
C-CHUNK
S: 250 taken
`

func TestScriptIsPlayedAsWritten(t *testing.T) {
	bothModes(t, func(t *testing.T, n *lab.Internet) {
		mx := n.Server("mx.aol.test", lab.Script(refusal))
		converse(t, n, "mx.aol.test:25", `
			S: 220 mx.aol.test ESMTP
			C: EHLO here.test
			S: 250-mx.aol.test
			S: 250 STARTTLS
			C: STARTTLS
			S: 220 go
			STARTTLS
			C: EHLO here.test
			S: 250 mx.aol.test
			C: MAIL FROM:<me@here.test> SIZE=5
			S: 250 ok
			C: RCPT TO:<you@aol.test>
			S: 554-no`+"\x00"+`
			S: 554 never
			C: QUIT
			S: 221 bye
			S-EOF`)
		converse(t, n, "mx.aol.test:25", `
			S: 220 second connection
			C: HELO c
			S: 250 ok
			C: MAIL FROM:<a@b.test>
			S: 250 ok
			C: RCPT TO:<a@aol.test>
			S: 250 ok
			C: DATA
			S: 354 go
			C+ one
			C: .
			S: 250 taken
			C: MAIL FROM:<b@b.test>
			S: 250 ok
			C: RCPT TO:<b@aol.test>
			S: 250 ok
			C+ BDAT 5
			C+ two
			C+ BDAT 0 LAST
			C: QUIT
			S: 250 ok
			S: 250 taken
			S: 221 *
			S-EOF`)
		require.NoError(t, mx.ScriptError())
		msgs := mx.Mailbox()
		require.Len(t, msgs, 2)
		require.Equal(t, "one\r\n", string(msgs[0].Body))
		require.Equal(t, "a@b.test", msgs[0].From)
		require.Equal(t, []string{"b@aol.test"}, msgs[1].Addresses())
		require.Equal(t, "two\r\n", string(msgs[1].Body))
		require.True(t, msgs[1].BDAT)
	})
}

func TestScriptMismatchIsNamedWithItsLine(t *testing.T) {
	for name, tt := range map[string]struct{ script, client, want string }{
		"another command": {
			"S: 220 x\nC: EHLO *", "S: 220 x\nC: HELO c\nS: 421 *line 2*HELO c*\nS-EOF",
			`script line 2: expected "C: EHLO *", the client said "HELO c"`,
		},
		"the client goes": {"S: 220 x\nC: EHLO *", "S: 220 x", `script line 2: expected "C: EHLO *": EOF`},
		"more than the script": {
			"S: 220 x\n", "S: 220 x\nC: NOOP\nS: 421 *\nS-EOF", `script line 1: after the end the client said "NOOP"`,
		},
		"the client should have gone": {
			"S: 220 x\nC-CLOSE", "S: 220 x\nC: NOOP\nS: 421 *\nS-EOF", `script line 2: expected the client to close, it said "NOOP"`,
		},
		"no credentials in the report": {
			"S: 220 x\nC: EHLO *", "S: 220 x\nC: AUTH PLAIN c2VjcmV0\nS: 421 *", `the client said "AUTH PLAIN ***"`,
		},
		"no credentials in an answer": {
			"S: 334 x\nC: nothing", "S: 334 x\nC: c2VjcmV0\nS: 421 *", `the client said "a credential"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			n, err := lab.New(lab.Options{InMemory: true})
			require.NoError(t, err)
			defer func() { require.NoError(t, n.Close()) }()
			mx := n.Server("mx.aol.test", lab.Script(tt.script))
			converse(t, n, "mx.aol.test:25", tt.client)
			require.NoError(t, mx.Wait(t.Context(), func() bool { return mx.ScriptError() != nil }))
			require.ErrorContains(t, mx.ScriptError(), tt.want)
			require.NotContains(t, mx.Transcript(), "c2VjcmV0")
		})
	}
}

func TestScriptHangsAndExpectsAClose(t *testing.T) {
	bothModes(t, func(t *testing.T, n *lab.Internet) {
		mx := n.Server("mx.aol.test", lab.Script("S: 220 x\nS-HANG\n----\nS: 220 y\nC-CLOSE"))
		converse(t, n, "mx.aol.test:25", "S: 220 x\nC: EHLO c")
		converse(t, n, "mx.aol.test:25", "S: 220 y")
		require.NoError(t, mx.Wait(t.Context(), func() bool { _, open := mx.Connections(); return open == 0 }))
		require.NoError(t, mx.ScriptError())
	})
}

func TestTextThatIsNoScript(t *testing.T) {
	for text, want := range map[string]string{
		"S: 220 x\nX: y":      `line 2: "X:" is no step`,
		"S-CLOSE now":         `line 1: S-CLOSE stands alone, without "now"`,
		"S-RAW 250":           "line 1: S-RAW needs a Go string in quotes, not 250",
		"S-WAIT long":         `line 1: S-WAIT needs a duration such as 5s, not "long"`,
		"\n# comment\nFROB a": `line 3: "FROB"`,
	} {
		_, err := lab.ParseScript(text)
		require.ErrorContains(t, err, want)
		require.Panics(t, func() { lab.Script(text) })
	}
}
