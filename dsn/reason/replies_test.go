package reason_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/dsn/reason"
)

// ours are the classes that are about our address.
var ours = []reason.Class{
	reason.OpenRelay, reason.OpenProxy, reason.DynamicAddress, reason.Blocklisted, reason.BadReputation, reason.ReverseDNS,
}

// A refusal is a reply of testdata/replies.txt and what its verdict must be.
type refusal struct {
	line    int
	input   reason.Input
	classes []reason.Class
	list    string
	matter  reason.Matter
	retry   reason.Retry
	blocked bool
}

func TestRefusals(t *testing.T) {
	replies := refusals(t)
	require.Greater(t, len(replies), 500)
	seen := map[reason.Class]int{}
	for _, r := range replies {
		v := reason.Classify(r.input)
		where := fmt.Sprintf("replies.txt:%d: %s\nby %s", r.line, r.input.Reply, v.Rule)
		assert.Equal(t, r.classes[0], v.Class(), where)
		for _, c := range r.classes {
			assert.True(t, v.Is(c), "%s\n%v has no %s", where, v.Classes, c)
		}
		assert.Equal(t, r.blocked, v.Blocked(), "Blocked: %s", where)
		if r.list != "" {
			assert.Equal(t, r.list, v.List, where)
			assert.NotEmpty(t, v.Links, where)
		}
		if r.matter != "" {
			assert.Equal(t, r.matter, v.Matter, where)
		}
		if r.retry != "" {
			assert.Equal(t, r.retry, v.Retry, where)
		}
		assert.NotEmpty(t, v.Sender, where)
		assert.NotEmpty(t, v.Admin, where)
		assert.Regexp(t, `^rules\.txt:\d+$`, v.Rule, where)
		assert.True(t, v.Confidence > 0 && v.Confidence <= 1, where)
		seen[r.classes[0]]++
	}
	for _, c := range all {
		if c != reason.Unknown {
			assert.NotZero(t, seen[c], "no reply of the class %s", c)
		}
	}
}

// TestEveryRuleDecides proves that no embedded rule is without an example, and none hidden behind another.
func TestEveryRuleDecides(t *testing.T) {
	decided := map[string]bool{}
	for _, r := range refusals(t) {
		decided[reason.Classify(r.input).Rule] = true
	}
	text, err := os.ReadFile("rules.txt")
	require.NoError(t, err)
	others := []string{"skip", "same", "let", "class", "list", "provider"}
	rules, number := 0, 0
	for line := range strings.Lines(string(text)) {
		number++
		word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		indented := strings.TrimLeft(line, " \t") != line
		if indented || word == "" || word[0] == '#' || slices.Contains(others, word) {
			continue
		}
		rules++
		where := fmt.Sprintf("rules.txt:%d", number)
		assert.True(t, decided[where], "no reply of testdata/replies.txt is decided by %s: %s", where, line)
	}
	assert.Greater(t, rules, 400)
}

// refusals reads testdata/replies.txt.
func refusals(t testing.TB) (list []refusal) {
	t.Helper()
	data, err := os.ReadFile("testdata/replies.txt")
	require.NoError(t, err)
	var text string
	number := 0
	finish := func() {
		if text != "" {
			reply := &list[len(list)-1].input.Reply
			if words, ok := strings.CutPrefix(text, "--- "); ok {
				reply.Lines = []string{words}
			} else {
				var err error
				*reply, err = dsn.ParseReply(text)
				require.NoError(t, err, "replies.txt:%d", number)
			}
			text = ""
		}
	}
	for line := range strings.Lines(string(data)) {
		number++
		line = strings.TrimRight(line, "\n")
		switch reply, indented := strings.CutPrefix(line, "\t"); {
		case indented:
			text += reply + "\n"
		case line == "" || line[0] == '#':
		default:
			finish()
			list = append(list, expectation(t, number, line))
		}
	}
	finish()
	return list
}

// expectation reads "class,class site=… blocked=no".
func expectation(t testing.TB, number int, line string) refusal {
	t.Helper()
	classes, options, _ := strings.Cut(line, " ")
	r := refusal{line: number}
	for c := range strings.SplitSeq(classes, ",") {
		r.classes = append(r.classes, reason.Class(c))
	}
	r.blocked = slices.Contains(ours, r.classes[0])
	for options != "" {
		name, rest, ok := strings.Cut(strings.TrimSpace(options), "=")
		require.True(t, ok, "replies.txt:%d", number)
		value, after, _ := strings.Cut(rest, " ")
		if quoted, isQuoted := strings.CutPrefix(rest, `"`); isQuoted {
			value, after, _ = strings.Cut(quoted, `"`)
		}
		options = after
		switch name {
		case "site":
			r.input.Site, r.input.Host = value, "mx1."+value
		case "stage":
			r.input.Stage = value
		case "list":
			r.list = value
		case "matter":
			r.matter = reason.Matter(value)
		case "retry":
			r.retry = reason.Retry(value)
		case "blocked":
			r.blocked = value == "yes"
		default:
			require.Fail(t, "unknown option", "replies.txt:%d: %s", number, name)
		}
	}
	return r
}
