//go:build linux

package deliver_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/route"
)

// smtpSink starts Postfix's smtp-sink, a mail server of another make, and gives the hop that leads to it and the file into
// which it writes what it takes. Where it is missing, the test is skipped; with SORTIE_INTEROP=1 it fails.
func smtpSink(t *testing.T, args ...string) (hop route.Hop, taken string) {
	t.Helper()
	program, err := exec.LookPath("smtp-sink")
	if err != nil {
		require.NotEqual(t, "1", os.Getenv("SORTIE_INTEROP"), "smtp-sink is not installed, and SORTIE_INTEROP=1 promised it")
		t.Skip("smtp-sink, of Postfix, is not installed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := l.Addr().(*net.TCPAddr).Port
	require.NoError(t, l.Close())
	taken = filepath.Join(t.TempDir(), "taken")
	args = append(args, "-4", "-D", taken)
	if me, err := user.Current(); err == nil && me.Uid == "0" {
		args = append(args, "-u", me.Username)
	}
	cmd := exec.Command(program, append(args, fmt.Sprintf("127.0.0.1:%d", port), "100")...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}, time.Minute, 10*time.Millisecond)
	return route.Hop{Kind: route.Smarthost, Host: "127.0.0.1", Port: uint16(port)}, taken
}

// TestPostfixesSink is the client against a server that is not ours, in all its moods.
func TestPostfixesSink(t *testing.T) {
	thousand := make([]string, 1000)
	for i := range thousand {
		thousand[i] = fmt.Sprintf("%s%d@aol.test", strings.Repeat("long.", 40), i)
	}
	for name, tt := range map[string]struct {
		args []string
		lmtp bool
		to   []string
		want string
	}{
		"as it is":              {want: "delivered 2.0.0 dot"},
		"without PIPELINING":    {args: []string{"-p"}, want: "delivered 2.0.0 dot"},
		"without ESMTP":         {args: []string{"-e"}, want: "delivered 2.0.0 dot"},
		"behind a Cisco PIX":    {args: []string{"-P"}, want: "delivered 2.0.0 dot"},
		"without 8BITMIME":      {args: []string{"-8", "-E", "-N"}, want: "delivered 2.0.0 dot"},
		"LMTP":                  {args: []string{"-L"}, lmtp: true, to: []string{"a@aol.test", "b@aol.test"}, want: "delivered 2.2.0 dot"},
		"a thousand recipients": {args: []string{"-T", "2000"}, to: thousand, want: "delivered 2.0.0 dot"},
		"LMTP for a thousand":   {args: []string{"-L", "-T", "2000"}, lmtp: true, to: thousand, want: "delivered 2.2.0 dot"},
		"refused at connect":    {args: []string{"-f", "connect"}, want: "tempfail 4.3.0 greeting"},
		"refused at MAIL":       {args: []string{"-f", "mail"}, want: "permfail 5.3.0 mail"},
		"refused at RCPT":       {args: []string{"-r", "rcpt"}, want: "tempfail 4.3.0 rcpt"},
		"refused at DATA":       {args: []string{"-f", "data"}, want: "permfail 5.3.0 data"},
		"refused at the dot":    {args: []string{"-f", "."}, want: "permfail 5.3.0 dot"},
		"gone at MAIL":          {args: []string{"-q", "mail"}, want: "tempfail 4.4.2 mail"},
		"gone at the dot":       {args: []string{"-q", "."}, want: "tempfail 4.4.2 dot"},
		"421 at RCPT":           {args: []string{"-Q", "rcpt"}, want: "tempfail 4.0.0 rcpt"},
		"550 inside the body":   {args: []string{"-A", "0"}, want: "permfail 5.0.0 dot"},
	} {
		t.Run(name, func(t *testing.T) {
			hop, taken := smtpSink(t, tt.args...)
			if tt.lmtp {
				hop.Protocol = route.LMTP
			}
			d := &deliver.Deliverer{Hostname: "mail.example.org", Limits: deliver.Limits{Recipients: 1000}}
			if tt.to == nil {
				tt.to = []string{"you@aol.test"}
			}
			text := hello + strings.Repeat(".a line that begins with a dot\n", 20_000)
			for range 2 { // the second time over the same connection, where it still stands
				for _, o := range d.Deliver(t.Context(), route.Route{Hops: []route.Hop{hop}}, letterOf(text, tt.to...)) {
					checkOutcome(t, &o, o.Recipient)
					require.Equal(t, tt.want, o.Result.String()+" "+o.Status.String()+" "+string(o.Stage), "%v", o)
				}
			}
			require.NoError(t, d.Close())
			if strings.HasPrefix(tt.want, "delivered") {
				arrived, err := os.ReadFile(taken)
				require.NoError(t, err)
				require.Equal(t, 2*len(tt.to), strings.Count(string(arrived), "X-Rcpt-Args: "))
				require.Equal(t, 40_000, strings.Count(string(arrived), "\n.a line that begins with a dot"))
			}
		})
	}
}
