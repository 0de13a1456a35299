package deliver

import (
	"io"
	"time"

	"github.com/sortie-mail/sortie/dsn"
)

// A Message is what one attempt sends: an envelope, and a body that can be opened again for every host that is
// tried.
type Message struct {
	ID         string // names the message in logs, trace and transcript
	From       string // reverse-path without angle brackets; "" is the null sender
	To         []Recipient
	EnvelopeID string     // ENVID, decoded (RFC 3461, section 4.4)
	Return     dsn.Return // RET
	UTF8       bool       // SMTPUTF8 was asked for on submission (RFC 6531)
	Binary     bool       // BODY=BINARYMIME was (RFC 3030): lines mean nothing, and only CHUNKING may carry it
	RequireTLS bool       // REQUIRETLS was (RFC 8689): to hosts with verified TLS that promise the same, or not at all
	Priority   int        // MT-PRIORITY, -9 to 9 (RFC 6710)
	DeliverBy  DeliverBy  // BY; zero is no limit

	// Size is the length of the message in octets as Open gives it.
	Size int64
	// Open gives the message from its first octet, with CRLF or LF line ends. It is called once for each
	// transaction and may be called concurrently.
	Open func() (io.ReadCloser, error)
}

// A Recipient is one forward-path with what its sender asked to hear about it (RFC 3461).
type Recipient struct {
	Address  string      `json:"address"`           // without angle brackets; the local part is kept byte for byte
	Notify   dsn.Notify  `json:"notify,omitempty"`  // NOTIFY
	Original dsn.Address `json:"original,omitzero"` // ORCPT
}

// DeliverBy is until when a message is of use (RFC 2852).
type DeliverBy struct {
	Time   time.Time `json:"time,omitzero"`    // the zero time is no limit
	Notify bool      `json:"notify,omitempty"` // by-mode N: a late message goes on, and its sender hears of it; otherwise R, and it comes back
	Trace  bool      `json:"trace,omitempty"`  // by-trace: every host that passes it on is to say so
}
