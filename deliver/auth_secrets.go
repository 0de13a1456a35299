package deliver

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// leastSecret is how long a text must be, in octets, to be hidden: what is shorter stands in every other word, and hiding
// it hides nothing.
const leastSecret = 4

// secretForms are the forms in which a password or a token is sent, and might come back: as it is, written for JSON or a
// URL, and in base64, also amid other text. The longest come first, since shorter ones are parts of them.
func secretForms(secret string) []string {
	if len(secret) < leastSecret {
		return nil
	}
	var all []string
	texts := append(jsonForms(secret), secret, url.QueryEscape(secret), url.PathEscape(secret))
	for _, text := range longestFirst(texts) {
		all = append(all, text)
		for before := range 3 {
			all = append(all, amidBase64(base64.StdEncoding, text, before), amidBase64(base64.URLEncoding, text, before))
		}
		all = append(all, base64.StdEncoding.EncodeToString([]byte(text)), base64.URLEncoding.EncodeToString([]byte(text)))
	}
	return longestFirst(all)
}

// without takes secrets out of a text. It comes before a text is shortened: of a piece nobody knows what it was.
func without(secrets []string, text string) string {
	for _, s := range secrets {
		text = strings.ReplaceAll(text, s, "***")
	}
	return text
}

// withSecret adds what is to be hidden too.
func withSecret(secrets []string, more string) []string {
	return longestFirst(append(slices.Clone(secrets), more))
}

func longestFirst(all []string) []string {
	slices.SortFunc(all, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	all = slices.Compact(all)
	return slices.DeleteFunc(all, func(s string) bool { return len(s) < leastSecret })
}

// jsonForms are the ways in which usual encoders write a text within a JSON string.
func jsonForms(text string) (forms []string) {
	for _, html := range []bool{false, true} {
		var b strings.Builder
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(html)
		_ = e.Encode(text) // a string always can be
		form := b.String()[1 : b.Len()-len("\"\n")]
		ascii := inASCII(form)
		forms = append(forms, form, ascii, strings.ReplaceAll(form, "/", `\/`), strings.ReplaceAll(ascii, "/", `\/`))
	}
	return forms
}

// inASCII writes as \u00e9 what is not ASCII.
func inASCII(text string) string {
	var b []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		if unit < utf8.RuneSelf {
			b = append(b, byte(unit))
		} else {
			b = fmt.Appendf(b, `\u%04x`, unit)
		}
	}
	return string(b)
}

// amidBase64 is what base64 has of a text in any case, behind a number of octets modulo 3: the characters that depend on
// it alone.
func amidBase64(enc *base64.Encoding, text string, before int) string {
	all := enc.WithPadding(base64.NoPadding).EncodeToString(append(make([]byte, before), text...))
	from, to := (before*8+5)/6, (before+len(text))*8/6
	return all[from:to]
}

// What looks like a token or a password in the words of a token source: a value by its name, and long runs that are no
// words.
var (
	namedSecret = regexp.MustCompile(`(?i)((?:token|secret|assertion|password|passwd|key)(?:=["']?|["']\s*:\s*["'])|[?&]code=)[^\s"'&,;}]+`)
	authHeader  = regexp.MustCompile(`(?i)\b((?:bearer|basic)\s+)[^\s"'&,;}]+`)
	longRun     = regexp.MustCompile(`[A-Za-z0-9_~+/=-]{16,}`)
)

// withoutTokens takes out of an error's text what looks like a token in it.
func withoutTokens(text string) string {
	text = authHeader.ReplaceAllString(text, "${1}***")
	text = namedSecret.ReplaceAllString(text, "${1}***")
	return longRun.ReplaceAllStringFunc(text, func(run string) string {
		if strings.ContainsAny(run, "0123456789") || (strings.ToLower(run) != run && !strings.Contains(run, "/")) {
			return "***"
		}
		return run
	})
}
