package main_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// refusal waits for the log line of a refusal.
func (r *instance) refusal(reason string) (line map[string]any) {
	r.t.Helper()
	r.waitLog(func(l map[string]any) bool {
		line = l
		return l["msg"] == "refused" && l["reason"] == reason
	})
	return line
}

// Whoever misses a mail finds in the log that it was refused, whose it was, why, and what the client was told, whether
// relayd or go-smtp refused it.
func TestRefusalsAreLogged(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 500)
	for name, tc := range map[string]struct {
		reason  string
		dialog  func(c *client)
		reply   string
		details map[string]any
	}{
		"bare LF": {"line_ends", func(c *client) {
			c.begin("a@src.test", "b@dst.test")
			c.cmd(550, "text\nmore\r\n.")
		}, "550 5.6.0 the message has an LF without CR", nil},
		"too big": {"size", func(c *client) {
			c.begin("a@src.test", "b@dst.test")
			c.cmd(552, strings.Repeat(long+"\r\n", 250)+".")
		}, "552 5.3.4 the message is longer than 102400 octets", nil},
		"announced too big": {
			"size", func(c *client) { c.cmd(552, "MAIL FROM:<a@src.test> SIZE=200000") }, "552 5.3.4 ",
			map[string]any{"command": "MAIL FROM:<a@src.test> SIZE=200000", "sender": nil},
		},
		"a chunk too big": {"size", func(c *client) {
			c.cmd(250, "MAIL FROM:<a@src.test>")
			c.cmd(250, "RCPT TO:<b@dst.test>")
			c.raw("BDAT 102401 LAST\r\n" + strings.Repeat("\r\n", 51200) + "x")
			c.expect(552)
		}, "552 5.3.4 ", map[string]any{"command": "BDAT 102401 LAST"}},
		"reverse-path": {"address", func(c *client) { c.cmd(553, "MAIL FROM:<a..b@src.test>") }, "553 5.1.7 <a..b@src.test>", map[string]any{"sender": "a..b@src.test"}},
		"recipient": {"address", func(c *client) {
			c.cmd(250, "MAIL FROM:<a@src.test>")
			c.cmd(553, "RCPT TO:<"+long+"@dst.test>")
		}, "553 5.1.3 ", map[string]any{"recipient": long[:200] + "..."}},
		"syntax":  {"command", func(c *client) { c.cmd(501, "MAIL FROM a@src.test") }, "501 5.5.2 ", map[string]any{"command": "MAIL FROM a@src.test", "sender": nil}},
		"a login": {"command", func(c *client) { c.cmd(523, "AUTH PLAIN c2VjcmV0") }, "523 5.7.10 ", map[string]any{"command": "AUTH", "sender": nil}},
		"unknown": {"command", func(c *client) { c.cmd(501, "c2VjcmV0") }, "501 5.5.2", map[string]any{"command": "unknown", "sender": nil}},
		"no recipient": {"command", func(c *client) {
			c.cmd(250, "MAIL FROM:<a@src.test>")
			c.cmd(502, "DATA")
		}, "502 5.5.1 ", map[string]any{"command": "DATA"}},
		"broken off": {"broken_off", func(c *client) {
			c.begin("a@src.test", "b@dst.test")
			c.raw("Subject: half\r\n")
			c.Close()
		}, "421 4.4.2 ", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, "-max-size", "100KiB", "-console", "127.0.0.1:0")
			tc.dialog(r.hello())
			line := r.refusal(tc.reason)
			assert.Equal(t, "INFO", line["level"])
			assert.Equal(t, "127.0.0.1", line["client"])
			assert.Contains(t, line["reply"], tc.reply)
			if _, ok := tc.details["sender"]; !ok {
				assert.Equal(t, "a@src.test", line["sender"])
			}
			for field, want := range tc.details {
				assert.Equal(t, want, line[field], field)
			}
			assert.EqualValues(t, 1, r.metric(fmt.Sprintf("relayd_refused_total{reason=%q}", tc.reason)))
			r.stop()
			assert.Equal(t, 1, strings.Count(r.text(), `"msg":"refused"`), "told once")
			assert.NotContains(t, r.text(), "c2Vj")
		})
	}
}

// A spool that breaks is told with the mail that it cost.
func TestQueueTroubleIsLogged(t *testing.T) {
	t.Parallel()
	r := start(t)
	c := r.hello()
	require.NoError(t, os.RemoveAll(r.spool))
	require.NoError(t, os.WriteFile(r.spool, nil, 0o600))
	c.begin("a@src.test", "b@dst.test")
	c.cmd(451, strings.Repeat(strings.Repeat("x", 900)+"\r\n", 4000)+".")
	assert.Equal(t, "a@src.test", r.refusal("queue")["sender"])
}

// However many commands of strangers are refused, few lines go to the log, and they say how many are missing.
func TestStrangersDoNotFloodTheLog(t *testing.T) {
	t.Parallel()
	r := start(t, append(onlyOne, "-max-connections", "2000")...)
	const clients = 20
	for i := range clients {
		c := r.connect(fmt.Sprintf("127.0.1.%d", 1+i))
		c.cmd(250, "EHLO stranger.test")
		c.cmd(250, "MAIL FROM:<a@src.test>")
		for range 9 {
			c.cmd(550, "RCPT TO:<b@dst.test>")
		}
		c.Close()
	}
	assert.EqualValues(t, 9*clients, r.metric(`relayd_refused_total{reason="relay"}`))
	r.stop()
	lines := strings.Count(r.text(), `"msg":"refused"`)
	assert.GreaterOrEqual(t, lines, 20)
	assert.LessOrEqual(t, lines, 100, "20 in 10 s")
}
