package deliver

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

// letterOfSize is an ordinary message.
func letterOfSize(size int, word string) []byte {
	header := strings.Repeat("Received: from a.example.com (a.example.com [192.0.2.1])\r\n\tby b.example.org with ESMTPS id 123\r\n\tfor <me@example.org>; Wed, 25 Nov 2026 00:00:00 +0000\r\n", 3) +
		"From: Somebody <somebody@example.com>\r\nTo: me@example.org\r\nSubject: An ordinary message\r\nDate: Wed, 25 Nov 2026 00:00:00 +0000\r\n" +
		"Message-ID: <1234567890@example.com>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
	line := strings.Repeat(word, 70/len(word)) + "\r\n"
	return []byte(header + strings.Repeat(line, max(0, size-len(header))/len(line)))
}

func BenchmarkSurvey(b *testing.B) {
	for name, text := range map[string][]byte{
		"4KB":       letterOfSize(4<<10, "ordinary "),
		"4KB 8-bit": letterOfSize(4<<10, "gewöhnlich "),
		"1MB":       letterOfSize(1<<20, "ordinary "),
		"1MB LF":    bytes.ReplaceAll(letterOfSize(1<<20, "ordinary "), crlf, lf),
		"1MB 8-bit": letterOfSize(1<<20, "gewöhnlich "),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			r := bytes.NewReader(nil)
			for b.Loop() {
				r.Reset(text)
				if _, err := surveyOf(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkConvert(b *testing.B) {
	for name, text := range map[string][]byte{
		"4KB":        letterOfSize(4<<10, "gewöhnlich "),
		"1MB":        letterOfSize(1<<20, "gewöhnlich "),
		"1MB base64": letterOfSize(1<<20, "обычный "),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			s, _ := surveyOf(bytes.NewReader(text))
			open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }
			for b.Loop() {
				r, e := s.convert(open, need{sevenBit: true})
				if e != nil {
					b.Fatal(e)
				}
				if _, err := io.Copy(io.Discard, r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
