// Package queue keeps outgoing mail safe until it has arrived or its sender knows that it will not.
//
// The types to know are [Queue], which keeps messages; package disk and package memory implement it; [Envelope], what is
// enqueued beside a message; [Runner], which takes mail out, has it routed and delivered, tries again on its [Schedule], and
// reports delays and failures to the sender; and [Inspector], through which people look and intervene.
//
//	spool, err := disk.Open("spool")
//	runner := &queue.Runner{Queue: spool, Router: routes, Deliverer: &deliver.Deliverer{Hostname: "mail.example.org"}}
//	go runner.Run(ctx)
//	id, err := spool.Enqueue(ctx, queue.Envelope{From: "me@example.org", To: queue.To("you@aol.com")}, message)
//
// # What it promises
//
// When Enqueue returns without an error the message is durable. From then on each recipient ends in one of two ways: a host
// has taken the message, or its failure is settled, and the report that tells the sender is queued in the same
// step. A crash can make a delivery happen twice, as SMTP allows (RFC 1047), and nothing else.
//
// # Who waits for whom
//
// The unit of work is an entry: one message × one lane, the recipients of one domain. A lane that hangs, is refused or
// waits for its time delays no other. A lane begins with a few attempts at once and earns more with each success.
//
// Lanes whose mail goes to the same MX hosts, or to the same smarthost, share a site, and what the site takes: connections at once, and
// messages in a time, from each source address of ours. Package deliver/shape knows how much that is for the large providers, and learns
// it of all; [Runner.Sites] shows it. Mail that its site has no room for stays in the queue, where it costs nothing. A site
// that cannot be reached is asked by one attempt at a time. What is new for it meanwhile is put off once, without a connection, so that
// its history tells why; the rest stays where it is until the site answers, or until it is time to tell a sender of the delay. When
// the site takes mail again, what waited for it is tried soon, few at first.
//
// Destinations that hang, thousands of them, have three in four of the attempts at most, and one each. A lane that was never tried gets in
// all the same: the attempt that has waited longest for a first answer, for three seconds at least, makes room for it and is made
// again later. A lane that has hung before waits longer, and one whose destination has taken mail has the other attempts.
//
// # Who hears what
//
// The sender hears of a failure, and once of a delay, unless it asked for something else (RFC 3461, NOTIFY; RFC 2852, BY); of success only
// where it asked and nobody further on reports it. All recipients that end together are in one report, thousands of them in several. Reports have
// the null sender, and nothing is ever reported about them (RFC 5321, section 6.1).
//
// A server that refuses our own address (an open relay, a blocklist, a dynamic address: package dsn/reason tells) says
// nothing about the recipient. Such mail waits even where the refusal is permanent: for the address to be delisted,
// for a new route ([Runner.Reroute]), or for the end of its lifetime. [Runner.BounceBlocked] turns that off.
//
// # What it remembers
//
// A message with an [Envelope.Key] is enqueued once, however often its host has to ask. An address that a host or DNS refuses for good
// because there is nobody is remembered for [Runner.SuppressFor], and refused without a connection until then: see [Suppress]. Both are
// notes, which hosts can keep too: see [Notebook].
package queue
