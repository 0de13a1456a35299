//go:build linux

package deliver_test

import (
	"os/exec"
	"syscall"
	"testing"

	"github.com/sortie-mail/sortie/deliver/lab"
)

// startExim runs an Exim of its own in a jail: its user and the place of its configuration are compiled in.
func startExim(t *testing.T) *peer {
	t.Helper()
	const program = "/usr/sbin/exim4"
	root := peerRoot(t, "Exim", program)
	p := newPeer(t)
	p.UID, p.GID = 8, 8
	p.jail(t, root, program)
	p.write(t, "etc/passwd", "root:x:0:0::/:/bin/false\nmail:x:8:8::/:/bin/false\nDebian-exim:x:8:8::/:/bin/false\n")
	p.write(t, "etc/group", "root:x:0:\nmail:x:8:\nDebian-exim:x:8:\n")
	for _, name := range []string{"mail", "spool", "log"} {
		p.folder(t, name, p.UID, p.GID, 0o755)
	}
	for name, kind := range map[string]lab.CertKind{"right": lab.CertValid, "wrong": lab.CertWrongName} {
		p.certificate(t, "etc/exim4/"+name+".pem", kind)
		p.folder(t, "etc/exim4", 0, p.GID, 0o755)
		chown(t, p.path("etc/exim4", name+".pem"), 0, p.GID)
	}
	p.write(t, "etc/exim4/ca.pem", string(p.CA().PEM()))
	for _, name := range []string{"exim4.conf", "boxes"} {
		p.configure(t, "etc/exim4/"+name, "exim/"+name)
	}
	p.logs = append(p.logs, p.path("log/mainlog"), p.path("log/paniclog"))
	cmd := exec.Command(program, "-bdf", "-q1h")
	cmd.Dir, cmd.Env = "/", []string{"PATH=/"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: p.Dir}
	p.run(t, cmd, "open", "data", "login")
	return p
}

func TestExim(t *testing.T) {
	t.Parallel()
	p := startExim(t)
	p.cases(t)
	p.pipelining(t)
	p.chunking(t)
	p.utf8(t, true)
	p.dsn(t, "env+2Bid+3D1", "you+2Bme@example.org") // it reports the xtext as it came
	p.greylisting(t)
	p.busy(t)
	p.logins(t, "PLAIN", "LOGIN", "CRAM-MD5", "EXTERNAL")
	p.requireTLS(t)
}

// std: C9
// std: C12
func TestEximCorpus(t *testing.T) {
	t.Parallel()
	p := startExim(t)
	makes := func(kind, text string) []string {
		switch kind {
		case noHeader, folded, mboxLine: // a header ends with an empty line also where there is none
			return []string{"\n" + text}
		case noName, noBody:
			return []string{text + "\n"}
		}
		return []string{text}
	}
	p.corpus(t, "data", "direct", habits{converted: []string{longLines}, makes: makes})
	p.corpus(t, "open", "direct", habits{makes: makes})
}
