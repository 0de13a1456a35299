package deliver

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/emersion/go-sasl"
)

// scramSHA256 is RFC 5802 with the hash of RFC 7677. There is no channel binding: that needs the certificate's hash or an
// exporter of TLS, which most who offer it behind a proxy cannot give.
const scramSHA256 = "SCRAM-SHA-256"

// Bounds on the iterations that a host asks for. With fewer, who steals its table or plays the host can try passwords
// (RFC 7677, section 4); more are an attack on our CPU: at the bound a login costs about a quarter of a second.
const (
	minIterations = 4096
	maxIterations = 1_000_000
)

const gs2Header = "n,,"

// A scramClient is a [sasl.Client] for SCRAM-SHA-256.
type scramClient struct {
	user, password string
	nonce          string
	next           func(message string) (answer string, err error) // takes the next message of the host; nil after the last one
	bare           string                                          // our first message, without the header
	signature      []byte                                          // what proves that the host knows the password
	refusal        string
	done           bool // it has
}

func newScram(c *credentials) sasl.Client { return newScramClient(c.user, c.secret, rand.Text()) }

func newScramClient(user, password, nonce string) *scramClient {
	c := &scramClient{user: saslprep(user), password: saslprep(password), nonce: nonce}
	c.bare, c.next = "n="+saslName(c.user)+",r="+c.nonce, c.first
	return c
}

func (c *scramClient) Start() (mechanism string, first []byte, err error) {
	return scramSHA256, []byte(gs2Header + c.bare), nil
}

func (c *scramClient) Next(challenge []byte) ([]byte, error) {
	next := c.next
	if next == nil {
		return nil, sasl.ErrUnexpectedServerChallenge
	}
	c.next = nil
	answer, err := next(string(challenge))
	return []byte(answer), err
}

// proven: without the host's signature anybody may have said 235 (RFC 5802, section 5).
func (c *scramClient) proven() error {
	if !c.done {
		return loginFault("the host took the login without proof that it knows the password: it may be another host")
	}
	return nil
}

func (c *scramClient) said() string {
	if c.refusal == "" {
		return ""
	}
	return "of the login the host said " + c.refusal
}

// first takes nonce, salt and iterations, and gives our proof.
func (c *scramClient) first(message string) (string, error) {
	values, err := scramValues(message, 'r', 's', 'i')
	if err != nil {
		return "", err
	}
	nonce := values[0]
	salt, err := base64.StdEncoding.DecodeString(values[1])
	switch {
	case err != nil || len(salt) == 0:
		return "", loginFault("the host's salt of SCRAM-SHA-256 is not base64, or empty")
	case !strings.HasPrefix(nonce, c.nonce) || len(nonce) == len(c.nonce): // RFC 5802, section 5.1
		return "", loginFault("the host's nonce of SCRAM-SHA-256 does not begin with ours and go on: it may be another host")
	}
	iterations, err := scramIterations(values[2])
	if err != nil {
		return "", err
	}
	return c.prove(message, nonce, salt, iterations)
}

// scramIterations reads the number of iterations: digits alone, the first one not 0 (RFC 5802, section 7).
func scramIterations(text string) (int, error) {
	if strings.ContainsFunc(text, func(r rune) bool { return r < '0' || r > '9' }) || text == "" || text[0] == '0' {
		return 0, loginFault("the host's number of iterations of SCRAM-SHA-256 is none")
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < minIterations || n > maxIterations {
		return 0, loginFault(fmt.Sprintf("the host asks for %s iterations of SCRAM-SHA-256, and from %d to %d are safe",
			clipped(text, 20), minIterations, maxIterations))
	}
	return n, nil
}

// prove is the client's last message (RFC 5802, section 3).
func (c *scramClient) prove(message, nonce string, salt []byte, iterations int) (string, error) {
	salted, err := pbkdf2.Key(sha256.New, c.password, salt, iterations, sha256.Size)
	if err != nil {
		return "", loginFault("SCRAM-SHA-256 is not possible here: " + err.Error())
	}
	final := "c=" + base64.StdEncoding.EncodeToString([]byte(gs2Header)) + ",r=" + nonce
	text := c.bare + "," + message + "," + final
	key := mac256(salted, "Client Key")
	stored := sha256.Sum256(key)
	proof := mac256(stored[:], text)
	for i := range proof {
		proof[i] ^= key[i]
	}
	c.signature = mac256(mac256(salted, "Server Key"), text)
	c.next = c.last
	return final + ",p=" + base64.StdEncoding.EncodeToString(proof), nil
}

// last takes the host's signature, or why it refuses. There is nothing to say to either.
func (c *scramClient) last(message string) (string, error) {
	if reason, ok := strings.CutPrefix(message, "e="); ok {
		c.refusal = clipped(without(secretForms(c.password), reason), 80)
		return "", nil
	}
	values, err := scramValues(message, 'v')
	if err != nil {
		return "", err
	}
	signature, err := base64.StdEncoding.DecodeString(values[0])
	if err != nil || !hmac.Equal(signature, c.signature) {
		return "", loginFault("the host's signature of SCRAM-SHA-256 is wrong: it does not know the password, and may be another host")
	}
	c.done = true
	return "", nil
}

func mac256(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

// scramValues reads the attributes of a message, which come in a fixed order; extensions after them are none of ours. One
// that must be understood would stand first (RFC 5802, section 5.1).
func scramValues(message string, names ...byte) ([]string, error) {
	fields := strings.Split(message, ",")
	if len(fields) < len(names) {
		return nil, errScram
	}
	values := make([]string, len(names))
	for i, name := range names {
		field := fields[i]
		if len(field) < len("x=y") || field[0] != name || field[1] != '=' {
			return nil, errScram
		}
		values[i] = field[2:]
	}
	return values, nil
}

const errScram = loginFault("the host's message of SCRAM-SHA-256 cannot be understood")
