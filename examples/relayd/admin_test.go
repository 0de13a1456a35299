package main_test

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/queue"
)

// A page is the answer to GET /queue.
type page struct {
	Entries []queue.Info `json:"entries"`
	Next    string       `json:"next"`
}

// ask makes a request to the console and reads its JSON into v; it gives the status.
func (r *instance) ask(req *http.Request, v any) int {
	r.t.Helper()
	res, err := http.DefaultClient.Do(req)
	require.NoError(r.t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(r.t, err)
	require.Equal(r.t, "application/json", res.Header.Get("Content-Type"), string(body))
	require.NoError(r.t, json.Unmarshal(body, v), string(body))
	return res.StatusCode
}

// request makes a request that may change something.
func (r *instance) request(method, path, body string) *http.Request {
	r.t.Helper()
	req, err := http.NewRequest(method, "http://"+r.console+path, strings.NewReader(body))
	require.NoError(r.t, err)
	req.Header.Set("X-Relayd", "yes")
	if body != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return req
}

// changes makes a change and expects how many entries it changed.
func (r *instance) changes(n int, path string) {
	r.t.Helper()
	var got map[string]int
	require.Equal(r.t, 200, r.ask(r.request("POST", path, ""), &got), path)
	require.Equal(r.t, map[string]int{"changed": n}, got, path)
}

// refuses makes a request and expects an error.
func (r *instance) refuses(status int, text string, req *http.Request) {
	r.t.Helper()
	var got map[string]string
	assert.Equal(r.t, status, r.ask(req, &got), "%s %s", req.Method, req.URL)
	assert.Contains(r.t, got["error"], text)
	assert.Len(r.t, got, 1)
}

func (r *instance) list(query string) (p page) {
	r.t.Helper()
	require.Equal(r.t, 200, r.ask(r.request("GET", "/queue"+query, ""), &p), query)
	require.NotNil(r.t, p.Entries)
	return p
}

// waitList waits until a query finds n entries.
func (r *instance) waitList(query string, n int) (p page) {
	r.t.Helper()
	require.Eventually(r.t, func() bool { p = r.list(query); return len(p.Entries) == n }, patience, 10*time.Millisecond, query)
	return p
}

func TestQueueIsShown(t *testing.T) {
	t.Parallel()
	r := start(t, "-routes", writeFile(t, "routes", "*@a.test  hold\n*@b.test  hold\n"), "-console", "127.0.0.1:0", "-queue", "memory:")
	assert.Empty(t, r.list("").Entries)
	c := r.hello()
	first := c.send(letter("one"), "x@src.test", "1@a.test", "2@b.test")
	c.send(letter("two"), "y@src.test", "3@a.test")
	c.send(letter("three"), "", "4@c.test")
	r.waitList("?state=held", 3)
	for query, n := range map[string]int{
		"": 4, "?lane=a.test": 2, "?lane=A.test": 2, "?sender=x@src.test": 2, "?sender=%3C%3E": 1, "?recipient=3@a.test": 1, "?lane=a.test&sender=y@src.test": 1,
		"?id=" + first: 2, "?lane=d.test": 0, "?older-than=1d": 0, "?limit=1000": 4, "?all=yes": 4,
	} {
		assert.Len(t, r.list(query).Entries, n, query)
	}

	var all []queue.Info
	for p := r.list("?limit=1"); ; p = r.list("?limit=1&cursor=" + url.QueryEscape(p.Next)) {
		all = append(all, p.Entries...)
		if p.Next == "" {
			break
		}
		require.Less(t, len(all), 5)
	}
	assert.Len(t, all, 4)
	assert.Equal(t, first, string(all[0].ID))

	var one queue.Detail
	require.Equal(t, 200, r.ask(r.request("GET", "/queue/"+first, ""), &one))
	assert.Equal(t, "x@src.test", one.Envelope.From)
	assert.Len(t, one.Entries, 2)

	get := func(path string) *http.Request { return r.request("GET", path, "") }
	r.refuses(404, "no such", get("/queue/nothing"))
	r.refuses(404, "no such", get("/queue/..%2f..%2fetc"))
	r.refuses(400, "limit=1001", get("/queue?limit=1001"))
	r.refuses(400, "limit=x", get("/queue?limit=x"))
	r.refuses(400, `no parameter "recipent"`, get("/queue?recipent=x"))
	r.refuses(400, "state=odd", get("/queue?state=odd"))
	r.refuses(400, "older-than=-1h", get("/queue?older-than=-1h"))
	r.refuses(405, "use GET", r.request("POST", "/queue", ""))
	r.refuses(405, "use GET", r.request("DELETE", "/queue/"+first, ""))
}

func TestQueueIsChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src := w.host("src.test")
	mx := w.host("a.test", lab.Refuse(lab.AtGreeting, "421 4.3.2 later"))
	r := start(t, w.flags("-console", "127.0.0.1:0")...)
	c := r.hello()
	for _, to := range []string{"1@a.test", "2@a.test", "3@a.test", "4@a.test"} {
		c.send(letter(to), "x@src.test", to)
	}
	r.waitList("?state=waiting", 4)
	r.changes(1, "/queue/hold?recipient=1@a.test&why=to+be+looked+at")
	held := r.list("?state=held").Entries
	require.Len(t, held, 1)
	assert.Equal(t, "to be looked at", held[0].Why)
	r.changes(1, "/queue/delete?recipient=2@a.test")
	r.changes(0, "/queue/delete?recipient=2@a.test")
	assert.Len(t, r.list("").Entries, 3)

	r.changes(1, "/queue/fail?recipient=3@a.test&why=not+today")
	report := arrived(t, src, 1)[0]
	assert.Equal(t, "3@a.test", reportFrom(t, report).Recipients[0].Final.Addr)
	assert.Contains(t, string(report.Body), "not today")

	mx.Behave(lab.AcceptAll)
	r.changes(1, "/queue/retry?lane=a.test&state=waiting")
	assert.Equal(t, []string{"4@a.test"}, arrived(t, mx, 1)[0].Addresses())
	var got map[string]int
	require.Equal(t, 200, r.ask(r.request("POST", "/queue/release", "all=yes"), &got), "a form")
	assert.Equal(t, map[string]int{"changed": 1}, got)
	assert.Equal(t, []string{"1@a.test"}, arrived(t, mx, 2)[1].Addresses())
	r.waitLog(func(l map[string]any) bool {
		return l["change"] == "delete" && l["changed"] == 1.0 && l["filter"] == "recipient=2%40a.test"
	})
}

