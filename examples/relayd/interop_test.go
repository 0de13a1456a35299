package main_test

import (
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// swaks → relayd → a real Postfix as smarthost.
func TestSwaksToPostfixAsSmarthost(t *testing.T) {
	t.Parallel()
	need(t, "swaks")
	p := startPostfix(t, "127.0.0.1")
	r := start(t, "-routes", writeFile(t, "routes", "*  smtp://"+p.addr+"\n"))
	sendWithSwaks(t, r)
	checkMailbox(t, p)
}

// swaks → relayd → a real Postfix that DNS names as the MX host.
func TestSwaksToPostfixByMX(t *testing.T) {
	t.Parallel()
	need(t, "swaks")
	p := startPostfix(t, "127.0.0.3")
	w := newWorld(t)
	ip, port, err := net.SplitHostPort(p.addr)
	require.NoError(t, err)
	w.port = port
	require.NoError(t, w.Zone("dst.test", "@ MX 10 mx\nmx A "+ip))
	r := start(t, w.flags()...)
	sendWithSwaks(t, r)
	checkMailbox(t, p)
	assert.Contains(t, w.Queries(), "dst.test. MX")
}

// A real client from outside -relay-from is refused, and from inside it is not.
func TestSwaksFromOutsideIsRefused(t *testing.T) {
	t.Parallel()
	r := start(t, onlyOne...)
	code, dialogue := swaks(t, r.addr, "--local-interface", "127.0.0.2", "--from", "a@src.test", "--to", "b@dst.test")
	assert.Equal(t, 24, code, "swaks' code for refused recipients")
	assert.Contains(t, dialogue, "<** 550 5.7.1 <b@dst.test>: this server relays only for its own users")
	assert.Zero(t, r.metric("relayd_accepted_messages_total"))
	code, dialogue = swaks(t, r.addr, "--local-interface", "127.0.0.1", "--from", "a@src.test", "--to", "b@dst.test")
	assert.Zero(t, code, dialogue)
}

func sendWithSwaks(t *testing.T, r *instance) {
	t.Helper()
	for _, args := range [][]string{
		{"--to", "b@dst.test", "--header", "Subject: one", "--body", ".leading dot\n..two\nGr\xc3\xbc\xc3\x9fe\n"},
		{"--to", "b@dst.test,c@dst.test", "--header", "Subject: two", "--body", strings.Repeat("a long body\n", 8_000), "--pipeline"},
	} {
		code, dialogue := swaks(t, r.addr, append([]string{"--from", "a@src.test"}, args...)...)
		require.Zero(t, code, dialogue)
		require.Contains(t, dialogue, "250 2.0.0 queued as ")
	}
}

func checkMailbox(t *testing.T, p *postfix) {
	t.Helper()
	mails := p.arrived(3) // one for b alone, and one each for b and c
	all := strings.Join(mails, "\n")
	assert.Equal(t, 1, strings.Count(all, "Subject: one\n"))
	assert.Equal(t, 2, strings.Count(all, "Subject: two\n"))
	assert.Contains(t, all, "\n.leading dot\n..two\nGr\xc3\xbc\xc3\x9fe\n")
	assert.Contains(t, all, strings.Repeat("a long body\n", 8_000))
	assert.Contains(t, all, "by relay.test with ESMTP id ")
	assert.Contains(t, all, "Return-Path: <a@src.test>\n")
	for _, m := range mails {
		head, _, _ := strings.Cut(m, "\n\n")
		assert.Equal(t, 2, strings.Count(head, "Received: "), "ours and Postfix's")
		one := strings.Contains(head, "Subject: one")
		assert.Equal(t, one, strings.Contains(head, "for <b@dst.test>; ") && strings.Contains(head[strings.Index(head, "relay.test with"):], "for <b@dst.test>; "))
	}
}
