package reason

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestReading(t *testing.T) {
	for _, c := range []struct{ in, words, names string }{
		{"Mailbox FULL.", "mailbox full", ""},
		{"User <ann.smith+x@example.org> is unknown", "user is unknown", ""},
		{"<blocked@spamhaus.org>: no such user", "no such user", ""},
		{"spamhaus.org@example.org rejected", "rejected", ""},
		{"kijitora@example.org... No such user", "no such user", ""},
		{"ann@[192.0.2.1] unknown", "unknown", ""},
		{"who@ and @home", "who and home", ""},
		{"doesn't, doesn’t; e-mail E-Mail 'quoted'", "doesnt doesnt email email quoted", ""},
		{"the user's, Spamhaus’s and Jess's 's list", "the user spamhaus and jess s list", ""},
		{"IP 192.0.2.1 is bad", "ip is bad", ""},
		{"[2001:db8::25] and ::1, at 10:11:12", "and at 10 11 12", ""},
		{"cafe::1 dead:beef", "dead beef", ""},
		{"client mail.example.org[192.0.2.1] blocked", "client blocked", ""},
		{"<unknown[192.0.2.1]>: Access denied", "access denied", ""},
		{"unknown [192.0.2.1] user", "unknown user", ""},
		{"blocked using zen.spamhaus.org; see", "blocked using see", "zen spamhaus org"},
		{"5.1.1 user 4.2.2 (#5.5.0)", "user", ""},
		{"Mailbox unavailable.Please retry", "mailbox unavailable please retry", ""},
		{"RESOLVER.ADR.RecipNotFound; not found", "not found", "resolver adr recipnotfound"},
		{"version 4.90.1 of 3.2", "version 4 90 1 of 3 2", ""},
		{"see https://www.example.com/?p=NoSuchUser for more", "see for more", "https www example com p nosuchuser"},
		{"see www.example.com/a-b.", "see", "www example com a b"},
		{"1-2-3-4.dyn.example.net is dynamic", "is dynamic", "1 2 3 4 dyn example net"},
		{"Empfänger unbekannt ÜBERSCHRITTEN", "empfänger unbekannt überschritten", ""},
		{"宛先不明", "宛 先 不 明", ""},
		{"Empf\xe4nger\x00\x1b[31m", "empf nger 31m", ""},
		{"a-b_c/d|e", "a b c d e", ""},
		{"", "", ""},
	} {
		var got text
		got.reset(550)
		got.read([]string{c.in})
		assert.Equal(t, c.words, joined(&got, got.words), "words of %q", c.in)
		assert.Equal(t, c.names, joined(&got, got.names), "names of %q", c.in)
	}
}

func joined(t *text, list []span) string {
	var words []string
	for _, s := range list {
		if s.to > s.from {
			words = append(words, string(t.word(s)))
		}
	}
	return strings.Join(words, " ")
}

func TestReadingCodes(t *testing.T) {
	for _, c := range []struct {
		in     string
		code   int
		status status
		ip     bool
	}{
		{"550 5.1.1 unknown", 550, status{5, 1, 1}, false},
		{"550-5.7.26 not accepted", 550, status{5, 7, 26}, false},
		{"host mx.example.org[192.0.2.1] said: 450 4.2.0 later", 450, status{4, 2, 0}, true},
		{"Remote host said: 552 over quota (#5.2.2)", 552, status{5, 2, 2}, false},
		{"the code 554 5.7.1 stood there", 554, status{5, 7, 1}, false},
		{"250 2.0.0 ok", 0, status{}, false},
		{"more than 500 messages", 0, status{}, false},
		{"4.16.55.1", 0, status{}, true},
		{"version 5.90.1", 0, status{}, false},
	} {
		var got text
		got.reset(0)
		got.read([]string{c.in})
		assert.Equal(t, c.code, got.code, c.in)
		assert.Equal(t, c.status, got.status, c.in)
		assert.Equal(t, c.ip, got.hasIP, c.in)
	}
}

func TestReadingIsBounded(t *testing.T) {
	var got text
	got.reset(550)
	long := strings.Repeat("word ", 2000)
	got.read([]string{long, long})
	assert.Len(t, got.words, maxWords)
	got.reset(550)
	got.read([]string{strings.Repeat("x", maxText-5), " tail never"})
	assert.Equal(t, "tail", joined(&got, got.words[1:]), "no more than maxText octets are read")
	got.reset(550)
	got.read([]string{strings.Repeat("http://a.b/ ", 1000), strings.Repeat("a.b ", 1000)})
	assert.LessOrEqual(t, len(got.names), maxWords+1)
	assert.LessOrEqual(t, len(got.links), maxURLs)
	assert.LessOrEqual(t, len(got.lower), 2*maxText)
}
