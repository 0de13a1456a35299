package resolve

import (
	"errors"
	"fmt"
	"strings"

	"github.com/miekg/dns"
)

// ErrBadName is in the chain of an [Error] about a name that cannot be in the DNS: an empty or overlong label, a character that no host
// or mail domain has, text that IDNA does not allow. Such an error is permanent.
var ErrBadName = errors.New("not a domain name")

// An Error says why a lookup failed.
type Error struct {
	// Name is the name that was looked up, in the form in which it was asked for: A-labels, lower case, no final dot. A name that cannot
	// exist is as the caller gave it.
	Name string
	// Type is the type of record that was wanted, such as "MX".
	Type string
	// Server is the server that was asked last, as host:port; it is empty if none was.
	Server string
	// NotFound is true if the name does not exist (NXDOMAIN): the answer of a working DNS, and final until its TTL ends.
	NotFound bool
	// Err is the cause.
	Err error
}

// Error says what was looked up and what went wrong at which server, in one line.
func (e *Error) Error() string {
	return fmt.Sprintf("resolve: %s of %q: %v", e.Type, e.Name, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Temporary reports whether another attempt may succeed. It is false for a name that does not exist or cannot exist, and true for
// everything else: SERVFAIL, REFUSED, silence, a malformed or lying answer, a CNAME loop, the end of the caller's context.
func (e *Error) Temporary() bool { return !e.NotFound && !errors.Is(e.Err, ErrBadName) }

// Why an exchange or an answer is of no use. None of them says anything about the name, so all are temporary.
var (
	errGarbage   = errors.New("malformed answer")
	errMismatch  = errors.New("answer to another question")
	errCase      = fmt.Errorf("%w: its case is another", errMismatch)
	errTruncated = errors.New("truncated answer over TCP")
	errStrays    = errors.New("too many answers with a wrong id")
	errReferral  = errors.New("referral instead of an answer: the server does not recurse")
	errNoAnswer  = errors.New("no answer")
	errLimit     = fmt.Errorf("no answer within %v in all", lookupLimit)
	errAliases   = fmt.Errorf("more than %d CNAME records in a chain", MaxAliases)
)

// rcodeError is an answer that refuses to be one: SERVFAIL, REFUSED and so on.
type rcodeError int

func (e rcodeError) Error() string {
	if name, ok := dns.RcodeToString[int(e)]; ok {
		return name
	}
	return fmt.Sprintf("RCODE %d", int(e))
}

// serverError is what went wrong at one server.
type serverError struct {
	server string
	err    error
}

func (e *serverError) Error() string { return "server " + e.server + ": " + e.err.Error() }

func (e *serverError) Unwrap() error { return e.err }

// serverErrors is the last failure of each server asked, in the order in which they were asked.
type serverErrors []*serverError

func (l serverErrors) with(server string, err error) serverErrors {
	for _, e := range l {
		if e.server == server {
			e.err = err
			return l
		}
	}
	return append(l, &serverError{server, err})
}

func (l serverErrors) Error() string {
	texts := make([]string, len(l))
	for i, e := range l {
		texts[i] = e.Error()
	}
	return strings.Join(texts, "; ")
}

func (l serverErrors) Unwrap() []error {
	errs := make([]error, len(l))
	for i, e := range l {
		errs[i] = e
	}
	return errs
}

func typeName(qtype uint16) string { return dns.Type(qtype).String() }
