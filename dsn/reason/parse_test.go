package reason_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/dsn/reason"
)

func TestMistakes(t *testing.T) {
	for _, c := range []struct{ rules, want string }{
		{`nobody "x"`, `r:1:1: "nobody": unknown class: write one of user-unknown,`},
		{`user-unknow "x"`, `r:1:1: "user-unknow": unknown class: did you mean user-unknown?`},
		{`policy,polcy "x"`, `r:1:8: "polcy": unknown class: did you mean policy?`},
		{`policy,policy "x"`, `r:1:8: "policy": the class stands twice`},
		{`policy`, `r:1:1: "policy": the rule has no condition, and would class everything`},
		{`policy confidence=0.5`, `the rule has no condition`},
		{`policy "x`, `r:1:8: "\"x": the double quote is not closed: put a " at the end`},
		{"policy code=5xx\n\t\"a\" # c\n\t\"b (c\"", `r:3:2: "\"b (c\"": a ( is not closed`},
		{"policy code=5xx\n  \"open", `r:2:3: "\"open": the double quote is not closed`},
		{`policy "a b) c"`, `r:1:8: "\"a b) c\"": a ) stands outside a group`},
		{`policy "a|b"`, `a | stands outside a group`},
		{`policy "* a"`, `a gap stands between words`},
		{`policy "a *"`, `a gap stands between words`},
		{`policy "a (b|) *"`, `a gap stands between words`},
		{`policy "a (~ b|c)"`, `not at the beginning of an alternative`},
		{`policy "a * ~ b"`, `two gaps stand side by side`},
		{`policy "a * (b|) * c"`, `two gaps stand side by side`},
		{`policy "(b|)"`, `at least one word that must be there`},
		{`policy "it is"`, `at least one word that must be there`},
		{`policy ""`, `at least one word that must be there`},
		{`policy "blah (zork|is)"`, `the alternative "is" has no word that is read`},
		{`policy "a $nothing"`, `no let before it gives $nothing a meaning`},
		{`policy "((((((((a))))))))"`, `groups are nested too deep`},
		{`policy "see http://example.org/"`, `URLs, addresses and status codes are no words`},
		{`policy "error 5.1.1"`, `(name= and status= ask for them)`},
		{`policy "ann@example.org"`, `are no words of a text`},
		{`policy "` + strings.Repeat("blah ", 1001) + `"`, `more than 1000 words`},
		{`policy "(` + strings.Repeat("blah|", 1001) + `x)"`, `more than 1000 words`},
		{`policy word`, `r:1:8: "word": unknown condition: write a phrase in double quotes`},
		{`policy kode=550`, `unknown condition: did you mean code?`},
		{`policy code=550 code=551`, `r:1:17: "code=551": code= stands twice: write both values in one, with | between them`},
		{`policy code=650`, `r:1:13: "650": a reply code has three digits`},
		{`policy code=5x0`, `a reply code has three digits`},
		{`policy code=xxx`, `a reply code has three digits`},
		{`policy code=550|`, `code= has an empty value`},
		{`policy status=5.7`, `an enhanced status code has three numbers`},
		{`policy status=3.1.1`, `an enhanced status code has three numbers`},
		{`policy status=5.7.9-1`, `an enhanced status code has three numbers`},
		{`policy status=5.7.2000`, `an enhanced status code has three numbers`},
		{`policy stage=rcp`, `r:1:14: "rcp": unknown stage: did you mean rcpt?`},
		{`policy ip=no`, `write ip=yes, or not ip=yes`},
		{`policy code=550 confidence=1.5`, `r:1:28: "1.5": a confidence is a number above 0 and up to 1`},
		{`policy code=550 confidence=NaN`, `a confidence is a number`},
		{`policy code=550 retry=often`, `r:1:23: "often": unknown value`},
		{`policy code=550 matter="our adress"`, `did you mean our address?`},
		{`policy not`, `r:1:8: "not": there is no condition behind it`},
		{`policy code=550 not list=x`, `not stands before a condition: list= is none`},
		{"policy code=550 \"b\"\nspam \"b\" code=550 confidence=0.3", `r:2:1: "spam": the rule asks for the same as line 1, which`},
		{"  policy \"x\"", `r:1:3: "policy \"x\"": an indented line goes on with the line before it, and there is none`},
		{"class policy x", `a class block begins with the class and nothing else`},
		{"class nothing\n\tsender x", `r:1:7: "nothing": unknown class`},
		{"class policy\n\tsendr x", `r:2:2: "sendr": unknown field: did you mean sender?`},
		{"class policy\n\tsender", `r:2:2: "sender": the field has no value`},
		{"class policy\n\tretry always", `r:2:8: "always": unknown value: write one of normal, soon, slowly, never`},
		{"class policy\n\tlink example.org/ x", `a link is the address of a page and a title`},
		{"class policy\n\tlink javascript:alert(1) x", `a link is the address of a page and a title`},
		{"class policy\n\tlink https://example.org/", `a link is the address of a page and a title`},
		{"list", `a list block begins with the name of the blocklist`},
		{"list X\n\twords open", `r:2:8: "open": a phrase stands in double quotes`},
		{"list X\n\twords \"a\" \"b", `r:2:12: "\"b": the double quote is not closed`},
		{"provider X", `a provider block begins with its name and its sites`},
		{"let x", `a let has a name in small letters, and alternatives`},
		{"let X a|b", `a let has a name in small letters`},
		{"let x b (c", `a ( is not closed`},
		{"let x b) c", `a ) stands outside a group`},
		{"same a b", `the embedded rules alone say which words mean the same or nothing`},
		{"skip a", `the embedded rules alone say`},
		{"policy \"" + strings.Repeat("x", 17<<10) + "\"", `the line is longer than 16384 octets`},
	} {
		_, err := reason.Parse("r", c.rules)
		require.Error(t, err, c.rules)
		assert.Contains(t, err.Error(), c.want, c.rules)
		var one *reason.Error
		require.True(t, errors.As(err, &one))
		assert.Equal(t, "r", one.File)
		assert.Positive(t, one.Line)
		assert.Positive(t, one.Column)
	}
}

