//go:build linux

package deliver_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/template"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/deliver/resolve"
	"github.com/sortie-mail/sortie/route"
)

// The peers are mail servers of other makes. Every test starts its own, on loopback, with the configuration of
// testdata/peers and nothing of the system's; they need root, because the servers change users. Debian's packages of Postfix,
// Exim and OpenSMTPD exclude each other: those that are not installed are looked for below $SORTIE_PEERS, where .ci/run
// unpacks them.

const (
	peerHost = "mx.store.test" // the name of every peer; it takes mail for store.test
	peerUser = "sortie"
	// peerPassword is nobody's.
	peerPassword = "correct horse"
	patience     = time.Minute // with a peer that does not start, or does not put mail where it should be
)

// missing ends a test for which something is not there: it is skipped, and with SORTIE_INTEROP=1, which says that all peers
// are installed, it fails.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("SORTIE_INTEROP") == "1" {
		t.Fatal(what + ", and SORTIE_INTEROP=1 promised it")
	}
	t.Skip(what)
}

// peerRoot finds where a server is installed: "/", or the directory of the servers that are unpacked only.
func peerRoot(t *testing.T, server, program string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "root, for a private "+server+", is not there")
	}
	unpacked := os.Getenv("SORTIE_PEERS")
	if unpacked == "" {
		unpacked = "/opt/sortie-peers"
	}
	for _, root := range []string{"/", unpacked} {
		if info, err := os.Stat(filepath.Join(root, program)); err == nil && info.Mode()&0o111 != 0 {
			return root
		}
	}
	missing(t, fmt.Sprintf("%s is not installed: neither %s nor %s is there", server, program, filepath.Join(unpacked, program)))
	return ""
}

// A peer is a server that a test has started.
type peer struct {
	*lab.Internet
	IP    string   // of its listeners: one of loopback that is its own
	Dir   string   // of everything that is the peer's
	Boxes []string // the mailboxes at store.test that it knows
	UID   int      // of the user who owns the mail
	GID   int
	mail  string   // the directory of the maildirs
	logs  []string // files to show when the test fails

	mu    sync.Mutex // guards ports
	ports map[string]uint16
}

// newPeer makes the directory of a peer, and the internet that knows it. The peer has a mailbox for every message of the
// corpus, and those of the cases.
func newPeer(t *testing.T) *peer {
	t.Helper()
	boxes := []string{"you", "they", "grey", "пошта"}
	for _, s := range corpus() {
		boxes = append(boxes, s.box)
	}
	dir, err := os.MkdirTemp("", "sortie-peer") // t.TempDir is closed to the servers' own users
	require.NoError(t, err)
	t.Cleanup(func() { // what a server has begun to store may still come while it ends
		require.Eventually(t, func() bool { return os.RemoveAll(dir) == nil }, patience, 10*time.Millisecond)
	})
	require.NoError(t, os.Chmod(dir, 0o755))
	ip := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	p := &peer{Internet: lab.Test(t), IP: ip, Dir: dir, Boxes: boxes, mail: filepath.Join(dir, "mail"), ports: make(map[string]uint16)}
	require.NoError(t, p.Zone("store.test", "@ MX 10 mx\nmx A "+p.IP))
	t.Cleanup(func() {
		for _, name := range p.logs {
			if text, _ := os.ReadFile(name); t.Failed() {
				t.Logf("the end of %s:\n%s", name, text[max(0, len(text)-8<<10):])
			}
		}
	})
	return p
}

// Port is the port of a listener of the peer, the same one for the same name. Nobody else listens at the peer's address.
func (p *peer) Port(listener string) uint16 {
	const first = 10000
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ports[listener] == 0 {
		p.ports[listener] = uint16(first + len(p.ports))
	}
	return p.ports[listener]
}

// has reports whether the configuration of the peer has a listener.
func (p *peer) has(listener string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ports[listener] != 0
}

// path is a file of the peer.
func (p *peer) path(name ...string) string { return filepath.Join(append([]string{p.Dir}, name...)...) }

// addr is the address of a listener.
func (p *peer) addr(listener string) string {
	return net.JoinHostPort(p.IP, strconv.Itoa(int(p.Port(listener))))
}

