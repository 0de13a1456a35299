package deliver

import (
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What it costs to convert a message grows with its size and no faster, whatever it is made of: a stranger wrote it. It is
// counted in octets that are allocated, of which what grows with the square has thousands for each octet of the message.
func TestTheCostOfConversionIsBounded(t *testing.T) {
	const size = maxHeaderField / 10
	fill := func(piece string) string { return strings.Repeat(piece, size/len(piece)) }
	cost := func(text string) int {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, e := converted(t, text, seven)
		runtime.ReadMemStats(&after)
		require.Nil(t, e)
		return int(after.TotalAlloc-before.TotalAlloc) / len(text)
	}
	for name, header := range map[string]string{
		"words":           "Subject: " + fill("é "),
		"comments":        "Content-Type: " + fill("(a)") + "text/plain",
		"nested comments": "Content-Type: " + fill("(") + "text/plain",
		"encodings":       "Content-Transfer-Encoding: " + fill("()") + "8bit",
		"encoded-words":   "From: " + fill("=?utf-8?b?A") + "?= é <a@b.test>",
		"addresses":       "To: " + fill("é <a@b.test>,"),
		"parameters":      "Content-Disposition: inline" + fill("; a=é"),
		"links":           "List-Post: " + fill("é<é> "),
		"clauses":         "Received: " + fill("é (é) "),
		"one word":        "Subject: " + fill("é"),
		"folds":           "Subject: é" + fill("\r\n x"),
		"quotes":          "From: " + fill(`"é" `) + "<a@b.test>",
	} {
		t.Run(name, func(t *testing.T) {
			require.Less(t, cost(header+"\r\n\r\nä\r\n"), 1000)
		})
	}
}
