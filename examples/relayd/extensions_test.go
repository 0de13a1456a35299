package main_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/queue/disk"
)

// certify makes a certificate for relay.test, and gives its files and who trusts it.
func certify(t *testing.T) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "relay.test"}, DNSNames: []string{"relay.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	roots = x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(certPEM))
	return writeFile(t, "cert.pem", string(certPEM)), writeFile(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))), roots
}

// startTLS goes on within TLS.
func (c *client) startTLS(roots *x509.CertPool) {
	c.t.Helper()
	c.cmd(220, "STARTTLS")
	secure := tls.Client(c.net, &tls.Config{RootCAs: roots, ServerName: "relay.test"})
	require.NoError(c.t, secure.Handshake())
	c.net, c.Conn = secure, textproto.NewConn(secure)
}

func (c *client) offers() []string {
	c.t.Helper()
	return strings.Split(c.cmd(250, "EHLO client.test"), "\n")
}

// A client may have TLS where there is a certificate, and REQUIRETLS within it (RFC 8689, section 2).
//
// std: C17 C21
func TestSTARTTLS(t *testing.T) {
	t.Parallel()
	cert, key, roots := certify(t)
	r, mx := toMX(t, "-cert", cert, "-key", key)
	c := r.connect("127.0.0.1")
	offers := c.offers()
	assert.Contains(t, offers, "STARTTLS")
	assert.NotContains(t, offers, "REQUIRETLS", "it is of no use in the clear")
	assert.Contains(t, c.cmd(530, "MAIL FROM:<a@src.test> REQUIRETLS"), "5.7.10")
	assert.Contains(t, c.cmd(501, "STARTTLS now"), "5.5.4")
	c.cmd(250, "MAIL FROM:<a@src.test>")
	assert.Contains(t, c.cmd(503, "STARTTLS"), "5.5.1")
	c.cmd(250, "RSET")

	c.startTLS(roots)
	assert.Contains(t, c.cmd(503, "MAIL FROM:<a@src.test>"), "5.5.1", "what was said before does not count (RFC 3207, section 4.2)")
	offers = c.offers()
	assert.Contains(t, offers, "REQUIRETLS")
	assert.NotContains(t, offers, "STARTTLS")
	assert.Subset(t, offers, []string{"PIPELINING", "8BITMIME", "SIZE 52428800", "SMTPUTF8", "DSN", "CHUNKING", "ENHANCEDSTATUSCODES"})
	assert.Contains(t, c.cmd(503, "STARTTLS"), "5.5.1")
	c.send(letter("within TLS"), "a@src.test", "b@dst.test")
	c.send("Subject: long\r\n\r\n"+strings.Repeat("0123456789\r\n", 20_000), "a@src.test", "b@dst.test", "c@dst.test")
	c.cmd(221, "QUIT")
	c.ended()
	heads := ""
	for _, m := range arrived(t, mx, 2) {
		heads += headerOf(m.Body)
	}
	assert.Regexp(t, `with ESMTPS id [a-z0-9-]+ for <b@dst\.test> tls TLS_[A-Z0-9_]+; `, heads)
	assert.Regexp(t, `with ESMTPS id [a-z0-9-]+ tls TLS_[A-Z0-9_]+; `, heads)
}

// Octets before TLS that a server would take for commands within it, and a client that speaks no TLS, end the connection, and
// are nobody else's trouble.
//
// std: T9
func TestHostileSTARTTLS(t *testing.T) {
	t.Parallel()
	cert, key, roots := certify(t)
	r := start(t, "-cert", cert, "-key", key, "-idle", "2s")
	c := r.hello()
	c.raw("STARTTLS\r\nMAIL FROM:<injected@src.test>\r\n")
	assert.Contains(t, c.expect(554), "5.5.0")
	c.ended()
	for _, junk := range []string{"EHLO again\r\n", "\x16\x03\x01\xff\xff", "\x00", ""} { // the last two wait for the limit
		c := r.hello()
		c.cmd(220, "STARTTLS")
		c.raw(junk)
		rest, _ := io.ReadAll(c.net)
		assert.NotContains(t, string(rest), "250", "%q", junk)
	}
	c = r.hello()
	c.raw(strings.Repeat("STARTTLS x\r\n", 2000))
	for range 2000 {
		c.expect(501)
	}
	c.startTLS(roots)
	c.offers()
	assert.Contains(t, start(t).hello().cmd(502, "STARTTLS"), "5.5.1", "there is no certificate")
}

