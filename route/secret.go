package route

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

// maxSecret is how long a secret may be, in octets: tokens of some providers take a few thousand.
const maxSecret = 16 << 10

// A Secret is a password by reference: "env:NAME" or "file:PATH". It is read when the table is loaded. Whatever prints it
// prints the reference; only Value gives it away. The zero Secret is no secret.
type Secret struct {
	ref   string
	value *string // so that package fmt, which cannot call methods of unexported fields, prints an address
}

// ReadSecret reads the secret that ref names. A line break at the end of a file is not part of it.
func ReadSecret(ref string) (Secret, error) {
	kind, name, _ := strings.Cut(ref, ":")
	var value string
	switch kind {
	case "env":
		var ok bool
		if value, ok = os.LookupEnv(name); !ok {
			return Secret{}, fmt.Errorf("the environment has no variable %s", name)
		}
	case "file":
		b, err := readSecretFile(name)
		if err != nil {
			return Secret{}, err
		}
		value = strings.TrimRight(string(b), "\r\n")
	default:
		return Secret{}, fmt.Errorf("a secret is env:NAME or file:PATH")
	}
	if value == "" {
		return Secret{}, fmt.Errorf("%s is empty", ref)
	}
	return Secret{ref, &value}, nil
}

func readSecretFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1)) // not by its size, which a pipe has not
	if err == nil && len(b) > maxSecret {
		err = fmt.Errorf("%s is longer than %d octets", name, maxSecret)
	}
	return b, err
}

// Value is the secret itself; "" of the zero Secret.
func (s Secret) Value() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s == Secret{} }

// String is the reference.
func (s Secret) String() string { return s.ref }

// GoString, Format, LogValue, MarshalText and MarshalJSON give the reference too, so that no way of printing a hop gives
// the secret away.
func (s Secret) GoString() string { return fmt.Sprintf("route.Secret(%q)", s.ref) }

// Format implements fmt.Formatter.
func (s Secret) Format(f fmt.State, verb rune) {
	if verb == 'v' && f.Flag('#') {
		fmt.Fprint(f, s.GoString())
		return
	}
	fmt.Fprintf(f, fmt.FormatString(f, verb), s.ref)
}

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.ref) }

// MarshalText implements encoding.TextMarshaler.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.ref), nil }

// MarshalJSON implements json.Marshaler.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.ref) }
