package relaycheck_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/dsn/reason"
	"github.com/sortie-mail/sortie/relaycheck"
)

// aDay is what a server sees on a bad day.
func aDay(t *testing.T) *relaycheck.Refusals {
	r := &relaycheck.Refusals{}
	observe(r, 12, aol("you@aol.com"))
	login := through(refusal("me@corp.example", "mail.isp.example", reason.Verdict{}, "535 5.7.8 Authentication "+
		"failed"), "mail.isp.example")
	login.Stage, login.RouteTrouble, login.Result = deliver.StageAuth, true, deliver.TempFail
	observe(r, 2, login)
	observe(r, 10, deliver.Outcome{
		Recipient: "a@slow.example", Host: "mx.slow.example", Stage: deliver.StageConnect, Detail: "no connection: connection timed out",
	})
	old := refusal("a@better.example", "mx.better.example", reason.Verdict{
		Classes: []reason.Class{reason.Blocklisted}, Matter: reason.MatterAddress, Confidence: 0.9, List: "zen.example",
	}, "550-5.7.1 Service unavailable;\n550 5.7.1 listed at zen.example")
	observe(r, 1, old)
	observe(r, 1, success("a@better.example", "mx.better.example"))
	return r
}

func TestSummaryGolden(t *testing.T) {
	closed := policy(allow("127.0.0.0/8", "::1/128"), relaycheck.Rule{Action: relaycheck.Allow, Auth: true, TLS: true})
	for _, tc := range []struct {
		name     string
		findings func(*testing.T) []relaycheck.Finding
	}{
		{"bad-day", func(t *testing.T) []relaycheck.Finding {
			return append(relaycheck.AuditPolicy(closed), aDay(t).Findings()...)
		}},
		{"open", func(t *testing.T) []relaycheck.Finding {
			return append(aDay(t).Findings(), relaycheck.AuditPolicy(policy(allow("127.0.0.0/8", "0.0.0.0/0")))...)
		}},
		{"fine", func(*testing.T) []relaycheck.Finding { return relaycheck.AuditPolicy(closed) }},
		{"nothing", func(*testing.T) []relaycheck.Finding { return nil }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				findings := tc.findings(t)
				s := relaycheck.Summarize("mail.example.org", time.Now(), findings...)
				wellFormed(t, s.Findings)
				golden(t, tc.name+".txt", s.String())
				b, err := json.MarshalIndent(s, "", "  ")
				require.NoError(t, err)
				golden(t, tc.name+".json", string(b)+"\n")

				var back relaycheck.Summary
				require.NoError(t, json.Unmarshal(b, &back))
				assert.Equal(t, s.String(), back.String(), "JSON carries all of it")
				var w bytes.Buffer
				require.NoError(t, s.WriteText(&w))
				assert.Equal(t, s.String(), w.String())
			})
		})
	}
}

// A summary says since when it knows anything of deliveries: with nothing seen, "no problem" means little.
func TestSummarySince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		of := func(r *relaycheck.Refusals) relaycheck.Summary {
			return relaycheck.Summarize("mail.example.org", time.Now(), r.Findings()...)
		}
		var unused, used relaycheck.Refusals
		told := relaycheck.Refusals{Since: start.Add(-time.Hour)}
		s := of(&unused)
		assert.Equal(t, start, s.Since)
		assert.Empty(t, s.Findings)
		assert.Contains(t, s.String(), "as of 1 Jan 2000, 00:00 UTC\nwith the deliveries seen since 1 Jan 2000, 00:00 UTC\n")
		assert.Contains(t, s.String(), "Nothing needs doing.\n  What became of mail before 1 Jan 2000, 00:00 UTC is not known here.\n")
		observe(&used, 1, aol("you@aol.com"))
		observe(&told, 1, aol("you@aol.com"))
		time.Sleep(time.Hour)
		assert.Equal(t, start, of(&unused).Since)
		assert.Equal(t, start, of(&used).Since)
		assert.Equal(t, start.Add(-time.Hour), of(&told).Since)
		f := find(t, used.Findings(), "deliveries/since")
		assert.Equal(t, relaycheck.Info, f.Severity)
		assert.Equal(t, "Deliveries were seen since 1 Jan 2000, 00:00 UTC", f.Title)
		assert.Zero(t, relaycheck.Summarize("mail.example.org", time.Now()).Since)
	})
}

// What the server's own rules tell stands behind the refusal.
func TestSummarizeCombines(t *testing.T) {
	known := func(p *relaycheck.Policy) ([]string, relaycheck.Summary) {
		var r relaycheck.Refusals
		r.Observe(message("m"), aol("you@aol.com"))
		s := relaycheck.Summarize("mail.example.org", time.Now(), append(relaycheck.AuditPolicy(p), r.Findings()...)...)
		return find(t, s.Findings, "refusal/yahoodns.net/open-relay").Possibilities[0].Known, s
	}
	text, s := known(policy(allow("127.0.0.0/8")))
	assert.Equal(t, []string{"Your own relay policy gives strangers nothing: an open relay is not the cause, by its own rules."}, text)
	assert.Contains(t, s.First[0].Do, "Meanwhile, route the mail for aol.com through your ISP")

	text, s = known(policy(allow("0.0.0.0/0")))
	require.Len(t, text, 1)
	assert.Contains(t, text[0], "Your own relay policy lets strangers send: 203.0.113.5 may send from anyone to anyone")
	assert.Contains(t, s.First[0].Do, "Take 0.0.0.0/0 out of rule 1")
	assert.Contains(t, s.First[1].Do, "Meanwhile")

	proxied := policy(allow("172.16.0.0/12"))
	proxied.Server.FrontEnds = networks("172.17.0.1/32")
	text, s = known(proxied)
	assert.Contains(t, text[0], "Your relay policy trusts the address of a front end")
	assert.Contains(t, s.First[0].Do, "Have the front end tell", "what is behind it comes first, though it is less severe")
	assert.Contains(t, s.First[1].Do, "Meanwhile")

	var r relaycheck.Refusals
	r.Observe(message("m"), aol("you@aol.com"))
	findings := r.Findings()
	relaycheck.Summarize("mail.example.org", time.Now(), append(relaycheck.AuditPolicy(policy()), findings...)...)
	assert.Empty(t, findings[0].Possibilities[0].Known, "findings are not changed")
}

