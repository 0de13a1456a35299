package main_test

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/dsn"
)

// Mail goes to the MX hosts of its recipients' domains, and one that hangs costs the others nothing.
func TestDirect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	one, two := w.host("one.test"), w.host("two.test")
	hang := w.host("hang.test", lab.Hang(lab.AtGreeting))
	transcript := filepath.Join(t.TempDir(), "transcript")
	r := start(t, w.flags("-transcript", transcript, "-console", "127.0.0.1:0")...)
	c := r.hello()
	for range 10 {
		c.send(letter("stuck"), "a@src.test", "b@hang.test")
	}
	c.send(letter("hello"), "a@src.test", "b@one.test", "c@two.test", "d@hang.test", "e@one.test")
	assert.Equal(t, []string{"b@one.test", "e@one.test"}, arrived(t, one, 1)[0].Addresses())
	m := arrived(t, two, 1)[0]
	assert.Equal(t, []string{"c@two.test"}, m.Addresses())
	assert.Equal(t, "relay.test", m.HELO)
	assert.Empty(t, hang.Mailbox())
	waitFor(t, transcript, "C: EHLO relay.test")
	waitFor(t, transcript, "C: RCPT TO:<c@two.test>")

	require.Eventually(t, func() bool { return r.metric(`relayd_attempts_total{result="delivered"}`) == 3 }, patience, 10*time.Millisecond)
	assert.EqualValues(t, 11, r.metric("relayd_accepted_messages_total"))
	assert.EqualValues(t, 11*len(letter("hello")), r.metric("relayd_accepted_bytes_total"))
	assert.EqualValues(t, 11, r.metric("relayd_queue_messages"))
	assert.EqualValues(t, 1, r.metric("relayd_queue_lanes"))
	code, text := r.get("/healthz")
	assert.Equal(t, 200, code)
	assert.Equal(t, "ok\n", text)
}

// A smarthost with TLS and a login, whose certificate -ca vouches for. The password is nowhere to be seen.
func TestSmarthost(t *testing.T) {
	t.Parallel()
	const password = "s3cr3t-of-the-isp"
	w := newWorld(t)
	isp := w.host("isp.test", lab.Offer{TLS: lab.TLSOffered, Users: map[string]string{"sortie": password}, AuthRequired: true})
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	require.NoError(t, os.WriteFile(secret, []byte(password+"\n"), 0o600))
	routes := filepath.Join(dir, "routes")
	port := isp.Addr()[strings.LastIndex(isp.Addr(), ":"):]
	require.NoError(t, os.WriteFile(routes, []byte("*  submission://sortie@mx.isp.test"+port+" secret=file:"+secret+" tls=verified\n"), 0o600))
	flags := w.flags("-routes", routes, "-transcript", filepath.Join(dir, "transcript"), "-retry", "1s")

	untrusting := start(t, flags...)
	untrusting.hello().send(letter("unverified"), "a@src.test", "b@dst.test")
	untrusting.waitLog(func(l map[string]any) bool {
		b, _ := json.Marshal(l)
		return strings.Contains(string(b), "certificate")
	})
	untrusting.stop()
	assert.Empty(t, isp.Mailbox())

	ca := filepath.Join(dir, "ca.pem")
	require.NoError(t, os.WriteFile(ca, w.CA().PEM(), 0o600))
	r := start(t, append(flags, "-ca", ca, "-spool", untrusting.spool)...)
	r.hello().send(letter("verified"), "a@src.test", "b@dst.test")
	for _, m := range arrived(t, isp, 2) {
		assert.Equal(t, "sortie", m.User)
		assert.NotNil(t, m.TLS)
	}
	r.stop()
	transcript, err := os.ReadFile(filepath.Join(dir, "transcript"))
	require.NoError(t, err)
	for _, text := range []string{string(transcript), r.text(), untrusting.text(), spoolText(t, r.spool)} {
		assert.NotContains(t, text, password)
		assert.NotContains(t, text, "c29ydGll") // "sortie" as AUTH sends it
	}
}

// spoolText is all that a spool holds.
func spoolText(t *testing.T, dir string) string {
	t.Helper()
	var all bytes.Buffer
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			b, err := os.ReadFile(path)
			all.Write(b)
			return err
		}
		return err
	}))
	return all.String()
}

