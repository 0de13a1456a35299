package lab_test

import (
	"bufio"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
)

// exchange says EHLO, then sends octets as they are, and gives all that the server says until it hangs up.
func exchange(t *testing.T, n *lab.Internet, octets string) string {
	t.Helper()
	conn, err := n.Dial(t.Context(), "tcp", "mx.aol.test:25")
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, "EHLO c\r\n")
	require.NoError(t, err)
	r := bufio.NewReader(conn)
	var hello strings.Builder
	for line := ""; !strings.HasPrefix(line, "250 "); hello.WriteString(line) {
		line, err = r.ReadString('\n')
		require.NoError(t, err)
	}
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(conn, octets)
		sent <- err
	}()
	said, err := io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, <-sent)
	return hello.String() + string(said)
}

const upToData = "MAIL FROM:<a@b.test>\r\nRCPT TO:<a@aol.test>\r\nDATA\r\n"

func TestBodiesAreKeptOctetByOctet(t *testing.T) {
	long := strings.Repeat("x", 10_000)
	for name, tt := range map[string]struct{ wire, body string }{
		"empty":                       {"", ""},
		"dots":                        {"..\r\n...a\r\n.b\r\n", ".\r\n..a\r\nb\r\n"},
		"a dot between bare LFs":      {"a\n.\nMAIL FROM:<x@y>\r\n", "a\n.\nMAIL FROM:<x@y>\r\n"},
		"a dot after a bare LF":       {"a\n.\r\nb\r\n", "a\n.\r\nb\r\n"},
		"a dot after two bare LFs":    {"a\n\n.\r\nb\r\n", "a\n\n.\r\nb\r\n"},
		"a dot after a bare CR":       {"a\r.\r\nb\r\n", "a\r.\r\nb\r\n"},
		"a dot before a bare LF":      {"a\r\n.\nb\r\n", "a\r\n\nb\r\n"},
		"NUL and eight bits":          {"\x00\xff\r\n", "\x00\xff\r\n"},
		"a long line":                 {long + "\r\n", long + "\r\n"},
		"CRLF across the read buffer": {long[:4095] + "\r\n..\r\n", long[:4095] + "\r\n.\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			bothModes(t, func(t *testing.T, n *lab.Internet) {
				mx := n.Server("mx.aol.test")
				said := exchange(t, n, upToData+tt.wire+".\r\nQUIT\r\n")
				require.Contains(t, said, "221 2.0.0 Bye")
				require.Equal(t, tt.body, string(mx.Mailbox()[0].Body))
				mx.Forget()
				require.Empty(t, mx.Mailbox())
			})
		})
	}
}

func TestBadCommandLines(t *testing.T) {
	for name, tt := range map[string]struct{ wire, want string }{
		"bare LF":    {"NOOP\nQUIT\r\n", "500 5.5.2 "},
		"too long":   {"NOOP " + strings.Repeat("x", 13_000) + "\r\nQUIT\r\n", "500 5.5.6 "},
		"a thousand": {strings.Repeat("FROB\r\n", 1001), "500 5.5.1 "},
	} {
		t.Run(name, func(t *testing.T) {
			bothModes(t, func(t *testing.T, n *lab.Internet) {
				mx := n.Server("mx.aol.test")
				said := exchange(t, n, tt.wire)
				require.Contains(t, said, tt.want)
				require.Empty(t, mx.Mailbox())
				require.Equal(t, "mx.aol.test", mx.Name())
			})
		})
	}
}

func TestAChunkOverTheLimitIsReadAndRefused(t *testing.T) {
	bothModes(t, func(t *testing.T, n *lab.Internet) {
		mx := n.Server("mx.aol.test", lab.Offer{Capabilities: []string{"PIPELINING", "CHUNKING", "SIZE 10"}})
		begin := "MAIL FROM:<a@b.test>\r\nRCPT TO:<a@aol.test>\r\n"
		said := exchange(t, n, begin+"BDAT 20\r\n"+strings.Repeat("x", 20)+"BDAT 0 LAST\r\nNOOP\r\nQUIT\r\n")
		require.Equal(t, 2, strings.Count(said, "552 5.3.4"), said)
		require.Contains(t, said, "250 2.0.0 Ok\r\n221 2.0.0 Bye")
		require.Empty(t, mx.Mailbox())
	})
}

func TestAnOfferShowsAtTheNextEHLO(t *testing.T) {
	bothModes(t, func(t *testing.T, n *lab.Internet) {
		mx := n.Server("mx.aol.test", lab.Offer{Capabilities: []string{}})
		mx.Behave(lab.Offer{Capabilities: []string{"X-NEW"}})
		require.Contains(t, exchange(t, n, "QUIT\r\n"), "250 X-NEW")
		mx.Behave()
		require.NotContains(t, exchange(t, n, "QUIT\r\n"), "X-NEW")
	})
}
