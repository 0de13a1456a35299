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

var idEncoding = base32.NewEncoding("0123456789abcdefghijkmnpqrstuvwx").WithPadding(base32.NoPadding)

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

// Seen makes all later IDs greater than id. An id that New did not make is ignored.
func (g *IDs) Seen(id queue.ID) {
	b, err := idEncoding.DecodeString(string(id))
	if err != nil || len(b) != 8 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = max(g.last, binary.BigEndian.Uint64(b))
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
