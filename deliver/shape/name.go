package shape

import (
	"fmt"
	"hash/fnv"
	"net"
	"slices"
	"strings"
)

// from stands between the name of a site and a source address.
const from = " from "

// longestName is how many octets a name has that is made of hosts, about.
const longestName = 100

// Site names the site of a domain by the names of its MX hosts, in any order. Where all of the hosts are those of one rule it is
// the rule's name, else one made of the hosts: "(mx1|mx2).example.com". A domain without MX records is its own host. The name is
// stable, one word in lower case, and no longer than logs like it.
func (r *Rules) Site(hosts []string) string {
	r = r.orEmbedded()
	if len(hosts) == 1 { // which is what nearly always is
		host := lower(hosts[0])
		if name := r.provider(host); name != "" {
			return name
		}
		return nameOf([]string{host})
	}
	set := make([]string, len(hosts))
	for i, host := range hosts {
		set[i] = lower(host)
	}
	slices.Sort(set)
	set = slices.Compact(set)
	if name := r.providerOfAll(set); name != "" {
		return name
	}
	return nameOf(set)
}

// Smarthost names the site of a smarthost: its host and port, with the user where one logs in, since what it takes is a
// matter of the account. Without a port, host is the path of a socket.
func Smarthost(user, host, port string) string {
	name := net.JoinHostPort(tidy(host), tidy(port))
	if port == "" {
		name = "unix:" + tidy(host)
	}
	if user != "" {
		name = tidy(user) + "@" + name
	}
	return name
}

// From names a site as it is seen from a source address of ours: each has limits of its own. "" is the system's choice.
func From(site, source string) string {
	if source == "" {
		return site
	}
	return site + from + source
}

// hostOf gives the host of a smarthost's site, and whether it is one: names of other sites have no colon.
func hostOf(name string) (host string, isSmarthost bool) {
	i := strings.LastIndexByte(name, ':')
	if i < 0 {
		return "", false
	}
	return name[strings.LastIndexByte(name[:i], '@')+1 : i], true
}

// providerOfAll gives the provider of a set of hosts, where it is one: a stranger can put a provider's host among others.
func (r *Rules) providerOfAll(set []string) (name string) {
	for i, host := range set {
		switch other := r.provider(host); {
		case other == "" || (i > 0 && other != name):
			return ""
		default:
			name = other
		}
	}
	return name
}

func lower(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

// tidy makes of a name what may stand in a log: lower case, and nothing but letters, digits and a few signs.
func tidy(name string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.ContainsRune(".-_:/[]@+", c) {
			return c
		}
		return '?'
	}, lower(name))
}

// nameOf makes a name of a set of hosts: what they have in common at the end once, "(mx1|mx2).example.com".
func nameOf(set []string) string {
	switch len(set) {
	case 0:
		return "none"
	case 1:
		return bounded(set, strings.ReplaceAll(tidy(set[0]), ":", "-"))
	}
	end := commonEnd(set)
	heads := make([]string, len(set))
	for i, host := range set {
		heads[i] = tidy(strings.TrimSuffix(host, end))
	}
	return bounded(set, strings.ReplaceAll("("+strings.Join(heads, "|")+")"+tidy(end), ":", "-"))
}

// commonEnd is the labels that all names end with, with a dot before them, so that each keeps one of its own.
func commonEnd(set []string) string {
	end := set[0]
	for {
		i := strings.IndexByte(end[min(1, len(end)):], '.')
		if i < 0 {
			return ""
		}
		end = end[i+1:]
		if !slices.ContainsFunc(set, func(host string) bool { return !strings.HasSuffix(host, end) || len(host) == len(end) }) {
			return end
		}
	}
}

// bounded shortens a name that is too long, or that other hosts could have too because of what was left out of theirs, and
// adds a checksum of the hosts.
func bounded(set []string, name string) string {
	if len(name) <= longestName && !strings.ContainsAny(name, "?") {
		return name
	}
	sum := fnv.New64a()
	for _, host := range set {
		fmt.Fprintln(sum, host)
	}
	return fmt.Sprintf("%s~%x", name[:min(len(name), longestName)], sum.Sum64())
}
