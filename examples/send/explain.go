package main

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/route"
)

// explain tells where the mail of each recipient goes. The exit code is that of an attempt whose hosts would take everything.
func (s *sender) explain(ctx context.Context, ways []*way, unrouted []deliver.Outcome) int {
	code := exOK
	for i := range unrouted {
		code = worst(code, exitOf(&unrouted[i]))
		if s.opts.explain {
			s.out.outcome(&unrouted[i])
		}
	}
	for _, w := range ways {
		for _, to := range byDomain(w.to) {
			code = worst(code, s.explainWay(ctx, w.route, to))
		}
	}
	var e *deliver.Error
	if errors.As(s.deliverer.CheckSender(ctx, s.opts.from), &e) && !e.Temporary && !s.out.json {
		s.out.printf("note: nobody can answer <%s>: %s %s\n", printable(s.opts.from), e.Status, printable(e.Err.Error()))
	}
	return code
}

func domainOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

// byDomain puts recipients of one domain together.
func byDomain(to []string) (groups [][]string) {
	for _, address := range to {
		i := slices.IndexFunc(groups, func(g []string) bool { return strings.EqualFold(domainOf(g[0]), domainOf(address)) })
		if i < 0 {
			i = len(groups)
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], address)
	}
	return groups
}

// explainWay tells of recipients of one domain that share a route.
func (s *sender) explainWay(ctx context.Context, r route.Route, to []string) int {
	hops := make([]deliver.Explanation, len(r.Hops))
	for i, h := range r.Hops {
		hops[i] = s.deliverer.Explain(ctx, h, domainOf(to[0]))
	}
	if s.out.json {
		s.out.object(newExplanationLine(s.opts.from, r, to, hops))
	} else {
		s.out.explanation(s.opts.from, r, to, hops)
	}
	switch first := &r.Hops[0]; {
	case first.Kind == route.Hold:
		return exTempFail
	case first.Kind == route.Reject:
		return exitOfReject(first.Reply)
	case hops[0].Err != nil:
		return exitOfStatus(hops[0].Err.Status, hops[0].Err.Stage, hops[0].Err.RouteTrouble, false)
	}
	return exOK
}

func exitOfReject(text string) int {
	reply, _ := dsn.ParseReply(text)
	status := reply.Status()
	switch {
	case status != "":
	case reply.Temporary():
		return exTempFail
	default:
		status = "5.0.0"
	}
	return exitOfStatus(status, deliver.StageRoute, false, true)
}

// explanation writes the words of [route.Explain], with the hosts of each hop.
func (p *printer) explanation(from string, r route.Route, to []string, hops []deliver.Explanation) {
	lines := strings.Split(strings.TrimSuffix(route.Explain(route.Query{Sender: from, Recipient: to[0]}, r), "\n"), "\n")
	p.printf("%s\n", printable(lines[0]))
	for _, also := range to[1:] {
		p.printf("      and to <%s>\n", printable(also))
	}
	p.printf("%s\n", lines[1])
	for i, line := range lines[2:] {
		p.printf("%s\n", line)
		p.hop(&r.Hops[i], &hops[i])
	}
}

// hop tells of the hosts of a hop.
func (p *printer) hop(h *route.Hop, x *deliver.Explanation) {
	if len(x.Aliases) > 0 {
		p.printf("     %s is an alias of %s\n", x.Domain, printable(strings.Join(x.Aliases, ", ")))
	}
	if h.Kind == route.MX && len(x.Hosts) > 0 {
		p.printf("     %s\n", mxWords(x))
	}
	for i := range x.Hosts {
		p.host(&x.Hosts[i])
	}
	if x.Err != nil {
		p.printf("     nothing can be tried: %s %s\n", x.Err.Status, printable(x.Err.Err.Error()))
	}
}

// mxWords says what the hosts of a domain come from.
func mxWords(x *deliver.Explanation) string {
	vouched := ""
	if x.Secure {
		vouched = ", which DNSSEC vouches for"
	}
	switch {
	case strings.HasPrefix(x.Domain, "["):
		return "the address itself"
	case !x.Hosts[0].MX:
		return x.Domain + " has no MX records" + vouched + ": it is its own host"
	}
	records := " MX records"
	if len(x.Hosts) == 1 {
		records = " MX record"
	}
	return x.Domain + " has " + strconv.Itoa(len(x.Hosts)) + records + vouched
}

