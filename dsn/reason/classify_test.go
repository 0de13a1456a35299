package reason_test

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/dsn/reason"
)

// all are the classes.
var all = []reason.Class{
	reason.UserUnknown, reason.MailboxFull, reason.MailboxDisabled, reason.Suspended, reason.HasMoved, reason.HostUnknown,
	reason.RelayingDenied, reason.OpenRelay, reason.OpenProxy, reason.DynamicAddress, reason.Blocklisted, reason.BadReputation,
	reason.ReverseDNS, reason.Greylisted, reason.RateLimited, reason.TooManyConnections, reason.MessageTooBig, reason.Content,
	reason.Spam, reason.Virus, reason.Policy, reason.AuthenticationFailed, reason.AuthRequired, reason.TLSRequired,
	reason.TLSFailed, reason.NotCompliant, reason.Syntax, reason.Filtered, reason.Security, reason.SystemError,
	reason.SystemFull, reason.MailLoop, reason.NetworkError, reason.Expired, reason.SenderRefused, reason.NoMailHere,
	reason.Vacation, reason.Feedback, reason.Delivered, reason.Unknown,
}

// jargon is what a sender need not know.
var jargon = regexp.MustCompile(`\b(SMTP|DNS|PTR|MX|SPF|DKIM|DMARC|TLS|IP|HELO|relay|proxy|DNSBL|blocklist|greylist\w*|` +
	`smarthost|header|5\d\d|4\d\d)\b`)

func TestEveryClassIsExplained(t *testing.T) {
	for _, c := range all {
		v := (*reason.Rules)(nil).Explain(c)
		assert.Equal(t, []reason.Class{c}, v.Classes)
		assert.NotEmpty(t, v.Matter, c)
		assert.NotEmpty(t, v.Retry, c)
		assert.NotEmpty(t, v.Admin, c)
		assert.Regexp(t, `^[A-Z].*\.$`, v.Sender, c)
		assert.NotRegexp(t, jargon, v.Sender, c)
		if slices.Contains(ours, c) {
			assert.Equal(t, reason.MatterAddress, v.Matter, c)
			assert.Contains(t, v.Sender, "You can do nothing about it; the administrator of the sending server must act.", c)
			assert.Equal(t, reason.RetrySlowly, v.Retry, c)
		} else {
			assert.NotEqual(t, reason.MatterAddress, v.Matter, c)
		}
	}
	assert.Equal(t, reason.Unknown, class((*reason.Rules)(nil).Explain()))
}

// std: D12 — the remedy for a refusal that leaves three possibilities says in which order to look.
func TestThreePossibilities(t *testing.T) {
	v := (*reason.Rules)(nil).Explain(reason.OpenRelay, reason.OpenProxy, reason.DynamicAddress)
	place := -1
	order := []string{"relay for strangers", "open proxy", "dynamic or residential", "take the address off", "smarthost"}
	for _, word := range order {
		at := strings.Index(v.Admin, word)
		assert.Greater(t, at, place, "%q in %q", word, v.Admin)
		place = at
	}
	assert.Equal(t, reason.MatterAddress, v.Matter)
	assert.True(t, v.Blocked())
}

func TestSoonForGreylisting(t *testing.T) { // std: Q6
	assert.Equal(t, reason.RetrySoon, reason.Classify(input("450 4.7.1 Greylisted")).Retry)
	assert.Equal(t, reason.RetrySlowly, reason.Classify(input("452 4.2.2 Mailbox full")).Retry)
	assert.Equal(t, reason.RetryNever, reason.Classify(input("550 5.1.1 User unknown")).Retry)
	assert.Equal(t, reason.RetryNormal, reason.Classify(input("450 4.1.1 User unknown")).Retry, "a 4yz may be tried again")
}

func TestNothingToSay(t *testing.T) {
	for _, reply := range []dsn.Reply{{}, {Code: 599, Lines: []string{"Nyet"}}, {Lines: []string{"", ""}}} {
		in := reason.Input{Reply: reply}
		v := reason.Classify(in)
		assert.Equal(t, reason.Unknown, v.Class())
		assert.Zero(t, v.Confidence)
		assert.Empty(t, v.Rule)
		assert.False(t, v.Blocked())
		assert.NotEmpty(t, v.Sender)
	}
	var zero reason.Verdict
	assert.Equal(t, reason.Unknown, zero.Class())
}

// TestGreeting: a refusal at the greeting is about who connects, whatever it says. std: C3
func TestGreeting(t *testing.T) {
	in := input("554 mx1.example.com ESMTP")
	in.Stage = "greeting"
	v := reason.Classify(in)
	assert.True(t, v.Blocked())
	in.Stage = "dot"
	assert.False(t, blocked(reason.Classify(in)))
}

func blocked(v reason.Verdict) bool { return v.Blocked() }

func TestLinks(t *testing.T) {
	in := input("554 5.7.1 Service unavailable; Client host [192.0.2.25] blocked using zen.spamhaus.org; " +
		"https://www.spamhaus.org/query/ip/192.0.2.25.")
	in.Host, in.Site = "mta5.am0.yahoodns.net", "yahoodns.net"
	v := reason.Classify(in)
	var urls []string
	for _, l := range v.Links {
		urls = append(urls, l.URL)
		assert.NotEmpty(t, l.Title)
	}
	assert.Equal(t, []string{ // the list's, the provider's, the remote server's own
		"https://check.spamhaus.org/",
		"https://senders.yahooinc.com/smtp-error-codes/", "https://senders.yahooinc.com/contact/",
		"https://www.spamhaus.org/query/ip/192.0.2.25",
	}, urls)
	assert.Equal(t, "Link in the answer of the remote server mta5.am0.yahoodns.net", v.Links[3].Title)

	in.Reply.Lines = []string{"5.1.1 User unknown"}
	assert.Empty(t, reason.Classify(in).Links, "a provider's pages do not help about a mailbox")
}

