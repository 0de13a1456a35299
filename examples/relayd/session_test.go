package main_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
)

// toMX starts relayd with a smarthost that takes everything, both quick to stop.
func toMX(t *testing.T, flags ...string) (*instance, *lab.Server) {
	t.Helper()
	w := newWorld(t)
	mx := w.host("dst.test", offering("CHUNKING")) // which takes messages as they are
	return start(t, append(flags, "-routes", writeFile(t, "routes", "*  smtp://"+mx.Addr()+"\n"))...), mx
}

func TestOffers(t *testing.T) {
	t.Parallel()
	c := start(t).connect("127.0.0.1")
	lines := strings.Split(c.cmd(250, "EHLO client.test"), "\n")
	assert.Subset(t, lines, []string{"PIPELINING", "8BITMIME", "SIZE 52428800", "SMTPUTF8", "DSN", "CHUNKING", "LIMITS RCPTMAX=1000"})
	assert.Contains(t, strings.Join(lines, "\n"), "ENHANCEDSTATUSCODES")
}

// What the client asks for travels with the message (std: C13).
func TestEnvelope(t *testing.T) {
	t.Parallel()
	r, mx := toMX(t)
	c := r.hello()
	c.cmd(250, "MAIL FROM:<a@src.test> BODY=8BITMIME SIZE=400 RET=HDRS ENVID=QQ+2B1")
	c.cmd(250, "RCPT TO:<b@dst.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;B+2Bx@list.test")
	c.cmd(250, "RCPT TO:<c@dst.test> NOTIFY=NEVER")
	c.cmd(250, "RCPT TO:<d@dst.test>")
	c.cmd(354, "DATA")
	c.cmd(250, "Subject: 8 bit\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n.")
	c.cmd(250, "MAIL FROM:<\xc3\xa4@src.test> SMTPUTF8")
	c.cmd(250, "RCPT TO:<\xc3\xb6@dst.test>")
	c.cmd(354, "DATA")
	c.cmd(250, letter("utf8")+".")

	mails := arrived(t, mx, 2)
	if mails[0].From != "a@src.test" {
		mails[0], mails[1] = mails[1], mails[0]
	}
	m := mails[0]
	assert.Equal(t, "HDRS", m.Params["RET"])
	assert.Equal(t, "QQ+2B1", m.Params["ENVID"])
	assert.Equal(t, []string{"b@dst.test", "c@dst.test", "d@dst.test"}, m.Addresses())
	assert.Equal(t, map[string]string{"NOTIFY": "SUCCESS,DELAY", "ORCPT": "rfc822;B+2Bx@list.test"}, m.To[0].Params)
	assert.Equal(t, map[string]string{"NOTIFY": "NEVER"}, m.To[1].Params)
	assert.Empty(t, m.To[2].Params)
	assert.Contains(t, string(m.Body), "Gr\xc3\xbc\xc3\x9fe\r\n")

	assert.Equal(t, "\xc3\xa4@src.test", mails[1].From)
	assert.Contains(t, mails[1].Params, "SMTPUTF8")
	assert.Equal(t, []string{"\xc3\xb6@dst.test"}, mails[1].Addresses())
	assert.Contains(t, headerOf(mails[1].Body), "with UTF8SMTP id ")
}

// std: C21
func TestReceived(t *testing.T) {
	t.Parallel()
	r, mx := toMX(t)
	c := r.connect("127.0.0.1")
	c.cmd(250, "EHLO (odd)\x01name")
	c.send(letter("one"), "a@src.test", "b@dst.test")
	c.send(letter("two"), "a@src.test", "b@dst.test", "c@dst.test")
	c.cmd(250, "HELO plain.test")
	c.send(letter("old"), "", "b@dst.test")

	heads := map[string]string{}
	for _, m := range arrived(t, mx, 3) {
		head := headerOf(m.Body)
		subject := head[strings.Index(head, "Subject: ")+9:]
		heads[subject] = head
		assert.Equal(t, 1, strings.Count(head, "Received: "))
		assert.True(t, strings.HasSuffix(string(m.Body), letter(subject)), "the rest is as it was sent (std: C22)")
	}
	const date = `[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}`
	assert.Regexp(t, `^Received: from \?odd\?\?name \(\[127\.0\.0\.1\]\) by relay\.test with ESMTP id [a-z0-9-]+ for <b@dst\.test>; `+date+`\r\n`, heads["one"])
	assert.Regexp(t, `with ESMTP id [a-z0-9-]+; `+date, heads["two"], "several recipients are not named")
	assert.NotContains(t, heads["two"][:strings.Index(heads["two"], "From:")], "dst.test")
	assert.Contains(t, heads["old"], "from plain.test ([127.0.0.1]) by relay.test with SMTP id ")
}

