package route

import (
	"context"
	"fmt"
	"hash/maphash"
	"strings"

	"golang.org/x/net/idna"
)

// An MXLookup finds the names of a domain's MX hosts, best first. A domain without MX records has none, and no error.
type MXLookup interface {
	MXHosts(ctx context.Context, domain string) ([]string, error)
}

// A Table is the standard [Router]: the most specific pattern wins. A lookup costs the same in a table of ten and of a
// million entries, and allocates nothing for addresses in ASCII. A Table does not change once it is parsed, and is safe
// for concurrent use.
type Table struct {
	// MX is asked where the table has mx: patterns and no more specific one matched. Set it before the first lookup;
	// without it those patterns are an error of the lookup. Its errors are errors of the lookup, which are temporary.
	MX MXLookup

	file    string
	text    string // all patterns as written, and their keys where those differ
	entries []entry
	lists   [][]Hop
	indexes [numRanks]index
	seed    maphash.Seed
}

// A rank is a kind of pattern. Lower ones win.
type rank uint8

const (
	rankAddress rank = iota
	rankAddressFold
	rankFrom
	rankFromFold
	rankDomain
	rankFromDomain
	rankSub
	rankFromSub
	rankMX
	rankMXSub
	rankAll
	numRanks
)

// entry is 20 octets: a table may have millions of them.
type entry struct {
	pattern, key       uint32 // where they begin in text
	list               uint32
	line               uint32
	patternLen, keyLen uint16
}

// An index finds entries of one rank by their key: open addressing. A slot holds the upper half of the key's hash, so that
// most misses cost no look at the entry, and in its lower half the entry's number plus one; 0 is an empty slot.
type index struct {
	slots []uint64
	count int
}

// upper is the part of a hash that slots hold.
const upper = 0xffffffff << 32

// maxKey is the longest key that a lookup has room for: a local part of 64 octets is the standard's limit
// (RFC 5321, section 4.5.3.1), and a domain of 255; what is longer matches no exact entry.
const maxKey = 512

// Route implements [Router].
func (t *Table) Route(ctx context.Context, q Query) (Route, error) {
	var toBuf, fromBuf [maxKey]byte
	to := normalize(q.Recipient, &toBuf)
	from := normalize(q.Sender, &fromBuf)
	if e := t.find(&to, &from); e != nil {
		return t.route(e), nil
	}
	if t.indexes[rankMX].count+t.indexes[rankMXSub].count > 0 {
		e, err := t.findMX(ctx, string(to.domain()))
		if err != nil {
			return Route{}, err
		}
		if e != nil {
			return t.route(e), nil
		}
	}
	if e := t.lookup(rankAll, nil); e != nil {
		return t.route(e), nil
	}
	return Route{Hops: directHops}, nil
}

func (t *Table) route(e *entry) Route {
	return Route{Hops: t.lists[e.list], Pattern: t.text[e.pattern : e.pattern+uint32(e.patternLen)], File: t.file, Line: int(e.line)}
}

// find looks for the most specific pattern that needs no DNS.
func (t *Table) find(to, from *address) *entry {
	if e := t.findAddress(rankAddress, to); e != nil {
		return e
	}
	if e := t.findAddress(rankFrom, from); e != nil {
		return e
	}
	if e := t.lookup(rankDomain, to.domain()); e != nil {
		return e
	}
	if e := t.lookup(rankFromDomain, from.domain()); e != nil {
		return e
	}
	if e := t.findSub(rankSub, to.domain()); e != nil {
		return e
	}
	return t.findSub(rankFromSub, from.domain())
}

// findAddress looks for a whole address, then for one whose local part matches in any case.
func (t *Table) findAddress(r rank, a *address) *entry {
	if e := t.lookup(r, a.key); e != nil {
		return e
	}
	if t.indexes[r+1].count == 0 || len(a.key) > maxKey {
		return nil
	}
	var buf [maxKey]byte
	return t.lookup(r+1, appendLower(buf[:0], a.key))
}