// Any check can join in with findings and clues of its own.
func TestSummarizeOtherChecks(t *testing.T) {
	var r relaycheck.Refusals
	r.Observe(message("m"), aol("you@aol.com"))
	dns := relaycheck.Finding{
		ID: "dns/dynamic-name", Severity: relaycheck.Warning, Title: "The server's name looks dynamic", Text: "It does.",
		Clues:  []relaycheck.Clue{{Class: reason.DynamicAddress, Confirms: true, Text: "The server's name in DNS is that of a home."}},
		Remedy: []relaycheck.Step{{Who: "you", Do: "Ask for another name."}},
	}
	s := relaycheck.Summarize("mail.example.org", time.Now(), append(r.Findings(), dns)...)
	assert.Equal(t, relaycheck.Serious, s.Severity)
	assert.Equal(t, dns.Clues[0].Text, s.Findings[0].Possibilities[2].Known[0])
	assert.Equal(t, dns.Remedy[0], s.First[0])
	again := relaycheck.Summarize("mail.example.org", time.Now(), s.Findings...)
	assert.Len(t, again.Findings[0].Possibilities[2].Known, 1, "a summary of a summary says nothing twice")
}

func TestSummaryTextHarmless(t *testing.T) {
	hostile := "a\x1b[31mb\u202ec\r\nd"
	f := relaycheck.Finding{
		ID: hostile, Severity: relaycheck.Serious, Title: hostile, Text: hostile, Quote: &relaycheck.Quote{By: hostile, Words: hostile},
		Evidence: []relaycheck.Evidence{{Label: hostile, Text: hostile}}, Links: []reason.Link{{Title: hostile, URL: hostile}},
		Possibilities: []relaycheck.Possibility{{Title: hostile, Text: hostile, Known: []string{hostile}}},
		Remedy:        []relaycheck.Step{{Who: hostile, Do: hostile, Lines: []string{hostile}}},
	}
	text := relaycheck.Summarize(hostile, time.Now(), f).String()
	assert.NotContains(t, text, "\x1b")
	assert.NotContains(t, text, "\u202e")
	assert.NotContains(t, text, "\r")
	for line := range strings.Lines(text) {
		assert.LessOrEqual(t, len(line), 80)
	}
}

func TestSeverity(t *testing.T) {
	for s := relaycheck.OK; s <= relaycheck.Critical; s++ {
		b, err := s.MarshalText()
		require.NoError(t, err)
		var back relaycheck.Severity
		require.NoError(t, back.UnmarshalText(b))
		assert.Equal(t, s, back)
		assert.Equal(t, s.String(), string(b))
	}
	var s relaycheck.Severity
	assert.ErrorContains(t, s.UnmarshalText([]byte("grave")), "ok, info, warning, serious, critical")
	_, err := relaycheck.Severity(9).MarshalText()
	assert.Error(t, err)
	assert.Equal(t, "Severity(9)", relaycheck.Severity(9).String())
}

// Nobody is told that nothing needs doing while something does, and whose turn it is reads like a sentence.
func TestSummaryFirst(t *testing.T) {
	text := func(f relaycheck.Finding) string {
		return relaycheck.Summarize("mail.example.org", time.Now(), f).String()
	}
	for severity := relaycheck.OK; severity <= relaycheck.Critical; severity++ {
		f := relaycheck.Finding{ID: "disk/full", Severity: severity, Title: "The disk is full", Text: "It is."}
		s := relaycheck.Summarize("mail.example.org", time.Now(), f)
		byHand := relaycheck.Summary{Host: "mail.example.org", Findings: s.Findings}
		for _, text := range []string{s.String(), byHand.String()} {
			assert.Equal(t, severity < relaycheck.Warning, strings.Contains(text, "Nothing needs doing."), text)
			assert.Contains(t, text, "\n  id: disk/full\n")
		}
		if severity >= relaycheck.Warning {
			assert.Equal(t, []relaycheck.Step{{Who: "you", Do: "Look into this: The disk is full."}}, s.First)
		}
		f.Remedy = []relaycheck.Step{{Who: "you", Do: "Delete something."}, {Who: "the owner of aol.com", Do: "buys another."}}
		assert.Contains(t, text(f), "  1. Delete something.\n  2. The owner of aol.com buys another.\n")
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("no room") }

func TestWriteTextTellsErrors(t *testing.T) {
	assert.ErrorContains(t, relaycheck.Summary{}.WriteText(brokenWriter{}), "no room")
}
