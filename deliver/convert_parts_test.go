package deliver

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var updateConvert = flag.Bool("update-convert", false, "write the golden files of conversion anew")

// Messages in testdata/convert, and what becomes of each for hosts of every kind.
//
// std: C8
// std: C10
// std: C12
func TestConvertGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/convert/*.eml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for kind, n := range map[string]need{"7bit": seven, "ascii-header": ascii, "short-lines": short} {
			got, e := converted(t, string(text), n)
			if e != nil {
				got = "error " + e.status.String() + ": " + e.Error() + "\n"
			}
			golden := strings.TrimSuffix(file, "eml") + kind + ".golden"
			if *updateConvert {
				require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			assert.Equal(t, string(want), got, golden)
		}
	}
}

// std: C8
func TestSealedPartsStayAsTheyAre(t *testing.T) {
	const signed = "Content-Type: multipart/signed; boundary=s; protocol=\"application/pgp-signature\"\nContent-Transfer-Encoding: 8bit\n\n" +
		"--s\nContent-Type: text/plain\n\n%s\n--s\nContent-Type: application/pgp-signature\n\nsignature\n--s--\n"
	mixed := func(part, text string) string {
		return "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=m\n\n--m\nContent-Type: text/plain\n\n" + text + "\n--m\n" + part + "\n--m--\n"
	}
	long := strings.Repeat("x", 999)
	for name, tt := range map[string]struct {
		text, says string
	}{
		"signed":      {"MIME-Version: 1.0\n" + fmt.Sprintf(signed, "ä"), "8-bit text and cannot be converted, because it is signed"},
		"signed part": {mixed(fmt.Sprintf(signed, "ä"), "ok"), "it is signed"},
		"long":        {mixed(fmt.Sprintf(signed, long), "ok"), "lines over 998 octets and cannot be converted, because it is signed"},
		"S/MIME":      {mixed("Content-Type: application/pkcs7-mime; smime-type=signed-data\nContent-Transfer-Encoding: 8bit\n\nä", "ok"), "it is signed or encrypted"},
		"PGP":         {mixed("Content-Type: application/pgp-encrypted\n\nVersion: ä", "ok"), "it is encrypted"},
		"fragment":    {mixed("Content-Type: message/partial; id=1; number=1\n\nä", "ok"), "it is a piece of a message"},
		"own":         {mixed("Content-Transfer-Encoding: x-mine\n\nä", "ok"), "it has an encoding of its own"},
		"no boundary": {mixed("Content-Type: multipart/mixed\n\nä", "ok"), "it is a multipart without a boundary"},
		"bad boundary": {
			mixed("Content-Type: multipart/mixed; boundary="+strings.Repeat("x", 71)+"\n\nä", "ok"), "it is a multipart with a bad boundary",
		},
		"no parts": {mixed("Content-Type: multipart/mixed; boundary=y\n\nä", "ok"), "the boundary of a multipart stands nowhere in it"},
		"NUL":      {mixed("Content-Type: application/pgp-encrypted\n\n\x00", "ok"), "binary data and cannot be converted"},
	} {
		t.Run(name, func(t *testing.T) {
			_, e := converted(t, tt.text, all)
			require.NotNil(t, e)
			assert.Equal(t, "5.6.3", e.status.String())
			assert.Contains(t, e.Error(), tt.says)
		})
	}
	part := fmt.Sprintf(signed, "7-bit, with =41 and trailing space ")
	got, e := converted(t, mixed(part, "grüße, with some text"), seven)
	require.Nil(t, e)
	assert.Contains(t, got, part, "nothing in it needs anything")
	assert.Contains(t, got, "gr=C3=BC=C3=9Fe, with some text")
	part = strings.Replace(fmt.Sprintf(signed, "ä in a part and in a header"), "text/plain", "text/plain; name=ä", 1)
	got, e = converted(t, "Subject: ä\n"+mixed(part, "ok"), ascii)
	require.Nil(t, e)
	assert.Contains(t, got, part, "a host with 8BITMIME takes it")
}

// std: C12
func TestConvertLongLines(t *testing.T) {
	long := strings.Repeat("0123456789", 100)
	head := "MIME-Version: 1.0\r\nContent-Type: text/plain\r\n"
	cte := "Content-Transfer-Encoding: "
	for name, tt := range map[string]struct{ text, label, starts, ends string }{
		"text":    {head + "\r\nshort é\r\n" + long + " \r\nend\r\n", "quoted-printable", "short =C3=A9\r\n" + long[:75] + "=\r\n" + long[75:150] + "=\r\n", long[975:] + "=20\r\nend\r\n"},
		"binary":  {head + "\r\n\x00\r\n" + long + "\r\n", "base64", "AA0KMDEy", "OQ0K\r\n"},
		"base64":  {head + cte + "base64\r\n\r\nAAAA\r\n" + long + "\r\nBBBB\r\n", "base64", "AAAA\r\n" + long[:76] + "\r\n", "\r\nBBBB\r\n"},
		"quoted":  {head + cte + "quoted-printable\r\n\r\n=C3=A4 as it is: =\r\n" + strings.Repeat("=41", 400) + "\r\n", "quoted-printable", "=C3=A4 as it is: =\r\n" + strings.Repeat("=41", 25) + "=\r\n", "=41\r\n"},
		"no body": {"A: " + long + "\r\n", "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, e := converted(t, tt.text, short)
			require.Nil(t, e)
			header, body, _ := strings.Cut(got, "\r\n\r\n")
			assert.Equal(t, 1, strings.Count(header+cte, cte+tt.label))
			assert.Truef(t, strings.HasPrefix(body, tt.starts), "%q", body)
			assert.Truef(t, strings.HasSuffix(body, tt.ends), "%q", body)
		})
	}
	multi := "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=m\nContent-Transfer-Encoding: binary\n\n" + long + "-" + long + "\n--m" +
		strings.Repeat(" ", 2000) + "\n\ntext\n--m--\n"
	got, e := converted(t, multi, short)
	require.Nil(t, e)
	assert.Contains(t, got, "Content-Transfer-Encoding: 8bit\r\n\n0123")
	assert.Contains(t, got, "\n--m\n\ntext\n--m--\n")
}

// A soft break makes no delimiter of text, nor does the cutting of a preamble.
func TestConversionMakesNoDelimiters(t *testing.T) {
	text := "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("x", 998) + "--b\r\n--b\r\n" +
		"Content-Type: text/plain\r\n\r\n" + strings.Repeat("é", 12) + "xxx--b\r\n" + strings.Repeat("x", 1050) + "--b\r\n" +
		"--b\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + strings.Repeat("x", 1050) + "--b\r\n--b--\r\n"
	got, e := converted(t, text, seven)
	require.Nil(t, e)
	assert.Equal(t, leavesOf(t, text), leavesOf(t, got))
	assert.Equal(t, 2, strings.Count(got, "\n--b\r\n"))
	assert.Contains(t, got, "=\r\n=2D-b\r\n")
	assert.Contains(t, got, "\r\n --b\r\n")
}

// std: C8
func TestConvertLabels(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		need need
		want string
	}{
		"twice": {
			"Content-Transfer-Encoding: 8bit\nMIME-Version: 1.0\ncontent-transfer-encoding: 7bit\nContent-Type: text/plain\n\nonly ä here\n", seven,
			"Content-Transfer-Encoding: quoted-printable\r\nMIME-Version: 1.0\nContent-Type: text/plain\n\nonly =C3=A4 here\r\n",
		},
		"wrong": {
			"Content-Transfer-Encoding: utf-8 (sic)\nMIME-Version: 1.0\nContent-Type: text/plain\n\nonly ä here\n", seven,
			"Content-Transfer-Encoding: quoted-printable\r\nMIME-Version: 1.0\nContent-Type: text/plain\n\nonly =C3=A4 here\r\n",
		},
		"quoted, with 8-bit": {
			"Content-Transfer-Encoding: Quoted-Printable\nMIME-Version: 1.0\n\nä =C3=A4 =\nend=zz\n=C3=A4=\n", seven,
			"Content-Transfer-Encoding: Quoted-Printable\nMIME-Version: 1.0\n\n=C3=A4 =C3=A4 =\nend=zz\n=C3=A4=\n",
		},
		"base64, with 8-bit": {
			"Content-Transfer-Encoding: base64\nMIME-Version: 1.0\n\nQUJD\nQUäJD\n", seven,
			"Content-Transfer-Encoding: base64\nMIME-Version: 1.0\n\nQUJD\nQUJD\n",
		},
		"digest": {
			"MIME-Version: 1.0\nContent-Type: multipart/digest; boundary=d\n\n--d\n\nSubject: ä\n\nall is well, ä\n--d--\n", seven,
			"MIME-Version: 1.0\nContent-Type: multipart/digest; boundary=d\n\n--d\n\nSubject: =?utf-8?q?=C3=A4?=\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\nall is well, =C3=A4\n--d--\n",
		},
		"message/global is content": {
			"MIME-Version: 1.0\nContent-Type: message/global\n\nFrom: ä@example.org\n\nall is well in here\n", seven,
			"MIME-Version: 1.0\nContent-Type: message/global\nContent-Transfer-Encoding: quoted-printable\r\n\nFrom: =C3=A4@example.org\r\n\r\nall is well in here\r\n",
		},
		"delivery status": {
			"MIME-Version: 1.0\nContent-Type: message/delivery-status\nContent-Transfer-Encoding: 8bit\n\nReporting-MTA: dns;a\n\nAction: failed\nDiagnostic-Code: smtp; 550 not ä\n\tthing\nodd ä line\n", seven,
			"MIME-Version: 1.0\nContent-Type: message/delivery-status\nContent-Transfer-Encoding: 7bit\r\n\nReporting-MTA: dns;a\n\nAction: failed\nDiagnostic-Code: smtp; 550 not =?utf-8?q?=C3=A4?=\tthing\r\nodd ? line\r\n",
		},
		"header without an end": {
			"MIME-Version: 1.0\nthis is a body, ä\n", seven,
			"MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nthis is a body, =C3=A4\r\n",
		},
		"mailbox line": {
			"From ä Wed\nSubject: a\n\nok\n", ascii,
			"From ? Wed\r\nSubject: a\n\nok\n",
		},
		"CR is a line end": {
			"Subject: a\r\rall is well, ä\r", seven,
			"Subject: a\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nall is well, =C3=A4\r\n",
		},
		"CR CR LF is one line end": {
			"Subject: a\r\r\n\r\r\nall is well, ä\r\r\nend\n", seven,
			"Subject: a\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nall is well, =C3=A4\r\nend\r\n",
		},
		"labels around labels": {
			"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=o\nContent-Transfer-Encoding: 8bit\n\n--o\nContent-Type: multipart/mixed; boundary=i\nContent-Transfer-Encoding: 8bit\n\n--i\nContent-Type: text/plain\n\nall is well, ä\n--i--\n--o--\n", seven,
			"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=o\nContent-Transfer-Encoding: 7bit\r\n\n--o\nContent-Type: multipart/mixed; boundary=i\nContent-Transfer-Encoding: 7bit\r\n\n--i\nContent-Type: text/plain\nContent-Transfer-Encoding: quoted-printable\r\n\nall is well, =C3=A4\n--i--\n--o--\n",
		},
		"half a character": {
			"Subject: a\n\nall is well, \xc3", seven,
			"Subject: a\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\nContent-Transfer-Encoding: quoted-printable\r\n\nall is well, =C3",
		},
		"text after binary": {
			"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=m\n\n--m\nContent-Type: image/png\nContent-Transfer-Encoding: binary\n\na\rb\n--m\n\na\rall is well, ä\n--m--\n", seven,
			"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=m\n\n--m\nContent-Type: image/png\nContent-Transfer-Encoding: binary\n\na\rb\n--m\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\na\r\nall is well, =C3=A4\n--m--\n",
		},
		"header after binary": {
			"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=m\n\n--m\nContent-Type: image/png\nContent-Transfer-Encoding: binary\n\na\n--m\nA: b\rC: ä\n\nok\n--m--\n", seven,
			"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=m\n\n--m\nContent-Type: image/png\nContent-Transfer-Encoding: binary\n\na\n--m\nA: b\r\nC: =?utf-8?q?=C3=A4?=\r\n\nok\n--m--\n",
		},
		"binary keeps its octets": {
			"MIME-Version: 1.0\nContent-Type: image/png\nContent-Transfer-Encoding: binary\n\na\rb\nc\r\r\nd\x00", noBin,
			"MIME-Version: 1.0\nContent-Type: image/png\nContent-Transfer-Encoding: base64\r\n\nYQ1iCmMNDQpkAA==\r\n",
		},
		"binary part": {
			"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=m\nContent-Transfer-Encoding: binary\n\n\x00\n--m\nContent-Type: image/png\nContent-Transfer-Encoding: binary\n\n\x00\r\n\r\n--m--\n", noBin,
			"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=m\nContent-Transfer-Encoding: 8bit\r\n\n?\n--m\nContent-Type: image/png\nContent-Transfer-Encoding: base64\r\n\nAA0K\r\n--m--\n",
		},
		"NUL in a header": {"Subject: a\x00b\n\nok\n", noBin, "Subject: a b\n\nok\n"},
		"a label that says too much stays": {
			"MIME-Version: 1.0\nContent-Transfer-Encoding: 8bit\n\nok\n", all,
			"MIME-Version: 1.0\nContent-Transfer-Encoding: 8bit\n\nok\n",
		},
		"a part that ends in its header": {
			"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=m\n\n--m\nContent-Transfer-Encoding: 8bit\n--m\nContent-Transfer-Encoding: 8bit\n\nall is well, ä\n--m--\n", seven,
			"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=m\n\n--m\nContent-Transfer-Encoding: 8bit\n--m\nContent-Transfer-Encoding: quoted-printable\r\nContent-Type: text/plain; charset=utf-8\r\n\nall is well, =C3=A4\n--m--\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, e := converted(t, tt.text, tt.need)
			require.Nil(t, e)
			assert.Equal(t, tt.want, got)
		})
	}
}

// The charset of what has no label is known for lines in pieces too.
func TestCharsetOfLongLines(t *testing.T) {
	for shift := range 4 {
		for charset, text := range map[string]string{"utf-8": "日本語€ä", "unknown-8bit": "日本語€ä\xe4"} {
			text = strings.Repeat("x", shift) + strings.Repeat("x"+text, 20_000)
			got, e := converted(t, "Subject: a\n\n"+text+"\n", seven)
			require.Nil(t, e)
			assert.Contains(t, got, "Content-Type: text/plain; charset="+charset+"\r\n")
			require.Equal(t, text, leavesOf(t, got)[1])
		}
	}
}

func TestConversionIsBounded(t *testing.T) {
	parts := "Content-Type: multipart/mixed; boundary=m\n\n" + strings.Repeat("--m\n\nx\n", maxParts) + "ä\n--m--\n"
	_, e := converted(t, parts, seven)
	require.NotNil(t, e)
	assert.Contains(t, e.Error(), "more than 10000 parts")

	_, e = converted(t, "Subject: "+strings.Repeat("x", maxHeaderField)+"\n\nä\n", seven)
	require.NotNil(t, e)
	assert.Contains(t, e.Error(), "header field of more than 1048576 octets")

	var deep strings.Builder
	for i := range maxDepth + 1 {
		fmt.Fprintf(&deep, "Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n", i, i)
	}
	_, e = converted(t, deep.String()+"\nä\n", seven)
	require.NotNil(t, e)
	assert.Contains(t, e.Error(), "it lies in too many others")
	got, e := converted(t, deep.String()+"\nok\n", need{sevenBit: true})
	require.Nil(t, e, "what needs nothing may lie as deep as it likes")
	assert.Equal(t, deep.String()+"\nok\n", got)
	_, e = converted(t, strings.Repeat("Content-Type: message/rfc822\n\n", 5000)+"\nä\n", seven)
	require.NotNil(t, e)
	assert.Contains(t, e.Error(), "it lies in too many others")
}

// A message is not in memory, in one line or in many.
func TestConversionsAreStreamed(t *testing.T) {
	const size = 8 << 20
	for name, unit := range map[string]string{
		"lines": strings.Repeat("grün und ", 8) + "\r\n", "one line": "grün und ", "base64": strings.Repeat("слово", 10) + "\r\n", "fields": "X-A: grün\n",
	} {
		t.Run(name, func(t *testing.T) {
			head := "Subject: ä\r\n\r\n"
			if name == "fields" {
				head = "Content-Type: message/delivery-status\r\n\r\n"
			}
			open := func() (io.ReadCloser, error) {
				return io.NopCloser(io.MultiReader(strings.NewReader(head), io.LimitReader(&repeated{text: unit}, size))), nil
			}
			body, err := open()
			require.NoError(t, err)
			s, err := surveyOf(body)
			require.NoError(t, err)
			r, e := s.convert(open, seven)
			require.Nil(t, e)
			before := inUse()
			n, err := io.CopyN(io.Discard, r, size/2)
			require.NoError(t, err)
			assert.Less(t, inUse()-before, int64(size/8))
			rest, err := io.Copy(io.Discard, r)
			require.NoError(t, err)
			assert.Greater(t, n+rest, int64(size))
			assert.Less(t, cap(r.(*conversion).writer.out), 1<<20)
		})
	}
}

// inUse is how much memory is in use.
func inUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// repeated reads the same text again and again.
type repeated struct {
	text string
	at   int
}

func (r *repeated) Read(p []byte) (n int, _ error) {
	for n < len(p) {
		k := copy(p[n:], r.text[r.at:])
		r.at = (r.at + k) % len(r.text)
		n += k
	}
	return n, nil
}

func TestConversionOfWhatCannotBeRead(t *testing.T) {
	const text = "Subject: ä\r\n\r\nall is well, ä\r\n"
	broken := errors.New("disk on fire")
	s := surveyed(t, text)
	for after := range 3 {
		opened := 0
		open := func() (io.ReadCloser, error) {
			if opened++; opened > after {
				return nil, broken
			}
			return io.NopCloser(strings.NewReader(text)), nil
		}
		r, e := s.convert(open, seven)
		if after == 2 {
			require.Nil(t, e)
			require.NoError(t, r.Close())
			continue
		}
		require.NotNil(t, e)
		assert.ErrorIs(t, e, broken)
		assert.Empty(t, e.status, "it is not the message's fault")
	}
	failing := func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(strings.NewReader(text[:20]), iotest.ErrReader(broken))), nil
	}
	_, e := s.convert(failing, seven)
	require.NotNil(t, e)
	assert.ErrorIs(t, e, broken)
	opened := 0
	r, e := s.convert(func() (io.ReadCloser, error) {
		if opened++; opened == 1 {
			return io.NopCloser(strings.NewReader(text)), nil
		}
		return failing()
	}, seven)
	require.Nil(t, e)
	out, err := io.ReadAll(r)
	assert.ErrorIs(t, err, broken)
	assert.True(t, strings.HasPrefix(string(out), "Subject: =?utf-8?q?=C3=A4?=\r\n"))
}

// A message that is another one when it is read again does no harm.
func TestConversionOfWhatChanges(t *testing.T) {
	texts := []string{"Subject: ä\n\nä\n", "Content-Type: multipart/mixed; boundary=a\n\n" + strings.Repeat("--a\n\nä\n", 100)}
	opened := 0
	s := surveyed(t, texts[0])
	r, e := s.convert(func() (io.ReadCloser, error) {
		opened++
		return io.NopCloser(strings.NewReader(texts[opened-1])), nil
	}, seven)
	require.Nil(t, e)
	_, err := io.ReadAll(r)
	require.NoError(t, err)
}

// closing counts how often it is closed.
type closing struct {
	io.Reader
	n *int
}

func (c closing) Close() error { *c.n++; return nil }

func TestConversionClosesWhatItOpens(t *testing.T) {
	for _, text := range []string{"Subject: ä\n\nä\n", "Subject: a\n\nb\n", "From: <ä@b>\n\nä"} {
		opened, closed := 0, 0
		r, e := surveyed(t, text).convert(func() (io.ReadCloser, error) {
			opened++
			return closing{strings.NewReader(text), &closed}, nil
		}, seven)
		if e == nil {
			require.NoError(t, r.Close())
		}
		assert.Equal(t, opened, closed)
	}
}

func TestOctetsAfterConversion(t *testing.T) {
	for _, text := range [][]byte{
		letterOfSize(4<<10, "ordinary "), letterOfSize(64<<10, "gewöhnlich "), letterOfSize(64<<10, "обычный "), letterOfSize(64<<10, strings.Repeat("x", 70)),
		[]byte("Subject: a\n\n" + strings.Repeat("x", 100_000)),
	} {
		s := surveyed(t, string(text))
		out, e := converted(t, string(text), seven)
		require.Nil(t, e)
		assert.InEpsilon(t, len(out), s.octets(seven), 0.2)
		assert.Equal(t, int64(len(text)), s.octets(need{}))
	}
}
