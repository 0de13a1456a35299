package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
)

// binary is relayd, built once for all tests: they see it as its users do, as a process with flags, sockets and signals.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "relayd")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "relayd")
	args := append([]string{"build", "-o", binary}, buildFlags...)
	if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
		panic(fmt.Sprintf("go build: %v\n%s", err, out))
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// An instance is a running relayd.
type instance struct {
	t       *testing.T
	cmd     *exec.Cmd
	addr    string // of its SMTP listener
	console string // of its HTTP listener, "" without one
	spool   string
	done    chan struct{} // closed when it has ended

	mu      sync.Mutex
	log     []string // guarded by mu
	changed chan struct{}
}

// start runs relayd with a spool of its own (unless flags name one) and waits until it listens.
func start(t *testing.T, flags ...string) *instance {
	t.Helper()
	r := launch(t, flags...)
	r.addr = r.logged("smtp")
	if strings.Contains(strings.Join(flags, " "), "-console") {
		r.console = r.logged("console")
	}
	return r
}

func launch(t *testing.T, flags ...string) *instance {
	t.Helper()
	return launchBy(t, []string{binary}, flags...)
}

// launchBy is launch by a command that runs relayd in the end.
func launchBy(t *testing.T, command []string, flags ...string) *instance {
	t.Helper()
	r := &instance{t: t, done: make(chan struct{}), changed: make(chan struct{}), spool: filepath.Join(t.TempDir(), "spool")}
	// Where a test brings no DNS of its own, there is none.
	all := []string{"-listen", "127.0.0.1:0", "-hostname", "relay.test", "-dns", "127.0.0.1:1"}
	if i := slices.Index(flags, "-spool"); i >= 0 {
		r.spool = flags[i+1]
	} else if !slices.Contains(flags, "-queue") {
		all = append(all, "-spool", r.spool)
	}
	all = append(all, flags...)
	r.cmd = exec.Command(command[0], append(command[1:], all...)...)
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	r.cmd.Stderr = logTo{r}
	require.NoError(t, r.cmd.Start())
	go func() {
		r.cmd.Wait()
		close(r.done)
	}()
	t.Cleanup(func() {
		r.cmd.Process.Kill()
		<-r.done
		if strings.Contains(r.text(), "DATA RACE") || strings.Contains(r.text(), "panic") {
			t.Error("relayd broke down")
		}
		if t.Failed() {
			t.Logf("the log of relayd:\n%s", r.text())
		}
	})
	return r
}

// logTo collects what an instance writes to standard error.
type logTo struct{ r *instance }

func (l logTo) Write(p []byte) (int, error) {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	l.r.log = append(l.r.log, strings.TrimRight(string(p), "\n"))
	close(l.r.changed)
	l.r.changed = make(chan struct{})
	return len(p), nil
}

func (r *instance) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.log, "\n")
}

// logged waits for a log line with a field, and gives the field's text.
func (r *instance) logged(field string) string {
	r.t.Helper()
	var value string
	r.waitLog(func(line map[string]any) bool {
		text, ok := line[field].(string)
		value = text
		return ok
	})
	return value
}

// waitLog waits for a log line of which cond is true.
func (r *instance) waitLog(cond func(line map[string]any) bool) {
	r.t.Helper()
	for end := time.After(patience); ; {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		for text := range strings.SplitSeq(r.text(), "\n") {
			var line map[string]any
			if json.Unmarshal([]byte(text), &line) == nil && cond(line) {
				return
			}
		}
		select {
		case <-changed:
		case <-r.done:
			require.FailNow(r.t, "relayd ended before it said what was waited for")
		case <-end:
			require.FailNow(r.t, "relayd did not say what was waited for")
		}
	}
}

// stop sends SIGTERM and waits for the exit code 0.
func (r *instance) stop() {
	r.t.Helper()
	r.cmd.Process.Signal(syscall.SIGTERM)
	require.Equal(r.t, 0, r.wait(), "exit code after SIGTERM")
}

// kill ends it at once, as a crash would.
func (r *instance) kill() {
	r.cmd.Process.Kill()
	<-r.done
}

// wait gives the exit code.
func (r *instance) wait() int {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(patience):
		require.FailNow(r.t, "relayd did not end")
	}
	return r.cmd.ProcessState.ExitCode()
}

func (r *instance) get(path string) (int, string) {
	r.t.Helper()
	res, err := http.Get("http://" + r.console + path)
	require.NoError(r.t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(r.t, err)
	return res.StatusCode, string(body)
}

// metric reads one value of /metrics.
func (r *instance) metric(name string) float64 {
	r.t.Helper()
	_, text := r.get("/metrics")
	for line := range strings.SplitSeq(text, "\n") {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(rest, 64)
			require.NoError(r.t, err)
			return v
		}
	}
	require.FailNow(r.t, "no metric "+name, text)
	return 0
}

