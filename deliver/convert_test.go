package deliver

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The needs of hosts there are.
var (
	seven   = need{sevenBit: true, asciiHeader: true, shortLines: true}
	ascii   = need{asciiHeader: true}
	short   = need{shortLines: true}
	noBin   = need{noBinary: true}
	all     = need{true, true, true, true}
	needsOf = []need{seven, ascii, short, noBin, all, {sevenBit: true}}
)

func opener(text string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
}

func surveyed(t require.TestingT, text string) *survey {
	s, err := surveyOf(strings.NewReader(text))
	require.NoError(t, err)
	require.Equal(t, s, surveyOfAll([]byte(text)))
	return &s
}

// converted is a message after conversion, and checks that the host can take it.
func converted(t require.TestingT, text string, n need) (string, *conversionError) {
	s := surveyed(t, text)
	r, e := s.convert(opener(text), n)
	if e != nil {
		require.False(t, s.meets(n))
		return "", e
	}
	out, err := io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.True(t, surveyed(t, string(out)).meets(n), "%+v of %q gives %q", n, text, out)
	return string(out), nil
}

// std: C17
func TestSurvey(t *testing.T) {
	x := strings.Repeat("x", 998)
	for name, tt := range map[string]struct {
		text string
		want survey
	}{
		"nothing":                 {"", survey{}},
		"ASCII":                   {"Subject: a\r\n\r\nb\r\n", survey{}},
		"LF":                      {"Subject: a\n\nb\n", survey{}},
		"header":                  {"Subject: ä\r\n\r\nb\r\n", survey{header8: true, high: 2}},
		"folded header":           {"Subject: a\r\n ä\r\n\r\nb\r\n", survey{header8: true, high: 2}},
		"body":                    {"Subject: a\r\n\r\nä\r\n", survey{body8: true, high: 2}},
		"both, LF":                {"Subject: \xe4\n\n\xe4", survey{header8: true, body8: true, high: 2}},
		"no header":               {"ä\r\n", survey{body8: true, high: 2}},
		"header ends without end": {"a: b\r\nno field ä\r\n", survey{body8: true, high: 2}},
		"mailbox line":            {">From me\r\nSubject: ä\r\n\r\n", survey{header8: true, high: 2}},
		"space before the colon":  {"Subject : ä\r\n\r\n", survey{header8: true, high: 2}},
		"CR ends a header":        {"a: b\r\rä\r\n", survey{body8: true, binary: true, high: 2}},
		"998":                     {"a: b\r\n\r\n" + x + "\r\n", survey{}},
		"998 LF":                  {"a: b\n\n" + x + "\n", survey{}},
		"998 at the end":          {"a: b\n\n" + x, survey{}},
		"999":                     {"a: b\r\n\r\n" + x + "x\r\n", survey{long: true}},
		"999 LF":                  {"a: b\n\n" + x + "x\nb\n", survey{long: true}},
		"999 at the end":          {"a: b\n\n" + x + "x", survey{long: true}},
		"999 in the header":       {"a: b" + x + "\r\n\r\n", survey{long: true}},
		"long after many":         {"a: b\n\n" + strings.Repeat("line\r\n", 20_000) + x + "x\n", survey{long: true}},
		"998 many":                {"a: b\n\n" + strings.Repeat(x+"\r\n", 200), survey{}},
		"very long":               {"a: b\n\n" + strings.Repeat(x, 200), survey{long: true}},
		"very long field":         {"a: " + strings.Repeat("b", 100_000) + "\r\nc: ä\r\n\r\nd", survey{header8: true, long: true, high: 2}},
		"CR ends a block":         {"a: b\n\n" + strings.Repeat("x", surveyBlock-1) + "\r\n", survey{long: true}},
		"NUL":                     {"a: b\r\n\r\n\x00", survey{binary: true}},
		"CR":                      {"a: b\r\n\r\na\rb", survey{binary: true}},
		"CR at the end":           {"a: b\r\n\r\na\r", survey{binary: true}},
		"CR CR LF":                {"a: b\r\n\r\na\r\r\n", survey{binary: true}},
		"TLS-Required":            {"a: b\r\ntls-required : no \r\n\r\n", survey{tlsOptional: true}},
		"TLS-Required folded":     {"TLS-Required:\r\n\tNo\r\n\r\n", survey{tlsOptional: true}},
		"TLS-Required yes":        {"TLS-Required: yes\r\n No\r\n\r\n", survey{}},
		"TLS-Required, empty":     {"TLS-Required:\r\nb: No\r\n\r\n", survey{}},
		"TLS-Required in a body":  {"a: b\r\n\r\nTLS-Required: No\r\n", survey{}},
		"a long ASCII body":       {"a: b\n\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 3000), survey{}},
		"8-bit at the very end":   {"a: b\n\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 3000) + "\xff", survey{body8: true, high: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, reader := range []func(io.Reader) io.Reader{
				func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader,
			} {
				tt.want.size = int64(len(tt.text))
				got, err := surveyOf(reader(strings.NewReader(tt.text)))
				require.NoError(t, err)
				require.Equal(t, tt.want, got)
			}
		})
	}
}

