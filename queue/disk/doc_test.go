package disk

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/queue"
)

// The command by which the package comment lets a person look into a spool shows every description, and nothing that a
// message only says.
func TestDocumentedCommand(t *testing.T) {
	text, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	command := regexp.MustCompile(`(?m)^//\tgrep .*$`).FindString(string(text))
	require.NotEmpty(t, command)

	s := newSpool(t)
	s.enqueue("1@a.test")
	forged := "x\r\n\n=0123456789abcdef mail 2 0 0 0\n{\"id\":\"forged\"}\n"
	_, err = s.q.Enqueue(t.Context(), queue.Envelope{To: queue.To("2@b.test")}, strings.NewReader(forged))
	require.NoError(t, err)
	s.done(s.lease()[0])
	_, err = s.q.Hold(t.Context(), queue.Filter{Lane: "b.test"}, "look at it")
	require.NoError(t, err)

	dir := t.TempDir()
	require.NoError(t, os.Symlink(s.dir, dir+"/spool"))
	cmd := exec.Command("sh", "-c", strings.TrimPrefix(command, "//\t"))
	cmd.Dir = dir
	out, err := cmd.Output()
	require.NoError(t, err, "%s", command)
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	require.Len(t, lines, 4)
	for i, want := range []string{`"1@a.test"`, `"2@b.test"`, `"done":["1@a.test"]`, `"look at it"`} {
		assert.Contains(t, lines[i], want)
		assert.True(t, json.Valid([]byte(lines[i])), lines[i])
	}
}