// A new certificate is used after SIGHUP, and the old one where the new one is broken.
func TestNewCertificate(t *testing.T) {
	t.Parallel()
	cert, key, roots := certify(t)
	r := start(t, "-cert", cert, "-key", key)
	c := r.hello()
	c.startTLS(roots)
	newCert, newKey, newRoots := certify(t)
	copyFile(t, newCert, cert)
	require.NoError(t, r.cmd.Process.Signal(syscall.SIGHUP)) // the key is still the old one
	r.waitLog(func(line map[string]any) bool {
		return strings.Contains(fmt.Sprint(line["msg"]), "the new certificate is broken")
	})
	r.hello().startTLS(roots)
	copyFile(t, newKey, key)
	require.NoError(t, r.cmd.Process.Signal(syscall.SIGHUP))
	require.Eventually(t, func() bool {
		c := r.hello()
		c.cmd(220, "STARTTLS")
		return tls.Client(c.net, &tls.Config{RootCAs: newRoots, ServerName: "relay.test"}).Handshake() == nil
	}, patience, 20*time.Millisecond)
	c.offers() // who is there stays
}

// What a client asks for with MAIL is kept with the message, and a report about it.
//
// std: C17 C19
func TestParametersAreKept(t *testing.T) {
	t.Parallel()
	cert, key, roots := certify(t)
	r := start(t, "-cert", cert, "-key", key, "-console", "127.0.0.1:0", "-routes", writeFile(t, "routes", "* hold\n"))
	c := r.hello()
	c.startTLS(roots)
	assert.Subset(t, c.offers(), []string{"DELIVERBY", "MT-PRIORITY", "BINARYMIME", "REQUIRETLS"})
	show := func(mail string) queue.Envelope {
		t.Helper()
		c.cmd(250, mail)
		c.cmd(250, "RCPT TO:<b@dst.test>")
		c.raw("BDAT 14 LAST\r\nA: b\r\n\r\nHello.")
		id := queueID(t, c.expect(250))
		var d queue.Detail
		require.Equal(t, 200, r.ask(r.request("GET", "/queue/"+id, ""), &d))
		return d.Envelope
	}
	began := time.Now()
	env := show("MAIL FROM:<a@src.test> by=3600;nT SIZE=40 MT-PRIORITY=-4 RET=HDRS REQUIRETLS BODY=BINARYMIME ENVID=x")
	assert.Equal(t, "a@src.test", env.From)
	assert.Equal(t, "x", env.EnvelopeID)
	assert.Equal(t, dsn.ReturnHeaders, env.Return)
	assert.True(t, env.RequireTLS)
	assert.True(t, env.Binary)
	assert.Equal(t, -4, env.Priority)
	assert.True(t, env.DeliverBy.Notify)
	assert.True(t, env.DeliverBy.Trace)
	assert.WithinDuration(t, began.Add(time.Hour), env.DeliverBy.Time, patience)

	env = show(`MAIL FROM:<"a BY=1;R MT-PRIORITY=9"@src.test> MT-PRIORITY=9`)
	assert.Equal(t, queue.Envelope{From: `"a BY=1;R MT-PRIORITY=9"@src.test`, To: queue.To("b@dst.test"), Priority: 9}, env)
	env = show("MAIL FROM:<a@src.test> " + strings.Repeat(" ", 5000))
	assert.Equal(t, queue.Envelope{From: "a@src.test", To: queue.To("b@dst.test")}, env, "nothing is left of the one before, in a line that comes in pieces either")
	env = show("MAIL FROM:<> BY=+60;R")
	assert.False(t, env.DeliverBy.Notify)
	assert.WithinDuration(t, time.Now().Add(time.Minute), env.DeliverBy.Time, patience)
	env = show("MAIL FROM:<a@src.test> BY=-60;N")
	assert.Zero(t, env.DeliverBy.Time, "its sender was told already, and there is no limit any more")

	r.stop()
	q, err := disk.Open(r.spool)
	require.NoError(t, err)
	defer q.Close()
	held, _, err := q.List(t.Context(), queue.Filter{State: queue.Held}, "", 0)
	require.NoError(t, err)
	require.Len(t, held, 5)
	assert.True(t, held[0].RequireTLS)
	assert.Equal(t, -4, held[0].Priority)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(to, text, 0o600))
}