// A provider refuses, a warning and in the end a report go to the sender, in the provider's words.
func TestReports(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src := w.host("src.test")
	w.host("gone.test", lab.Refuse(lab.AtRcpt, "550 5.1.1 No such user here"))
	w.host("plain.test", lab.Offer{Capabilities: []string{"PIPELINING"}}) // no DSN: nobody further on reports success
	w.host("late.test", lab.Refuse(lab.AtRcpt, "451 4.3.2 Come back another day"))
	r := start(t, w.flags("-retry", "200ms,400ms", "-delay-after", "1s", "-lifetime", "3s", "-console", "127.0.0.1:0")...)
	c := r.hello()
	gone := c.send(letter("gone"), "a@src.test", "b@gone.test")
	report := reportFrom(t, arrived(t, src, 1)[0])
	assert.Equal(t, dsn.Failed, report.Recipients[0].Action)
	assert.Equal(t, dsn.Status("5.1.1"), report.Recipients[0].Status)
	assert.Equal(t, "550 5.1.1 No such user here", report.Recipients[0].Diagnostic.String())
	assert.Equal(t, gone, report.Recipients[0].LogID)
	assert.Equal(t, "relay.test", report.ReportingMTA)

	c.cmd(250, "MAIL FROM:<a@src.test> ENVID=Q1 RET=FULL")
	c.cmd(250, "RCPT TO:<b@late.test> ORCPT=rfc822;orig@late.test")
	c.cmd(250, "RCPT TO:<never@late.test> NOTIFY=NEVER")
	c.cmd(354, "DATA")
	c.cmd(250, letter("late")+".")
	mails := arrived(t, src, 3)
	delayed, failed := reportFrom(t, mails[1]), reportFrom(t, mails[2])
	assert.Equal(t, dsn.Delayed, delayed.Recipients[0].Action)
	assert.Equal(t, dsn.Failed, failed.Recipients[0].Action)
	for _, report := range []*dsn.Report{delayed, failed} {
		require.Len(t, report.Recipients, 1)
		assert.Equal(t, "b@late.test", report.Recipients[0].Final.Addr)
		assert.Equal(t, dsn.Address{Type: "rfc822", Addr: "orig@late.test"}, report.Recipients[0].Original)
		assert.Equal(t, "Q1", report.EnvelopeID)
		assert.Contains(t, report.Recipients[0].Diagnostic.String(), "Come back another day")
	}
	assert.True(t, bytes.Contains(mails[2].Body, []byte("Hello.")), "RET=FULL")
	for _, m := range mails {
		assert.Empty(t, m.From, "reports have the null sender")
		assert.Equal(t, []string{"a@src.test"}, m.Addresses())
	}
	// Mail of the null sender that fails causes nothing.
	c.send(letter("null"), "", "b@gone.test")
	c.send(letter("last"), "a@src.test", "c@gone.test")
	assert.Equal(t, "c@gone.test", reportFrom(t, arrived(t, src, 4)[3]).Recipients[0].Final.Addr)
	failures := func() bool { return r.metric(`relayd_reports_total{action="failed"}`) == 3 }
	require.Eventually(t, failures, patience, 10*time.Millisecond)
	assert.EqualValues(t, 1, r.metric(`relayd_reports_total{action="delayed"}`))
	assert.EqualValues(t, 0, r.metric(`relayd_reports_total{action="relayed"}`))

	c.cmd(250, "MAIL FROM:<a@src.test>")
	c.cmd(250, "RCPT TO:<b@plain.test> NOTIFY=SUCCESS")
	c.cmd(354, "DATA")
	c.cmd(250, letter("arrives")+".")
	assert.Equal(t, dsn.Relayed, reportFrom(t, arrived(t, src, 5)[4]).Recipients[0].Action)
	relayed := func() bool { return r.metric(`relayd_reports_total{action="relayed"}`) == 1 }
	require.Eventually(t, relayed, patience, 10*time.Millisecond)
}

// A routing file that breaks while relayd runs is told by the monitoring, and does not make it look dead.
func TestBrokenRoutesAreTold(t *testing.T) {
	t.Parallel()
	routes := writeFile(t, "routes", "*  hold\n")
	r := start(t, "-routes", routes, "-console", "127.0.0.1:0")
	assert.EqualValues(t, 0, r.metric("relayd_routes_broken"))
	require.NoError(t, os.WriteFile(routes, []byte("*  hodl\n"), 0o600))
	require.Eventually(t, func() bool { return r.metric("relayd_routes_broken") == 1 }, patience, 20*time.Millisecond)
	code, text := r.get("/healthz")
	assert.Equal(t, 200, code)
	assert.Contains(t, text, "ok, but the new routes are broken: ")
	assert.Contains(t, text, routes+":1:")
	require.NoError(t, os.WriteFile(routes, []byte("*  discard\n"), 0o600))
	require.Eventually(t, func() bool { return r.metric("relayd_routes_broken") == 0 }, patience, 20*time.Millisecond)
	_, text = r.get("/healthz")
	assert.Equal(t, "ok\n", text)
}

func reportFrom(t *testing.T, m lab.Message) *dsn.Report {
	t.Helper()
	report, err := dsn.Parse(bytes.NewReader(m.Body))
	require.NoError(t, err, string(m.Body))
	require.NotEmpty(t, report.Recipients, string(m.Body))
	return report
}

// Without -allow-loopback nobody's MX record leads to this machine (std: R11).
func TestLoopbackIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mx := w.host("dst.test")
	r := start(t, "-dns", w.DNS(), "-smtp-port", w.port)
	r.hello().send(letter("inward"), "", "b@dst.test")
	r.waitLog(func(l map[string]any) bool { b, _ := json.Marshal(l); return strings.Contains(string(b), "5.4.4") })
	total, _ := mx.Connections()
	assert.Zero(t, total)
}

// A route by the name of an MX host asks the same DNS as delivery does.
func TestRouteByMX(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	provider := w.host("provider.test")
	isp := w.host("isp.test")
	ip, _, err := net.SplitHostPort(provider.Addr())
	require.NoError(t, err)
	require.NoError(t, w.Zone("customer.test", "@ MX 10 mx.provider.test.\nx A "+ip))
	r := start(t, w.flags("-routes", writeFile(t, "routes", "mx:mx.provider.test smtp://"+isp.Addr()+"\n"))...)
	c := r.hello()
	c.send(letter("by MX"), "a@src.test", "b@customer.test")
	arrived(t, isp, 1)
	assert.Empty(t, provider.Mailbox())
}
