package lab

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"
)

// scramIterations is what RFC 7677, section 4, asks for at least.
const scramIterations = 4096

func hmacOf(h func() hash.Hash, key, text []byte) []byte {
	m := hmac.New(h, key)
	m.Write(text)
	return m.Sum(nil)
}

// cramMD5 is RFC 2195.
func (x *exchange) cramMD5() (string, error) {
	if x.initial != nil { // the server speaks first
		return "", errMalformed
	}
	challenge := fmt.Sprintf("<%s@%s>", rand.Text(), x.s.srv.name)
	response, err := x.ask(challenge)
	if err != nil {
		return "", err
	}
	return verifyCRAM(x.s.offer.Users, challenge, response)
}

func verifyCRAM(users map[string]string, challenge, response string) (string, error) {
	at := strings.LastIndexByte(response, ' ')
	if at < 0 {
		return "", errMalformed
	}
	user, digest := response[:at], response[at+1:]
	password, known := users[user]
	want := hex.EncodeToString(hmacOf(md5.New, []byte(password), []byte(challenge)))
	if !known || !hmac.Equal([]byte(want), []byte(digest)) {
		return "", errDenied
	}
	return user, nil
}

// scramSHA256 is RFC 5802 with the hash of RFC 7677, without channel binding.
func (x *exchange) scramSHA256() (string, error) {
	first, err := x.first("")
	if err != nil {
		return "", err
	}
	sc := scram{nonce: rand.Text(), salt: []byte(rand.Text()[:16])}
	challenge, err := sc.begin(first)
	if err != nil {
		return "", err
	}
	final, err := x.ask(challenge)
	if err != nil {
		return "", err
	}
	signature, err := sc.finish(x.s.offer.Users, final)
	if err != nil {
		return "", err
	}
	// SMTP has no place for data beside success: it goes before it, and the client says nothing to it (RFC 4954, section 4).
	if rest, err := x.ask(signature); err != nil || rest != "" {
		return "", orElse(err, errMalformed)
	}
	return sc.user, nil
}

func orElse(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// A scram is the server's side of one exchange.
type scram struct {
	nonce string // ours
	salt  []byte

	header, bare string // the two parts of the client's first message
	user         string
	challenge    string
}

// begin takes the client's first message: "n,,n=user,r=nonce".
func (c *scram) begin(message string) (challenge string, err error) {
	f := strings.Split(message, ",")
	switch {
	case len(f) < 4 || (f[0] != "n" && f[0] != "y") || !strings.HasPrefix(f[2], "n=") || !strings.HasPrefix(f[3], "r="):
		return "", errMalformed
	case f[1] != "" && f[1] != "a="+f[2][2:]:
		return "", errDenied // to act for somebody else
	case strings.Count(f[2], "=") != 1+strings.Count(f[2], "=2C")+strings.Count(f[2], "=3D"):
		return "", errMalformed
	case len(f[3]) < len("r=")+8:
		return "", errMalformed
	}
	c.header, c.bare = f[0]+","+f[1]+",", strings.Join(f[2:], ",")
	c.user = strings.NewReplacer("=2C", ",", "=3D", "=").Replace(f[2][2:])
	c.challenge = fmt.Sprintf("%s%s,s=%s,i=%d", f[3], c.nonce, base64.StdEncoding.EncodeToString(c.salt), scramIterations)
	return c.challenge, nil
}

// finish takes the client's last message, "c=biws,r=nonce,p=proof", and gives the server's.
func (c *scram) finish(users map[string]string, message string) (signature string, err error) {
	without, proof64, found := strings.Cut(message, ",p=")
	proof, err := base64.StdEncoding.DecodeString(proof64)
	nonce, _, _ := strings.Cut(c.challenge, ",")
	binding := "c=" + base64.StdEncoding.EncodeToString([]byte(c.header))
	if !found || err != nil || len(proof) != sha256.Size || without != binding+","+nonce {
		return "", errMalformed
	}
	password, known := users[c.user]
	salted := stretch(password, c.salt, scramIterations)
	clientKey := hmacOf(sha256.New, salted, []byte("Client Key"))
	stored := sha256.Sum256(clientKey)
	text := []byte(c.bare + "," + c.challenge + "," + without)
	mask := hmacOf(sha256.New, stored[:], text)
	for i := range proof {
		proof[i] ^= mask[i]
	}
	if !known || !bytes.Equal(proof, clientKey) {
		return "", errDenied
	}
	serverKey := hmacOf(sha256.New, salted, []byte("Server Key"))
	return "v=" + base64.StdEncoding.EncodeToString(hmacOf(sha256.New, serverKey, text)), nil
}

// stretch is Hi of RFC 5802, section 2.2.
func stretch(password string, salt []byte, iterations int) []byte {
	u := hmacOf(sha256.New, []byte(password), binary.BigEndian.AppendUint32(bytes.Clone(salt), 1))
	out := bytes.Clone(u)
	for range iterations - 1 {
		u = hmacOf(sha256.New, []byte(password), u)
		for i := range out {
			out[i] ^= u[i]
		}
	}
	return out
}
