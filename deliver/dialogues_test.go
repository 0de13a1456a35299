package deliver_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
)

// TestDialogues plays what real hosts say, from testdata/dialogues: scripts of package lab. Lines "# want: RECIPIENT RESULT
// STATUS STAGE", with "blocked" behind where the words are about our address, are what is to become of it.
func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("testdata/dialogues/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			script, err := os.ReadFile(file)
			require.NoError(t, err)
			m, want := letter(), []string(nil)
			for line := range strings.Lines(string(script)) {
				if rest, ok := strings.CutPrefix(line, "# want: "); ok {
					address, _, _ := strings.Cut(rest, " ")
					m.To, want = append(m.To, deliver.Recipient{Address: address}), append(want, strings.TrimSpace(rest))
				}
			}
			require.NotEmpty(t, want)
			bothWays(t, func(t *testing.T, w *world) {
				w.Server("mx.aol.test", lab.Script(string(script)))
				var got []string
				for i, o := range w.all(t, direct, m) {
					line := strings.Join([]string{o.Recipient, o.Result.String(), o.Status.String(), string(o.Stage)}, " ")
					if strings.HasSuffix(want[i], " blocked") {
						require.True(t, o.Reason.Blocked(), "%v", o.Reason)
						line += " blocked"
					}
					got = append(got, line)
					for said := range strings.SplitSeq(o.Reply.Wire(), "\n") {
						require.Contains(t, strings.ReplaceAll(string(script), `250\r\n`, "250 "), said, "the reply is the host's, word for word")
					}
				}
				require.Equal(t, want, got)
			})
		})
	}
}
