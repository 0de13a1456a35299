package main

// From SMTP commands to the queue: envelope, refusals, and a 250 only for what is safe.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/queue"
	"github.com/sortie-mail/sortie/relaycheck"
)

// A front is the SMTP server's side of the relay: it makes an envelope of a client's commands and hands the message to the
// queue.
type front struct {
	opts    *options
	policy  *relaycheck.Policy
	senders *senders
	queue   mailQueue
	log     *slog.Logger
	metrics *metrics
	count   atomic.Uint32
}

// newServer sets up go-smtp. It has no limits of time: the connection has them (see conn).
func newServer(f *front) *smtp.Server {
	s := smtp.NewServer(f)
	s.Domain = f.opts.hostname
	s.MaxMessageBytes = f.opts.maxSize
	s.MaxRecipients = f.opts.maxRecipients
	s.MaxLineLength = maxCommand
	s.EnableSMTPUTF8, s.EnableDSN, s.EnableBINARYMIME = true, true, true
	s.EnableREQUIRETLS = true // as a parameter; the connection offers it, which alone knows of TLS
	s.ErrorLog = serverLog{f.log}
	return s
}

// maxCommand is the longest command line: the longest parameters of RFC 3461 and RFC 4954 fit several times.
const maxCommand = 16 << 10

// NewSession implements smtp.Backend.
func (f *front) NewSession(c *smtp.Conn) (smtp.Session, error) {
	nc := c.Conn().(*conn)
	return &session{front: f, smtp: c, conn: nc, stranger: nc.class.name == "stranger"}, nil
}

// A session is one client's. go-smtp calls its methods one at a time.
type session struct {
	*front
	smtp     *smtp.Conn
	conn     *conn
	stranger bool
	refusals int
	mail     atomic.Pointer[transaction] // nil where MAIL is to come; of BDAT a goroutine of its own asks for it
}

// A transaction is one message on its way in.
type transaction struct {
	env    queue.Envelope
	id     string // names it in its Received field, which is written before the queue gives an id; the log has both
	helo   string
	client netip.Addr
	esmtp  bool
	cipher string // of TLS; "" in the clear
}

// Mail implements smtp.Session. A reverse-path that is none is refused here; that its client may not relay a stranger hears
// at RCPT, where the log can say what was wanted.
func (s *session) Mail(from string, opts *smtp.MailOptions) error {
	from = s.conn.path(from)
	switch {
	case s.conn.list.isEnding():
		return s.refuse("shutdown", reply(421, "4.3.2", "shutting down; try again later"))
	case s.mail.Load() != nil:
		return s.refuse("sequence", reply(503, "5.5.1", "a transaction is open already: finish it, or send RSET"))
	case !s.conn.greeted:
		return s.refuse("sequence", reply(503, "5.5.1", "say EHLO again: what was said before TLS does not count"))
	case opts.RequireTLS && s.conn.cipher == "":
		return s.refuse("tls", reply(530, "5.7.10", "REQUIRETLS needs a connection that has TLS itself: send STARTTLS first"))
	case from != "":
		if err := s.checkAddress(from, opts.UTF8, "5.1.7"); err != nil {
			return s.refuse("address", err, "sender", shown(from))
		}
	}
	if err := s.checkSender(from); err != nil {
		return s.refuse("sender", err, "sender", shown(from))
	}
	env := queue.Envelope{
		From: from, EnvelopeID: opts.EnvelopeID, Return: dsn.Return(opts.Return), UTF8: opts.UTF8,
		Binary: opts.Body == smtp.BodyBinaryMIME, RequireTLS: opts.RequireTLS,
	}
	if err := readParameters(&env, s.conn.taken, time.Now()); err != nil {
		return s.refuse("parameter", err, "sender", shown(from))
	}
	s.mail.Store(&transaction{
		env: env, id: s.newID(), helo: s.smtp.Hostname(), client: s.conn.client, esmtp: s.conn.esmtp, cipher: s.conn.cipher,
	})
	s.conn.transaction(true, from)
	return nil
}