// findSub looks for the longest "*." domain above a domain.
func (t *Table) findSub(r rank, domain []byte) *entry {
	if t.indexes[r].count == 0 {
		return nil
	}
	for i, c := range domain {
		if c == '.' && i > 0 && i+1 < len(domain) {
			if e := t.lookup(r, domain[i+1:]); e != nil {
				return e
			}
		}
	}
	return nil
}

// findMX looks for a pattern of the recipient domain's MX hosts, best host first.
func (t *Table) findMX(ctx context.Context, domain string) (*entry, error) {
	if t.MX == nil {
		return nil, fmt.Errorf("route: %s has mx: patterns, and no resolver was given to look up the MX hosts of %s", t.file, domain)
	}
	hosts, err := t.MX.MXHosts(ctx, domain)
	if err != nil {
		return nil, fmt.Errorf("route: mx: patterns need the MX hosts of %s: %w", domain, err)
	}
	for _, host := range hosts {
		name := []byte(domainKey(host))
		if e := t.lookup(rankMX, name); e != nil {
			return e, nil
		}
		if e := t.findSub(rankMXSub, name); e != nil {
			return e, nil
		}
	}
	return nil, nil
}

func (t *Table) lookup(r rank, key []byte) *entry {
	x := &t.indexes[r]
	if x.count == 0 {
		return nil
	}
	hash := maphash.Bytes(t.seed, key)
	mask := uint64(len(x.slots) - 1)
	for i := hash & mask; x.slots[i] != 0; i = (i + 1) & mask {
		if (x.slots[i]^hash)&upper != 0 {
			continue
		}
		e := &t.entries[uint32(x.slots[i])-1]
		if t.text[e.key:e.key+uint32(e.keyLen)] == string(key) {
			return e
		}
	}
	return nil
}

// insert adds an entry to the index of its rank, or returns the one that is there already.
func (t *Table) insert(r rank, number int) (twin *entry) {
	e := &t.entries[number]
	key := []byte(t.text[e.key : e.key+uint32(e.keyLen)])
	if twin := t.lookup(r, key); twin != nil {
		return twin
	}
	x := &t.indexes[r]
	if (x.count+1)*4 > len(x.slots)*3 {
		t.grow(x)
	}
	x.put(maphash.Bytes(t.seed, key), number+1)
	x.count++
	return nil
}

func (x *index) put(hash uint64, n int) {
	mask := uint64(len(x.slots) - 1)
	i := hash & mask
	for x.slots[i] != 0 {
		i = (i + 1) & mask
	}
	x.slots[i] = hash&upper | uint64(n)
}

func (t *Table) grow(x *index) {
	old := x.slots
	x.slots = make([]uint64, max(8, 2*len(old)))
	for _, slot := range old {
		if slot != 0 {
			e := &t.entries[uint32(slot)-1]
			x.put(maphash.String(t.seed, t.text[e.key:e.key+uint32(e.keyLen)]), int(uint32(slot)))
		}
	}
}

// Len is the number of entries.
func (t *Table) Len() int { return len(t.entries) }

// An address is one in the form of keys: local part as it is, "@", domain as A-labels in lower case.
type address struct {
	key []byte
	at  int // where the domain begins
}

func (a *address) domain() []byte { return a.key[a.at:] }

// normalize puts an address into buf where it fits, which for ASCII allocates nothing.
func normalize(s string, buf *[maxKey]byte) address {
	at := strings.LastIndexByte(s, '@') + 1
	domain := strings.TrimSuffix(s[at:], ".")
	key := buf[:0]
	if len(s) > maxKey {
		key = nil
	}
	key = append(key, s[:at]...)
	if isASCII(domain) {
		return address{appendLower(key, domain), at}
	}
	return address{append(key, domainKey(domain)...), at}
}

func appendLower[S string | []byte](b []byte, s S) []byte {
	for i := range len(s) {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return b
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// domainKey is a domain as A-labels in lower case without a final dot (RFC 5891). What is no domain name is only put
// in lower case.
func domainKey(domain string) string {
	domain = strings.TrimSuffix(domain, ".")
	if !isASCII(domain) {
		if a, err := idna.Lookup.ToASCII(domain); err == nil {
			return a
		}
	}
	return strings.ToLower(domain)
}