func TestRemoteLinks(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"see http://example.com/a.", "http://example.com/a"},
		{"(https://example.com/x)", "https://example.com/x"},
		{"https://en.example.org/wiki/A_(b)", "https://en.example.org/wiki/A_(b)"},
		{"<https://example.com/x?a=1&b=2#c>,", "https://example.com/x?a=1&b=2#c"},
		{`"http://example.com/q"`, "http://example.com/q"},
		{"HTTP://EXAMPLE.com/q", "http://EXAMPLE.com/q"},
		{"www.example.com/help;", "http://www.example.com/help"},
		{"http://user:pass@example.com/", ""},
		{"http://example.com@evil.example/", ""},
		{"javascript:alert(1) ftp://example.com/", ""},
		{"http://localhost/ http://a", ""},
		{"http://good.example;.evil.example/", ""},
		{"http://example.com\\@evil.example/", ""},
		{"http://ex\u0430mple.com/", ""},
		{"http://example.com/\x1b[31m", "http://example.com/"},
		{"http://exa<b>mple.com/", ""},
		{"http://example.com/" + strings.Repeat("a", 400), ""},
		{"http://[2001:db8::1]/", ""},
		{"http://example.com:8080/x", "http://example.com:8080/x"},
	} {
		v := reason.Classify(reason.Input{Reply: dsn.Reply{Code: 599, Lines: []string{c.text}}})
		var got string
		if len(v.Links) > 0 {
			got = v.Links[0].URL
		}
		assert.Equal(t, c.want, got, c.text)
	}
	v := reason.Classify(reason.Input{
		Reply: dsn.Reply{Code: 599, Lines: []string{"http://a.example/ http://a.example/ http://b.example/", "http://c.example/ http://d.example/"}},
		Host:  "evil\r\n<b>host",
	})
	require.Len(t, v.Links, 3, "twice the same is one")
	assert.Equal(t, "Link in the answer of the remote server evilbhost", v.Links[0].Title)
}

// TestVerdictsAreTheCallers proves that a caller may write into a verdict.
func TestVerdictsAreTheCallers(t *testing.T) {
	in := input("550 5.7.1 Open relay, see http://a.example/")
	v := reason.Classify(in)
	want := reason.Classify(in)
	v.Classes[0] = "x"
	for i := range v.Links {
		v.Links[i].URL = "x"
	}
	e := (*reason.Rules)(nil).Explain(reason.OpenRelay)
	e.Links[0].URL = "x"
	assert.Equal(t, want, reason.Classify(in))
	assert.NotEqual(t, "x", (*reason.Rules)(nil).Explain(reason.OpenRelay).Links[0].URL)
}

// TestConcurrentUse shares rules among goroutines, with texts that leave something behind if anything is shared.
func TestConcurrentUse(t *testing.T) {
	cases := refusals(t)
	var group sync.WaitGroup
	for n := range 4 {
		group.Go(func() {
			for i := range cases {
				r := cases[(i*7+n*13)%len(cases)]
				assert.Equal(t, r.classes[0], class(reason.Classify(r.input)), "line %d", r.line)
			}
		})
	}
	group.Wait()
}

// TestBounded feeds what no honest server sends.
func TestBounded(t *testing.T) {
	long := dsn.Reply{Code: 550}
	for range 10000 {
		long.Lines = append(long.Lines, strings.Repeat("\x00\xff'-_.@[:<", 100))
	}
	reason.Classify(reason.Input{Reply: long})
	at := func(n int) reason.Class {
		reply := dsn.Reply{Code: 599, Lines: []string{strings.Repeat("x", n), "mailbox full"}}
		return class(reason.Classify(reason.Input{Reply: reply}))
	}
	assert.Equal(t, reason.MailboxFull, at(4<<10-12))
	assert.Equal(t, reason.Unknown, at(4<<10))
}

func FuzzClassify(f *testing.F) {
	for _, r := range refusals(f)[:60] {
		f.Add(r.input.Reply.Code, strings.Join(r.input.Reply.Lines, "\n"), r.input.Stage, r.input.Host)
	}
	f.Add(0, "550 5.1.1 ::1 @ [1.2.3.4] http://", "", "")
	f.Fuzz(func(t *testing.T, code int, text, stage, host string) {
		in := reason.Input{Reply: dsn.Reply{Code: code, Lines: strings.Split(text, "\n")}, Stage: stage, Host: host}
		v := reason.Classify(in)
		require.NotEmpty(t, v.Classes)
		require.Contains(t, all, v.Class())
		require.True(t, v.Confidence >= 0 && v.Confidence <= 1)
		require.LessOrEqual(t, len(v.Links), 12)
		for _, l := range v.Links {
			u, err := url.Parse(l.URL)
			require.NoError(t, err)
			require.True(t, (u.Scheme == "http" || u.Scheme == "https") && u.User == nil, l.URL)
			require.NotContains(t, l.Title, "\n")
			require.LessOrEqual(t, len(l.URL), 1000)
		}
		require.Equal(t, v, reason.Classify(in), "the same twice")
	})
}
