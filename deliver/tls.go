package deliver

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/sortie-mail/sortie/route"
)

// errPlaintext is RFC 3207's injection: what was sent in the clear before the handshake must not count as sent within.
var errPlaintext = errors.New("the host sent data between its answer to STARTTLS and the handshake")

// errCertificate is of a host that proves to be somebody else, or nobody.
var errCertificate = errors.New("the certificate is not valid")

// startTLS makes the handshake on a connection whose far end expects it.
func (d *Deliverer) startTLS(s *session) error {
	err := d.handshake(s)
	if d.set.trace.TLS != nil {
		d.set.trace.TLS(s.host, s.tls, err)
	}
	if err != nil {
		s.notef("TLS failed: %v", err)
		return err
	}
	s.notef("%s %s, certificate verified: %t", s.tls.Version, s.tls.Cipher, s.tls.Verified)
	return nil
}

func (d *Deliverer) handshake(s *session) error {
	if s.r.Buffered() > 0 {
		return errPlaintext
	}
	if err := s.within(d.set.timeouts.TLS); err != nil {
		return err
	}
	tc := tls.Client(s.raw, d.tlsConfig(s.host, s.key.mode))
	if err := tc.HandshakeContext(s.ctx); err != nil {
		return err
	}
	cs := tc.ConnectionState()
	invalid := d.verify(cs, s.host)
	s.tls = TLSState{Version: tls.VersionName(cs.Version), Cipher: tls.CipherSuiteName(cs.CipherSuite), Verified: invalid == nil}
	if invalid != nil && s.key.mode == route.TLSVerified {
		return fmt.Errorf("%w for %s: %w", errCertificate, s.host, invalid)
	}
	s.net = tc
	s.r.Reset(tc)
	s.w.Reset(tc)
	return nil
}

// tlsConfig is for one host. Certificates are checked after the handshake, because most modes go on without a valid one.
func (d *Deliverer) tlsConfig(host string, mode route.TLSMode) *tls.Config {
	cfg := &tls.Config{}
	if d.TLS != nil {
		cfg = d.TLS.Clone()
	}
	switch {
	case cfg.MinVersion != 0:
	case mode == route.TLSOpportunistic:
		cfg.MinVersion = tls.VersionTLS10 // better than the clear, which is what comes otherwise (RFC 7435)
	default:
		cfg.MinVersion = tls.VersionTLS12
	}
	cfg.ServerName = host
	cfg.InsecureSkipVerify = true
	if cfg.ClientSessionCache == nil {
		cfg.ClientSessionCache = d.set.sessions
	}
	return cfg
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
