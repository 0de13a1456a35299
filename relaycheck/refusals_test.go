package relaycheck_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/dsn/reason"
	"github.com/sortie-mail/sortie/relaycheck"
	"github.com/sortie-mail/sortie/route"
)

const aolText = "5.7.1 The IP address you are using to connect is either open to the free relaying of e-mail, is serving as " +
	"an open proxy, or is a dynamic (residential) IP address"

var blocked = reason.Verdict{
	Classes: []reason.Class{reason.OpenRelay, reason.OpenProxy, reason.DynamicAddress}, Confidence: 0.9, Matter: reason.MatterAddress,
	Retry: reason.RetrySlowly, Admin: "The address of this server is refused: find out why, and ask for it to be taken off the list.",
	Links: []reason.Link{{Title: "Postmaster of the provider", URL: "https://postmaster.example/"}},
}

// refusal is an answer of a domain's MX host.
func refusal(recipient, host string, v reason.Verdict, reply string) deliver.Outcome {
	r, err := dsn.ParseReply(reply)
	if err != nil {
		panic(err)
	}
	result := deliver.PermFail
	if r.Temporary() {
		result = deliver.TempFail
	}
	return deliver.Outcome{
		Recipient: recipient, Result: result, Stage: deliver.StageRcpt, Reply: r, Host: host, Addr: netip.MustParseAddrPort("192.0.2.9:25"), Reason: v,
	}
}

func aol(recipient string) deliver.Outcome {
	return refusal(recipient, "mx-aol.mail.gm0.yahoodns.net", blocked, "554 "+aolText)
}

func success(recipient, host string) deliver.Outcome {
	return deliver.Outcome{Recipient: recipient, Result: deliver.Delivered, Stage: deliver.StageDot, Host: host}
}

func through(o deliver.Outcome, smarthost string) deliver.Outcome {
	o.Hop = route.Hop{Kind: route.Smarthost, Host: smarthost}
	o.Route = route.Route{Pattern: "*", File: "routes", Line: 7}
	return o
}

func message(id string) *deliver.Message { return &deliver.Message{ID: id} }

// observe feeds an outcome as often as told, a minute apart.
func observe(r *relaycheck.Refusals, times int, o deliver.Outcome) {
	for i := range times {
		o.End = time.Now()
		r.Observe(message(fmt.Sprintf("m%d", i+1)), o)
		time.Sleep(time.Minute)
	}
}

func TestRefusalsOurAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r relaycheck.Refusals
		start := time.Now()
		observe(&r, 3, aol("you@AOL.com."))
		findings := told(&r)
		wellFormed(t, findings)
		require.Len(t, findings, 1)
		f := findings[0]
		assert.Equal(t, "refusal/yahoodns.net/open-relay", f.ID)
		assert.Equal(t, relaycheck.Serious, f.Severity)
		assert.Equal(t, "aol.com refuses our mail", f.Title)
		assert.Contains(t, f.Text, blocked.Admin)
		assert.Equal(t, &relaycheck.Quote{By: "mx-aol.mail.gm0.yahoodns.net [192.0.2.9]", Words: "554 " + aolText}, f.Quote)
		assert.Equal(t, []reason.Class{reason.OpenRelay, reason.OpenProxy, reason.DynamicAddress},
			[]reason.Class{f.Possibilities[0].Class, f.Possibilities[1].Class, f.Possibilities[2].Class})
		assert.Equal(t, []string{"*@aol.com smtp://mail.isp.example"}, f.Remedy[0].Lines)
		assert.Equal(t, blocked.Links, f.Links)
		assert.Equal(t, 3, f.Count)
		assert.Equal(t, start, f.First)
		assert.Equal(t, start.Add(2*time.Minute), f.Last)
		assert.Contains(t, f.Evidence, relaycheck.Evidence{Label: "a message in the queue or the log", Text: "m3"})
	})
}

