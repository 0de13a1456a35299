//go:build linux

package deliver_test

import (
	"os/exec"
	"regexp"
	"syscall"
	"testing"

	"github.com/sortie-mail/sortie/deliver/lab"
)

// startOpenSMTPD runs an OpenSMTPD of its own in a jail: its users, and the places of its queue and its socket, are compiled
// in.
func startOpenSMTPD(t *testing.T) *peer {
	t.Helper()
	const program = "/usr/sbin/smtpd"
	root := peerRoot(t, "OpenSMTPD", program)
	p := newPeer(t)
	p.UID, p.GID = 8, 8
	p.jail(t, root, program, "/usr/sbin/smtpctl", "/usr/libexec/opensmtpd/mail.maildir", "/bin/sh")
	p.write(t, "etc/passwd", "root:x:0:0::/:/bin/sh\nmail:x:8:8::/mail:/bin/sh\n"+
		"opensmtpd:x:101:101::/var/lib/opensmtpd/empty:/bin/false\nopensmtpq:x:102:102::/:/bin/false\n")
	p.write(t, "etc/group", "root:x:0:\nmail:x:8:\nopensmtpd:x:101:\nopensmtpq:x:102:\n")
	p.write(t, "etc/mailname", peerHost+"\n")
	p.folder(t, "mail", p.UID, p.GID, 0o755)
	p.folder(t, "var/lib/opensmtpd/empty", 0, 0, 0o755)
	p.folder(t, "var/spool", 0, 0, 0o755)
	p.folder(t, "var/run", 0, 0, 0o755)
	p.certificate(t, "etc/right.pem", lab.CertValid)
	p.write(t, "etc/everybody", "@ mail\n")
	for _, name := range []string{"smtpd.conf", "boxes"} {
		p.configure(t, "etc/"+name, "opensmtpd/"+name)
	}
	cmd := exec.Command(program, "-d", "-v", "-f", "/etc/smtpd.conf")
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: p.Dir}
	p.run(t, cmd, "clear", "broken TLS")
	return p
}

func TestOpenSMTPD(t *testing.T) {
	t.Parallel()
	p := startOpenSMTPD(t)
	p.cases(t)
	p.utf8(t, false)
	p.dsn(t, "", "") // it forgets them
}

// std: C12
func TestOpenSMTPDCorpus(t *testing.T) {
	t.Parallel()
	p := startOpenSMTPD(t)
	p.corpus(t, "clear", "direct", habits{
		refuses:   []string{noHeader}, // "Message is not RFC 2822 compliant"
		converted: []string{longLines},
		makes: func(kind, text string) []string {
			switch kind {
			case folded:
				return []string{swallowed(text)}
			case withNUL: // it reads lines as strings of C
				return []string{regexp.MustCompile(`\x00[^\n]*`).ReplaceAllString(text, "")}
			}
			return []string{text}
		},
		adds: regexp.MustCompile(`(?m)^Date: .*\nMessage-ID: .*\n`),
	})
}
