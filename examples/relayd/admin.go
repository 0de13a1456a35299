package main

// How people see the queue and intervene in it, over HTTP.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/sortie-mail/sortie/queue"
)

// What a request about the queue may hold.
const (
	maxAdminBody = 64 << 10
	maxListed    = 1000 // entries of one answer
	fewListed    = 100  // where the request says nothing else
	maxWhy       = 500  // octets: it is stored with each entry
)

// filterNames are the parameters that say which entries are meant.
var filterNames = []string{"id", "lane", "sender", "recipient", "state", "older-than", "all"}

// An adminError is an answer other than 200.
type adminError struct {
	status int
	text   string
}

func (e *adminError) Error() string { return e.text }

func refusef(status int, format string, args ...any) error {
	return &adminError{status, fmt.Sprintf(format, args...)}
}

// serveList answers GET /queue with the entries that match, oldest first, and the cursor for the rest, "" at the end.
func (r *relay) serveList(w http.ResponseWriter, req *http.Request) {
	answer(w, func() (any, error) {
		if err := method(w, req, http.MethodGet); err != nil {
			return nil, err
		}
		form, err := formOf(w, req, append(filterNames, "cursor", "limit")...)
		if err != nil {
			return nil, err
		}
		filter, err := filterOf(form)
		if err != nil {
			return nil, err
		}
		limit, err := limitOf(form.Get("limit"))
		if err != nil {
			return nil, err
		}
		entries, next, err := r.queue.List(req.Context(), filter, form.Get("cursor"), limit)
		return struct {
			Entries []queue.Info `json:"entries"`
			Next    string       `json:"next"`
		}{append([]queue.Info{}, entries...), next}, err
	})
}

// serveOne answers GET /queue/ID with all about a message, and makes the change of POST /queue/CHANGE.
func (r *relay) serveOne(w http.ResponseWriter, req *http.Request) {
	answer(w, func() (any, error) {
		what := req.PathValue("what")
		if change := r.changes()[what]; change != nil {
			return r.change(w, req, what, change)
		}
		if err := method(w, req, http.MethodGet); err != nil {
			return nil, err
		}
		return r.queue.Show(req.Context(), queue.ID(what))
	})
}

// A change is what can be done to entries of the queue.
type change func(ctx context.Context, f queue.Filter, why string) (int, error)

// changes are named as in the path of a request.
func (r *relay) changes() map[string]change {
	without := func(do func(context.Context, queue.Filter) (int, error)) change {
		return func(ctx context.Context, f queue.Filter, _ string) (int, error) { return do(ctx, f) }
	}
	q := r.queue
	return map[string]change{
		"hold": q.Hold, "fail": q.Fail,
		"release": without(q.Release), "retry": without(q.Retry), "delete": without(q.Delete),
	}
}

// change makes a change and tells how many entries it changed.
func (r *relay) change(w http.ResponseWriter, req *http.Request, what string, do change) (any, error) {
	if err := method(w, req, http.MethodPost); err != nil {
		return nil, err
	}
	if err := mayChange(req); err != nil {
		return nil, err
	}
	names := filterNames
	if what == "hold" || what == "fail" {
		names = append(slices.Clone(names), "why")
	}
	form, err := formOf(w, req, names...)
	if err != nil {
		return nil, err
	}
	filter, err := filterOf(form)
	if err != nil {
		return nil, err
	}
	why := "the administrator wants it"
	if form.Has("why") {
		why = form.Get("why")
	}
	if len(why) > maxWhy || strings.ContainsFunc(why, unicode.IsControl) || !utf8.ValidString(why) {
		return nil, refusef(http.StatusBadRequest, "why: write one line of at most %d octets", maxWhy)
	}
	n, err := do(context.WithoutCancel(req.Context()), filter, why)
	switch {
	case errors.Is(err, queue.ErrNoFilter):
		return nil, refusef(http.StatusBadRequest, "nothing says which entries are meant: write one of %s", strings.Join(filterNames, ", "))
	case err != nil:
		return nil, err
	}
	r.log.Info("the queue was changed from the console", "change", what, "filter", shown(form.Encode()), "changed", n)
	return map[string]int{"changed": n}, nil
}

