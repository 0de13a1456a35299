package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
)

// maxMessage is far more than any host takes, and less than fills a disk.
const maxMessage = 2 << 30

// A message is a copy of what came on standard input, which can be read only once.
type message struct {
	file *os.File
	size int64
}

// readMessage reads standard input into a file without a name, and says so where somebody is to type it.
func readMessage(in *os.File, log io.Writer) (m *message, code int, err error) {
	if isTerminal(in) {
		fmt.Fprintln(log, "send: type the message: header fields, an empty line, the text; "+
			"Ctrl-D on a line by itself ends it, Ctrl-C sends nothing")
	}
	file, err := os.CreateTemp("", "send-*.eml")
	if err != nil {
		return nil, exCantCreate, fmt.Errorf("the message has to be copied: %w", err)
	}
	os.Remove(file.Name())
	m = &message{file: file}
	m.size, err = io.Copy(file, io.LimitReader(in, maxMessage+1))
	switch {
	case err != nil:
		code, err = exIOErr, fmt.Errorf("the message could not be read from standard input: %w", err)
	case m.size == 0:
		code, err = exDataErr, fmt.Errorf("no message came on standard input: add <message.eml, or -explain to send nothing")
	case m.size > maxMessage:
		code, err = exDataErr, fmt.Errorf("the message is longer than %d octets", int64(maxMessage))
	}
	if err != nil {
		m.close()
		return nil, code, err
	}
	m.doubt(log)
	return m, exOK, nil
}

// headerField is how a message begins (RFC 5322, section 2.2).
var headerField = regexp.MustCompile(`^[!-9;-~]+[ \t]*:`)

// doubt says what is allowed, and what few people mean.
func (m *message) doubt(log io.Writer) {
	start := make([]byte, 1000)
	n, _ := m.file.ReadAt(start, 0)
	if !headerField.Match(start[:n]) {
		fmt.Fprintln(log, "send: the message does not begin with a header field, like From: or Subject:. "+
			"It goes as it is; an empty line in front would make all of it text")
	}
}

// open gives the message from its start.
func (m *message) open() (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(m.file, 0, m.size)), nil
}

func (m *message) close() {
	m.file.Close()
	os.Remove(m.file.Name()) // where it could not be while it was open
}

// isTerminal reports whether somebody types.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}