// std: C22
func TestContentIsNotChanged(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 20_000)
	cases := map[string]struct{ sent, want string }{
		"dots":               {"Subject: x\r\n\r\n..\r\n.. two\r\nend.\r\n", "Subject: x\r\n\r\n.\r\n. two\r\nend.\r\n"},
		"nothing":            {"", ""},
		"no header":          {"just text, without a colon\r\nReturn-Path: <kept@in.text>\r\n", "\r\njust text, without a colon\r\nReturn-Path: <kept@in.text>\r\n"},
		"text with a colon":  {"Dear Bob,\r\nNote: this is text\r\n", "\r\nDear Bob,\r\nNote: this is text\r\n"},
		"text of one line":   {"Dear Bob: this is text\r\nNote: this too\r\n", "\r\nDear Bob: this is text\r\nNote: this too\r\n"},
		"text with a margin": {"  Dear: Bob\r\n", "\r\n  Dear: Bob\r\n"},
		"text after all":     {"Return-Path: <x@y>\r\n folded\r\nDear Bob\r\n", "\r\nDear Bob\r\n"},
		"a mailbox's line":   {"From a@src.test Mon Jan  5 10:00:00 2026\r\nSubject: x\r\n\r\n", "From a@src.test Mon Jan  5 10:00:00 2026\r\nSubject: x\r\n\r\n"},
		"empty header":       {"\r\nReturn-Path: <kept@in.text>\r\n", "\r\nReturn-Path: <kept@in.text>\r\n"},
		"NUL and 8-bit":      {"Subject: \x00\xff\r\n\r\n\x00\x80\r\n", "Subject: \x00\xff\r\n\r\n\x00\x80\r\n"},
		"a long line":        {"Subject: " + long + "\r\n\r\n" + long + long + "\r\n", "Subject: " + long + "\r\n\r\n" + long + long + "\r\n"},
		"a Return-Path goes": {"Return-Path: <x@y>\r\nSubject: x\r\nreturn-path:\r\n folded\r\nTo: b\r\n\r\nReturn-Path: stays\r\n", "Subject: x\r\nTo: b\r\n\r\nReturn-Path: stays\r\n"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, mx := toMX(t)
			r.hello().send(tc.sent, "a@src.test", "b@dst.test")
			body := string(arrived(t, mx, 1)[0].Body)
			_, rest, ok := strings.Cut(body, "for <b@dst.test>; ")
			require.True(t, ok, body)
			_, rest, _ = strings.Cut(rest, "\r\n")
			assert.Equal(t, tc.want, rest)
		})
	}
}

