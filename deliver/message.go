package deliver

import (
	"io"

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