// What makes no sense is refused with words that say so, and its connection goes on.
//
// std: C19
func TestJunkParameters(t *testing.T) {
	t.Parallel()
	c := start(t).hello()
	for _, junk := range []string{
		"BY=", "BY=60", "BY=60;", "BY=60;X", "BY=60;RN", "BY=;R", "BY=x;R", "BY=1.5;R", "BY=1000000000;R", "BY=99999999999999999999;N", "BY=0;R", "BY=-1;R", "BY=--1;N", "BY=60;R;T", "BY",
		"BY=60;R BY=60;R", "BY=60;R by=60;N", "BY=\x0160;R",
		"MT-PRIORITY=", "MT-PRIORITY=10", "MT-PRIORITY=-10", "MT-PRIORITY=+3", "MT-PRIORITY=05", "MT-PRIORITY=-0", "MT-PRIORITY=high", "MT-PRIORITY=3 MT-PRIORITY=3", "MT-PRIORITY",
		"MT-PRIORITY=" + strings.Repeat("9", 900),
	} {
		assert.Contains(t, c.cmd(501, "MAIL FROM:<a@src.test> "+junk), "5.5.4", junk)
	}
	for _, junk := range []string{"BY=60;R", "MT-PRIORITY=3"} {
		c.cmd(250, "MAIL FROM:<a@src.test>")
		assert.Contains(t, c.cmd(504, "RCPT TO:<b@dst.test> "+junk), "5.5.4", "they are parameters of MAIL")
		c.cmd(250, "RSET")
	}
	assert.Contains(t, c.cmd(530, "MAIL FROM:<a@src.test> REQUIRETLS"), "5.7.10")
	c.cmd(250, "MAIL FROM:<a@src.test> BY=0;N")
	c.cmd(250, "RSET")
	for _, odd := range []string{"MAIL FROM:<a@src.test>BY=60;R", "MAIL FROM:a@src.test BY=60;R", "mail from: <a@src.test>\tBY=60;R\tMT-PRIORITY=0"} {
		c.cmd(250, odd)
		c.cmd(250, "RSET")
	}
	assert.Contains(t, c.cmd(500, "MAIL FROM:<a@src.test> BY=60;R "+strings.Repeat("x", 5000)), "5.5.4", "what is too long to be read is refused")
	c.cmd(250, "MAIL FROM:<a@src.test>")
}

// BINARYMIME comes in chunks only, and stays as it is, whatever octets it has.
func TestBinary(t *testing.T) {
	t.Parallel()
	r := start(t, "-routes", writeFile(t, "routes", "* hold\n"))
	const text = "Subject: x\r\nContent-Transfer-Encoding: binary\r\n\r\n\x00\r\r\n.\n\n\r\n.\r\n\xff\r"
	c := r.hello()
	c.cmd(250, "MAIL FROM:<a@src.test> BODY=BINARYMIME")
	c.cmd(250, "RCPT TO:<b@dst.test>")
	c.cmd(502, "DATA")
	c.raw(fmt.Sprintf("BDAT %d LAST\r\n%s", len(text), text))
	id := queueID(t, c.expect(250))
	c.cmd(250, "MAIL FROM:<a@src.test> BODY=8BITMIME")
	c.cmd(250, "RCPT TO:<b@dst.test>")
	c.raw(fmt.Sprintf("BDAT %d LAST\r\n%s", len(text), text))
	assert.Contains(t, c.expect(550), "5.6.0", "what is not binary has lines")
	r.stop()
	q, err := disk.Open(r.spool)
	require.NoError(t, err)
	defer q.Close()
	body, err := q.Open(t.Context(), queue.ID(id))
	require.NoError(t, err)
	defer body.Close()
	got, err := io.ReadAll(body)
	require.NoError(t, err)
	assert.True(t, bytes.HasSuffix(got, []byte("\r\n"+text)), "%q", got)
	d, err := q.Show(t.Context(), queue.ID(id))
	require.NoError(t, err)
	assert.True(t, d.Envelope.Binary)
}

