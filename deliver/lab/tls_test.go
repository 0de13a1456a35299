package lab_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
)

func TestCertificatesAreAsWrongAsAsked(t *testing.T) {
	for name, tt := range map[string]struct {
		kind lab.CertKind
		want any
	}{
		"valid":       {lab.CertValid, nil},
		"wrong name":  {lab.CertWrongName, new(x509.HostnameError)},
		"expired":     {lab.CertExpired, new(x509.CertificateInvalidError)},
		"self-signed": {lab.CertSelfSigned, new(x509.UnknownAuthorityError)},
	} {
		t.Run(name, func(t *testing.T) {
			bothModes(t, func(t *testing.T, n *lab.Internet) {
				mx := n.Server("mx.aol.test", lab.Offer{TLS: lab.TLSOffered, Certificate: tt.kind})
				c := dial(t, n, "mx.aol.test:25")
				cfg := n.CA().ClientConfig()
				cfg.ServerName = "mx.aol.test"
				err := c.StartTLS(cfg)
				if tt.want != nil {
					require.ErrorAs(t, err, tt.want)
					return
				}
				require.NoError(t, err)
				require.NoError(t, send(c, "a@b.test", []string{"a@aol.test"}, "x\r\n"))
				state := mx.Mailbox()[0].TLS
				require.NotNil(t, state)
				require.Equal(t, "mx.aol.test", state.ServerName)
				require.Contains(t, mx.Transcript(), `#1 - TLS 1.3, server name "mx.aol.test"`)
			})
		})
	}
}

func TestBrokenTLS(t *testing.T) {
	bothModes(t, func(t *testing.T, n *lab.Internet) {
		n.Server("mx.aol.test", lab.Offer{TLS: lab.TLSBroken})
		c := dial(t, n, "mx.aol.test:25")
		var broken tls.RecordHeaderError
		require.ErrorAs(t, c.StartTLS(&tls.Config{ServerName: "mx.aol.test"}), &broken)
	})
}

func TestImplicitTLS(t *testing.T) {
	bothModes(t, func(t *testing.T, n *lab.Internet) {
		isp := n.Server("smtp.isp.test:465", lab.Offer{TLS: lab.TLSImplicit, Users: users})
		conn, err := n.Dial(t.Context(), "tcp", "smtp.isp.test:465")
		require.NoError(t, err)
		cfg := n.CA().ClientConfig()
		cfg.ServerName = "smtp.isp.test"
		client := tls.Client(conn, cfg)
		greeting := make([]byte, 17)
		_, err = client.Read(greeting)
		require.NoError(t, err)
		require.Equal(t, "220 smtp.isp.test", string(greeting))
		require.NoError(t, client.Close())
		require.Contains(t, isp.Transcript(), "TLS 1.3")
	})
}

func TestTheCAReadsAsPEM(t *testing.T) {
	n := lab.Test(t)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(n.CA().PEM()))
	require.True(t, pool.Equal(n.CA().Pool()))
}