func TestAllMistakesAreTold(t *testing.T) {
	_, err := reason.Parse("r", strings.Repeat("nothing here\n", 1000))
	var all reason.Errors
	require.True(t, errors.As(err, &all))
	assert.Len(t, all, 100)
	_, err = reason.Parse("r", "policy code=5xx\nfoo \"b\"\n\nclass policy\n\tretry x\n\tbar y\npolicy")
	require.True(t, errors.As(err, &all))
	var lines []int
	for _, e := range all {
		lines = append(lines, e.Line)
	}
	assert.Equal(t, []int{2, 5, 6, 7}, lines)
	assert.Len(t, strings.Split(err.Error(), "\n"), 4)
}

// TestConditions asks each condition of a rule with replies that fit and replies that do not.
func TestConditions(t *testing.T) {
	reply := func(text string) reason.Input {
		r, err := dsn.ParseReply(text)
		require.NoError(t, err)
		return reason.Input{Reply: r, Stage: "rcpt", Host: "MX1.Mail.Example.com.", Site: "example.com"}
	}
	base := reply("571 5.7.42 blah zork")
	for _, c := range []struct {
		rule string
		in   reason.Input
		want bool
	}{
		{`"zork"`, base, true},
		{`"ZORK"`, base, true},
		{`"zor"`, base, false},
		{`not "zork" code=571`, base, false},
		{`not "zerk" code=571`, base, true},
		{`"zork" "blah"`, base, true},
		{`"zork" "blub"`, base, false},
		{`"zork" not code=5xx`, base, false},
		{`code=571`, base, true},
		{`code=57x`, base, true},
		{`code=5xx`, base, true},
		{`code=550|571`, base, true},
		{`code=4xx|550`, base, false},
		{`status=5.7.42`, base, true},
		{`status=x.7.x`, base, true},
		{`status=5.7.40-50`, base, true},
		{`status=5.7.43-50|5.1.1`, base, false},
		{`status=4.7.42`, base, false},
		{`status=5.7.42`, reply("571 zork"), false},
		{`status=5.4.7`, reply("550 4.4.7 zork"), true}, // std: C20 — the reply code decides the class
		{`status=4.4.7`, reply("550 4.4.7 zork"), false},
		{`status=5.1.1`, reply("550 zork (#5.1.1)"), true},
		{`site=example.com code=571`, base, true},
		{`site=example.org|example.com code=571`, base, true},
		{`site=ample.com code=571`, base, false},
		{`site=Example.COM`, base, true},
		{`site=mail.example.com`, base, true},
		{`site=zork.com`, base, false},
		{`not site=example.com code=571`, base, false},
		{`host=mx1.mail.example.com`, base, true},
		{`host=*.example.com`, base, true},
		{`host=*.mail.example.com`, base, true},
		{`host=*.mx1.mail.example.com`, base, false},
		{`host=mail.example.com`, base, false},
		{`host=*.ample.com`, base, false},
		{`stage=rcpt code=571`, base, true},
		{`stage=mail|rcpt code=571`, base, true},
		{`stage=dot code=571`, base, false},
		{`ip=yes code=571`, base, false},
		{`ip=yes`, reply("571 zork 192.0.2.1"), true},
		{`ip=yes`, reply("571 zork [2001:db8::1]"), true},
		{`not ip=yes "zork"`, base, true},
		{`name="zork example"`, reply("571 see http://zork.example/a"), true},
		{`name="zork example"`, reply("571 using zork.example;"), true},
		{`"zork"`, reply("571 using zork.example;"), false},
		{`name="zork"`, base, false},
		{`not name="zork" "blah"`, base, true},
		{`"blah zork"`, reply("571-blah\n571 zork"), true},
		{`"blah ~ zork"`, reply("571 blah one two three zork"), true},
		{`"blah ~ zork"`, reply("571 blah one two three four zork"), false},
		{`"blah ~ zork"`, base, true},
		{`"blah * zork"`, reply("571 blah 1 2 3 4 5 6 7 8 9 10 11 12 zork"), true},
		{`"blah * zork"`, reply("571 blah 1 2 3 4 5 6 7 8 9 10 11 12 13 zork"), false},
		{`"(blah|blub) (quite|) zork"`, base, true},
		{`"(blah|blub) (quite|) zork"`, reply("571 Blub! Zork"), true},
		{`"$mailbox zork"`, reply("571 the user's zork"), true},
		{`"$mailbox zork"`, reply("571 the sender's zork"), false},
		{`"$mailbox zork"`, reply("571 The inbox is zork"), true},
		{`"mailbox no zork"`, reply("571 Postfach doesn't zork"), true},
	} {
		rules, err := reason.Parse("r", "vacation "+c.rule+"\n")
		require.NoError(t, err, c.rule)
		v := rules.Classify(c.in)
		assert.Equal(t, c.want, v.Is(reason.Vacation), "%s\n%s", c.rule, c.in.Reply)
		if c.want {
			assert.Equal(t, "r:1", v.Rule)
		}
	}
}

