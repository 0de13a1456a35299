//go:build linux

package deliver_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
)

// startPostfix runs a Postfix of its own in the foreground.
func startPostfix(t *testing.T) *peer {
	t.Helper()
	root := peerRoot(t, "Postfix", "usr/sbin/postfix")
	p := newPeer(t)
	p.owner(t, "postfix")
	for _, name := range []string{"etc", "spool", "log"} {
		p.folder(t, name, 0, 0, 0o755)
	}
	p.folder(t, "data", p.UID, 0, 0o755)
	p.certificate(t, "etc/right.pem", lab.CertValid)
	p.certificate(t, "etc/wrong.pem", lab.CertWrongName)
	for _, name := range []string{"main.cf", "master.cf", "boxes"} {
		p.configure(t, "etc/"+name, "postfix/"+name)
	}
	p.logs = append(p.logs, p.path("log", "mail.log"))
	check, err := exec.Command(root+"usr/sbin/postfix", "-c", p.path("etc"), "check").CombinedOutput() // which makes its queue
	require.NoError(t, err, "%s", check)
	// Not by "postfix start-fg": a shell would stand between the test and the master that must end with it.
	cmd := exec.Command(root+"usr/lib/postfix/sbin/master", "-s", "-c", p.path("etc"))
	cmd.Env = append(os.Environ(), "MAIL_CONFIG="+p.path("etc"))
	p.run(t, cmd, "open", "data", "smtps")
	return p
}

func TestPostfix(t *testing.T) {
	t.Parallel()
	p := startPostfix(t)
	greylist(t, p.addr("policy"))
	startDovecot(t, p)
	p.cases(t)
	p.pipelining(t)
	p.chunking(t)
	p.utf8(t, true)
	p.dsn(t, "env+id=1", "you+me@example.org")
	p.greylisting(t)
	p.busy(t)
	p.logins(t, "PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "XOAUTH2", "OAUTHBEARER") // Dovecot's, through Postfix
	p.requireTLS(t)
}

// greylist is a policy server of Postfix that puts off everybody once: some lines with what is known of a recipient, up to an
// empty one, are answered with what to do.
func greylist(t *testing.T, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for seen := false; ; seen = true {
			c, err := l.Accept()
			if err != nil {
				return
			}
			for lines := bufio.NewScanner(c); lines.Scan() && lines.Text() != ""; {
			}
			action := "defer_if_permit 4.7.1 Greylisted, try again later"
			if seen {
				action = "dunno"
			}
			_, _ = fmt.Fprintf(c, "action=%s\n\n", action)
			_ = c.Close()
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
}

// std: C9
// std: C8
// std: C12
func TestPostfixCorpus(t *testing.T) {
	t.Parallel()
	p := startPostfix(t)
	withoutChunks := habits{converted: []string{longLines}, makes: func(kind, text string) []string {
		switch kind {
		case noHeader, folded, noName: // cleanup(8) ends a header with an empty line also where there is none
			return []string{"\n" + text}
		case mboxLine: // smtpd(8) hides what would begin a message of an mbox
			return []string{"X-Mailbox-Line: " + text}
		}
		return []string{text}
	}}
	p.corpus(t, "data", "direct", withoutChunks)

	chunks := withoutChunks
	chunks.converted = nil
	chunks.makes = func(kind, text string) []string {
		want := withoutChunks.makes(kind, text)
		switch kind { // smtpd(8) does not look at the first line of chunks
		case folded:
			want = append(want, swallowed(text))
		case mboxLine:
			want = append(want, "\n"+text)
		}
		return want
	}
	p.corpus(t, "open", "direct", chunks)

	converted := withoutChunks
	converted.converted = []string{longLines, "8-bit", "UTF-8", "all octets", "large", headerUTF8}
	p.corpus(t, "7bit", "direct", converted)
}
