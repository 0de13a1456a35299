package main

// Who may relay, and what the administrator should know about it: the very policy that is enforced is audited.

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/sortie-mail/sortie/relaycheck"
)

// newPolicy lets the networks of -relay-from relay, and nobody else.
func newPolicy(o *options, listen net.Addr) *relaycheck.Policy {
	p := &relaycheck.Policy{
		Rules:  []relaycheck.Rule{{Name: "-relay-from", Action: relaycheck.Allow, Networks: o.relayFrom}},
		Server: relaycheck.Server{Hostname: o.hostname},
	}
	if tcp, ok := listen.(*net.TCPAddr); ok {
		p.Server.Listeners = []relaycheck.Listener{{Addr: tcp.AddrPort()}}
	}
	return p
}

// audit logs what is wrong with the policy.
func (r *relay) audit() {
	for _, f := range relaycheck.AuditPolicy(r.policy) {
		level := slog.LevelWarn
		switch {
		case f.Severity < relaycheck.Warning:
			continue
		case f.Severity >= relaycheck.Serious:
			level = slog.LevelError
		}
		r.log.Log(context.Background(), level, f.Title, "finding", f.ID, "severity", f.Severity, "text", f.Text)
	}
}

// summary is what an administrator opens first: what is wrong with the policy, and who refuses our mail in which words.
func (r *relay) summary() relaycheck.Summary {
	findings := append(relaycheck.AuditPolicy(r.policy), r.refusals.Findings()...)
	return relaycheck.Summarize(r.opts.hostname, time.Now(), findings...)
}

// serveSummary writes it as text, and as JSON for those who ask for that.
func (r *relay) serveSummary(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path == "/summary.json" {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(r.summary())
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	r.summary().WriteText(w)
}
