package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// readData plays octets to a dotReader, in pieces of the given size, and gives the message and what is left behind it.
func readData(tb testing.TB, wire []byte, piece int, most int64) (message, rest []byte, err error) {
	tb.Helper()
	far, near := net.Pipe()
	go func() {
		defer far.Close()
		for len(wire) > 0 {
			n := min(piece, len(wire))
			if _, err := far.Write(wire[:n]); err != nil {
				return
			}
			wire = wire[n:]
		}
	}()
	list := &listener{}
	list.user.init()
	c := &conn{Conn: near, stream: near, list: list, class: &list.user, buf: make([]byte, inputSize)}
	c.class.idle = 1 << 40
	defer near.Close()
	message, err = io.ReadAll(newDotReader(c, most))
	rest = append(rest, c.in...)
	if err == nil {
		more, _ := io.ReadAll(near)
		rest = append(rest, more...)
	}
	return message, rest, err
}

// wantData says what a message on the wire is, by the grammar of RFC 5321, section 4.1.1.4 alone.
func wantData(wire []byte) (message, rest []byte, ok bool) {
	text, rest, ok := bytes.Cut(append([]byte("\r\n"), wire...), []byte("\r\n.\r\n"))
	text = append(text, "\r\n"...)
	text = regexp.MustCompile(`(?s)\r\n\.`).ReplaceAll(text, []byte("\r\n"))
	return text[2:], rest, ok
}

func FuzzDotReader(f *testing.F) {
	for _, seed := range []string{
		".\r\n", "a\r\n.\r\nQUIT\r\n", "..\r\n...\r\n.x\r\n.\r\n", "\n.\n\r\n.\n\n.\r\n\r.\r\r\n.\r\n", "\r\n.\r\r\n.\r\n", "x\r\r\n.\r\n", "\r", "\r\n.", "\r\n.\r",
		strings.Repeat("x", inputSize-1) + "\r\n.\r\n", strings.Repeat("x", inputSize-2) + "\r\n..\r\n.\r\nRSET\r\n", strings.Repeat("\r", 9000) + "\n.\r\n",
	} {
		f.Add([]byte(seed), byte(255))
		f.Add([]byte(seed), byte(1))
	}
	f.Fuzz(func(t *testing.T, wire []byte, piece byte) {
		message, rest, err := readData(t, wire, int(piece)+1, 1<<40)
		want, wantRest, ok := wantData(wire)
		if !ok {
			require.ErrorIs(t, err, errBrokenOff)
			return
		}
		require.NoError(t, err)
		assert.Equal(t, string(want), string(message))
		assert.Equal(t, string(wantRest), string(rest))
	})
}

func TestDotReaderLimit(t *testing.T) {
	t.Parallel()
	for size, fits := range map[int64]bool{5: false, 6: true, 7: true} {
		message, _, err := readData(t, []byte("..23\r\n6\r\n.\r\n"), 3, size+2)
		if fits {
			require.NoError(t, err)
			assert.Equal(t, ".23\r\n6\r\n", string(message))
			continue
		}
		var big *tooBigError
		require.ErrorAs(t, err, &big)
		assert.EqualValues(t, 7, big.most)
	}
}

func FuzzLineCheck(f *testing.F) {
	for _, seed := range []string{"", "a\r\nb\r\n", "\n", "\r", "a\rb", "\r\r\n", "\r\n\r", "\r\n\n", "no end"} {
		f.Add(seed)
	}
	lone := regexp.MustCompile(`(?s)\r([^\n]|$)|(^|[^\r])\n`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, r := range []io.Reader{strings.NewReader(text), iotest.OneByteReader(strings.NewReader(text)), iotest.DataErrReader(strings.NewReader(text))} {
			got, err := io.ReadAll(&lineCheck{r: r})
			if lone.MatchString(text) {
				require.True(t, errors.Is(err, errBareCR) || errors.Is(err, errBareLF), "%q: %v", text, err)
				continue
			}
			require.NoError(t, err, "%q", text)
			require.Equal(t, text, string(got))
		}
	})
}

func TestPathIn(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"MAIL FROM:<a@b.test>":                           "a@b.test",
		"mail from: <a@b.test> SIZE=5 BODY=8BITMIME":     "a@b.test",
		"MAIL FROM:a@b.test SIZE=5":                      "a@b.test",
		"MAIL FROM:<>":                                   "",
		"RCPT TO:<\"a b>c\"@d.test>":                     "\"a b>c\"@d.test",
		"RCPT TO:<\"a\\\"b@x\\\\\"@d.test> NOTIFY=NEVER": "\"a\\\"b@x\\\\\"@d.test",
		"RCPT TO:<@x.test,@y.test:a@d.test>":             "a@d.test",
		"RCPT TO:<a@b@c>":                                "a@b@c",
	} {
		got, ok := pathIn([]byte(line + "\r\n"))
		assert.True(t, ok, line)
		assert.Equal(t, want, got, line)
	}
	for _, line := range []string{"", "RCPT", "RCPT TO:<@x.test", "RCPT TO:<\"a", "RCPT TO:<\"a\\"} {
		_, ok := pathIn([]byte(line))
		assert.False(t, ok, line)
	}
	assert.Equal(t, `a b"@c`, unquote(`"a b\""@c`))
}

func FuzzPathIn(f *testing.F) {
	f.Add("RCPT TO:<a@b>\r\n")
	f.Add("RCPT TO:<\"a\\\" b\"@b> X=Y\r\n")
	f.Fuzz(func(t *testing.T, line string) {
		if path, ok := pathIn([]byte(line)); ok {
			require.Contains(t, line, path)
			require.LessOrEqual(t, len(unquote(path)), len(path))
		}
	})
}
