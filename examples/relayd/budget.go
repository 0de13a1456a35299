package main

// What the relay may use of the machine: files and memory, divided such that no part takes what another needs.

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"syscall"
)

// A budget is what each part of the relay may use. A client's connection and an attempt count as two files, because each may
// have a long message open besides.
type budget struct {
	files    int
	sessions int // of clients
	attempts int // at once, and connections for them
	sockets  int // for DNS
	console  int // connections

	memory int64 // 0 is no limit
	intake int64 // octets of messages that come in; 0 is the queue's own limit
}

const (
	ownFiles   = 32       // logs, listeners, the lock and the end of the log of the spool, what is read again, connections being refused
	spoolFiles = 64       // of the queue at most
	leastFiles = 64       // that any work is possible with
	leastBytes = 64 << 20 // likewise
)

// newBudget divides what there is. In the end sessions get a third of the files where there are not enough for both them and
// attempts: mail that is not taken can wait where it is, mail that was taken has to go out.
func newBudget(o *options) *budget {
	b := &budget{files: fileLimit(), memory: o.memory}
	if o.files > 0 {
		b.files = min(b.files, o.files)
	}
	b.sockets = min(max(b.files/8, 8), 256)
	b.console = min(max(b.files/32, 4), 32)
	spool := min(b.files/8, spoolFiles)
	pairs := max((b.files-ownFiles-b.sockets-b.console-spool)/2, 4)
	b.sessions = max(min(o.maxConnections, max(pairs/3, pairs-o.maxDeliveries)), 2)
	b.attempts = max(min(o.maxDeliveries, pairs-b.sessions), 1)
	if b.memory > 0 {
		b.intake = b.memory / 8
		b.attempts = max(min(b.attempts, int(b.memory/4/attemptBytes)), 1)
	}
	return b
}

// attemptBytes is what a waiting attempt costs, with what the system has of its connection.
const attemptBytes = 64 << 10

// fileLimit is how many files the process may have open: the hard limit, up to which package os raises the soft one.
func fileLimit() int {
	const many = 1 << 20
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return many
	}
	return int(min(limit.Cur, many))
}

// apply sets what holds for the whole process, and tells what is less than was asked for.
func (b *budget) apply(o *options, log *slog.Logger) {
	if b.memory > 0 {
		debug.SetMemoryLimit(b.memory)
	}
	if o.files > b.files {
		log.Warn("the system allows fewer open files than -files: raise its limit (ulimit -n)", "files", b.files)
	}
	if b.sessions < o.maxConnections || b.attempts < o.maxDeliveries {
		log.Warn("the limit of open files (ulimit -n, -files) or of memory (-memory) allows fewer connections or attempts at once than "+
			"-max-connections and -max-deliveries", "files", b.files, "connections", b.sessions, "attempts", b.attempts)
	}
}

// A spare file is given up where no more files can be opened, so that a client who comes then is told, and does not wait for
// somebody to answer. One goroutine uses it.
type spare struct{ file *os.File }

func newSpare() *spare {
	s := &spare{}
	s.keep()
	return s
}

// keep reports whether there is a spare file.
func (s *spare) keep() bool {
	if s.file == nil {
		s.file, _ = os.Open(os.DevNull)
	}
	return s.file != nil
}

// accept is that of the listener. short says that there is no file left but for this connection.
func (s *spare) accept(l net.Listener) (nc net.Conn, short bool, err error) {
	s.keep()
	nc, err = l.Accept()
	if s.file == nil || (!errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE)) {
		return nc, false, err
	}
	s.file.Close()
	s.file = nil
	nc, err = l.Accept()
	return nc, err == nil && !s.keep(), err
}