// TestPhraseAcrossBlocks finds a phrase wherever it stands in a long text.
func TestPhraseAcrossBlocks(t *testing.T) {
	rules, err := reason.Parse("r", `vacation "blah ~ zork"`)
	require.NoError(t, err)
	for n := range 505 {
		text := strings.Repeat("q ", n) + "blah x zork" + strings.Repeat(" q", 10)
		v := rules.Classify(reason.Input{Reply: dsn.Reply{Code: 550, Lines: []string{text}}})
		require.Equal(t, reason.Vacation, v.Class(), "after %d words", n)
	}
}

func TestVerdictOptions(t *testing.T) {
	rules, err := reason.Parse("r", `policy "zork" confidence=0.3 matter="our address" retry=soon list="My List"
list "My List"
	link https://list.example/remove Removal
	words "mine"
policy name="zork"
policy "frob"
	matter="our address" # an indented line goes on
policy code=599`)
	require.NoError(t, err)
	in := input("550 zork, see http://mine.example/")
	v := rules.Classify(in)
	assert.Equal(t, 0.3, v.Confidence)
	assert.Equal(t, reason.MatterAddress, v.Matter)
	assert.Equal(t, reason.RetrySoon, v.Retry)
	assert.Equal(t, "My List", v.List)
	assert.False(t, v.Blocked(), "too little confidence")
	assert.Equal(t, reason.Link{Title: "Removal", URL: "https://list.example/remove"}, v.Links[0])
	for text, want := range map[string]struct {
		confidence float64
		rule       string
		list       string
	}{
		"550 frob mine":            {0.9, "r:6", "My List"},
		"550 frob":                 {0.9, "r:6", ""},
		"550 http://zork.example/": {0.7, "r:5", ""},
		"599 Nyet":                 {0.4, "r:8", ""},
	} {
		v := rules.Classify(input(text))
		assert.Equal(t, want.confidence, v.Confidence, text)
		assert.Equal(t, want.rule, v.Rule, text)
		assert.Equal(t, want.list, v.List, text)
	}
}

