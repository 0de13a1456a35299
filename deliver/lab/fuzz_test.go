package lab_test

import (
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
)

func FuzzParseScript(f *testing.F) {
	f.Add(refusal)
	f.Add("S-RAW \"\\x00\"\n----\nC-CHUNK\nS-WAIT -1s")
	f.Fuzz(func(_ *testing.T, text string) { _, _ = lab.ParseScript(text) })
}

func FuzzZone(f *testing.F) {
	n, err := lab.New(lab.Options{InMemory: true})
	require.NoError(f, err)
	f.Cleanup(func() { _ = n.Close() })
	f.Add(zoo)
	f.Add("$TTL 5\n@ SOA ns host 1 2 3 4 5\n$GENERATE 1-3 a$ A 192.0.2.$")
	f.Fuzz(func(t *testing.T, text string) {
		if n.Zone("fuzz.test", text) == nil {
			_, err := n.Dial(t.Context(), "tcp", "www.fuzz.test:25")
			require.Error(t, err)
		}
	})
}

// Whatever a client sends, its session ends when it closes and the server goes on serving.
func FuzzSession(f *testing.F) {
	for _, seed := range []string{
		"EHLO c\r\nMAIL FROM:<a@b.test> SIZE=5\r\nRCPT TO:<c@d.test>\r\nDATA\r\n..x\r\n.\r\nQUIT\r\n",
		"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<\"x\\\">\"@d>\r\nBDAT 9223372036854775807 LAST\r\nx",
		"AUTH PLAIN =\r\nAUTH LOGIN\r\n*\r\nSTARTTLS\r\n\x16\x03\x01", "\n\r\n \r\nMAIL\r\nRCPT\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		n, err := lab.New(lab.Options{InMemory: true})
		require.NoError(t, err)
		defer func() { require.NoError(t, n.Close()) }()
		mx := n.Server("mx.aol.test", lab.Offer{
			Capabilities: []string{"CHUNKING", "SIZE 1000", "PIPELINING"},
			TLS:          lab.TLSOffered, Users: users, AuthInClear: true,
		})
		conn, err := n.Dial(t.Context(), "tcp", "mx.aol.test:25")
		require.NoError(t, err)
		go func() {
			_, _ = conn.Write(sent)
			_ = conn.(interface{ CloseWrite() error }).CloseWrite()
		}()
		_, _ = io.Copy(io.Discard, conn)
		require.NoError(t, conn.Close())
		require.NoError(t, mx.Wait(t.Context(), func() bool { _, open := mx.Connections(); return open == 0 }))
		for _, m := range mx.Mailbox() {
			require.LessOrEqual(t, len(m.Body), 1000)
		}
		_, ok := conn.RemoteAddr().(*net.TCPAddr)
		require.True(t, ok)
	})
}

func BenchmarkStart(b *testing.B) {
	for name, opts := range map[string]lab.Options{"sockets": {}, "memory": {InMemory: true}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				n, err := lab.New(opts)
				require.NoError(b, err)
				require.NoError(b, n.Zone("aol.test", aol))
				n.Server("mx.aol.test")
				require.NoError(b, n.Close())
			}
		})
	}
}