// mayChange lets only people on this host change anything. The header is one that a web page cannot make a browser send to
// another site, and the Host says that the page is not at a name that leads here only now (DNS rebinding).
func mayChange(req *http.Request) error {
	client, err := netip.ParseAddrPort(req.RemoteAddr)
	switch {
	case err != nil || !client.Addr().Unmap().IsLoopback():
		return refusef(http.StatusForbidden, "changes are accepted only from this host, not from %s", req.RemoteAddr)
	case req.Header.Get("Forwarded") != "" || req.Header.Get("X-Forwarded-For") != "":
		return refusef(http.StatusForbidden, "changes are accepted only from this host, not through a proxy")
	case req.Header.Get("X-Relayd") != "yes":
		return refusef(http.StatusForbidden, "a change needs the header X-Relayd: yes")
	case !isOwnName(req.Host):
		return refusef(http.StatusForbidden, "a change needs an IP address or localhost in its URL, not %s", shown(req.Host))
	}
	return nil
}

// isOwnName reports whether a Host is one that no stranger's DNS can make up.
func isOwnName(host string) bool {
	u := url.URL{Host: host}
	_, err := netip.ParseAddr(u.Hostname())
	return err == nil || strings.EqualFold(u.Hostname(), "localhost")
}

// method refuses another method.
func method(w http.ResponseWriter, req *http.Request, want string) error {
	if req.Method == want || (want == http.MethodGet && req.Method == http.MethodHead) {
		return nil
	}
	w.Header().Set("Allow", want)
	return refusef(http.StatusMethodNotAllowed, "%s does not take %s: use %s", shown(req.URL.Path), shown(req.Method), want)
}

// formOf reads the parameters, from the URL or a form. A name that is unknown, given twice or empty is an error: a change
// without the filter that was meant would concern all the other mail.
func formOf(w http.ResponseWriter, req *http.Request, names ...string) (url.Values, error) {
	req.Body = http.MaxBytesReader(w, req.Body, maxAdminBody)
	kind, _, _ := strings.Cut(req.Header.Get("Content-Type"), ";")
	if req.ContentLength != 0 && kind != "application/x-www-form-urlencoded" {
		return nil, refusef(http.StatusUnsupportedMediaType, "write parameters into the URL, or send application/x-www-form-urlencoded")
	}
	if err := req.ParseForm(); err != nil {
		if big := new(http.MaxBytesError); errors.As(err, &big) {
			return nil, refusef(http.StatusRequestEntityTooLarge, "the body is longer than %d octets", big.Limit)
		}
		return nil, refusef(http.StatusBadRequest, "the parameters cannot be read: %s", shown(err.Error()))
	}
	for name, values := range req.Form {
		switch {
		case !slices.Contains(names, name):
			return nil, refusef(http.StatusBadRequest, "there is no parameter %q here: write %s", shown(name), strings.Join(names, ", "))
		case len(values) > 1:
			return nil, refusef(http.StatusBadRequest, "%s is given twice", name)
		case values[0] == "":
			return nil, refusef(http.StatusBadRequest, "%s is empty: leave it out, or write a value (the null sender is <>)", name)
		}
	}
	return req.Form, nil
}

func filterOf(form url.Values) (queue.Filter, error) {
	f := queue.Filter{
		ID: queue.ID(form.Get("id")), Lane: queue.LaneOf(form.Get("lane")), State: queue.State(form.Get("state")),
		Sender: form.Get("sender"), Recipient: form.Get("recipient"),
	}
	switch f.State {
	case "", queue.Waiting, queue.Leased, queue.Held:
	default:
		return f, refusef(http.StatusBadRequest, "state=%s: write %s, %s or %s", shown(string(f.State)), queue.Waiting, queue.Leased, queue.Held)
	}
	if age := form.Get("older-than"); age != "" {
		var err error
		if f.OlderThan, err = parseDuration(age); err != nil || f.OlderThan <= 0 {
			return f, refusef(http.StatusBadRequest, "older-than=%s: write an age like 90s, 15m, 4h or 5d", shown(age))
		}
	}
	switch all := form.Get("all"); all {
	case "", "yes":
		f.All = all == "yes"
	default:
		return f, refusef(http.StatusBadRequest, "all=%s: write all=yes where really everything is meant", shown(all))
	}
	return f, nil
}

// answer writes what do returns as JSON, errors as {"error": ...} with the status that fits.
func answer(w http.ResponseWriter, do func() (any, error)) {
	v, err := do()
	status := http.StatusOK
	if err != nil {
		status = statusOf(err)
		v = map[string]string{"error": err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

func statusOf(err error) int {
	var refusal *adminError
	switch {
	case errors.As(err, &refusal):
		return refusal.status
	case errors.Is(err, queue.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, queue.ErrClosed):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