// What could never be delivered is refused at once; what is odd and right passes octet for octet (std: R13).
func TestAddresses(t *testing.T) {
	t.Parallel()
	r, mx := toMX(t)
	c := r.hello()
	c.cmd(250, "MAIL FROM:<a@src.test>")
	for _, bad := range []string{
		"nodomain", "@dst.test", "a@", "a..b@dst.test", ".a@dst.test", "a@b@dst.test", "a b@dst.test", "a@dst..test", "a@-.te st",
		"a@[127.0.0.1", strings.Repeat("l", 65) + "@dst.test", "a@" + strings.Repeat("d", 64) + ".test", "a\x07@dst.test", "a@dst.test\x00",
	} {
		c.raw("RCPT TO:<" + bad + ">\r\n")
		code, text, err := c.ReadResponse(0)
		require.NoError(t, err, bad)
		assert.Contains(t, []int{501, 553}, code, "%q: %s", bad, text)
	}
	assert.Contains(t, c.cmd(553, "RCPT TO:<a@b@dst.test>"), "5.1.3")
	assert.Contains(t, c.cmd(553, "RCPT TO:<\xc3\xb6@dst.test>"), "5.6.7", "without SMTPUTF8")
	odd := []string{`"a b"@dst.test`, `"a@b"@dst.test`, `"a\"b\\"@dst.test`, `"plain"@dst.test`, "Mixed.Case+tag=x@DST.test", "b@[127.0.0.9]", "b@xn--bcher-kva.test"}
	for _, good := range odd {
		c.cmd(250, "RCPT TO:<"+good+">")
	}
	c.cmd(250, "RCPT TO:<@hop.test,@other.test:routed@dst.test>")
	c.cmd(354, "DATA")
	c.cmd(250, letter("odd")+".")
	c.cmd(553, "MAIL FROM:<a..b@src.test>")

	var got []string
	require.NoError(t, mx.Wait(t.Context(), func() bool {
		got = nil
		for _, m := range mx.Mailbox() {
			got = append(got, m.Addresses()...)
		}
		return len(got) == len(odd)+1
	}))
	assert.ElementsMatch(t, append(odd, "routed@dst.test"), got)
}

func TestRecipientLimit(t *testing.T) {
	t.Parallel()
	c := start(t, "-max-recipients", "3").hello()
	c.cmd(250, "MAIL FROM:<a@src.test>")
	for i := range 3 {
		c.cmd(250, fmt.Sprintf("RCPT TO:<b%d@dst.test>", i))
	}
	assert.Contains(t, c.cmd(452, "RCPT TO:<b3@dst.test>"), "4.5.3")
	c.cmd(354, "DATA")
	c.cmd(250, letter("three")+".")
}

func TestSizeLimit(t *testing.T) {
	t.Parallel()
	const most = 100 << 10
	r, mx := toMX(t, "-max-size", "100KiB")
	c := r.hello()
	assert.Contains(t, c.cmd(552, fmt.Sprint("MAIL FROM:<a@src.test> SIZE=", most+1)), "5.3.4")
	head := "Subject: big\r\n\r\n"
	exact := head + strings.Repeat(strings.Repeat("x", 62)+"\r\n", (most-len(head))/64)
	exact += strings.Repeat("x", most-len(exact)-2) + "\r\n"
	require.Len(t, exact, most)

	c.cmd(250, fmt.Sprint("MAIL FROM:<a@src.test> SIZE=", most))
	c.cmd(250, "RCPT TO:<b@dst.test>")
	c.cmd(354, "DATA")
	c.cmd(250, exact+".")
	c.begin("a@src.test", "b@dst.test")
	assert.Contains(t, c.cmd(552, "y"+exact+"."), "5.3.4")
	c.send(letter("after"), "a@src.test", "b@dst.test") // the session goes on where the message ended

	c.cmd(250, "MAIL FROM:<a@src.test>")
	c.cmd(250, "RCPT TO:<b@dst.test>")
	c.raw(fmt.Sprintf("BDAT %d LAST\r\n%s", most, exact))
	c.expect(250)
	c.cmd(250, "MAIL FROM:<a@src.test>")
	c.cmd(250, "RCPT TO:<b@dst.test>")
	c.raw(fmt.Sprintf("BDAT %d LAST\r\ny%s", most+1, exact))
	c.expect(552)
	for _, m := range arrived(t, mx, 3) {
		assert.NotContains(t, string(m.Body), "\r\ny")
	}

	c.begin("a@src.test", "b@dst.test")
	go func() { // a message without end is not read for ever
		chunk := []byte(strings.Repeat("z", 4096))
		for i := 0; i < 1<<20/4096*8; i++ {
			if _, err := c.net.Write(chunk); err != nil {
				return
			}
		}
	}()
	c.expect(552)
	c.ended()
}

