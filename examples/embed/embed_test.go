package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
)

const message = "From: <me@example.org>\r\nTo: <you@example.net>\r\nSubject: Hello\r\n\r\nHello.\r\n"

// build builds the program, as a user would.
func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "embed")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return program
}

// run gives the message to the program.
func run(t *testing.T, program string, args ...string) (out string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Stdin = strings.NewReader(message)
	text, err := cmd.CombinedOutput()
	return string(text), err
}

func TestEmbed(t *testing.T) {
	program := build(t)
	server, err := lab.Test(t).Listen("mail.isp.test", "127.0.0.1:0")
	require.NoError(t, err)
	dir := t.TempDir()
	routes := filepath.Join(dir, "routes")
	require.NoError(t, os.WriteFile(routes, []byte("*  smtp://"+server.Addr()+"\n"), 0o600))

	out, err := run(t, program, "-from", "me@example.org", "-to", "you@example.net,them@example.com", "-routes", routes, "-spool", filepath.Join(dir, "spool"), "-hostname", "mail.example.org")
	require.NoError(t, err, out)
	assert.Contains(t, out, "is safe in")
	assert.Contains(t, out, "the queue is empty")
	arrived := server.Mailbox()
	require.Len(t, arrived, 2, "one for each recipient domain")
	for _, m := range arrived {
		assert.Equal(t, "me@example.org", m.From)
		assert.True(t, bytes.Equal([]byte(message), m.Body), "%q", m.Body)
	}
}

func TestEmbedSaysWhatIsWrong(t *testing.T) {
	program := build(t)
	dir := t.TempDir()
	routes := filepath.Join(dir, "routes")
	require.NoError(t, os.WriteFile(routes, []byte("*@aol.com  smtpp://mail.isp.example\n"), 0o600))
	spool := filepath.Join(dir, "spool")
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "-to is needed"},
		{[]string{"-to", "you@@example.net", "-spool", spool}, `"you@@example.net"`},
		{[]string{"-to", "you@example.net", "-routes", routes, "-spool", spool}, "routes:1:12"},
		{[]string{"-to", "you@example.net", "-spool", "/dev/null/spool"}, "cannot be made or written"},
	} {
		out, err := run(t, program, test.args...)
		require.Error(t, err)
		assert.Contains(t, out, test.want)
	}
}
