package relaycheck_test

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/dsn/reason"
	"github.com/sortie-mail/sortie/relaycheck"
)

// A policy that trusts the local network, with a slip in its mask.
func ExampleAuditPolicy() {
	policy := &relaycheck.Policy{Rules: []relaycheck.Rule{
		{Action: relaycheck.Allow, Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
		{Action: relaycheck.Allow, Networks: []netip.Prefix{netip.MustParsePrefix("192.168.0.0/15")}},
	}}
	for _, f := range relaycheck.AuditPolicy(policy) {
		fmt.Printf("%s: %s\n", f.Severity, f.Title)
		fmt.Println(f.Evidence[0].Text)
		fmt.Println(f.Remedy[0].Do)
	}
	// Output:
	// critical: The network 192.168.0.0/15 reaches beyond the private addresses: strangers can send mail through this server
	// 192.169.0.5 may send from anyone to anyone, by rule 2 (network 192.168.0.0/15)
	// Put the right network in the place of 192.168.0.0/15 in rule 2. The private networks are 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 and fc00::/7.
}

// What a Deliverer sees becomes a summary. Here one outcome stands for many.
func ExampleSummarize() {
	refusals := &relaycheck.Refusals{Smarthost: "smtp://mail.isp.example"}
	d := &deliver.Deliverer{Hostname: "mail.example.org", Trace: &deliver.Trace{Outcome: refusals.Observe}}

	d.Trace.Outcome(&deliver.Message{ID: "4711"}, deliver.Outcome{
		Recipient: "you@aol.com", Result: deliver.PermFail, Host: "mx.aol.com",
		Reply:  dsn.Reply{Code: 554, Lines: []string{"5.7.1 Your IP address is dynamic"}},
		Reason: reason.Verdict{Classes: []reason.Class{reason.DynamicAddress}, Matter: reason.MatterAddress, Confidence: 0.9},
	})

	summary := relaycheck.Summarize("mail.example.org", time.Now(), refusals.Findings()...)
	fmt.Println(summary.Severity, summary.Findings[0].Title)
	fmt.Println(summary.Findings[0].Quote.Words)
	fmt.Println(summary.First[0].Lines[0])
	// Output:
	// serious aol.com refuses our mail
	// 554 5.7.1 Your IP address is dynamic
	// *@aol.com smtp://mail.isp.example
}