// owner makes a user of the system the owner of the peer's mail.
func (p *peer) owner(t *testing.T, name string) {
	t.Helper()
	u, err := user.Lookup(name)
	require.NoError(t, err)
	p.UID, err = strconv.Atoi(u.Uid)
	require.NoError(t, err)
	p.GID, err = strconv.Atoi(u.Gid)
	require.NoError(t, err)
	p.folder(t, "mail", p.UID, p.GID, 0o755)
}

// write makes a file of the peer, with its directory.
func (p *peer) write(t *testing.T, name, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(p.path(name)), 0o755))
	require.NoError(t, os.WriteFile(p.path(name), []byte(text), 0o644))
}

// folder makes a directory of the peer that belongs to one of its users.
func (p *peer) folder(t *testing.T, name string, uid, gid int, mode os.FileMode) {
	t.Helper()
	require.NoError(t, os.MkdirAll(p.path(name), 0o755))
	require.NoError(t, os.Chown(p.path(name), uid, gid))
	require.NoError(t, os.Chmod(p.path(name), mode))
}

func chown(t *testing.T, name string, uid, gid int) {
	t.Helper()
	require.NoError(t, os.Chown(name, uid, gid))
}

// configure makes a file of the peer from a template in testdata/peers.
func (p *peer) configure(t *testing.T, name, from string) {
	t.Helper()
	tmpl, err := template.ParseFiles(filepath.Join("testdata", "peers", from))
	require.NoError(t, err)
	var b strings.Builder
	require.NoError(t, tmpl.Execute(&b, p))
	p.write(t, name, b.String())
}

// certificate makes a file with a certificate and its key.
func (p *peer) certificate(t *testing.T, name string, kind lab.CertKind) {
	t.Helper()
	cert, err := p.CA().Issue(kind, peerHost)
	require.NoError(t, err)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	require.NoError(t, err)
	var b bytes.Buffer
	require.NoError(t, pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	for _, der := range cert.Certificate {
		require.NoError(t, pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	p.write(t, name, b.String())
	require.NoError(t, os.Chmod(p.path(name), 0o640))
}

// run starts the server and waits until all its listeners greet. At the end of the test it is told to end, and what is left of
// its process group is killed.
func (p *peer) run(t *testing.T, cmd *exec.Cmd, listeners ...string) {
	t.Helper()
	output, err := os.Create(p.path(filepath.Base(cmd.Path) + ".output"))
	require.NoError(t, err)
	defer output.Close()
	p.logs = append(p.logs, output.Name())
	cmd.Stdout, cmd.Stderr = output, output
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
	require.NoError(t, cmd.Start())
	p.outlive(t, cmd.Process.Pid)
	over := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(over)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-over:
		case <-time.After(10 * time.Second):
		}
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-over
	})
	for _, name := range listeners {
		for started := time.Now(); !greets(p.addr(name), name == "smtps"); time.Sleep(10 * time.Millisecond) {
			select {
			case <-over:
				t.Fatalf("%s ended: %v", cmd.Path, cmd.ProcessState)
			default:
				require.Less(t, time.Since(started), patience, "%s does not greet at %q", cmd.Path, name)
			}
		}
	}
}

// outlive starts a shell that does what the test cannot do when it is killed: end the server, and remove its directory. A
// parent death signal would not do, since servers that change their user lose it.
func (p *peer) outlive(t *testing.T, server int) {
	t.Helper()
	const script = `read -r _; kill -TERM "$1"; sleep 2; kill -KILL "-$1"; rm -rf "$2"`
	watch := exec.Command("/bin/sh", "-c", script, "sh", strconv.Itoa(server), p.Dir)
	watch.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	alive, err := watch.StdinPipe() // it closes with this process
	require.NoError(t, err)
	require.NoError(t, watch.Start())
	t.Cleanup(func() {
		_ = watch.Process.Kill()
		_ = watch.Wait()
		_ = alive.Close()
	})
}

