package main

// Log files that are written in large pieces and can be rotated.

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// A logFile is written in large pieces, at least every flushTime, and can be opened anew after it was moved away.
type logFile struct {
	path string // "" is standard error

	mu    sync.Mutex
	file  *os.File      // guarded by mu
	buf   *bufio.Writer // guarded by mu
	timer *time.Timer   // guarded by mu: runs while something is in buf
}

const (
	logBuffer = 64 << 10
	flushTime = 100 * time.Millisecond
)

func openLogFile(path string) (*logFile, error) {
	l := &logFile{path: path, file: os.Stderr}
	if path != "" {
		var err error
		if l.file, err = openAppend(path); err != nil {
			return nil, err
		}
	}
	l.buf = bufio.NewWriterSize(l.file, logBuffer)
	l.timer = time.AfterFunc(time.Hour, l.flush)
	l.timer.Stop()
	return l, nil
}

func openAppend(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, fmt.Errorf("the log cannot be written: %w", err)
	}
	return f, nil
}

var _ io.Writer = (*logFile)(nil)

// Write implements io.Writer.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf.Buffered() == 0 {
		l.timer.Reset(flushTime)
	}
	return l.buf.Write(p)
}

func (l *logFile) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write()
}

// write empties the buffer, with mu held. What a full disk does not take is gone: the log must not stop the mail.
func (l *logFile) write() {
	if l.buf.Flush() != nil {
		l.buf.Reset(l.file)
	}
}

// reopen closes the file and opens it again by its name, for logrotate. Where that fails the old one stays in use.
func (l *logFile) reopen() error {
	if l.path == "" {
		return nil
	}
	f, err := openAppend(l.path)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write()
	l.file.Close()
	l.file = f
	l.buf.Reset(f)
	return nil
}

// close writes what is left.
func (l *logFile) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer.Stop()
	l.write()
	if l.path != "" {
		l.file.Close()
	}
}