func TestSurveyOfWhatCannotBeRead(t *testing.T) {
	broken := errors.New("disk on fire")
	_, err := surveyOf(io.MultiReader(strings.NewReader("a: b\r\n"), iotest.ErrReader(broken)))
	require.ErrorIs(t, err, broken)
	_, err = surveyOf(idle{})
	require.ErrorIs(t, err, io.ErrNoProgress)
}

type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

// std: C8
func TestConvertEightBit(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"UTF-8 text": {
			"MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\nSubject: a\n\nGrüße = ok \n",
			"MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\r\nSubject: a\n\nGr=C3=BC=C3=9Fe =3D ok=20\r\n",
		},
		"no label": {
			"Subject: a\r\n\r\nGrüße an alle\r\n",
			"Subject: a\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe an alle\r\n",
		},
		"no label, not UTF-8": {
			"Subject: a\r\n\r\nGr\xfc\xdfe an alle\r\n",
			"Subject: a\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nGr=FC=DFe an alle\r\n",
		},
		"no header": {
			"Grüße an alle",
			"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe an alle",
		},
		"mostly not ASCII": {
			"Content-Type: text/plain; charset=utf-8\nMIME-Version: 1.0\n\nпривет\n",
			"Content-Type: text/plain; charset=utf-8\nMIME-Version: 1.0\nContent-Transfer-Encoding: base64\r\n\n0L/RgNC40LLQtdGCDQo=\r\n",
		},
		"nested": {
			"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=o\nContent-Transfer-Encoding: 8bit\n\npré\n--o\n" +
				"Content-Type: multipart/alternative;\n boundary=\"i i\"\nContent-Transfer-Encoding: binary\n\n--i i\n" +
				"Content-Type: text/plain; charset=x\n\nplain and é é\n--i i\nContent-Transfer-Encoding: 8bit\n\nascii\n--i i--\nepi é\n--o\n" +
				"Content-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\nSubject: é\n\ninner text is here é\n--o--\né\n",
			"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=o\nContent-Transfer-Encoding: 7bit\r\n\npr??\n--o\n" +
				"Content-Type: multipart/alternative;\n boundary=\"i i\"\nContent-Transfer-Encoding: 7bit\r\n\n--i i\n" +
				"Content-Type: text/plain; charset=x\nContent-Transfer-Encoding: quoted-printable\r\n\nplain and =C3=A9 =C3=A9\n--i i\nContent-Transfer-Encoding: 8bit\n\nascii\n--i i--\nepi ??\n--o\n" +
				"Content-Type: message/rfc822\nContent-Transfer-Encoding: 7bit\r\n\nSubject: =?utf-8?q?=C3=A9?=\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\ninner text is here =C3=A9\n--o--\n??\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, e := converted(t, tt.text, need{sevenBit: true})
			require.Nil(t, e)
			assert.Equal(t, tt.want, got)
		})
	}
}

// std: C8
// std: C12
func FuzzConvert(f *testing.F) {
	for _, s := range []string{
		"Subject: ä\n\nö", "From: ä <a@ä.de>\r\n\r\n", "Content-Type: multipart/mixed; boundary=a\n\n--a\n\nä\n--a--\n",
		"Content-Type: multipart/digest; boundary=a\n\n--a\n\nSubject: ü\n\nä\n--a--\nä", "a: b\r\rä\r\r\n\x00",
		"Content-Type: text/plain; name=\"ä\"; boundary=é\nContent-Transfer-Encoding: binary\n\na\rä\n",
		"Content-Transfer-Encoding: base64\n\nä" + strings.Repeat("abcd", 300) + "\n",
		"Content-Transfer-Encoding: quoted-printable\n\n=C3=A4=\nä " + strings.Repeat("=41--", 300) + "\n",
	} {
		f.Add([]byte(s), 0)
	}
	f.Fuzz(func(t *testing.T, text []byte, which int) {
		n := needsOf[uint(which)%uint(len(needsOf))]
		out, e := converted(t, string(text), n)
		if e != nil {
			require.NotEmpty(t, e.Error())
			require.Contains(t, []string{"5.6.3", "5.6.7"}, e.status.String())
			return
		}
		again, e := converted(t, out, n)
		require.Nil(t, e)
		require.Equal(t, out, again)
		r, e := surveyed(t, string(text)).convert(func() (io.ReadCloser, error) {
			return io.NopCloser(iotest.OneByteReader(bytes.NewReader(text))), nil
		}, n)
		require.Nil(t, e)
		slow, err := io.ReadAll(iotest.OneByteReader(r))
		require.NoError(t, err)
		require.Equal(t, out, string(slow))
	})
}