// Nobody else's web page, no other host and no slip of the finger changes the queue.
func TestChangesAreGuarded(t *testing.T) {
	t.Parallel()
	r := start(t, "-console", "0.0.0.0:0")
	r.hello().send(letter("stays"), "a@src.test", "b@dst.test")
	_, port, err := net.SplitHostPort(r.console)
	require.NoError(t, err)
	r.console = "127.0.0.1:" + port
	post := func(path, body string, header ...string) *http.Request {
		req := r.request("POST", path, body)
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		return req
	}
	const path = "/queue/delete?all=yes"
	r.refuses(405, "use POST", r.request("GET", path, ""))
	r.refuses(403, "X-Relayd", post(path, "", "X-Relayd", ""))
	r.refuses(403, "proxy", post(path, "", "X-Forwarded-For", "192.0.2.1"))
	rebound := post(path, "")
	rebound.Host = "evil.test:" + port
	r.refuses(403, "evil.test", rebound)
	r.refuses(400, "recipient, state, older-than, all", post("/queue/delete", ""))
	r.refuses(400, "recipient is empty", post("/queue/delete?recipient=", ""))
	r.refuses(400, "lane is given twice", post("/queue/delete?lane=dst.test", "lane=src.test"))
	r.refuses(400, `"why"`, post("/queue/delete?all=yes&why=x", ""))
	r.refuses(400, "all=on", post("/queue/delete?all=on", ""))
	r.refuses(400, "why", post("/queue/fail?all=yes&why=a%0Ab", ""))
	r.refuses(400, "why", post("/queue/hold?all=yes&why="+strings.Repeat("x", 501), ""))
	r.refuses(413, "65536", post(path, "lane="+strings.Repeat("x", 65<<10)))
	r.refuses(415, "x-www-form-urlencoded", post(path, `{"lane":"dst.test"}`, "Content-Type", "application/json"))
	if ip := otherAddress(t); ip != "" {
		r.console = net.JoinHostPort(ip, port)
		r.refuses(403, "only from this host", post(path, ""))
		assert.Len(t, r.list("").Entries, 1, "to be seen it is")
	}
	r.console = "127.0.0.1:" + port
	assert.Len(t, r.list("").Entries, 1)
	r.changes(1, path)
}

// otherAddress is an address of this host that is not loopback, "" where it has none. Who connects to it comes from it.
func otherAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	require.NoError(t, err)
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP.String()
		}
	}
	return ""
}
