package reason

// A Class names why a server refused. The names are a fixed contract.
type Class string

// Every class.
const (
	UserUnknown          Class = "user-unknown"
	MailboxFull          Class = "mailbox-full"
	MailboxDisabled      Class = "mailbox-disabled"
	Suspended            Class = "suspended"
	HasMoved             Class = "has-moved"
	HostUnknown          Class = "host-unknown"
	RelayingDenied       Class = "relaying-denied"
	OpenRelay            Class = "open-relay"
	OpenProxy            Class = "open-proxy"
	DynamicAddress       Class = "dynamic-address"
	Blocklisted          Class = "blocklisted"
	BadReputation        Class = "bad-reputation"
	ReverseDNS           Class = "reverse-dns"
	Greylisted           Class = "greylisted"
	RateLimited          Class = "rate-limited"
	TooManyConnections   Class = "too-many-connections"
	MessageTooBig        Class = "message-too-big"
	Content              Class = "content"
	Spam                 Class = "spam"
	Virus                Class = "virus"
	Policy               Class = "policy"
	AuthenticationFailed Class = "authentication-failed"
	AuthRequired         Class = "auth-required"
	TLSRequired          Class = "tls-required"
	TLSFailed            Class = "tls-failed"
	NotCompliant         Class = "not-compliant"
	Syntax               Class = "syntax"
	Filtered             Class = "filtered"
	Security             Class = "security"
	SystemError          Class = "system-error"
	SystemFull           Class = "system-full"
	MailLoop             Class = "mail-loop"
	NetworkError         Class = "network-error"
	Expired              Class = "expired"
	SenderRefused        Class = "sender-refused"
	NoMailHere           Class = "no-mail-here"
	Vacation             Class = "vacation"
	Feedback             Class = "feedback"
	Delivered            Class = "delivered"
	Unknown              Class = "unknown"
)

// allClasses has every class.
var allClasses = []Class{
	UserUnknown, MailboxFull, MailboxDisabled, Suspended, HasMoved, HostUnknown, RelayingDenied, OpenRelay, OpenProxy,
	DynamicAddress, Blocklisted, BadReputation, ReverseDNS, Greylisted, RateLimited, TooManyConnections, MessageTooBig,
	Content, Spam, Virus, Policy, AuthenticationFailed, AuthRequired, TLSRequired, TLSFailed, NotCompliant, Syntax,
	Filtered, Security, SystemError, SystemFull, MailLoop, NetworkError, Expired, SenderRefused, NoMailHere, Vacation,
	Feedback, Delivered, Unknown,
}
