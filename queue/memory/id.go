package memory

import (
	"encoding/base32"
	"encoding/binary"
	"sync"
	"time"

	"github.com/sortie-mail/sortie/queue"
)

// IDs makes message IDs: the time of acceptance in microseconds, and 12 bits that keep IDs of one instant apart,
// in 13 characters of base32 that sort as the number does. The zero value is ready; it is safe for concurrent use.
type IDs struct {
	mu   sync.Mutex
	last uint64 // guarded by mu
}

const idAlphabet = "0123456789abcdefghijkmnpqrstuvwx"

var idEncoding = base32.NewEncoding(idAlphabet).WithPadding(base32.NoPadding)

// New makes an ID for a message accepted at now. It is greater than all before it, even where the clock goes back.
func (g *IDs) New(now time.Time) queue.ID {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = max(g.last+1, uint64(now.UnixMicro())<<12)
	return encodeID(g.last)
}

func encodeID(n uint64) queue.ID {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	return queue.ID(idEncoding.EncodeToString(b[:]))
}

// number gives what an ID that New made stands for. It reports false for any other.
func number(id queue.ID) (n uint64, ok bool) {
	const last = 12 // the character that holds four bits only
	if len(id) != last+1 {
		return 0, false
	}
	for i := range last {
		v := idDigits[id[i]]
		if v < 0 {
			return 0, false
		}
		n = n<<5 | uint64(v)
	}
	v := idDigits[id[last]]
	return n<<4 | uint64(v)>>1, v >= 0 && v&1 == 0
}

// idDigits are the values of the characters of an ID; -1 is none.
var idDigits = func() (d [256]int8) {
	for i := range d {
		d[i] = -1
	}
	for v, c := range []byte(idAlphabet) {
		d[c] = int8(v)
	}
	return d
}()

// IsID reports whether an ID is one that [IDs] make: an [Index] knows no others.
func IsID(id queue.ID) bool { _, ok := number(id); return ok }

// Seen makes all later IDs greater than id. An id that New did not make is ignored.
func (g *IDs) Seen(id queue.ID) {
	n, ok := number(id)
	if !ok {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = max(g.last, n)
}

// Last is the newest ID, "" before the first.
func (g *IDs) Last() queue.ID {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.last == 0 {
		return ""
	}
	return encodeID(g.last)
}