// The lines that are offered are entries that a routing file takes, and that lead where they say.
func TestRefusalsDetour(t *testing.T) {
	const others = " # and all other domains with its mail servers"
	for _, tc := range []struct {
		name       string
		hosts      []string
		recipients []string
		site       string
		lines      []string
	}{
		{"one domain", []string{"mx.aol.com"}, []string{"a@aol.com", "b@aol.com"}, "aol.com", []string{"*@aol.com smtp://isp.example"}},
		{
			"several domains",
			[]string{"mx1.yahoodns.net", "mx2.yahoodns.net"},
			[]string{"a@aol.com", "b@yahoo.com"},
			"yahoodns.net",
			[]string{"*@aol.com smtp://isp.example", "*@yahoo.com smtp://isp.example", "mx:*.yahoodns.net smtp://isp.example" + others},
		},
		{
			"a host that has the provider's own name",
			[]string{"example.net", "mx.example.net"},
			[]string{"a@a.example", "b@b.example"},
			"example.net",
			[]string{
				"*@a.example smtp://isp.example", "*@b.example smtp://isp.example",
				"mx:*.example.net smtp://isp.example" + others, "mx:example.net smtp://isp.example" + others,
			},
		},
		{
			"umlauts",
			[]string{"mx.example.net"},
			[]string{"a@Bücher.example"},
			"example.net",
			[]string{"*@xn--bcher-kva.example smtp://isp.example"},
		},
		{"an address", []string{"[192.0.2.1]"}, []string{"a@[192.0.2.1]"}, "[192.0.2.1]", []string{"*@[192.0.2.1] smtp://isp.example"}},
		{
			"two domains at an address",
			[]string{"[192.0.2.1]"},
			[]string{"a@a.example", "b@b.example"},
			"[192.0.2.1]",
			[]string{"*@a.example smtp://isp.example", "*@b.example smtp://isp.example"},
		},
		{"what is no domain", []string{"mx.example.net"}, []string{"a@b c # d"}, "example.net", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := relaycheck.Refusals{Smarthost: "smtp://isp.example"}
			for _, host := range tc.hosts {
				for _, to := range tc.recipients {
					r.Observe(message("m"), refusal(to, host, blocked, "554 no"))
				}
			}
			f := told(&r)[0]
			assert.Equal(t, "refusal/"+tc.site+"/open-relay", f.ID)
			assert.Equal(t, tc.lines, f.Remedy[0].Lines)
			table, err := route.Parse("routes", strings.NewReader(strings.Join(f.Remedy[0].Lines, "\n")))
			require.NoError(t, err)
			assert.Equal(t, len(tc.lines), table.Len())
			assert.NotContains(t, fmt.Sprint(f.Remedy), "mail.isp.example", "the smarthost is known")
		})
	}
}

// What is told to be done to the routing file that led the mail here leaves one that works, and that sends the mail another way.
func TestRefusalsDetourOfEntries(t *testing.T) {
	const isp = " smtp://mail.isp.example"
	for _, tc := range []struct {
		name    string
		routes  string
		to      []string
		do      string // the first step begins so
		lines   []string
		changed string
	}{
		{"no entry", "", []string{"a@aol.com"}, "add this line", []string{"*@aol.com" + isp}, "*@aol.com" + isp},
		{"all mail", "* direct\n", []string{"a@aol.com"}, "add this line", []string{"*@aol.com" + isp}, "* direct\n*@aol.com" + isp},
		{
			"the very pattern", "# first\n*@Aol.com direct tls=required\n",
			[]string{"a@aol.com", "b@aol.com"},
			"replace line 2 of routes (*@Aol.com) by this line.",
			[]string{"*@Aol.com" + isp},
			"*@Aol.com" + isp,
		},
		{
			"an address", "* direct\na@aol.com direct\n",
			[]string{"a@aol.com"},
			"replace line 2 of routes (a@aol.com) by this line.",
			[]string{"a@aol.com" + isp},
			"* direct\na@aol.com" + isp,
		},
		{
			"a sender", "from:me@example.org direct\n",
			[]string{"a@aol.com"},
			"replace line 1 of routes (from:me@example.org) by this line.",
			[]string{"from:me@example.org" + isp},
			"from:me@example.org" + isp,
		},
		{
			"one of two", "*@aol.com direct\n",
			[]string{"a@aol.com", "a@yahoo.com"},
			"replace line 1 of routes (*@aol.com) by this line.",
			[]string{"*@aol.com" + isp},
			"*@aol.com" + isp,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var r relaycheck.Refusals
			table, err := route.Parse("routes", strings.NewReader(tc.routes))
			require.NoError(t, err)
			for _, to := range tc.to {
				o := aol(to)
				o.Route, err = table.Route(t.Context(), route.Query{Sender: "me@example.org", Recipient: to})
				require.NoError(t, err)
				r.Observe(message("m"), o)
			}
			findings := told(&r)
			wellFormed(t, findings)
			steps := findings[0].Remedy
			assert.Contains(t, steps[0].Do, "(your internet provider): "+tc.do)
			assert.Equal(t, tc.lines, steps[0].Lines)
			replaced := strings.Contains(tc.do, "replace")
			assert.Equal(t, replaced, strings.Contains(steps[len(steps)-1].Do, "put back what was replaced"))
			table, err = route.Parse("routes", strings.NewReader(tc.changed))
			require.NoError(t, err)
			way, err := table.Route(t.Context(), route.Query{Sender: "me@example.org", Recipient: tc.to[0]})
			require.NoError(t, err)
			assert.Equal(t, "smtp://mail.isp.example", way.String())
			if len(tc.to) > 1 && tc.name == "one of two" {
				assert.Contains(t, steps[1].Do, "For the rest of it: add these lines to the routing file.")
				assert.Equal(t, "*@yahoo.com"+isp, steps[1].Lines[0])
			}
		})
	}
}