// A header beyond all measure is refused with words that say so.
func TestHeaderLimit(t *testing.T) {
	t.Parallel()
	c := start(t).hello()
	c.begin("a@src.test", "b@dst.test")
	assert.Contains(t, c.cmd(552, "X-Long: "+strings.Repeat(strings.Repeat("h", 70)+"\r\n\t", 8<<20/73)+"end\r\n\r\nbody\r\n."), "header section is longer than")
	c.cmd(250, "NOOP")
}

// Nothing but CR LF . CR LF ends a message, and a message with a lone CR or LF is refused as a whole, so that none can bring
// a second one with it (std: C11).
func TestNoSmuggling(t *testing.T) {
	t.Parallel()
	second := "MAIL FROM:<evil@src.test>\r\nRCPT TO:<victim@dst.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n"
	for name, end := range map[string]string{
		"LF dot LF": "\n.\n", "LF dot CRLF": "\n.\r\n", "CR dot CR": "\r.\r", "CR dot CRLF": "\r.\r\n", "CRLF dot CR": "\r\n.\r", "CRLF dot LF": "\r\n.\n",
		"CRLF NUL dot": "\r\n\x00.\n", "a lone CR": "a\rb", "a lone LF": "a\nb", "CR CR LF": "a\r\r\nb", "dot CR CR LF": "\r\n.\r\r\nb",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, mx := toMX(t)
			c := r.hello()
			c.begin("a@src.test", "b@dst.test")
			c.raw("Subject: first\r\n\r\ntext" + end + second) // the only real end is that of the smuggled message
			assert.Contains(t, c.expect(550), "5.6.0")
			c.send(letter("honest"), "a@src.test", "b@dst.test")

			c.cmd(250, "MAIL FROM:<a@src.test>")
			c.cmd(250, "RCPT TO:<b@dst.test>")
			chunk := "Subject: chunk\r\n\r\ntext" + end + second
			c.raw(fmt.Sprintf("BDAT %d LAST\r\n%s", len(chunk), chunk))
			assert.Contains(t, c.expect(550), "5.6.0")
			c.send(letter("last"), "a@src.test", "b@dst.test")

			for _, m := range arrived(t, mx, 2) {
				assert.Equal(t, []string{"b@dst.test"}, m.Addresses())
				assert.NotContains(t, string(m.Body), "text")
			}
			c.cmd(221, "QUIT")
			r.stop()
			assert.Len(t, mx.Mailbox(), 2)
		})
	}
}

// A message whose last line ends in CR CR LF has an end all the same.
func TestEndBehindStrayCR(t *testing.T) {
	t.Parallel()
	c := start(t).hello()
	c.begin("a@src.test", "b@dst.test")
	c.cmd(550, "text\r\r\n.")
	c.cmd(250, "NOOP")
}

func TestPipelining(t *testing.T) {
	t.Parallel()
	r, mx := toMX(t)
	c := r.connect("127.0.0.1")
	c.raw("EHLO client.test\r\nMAIL FROM:<a@src.test>\r\nRCPT TO:<\"q q\"@dst.test>\r\nRCPT TO:<bad@>\r\nDATA\r\n")
	for _, code := range []int{250, 250, 250, 501, 354} {
		c.expect(code)
	}
	c.raw(letter("one") + ".\r\nMAIL FROM:<a@src.test>\r\nRCPT TO:<b@dst.test>\r\nBDAT 11 LAST\r\nSubject: x\nNOOP\r\n" +
		"MAIL FROM:<a@src.test>\r\nRCPT TO:<c@dst.test>\r\nBDAT 12\r\nSubject: x\r\nBDAT 10 LAST\r\n\r\nBDAT 5\r\nNOOP\r\nQUIT\r\n")
	queueID(t, c.expect(250))
	for _, code := range []int{250, 250, 550, 250, 250, 250, 250, 250, 250, 221} {
		c.expect(code)
	}
	c.ended()
	var chunked string
	for _, m := range arrived(t, mx, 2) {
		if m.Addresses()[0] == "c@dst.test" {
			chunked = string(m.Body)
		} else {
			assert.Equal(t, []string{`"q q"@dst.test`}, m.Addresses())
		}
	}
	assert.True(t, strings.HasSuffix(chunked, "\r\nSubject: x\r\n\r\nBDAT 5\r\n"), chunked)
}

