package dsn

import "time"

// A Report is one delivery status notification: what became of one message for some of its recipients
// (RFC 3464). [Builder] writes it as mail, [Parse] reads it back.
type Report struct {
	ReportingMTA string    // name of the host that reports; never ""
	EnvelopeID   string    // ENVID of the original, decoded; "" when it had none
	Arrival      time.Time // when the original was accepted
	DeliverBy    time.Time // by when its sender wants it delivered (RFC 2852); the zero time is no wish
	Recipients   []Recipient

	// The letter around it.
	From      string // "Mail Delivery System <MAILER-DAEMON@host>"; "" lets the Builder choose
	To        string // the original's reverse-path, where the report goes; never ""
	Date      time.Time
	MessageID string // without angle brackets; "" lets the Builder choose
	UTF8      bool   // the report may use RFC 6533's global forms: its reader takes SMTPUTF8

	// The original message, byte for byte: whole, or its header section alone.
	Original    []byte
	HeadersOnly bool
}

// A Recipient is the part of a [Report] about one recipient.
type Recipient struct {
	Original    Address // ORCPT, where the sender gave one
	Final       Address // the address that delivery was tried to
	Action      Action
	Status      Status
	RemoteMTA   string // name of the host that answered; "" when none did
	RemoteAddr  string // and its IP address
	Diagnostic  Reply  // what it answered, whole
	Detail      string // what went wrong, in our words, where no host answered: "no MX host could be reached: …"
	LastAttempt time.Time
	RetryUntil  time.Time // delayed only: when we give up
	LogID       string    // Final-Log-ID: the queue's id of the message
	Smarthost   string    // the smarthost that was used, and whom to contact; "" when direct
	Advice      string    // what the reader can do, in one plain sentence; "" lets the Builder choose by the status
}

// An Address is an address with its type: "rfc822;user@example.org" (RFC 3464, section 2.1.2; RFC 6533 for "utf-8").
type Address struct {
	Type string // lower case; "" with an Addr is "rfc822", or "utf-8" where Addr is not ASCII
	Addr string // decoded: no xtext; "" is no address
}