// A detour of the route that does not work either is what must be mended, and no other is offered.
func TestRefusalsDetourFails(t *testing.T) {
	var r relaycheck.Refusals
	direct := aol("you@aol.com")
	o := through(refusal("you@aol.com", "mail.isp.example", reason.Verdict{Matter: reason.MatterDomain, Classes: []reason.Class{reason.RelayingDenied}}, "550 no"), "mail.isp.example")
	o.Route = route.Route{Pattern: "*@aol.com", File: "routes", Line: 5}
	direct.Reason.Admin = reason.Classify(reason.Input{Reply: direct.Reply}).Admin
	o.Tried = []deliver.Try{{Host: direct.Host, Addr: direct.Addr, Stage: direct.Stage, Reply: direct.Reply, Reason: direct.Reason}}
	r.Observe(message("m"), o)
	findings := told(&r)
	wellFormed(t, findings)
	find(t, findings, "smarthost/mail.isp.example/refusal/relaying-denied")
	f := find(t, findings, "refusal/yahoodns.net/open-relay")
	assert.Contains(t, f.Remedy[0].Do, "The entry routes:5: *@aol.com of the routing file has a detour for this mail, through the smarthost mail.isp.example")
	assert.Contains(t, f.Text, "The detour through mail.isp.example does not work either.")
	for _, step := range f.Remedy {
		assert.Empty(t, step.Lines)
	}
	assert.NotContains(t, f.Text, "Meanwhile, route")
}

// With a detour in force nobody is told to take one, whatever the class; and links are offered as help where they lead to somebody.
func TestRefusalsAdvice(t *testing.T) {
	for _, classes := range [][]reason.Class{
		{reason.OpenRelay},
		{reason.OpenProxy},
		{reason.OpenRelay, reason.OpenProxy, reason.DynamicAddress},
		{reason.DynamicAddress},
		{reason.Blocklisted},
		{reason.BadReputation},
	} {
		t.Run(fmt.Sprint(classes), func(t *testing.T) {
			v := (*reason.Rules)(nil).Explain(classes...)
			require.Contains(t, v.Admin, "oute", "it has advice to leave out")
			var r relaycheck.Refusals
			r.Observe(message("m"), refusal("a@b.example", "mx.b.example", v, "554 no"))
			assert.Contains(t, told(&r)[0].Text, v.Admin)
			assert.NotContains(t, fmt.Sprint(told(&r)[0].Remedy), "links below")
			r.Observe(message("m"), through(success("a@b.example", "mail.isp.example"), "mail.isp.example"))
			f := told(&r)[0]
			assert.Contains(t, f.Text, "Its mail goes through mail.isp.example meanwhile.")
			assert.NotContains(t, strings.ReplaceAll(f.Text, "through mail.isp.example meanwhile", ""), "eanwhile")
			assert.Contains(t, f.Text, v.Admin[:40])
			assert.True(t, strings.HasSuffix(f.Text, "."), f.Text)

			v.Links = append(v.Links, reason.Link{Title: "Its postmaster", URL: "https://postmaster.b.example/"})
			r.Observe(message("m"), refusal("a@b.example", "mx.b.example", v, "554 no"))
			assert.Contains(t, fmt.Sprint(told(&r)[0].Remedy), "again: the links below may help. Quote its words")
		})
	}
}

// Some providers put off everybody now and then: once is no reason to do anything.
func TestRefusalsPutOff(t *testing.T) {
	var r relaycheck.Refusals
	for n := range 3 {
		v := blocked
		v.Classes, v.List = []reason.Class{reason.Blocklisted, reason.RateLimited}, "Spamhaus"
		r.Observe(message("m"), refusal("a@b.example", "mx.b.example", v, "421 4.7.0 later"))
		f := told(&r)[0]
		assert.Equal(t, n == 2, f.Severity == relaycheck.Serious, "after %d", n+1)
		assert.Contains(t, f.Text, "this server sends too much at a time or is on the list Spamhaus.")
	}
}

// Many domains of one provider do not make a long list, nor a long memory.
func TestRefusalsManyDomains(t *testing.T) {
	var r relaycheck.Refusals
	for i := range 1000 {
		r.Observe(message("m"), refusal(fmt.Sprintf("a@d%d.example", i), "mx.example.net", blocked, "554 no"))
	}
	f := told(&r)[0]
	assert.Equal(t, "example.net refuses our mail", f.Title)
	assert.Contains(t, f.Text, "Its mail servers take the mail of d0.example, d1.example, d2.example and others.")
	assert.Len(t, f.Remedy[0].Lines, 11)
	assert.Equal(t, 1000, f.Count)
}

func TestRefusalsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r relaycheck.Refusals
		observe(&r, 2, aol("you@aol.com"))
		observe(&r, 1, success("you@other.example", "mx.other.example"))
		assert.Equal(t, relaycheck.Serious, told(&r)[0].Severity, "another provider's success means nothing")
		observe(&r, 1, through(success("you@aol.com", ""), "mail.isp.example"))
		f := told(&r)[0]
		assert.Equal(t, relaycheck.Serious, f.Severity, "nor does another way")
		assert.Contains(t, f.Text, "Its mail goes through mail.isp.example meanwhile.")
		assert.Empty(t, f.Remedy[0].Lines, "it has its detour")
		ended := time.Now()
		observe(&r, 1, success("me@yahoo.com", "mta5.am0.yahoodns.net"))
		f = told(&r)[0]
		assert.Equal(t, relaycheck.Info, f.Severity)
		assert.Equal(t, ended, f.Ended)
		assert.Equal(t, "aol.com refused our mail until 1 Jan 2000, 00:04 UTC", f.Title)
		assert.Contains(t, f.Text, "aol.com has accepted mail again since.")
		assert.Equal(t, "554 "+aolText, f.Quote.Words)

		observe(&r, 1, aol("you@aol.com"))
		f = told(&r)[0]
		assert.Equal(t, relaycheck.Serious, f.Severity)
		assert.Equal(t, 3, f.Count, "soon after: the same story")
		assert.Contains(t, f.Evidence, relaycheck.Evidence{Label: "accepted in between", Text: "1 Jan 2000, 00:04 UTC"})

		observe(&r, 1, success("me@yahoo.com", "mta5.am0.yahoodns.net"))
		time.Sleep(48 * time.Hour)
		again := time.Now()
		observe(&r, 1, aol("you@aol.com"))
		f = told(&r)[0]
		assert.Equal(t, 1, f.Count, "long after: a new one")
		assert.Equal(t, again, f.First)

		observe(&r, 1, success("me@yahoo.com", "mta5.am0.yahoodns.net"))
		time.Sleep(8 * 24 * time.Hour)
		assert.Empty(t, told(&r), "what was over a week ago is forgotten")
	})
}

