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

// A sender whom nobody could answer hears so at MAIL. What DNS does not tell refuses nothing, and a domain that does not
// exist only where that is asked for.
//
// std: R3
func TestCheckSender(t *testing.T) {
	t.Parallel()
	for what, want := range map[string]map[string]int{
		"":        {"null.test": 550, "gone.test": 250},
		"null-mx": {"null.test": 550, "gone.test": 250},
		"exists":  {"null.test": 550, "gone.test": 550},
		"no":      {"null.test": 250, "gone.test": 250},
	} {
		t.Run("check-sender="+what, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.host("dst.test")
			require.NoError(t, w.Zone("null.test", "@ MX 0 ."))
			require.NoError(t, w.Zone("bare.test", "x A 192.0.2.1"))
			flags := w.flags("-routes", writeFile(t, "routes", "* hold\n"), "-relay-from", "127.0.0.1", "-check-sender-wait", "1m")
			if what != "" {
				flags = append(flags, "-check-sender", what)
			}
			r := start(t, flags...)
			c := r.hello()
			for domain, code := range map[string]int{
				"null.test": want["null.test"], "NULL.test": want["null.test"], "gone.test": want["gone.test"], "dst.test": 250, "bare.test": 250,
				"[127.0.0.1]": 250, "[IPv6:::1]": 250,
			} {
				text := c.cmd(code, "MAIL FROM:<a@"+domain+">")
				switch {
				case code == 250:
					c.cmd(250, "RSET")
				case domain == "gone.test":
					assert.Equal(t, "5.1.8 <a@gone.test>: the domain gone.test does not exist", text)
				default:
					assert.Equal(t, "5.7.27 <a@"+domain+">: "+domain+" accepts no mail, and no answer: it has a null MX record (RFC 7505)", text)
				}
			}
			c.send(letter("a report"), "", "b@dst.test")

			stranger := r.connect("127.0.0.2")
			stranger.cmd(250, "EHLO stranger.test")
			before := len(w.Queries())
			stranger.cmd(250, "MAIL FROM:<a@other.null.test>")
			assert.Contains(t, stranger.cmd(550, "RCPT TO:<b@dst.test>"), "5.7.1")
			assert.Len(t, w.Queries(), before, "strangers make it ask nothing")

			w.FailDNS(lab.AnyName, "", lab.DNSServFail)
			for range 20 {
				c.cmd(250, "MAIL FROM:<a@in.trouble.test>")
				c.cmd(250, "RSET")
			}
			asked := strings.Count(strings.Join(w.Queries(), "\n"), "in.trouble.test. MX")
			assert.Less(t, asked, 20, "DNS in trouble is left alone for a while: %v", w.Queries())
			w.FailDNS(lab.AnyName, "", lab.DNSWorks)
			require.NoError(t, w.Zone("other.test", "@ MX 0 ."))
			c.cmd(want["null.test"], "MAIL FROM:<a@other.test>")
		})
	}
}

// An answer of DNS that has expired leads to a host where that is asked for, and to nothing where not.
//
// std: R4
func TestDNSStale(t *testing.T) {
	t.Parallel()
	for _, d := range []string{"0", "1h"} {
		t.Run(d, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			mx := w.host("dst.test")
			ip, _, _ := strings.Cut(mx.Addr(), ":")
			require.NoError(t, w.Zone("dst.test", "$TTL 1\n@ MX 10 mx\nmx A "+ip))
			c := start(t, w.flags("-dns-stale", d)...).hello()
			c.send(letter("fresh"), "a@src.test", "b@dst.test")
			arrived(t, mx, 1)
			w.FailDNS("dst.test", "", lab.DNSServFail)
			w.FailDNS("mx.dst.test", "", lab.DNSRefused)
			time.Sleep(1100 * time.Millisecond) // its time is over
			before := len(w.Queries())
			c.send(letter("stale"), "a@src.test", "b@dst.test")
			if d != "0" {
				arrived(t, mx, 2)
				return
			}
			require.Eventually(t, func() bool { return len(w.Queries()) > before }, patience, time.Millisecond)
			assert.Len(t, mx.Mailbox(), 1)
		})
	}
}

// However much waits for one smarthost, it gets no more connections than were asked for.
func TestHostConcurrency(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	isp := w.host("isp.test", lab.Hang(lab.AtMail))
	r := start(t, w.flags("-routes", writeFile(t, "routes", "*  smtp://"+isp.Addr()+"\n*@other.test  hold\n"), "-host-concurrency", "2", "-console", "127.0.0.1:0")...)
	c := r.hello()
	for i := range 20 {
		c.send(letter("many"), "a@src.test", fmt.Sprintf("b@%d.test", i))
	}
	open := func() int { _, n := isp.Connections(); return n }
	require.Eventually(t, func() bool { return open() == 2 }, patience, 10*time.Millisecond)
	assert.Never(t, func() bool { return open() > 2 }, time.Second/2, 20*time.Millisecond)
}
