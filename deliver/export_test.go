package deliver

import (
	"bufio"

	"github.com/sortie-mail/sortie/deliver/resolve"
	"github.com/sortie-mail/sortie/dsn"
)

// What tests of the package see besides its API: what no far end and no setting can bring about, and parsers to fuzz.
var (
	OwnAddresses = ownAddresses
	Visible      = visible
)

// ReadReply reads a reply as from a host.
func ReadReply(r *bufio.Reader) (dsn.Reply, error) {
	return readReply(r, func(line string) string { return line })
}

// The bounds on replies.
const (
	MaxReply      = maxReply
	MaxReplyLine  = maxReplyLine
	MaxReplyLines = maxReplyLines
)

// MaxAbsent bounds how many addresses are remembered not to answer.
const MaxAbsent = maxAbsent

// Absent is how many are.
func Absent(d *Deliverer) int {
	d.absent.mu.Lock()
	defer d.absent.mu.Unlock()
	return len(d.absent.known)
}

// MadeResolver is the resolver of a Deliverer that was given none.
func MadeResolver(d *Deliverer) *resolve.Resolver {
	d.init()
	return d.set.made
}

// InUse is how many connections of [Limits].Connections are taken.
func InUse(d *Deliverer) int {
	d.budget.mu.Lock()
	defer d.budget.mu.Unlock()
	return d.budget.used
}

// OpenTo is how many connections count at sites.
func OpenTo(d *Deliverer) (n int) {
	d.pool.census.mu.Lock()
	defer d.pool.census.mu.Unlock()
	for _, open := range d.pool.census.open {
		n += open
	}
	return n
}
