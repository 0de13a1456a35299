package deliver

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/route"
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

	// Size is the length of the message in octets as Open gives it, 0 where it is not known. A message that turns out to be
	// shorter has lost something, and is not sent.
	Size int64
	// Open gives the message from its first octet, with CRLF or LF line ends. It is called once for each
	// transaction and may be called concurrently. A message that is longer or shorter than the first time is not sent.
	Open func() (io.ReadCloser, error)

	known    survey
	surveyed bool   // known is known
	text     []byte // all of a small message
	whole    bool   // text is
}

// smallMessage is up to which size a message is kept in memory while it is sent, so that it need not be opened again.
const smallMessage = blockSize

// survey looks into the message, once.
func (m *Message) survey() (*survey, *Error) {
	if m.surveyed {
		return &m.known, nil
	}
	if m.Open == nil {
		return nil, localErr(StageMail, errors.New("Message.Open is nil"))
	}
	r, err := m.Open()
	if err != nil {
		return nil, localErr(StageMail, err)
	}
	defer r.Close()
	if m.known, err = m.look(r); err == nil && m.known.size < m.Size {
		err = fmt.Errorf("it has %d octets, and should have %d", m.known.size, m.Size)
	}
	if err != nil {
		return nil, localErr(StageMail, err)
	}
	m.surveyed = true
	return &m.known, nil
}

func (m *Message) look(r io.Reader) (survey, error) {
	if m.Size <= 0 || m.Size > smallMessage {
		return surveyOf(r)
	}
	text := make([]byte, m.Size+1)
	switch n, err := fill(r, text); err {
	case io.EOF:
		m.text, m.whole = text[:n], true
		return surveyOfAll(m.text), nil
	case nil: // it is larger than it should be
		return surveyOf(io.MultiReader(bytes.NewReader(text), r))
	default:
		return survey{}, err
	}
}

// tlsMode is what a hop and the message together ask of TLS. A sender who asks for REQUIRETLS wants verified TLS on every
// way (RFC 8689, section 4.2.1); one whose header says "TLS-Required: No" wants his mail to arrive rather than be protected
// by what the recipient's domain has published, which is DANE (section 5). What the route itself says stays.
func (m *Message) tlsMode(hop *route.Hop) route.TLSMode {
	mode := hop.Mode()
	switch {
	case hop.IsUnix():
		return mode
	case m.insistsOnTLS():
		return max(mode, route.TLSVerified)
	case mode == route.TLSDANE:
		if known, e := m.survey(); e == nil && known.tlsOptional {
			return route.TLSOpportunistic
		}
	}
	return mode
}

// insistsOnTLS reports whether the message is rather not sent than without REQUIRETLS. One of the null sender asks for it where it
// is offered, and must not be lost because it is not (RFC 8689, section 5).
func (m *Message) insistsOnTLS() bool { return m.RequireTLS && m.From != "" }

// open opens the message as a host with such needs can take it.
func (m *Message) open(n need) (io.ReadCloser, *Error) {
	r, err := m.known.convert(m.same, n)
	switch {
	case err == nil:
		return r, nil
	case err.status == "":
		return nil, localErr(StageMail, err)
	}
	return nil, lackErr(err.status, "%w", err)
}

// same opens the message as it was when it was looked into.
func (m *Message) same() (io.ReadCloser, error) {
	r, err := m.Open()
	if err != nil {
		return nil, err
	}
	return &sameSize{r, m.known.size}, nil
}

// A sameSize is a message whose end must come when it should: half of one is not sent for the whole.
type sameSize struct {
	io.ReadCloser
	left int64
}

func (s *sameSize) Read(p []byte) (n int, err error) {
	n, err = s.ReadCloser.Read(p)
	if s.left -= int64(n); s.left < 0 || (s.left > 0 && err == io.EOF) {
		err = errChanged
	}
	return n, err
}

var errChanged = errors.New("it is not as long as it was when it was looked into")

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

// seconds is how long it is until then.
func (by *DeliverBy) seconds() int64 { return int64(time.Until(by.Time) / time.Second) }

// String is the value of the BY parameter of MAIL at this moment (RFC 2852, section 4).
func (by DeliverBy) String() string {
	const most = 999_999_999 // RFC 2852, section 4
	s := strconv.FormatInt(min(max(by.seconds(), -most), most), 10) + ";R"
	if by.Notify {
		s = s[:len(s)-1] + "N"
	}
	if by.Trace {
		s += "T"
	}
	return s
}
