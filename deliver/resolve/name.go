package resolve

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// lookupProfile is IDNA's Lookup profile without the rules for host names, since service labels such as _dmarc and labels such as
// r3---sn are in the DNS. What characters remain is checked afterwards.
var lookupProfile = idna.New(
	idna.MapForLookup(),
	idna.BidiRule(),
	idna.CheckJoiners(true),
	idna.CheckHyphens(false),
	idna.StrictDomainName(false),
)

// canonical is the one form in which names from answers are compared and handed out: lower case (RFC 4343), no final dot.
func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// asciiName returns a name to be asked for in A-label form, in lower case and without the final dot, or an error that wraps ErrBadName.
func asciiName(name string) (string, error) {
	if len(name) > maxNameInput {
		return "", badName(fmt.Sprintf("longer than %d octets", maxName))
	}
	name = strings.TrimSuffix(name, ".")
	if !isASCII(name) {
		if !utf8.ValidString(name) {
			return "", badName("not UTF-8")
		}
		ascii, err := lookupProfile.ToASCII(name)
		if err != nil {
			return "", badName(err.Error())
		}
		name = strings.TrimSuffix(ascii, ".")
	}
	name = strings.ToLower(name)
	if err := checkName(name); err != nil {
		return "", err
	}
	return name, nil
}

func checkName(name string) error {
	if len(name) > maxName {
		return badName(fmt.Sprintf("longer than %d octets", maxName))
	}
	for rest, more := name, true; more; {
		var label string
		label, rest, more = strings.Cut(rest, ".")
		if err := checkLabel(label); err != nil {
			return err
		}
	}
	return nil
}

// checkLabel lets pass what mail domains, hosts and service names are made of. The DNS itself allows any octet (RFC 2181, section 11),
// but no mail address and no host name can have it (RFC 5321, section 4.1.2).
func checkLabel(label string) error {
	if label == "" {
		return badName("empty label")
	}
	if len(label) > maxLabel {
		return badName(fmt.Sprintf("label longer than %d octets", maxLabel))
	}
	for i := range len(label) {
		if c := label[i]; !nameOctet(c) {
			return badName(fmt.Sprintf("character %q", c))
		}
	}
	return nil
}

func nameOctet(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func badName(why string) error { return fmt.Errorf("%w: %s", ErrBadName, why) }

// isLocalhost reports whether a name is one of those that are always this machine (RFC 6761, section 6.3).
func isLocalhost(name string) bool {
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}