// Attempts run side by side: what is told late does not reopen what is over, nor take the place of later words.
func TestRefusalsToldLate(t *testing.T) {
	var r relaycheck.Refusals
	at := func(o deliver.Outcome, minutes int) {
		o.End = time.Now().Add(time.Duration(minutes-60) * time.Minute)
		r.Observe(message(fmt.Sprint(minutes)), o)
	}
	at(aol("you@aol.com"), 10)
	at(refusal("you@aol.com", "mx.yahoodns.net", blocked, "554 older"), 5)
	f := told(&r)[0]
	assert.Equal(t, 2, f.Count)
	assert.Equal(t, "554 "+aolText, f.Quote.Words)
	at(success("you@aol.com", "mx.yahoodns.net"), 9)
	assert.Equal(t, relaycheck.Serious, told(&r)[0].Severity)
	at(success("you@aol.com", "mx.yahoodns.net"), 20)
	at(aol("you@aol.com"), 15)
	f = told(&r)[0]
	assert.Equal(t, relaycheck.Info, f.Severity)
	assert.Equal(t, 3, f.Count)
}

func TestRefusalsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r relaycheck.Refusals
		observe(&r, 1, aol("you@aol.com"))
		time.Sleep(29 * 24 * time.Hour)
		assert.Len(t, told(&r), 1)
		time.Sleep(2 * 24 * time.Hour)
		assert.Empty(t, told(&r))
	})
}

// What a route's detour hides is told all the same.
func TestRefusalsBeforeADetour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r relaycheck.Refusals
		o := through(success("you@aol.com", "mail.isp.example"), "mail.isp.example")
		direct := aol("you@aol.com")
		o.Tried = []deliver.Try{
			{Host: "mx1.yahoodns.net", Stage: deliver.StageConnect, Err: "no connection"},
			{Host: direct.Host, Addr: direct.Addr, Stage: direct.Stage, Reply: direct.Reply, Reason: direct.Reason, Err: direct.Reply.String()},
		}
		observe(&r, 2, o)
		f := find(t, told(&r), "refusal/yahoodns.net/open-relay")
		assert.Equal(t, 2, f.Count)
		assert.Contains(t, f.Text, "Its mail goes through mail.isp.example meanwhile.")
		assert.Empty(t, f.Remedy[0].Lines)
	})
}

// One host of a smarthost puts the mail off, another refuses the login: both are told.
func TestRefusalsTwoHostsOfASmarthost(t *testing.T) {
	var r relaycheck.Refusals
	o := through(refusal("a@b.example", "mx1.isp.example", reason.Verdict{}, "451 later"), "isp.example")
	o.RouteTrouble = true
	o.Tried = []deliver.Try{
		{Hop: o.Hop, Host: "mx2.isp.example", Stage: deliver.StageAuth, Reply: dsn.Reply{Code: 535, Lines: []string{"no"}}, Err: "535 no"},
		{Hop: o.Hop, Host: "mx3.isp.example", Stage: deliver.StageConnect, Err: "no connection"},
	}
	for range 3 {
		r.Observe(message("m"), o)
	}
	assert.Equal(t, []string{"smarthost/isp.example/login", "smarthost/isp.example/refusal/unknown"}, ids(told(&r)))
}

