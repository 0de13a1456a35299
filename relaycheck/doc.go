// Package relaycheck tells an administrator whether the mail server is in order, and what to do where it is not: whether
// strangers can send mail through it, who refuses its mail and in which words, and what that means.
//
// The types to know are [Finding], one thing to know; [Summary], all of them, the worst first, with what to do first;
// [Policy], who may relay, which [AuditPolicy] goes through; and [Refusals], which takes note of what other servers
// say while mail is delivered.
//
//	refusals := &relaycheck.Refusals{Smarthost: "smtp://mail.isp.example", Since: time.Now()}
//	d := &deliver.Deliverer{Hostname: "mail.example.org", Trace: &deliver.Trace{Outcome: refusals.Observe}}
//	policy := &relaycheck.Policy{Rules: []relaycheck.Rule{
//		{Action: relaycheck.Allow, Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
//		{Action: relaycheck.Allow, Auth: true, TLS: true},
//	}}
//	…
//	findings := append(relaycheck.AuditPolicy(policy), refusals.Findings()...)
//	fmt.Print(relaycheck.Summarize("mail.example.org", time.Now(), findings...))
//
// A host whose rules are code and not a Policy has [AuditFunc], which tries strangers.
//
// # Findings
//
// Whatever looks at a server tells what it sees as findings, and a summary is made of findings wherever they come from. The id
// names the matter for good, so that two summaries can be compared: the kind of check, then what it is about. The texts are
// for people who have never heard of SMTP; they are plain, without markup, and safe to show: control characters of
// other servers' words are gone, what they say is bounded, and credentials are not in them.
//
// Findings know of each other by possibilities and clues. A refusal leaves possibilities ("an open relay", "a dynamic
// address"), each named by its [reason.Class]; a check that can tell something about one gives a clue of the same class; and
// [Summarize] puts the clue behind the possibility.
//
// # JSON
//
// The JSON of a Summary has the fields that are documented at the types. Severities are their names ("ok", "info", "warning",
// "serious", "critical"), times are RFC 3339, and fields that are empty are left out.
package relaycheck
