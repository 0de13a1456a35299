package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"sync"
	"time"
)

// A CertKind is what is right or wrong with a server's certificate.
type CertKind uint8

// The kinds of certificates.
const (
	CertValid      CertKind = iota // signed by the Internet's CA, for the server's name
	CertWrongName                  // signed by the CA, for another name
	CertExpired                    // signed by the CA, for the server's name, until the end of 1999
	CertSelfSigned                 // for the server's name, signed by itself
)

// Validity spans the clocks of today and of a testing/synctest bubble, which starts in the year 2000.
var (
	certStart   = time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC)
	certExpired = time.Date(1999, 12, 31, 0, 0, 0, 0, time.UTC)
	certEnd     = time.Date(2099, 12, 31, 0, 0, 0, 0, time.UTC)
)

// wrongName is what a certificate of kind CertWrongName is for.
const wrongName = "somebody-else.invalid"

// An Authority signs the certificates of the servers. It is made with the Internet; its key is made when first
// needed. Its methods may be called from any goroutine.
type Authority struct {
	mu     sync.Mutex // guards the fields below
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial int64
}

// Pool gives the pool of roots that trusts the Authority.
func (a *Authority) Pool() *x509.CertPool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.init()
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// PEM gives the Authority's own certificate, for programs that read roots from a file.
func (a *Authority) PEM() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.init()
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// ClientConfig gives a TLS configuration that trusts the Authority and no other.
func (a *Authority) ClientConfig() *tls.Config { return &tls.Config{RootCAs: a.Pool()} }

// Issue makes a certificate for names; the first one is also its common name. It fails only where the system gives no
// random numbers.
func (a *Authority) Issue(kind CertKind, names ...string) (tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.init()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("lab: key: %w", err)
	}
	tmpl := a.template(names)
	parent, signer := a.cert, a.key
	switch kind {
	case CertWrongName:
		tmpl.DNSNames, tmpl.Subject.CommonName = []string{wrongName}, wrongName
	case CertExpired:
		tmpl.NotAfter = certExpired
	case CertSelfSigned:
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("lab: certificate for %v: %w", names, err)
	}
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	if kind != CertSelfSigned {
		cert.Certificate = append(cert.Certificate, a.cert.Raw)
	}
	return cert, nil
}

func (a *Authority) template(names []string) *x509.Certificate {
	a.serial++
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(a.serial),
		NotBefore:    certStart,
		NotAfter:     certEnd,
		DNSNames:     names,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if len(names) > 0 {
		tmpl.Subject = pkix.Name{CommonName: names[0]}
	}
	return tmpl
}

// init makes the root. The caller holds a.mu.
func (a *Authority) init() {
	if a.cert != nil {
		return
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic("lab: no random numbers: " + err.Error())
	}
	a.key = key
	tmpl := a.template(nil)
	tmpl.Subject = pkix.Name{CommonName: "Sortie lab CA"}
	tmpl.IsCA, tmpl.BasicConstraintsValid = true, true
	tmpl.KeyUsage, tmpl.ExtKeyUsage = x509.KeyUsageCertSign, nil
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		panic("lab: root certificate: " + err.Error())
	}
}
