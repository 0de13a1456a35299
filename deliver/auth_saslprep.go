package deliver

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/bidi"
	"golang.org/x/text/unicode/norm"
)

// saslprep prepares a user or a password for SCRAM (RFC 4013), so that it is the same however it was typed. What the RFC
// forbids stays as it is: no server that keeps to it has such a password, and the others have it so.
func saslprep(s string) string {
	if isASCII(s) || !utf8.ValidString(s) {
		return s
	}
	out := norm.NFKC.String(strings.Map(func(r rune) rune {
		switch {
		case unicode.Is(mappedToNothing, r):
			return -1
		case unicode.Is(unicode.Zs, r) || r == 0x200b: // RFC 3454, table C.1.2
			return ' '
		}
		return r
	}, s))
	if out == "" || strings.ContainsFunc(out, forbiddenInSASL) || mixesDirections(out) {
		return s
	}
	return out
}

// mappedToNothing is RFC 3454, table B.1.
var mappedToNothing = &unicode.RangeTable{R16: []unicode.Range16{
	{Lo: 0x00ad, Hi: 0x00ad, Stride: 1},
	{Lo: 0x034f, Hi: 0x034f, Stride: 1},
	{Lo: 0x1806, Hi: 0x1806, Stride: 1},
	{Lo: 0x180b, Hi: 0x180d, Stride: 1},
	{Lo: 0x200c, Hi: 0x200d, Stride: 1},
	{Lo: 0x2060, Hi: 0x2060, Stride: 1},
	{Lo: 0xfe00, Hi: 0xfe0f, Stride: 1},
	{Lo: 0xfeff, Hi: 0xfeff, Stride: 1},
}}

// otherForbidden is what RFC 3454, tables C.2 and C.6 to C.9, forbids beside controls, private use and line separators.
var otherForbidden = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x0340, Hi: 0x0341, Stride: 1},
		{Lo: 0x06dd, Hi: 0x06dd, Stride: 1},
		{Lo: 0x070f, Hi: 0x070f, Stride: 1},
		{Lo: 0x180e, Hi: 0x180e, Stride: 1},
		{Lo: 0x200e, Hi: 0x200f, Stride: 1},
		{Lo: 0x202a, Hi: 0x202e, Stride: 1},
		{Lo: 0x2061, Hi: 0x2063, Stride: 1},
		{Lo: 0x206a, Hi: 0x206f, Stride: 1},
		{Lo: 0x2ff0, Hi: 0x2ffb, Stride: 1},
		{Lo: 0xfdd0, Hi: 0xfdef, Stride: 1},
		{Lo: 0xfff9, Hi: 0xffff, Stride: 1},
	},
	R32: []unicode.Range32{
		{Lo: 0x1d173, Hi: 0x1d17a, Stride: 1},
		{Lo: 0xe0001, Hi: 0xe007f, Stride: 1},
	},
}

func forbiddenInSASL(r rune) bool {
	return r&0xfffe == 0xfffe || unicode.In(r, unicode.Cc, unicode.Co, unicode.Zl, unicode.Zp, otherForbidden)
}

// mixesDirections reports what RFC 3454, section 6, forbids: text of both directions, or such as does not begin and end in
// its own.
func mixesDirections(s string) bool {
	var left, right bool
	var last bidi.Class
	first := direction(s)
	for _, r := range s {
		last = direction(string(r))
		left = left || last == bidi.L
		right = right || last == bidi.R
	}
	return right && (left || first != bidi.R || last != bidi.R)
}

// direction is that of the first letter, with R for Arabic ones too.
func direction(s string) bidi.Class {
	p, _ := bidi.LookupString(s)
	if p.Class() == bidi.AL {
		return bidi.R
	}
	return p.Class()
}