// host tells of one host.
func (p *printer) host(h *deliver.Host) {
	name := printable(h.Name)
	switch {
	case name == "":
		name = "."
	case h.Port != 0:
		name += " port " + strconv.Itoa(int(h.Port))
	}
	if h.MX {
		name = strconv.Itoa(int(h.Preference)) + " " + name
	}
	if len(h.Aliases) > 0 {
		name += ", an alias of " + printable(strings.Join(h.Aliases, ", "))
	}
	if h.Secure {
		name += ", addresses by DNSSEC"
	}
	p.printf("       %s\n", name)
	for _, addr := range h.Addrs {
		p.printf("         %s\n", addr)
	}
	for _, refused := range h.Refused {
		p.printf("         not %s: %s\n", refused.Addr, refused.Why)
	}
	if h.Err != nil {
		p.printf("         not tried: %s %s\n", h.Err.Status, printable(h.Err.Err.Error()))
	}
}

// An explanationLine is where recipients of one domain go, as JSON. Its fields are promised to those who read them.
type explanationLine struct {
	Type       string    `json:"type"` // "explanation"
	Sender     string    `json:"sender"`
	Recipients []string  `json:"recipients"`
	Entry      string    `json:"entry"` // of the routing file
	Hops       []hopLine `json:"hops"`
}

type hopLine struct {
	Hop     string     `json:"hop"`              // as a routing file has it
	Domain  string     `json:"domain,omitempty"` // whose hosts they are
	Aliases []string   `json:"aliases,omitempty"`
	Secure  bool       `json:"secure"` // DNSSEC vouches for the MX records
	Hosts   []hostLine `json:"hosts,omitempty"`
	Status  string     `json:"status,omitempty"` // why no host can be tried
	Error   string     `json:"error,omitempty"`
}

type hostLine struct {
	Name       string        `json:"name"`
	Port       uint16        `json:"port,omitempty"`
	Preference *uint16       `json:"preference,omitempty"` // of the MX record; none where no record names it
	Aliases    []string      `json:"aliases,omitempty"`
	Secure     bool          `json:"secure"` // DNSSEC vouches for the addresses
	Addrs      []string      `json:"addrs,omitempty"`
	Refused    []refusedLine `json:"refused,omitempty"`
	Status     string        `json:"status,omitempty"` // why it is not tried
	Error      string        `json:"error,omitempty"`
}

type refusedLine struct {
	Addr string `json:"addr"`
	Why  string `json:"why"`
}

func newExplanationLine(from string, r route.Route, to []string, hops []deliver.Explanation) *explanationLine {
	l := &explanationLine{Type: "explanation", Sender: from, Recipients: to, Entry: r.Where()}
	for i := range hops {
		x := &hops[i]
		h := hopLine{Hop: r.Hops[i].String(), Domain: x.Domain, Aliases: x.Aliases, Secure: x.Secure}
		for j := range x.Hosts {
			h.Hosts = append(h.Hosts, newHostLine(&x.Hosts[j]))
		}
		if x.Err != nil {
			h.Status, h.Error = string(x.Err.Status), x.Err.Err.Error()
		}
		l.Hops = append(l.Hops, h)
	}
	return l
}

func newHostLine(x *deliver.Host) hostLine {
	h := hostLine{Name: x.Name, Port: x.Port, Aliases: x.Aliases, Secure: x.Secure}
	if x.MX {
		h.Preference = &x.Preference
	}
	for _, addr := range x.Addrs {
		h.Addrs = append(h.Addrs, addr.String())
	}
	for _, refused := range x.Refused {
		h.Refused = append(h.Refused, refusedLine{refused.Addr.String(), refused.Why})
	}
	if x.Err != nil {
		h.Status, h.Error = string(x.Err.Status), x.Err.Err.Error()
	}
	return h
}