// greets reports whether a server at an address is there, and ready for mail where it speaks first.
func greets(addr string, silent bool) bool {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	defer c.Close()
	if silent {
		return true
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	greeting := make([]byte, 4)
	_, err = io.ReadFull(c, greeting)
	_, _ = io.WriteString(c, "QUIT\r\n")
	_, _ = io.Copy(io.Discard, c)
	return err == nil && string(greeting) == "220 "
}

// jail copies programs, and the libraries that they load, into the directory of the peer, as if it were a system. That gives
// servers with fixed paths and users a place of their own.
func (p *peer) jail(t *testing.T, root string, programs ...string) {
	t.Helper()
	files := make(map[string]string)
	for _, program := range programs {
		source := program
		if _, err := os.Stat(filepath.Join(root, program)); err == nil {
			source = filepath.Join(root, program)
		}
		files[program] = source
		out, err := exec.Command("ldd", source).CombinedOutput()
		require.NoError(t, err, "%s", out)
		for _, lib := range regexp.MustCompile(`(?m)(/\S+) \(0x`).FindAllStringSubmatch(string(out), -1) {
			files[lib[1]] = lib[1]
		}
		require.NotContains(t, string(out), "not found")
	}
	for to, from := range files {
		b, err := os.ReadFile(from)
		require.NoError(t, err)
		p.write(t, to, string(b))
		require.NoError(t, os.Chmod(p.path(to), 0o755))
	}
	p.folder(t, "tmp", 0, 0, 0o1777)
	p.folder(t, "dev", 0, 0, 0o755)
	for name, minor := range map[string]int{"null": 3, "urandom": 9} {
		require.NoError(t, syscall.Mknod(p.path("dev", name), syscall.S_IFCHR|0o666, 1<<8|minor))
		require.NoError(t, os.Chmod(p.path("dev", name), 0o666))
	}
	p.write(t, "etc/hosts", "127.0.0.1 localhost\n127.0.0.1 "+peerHost+"\n")
	p.write(t, "etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
}

// deliverer is one that finds a listener of the peer by MX, and trusts the lab's certificates.
func (p *peer) deliverer(t *testing.T, listener string) (*deliver.Deliverer, *said) {
	t.Helper()
	transcript := new(said)
	d := &deliver.Deliverer{
		Hostname: "mail.example.org", Port: p.Port(listener), AllowPrivate: true,
		Resolver: &resolve.Resolver{Servers: []string{p.DNS()}, Dial: p.Dial}, TLS: p.CA().ClientConfig(),
		Transcript: transcript,
	}
	t.Cleanup(func() { _ = d.Close() })
	return d, transcript
}

// by is a route to a listener, as a routing file writes its hops; $HOST is the peer's name and port.
func (p *peer) by(t *testing.T, listener, hops string) route.Route {
	t.Helper()
	return by(t, strings.ReplaceAll(hops, "$HOST", net.JoinHostPort(peerHost, strconv.Itoa(int(p.Port(listener))))))
}

// arrived waits until a mailbox has n messages, takes them out, and gives them without what the peer wrote on top; lines end
// in LF, as the peers store them.
func (p *peer) arrived(t *testing.T, box string, n int) []string {
	t.Helper()
	var files []string
	require.Eventually(t, func() bool {
		files, _ = filepath.Glob(filepath.Join(p.mail, box, "new", "*"))
		return len(files) >= n
	}, patience, 10*time.Millisecond, "%d messages for %s", n, box)
	require.Len(t, files, n, "for %s", box)
	slices.Sort(files)
	texts := make([]string, n)
	for i, name := range files {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NoError(t, os.Remove(name))
		texts[i] = withoutTrace(string(b))
	}
	return texts
}

// empty checks that a mailbox has nothing.
func (p *peer) empty(t *testing.T, box string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(p.mail, box, "new", "*"))
	require.NoError(t, err)
	require.Empty(t, files)
}

// traces are the fields that a server puts on top of a message when it takes or stores it (RFC 5321, section 4.4, and
// Postfix's and Dovecot's own), folded lines included.
var traces = regexp.MustCompile(`^(?:(?:Return-Path|Received|Delivered-To|X-Original-To):[^\n]*\n(?:[ \t][^\n]*\n)*)+`)

// swallowed is what is left of a message whose first line is folded: to a server that puts its own field on top of it, that line
// is one of this field.
func swallowed(text string) string {
	_, rest, _ := strings.Cut(text, "\n")
	return rest
}

func withoutTrace(text string) string { return text[len(traces.FindString(text)):] }