// checkSender asks DNS about a sender. For strangers it asks nothing: they are refused at RCPT.
func (s *session) checkSender(from string) *smtp.SMTPError {
	if s.stranger || from == "" {
		return nil
	}
	return s.senders.refusal(from)
}

// newID names a transaction: the time in microseconds, and a number that keeps those of one instant apart.
func (s *session) newID() string {
	return strconv.FormatInt(time.Now().UnixMicro(), 36) + "-" + strconv.FormatUint(uint64(s.count.Add(1)%(36*36)), 36)
}

// Rcpt implements smtp.Session.
func (s *session) Rcpt(to string, opts *smtp.RcptOptions) error {
	to = s.conn.path(to)
	env := &s.mail.Load().env
	if !s.policy.Allows(relaycheck.Client{Addr: s.conn.client, HELO: s.smtp.Hostname(), Sender: env.From, Recipient: to}) {
		return s.refuse("relay", reply(550, "5.7.1", "<%s>: this server relays only for its own users, and %s is none of their addresses", shown(to), s.conn.client), "recipient", shown(to))
	}
	if err := s.checkAddress(to, env.UTF8, "5.1.3"); err != nil {
		return s.refuse("address", err, "recipient", shown(to))
	}
	if err := s.suppressed(to); err != nil {
		return s.refuse("suppressed", err, "recipient", shown(to))
	}
	r := queue.Recipient{Address: to, Original: dsn.Address{Type: strings.ToLower(string(opts.OriginalRecipientType)), Addr: opts.OriginalRecipient}}
	for _, word := range opts.Notify {
		n, err := dsn.ParseNotify(string(word))
		if err != nil {
			return s.refuse("address", reply(501, "5.5.4", "%v", err), "recipient", shown(to))
		}
		r.Notify |= n
	}
	env.To = append(env.To, r)
	return nil
}

// checkAddress refuses an address to which mail could never be delivered.
func (s *session) checkAddress(address string, utf8 bool, status dsn.Status) *smtp.SMTPError {
	if err := queue.CheckAddress(address); err != nil {
		return reply(553, status, "<%s>: %v", shown(address), err)
	}
	if !utf8 && strings.ContainsFunc(address, func(r rune) bool { return r > 0x7e }) {
		return reply(553, "5.6.7", "<%s> needs the SMTPUTF8 parameter of MAIL (RFC 6531)", shown(address))
	}
	return nil
}

// Data implements smtp.Session, for DATA and for BDAT. When it reports success, the message is safe.
func (s *session) Data(r io.Reader) error {
	t := s.mail.Load()
	if t == nil { // RSET came before the first octet of a chunk
		return smtp.ErrDataReset
	}
	s.conn.messageBegins()
	id, err := s.take(t, r)
	s.conn.messageEnds(err == nil)
	if err != nil {
		return err
	}
	return reply(250, "2.0.0", "queued as %s", id)
}

func (s *session) take(t *transaction, r io.Reader) (queue.ID, error) {
	var dots *dotReader
	if _, chunks := r.(*io.PipeReader); !chunks {
		dots = newDotReader(s.conn, s.opts.maxSize)
		r = dots
		s.conn.owed = endOfData
	}
	lines := &lineCheck{r: r, binary: t.env.Binary}
	id, err := s.queue.Enqueue(context.Background(), t.env, s.reception(t).Reader(lines))
	if dots != nil && !dots.drain() {
		s.conn.last.Store(true) // nobody knows where the next command begins
	}
	if err != nil {
		return "", s.refused(err)
	}
	s.accepted(t, id, lines.size)
	return id, nil
}

// reception is how a message came here, for its header.
func (s *session) reception(t *transaction) *queue.Reception {
	return &queue.Reception{
		Host: s.opts.hostname, ID: t.id, Helo: t.helo, Client: t.client, ESMTP: t.esmtp, TLS: t.cipher,
		Envelope: &t.env, Time: time.Now(), Submission: s.opts.submission,
	}
}

func (s *session) accepted(t *transaction, id queue.ID, size int64) {
	s.metrics.accepted.Inc()
	s.metrics.bytes.Add(float64(size))
	s.log.LogAttrs(context.Background(), slog.LevelInfo, "accepted", slog.String("id", string(id)), slog.String("transaction", t.id),
		slog.String("sender", t.env.From), slog.String("recipient", t.env.To[0].Address), slog.Int("recipients", len(t.env.To)),
		slog.Int64("size", size), slog.String("client", t.client.String()))
}