func TestRefusalsOfWhat(t *testing.T) {
	verdict := func(m reason.Matter, c reason.Class) reason.Verdict {
		return reason.Verdict{Matter: m, Classes: []reason.Class{c}, Confidence: 0.9, Admin: "Do this."}
	}
	lost := deliver.Outcome{Recipient: "a@b.example", Host: "mx.b.example", Stage: deliver.StageConnect, Detail: "no connection: timed out"}
	unknown := lost
	unknown.Host, unknown.Stage = "", deliver.StageRoute
	noTLS := lost
	noTLS.Stage, noTLS.Detail = deliver.StageTLS, "the certificate is not valid for mx.b.example"
	inClear := success("a@b.example", "mx.b.example")
	inClear.Tried = []deliver.Try{{Host: "mx.b.example", Stage: deliver.StageTLS, Err: "TLS with the host failed: bad record"}}
	encrypted := inClear
	encrypted.TLS.Version = "TLS 1.3"
	login := through(refusal("a@b.example", "mail.isp.example", verdict(reason.MatterConfig, reason.AuthenticationFailed), "535 5.7.8 no"), "mail.isp.example")
	login.Stage, login.RouteTrouble, login.Result = deliver.StageAuth, true, deliver.TempFail
	name := through(unknown, "mail.isp.example")
	name.RouteTrouble, name.Detail = true, "the host mail.isp.example has no address"
	wrong := noTLS
	wrong.RouteTrouble = true
	rejected := refusal("a@b.example", "", verdict(reason.MatterAddress, reason.Policy), "550 no")
	rejected.Hop.Kind = route.Reject
	temp := func(v reason.Verdict) deliver.Outcome { return refusal("a@b.example", "mx.b.example", v, "451 later") }
	perm := func(v reason.Verdict) deliver.Outcome { return refusal("a@b.example", "mx.b.example", v, "550 no") }
	isp := func(o deliver.Outcome) deliver.Outcome { return through(o, "mail.isp.example") }

	for _, tc := range []struct {
		name     string
		outcome  deliver.Outcome
		once     string // the finding after one; "" is none
		often    string // and after ten
		severity relaycheck.Severity
	}{
		{"no such user", perm(verdict(reason.MatterMailbox, reason.UserUnknown)), "", "", 0},
		{"no such domain", perm(verdict(reason.MatterDomain, reason.HostUnknown)), "", "", 0},
		{"a provider that is not well", temp(verdict(reason.MatterDomain, reason.SystemError)), "", "refusal/b.example/system-error", relaycheck.Warning},
		{"a route's own refusal", rejected, "", "", 0},
		{"DNS", unknown, "", "", 0},
		{"greylisted", temp(reason.Verdict{Matter: reason.MatterUnknown, Classes: []reason.Class{reason.Greylisted}}), "", "", 0},
		{"soon", temp(reason.Verdict{Matter: reason.MatterUnknown, Retry: reason.RetrySoon}), "", "", 0},
		{"a message too big", perm(verdict(reason.MatterMessage, reason.MessageTooBig)), "", "", 0},
		{"spam", perm(verdict(reason.MatterMessage, reason.Spam)), "", "refusal/b.example/spam", relaycheck.Warning},
		{"reverse DNS", perm(verdict(reason.MatterConfig, reason.ReverseDNS)), "refusal/b.example/reverse-dns", "refusal/b.example/reverse-dns", relaycheck.Warning},
		{"our address, perhaps", temp(reason.Verdict{Matter: reason.MatterAddress, Confidence: 0.2}), "refusal/b.example/unknown", "refusal/b.example/unknown", relaycheck.Warning},
		{"our address, for good", perm(verdict(reason.MatterAddress, reason.Blocklisted)), "refusal/b.example/blocklisted", "refusal/b.example/blocklisted", relaycheck.Serious},
		{"our address", temp(verdict(reason.MatterAddress, reason.Blocklisted)), "refusal/b.example/blocklisted", "refusal/b.example/blocklisted", relaycheck.Serious},
		{"words that nobody knows, for good", perm(reason.Verdict{}), "refusal/b.example/unknown", "refusal/b.example/unknown", relaycheck.Warning},
		{"words that nobody knows, for now", temp(reason.Verdict{}), "", "refusal/b.example/unknown", relaycheck.Warning},
		{"no connection", lost, "", "unreachable/b.example", relaycheck.Warning},
		{"no TLS", noTLS, "tls/b.example", "tls/b.example", relaycheck.Warning},
		{"TLS failed and the mail went in the clear", inClear, "tls/b.example", "tls/b.example", relaycheck.Info},
		{"TLS failed at first", encrypted, "", "", 0},
		{"a route that cannot work", wrong, "route/b.example", "route/b.example", relaycheck.Serious},
		{"a smarthost's login", login, "smarthost/mail.isp.example/login", "smarthost/mail.isp.example/login", relaycheck.Serious},
		{"a smarthost's name", name, "smarthost/mail.isp.example/name", "smarthost/mail.isp.example/name", relaycheck.Serious},
		{"a smarthost's refusal", isp(perm(verdict(reason.MatterDomain, reason.RelayingDenied))), "smarthost/mail.isp.example/refusal/relaying-denied", "smarthost/mail.isp.example/refusal/relaying-denied", relaycheck.Serious},
		{"a smarthost's word about a user", isp(perm(verdict(reason.MatterMailbox, reason.UserUnknown))), "", "", 0},
		{"a smarthost that is busy", isp(temp(verdict(reason.MatterDomain, reason.SystemError))), "", "smarthost/mail.isp.example/refusal/system-error", relaycheck.Warning},
		{"a smarthost that is away", isp(lost), "smarthost/mail.isp.example/unreachable", "smarthost/mail.isp.example/unreachable", relaycheck.Serious},
		{"a smarthost without TLS", isp(noTLS), "smarthost/mail.isp.example/tls", "smarthost/mail.isp.example/tls", relaycheck.Serious},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var r relaycheck.Refusals
			for range 10 {
				r.Observe(nil, tc.outcome)
				if once := told(&r); tc.once == "" && tc.often == "" {
					assert.Empty(t, once)
				}
			}
			often := told(&r)
			wellFormed(t, often)
			if tc.often == "" {
				require.Empty(t, often)
				return
			}
			require.Equal(t, []string{tc.often}, ids(often))
			assert.Equal(t, tc.severity, often[0].Severity)
			assert.Equal(t, 10, often[0].Count)
			first := relaycheck.Refusals{}
			first.Observe(nil, tc.outcome)
			for _, f := range told(&first) {
				assert.LessOrEqual(t, f.Severity, tc.severity)
			}
			if tc.once == "" {
				assert.Empty(t, told(&first))
			} else {
				assert.Equal(t, []string{tc.once}, ids(told(&first)))
			}
		})
	}
}