func TestOwnRulesWin(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	require.NoError(t, os.WriteFile(first, []byte("vacation \"zork\"\nclass vacation\n\tsender First.\n"), 0o600))
	require.NoError(t, os.WriteFile(second, []byte("feedback \"zork\"\nfeedback \"mailbox full\"\n"+
		"class vacation\n\tsender Second.\n\tadmin Second.\n"), 0o600))
	rules, err := reason.ReadFile(first, second)
	require.NoError(t, err)
	v := rules.Classify(input("550 zork"))
	assert.Equal(t, first+":1", v.Rule)
	assert.Equal(t, "First.", v.Sender)
	assert.Equal(t, "Second.", v.Admin)
	assert.Equal(t, reason.MatterMailbox, v.Matter, "from the embedded rules")
	assert.Equal(t, second+":2", rules.Classify(input("552 mailbox full")).Rule)
	assert.Equal(t, reason.UserUnknown, class(rules.Classify(input("550 user unknown"))))

	_, err = reason.ReadFile(filepath.Join(dir, "none"))
	assert.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.WriteFile(second, []byte("foo\n"), 0o600))
	_, err = reason.ReadFile(first, second)
	assert.ErrorContains(t, err, second+":1:1:")
	rules, err = reason.ReadFile()
	require.NoError(t, err)
	assert.Equal(t, reason.Classify(input("550 user unknown")), rules.Classify(input("550 user unknown")))
}

func class(v reason.Verdict) reason.Class { return v.Class() }

// TestExtendLeavesTheOldRules proves that rules do not change once they are read.
func TestExtendLeavesTheOldRules(t *testing.T) {
	one, err := reason.Parse("one", `vacation "zork"`)
	require.NoError(t, err)
	two, err := one.Extend("two", `feedback "zork"`)
	require.NoError(t, err)
	assert.Equal(t, reason.Vacation, class(one.Classify(input("550 zork"))))
	assert.Equal(t, reason.Feedback, class(two.Classify(input("550 zork"))))
	assert.Equal(t, reason.Unknown, class(reason.Classify(input("599 zork"))))
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"policy \"a ~ (b|c d|) * e\" code=5xx status=x.7.1-3 not ip=yes confidence=0.5",
		"let x a|b (c|)\nspam \"$x y\"\n", "class policy\n\tsender x\n\tlink https://example.org/ y\n", "list X\n\twords \"a\"\n",
		"provider X site=a.b\n\tlink http://a.b/ c\n", "same a b\nskip c", "policy \"a\n\tb\"", "# x\n\n\tpolicy",
	} {
		f.Add(s)
	}
	probe := input("550 5.7.1 a b c d e http://a.b/c")
	f.Fuzz(func(t *testing.T, text string) {
		rules, err := reason.Parse("fuzz", text)
		if err == nil {
			rules.Classify(probe)
			return
		}
		var all reason.Errors
		require.True(t, errors.As(err, &all))
		for _, e := range all {
			require.Positive(t, e.Line)
			require.Positive(t, e.Column)
			require.NotEmpty(t, e.Problem)
			require.NotEmpty(t, e.Fix)
			require.LessOrEqual(t, e.Line, strings.Count(text, "\n")+1)
		}
	})
}
