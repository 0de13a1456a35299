package main

// What Prometheus is told.

import (
	"bytes"
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/queue"
)

// metrics are what /metrics tells. They live in a registry of their own, not in Prometheus' global one.
type metrics struct {
	registry *prometheus.Registry
	sessions *prometheus.CounterVec // by class of client
	accepted prometheus.Counter
	bytes    prometheus.Counter
	refused  *prometheus.CounterVec // by reason
	attempts *prometheus.CounterVec // by result
	reports  *prometheus.CounterVec // by action
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		sessions: counters("relayd_sessions_total", "Connections that got a slot.", "client"),
		accepted: counter("relayd_accepted_messages_total", "Messages answered with 250."),
		bytes:    counter("relayd_accepted_bytes_total", "Octets of the messages answered with 250."),
		refused:  counters("relayd_refused_total", "Connections, commands and messages refused.", "reason"),
		attempts: counters("relayd_attempts_total", "Delivery attempts, each recipient counted.", "result"),
		reports:  counters("relayd_reports_total", "Reports that were queued for senders; one that tells several actions counts for each.", "action"),
	}
	m.registry.MustRegister(m.sessions, m.accepted, m.bytes, m.refused, m.attempts, m.reports,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, r := range []deliver.Result{deliver.Delivered, deliver.Relayed, deliver.TempFail, deliver.PermFail, deliver.Held, deliver.Discarded} {
		m.attempts.WithLabelValues(r.String())
	}
	for _, a := range []dsn.Action{dsn.Failed, dsn.Delayed, dsn.Relayed} {
		m.reports.WithLabelValues(string(a))
	}
	return m
}

// settled counts the reports that follow from an attempt, by what they tell.
func (m *metrics) settled(_ queue.Lease, _ []deliver.Outcome, s queue.Settlement) {
	for i := range s.Reports {
		report, err := dsn.Parse(bytes.NewReader(s.Reports[i].Body))
		if err != nil {
			continue // a host's own builder may write what it likes
		}
		told := map[dsn.Action]bool{}
		for j := range report.Recipients {
			told[report.Recipients[j].Action] = true
		}
		for action := range told {
			m.reports.WithLabelValues(string(action)).Inc()
		}
	}
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

func counters(name, help, label string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
}

// A gaugeCollector asks for the state of the relay when it is scraped, instead of keeping count.
type gaugeCollector struct {
	queue interface {
		Stats(ctx context.Context) (queue.Stats, error)
	}
	open   func() map[string]int // connections by class of client
	routes func() error          // what is wrong with the newest routes
}

var (
	messagesDesc = prometheus.NewDesc("relayd_queue_messages", "Messages in the queue.", nil, nil)
	entriesDesc  = prometheus.NewDesc("relayd_queue_entries", "Entries of the queue (one message, one recipient domain).", []string{"state"}, nil)
	lanesDesc    = prometheus.NewDesc("relayd_queue_lanes", "Recipient domains with mail in the queue.", nil, nil)
	bytesDesc    = prometheus.NewDesc("relayd_queue_bytes", "Octets of the messages in the queue.", nil, nil)
	oldestDesc   = prometheus.NewDesc("relayd_queue_oldest_seconds", "Age of the oldest message in the queue; 0 where it is empty.", nil, nil)
	brokenDesc   = prometheus.NewDesc("relayd_routes_broken", "1 while the newest routing file cannot be read and older routes are in force.", nil, nil)
	openDesc     = prometheus.NewDesc("relayd_sessions", "Connections that are open.", []string{"client"}, nil)
)

// Describe implements prometheus.Collector.
func (g gaugeCollector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(g, ch) }

// Collect implements prometheus.Collector.
func (g gaugeCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, labels...)
	}
	for class, n := range g.open() {
		gauge(openDesc, float64(n), class)
	}
	broken := 0.0
	if g.routes() != nil {
		broken = 1
	}
	gauge(brokenDesc, broken)
	s, err := g.queue.Stats(context.Background())
	if err != nil {
		ch <- prometheus.NewInvalidMetric(messagesDesc, err)
		return
	}
	gauge(messagesDesc, float64(s.Messages))
	gauge(entriesDesc, float64(s.Waiting), string(queue.Waiting))
	gauge(entriesDesc, float64(s.Leased), string(queue.Leased))
	gauge(entriesDesc, float64(s.Held), string(queue.Held))
	gauge(lanesDesc, float64(s.Lanes))
	gauge(bytesDesc, float64(s.Bytes))
	age := 0.0
	if !s.Oldest.IsZero() {
		age = time.Since(s.Oldest).Seconds()
	}
	gauge(oldestDesc, age)
}
