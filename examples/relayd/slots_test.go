package main_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// onlyOne lets one loopback address relay; the others are strangers.
var onlyOne = []string{"-relay-from", "127.0.0.1/32", "-console", "127.0.0.1:0"}

func TestStrangersMayNotRelay(t *testing.T) {
	t.Parallel()
	r := start(t, append(onlyOne, "-spool", t.TempDir())...)
	c := r.connect("127.0.0.2")
	c.cmd(250, "EHLO stranger.test")
	c.cmd(250, "MAIL FROM:<a@src.test>")
	for _, to := range []string{"b@dst.test", "b%dst.test@relay.test", `"b@dst.test"@relay.test`, "postmaster@relay.test"} {
		assert.Contains(t, c.cmd(550, "RCPT TO:<"+to+">"), "5.7.1")
	}
	c.cmd(502, "DATA")
	c.raw("BDAT 5 LAST\r\nhello")
	c.expect(502)
	for range 5 {
		c.cmd(550, "RCPT TO:<b@dst.test>")
	}
	assert.Contains(t, c.cmd(421, "RCPT TO:<b@dst.test>"), "4.7.0", "the tenth")
	c.ended()
	assert.EqualValues(t, 10, r.metric(`relayd_refused_total{reason="relay"}`))
	assert.EqualValues(t, 1, r.metric(`relayd_sessions_total{client="stranger"}`))
	r.waitLog(func(l map[string]any) bool {
		return l["msg"] == "refused" && l["reason"] == "relay" && l["sender"] == "a@src.test" && l["client"] == "127.0.0.2" && l["recipient"] == "b@dst.test"
	})
}

// However many strangers sit there, users find room.
func TestStrangersTakeNoRoomFromUsers(t *testing.T) {
	t.Parallel()
	r := start(t, append(onlyOne, "-max-connections", "100")...)
	greeted, refused := 0, 0
	for i := range 300 {
		c := r.dial(fmt.Sprintf("127.0.%d.%d", 1+i%2, 2+i/2)) // each with two connections
		line, err := c.ReadLine()
		require.NoError(t, err)
		switch {
		case strings.HasPrefix(line, "220 "):
			greeted++
		case strings.HasPrefix(line, "421 4.3.2 relay.test has too many connections"):
			refused++
			c.ended()
		default:
			t.Fatal(line)
		}
	}
	assert.Equal(t, 10, greeted, "a tenth of the connections is for strangers")
	assert.Equal(t, 290, refused)
	assert.EqualValues(t, 10, r.metric(`relayd_sessions{client="stranger"}`))
	for range 90 {
		r.hello()
	}
	r.hello().send(letter("of a user"), "a@src.test", "b@dst.test")
}

func TestOneStrangerGetsFewSlots(t *testing.T) {
	t.Parallel()
	r := start(t, append(onlyOne, "-max-connections", "200")...)
	r.connect("127.0.0.2")
	r.connect("127.0.0.2")
	c := r.dial("127.0.0.2")
	assert.Contains(t, c.expect(421), "4.7.0 relay.test has too many connections from your address")
	c.ended()
	r.connect("127.0.0.3")
}

// Where the users' own connections are all taken, the one that has idled for longest gives way; those that are at work do
// not.
func TestIdleUsersGiveWay(t *testing.T) {
	t.Parallel()
	for name, flags := range map[string][]string{
		"all connections":   {"-max-connections", "6", "-max-per-client", "100"}, // one is the strangers'
		"of one address":    {"-max-connections", "100", "-max-per-client", "5"},
		"of both, at once ": {"-max-connections", "6", "-max-per-client", "5"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, append(flags, "-console", "127.0.0.1:0")...)
			busy := r.hello()
			busy.begin("a@src.test", "b@dst.test")
			busy.raw("Subject: slow\r\n")
			open := r.hello()
			open.cmd(250, "MAIL FROM:<a@src.test>")
			first := r.connect("127.0.0.1")
			second := r.hello()
			third := r.hello()
			first.cmd(250, "NOOP") // now second has idled for longest
			require.Eventually(t, func() bool { return r.metric(`relayd_sessions{client="user"}`) == 5 }, patience, time.Millisecond)

			more := r.hello()
			assert.Contains(t, second.expect(421), "4.3.2")
			second.ended()
			more.begin("a@src.test", "b@dst.test")
			more = r.hello()
			assert.Contains(t, third.expect(421), "4.3.2")
			more.begin("a@src.test", "b@dst.test")
			more = r.hello()
			first.expect(421)
			more.begin("a@src.test", "b@dst.test")

			full := r.dial("127.0.0.1") // nobody is idle now
			assert.Regexp(t, `^4\.(3\.2|7\.0) `, full.expect(421))
			busy.raw("\r\nx\r\n.\r\n")
			queueID(t, busy.expect(250))
			open.cmd(250, "RCPT TO:<b@dst.test>")
		})
	}
}

// A session that has brought mail is not ended between two messages for a newcomer.
func TestWorkersKeepTheirPlace(t *testing.T) {
	t.Parallel()
	r := start(t, "-max-connections", "3", "-console", "127.0.0.1:0")
	a, b := r.hello(), r.hello()
	a.send(letter("x"), "a@src.test", "b@dst.test")
	b.send(letter("x"), "a@src.test", "b@dst.test")
	assert.Contains(t, r.dial("127.0.0.1").expect(421), "4.3.2")
	a.send(letter("x"), "a@src.test", "b@dst.test")
	b.send(letter("x"), "a@src.test", "b@dst.test")
	a.cmd(221, "QUIT")
	a.ended()
	require.Eventually(t, func() bool { return r.metric(`relayd_sessions{client="user"}`) == 1 }, patience, time.Millisecond)
	r.hello()
}
