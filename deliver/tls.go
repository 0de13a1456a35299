package deliver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/sortie-mail/sortie/route"
)

// errPlaintext is RFC 3207's injection: what was sent in the clear before the handshake must not count as sent within.
var errPlaintext = errors.New("the host sent data between its answer to STARTTLS and the handshake")

// startTLS makes the handshake on a connection whose far end expects it.
func (d *Deliverer) startTLS(ctx context.Context, c *conn, mode route.TLSMode) (TLSState, error) {
	if c.r.Buffered() > 0 {
		return TLSState{}, errPlaintext
	}
	if err := c.within(ctx, d.Timeouts.TLS); err != nil {
		return TLSState{}, err
	}
	tc := tls.Client(c.net, d.tlsConfig(c.host, mode))
	err := tc.HandshakeContext(ctx)
	state := TLSState{}
	if err == nil {
		state, err = d.checkTLS(tc.ConnectionState(), c.host, mode)
	}
	if d.Trace.TLS != nil {
		d.Trace.TLS(c.host, state, err)
	}
	if err != nil {
		c.note('*', "TLS failed: "+err.Error())
		return state, err
	}
	c.net = tc
	c.r.Reset(tc)
	c.w.Reset(tc)
	c.note('*', fmt.Sprintf("%s %s, certificate verified: %t", state.Version, state.Cipher, state.Verified))
	return state, nil
}

// tlsConfig is for one host. Certificates are checked after the handshake, because most modes go on without a valid one.
func (d *Deliverer) tlsConfig(host string, mode route.TLSMode) *tls.Config {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if d.TLS != nil {
		cfg = d.TLS.Clone()
	}
	if mode == route.TLSOpportunistic && (d.TLS == nil || d.TLS.MinVersion == 0) {
		cfg.MinVersion = tls.VersionTLS10 // better than the clear, which is what comes otherwise (RFC 7435)
	}
	cfg.ServerName = host
	cfg.InsecureSkipVerify = true
	if cfg.ClientSessionCache == nil {
		cfg.ClientSessionCache = d.sessions
	}
	return cfg
}

// checkTLS says how a connection is protected, and fails where the mode asks for more.
func (d *Deliverer) checkTLS(cs tls.ConnectionState, host string, mode route.TLSMode) (TLSState, error) {
	state := TLSState{Version: tls.VersionName(cs.Version), Cipher: tls.CipherSuiteName(cs.CipherSuite)}
	err := d.verify(cs, host)
	state.Verified = err == nil
	if mode == route.TLSVerified && err != nil {
		return state, fmt.Errorf("the certificate is not valid for %s: %w", host, err)
	}
	return state, nil
}

func (d *Deliverer) verify(cs tls.ConnectionState, host string) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("the host has no certificate")
	}
	opts := x509.VerifyOptions{DNSName: host, Intermediates: x509.NewCertPool()}
	if d.TLS != nil {
		opts.Roots = d.TLS.RootCAs
		if d.TLS.Time != nil {
			opts.CurrentTime = d.TLS.Time()
		}
	}
	for _, cert := range cs.PeerCertificates[1:] {
		opts.Intermediates.AddCert(cert)
	}
	_, err := cs.PeerCertificates[0].Verify(opts)
	return err
}
