package main_test

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
)

// withFiles runs relayd where no more files may be open: as ulimit -n does.
func withFiles(t *testing.T, files int, flags ...string) *instance {
	t.Helper()
	r := launchBy(t, []string{"sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, files), binary}, flags...)
	r.addr, r.console = r.logged("smtp"), r.logged("console")
	return r
}

// lanes makes n domains, each with a host of its own name at one of some loopback addresses.
func (w *world) lanes(n int) (domains []string, servers []*lab.Server) {
	w.t.Helper()
	const addresses = 50
	w.port = freePort(w.t)
	for i := range addresses {
		s, err := w.Listen(fmt.Sprintf("mx%d.test", i), net.JoinHostPort(fmt.Sprintf("127.0.2.%d", i+1), w.port))
		require.NoError(w.t, err)
		servers = append(servers, s)
	}
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "d%d MX 10 mx.d%d\nmx.d%d A 127.0.2.%d\n", i, i, i, i%addresses+1)
		domains = append(domains, fmt.Sprintf("d%d.lanes.test", i))
	}
	require.NoError(w.t, w.Zone("lanes.test", text.String()))
	return domains, servers
}

// arrivedAt counts the messages at servers until there are n, and calls meanwhile now and then.
func arrivedAt(t *testing.T, servers []*lab.Server, n int, meanwhile func()) {
	t.Helper()
	for end := time.Now().Add(5 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		got := 0
		for _, s := range servers {
			for _, m := range s.Mailbox() {
				got += len(m.To)
			}
		}
		if got >= n {
			require.Equal(t, n, got, "mail arrives once")
			return
		}
		require.True(t, time.Now().Before(end), "%d of %d have arrived", got, n)
		meanwhile()
	}
}

// peak is the most memory that an instance has had, in octets.
func (r *instance) peak() int64 {
	r.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	if os.IsNotExist(err) {
		r.t.Skip("this system has no /proc")
	}
	require.NoError(r.t, err)
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	require.NoError(r.t, err)
	return kib << 10
}

// With 256 files the mail of thousands of lanes that are due at once goes out, each by a connection of its own: no try fails
// for want of a file, users get in meanwhile, and memory stays bounded. SORTIE_INTEROP=1 makes it 10,000 lanes.
func TestFewFiles(t *testing.T) {
	lanes, long := 2000, 100
	if os.Getenv("SORTIE_INTEROP") == "1" {
		lanes = 10_000
	}
	w := newWorld(t)
	domains, servers := w.lanes(lanes)
	r := withFiles(t, 256, w.flags("-max-recipients", "10000", "-memory", "256MiB", "-console", "127.0.0.1:0")...)
	var to []string
	for _, domain := range domains {
		to = append(to, "you@"+domain)
	}
	c := r.hello()
	c.sendAtOnce(letter("to all"), "", to...)
	c.sendAtOnce(letter("long")+strings.Repeat("0123456789abcde\r\n", 10_000), "", to[:long]...) // each try has its body's file open
	arrivedAt(t, servers, lanes+long, func() {
		in := r.hello() // a user finds room at any time
		in.cmd(221, "QUIT")
		assert.Less(t, r.open(), 256)
	})
	require.Eventually(t, func() bool { return r.metric(`relayd_attempts_total{result="delivered"}`) == float64(lanes+long) }, patience, 10*time.Millisecond)
	assert.Zero(t, r.metric(`relayd_attempts_total{result="tempfail"}`), "no try failed")
	assert.NotContains(t, r.text(), "too many open files")
	assert.Less(t, r.peak(), int64(256<<20)*memoryFactor)
	t.Logf("%d lanes with 256 files: at most %d MiB", lanes, r.peak()>>20)
	r.stop()
}

// open counts the open files of an instance.
func (r *instance) open() int {
	r.t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.cmd.Process.Pid))
	if os.IsNotExist(err) {
		r.t.Skip("this system has no /proc")
	}
	require.NoError(r.t, err)
	return len(files)
}

// sendAtOnce is send with the envelope in one piece.
func (c *client) sendAtOnce(text, from string, to ...string) {
	c.t.Helper()
	go fmt.Fprintf(c.net, "MAIL FROM:<%s>\r\nRCPT TO:<%s>\r\nDATA\r\n", from, strings.Join(to, ">\r\nRCPT TO:<"))
	for range len(to) + 1 {
		c.expect(250)
	}
	c.expect(354)
	c.cmd(250, text+".")
}

// A user who comes when all connections are taken, or when no file is left, is told at once, and finds room when there is some.
func TestNobodyWaitsForAFile(t *testing.T) {
	t.Parallel()
	r := withFiles(t, 80, "-console", "127.0.0.1:0", "-max-per-client", "1000")
	var open []*client
	for {
		c := r.dial("127.0.0.1")
		line, err := c.ReadLine()
		require.NoError(t, err)
		if strings.HasPrefix(line, "421 4.3.2 ") {
			break
		}
		require.True(t, strings.HasPrefix(line, "220 "), line)
		c.cmd(250, "EHLO client.test")
		c.cmd(250, "MAIL FROM:<a@src.test>") // so that it does not give way
		open = append(open, c)
		require.Less(t, len(open), 80)
	}
	assert.NotEmpty(t, open)
	open[0].cmd(250, "RCPT TO:<b@dst.test>")
	open[0].cmd(221, "QUIT")
	open[0].ended()
	require.Eventually(t, func() bool { return r.metric(`relayd_sessions{client="user"}`) == float64(len(open)-1) }, patience, time.Millisecond)
	r.hello().send(letter("fits"), "a@src.test", "b@dst.test")
	r.stop()
}

// refusedIn sends messages until one is refused, for what others have sent may still be on its way.
func (c *client) refusedIn(limit time.Duration, code int, status string) {
	c.t.Helper()
	for end := time.Now().Add(limit); ; {
		c.begin("a@src.test", "b@dst.test")
		c.raw(letter("late") + ".\r\n")
		got, text, err := c.ReadResponse(0)
		require.NoError(c.t, err)
		if got == code {
			require.Contains(c.t, text, status)
			return
		}
		require.Equal(c.t, 250, got, text)
		require.True(c.t, time.Now().Before(end), "nothing is refused")
	}
}

// Messages that come in have a part of the memory: whoever comes when it is used up is told to come again, and those that were
// there before are taken.
func TestMemoryForWhatComesIn(t *testing.T) {
	t.Parallel()
	r := start(t, "-memory", "64MiB", "-console", "127.0.0.1:0")
	var slow []*client
	for range 48 { // 128 KiB each: three quarters of an eighth
		c := r.hello()
		c.begin("a@src.test", "b@dst.test")
		c.raw("Subject: slow\r\n\r\n" + strings.Repeat("0123456789abcde\r\n", 6000))
		slow = append(slow, c)
	}
	late := r.hello()
	late.refusedIn(patience, 452, "4.3.1")
	for _, c := range slow {
		queueID(t, c.cmd(250, "."))
	}
	late.send(letter("again"), "a@src.test", "b@dst.test")
	assert.EqualValues(t, 1, r.metric(`relayd_refused_total{reason="full"}`))
}
