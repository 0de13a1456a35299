package reason

import (
	"net/url"
	"slices"
	"strings"
)

// What of a remote server's own links is passed on.
const (
	maxRemoteLinks = 3
	maxRemoteURL   = 300 // octets
)

// addRemote adds the links that stand in a reply, which are a stranger's: they are told as such, and only plain web addresses
// are taken. list is not written to.
func addRemote(list []Link, found []string, host string) []Link {
	title := "Link in the answer of the remote server"
	if host != "" && len(host) <= 255 {
		title = "Link in the answer of the remote server " + printable(host)
	}
	list = list[:len(list):len(list)]
	for n, i := 0, 0; i < len(found) && n < maxRemoteLinks; i++ {
		address := cleanURL(found[i])
		if address == "" || slices.ContainsFunc(list, func(l Link) bool { return l.URL == address }) {
			continue
		}
		list = append(list, Link{title, address})
		n++
	}
	return list
}

// cleanURL is a web address without the punctuation of the sentence around it; "" where it is none, hides where it leads behind a
// user name, or is too long.
func cleanURL(s string) string {
	s = strings.TrimRight(s, ".,;:!?'*_~|\\")
	for _, pair := range []string{"()", "[]", "{}"} {
		if strings.HasSuffix(s, pair[1:]) && !strings.Contains(s, pair[:1]) {
			s = strings.TrimRight(s, pair[1:]+".,;:!?'")
		}
	}
	if len(s) > 4 && equalFold(s[:4], "www.") {
		s = "http://" + s
	}
	if len(s) > maxRemoteURL {
		return ""
	}
	u, err := url.Parse(s)
	if err != nil || u.User != nil || u.Opaque != "" || !strings.Contains(u.Hostname(), ".") || !plainHost(u.Host) {
		return ""
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return ""
	}
	return u.String()
}

// plainHost reports whether a host and port have no octet that could hide another host.
func plainHost(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isWord(c) && c != '.' && c != '-' && c != ':' {
			return false
		}
	}
	return true
}

// printable leaves out of a host's name what is none.
func printable(host string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f || r == '<' || r == '>' || r == '"' {
			return -1
		}
		return r
	}, host)
}
