package lab

import "crypto/tls"

// TLSMode is what a server does about TLS.
type TLSMode uint8

// The TLS modes.
const (
	TLSNone     TLSMode = iota // STARTTLS does not exist
	TLSOffered                 // STARTTLS is offered
	TLSRequired                // STARTTLS is offered, and MAIL without it gets 530 5.7.0 (RFC 3207, section 4)
	TLSBroken                  // STARTTLS is offered, and the handshake fails
	TLSStalled                 // STARTTLS is offered, and the handshake never goes on
	TLSCut                     // STARTTLS is offered, and the connection ends in the handshake
	TLSRefused                 // STARTTLS is offered, and answered 454 4.7.0
	TLSImplicit                // TLS from the first octet (RFC 8314, section 3.3)
)

// An Offer is what a server offers and demands: a Behaviour like others, to be given to [Internet.Server] or
// [Server.Behave]. The zero value offers DefaultCapabilities, no TLS and no AUTH. Of several Offers the first wins.
type Offer struct {
	// Capabilities are the lines of the reply to EHLO, without STARTTLS and AUTH, which the fields below add.
	// Default: DefaultCapabilities; an empty slice that is not nil offers none. What they promise is kept: "SIZE 1000",
	// "DELIVERBY 60" and "LIMITS RCPTMAX=10 MAILMAX=5" are enforced, "CHUNKING" makes BDAT work, "REQUIRETLS" is offered
	// within TLS only, and parameters of MAIL and RCPT that belong to what is not offered get 555 5.5.4.
	Capabilities []string

	TLS         TLSMode
	Certificate CertKind    // which certificate the server shows, for its own name
	TLSConfig   *tls.Config // instead of one with that certificate

	Users  map[string]string // user name → password; offers AUTH PLAIN LOGIN (RFC 4954)
	Tokens map[string]string // user name → access token; offers AUTH OAUTHBEARER XOAUTH2 (RFC 7628)
	// Mechanisms are what is offered instead. PLAIN, LOGIN, CRAM-MD5, SCRAM-SHA-256, OAUTHBEARER and XOAUTH2 verify
	// against Users and Tokens; EXTERNAL asks for a client certificate, and its common name is the user, if the
	// Internet's CA has signed it. Others are listed, and get 504 5.5.4 when they are used.
	Mechanisms   []string
	AuthInClear  bool // offer AUTH without TLS too; otherwise it gets 538 5.7.11
	AuthRequired bool // MAIL without AUTH gets 530 5.7.0

	MaxRecipients int  // more in a transaction get 452 4.5.3; 0 is no limit
	LMTP          bool // LHLO instead of EHLO, and a reply for each recipient after the dot (RFC 2033)
	OneByte       bool // every octet in a packet of its own
}

// DefaultCapabilities are what a server offers where the Offer says nothing else: all that the package knows but
// CHUNKING, so that a body comes by DATA.
func DefaultCapabilities() []string {
	return []string{"PIPELINING", "SIZE 52428800", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES"}
}

func (o Offer) behave(c *conduct) { c.offers = append(c.offers, o) }
