package dsn

import "strings"

// A Status is an enhanced mail system status code, "5.1.1" (RFC 3463). The empty Status is unknown.
type Status string

// ParseStatus reads an enhanced status code that stands alone. It reports false, and the empty Status, for
// anything that RFC 3463, section 2, does not allow.
func ParseStatus(s string) (Status, bool) {
	class, rest, ok := strings.Cut(s, ".")
	subject, detail, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 || (class != "2" && class != "4" && class != "5") || !isNumber(subject) || !isNumber(detail) {
		return "", false
	}
	return Status(s), true
}

func isNumber(s string) bool {
	if len(s) == 0 || len(s) > 3 {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// Class is the first digit: 2 success, 4 persistent transient failure, 5 permanent failure, 0 unknown.
func (s Status) Class() int {
	if s == "" {
		return 0
	}
	return int(s[0] - '0')
}

// String returns the code as written.
func (s Status) String() string { return string(s) }
