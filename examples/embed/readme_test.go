package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
)

// readmeCode are the pieces of Go in the README: a program, and statements to put into it.
func readmeCode(t *testing.T) (program, statements string) {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	code := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	require.Len(t, code, 2)
	require.True(t, strings.HasPrefix(code[0][1], "package main\n"))
	return code[0][1], code[1][1]
}

// compile builds a program that stands outside of the module with what the module has.
func compile(t *testing.T, program string) (binary string) {
	t.Helper()
	dir := t.TempDir()
	file, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "readme")
	require.NoError(t, os.WriteFile(file, []byte(program), 0o600))
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, file).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return binary
}

// The program of the README compiles as it stands there, and its mail arrives.
func TestReadme(t *testing.T) {
	program, _ := readmeCode(t)
	binary := compile(t, program)
	server, err := lab.Test(t).Listen("mail.isp.test", "127.0.0.1:0")
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "routes"), []byte("*@aol.com  smtp://"+server.Addr()+"\n"), 0o600))

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary)
	cmd.Dir = dir
	require.NoError(t, cmd.Start())
	arrived, err := server.WaitMail(ctx, 1)
	require.NoError(t, err)
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.NoError(t, cmd.Wait())
	assert.Equal(t, "me@example.org", arrived[0].From)
	assert.Equal(t, []string{"you@aol.com"}, arrived[0].Addresses())
	assert.Equal(t, "mail.example.org", arrived[0].HELO)
	assert.Contains(t, string(arrived[0].Body), "\r\nHello.\r\n")
}

// What the README says of programs without a routing file can be put into the program.
func TestReadmeWithoutRoutingFile(t *testing.T) {
	program, statements := readmeCode(t)
	const before = "\n\tmessage := "
	require.Contains(t, program, before)
	compile(t, strings.Replace(program, before, "\n"+statements+"\tcheck(err)"+before, 1))
}