// Mail that waits is not kept for ever, and nobody is told so.
func TestRefusalsFate(t *testing.T) {
	var r relaycheck.Refusals
	login := through(deliver.Outcome{Recipient: "a@b.example", Host: "mail.isp.example", Stage: deliver.StageAuth, RouteTrouble: true}, "mail.isp.example")
	r.Observe(message("m"), login)
	r.Observe(message("m"), aol("you@aol.com"))
	findings := told(&r)
	require.Len(t, findings, 2)
	for _, f := range findings {
		assert.Contains(t, f.Text, "is tried again until its lifetime ends. Then it goes back to its senders.")
	}
}

// Whatever is the route's own trouble is told at once, also where it came to no host, and is over when mail goes its way.
func TestRefusalsRouteTrouble(t *testing.T) {
	dane := func(pattern, recipient string) deliver.Outcome {
		return deliver.Outcome{
			Recipient: recipient, Status: "4.7.5", Stage: deliver.StageTLS, Detail: "tls=dane is not built in yet: write tls=verified",
			Route: route.Route{Pattern: pattern, File: "routes", Line: 3}, Hop: route.Hop{TLS: route.TLSDANE}, RouteTrouble: true,
		}
	}
	noHops := deliver.Outcome{Recipient: "a@b.example", Status: "4.3.5", Stage: deliver.StageRoute, Detail: "the route has no hops", RouteTrouble: true}
	source := dane("*", "a@b.example")
	source.Host, source.Stage, source.Detail = "mx.b.example", deliver.StageRoute, "the host mx.b.example has no address that source=2001:db8::1 can connect to"
	wantsLogin := through(refusal("a@b.example", "mail.isp.example", reason.Verdict{Matter: reason.MatterMailbox}, "530 5.7.0 log in"), "mail.isp.example")
	wantsLogin.RouteTrouble, wantsLogin.Result = true, deliver.TempFail
	ispSource := through(source, "mail.isp.example")
	ispDANE := through(dane("*", "a@b.example"), "mail.isp.example")
	fallback := through(success("a@b.example", "mail.isp.example"), "mail.isp.example")
	fallback.Tried = []deliver.Try{{Hop: dane("*", "").Hop, Stage: deliver.StageTLS, Err: "tls=dane is not built in yet"}}
	for _, tc := range []struct {
		name, id, title string
		outcome         deliver.Outcome
	}{
		{"all mail", "route/*", "The entry routes:3: * of the routing file cannot be used as it stands", dane("*", "a@b.example")},
		{"a domain", "route/*@b.example", "The entry routes:3: *@b.example of the routing file cannot be used as it stands", dane("*@b.example", "a@b.example")},
		{"no hops", "route/direct", "The route direct cannot be used as it stands", noHops},
		{"an address of the other family", "route/b.example", "Mail for b.example cannot be sent as the routing file says", source},
		{"a smarthost's address of the other family", "smarthost/mail.isp.example/route", "The smarthost mail.isp.example cannot be used as the routing file says", ispSource},
		{"a smarthost with DANE", "smarthost/mail.isp.example/route", "The smarthost mail.isp.example cannot be used as the routing file says", ispDANE},
		{"a smarthost that wants a login", "smarthost/mail.isp.example/refusal/unknown", "The smarthost mail.isp.example refuses our mail", wantsLogin},
		{"hidden by a later hop", "route/*", "The entry routes:7: * of the routing file cannot be used as it stands", fallback},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var r relaycheck.Refusals
			r.Observe(message("m"), tc.outcome)
			findings := told(&r)
			wellFormed(t, findings)
			require.Equal(t, []string{tc.id}, ids(findings))
			assert.Equal(t, relaycheck.Serious, findings[0].Severity)
			assert.Equal(t, tc.title, findings[0].Title)
			r.Observe(message("m"), tc.outcome)
			assert.Equal(t, relaycheck.Serious, told(&r)[0].Severity)

			ok := success("c@other.example", "mx.other.example")
			r.Observe(message("m"), ok)
			assert.Equal(t, relaycheck.Serious, told(&r)[0].Severity, "mail of another way says nothing")
			ok = success(tc.outcome.Recipient, "mx.b.example")
			ok.Route = tc.outcome.Route
			if tc.outcome.Hop.Kind == route.Smarthost && tc.outcome.Result == deliver.TempFail {
				ok = through(ok, tc.outcome.Hop.Host)
			}
			r.Observe(message("m"), ok)
			f := told(&r)[0]
			assert.Equal(t, relaycheck.Info, f.Severity, f.Title)
		})
	}
}

