package main

import (
	"slices"
	"strings"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/dsn/reason"
)

// The exit codes of sysexits.h. What each means here is in the text that -h gives.
const (
	exOK          = 0
	exUsage       = 64
	exDataErr     = 65
	exNoUser      = 67
	exNoHost      = 68
	exUnavailable = 69
	exCantCreate  = 73
	exIOErr       = 74
	exTempFail    = 75
	exProtocol    = 76
	exNoPerm      = 77
	exConfig      = 78
)

// byClass is the exit code of a refusal whose words say why.
var byClass = map[reason.Class]int{
	reason.UserUnknown: exNoUser, reason.MailboxDisabled: exNoUser, reason.Suspended: exNoUser, reason.HasMoved: exNoUser,
	reason.HostUnknown: exNoHost, reason.NoMailHere: exNoHost,
	reason.MessageTooBig: exDataErr, reason.Content: exDataErr, reason.Virus: exDataErr, reason.NotCompliant: exDataErr,
	reason.SenderRefused: exNoPerm, reason.RelayingDenied: exNoPerm, reason.OpenRelay: exNoPerm, reason.OpenProxy: exNoPerm,
	reason.DynamicAddress: exNoPerm, reason.Blocklisted: exNoPerm, reason.BadReputation: exNoPerm, reason.ReverseDNS: exNoPerm,
	reason.Spam: exNoPerm, reason.Policy: exNoPerm, reason.AuthenticationFailed: exNoPerm, reason.AuthRequired: exNoPerm,
	reason.TLSRequired: exNoPerm, reason.Security: exNoPerm, reason.Filtered: exNoPerm,
	reason.Syntax: exProtocol, reason.MailLoop: exConfig,
}

// byStatus is the exit code of a permanent failure by its enhanced status (RFC 3463): the first one that begins it.
var byStatus = []struct {
	status string
	code   int
}{
	{"5.1.10", exNoHost}, // null MX (RFC 7505)
	{"5.1.2", exNoHost},
	{"5.1.7", exNoPerm}, // the sender's address
	{"5.1.8", exNoPerm},
	{"5.1.", exNoUser},
	{"5.2.1", exNoUser}, // mailbox disabled
	{"5.2.3", exDataErr},
	{"5.3.4", exDataErr}, // message too big
	{"5.4.4", exNoHost},  // no way there
	{"5.4.6", exConfig},  // loop
	{"5.5.", exProtocol},
	{"5.6.", exDataErr},
	{"5.7.", exNoPerm},
	{"5.", exUnavailable},
}

// exitOf is the exit code of one recipient.
func exitOf(o *deliver.Outcome) int {
	switch {
	case o.Result.Success(), o.Result == deliver.Discarded:
		return exOK
	case o.Result == deliver.Held:
		return exTempFail
	case !o.Reply.IsZero() && o.Result == deliver.PermFail && byClass[o.Reason.Class()] != 0:
		return byClass[o.Reason.Class()]
	}
	return exitOfStatus(o.Status, o.Stage, o.RouteTrouble, !o.Reply.IsZero())
}

// passing are the statuses of what ends by itself: no connection, a connection that broke, and DNS that did not answer. A
// route that meets them may be a good one.
var passing = []dsn.Status{"4.4.1", "4.4.2", "4.4.3"}

// exitOfStatus is the exit code of a failure.
func exitOfStatus(status dsn.Status, stage deliver.Stage, routeTrouble, answered bool) int {
	switch {
	case routeTrouble && stage == deliver.StageAuth:
		return exNoPerm
	case routeTrouble && slices.Contains(passing, status):
		return exTempFail
	case routeTrouble:
		return exConfig
	case status == "4.5.0":
		return exProtocol
	case !answered && (status == "5.1.3" || status == "5.1.7"): // an address that cannot stand in a command
		return exUsage
	}
	for _, by := range byStatus {
		if strings.HasPrefix(string(status), by.status) {
			return by.code
		}
	}
	return exTempFail
}

// worst is the exit code of several recipients: what no retry mends, then what one may mend, then success. Of two that weigh
// the same it is the first.
func worst(a, b int) int {
	weight := map[int]int{exOK: -2, exTempFail: -1}
	if weight[b] > weight[a] {
		return b
	}
	return a
}
