package main_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/queue"
)

// An address that a host said does not exist is refused at the door with the old words, also after a crash, until a person takes it
// off the list.
//
// std: Q11
func TestSuppression(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src := w.host("src.test")
	mx := w.host("a.test", lab.Refuse(lab.AtRcpt, "550 5.1.1 <gone@a.test>: User unknown in virtual mailbox table", "gone@a.test"))
	r := start(t, w.flags("-suppress", "30d")...)
	r.hello().send(letter("first"), "x@src.test", "gone@a.test")
	arrived(t, src, 1)
	r.kill()

	r = start(t, w.flags("-suppress", "30d", "-spool", r.spool, "-console", "127.0.0.1:0")...)
	c := r.hello()
	c.cmd(250, "MAIL FROM:<x@src.test>")
	text := c.cmd(550, "RCPT TO:<Gone@A.test>")
	for _, words := range []string{"5.1.1 <Gone@A.test>", "mx.a.test said: 550 5.1.1", "User unknown in virtual mailbox table", "until "} {
		assert.Contains(t, text, words)
	}
	r.refusal("suppressed")
	c.cmd(250, "RCPT TO:<bob@a.test>")
	c.cmd(354, "DATA")
	c.cmd(250, letter("second")+".")
	arrived(t, mx, 1)

	var list struct {
		Suppressed []queue.Suppression `json:"suppressed"`
		Next       string              `json:"next"`
	}
	for _, query := range []string{"", "?limit=1", "?address=GONE@a.test"} {
		require.Equal(t, 200, r.ask(r.request("GET", "/suppressed"+query, ""), &list))
		require.Len(t, list.Suppressed, 1, query)
		assert.Equal(t, "gone@a.test", list.Suppressed[0].Address)
		assert.Empty(t, list.Next)
	}
	require.Equal(t, 200, r.ask(r.request("GET", "/suppressed?address=bob@a.test", ""), &list))
	assert.Empty(t, list.Suppressed)

	r.refuses(405, "use GET", r.request("POST", "/suppressed", ""))
	r.refuses(400, "limit=0", r.request("GET", "/suppressed?limit=0", ""))
	r.refuses(405, "use POST", r.request("GET", "/suppressed/lift?address=gone@a.test", ""))
	r.refuses(400, "address=A", r.request("POST", "/suppressed/lift", ""))
	r.refuses(400, "no parameter", r.request("POST", "/suppressed/lift?all=yes", ""))
	foreign := r.request("POST", "/suppressed/lift?address=gone@a.test", "")
	foreign.Header.Del("X-Relayd")
	r.refuses(403, "X-Relayd", foreign)
	r.changes(0, "/suppressed/lift?address=bob@a.test")
	r.changes(1, "/suppressed/lift?address=GONE@a.test")
	c.send(letter("third"), "x@src.test", "gone@a.test")
	require.Eventually(t, func() bool { // it is tried again, and refused again
		r.ask(r.request("GET", "/suppressed?address=gone@a.test", ""), &list)
		return len(list.Suppressed) == 1
	}, patience, 10*time.Millisecond)
	c.cmd(250, "MAIL FROM:<x@src.test>")
	c.cmd(550, "RCPT TO:<gone@a.test>")
}

// Without -suppress each is asked again.
func TestNoSuppression(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src := w.host("src.test")
	w.host("a.test", lab.Refuse(lab.AtRcpt, "550 5.1.1 User unknown"))
	r := start(t, w.flags()...)
	c := r.hello()
	for n := range 2 {
		c.send(letter("one more"), "x@src.test", "gone@a.test")
		arrived(t, src, n+1)
	}
}
