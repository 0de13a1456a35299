package main

import (
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// All parts together never need more files than there are, and each has some; with plenty nobody gets less than was asked for.
func TestBudget(t *testing.T) {
	most := fileLimit()
	for _, files := range []int{leastFiles, 100, 128, 256, 512, 1024, 4096, most} {
		for _, o := range []options{{maxConnections: 1000, maxDeliveries: 5000}, {maxConnections: 2, maxDeliveries: 1}, {maxConnections: 100_000, maxDeliveries: 10}} {
			t.Run(fmt.Sprint(files, o.maxConnections, o.maxDeliveries), func(t *testing.T) {
				o.files = files
				b := newBudget(&o)
				spool := min(files/8, spoolFiles)
				if files > leastFiles {
					assert.LessOrEqual(t, ownFiles+spool+b.sockets+b.console+2*(b.sessions+b.attempts), files)
				}
				assert.GreaterOrEqual(t, b.sessions, 2)
				assert.GreaterOrEqual(t, b.attempts, 1)
				assert.LessOrEqual(t, b.sessions, o.maxConnections)
				assert.LessOrEqual(t, b.attempts, o.maxDeliveries)
			})
		}
	}
	b := newBudget(&options{maxConnections: 100, maxDeliveries: 100, files: 1024})
	assert.Equal(t, []int{100, 100}, []int{b.sessions, b.attempts})
	b = newBudget(&options{maxConnections: 100, maxDeliveries: 5000, files: 4096, memory: 64 << 20})
	assert.EqualValues(t, 8<<20, b.intake)
	assert.Equal(t, 256, b.attempts)
}

// fullListener fails for want of files as long as the spare file is open.
type fullListener struct {
	net.Listener
	spare *spare
	conns []net.Conn
	err   error
}

func (l *fullListener) Accept() (net.Conn, error) {
	if l.spare.file != nil && l.err != nil {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", l.err)}
	}
	c := l.conns[0]
	l.conns = l.conns[1:]
	return c, nil
}

func TestSpareFile(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	s := newSpare()
	l := &fullListener{spare: s, conns: []net.Conn{a, b}}
	nc, short, err := s.accept(l)
	require.NoError(t, err)
	assert.False(t, short)
	assert.Equal(t, a, nc)

	l.err = syscall.EMFILE
	nc, short, err = s.accept(l)
	require.NoError(t, err, "the spare file makes room for the client")
	assert.Equal(t, b, nc)
	assert.False(t, short, "and there is one again")
	assert.NotNil(t, s.file)

	l.err = syscall.ECONNABORTED
	_, _, err = s.accept(l)
	assert.ErrorIs(t, err, syscall.ECONNABORTED)
	s.file.Close()
}
