package main

// What is served over HTTP.

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// newConsole serves what an administrator and their monitoring look at.
func newConsole(r *relay) *http.Server {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(r.metrics.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", r.healthz)
	mux.HandleFunc("GET /summary", r.serveSummary)
	mux.HandleFunc("GET /summary.json", r.serveSummary)
	mux.HandleFunc("/queue", r.serveList)
	mux.HandleFunc("/queue/{what}", r.serveOne)
	mux.HandleFunc("/sites", r.serveSites)
	mux.HandleFunc("/suppressed", r.serveSuppressed)
	mux.HandleFunc("/suppressed/lift", r.serveLift)
	return &http.Server{
		Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return context.Background() },
	}
}

// healthz answers 200 as long as the relay takes mail and can look into its queue.
func (r *relay) healthz(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if r.listener.isEnding() {
		http.Error(w, "shutting down", http.StatusServiceUnavailable)
		return
	}
	if _, err := r.queue.Stats(req.Context()); err != nil {
		http.Error(w, "the queue does not answer: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	if err := r.routesErr(); err != nil { // mail goes on by the old ones
		fmt.Fprintf(w, "ok, but the new routes are broken: %v\n", err)
		return
	}
	io.WriteString(w, "ok\n")
}
