// Package reason says why a server refused a message, from the words of its reply: whose matter it is, whether trying again
// helps, what the sender and the administrator can do, and where to read more.
//
//	v := reason.Classify(reason.Input{Reply: reply, Stage: "rcpt", Host: "mx.example.com", Site: "example.com"})
//	fmt.Println(v.Class(), v.Sender) // "mailbox-full", and a sentence in plain words
//	if v.Blocked() {
//		// the refusal is about our address: take another way
//	}
//
// The types to know are [Input], a reply and where it came; [Verdict], why; [Class], the fixed names of the reasons; and [Rules],
// which lead from one to the other. A nil *Rules is the embedded rules.
//
// # Rules
//
// The rules are data: the file rules.txt, whose format is described at its top, and in which each rule is a line that a
// person can read. Verdict.Rule names the line that decided. Hosts write rules of their own, which decide before the
// embedded ones, and read them with [ReadFile] or [Parse]:
//
//	# Our partner's gateway.
//	greylisted     site=partner.example "not now, thank you"
//	policy         site=partner.example code=5xx "ask (bob|ann) first" confidence=0.8
//
//	class greylisted
//		sender  The recipient's server wants us to come again. That is done for you.
//
//	list "Partner's list"
//		words   "partner blackhole"
//		link    https://partner.example/removal Partner: removal from the list
//
// # What decides
//
// The words of a reply decide before its codes: servers put 5.1.1 on blocks and 5.7.1 on everything. Where no words are known
// the enhanced status code and the reply code are taken as hints, with little confidence. Addresses in the text, the names
// of hosts and URLs do not count as words: a link to a blocklist in "user unknown" does not make it a block. A verdict has
// several classes where the words leave several possibilities.
//
// The work for one reply is bounded, whatever the far end sends: its first 4 KiB and 511 words are read, and all phrases of
// the rules that share a word with it are looked for by their positions, without backtracking.
package reason
