package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
)

// SIGTERM ends idle sessions at once, lets a message that is coming in finish, and takes nothing new.
func TestStopWithSessions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mx := w.host("dst.test", lab.Refuse(lab.AtGreeting, "421 4.3.2 not now"))
	r := start(t, w.flags()...)
	silent, idle, open, busy, chunks := r.connect("127.0.0.1"), r.hello(), r.hello(), r.hello(), r.hello()
	open.cmd(250, "MAIL FROM:<a@src.test>")
	busy.begin("a@src.test", "b@dst.test")
	busy.raw("Subject: half\r\n")
	chunks.cmd(250, "MAIL FROM:<a@src.test>")
	chunks.cmd(250, "RCPT TO:<c@dst.test>")
	chunks.raw("BDAT 17\r\nSubject: chunk\r\n\r")
	chunks.expect(250)

	r.cmd.Process.Signal(syscall.SIGTERM)
	for _, c := range []*client{silent, idle, open} {
		assert.Contains(t, c.expect(421), "4.3.2 relay.test is shutting down")
		c.ended()
	}
	busy.raw("\r\nwhole\r\n.\r\n")
	first := queueID(t, busy.expect(250))
	assert.Contains(t, busy.expect(421), "4.3.2")
	busy.ended()
	chunks.raw("BDAT 8 LAST\r\n\nhello\r\n")
	second := queueID(t, chunks.expect(250))
	assert.Contains(t, chunks.expect(421), "4.3.2")
	require.Equal(t, 0, r.wait())

	mx.Behave(lab.AcceptAll)
	again := start(t, w.flags("-spool", r.spool)...)
	bodies := map[string]bool{}
	for _, m := range arrived(t, mx, 2) {
		bodies[string(m.Body[strings.Index(string(m.Body), "Subject"):])] = true
	}
	assert.Equal(t, map[string]bool{"Subject: half\r\n\r\nwhole\r\n": true, "Subject: chunk\r\n\r\nhello\r\n": true}, bodies)
	for _, id := range []string{first, second} {
		again.waitLog(func(l map[string]any) bool { return l["msg"] == "attempt" && l["id"] == id })
	}
}

// A message that does not end, and a delivery that does not either, do not keep the relay from stopping: the one is refused,
// the other put back.
func TestStopInTheMiddle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mx := w.host("dst.test", lab.Hang(lab.AtRcpt))
	r := start(t, w.flags()...)
	c := r.hello()
	c.send(letter("hangs"), "a@src.test", "b@dst.test")
	c.begin("a@src.test", "b@dst.test")
	c.raw("Subject: half\r\n")
	require.NoError(t, mx.WaitTranscript(t.Context(), "RCPT"))
	half := r.hello()
	half.cmd(250, "MAIL FROM:<a@src.test>")
	half.cmd(250, "RCPT TO:<b@dst.test>")
	half.raw("BDAT 12\r\nSubject: x\r\n")
	half.expect(250)
	half.raw("BDAT 100 LAST\r\nhalf\r\n")
	r.cmd.Process.Signal(syscall.SIGTERM)
	for _, c := range []*client{c, half} {
		assert.Contains(t, c.expect(421), "4.3.2")
		c.ended()
	}
	require.Equal(t, 0, r.wait()) // within patience; the limit of 10 s is the contract's
	assert.NotContains(t, r.text(), "did not end")
	for _, reason := range []string{"shutdown", "broken_off"} {
		r.waitLog(func(l map[string]any) bool {
			reply, _ := l["reply"].(string)
			return l["msg"] == "refused" && l["reason"] == reason && l["sender"] == "a@src.test" && strings.HasPrefix(reply, "421 4.3.2 ")
		})
	}

	mx.Behave(lab.AcceptAll)
	start(t, w.flags("-spool", r.spool)...)
	mails := arrived(t, mx, 1)
	assert.Contains(t, string(mails[0].Body), "Subject: hangs")
}

// A delivery that is under way when SIGTERM comes, and ends soon, is finished and recorded.
func TestStopFinishesDelivery(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mx := w.host("dst.test", lab.Delay(lab.AtDot, time.Second))
	r := start(t, w.flags()...)
	r.hello().send(letter("slow"), "a@src.test", "b@dst.test")
	require.NoError(t, mx.WaitTranscript(t.Context(), "DATA"))
	r.stop()
	assert.Len(t, mx.Mailbox(), 1)
	again := start(t, w.flags("-spool", r.spool, "-console", "127.0.0.1:0")...)
	assert.Zero(t, again.metric("relayd_queue_messages"))
}

// Nothing that was answered with 250 is lost, however relayd ends (std: Q1).
func TestKill(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mx := w.host("dst.test", lab.Times(1, lab.Hang(lab.AtDot)))
	spool := t.TempDir()
	var ids []string
	for round := range 3 {
		r := start(t, w.flags("-spool", spool)...)
		c := r.hello()
		for i := range 10 {
			c.send(letter(fmt.Sprintf("%d.%d", round, i)), "a@src.test", "b@dst.test")
			ids = append(ids, fmt.Sprintf("Subject: %d.%d\r\n", round, i))
		}
		c.begin("a@src.test", "b@dst.test")
		c.raw("Subject: never acknowledged\r\n")
		r.kill()
	}
	start(t, w.flags("-spool", spool)...)
	missing := func() (left []string) {
		var all strings.Builder
		for _, m := range mx.Mailbox() {
			all.Write(m.Body)
		}
		assert.NotContains(t, all.String(), "never acknowledged")
		for _, id := range ids {
			if !strings.Contains(all.String(), id) {
				left = append(left, id)
			}
		}
		return left
	}
	assert.NoError(t, mx.Wait(t.Context(), func() bool { return len(missing()) == 0 }))
}