// MAIL within a transaction does not change it.
func TestNestedMail(t *testing.T) {
	t.Parallel()
	r, mx := toMX(t)
	c := r.hello()
	c.cmd(250, "MAIL FROM:<a@src.test>")
	c.cmd(250, "RCPT TO:<b@dst.test>")
	assert.Contains(t, c.cmd(503, "MAIL FROM:<other@src.test>"), "5.5.1")
	c.cmd(354, "DATA")
	c.cmd(250, letter("nested")+".")
	m := arrived(t, mx, 1)[0]
	assert.Equal(t, "a@src.test", m.From)
	assert.Equal(t, []string{"b@dst.test"}, m.Addresses())
}

// A client that breaks off leaves nothing behind.
func TestBrokenOff(t *testing.T) {
	t.Parallel()
	r, mx := toMX(t, "-console", "127.0.0.1:0", "-idle", "1s")
	c := r.hello()
	c.begin("a@src.test", "b@dst.test")
	c.raw("Subject: half\r\n\r\nhalf a")
	c.Close()
	c = r.hello()
	c.begin("a@src.test", "b@dst.test")
	c.raw("Subject: half\r\n\r\nhalf a")
	assert.Contains(t, c.expect(421), "4.4.2", "after -idle")
	c.ended()
	c = r.hello()
	c.cmd(250, "MAIL FROM:<a@src.test>")
	c.cmd(250, "RCPT TO:<b@dst.test>")
	c.raw("BDAT 100\r\nSubject: half")
	c.Close()
	c = r.hello()
	assert.Contains(t, c.expect(421), "4.4.2", "after -idle")
	c.ended()

	r.hello().send(letter("whole"), "a@src.test", "b@dst.test")
	arrived(t, mx, 1)
	require.Eventually(t, func() bool { return r.metric("relayd_queue_messages") == 0 }, patience, 20*time.Millisecond)
	assert.Len(t, mx.Mailbox(), 1)
}

// Lines without end, and commands without sense.
func TestGarbage(t *testing.T) {
	t.Parallel()
	r := start(t)
	for _, junk := range []string{strings.Repeat("x", 1<<20), strings.Repeat("BDAT 4000000000 LAST LAST "+strings.Repeat("y", 4000), 100), strings.Repeat("\x00\n", 100), strings.Repeat("FOO\r\n", 10)} {
		c := r.hello()
		go c.net.Write([]byte(junk))
		for {
			line, err := c.ReadLine()
			if err != nil {
				break
			}
			assert.Regexp(t, `^(500|501|421)[ -]`, line)
		}
	}
	r.hello().cmd(250, "NOOP")
}

// A last chunk that breaks off is no message, although nothing more was to come.
func TestBrokenOffInLastChunk(t *testing.T) {
	t.Parallel()
	r, mx := toMX(t, "-console", "127.0.0.1:0")
	for range 3 {
		c := r.hello()
		c.cmd(250, "MAIL FROM:<a@src.test>")
		c.cmd(250, "RCPT TO:<b@dst.test>")
		c.raw("BDAT 100 LAST\r\nSubject: half\r\n\r\n")
		c.Close()
	}
	r.hello().send(letter("whole"), "a@src.test", "b@dst.test")
	arrived(t, mx, 1)
	require.Eventually(t, func() bool {
		return r.metric("relayd_queue_messages") == 0 && r.metric(`relayd_sessions{client="user"}`) == 1
	}, patience, 20*time.Millisecond)
	assert.Len(t, mx.Mailbox(), 1)
	assert.EqualValues(t, 1, r.metric("relayd_accepted_messages_total"))
}