// Names that get no answer one by one, while mail goes elsewhere in between, are their own matter.
func TestRefusalsDNSOfDomains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r relaycheck.Refusals
		failed := func(domain, detail string) deliver.Outcome {
			return deliver.Outcome{Recipient: "a@" + domain, Status: "4.4.3", Stage: deliver.StageRoute, Detail: "the MX records of " + domain + " could not be looked up: " + detail}
		}
		for range 20 {
			observe(&r, 1, failed("one.example", "server 192.0.2.53:53: SERVFAIL"))
			observe(&r, 1, success("you@fine.example", "mx.fine.example"))
			observe(&r, 1, failed("two.example", "server 192.0.2.53:53: no answer within 5s over udp"))
			observe(&r, 1, success("you@fine.example", "mx.fine.example"))
			assert.Empty(t, told(&r))
		}
		for range 20 {
			observe(&r, 1, failed("loop.example", "CNAME loop at loop.example"))
			observe(&r, 1, failed("cut.example", "context canceled"))
		}
		assert.Empty(t, told(&r))
		start := time.Now()
		observe(&r, 1, failed("one.example", "server 192.0.2.53:53: SERVFAIL"))
		observe(&r, 1, failed("two.example", "server 192.0.2.53:53: SERVFAIL"))
		f := find(t, told(&r), "dns/no-answer")
		assert.Equal(t, relaycheck.Critical, f.Severity)
		assert.Equal(t, start.Add(time.Minute), f.Last)
		observe(&r, 1, success("you@[192.0.2.7]", "[192.0.2.7]"))
		f = find(t, told(&r), "dns/no-answer")
		assert.Equal(t, relaycheck.Serious, f.Severity, "mail to an address asks no DNS, and leaves")
	})
}

// A smarthost that works again ends its trouble; one that works without encryption does not end that of encryption.
func TestRefusalsSmarthostEnds(t *testing.T) {
	var r relaycheck.Refusals
	login := through(deliver.Outcome{Recipient: "a@b.example", Host: "mail.isp.example", Stage: deliver.StageAuth, RouteTrouble: true}, "mail.isp.example")
	noTLS := login
	noTLS.Stage, noTLS.RouteTrouble = deliver.StageTLS, false
	r.Observe(message("m"), login)
	r.Observe(message("m"), noTLS)
	ok := through(success("a@b.example", "mail.isp.example"), "mail.isp.example")
	r.Observe(message("m"), ok)
	assert.Equal(t, relaycheck.Info, find(t, told(&r), "smarthost/mail.isp.example/login").Severity)
	assert.Equal(t, relaycheck.Serious, find(t, told(&r), "smarthost/mail.isp.example/tls").Severity)
	ok.TLS.Version = "TLS 1.3"
	r.Observe(message("m"), ok)
	assert.Equal(t, relaycheck.Info, find(t, told(&r), "smarthost/mail.isp.example/tls").Severity)
}

// Where nobody can be reached any more, the one reason is told and not each of its effects.
func TestRefusalsWayOutBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r relaycheck.Refusals
		lost := func(domain string) deliver.Outcome {
			return deliver.Outcome{Recipient: "a@" + domain, Host: "mx." + domain, Stage: deliver.StageConnect, Detail: "no connection: timed out"}
		}
		observe(&r, 1, success("a@fine.example", "mx.fine.example"))
		observe(&r, 2, lost("one.example"))
		assert.Empty(t, told(&r))
		observe(&r, 10, lost("one.example"))
		assert.Equal(t, []string{"unreachable/one.example"}, ids(told(&r)))
		observe(&r, 12, lost("two.example"))
		require.Equal(t, []string{"unreachable/port-25"}, ids(told(&r)))
		assert.Equal(t, relaycheck.Serious, told(&r)[0].Severity)
		observe(&r, 12, lost("three.example"))
		findings := told(&r)
		wellFormed(t, findings)
		require.Equal(t, []string{"unreachable/port-25"}, ids(findings))
		assert.Equal(t, relaycheck.Critical, findings[0].Severity)
		assert.Equal(t, 36, findings[0].Count)
		observe(&r, 1, success("a@fine.example", "mx.fine.example"))
		assert.Len(t, told(&r), 3, "one that can be reached: the others are down for themselves")
	})
}

func TestRefusalsBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relaycheck.Refusals{Entries: 10}
		observe(&r, 1, aol("you@aol.com"))
		observe(&r, 1, refusal("a@over.example", "mx.over.example", blocked, "550 no"))
		observe(&r, 1, success("a@over.example", "mx.over.example"))
		for i := range 8 {
			d := fmt.Sprintf("d%d.example", i)
			observe(&r, 1, refusal("a@"+d, "mx."+d, blocked, "550 no"))
		}
		observe(&r, 1, refusal("a@next.example", "mx.next.example", blocked, "550 no"))
		assert.Len(t, told(&r), 10)
		find(t, told(&r), "refusal/yahoodns.net/open-relay") // what was over went first
		observe(&r, 1, refusal("a@last.example", "mx.last.example", blocked, "550 no"))
		assert.Len(t, told(&r), 10)
		assert.NotContains(t, ids(told(&r)), "refusal/yahoodns.net/open-relay", "then the oldest")
	})
}