// A second process on the spool is told who has it (std: Q3).
func TestSecondProcess(t *testing.T) {
	t.Parallel()
	r := start(t)
	second := launch(t, "-spool", r.spool)
	assert.Equal(t, 1, second.wait())
	assert.Contains(t, second.text(), fmt.Sprintf("is in use by process %d (relayd)", r.cmd.Process.Pid))
	assert.NotContains(t, second.text(), "listening")
	r.hello().send(letter("still there"), "a@src.test", "b@dst.test")
}

// SIGHUP reads the routes, frees what waits for them, and opens the log files anew.
func TestHangup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	aol := w.host("aol.test", lab.Refuse(lab.AtGreeting, "554 5.7.1 your address is an open proxy"))
	isp := w.host("isp.test")
	routes := writeFile(t, "routes", "*@held.test  hold\n")
	dir := t.TempDir()
	log, transcript := filepath.Join(dir, "log"), filepath.Join(dir, "transcript")
	r := launch(t, w.flags("-routes", routes, "-log", log, "-transcript", transcript)...)
	waitFor(t, log, `"msg":"listening"`)
	r.addr = field(t, log, "smtp")
	c := r.hello()
	c.send(letter("blocked"), "a@src.test", "b@aol.test")
	c.send(letter("held"), "a@src.test", "b@held.test")
	waitFor(t, log, "open proxy")
	waitFor(t, log, `"msg":"mail is held"`)
	waitFor(t, transcript, "S: 554 5.7.1 your address is an open proxy")

	require.NoError(t, os.Rename(log, log+".1"))
	require.NoError(t, os.Rename(transcript, transcript+".1"))
	require.NoError(t, os.WriteFile(routes, []byte("*@aol.test smpt://isp\n*@aol.test hold\n"), 0o600))
	r.cmd.Process.Signal(syscall.SIGHUP)
	waitFor(t, log, "the new routes are broken")
	waitFor(t, log, routes+":1:")
	assert.Empty(t, isp.Mailbox())

	way := "smtp://" + isp.Addr() + "\n"
	require.NoError(t, os.WriteFile(routes, []byte("*@aol.test "+way+"*@held.test "+way), 0o600))
	r.cmd.Process.Signal(syscall.SIGHUP)
	mails := arrived(t, isp, 2)
	assert.Equal(t, isp.Name(), "mx.isp.test")
	assert.Len(t, mails, 2)
	assert.Empty(t, aol.Mailbox())
	waitFor(t, log, `"freed":`)
	waitFor(t, transcript, "RCPT TO:<b@aol.test>")
	old, err := os.ReadFile(log + ".1")
	require.NoError(t, err)
	assert.NotContains(t, string(old), "the new routes are broken")
	r.stop()
}

// SIGHUP reads the secrets too, and frees the mail that waited for the right one.
func TestHangupReadsSecrets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	isp := w.host("isp.test", lab.Offer{AuthInClear: true, AuthRequired: true, Users: map[string]string{"me": "new"}, TLS: lab.TLSOffered})
	secret := writeFile(t, "secret", "old")
	r := start(t, w.flags("-routes", writeFile(t, "routes", "*  submission://me@"+isp.Addr()+" secret=file:"+secret+"\n"))...)
	r.hello().send(letter("later"), "a@src.test", "b@dst.test")
	r.waitLog(func(l map[string]any) bool { return l["msg"] == "mail waits" })
	require.NoError(t, os.WriteFile(secret, []byte("new"), 0o600))
	r.cmd.Process.Signal(syscall.SIGHUP)
	assert.Equal(t, "me", arrived(t, isp, 1)[0].User)
}

// waitFor waits until a file holds a text.
func waitFor(t *testing.T, file, text string) {
	t.Helper()
	require.Eventually(t, func() bool {
		b, _ := os.ReadFile(file)
		return strings.Contains(string(b), text)
	}, patience, 10*time.Millisecond, "%s in %s", text, file)
}

// field finds a field of a JSON log.
func field(t *testing.T, file, name string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	_, after, ok := strings.Cut(string(b), `"`+name+`":"`)
	require.True(t, ok, string(b))
	value, _, _ := strings.Cut(after, `"`)
	return value
}

// std: Q1
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil { // less than is kept for settling
		missing(t, "a small disk that can be mounted: "+err.Error())
	}
	t.Cleanup(func() { syscall.Unmount(dir, 0) })
	r := start(t, "-spool", dir)
	c := r.hello()
	c.begin("a@src.test", "b@dst.test")
	assert.Contains(t, c.cmd(452, letter("no room")+"."), "4.3.1")
	c.cmd(250, "NOOP")
	r.stop()
}