// What is of no use after its time comes back then, though the next try is far away.
//
// std: C19 D11
func TestDeliverBy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	home := w.host("src.test")
	w.host("dst.test", offering("DELIVERBY"), lab.Refuse(lab.AtRcpt, "450 4.2.0 Not now"))
	r := start(t, w.flags("-retry", "1h")...)
	c := r.hello()
	c.cmd(250, "MAIL FROM:<a@src.test> BY=2;R")
	c.cmd(250, "RCPT TO:<b@dst.test>")
	c.cmd(354, "DATA")
	c.cmd(250, letter("soon")+".")
	c.cmd(250, "MAIL FROM:<a@src.test> BY=1;N")
	c.cmd(250, "RCPT TO:<c@dst.test>")
	c.cmd(354, "DATA")
	c.cmd(250, letter("late")+".")
	got := map[string]dsn.Recipient{}
	for _, m := range arrived(t, home, 2) {
		rcpt := reportFrom(t, m).Recipients[0]
		got[rcpt.Final.Addr] = rcpt
	}
	assert.Equal(t, dsn.Failed, got["b@dst.test"].Action)
	assert.Equal(t, dsn.Status("5.4.7"), got["b@dst.test"].Status)
	assert.Equal(t, 450, got["b@dst.test"].Diagnostic.Code)
	assert.Equal(t, dsn.Delayed, got["c@dst.test"].Action)
	assert.Equal(t, dsn.Status("4.4.7"), got["c@dst.test"].Status)
}

// A message that begins here gets what it must have, where that is asked for.
//
// std: C22
func TestSubmission(t *testing.T) {
	t.Parallel()
	r, mx := toMX(t, "-submission")
	c := r.hello()
	c.send("Subject: bare\r\nReturn-Path: <x@y.test>\r\n\r\nHello.\r\n", "a@src.test", "b@dst.test")
	head := headerOf(arrived(t, mx, 1)[0].Body)
	assert.Regexp(t, `(?s)^Received: [^\r]+\r\nSubject: bare\r\nDate: [A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}\r\nMessage-ID: <[a-z0-9-]+@relay\.test>\r\nFrom: <a@src\.test>$`, head)
	whole := "Date: Tue, 24 Nov 2026 21:31:05 +0100\r\nMessage-ID: <1@src.test>\r\n" + letter("whole")
	c.send(whole, "a@src.test", "b@dst.test")
	for _, m := range arrived(t, mx, 2) {
		if strings.Contains(string(m.Body), "Subject: whole") {
			assert.True(t, bytes.HasSuffix(m.Body, []byte("\r\n"+whole)))
		}
	}
}

// A connection that is lost after the end of a message is told of to whoever looks, and the second copy is known by its
// Message-ID.
//
// std: C14
func TestPossiblyDelivered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mx := w.host("dst.test", lab.Times(1, lab.DropAfterTaking()))
	r := start(t, w.flags("-retry", "3s", "-console", "127.0.0.1:0")...)
	id := r.hello().send("Message-ID: <once@src.test>\r\n"+letter("twice"), "a@src.test", "b@dst.test")
	r.waitLog(func(line map[string]any) bool {
		o, ok := line["outcome"].(map[string]any)
		return ok && o["possibly_delivered"] == true
	})
	var d queue.Detail
	require.Equal(t, 200, r.ask(r.request("GET", "/queue/"+id, ""), &d))
	require.Len(t, d.Entries, 1)
	assert.True(t, d.Entries[0].Last.Results[0].PossiblyDelivered)
	assert.True(t, r.list("?lane=dst.test").Entries[0].Last.Results[0].PossiblyDelivered)
	for _, m := range arrived(t, mx, 2) {
		assert.Contains(t, string(m.Body), "\r\nMessage-ID: <once@src.test>\r\n")
	}
}

// Certificates that are none are told before anything is touched.
func TestCertificateMistakes(t *testing.T) {
	t.Parallel()
	cert, key, _ := certify(t)
	for _, flags := range [][]string{{"-cert", cert}, {"-key", key}, {"-cert", key, "-key", key}, {"-cert", cert, "-key", filepath.Join(t.TempDir(), "none")}} {
		r := launch(t, flags...)
		assert.NotZero(t, r.wait())
		assert.Contains(t, r.text(), "-cert")
		assert.NoDirExists(t, r.spool)
	}
}
