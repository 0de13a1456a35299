package main

// Whether anybody could answer a sender, asked before its mail is taken.

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/sortie-mail/sortie/deliver"
)

// What -check-sender looks at.
const (
	checkNothing = "no"
	checkNullMX  = "null-mx" // a domain that says that it takes no mail (RFC 7505, section 4.2)
	checkExists  = "exists"  // and one that does not exist
)

// A client waits for a moment at most for what is a courtesy to it. A domain whose DNS is in trouble is not asked about again before
// senderRest has passed, and none is before silenceRest has where DNS did not answer in time: a door behind a broken resolver is
// not a slow one.
const (
	senderRest  = 10 * time.Second
	silenceRest = time.Minute
	maxResting  = 10_000 // domains
)

// senders judges reverse-paths.
type senders struct {
	check func(ctx context.Context, from string) error // Deliverer.CheckSender
	what  string
	wait  time.Duration // that a client waits at most

	mu      sync.Mutex
	resting map[string]time.Time // domains that are asked about again then; guarded by mu
	silent  time.Time            // nothing is asked before; guarded by mu
}

// refusal is why mail of a sender is not taken; nil where it is. Trouble with DNS never refuses.
func (s *senders) refusal(from string) *smtp.SMTPError {
	domain := strings.ToLower(from[strings.LastIndexByte(from, '@')+1:])
	if s.what == checkNothing || s.rests(domain) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.wait)
	defer cancel()
	var why *deliver.Error
	switch err := s.check(ctx, from); {
	case !errors.As(err, &why):
	case why.Temporary:
		s.rest(domain, ctx.Err() != nil)
	case why.Status == "5.7.27" || s.what == checkExists:
		return reply(550, why.Status, "<%s>: %v", shown(from), why.Err)
	}
	return nil
}

func (s *senders) rests(domain string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	return now.Before(s.silent) || now.Before(s.resting[domain])
}

// rest lets a domain rest, or where DNS was silent all of them.
func (s *senders) rest(domain string, silent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if silent {
		s.silent = time.Now().Add(silenceRest)
		return
	}
	if s.resting == nil || len(s.resting) >= maxResting {
		s.resting = map[string]time.Time{}
	}
	s.resting[domain] = time.Now().Add(senderRest)
}