// A client speaks SMTP line by line.
type client struct {
	t *testing.T
	*textproto.Conn
	net net.Conn
}

// connect opens a session from an address and reads the greeting.
func (r *instance) connect(from string) *client {
	r.t.Helper()
	c := r.dial(from)
	c.expect(220)
	return c
}

func (r *instance) dial(from string) *client {
	r.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	nc, err := d.Dial("tcp", r.addr)
	require.NoError(r.t, err)
	nc.SetDeadline(time.Now().Add(2 * patience))
	c := &client{r.t, textproto.NewConn(nc), nc}
	r.t.Cleanup(func() { c.Close() })
	return c
}

// hello is connect and EHLO.
func (r *instance) hello() *client {
	r.t.Helper()
	c := r.connect("127.0.0.1")
	c.cmd(250, "EHLO client.test")
	return c
}

// cmd sends a line and expects a reply code; it gives the reply's text.
func (c *client) cmd(code int, line string) string {
	c.t.Helper()
	c.raw(line + "\r\n")
	return c.expect(code)
}

func (c *client) raw(octets string) {
	c.t.Helper()
	_, err := c.net.Write([]byte(octets))
	require.NoError(c.t, err)
}

func (c *client) expect(code int) string {
	c.t.Helper()
	got, text, err := c.ReadResponse(0)
	require.NoError(c.t, err)
	require.Equal(c.t, code, got, text)
	return text
}

// ended expects that the server has closed the connection.
func (c *client) ended() {
	c.t.Helper()
	_, err := c.ReadLine()
	require.ErrorIs(c.t, err, io.EOF)
}

// begin opens a transaction up to the 354.
func (c *client) begin(from string, to ...string) {
	c.t.Helper()
	c.cmd(250, "MAIL FROM:<"+from+">")
	for _, rcpt := range to {
		c.cmd(250, "RCPT TO:<"+rcpt+">")
	}
	c.cmd(354, "DATA")
}

// send sends one message, which must not need dot-stuffing, and gives its queue id.
func (c *client) send(text, from string, to ...string) string {
	c.t.Helper()
	c.begin(from, to...)
	return queueID(c.t, c.cmd(250, text+"."))
}

func queueID(t *testing.T, reply string) string {
	t.Helper()
	id, ok := strings.CutPrefix(reply, "2.0.0 queued as ")
	require.True(t, ok, reply)
	return id
}

// letter is a small message.
func letter(subject string) string {
	return "From: <a@src.test>\r\nTo: <b@dst.test>\r\nSubject: " + subject + "\r\n\r\nHello.\r\n"
}

// A world is a fake internet whose mail servers listen on loopback addresses at one port, and relayd's flags for it.
type world struct {
	*lab.Internet
	t    *testing.T
	port string
	last int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{Internet: lab.Test(t), t: t, last: 1}
}

// host starts mx.DOMAIN and makes it the MX host of the domain.
func (w *world) host(domain string, behaviours ...lab.Behaviour) *lab.Server {
	w.t.Helper()
	w.last++
	ip := fmt.Sprintf("127.0.0.%d", w.last)
	if w.port == "" {
		w.port = freePort(w.t)
	}
	s, err := w.Listen("mx."+domain, net.JoinHostPort(ip, w.port), behaviours...)
	require.NoError(w.t, err)
	require.NoError(w.t, w.Zone(domain, "@ MX 10 mx\nmx A "+ip))
	return s
}

// offering is a server that offers more than most.
func offering(more ...string) lab.Behaviour {
	return lab.Offer{Capabilities: append(lab.DefaultCapabilities(), more...)}
}

// ports counts those that freePort has given.
var ports atomic.Int64

// freePort is a port that is free on every loopback address, and another one each time. It is below those that the system
// gives to listeners and connections which ask for any, so that none of them takes it before the hosts of a world do.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		port := strconv.Itoa(10000 + (os.Getpid()*50+int(ports.Add(1)))%10000)
		if l, err := net.Listen("tcp", ":"+port); err == nil {
			require.NoError(t, l.Close())
			return port
		}
	}
	t.Fatal("no port of a hundred is free")
	return ""
}

// flags lead relayd into the world.
func (w *world) flags(more ...string) []string {
	return append([]string{"-dns", w.DNS(), "-smtp-port", w.port, "-allow-loopback"}, more...)
}

// arrived waits until n messages are in a mailbox.
func arrived(t *testing.T, s *lab.Server, n int) []lab.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	mails, err := s.WaitMail(ctx, n)
	require.NoError(t, err, "%d messages of %d", len(mails), n)
	return mails
}

// writeFile writes a file of the test and gives its name.
func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// headerOf is the header section of a message, unfolded.
func headerOf(body []byte) string {
	head, _, _ := bytes.Cut(body, []byte("\r\n\r\n"))
	return strings.ReplaceAll(string(head), "\r\n\t", " ")
}
