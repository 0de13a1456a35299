package main_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/deliver/shape"
)

// Rules of -shaping hold for all domains of a site together, and the console shows what each site gets, and why.
func TestShaping(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	isp := w.host("isp.test", lab.Hang(lab.AtMail))
	full := w.host("full.test", lab.Refuse(lab.AtMail, "421 4.7.0 Too many connections from your address"))
	r := start(t, w.flags("-console", "127.0.0.1:0",
		"-routes", writeFile(t, "routes", "*  smtp://"+isp.Addr()+"\n*@full.test  smtp://"+full.Addr()+"\n"),
		"-shaping", writeFile(t, "sites", "smarthost connections=3\n"))...)
	c := r.hello()
	for _, to := range []string{"b@1.test", "b@2.test", "b@3.test", "b@4.test", "b@5.test", "b@full.test"} {
		c.send(letter("many"), "a@src.test", to)
	}
	var got struct {
		Sites []shape.State
		More  int
	}
	require.Eventually(t, func() bool {
		_, n := isp.Connections()
		return n == 3
	}, patience, 10*time.Millisecond)
	require.Eventually(t, func() bool {
		require.Equal(t, 200, r.ask(r.request("GET", "/sites", ""), &got))
		return len(got.Sites) == 2 && got.Sites[0].Why+got.Sites[1].Why != ""
	}, patience, 10*time.Millisecond)
	for _, s := range got.Sites {
		assert.Equal(t, 3, s.Limits.Connections)
		switch s.Site {
		case isp.Addr():
			assert.Equal(t, 3, s.Active)
		case full.Addr():
			assert.Equal(t, "421 4.7.0 Too many connections from your address", s.Why)
			assert.Equal(t, 1, s.Limit)
		default:
			t.Errorf("%s is no site of ours", s.Site)
		}
	}
	require.Equal(t, 200, r.ask(r.request("GET", "/sites?limit=1", ""), &got))
	assert.Len(t, got.Sites, 1)
	assert.Equal(t, 1, got.More)
	require.Equal(t, 200, r.ask(r.request("GET", "/sites?site="+isp.Addr(), ""), &got))
	require.Len(t, got.Sites, 1)
	assert.Equal(t, isp.Addr(), got.Sites[0].Site)
	r.refuses(400, "limit", r.request("GET", "/sites?limit=0", ""))
	r.refuses(405, "GET", r.request("POST", "/sites", ""))
}
