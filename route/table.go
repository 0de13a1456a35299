package route

import (
	"context"
	"encoding/binary"
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
	records string // of all entries, see ref
	count   int
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

// A ref is one more than where the record of an entry begins; 0 is no entry. A record is, in little endian,
//
//	list uint32, line uint32, length of the pattern uint16, start of the key behind the head uint16, its length uint16
//
// and then the pattern as written, and the key where it is not a part of that. So a lookup touches memory in two places, the
// index and the record, in a table that may be far larger than any cache.
type ref uint32

// recordHead is how long a record's head is.
const recordHead = 14

func appendHead(b []byte, list uint32, line, patternLen, keyStart, keyLen int) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(le.AppendUint32(b, list), uint32(line))
	return le.AppendUint16(le.AppendUint16(le.AppendUint16(b, uint16(patternLen)), uint16(keyStart)), uint16(keyLen))
}

// record gives an entry's record, and everything behind it.
func (t *Table) record(r ref) string { return t.records[r-1:] }

func (t *Table) key(r ref) string {
	rec := t.record(r)
	start := recordHead + u16(rec[10:])
	return rec[start : start+u16(rec[12:])]
}

func (t *Table) pattern(r ref) string {
	rec := t.record(r)
	return rec[recordHead : recordHead+u16(rec[8:])]
}

func (t *Table) line(r ref) int { return u32(t.record(r)[4:]) }

func u16(s string) int { return int(s[0]) | int(s[1])<<8 }
func u32(s string) int { return u16(s) | u16(s[2:])<<16 }

// An index finds entries of one rank by their key: open addressing. A slot has a tag of 8 bits of the key's hash, 0 where it
// is empty, and a ref. Most keys that are not there cost a look at the tags alone, which are small enough for a cache.
type index struct {
	tags  []uint8
	refs  []ref
	count int
}

func tagOf(hash uint64) uint8 { return max(uint8(hash>>56), 1) }

// The longest address and domain that a pattern matches. The standard's limits are 64 octets before the @ and 255 after it
// (RFC 5321, section 4.5.3.1). What is longer costs no lookup, and matches * alone.
const (
	maxKey    = 512
	maxDomain = 255
)

// Route implements [Router].
func (t *Table) Route(ctx context.Context, q Query) (Route, error) {
	var toBuf, fromBuf [maxKey]byte
	to := normalize(q.Recipient, &toBuf)
	from := normalize(q.Sender, &fromBuf)
	if e := t.find(&to, &from); e != 0 {
		return t.route(e), nil
	}
	if t.indexes[rankMX].count+t.indexes[rankMXSub].count > 0 && hasMX(to.domain()) {
		e, err := t.findMX(ctx, string(to.domain()))
		if err != nil {
			return Route{}, err
		}
		if e != 0 {
			return t.route(e), nil
		}
	}
	if e := t.lookup(rankAll, nil); e != 0 {
		return t.route(e), nil
	}
	return Route{Hops: directHops}, nil
}

func (t *Table) route(r ref) Route {
	return Route{Hops: t.lists[u32(t.record(r))], Pattern: t.pattern(r), File: t.file, Line: t.line(r)}
}

// find looks for the most specific pattern that needs no DNS.
func (t *Table) find(to, from *address) ref {
	if e := t.findAddress(rankAddress, to); e != 0 {
		return e
	}
	if e := t.findAddress(rankFrom, from); e != 0 {
		return e
	}
	if e := t.lookup(rankDomain, to.domain()); e != 0 {
		return e
	}
	if e := t.lookup(rankFromDomain, from.domain()); e != 0 {
		return e
	}
	if e := t.findSub(rankSub, to.domain()); e != 0 {
		return e
	}
	return t.findSub(rankFromSub, from.domain())
}

// findAddress looks for a whole address, then for one whose local part matches in any case.
func (t *Table) findAddress(r rank, a *address) ref {
	if e := t.lookup(r, a.key); e != 0 {
		return e
	}
	if t.indexes[r+1].count == 0 || len(a.key) > maxKey {
		return 0
	}
	var buf [maxKey]byte
	return t.lookup(r+1, foldKey(buf[:0], a.key))
}

// foldKey is the form of keys in which local parts match in any case. It allocates nothing for ASCII.
func foldKey(buf, key []byte) []byte {
	if isASCII(key) {
		return appendLower(buf, key)
	}
	return append(buf, strings.ToLower(string(key))...)
}

// findSub looks for the longest "*." domain above a domain.
func (t *Table) findSub(r rank, domain []byte) ref {
	if t.indexes[r].count == 0 || len(domain) > maxDomain {
		return 0
	}
	for i, c := range domain {
		if c == '.' && i > 0 && i+1 < len(domain) {
			if e := t.lookup(r, domain[i+1:]); e != 0 {
				return e
			}
		}
	}
	return 0
}

// hasMX reports whether there is a name to ask for: an address literal has none.
func hasMX(domain []byte) bool {
	return len(domain) > 0 && len(domain) <= maxDomain && domain[0] != '['
}

// findMX looks for a pattern of the recipient domain's MX hosts, best host first.
func (t *Table) findMX(ctx context.Context, domain string) (ref, error) {
	if t.MX == nil {
		return 0, fmt.Errorf("route: %s has mx: patterns, and no resolver was given to look up the MX hosts of %s", t.file, domain)
	}
	hosts, err := t.MX.MXHosts(ctx, domain)
	if err != nil {
		return 0, fmt.Errorf("route: mx: patterns need the MX hosts of %s: %w", domain, err)
	}
	for _, host := range hosts {
		name := []byte(domainKey(host))
		if e := t.lookup(rankMX, name); e != 0 {
			return e, nil
		}
		if e := t.findSub(rankMXSub, name); e != 0 {
			return e, nil
		}
	}
	return 0, nil
}

func (t *Table) lookup(r rank, key []byte) ref {
	x := &t.indexes[r]
	if x.count == 0 || len(key) > maxKey {
		return 0
	}
	hash := maphash.Bytes(t.seed, key)
	mask, tag := uint64(len(x.tags)-1), tagOf(hash)
	for i := hash & mask; x.tags[i] != 0; i = (i + 1) & mask {
		if x.tags[i] == tag && t.key(x.refs[i]) == string(key) {
			return x.refs[i]
		}
	}
	return 0
}

// insert adds an entry to the index of its rank.
func (t *Table) insert(r rank, e ref) {
	x := &t.indexes[r]
	if (x.count+1)*4 > len(x.tags)*3 {
		t.grow(x)
	}
	x.put(maphash.String(t.seed, t.key(e)), e)
	x.count++
	t.count++
}

func (x *index) put(hash uint64, e ref) {
	mask := uint64(len(x.tags) - 1)
	i := hash & mask
	for x.tags[i] != 0 {
		i = (i + 1) & mask
	}
	x.tags[i], x.refs[i] = tagOf(hash), e
}

func (t *Table) grow(x *index) {
	old := x.refs
	size := max(8, 2*len(old))
	x.tags, x.refs = make([]uint8, size), make([]ref, size)
	for _, e := range old {
		if e != 0 {
			x.put(maphash.String(t.seed, t.key(e)), e)
		}
	}
}

// Len is the number of entries.
func (t *Table) Len() int { return t.count }

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

func isASCII[S string | []byte](s S) bool {
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
