package main_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// need finds a program that a test runs against. Where it is missing, the test is skipped; with SORTIE_INTEROP=1, which says
// that all peers are installed, it fails.
func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		missing(t, program+" is not installed")
	}
	return path
}

func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("SORTIE_INTEROP") == "1" {
		t.Fatal(what + ", and SORTIE_INTEROP=1 promised it")
	}
	t.Skip(what)
}

// swaks sends one mail with swaks, and gives its exit code and the dialogue.
func swaks(t *testing.T, server string, args ...string) (code int, dialogue string) {
	t.Helper()
	cmd := exec.Command(need(t, "swaks"), append([]string{"--server", server, "--timeout", "15", "--ehlo", "client.test"}, args...)...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		require.NoError(t, err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// A postfix is a private instance that takes mail for dst.test into one mailbox.
type postfix struct {
	t    *testing.T
	addr string
	dir  string
}

// startPostfix runs Postfix in the foreground in a folder of its own; the system's Postfix is not touched. It needs root,
// because Postfix's master changes users.
func startPostfix(t *testing.T, ip string) *postfix {
	t.Helper()
	need(t, "postfix")
	if os.Geteuid() != 0 {
		missing(t, "root, for a private Postfix, is not there")
	}
	dir, err := os.MkdirTemp("", "relayd-postfix") // t.TempDir is closed to Postfix's own users
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &postfix{t: t, addr: net.JoinHostPort(ip, freePort(t)), dir: dir}
	p.configure()
	cmd := exec.Command("postfix", "-c", p.dir+"/etc", "start-fg")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		exec.Command("postfix", "-c", p.dir+"/etc", "stop").Run()
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
		if t.Failed() {
			log, _ := os.ReadFile(p.dir + "/log/mail.log")
			t.Logf("the log of Postfix:\n%s", log)
		}
	})
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", p.addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	}, patience, 20*time.Millisecond, "Postfix listens")
	return p
}

func (p *postfix) configure() {
	owner, err := user.Lookup("postfix")
	require.NoError(p.t, err)
	uid, _ := strconv.Atoi(owner.Uid)
	require.NoError(p.t, os.Chmod(p.dir, 0o755))
	for name, uid := range map[string]int{"etc": 0, "spool": 0, "log": 0, "data": uid, "mail": uid} {
		require.NoError(p.t, os.MkdirAll(filepath.Join(p.dir, name), 0o755))
		require.NoError(p.t, os.Chown(filepath.Join(p.dir, name), uid, 0))
	}
	p.write("main.cf", fmt.Sprintf(`compatibility_level = 3.6
queue_directory = %[1]s/spool
data_directory = %[1]s/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.dst.test
mydestination =
mynetworks = 127.0.0.0/8
inet_protocols = ipv4
alias_maps =
virtual_mailbox_domains = dst.test
virtual_mailbox_base = %[1]s/mail
virtual_mailbox_maps = static:inbox
virtual_minimum_uid = 1
virtual_uid_maps = static:%[2]s
virtual_gid_maps = static:%[3]s
smtpd_relay_restrictions = reject_unauth_destination
smtp_tls_security_level =
maillog_file_prefixes = %[1]s
maillog_file = %[1]s/log/mail.log
multi_instance_enable = no
`, p.dir, owner.Uid, owner.Gid))
	master, err := os.ReadFile("/usr/share/postfix/master.cf.dist")
	require.NoError(p.t, err)
	text := regexp.MustCompile(`(?m)^smtp +inet .*`).ReplaceAllString(string(master), p.addr+" inet n - n - - smtpd")
	text = regexp.MustCompile(`(?m)^([a-z]+ +(?:unix|fifo|inet) +\S+ +\S+ +)y`).ReplaceAllString(text, "${1}n") // no chroot
	if !regexp.MustCompile(`(?m)^postlog `).MatchString(text) {
		text += "postlog unix-dgram n - n - 1 postlogd\n"
	}
	p.write("master.cf", text)
}

func (p *postfix) write(name, text string) {
	require.NoError(p.t, os.WriteFile(filepath.Join(p.dir, "etc", name), []byte(text), 0o644))
}

// arrived waits until n messages are in the mailbox and gives them, each with its From_ line, lines ending in LF.
func (p *postfix) arrived(n int) []string {
	p.t.Helper()
	var mails []string
	require.Eventually(p.t, func() bool {
		mbox, _ := os.ReadFile(filepath.Join(p.dir, "mail", "inbox"))
		mails = strings.Split(string(mbox), "\nFrom ")
		return len(mbox) > 0 && len(mails) >= n && strings.HasSuffix(string(mbox), "\n\n")
	}, patience, 20*time.Millisecond)
	return mails
}