// Whatever others say, texts stay bounded and harmless.
func TestRefusalsHostileWords(t *testing.T) {
	var r relaycheck.Refusals
	lines := make([]string, 100)
	for i := range lines {
		lines[i] = strings.Repeat("x", 1000)
	}
	lines[0] = "5.7.1 \x1b[2J\u202etxt.exe\x00\xff"
	o := aol("you@aol.com")
	o.Reply.Lines = lines
	o.Host = strings.Repeat("h", 10_000) + ".example"
	o.Recipient = "a@" + strings.Repeat("r", 10_000)
	r.Observe(message(strings.Repeat("i", 10_000)), o)
	f := told(&r)[0]
	assert.True(t, strings.HasPrefix(f.Quote.Words, "554-5.7.1  [2J txt.exe ?\n554-xxx"), "%.80q", f.Quote.Words)
	assert.LessOrEqual(t, len(f.Quote.Words), 4096)
	b, err := json.Marshal(f)
	require.NoError(t, err)
	assert.Less(t, len(b), 20_000)
}

func TestRefusalsTellNoSecret(t *testing.T) {
	const password = "correct-horse-battery"
	t.Setenv("RELAY_PASSWORD", password)
	secret, err := route.ReadSecret("env:RELAY_PASSWORD")
	require.NoError(t, err)
	plain := base64.StdEncoding.EncodeToString([]byte("\x00sortie\x00" + password))
	o := through(refusal("a@b.example", "mail.isp.example", reason.Verdict{}, "535-5.7.8 no "+
		""+password+"\n535-"+plain+"\n535 user sortie"), "mail.isp.example")
	o.Hop.User, o.Hop.Secret, o.Stage, o.RouteTrouble, o.Result = "sortie", secret, deliver.StageAuth, true, deliver.TempFail
	var r relaycheck.Refusals
	r.Observe(message("m"), o)
	o.Reply, o.Detail, o.Hop.Host = dsn.Reply{}, "the login of sortie did not end: "+password, "other.example"
	r.Observe(message("m"), o)
	s := relaycheck.Summarize("mail.example.org", time.Now(), told(&r)...)
	b, err := json.Marshal(s)
	require.NoError(t, err)
	for _, text := range []string{s.String(), string(b)} {
		assert.NotContains(t, text, password)
		assert.NotContains(t, text, plain)
		assert.NotContains(t, text, "sortie")
		assert.NotContains(t, text, "RELAY_PASSWORD")
		assert.Contains(t, text, "535-5.7.8 no ***")
	}
}

func TestRefusalsConcurrently(t *testing.T) {
	r := relaycheck.Refusals{Entries: 20}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				d := fmt.Sprintf("d%d.example", (g+i)%40)
				r.Observe(message("m"), refusal("a@"+d, "mx."+d, blocked, "550 no"))
				if i%10 == 0 {
					r.Observe(message("m"), success("a@"+d, "mx."+d))
					assert.LessOrEqual(t, len(told(&r)), 20)
				}
			}
		})
	}
	wg.Wait()
}

func FuzzObserve(f *testing.F) {
	f.Add("you@aol.com", "mx.yahoodns.net", "554 5.7.1 no", "rcpt", uint8(0))
	f.Add("a@b.example", "mx.b.example", "554 no", "*@b.example", uint8(3))
	f.Add("a@b.example", "mx.b.example", "no answer", "a@b.example", uint8(16))
	f.Add("a@b", "[192.0.2.1]", "451-\x1b[2J\r\n451 \u202e", "starttls", uint8(3))
	f.Fuzz(func(t *testing.T, recipient, host, reply, stage string, kind uint8) {
		r := relaycheck.Refusals{}
		o := deliver.Outcome{Recipient: recipient, Host: host, Stage: deliver.Stage(stage), Detail: reply, Result: deliver.Result(kind % 6), Reason: blocked}
		o.Reply, _ = dsn.ParseReply(reply)
		o.Hop.Kind, o.Hop.Host, o.RouteTrouble = route.Kind(kind%5), host, kind&8 != 0
		o.Tried = []deliver.Try{{Host: host, Stage: o.Stage, Reply: o.Reply, Reason: blocked, Err: reply}}
		o.Route = route.Route{Pattern: stage, File: reply, Line: 1}
		if kind&16 != 0 {
			o.Reply, o.Stage, o.Status = dsn.Reply{}, deliver.StageRoute, "4.4.3"
		}
		for range 20 {
			r.Observe(message(reply), o)
		}
		findings := told(&r)
		wellFormed(t, findings)
		for _, finding := range findings {
			for _, step := range finding.Remedy {
				_, err := route.Parse("routes", strings.NewReader(strings.Join(step.Lines, "\n")))
				assert.NoError(t, err)
			}
		}
		for _, c := range relaycheck.Summarize("host", time.Now(), findings...).String() {
			assert.False(t, c != '\n' && (c < ' ' || c == 0x7f || c == 0x202e), "%q", c)
		}
	})
}