// endOfData is for go-smtp's own reader, which has not seen the message.
var endOfData = []byte(".\r\n")

// refused makes a reply of what kept a message out of the queue.
func (s *session) refused(err error) error {
	var envelope *queue.EnvelopeError
	var big *tooBigError
	switch {
	case errors.Is(err, errBareCR), errors.Is(err, errBareLF):
		return s.refuse("line_ends", reply(550, "5.6.0", "the message has %v; lines must end in CR LF (RFC 5321, section 2.3.8)", err))
	case errors.As(err, &big):
		return s.refuse("size", reply(552, "5.3.4", "%v", big))
	case errors.As(err, &envelope) && envelope.Field == "message":
		return s.refuse("size", reply(552, "5.3.4", "the message cannot be taken: %s", envelope.Problem))
	case errors.As(err, &envelope):
		return s.refuse("address", reply(553, "5.1.3", "%v", envelope))
	case errors.Is(err, queue.ErrFull):
		s.log.Error("no room for mail", "error", err)
		return s.refuse("full", reply(452, "4.3.1", "no room for more mail now; try again later"))
	case errors.Is(err, queue.ErrClosed):
		return s.refuse("shutdown", reply(421, "4.3.2", "shutting down; try again later"))
	case errors.Is(err, errBrokenOff) && s.conn.list.isEnding():
		return s.refuse("shutdown", reply(421, "4.3.2", "shutting down before the message came to its end; try again later"))
	case errors.Is(err, errBrokenOff):
		return s.refuse("broken_off", reply(421, "4.4.2", "the message did not come to its end"))
	case errors.Is(err, smtp.ErrDataReset): // go-smtp answers the RSET
		return err
	}
	s.log.Error("the queue does not take mail", "error", err)
	return s.refuse("queue", reply(451, "4.3.0", "the queue cannot take mail now; try again later"))
}

// maxRefusals is after how many refused commands a stranger has to leave.
const maxRefusals = 10

// refuse counts a refusal, logs it with more, and tells the client. After a 421 the connection ends (RFC 5321, section 3.8).
func (s *session) refuse(reason string, answer *smtp.SMTPError, more ...any) error {
	if s.stranger {
		if s.refusals++; s.refusals >= maxRefusals {
			answer = reply(421, "4.7.0", "too many refused commands; closing the connection")
		}
	}
	if answer.Code == 421 {
		s.conn.last.Store(true)
	}
	if t := s.mail.Load(); t != nil {
		more = append(more, "helo", shown(t.helo), "transaction", t.id)
	}
	s.conn.told.Store(&answer.Message)
	status := answer.EnhancedCode
	s.conn.note(reason, fmt.Sprintf("%d %d.%d.%d %s", answer.Code, status[0], status[1], status[2], answer.Message), more...)
	return answer
}

// Reset implements smtp.Session.
func (s *session) Reset() {
	s.mail.Store(nil)
	s.conn.transaction(false, "")
}

// Logout implements smtp.Session.
func (s *session) Logout() error { return nil }

// reply is an SMTP reply as go-smtp takes it.
func reply(code int, status dsn.Status, format string, args ...any) *smtp.SMTPError {
	e := &smtp.SMTPError{Code: code, Message: fmt.Sprintf(format, args...)}
	fmt.Sscanf(string(status), "%d.%d.%d", &e.EnhancedCode[0], &e.EnhancedCode[1], &e.EnhancedCode[2])
	return e
}

// serverLog makes log lines of what go-smtp reports.
type serverLog struct{ *slog.Logger }

// Printf implements smtp.Logger.
func (l serverLog) Printf(format string, args ...any) {
	l.Warn("SMTP server: " + strings.TrimSpace(fmt.Sprintf(format, args...)))
}

// Println implements smtp.Logger.
func (l serverLog) Println(args ...any) { l.Printf("%s", fmt.Sprint(args...)) }
