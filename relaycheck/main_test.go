package relaycheck_test

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sortie-mail/sortie/relaycheck"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// golden holds a text against a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err, "run the test with -update")
	assert.Equal(t, string(want), got)
}

// told are the findings that tell of something seen.
func told(r *relaycheck.Refusals) []relaycheck.Finding {
	return slices.DeleteFunc(r.Findings(), func(f relaycheck.Finding) bool { return f.ID == "deliveries/since" })
}

// find gives the finding with an id.
func find(t testing.TB, findings []relaycheck.Finding, id string) relaycheck.Finding {
	t.Helper()
	var ids []string
	for _, f := range findings {
		if f.ID == id {
			return f
		}
		ids = append(ids, f.ID)
	}
	require.Failf(t, "no such finding", "%s is not among %v", id, ids)
	return relaycheck.Finding{}
}

// wellFormed checks what holds for all findings.
func wellFormed(t testing.TB, findings []relaycheck.Finding) {
	t.Helper()
	ids := map[string]bool{}
	for i, f := range findings {
		assert.False(t, ids[f.ID], "%s stands there twice", f.ID)
		ids[f.ID] = true
		if i > 0 {
			before := findings[i-1]
			assert.True(t, before.Severity > f.Severity || (before.Severity == f.Severity && before.ID < f.ID), "%s before "+
				"%s", before.ID, f.ID)
		}
		texts := []string{f.ID, f.Title}
		for _, s := range f.Remedy {
			texts = append(texts, s.Who, s.Do)
		}
		for _, e := range f.Evidence {
			texts = append(texts, e.Label, e.Text)
		}
		for _, text := range append(texts, strings.Split(f.Text, "\n\n")...) {
			assert.NotEmpty(t, text, f.ID)
			assert.False(t, strings.ContainsFunc(text, unicode.IsControl), "%s: %q", f.ID, text)
		}
		for _, l := range f.Links {
			assert.Regexp(t, `^https?://`, l.URL)
		}
		if f.Severity >= relaycheck.Warning {
			assert.NotEmpty(t, f.Remedy, "%s says nothing of what to do", f.ID)
		}
	}
}
