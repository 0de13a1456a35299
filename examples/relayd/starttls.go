package main

// STARTTLS. go-smtp would put TLS above the connection, where its commands could not be seen any more; so the connection does it
// beneath.

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"sync/atomic"
	"time"
)

// A certificate is that of -cert and -key. It is read again on SIGHUP, and the old one stays where the new one is broken.
type certificate struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]
}

// openCertificate is nil where there is none.
func openCertificate(certFile, keyFile string) (*certificate, error) {
	if certFile == "" {
		return nil, nil
	}
	c := &certificate{certFile: certFile, keyFile: keyFile}
	return c, c.reload()
}

func (c *certificate) reload() error {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("-cert %s and -key %s: %w", c.certFile, c.keyFile, err)
	}
	c.current.Store(&pair)
	return nil
}

// config is how the relay speaks TLS; nil where it does not.
func (c *certificate) config() *tls.Config {
	if c == nil {
		return nil
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current.Load(), nil },
	}
}

// handshakeTime is how long a client may take for the handshake.
const handshakeTime = 30 * time.Second

// startsTLS reports whether the command is STARTTLS, and answers it. go-smtp does not see it: without a certificate it is
// the one to refuse.
func (c *conn) startsTLS() bool {
	verb, rest, _ := bytes.Cut(bytes.TrimRight(c.line, "\r\n"), []byte(" "))
	if c.mid || c.list.tls == nil || !bytes.HasSuffix(c.line, []byte("\n")) || !bytes.EqualFold(verb, []byte("STARTTLS")) {
		return false
	}
	answer := ""
	switch {
	case len(bytes.TrimSpace(rest)) > 0:
		answer = "501 5.5.4 STARTTLS has no parameters"
	case c.secure != nil:
		answer = "503 5.5.1 this is within TLS already"
	case c.isOpen():
		answer = "503 5.5.1 a transaction is open: finish it, or send RSET"
	case len(c.in) > 0: // it came in the clear, whoever sent it, and must not count as if it came within TLS (RFC 3207, section 6)
		answer = "554 5.5.0 nothing may follow STARTTLS before its answer; closing the connection"
		c.last.Store(true)
	default:
		c.shakeHands()
		return true
	}
	c.Write([]byte(answer + "\r\n"))
	return true
}

// shakeHands goes on within TLS. All that the client said before counts for nothing (RFC 3207, section 4.2).
func (c *conn) shakeHands() {
	c.Write([]byte("220 2.0.0 go ahead\r\n"))
	err := c.await()
	if err == nil {
		err = c.flush()
	}
	secure := tls.Server(c.Conn, c.list.tls)
	if err == nil {
		err = c.limitHandshake()
	}
	if err == nil {
		err = secure.Handshake()
	}
	if err != nil {
		c.gone, c.mute = true, true // nothing can be said any more that the client would understand
		c.note("tls", "no TLS: "+err.Error())
		return
	}
	c.SetWriteDeadline(time.Time{})
	state := secure.ConnectionState()
	c.secure, c.stream, c.cipher = secure, secure, tls.CipherSuiteName(state.CipherSuite)
	c.esmtp, c.greeted = false, false
}

// limitHandshake bounds the handshake, unless the connection is to end.
func (c *conn) limitHandshake() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bye != "" {
		return errEnded
	}
	return c.SetDeadline(time.Now().Add(min(c.class.idle, handshakeTime)))
}

// offers are the lines that relayd adds to go-smtp's answer to EHLO.
func (c *conn) offers() string {
	switch {
	case c.secure != nil:
		return extensions + "250-REQUIRETLS\r\n"
	case c.list.tls != nil:
		return extensions + "250-STARTTLS\r\n"
	}
	return extensions
}

// answerEHLO adds the offers behind the first line of the answer to a greeting, and notes that there was one.
func (c *conn) answerEHLO(p []byte) (more string) {
	if bytes.HasPrefix(p, []byte("250")) {
		c.greeted = true
	} else if !c.greeted {
		c.greeting = false
	}
	if !c.greeting || !bytes.HasSuffix(p, []byte("\n")) {
		return "" // the line is a long one, and not at its end
	}
	c.greeting = false
	if c.esmtp {
		return c.offers()
	}
	return ""
}

// closeTLS tells the client that nothing more comes, so that it is not taken for an attack.
func (c *conn) closeTLS() {
	if c.secure != nil {
		c.SetWriteDeadline(time.Now().Add(time.Second))
		c.secure.CloseWrite()
	}
}

// isOpen reports whether a transaction is open.
func (c *conn) isOpen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open
}
