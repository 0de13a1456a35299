// Package dsn writes and reads delivery status notifications: the mail that tells a sender what became of a message (RFC 3461
// to 3464, RFC 6522, RFC 6533). It needs no queue and no mail server.
//
// The types to know are [Report], what became of one message for some of its recipients; [Builder], which writes a Report
// as mail that people and programs understand; and the function [Parse], which reads such mail of any mail system back into a
// Report. [Status], [Reply], [Notify], [Return] and [Action] are the words of it, which the rest of Sortie uses too.
//
//	report := &dsn.Report{
//		ReportingMTA: "mail.example.org",
//		To:           "me@example.org",
//		Recipients: []dsn.Recipient{{
//			Final:      dsn.Address{Type: "rfc822", Addr: "you@aol.com"},
//			Action:     dsn.Failed,
//			Status:     "5.1.1",
//			RemoteMTA:  "mx.aol.com",
//			Diagnostic: dsn.Reply{Code: 550, Lines: []string{"5.1.1 There is nobody of that name here"}},
//		}},
//		Original: message,
//	}
//	mail, err := new(dsn.Builder).Build(report) // to be sent to report.To, from the null sender
//
//	report, err := dsn.Parse(bytes.NewReader(mail))
//
// # What a report is made of
//
// The mail is a multipart/report of three parts. The first is text for people: what happened, to whom, what the remote server
// said in its own words and which server it was, what the reader can do, and until when delivery goes on being
// tried. Its words are templates, see [Templates]. The second part has the same for programs, and is what Parse reads. The
// third is the original message, or its header section alone.
//
// What Parse reads of a report that Builder wrote equals what was in it, with the exceptions that [Builder.Build] names. The
// original comes back octet for octet.
//
// # Text from strangers
//
// Replies of remote servers, names in DNS and addresses are text from strangers. In a report their control characters
// become spaces, what is too long is cut and says so, and nothing of it can begin or end a field or a part. There is no
// HTML. Parse reads no more than [MaxSize] octets, does not panic on anything, and hands out
// valid UTF-8 without control characters; only Original is as it came.
package dsn
