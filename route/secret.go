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

// A Secret is a password by reference: "env:NAME" or "file:PATH", which [ReadSecret] reads, and a table when it is loaded; or
// one that the program has from elsewhere, by [NewSecret]. Whatever prints it prints the reference; only Value gives it away.
// The zero Secret is no secret.
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

// NewSecret is a secret that the program has from elsewhere, a vault for one. name is the reference that is shown instead of
// the value, such as "vault:isp"; it tells secrets apart for those who read logs, and routes for those who compare what they
// print, so two secrets should not share one. A routing file cannot name it. An empty value is no secret.
//
//	r, err := route.ParseRoute("submission://mail.isp.example")
//	r.Hops[0].User, r.Hops[0].Secret = "me", route.NewSecret("vault:isp", password)
func NewSecret(name, value string) Secret {
	if value == "" {
		return Secret{}
	}
	return Secret{name, &value}
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
