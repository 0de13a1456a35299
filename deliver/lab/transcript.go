package lab

import (
	"context"
	"fmt"
	"strings"
)

const (
	transcriptLimit = 4 << 20 // octets that a server's transcript keeps, the first ones
	lineShown       = 512     // octets of one line that a transcript shows
)

// Transcript gives what was said, as text: a line each, "#2 C: " and "#2 S: " in front for client and server of the
// second connection, "#2 - " for what happened. Bodies are given as their size, credentials as "***".
func (s *Server) Transcript() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.transcript.String()
}

// WaitTranscript waits until the transcript contains text: "C: DATA", say, to know that a session has come to that
// point. The error is ctx's.
func (s *Server) WaitTranscript(ctx context.Context, text string) error {
	return s.Wait(ctx, func() bool { return strings.Contains(s.Transcript(), text) })
}

func (s *Server) record(session int, who, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.transcript.Len() < transcriptLimit {
		for line := range strings.SplitSeq(strings.TrimRight(text, "\r\n"), "\n") {
			fmt.Fprintf(&s.transcript, "#%d %s %s\n", session, who, printable(strings.TrimRight(line, "\r")))
		}
	}
	s.touch()
}

// printable keeps a transcript a text: octets that are none are shown as in Go.
func printable(line string) string {
	if len(line) > lineShown {
		line = line[:lineShown] + "…"
	}
	for _, r := range line {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return fmt.Sprintf("%q", line)
		}
	}
	return line
}
