package main_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestHelp(t *testing.T) {
	t.Parallel()
	out, err := exec.Command(binary, "-h").Output()
	require.NoError(t, err, "help was asked for: exit code 0, on standard output")
	for _, flag := range []string{
		"listen", "spool", "queue", "routes", "hostname", "dns", "smtp-port", "allow-loopback", "relay-from", "retry", "delay-after", "lifetime",
		"console", "log", "transcript", "ca", "max-size", "max-recipients", "max-connections", "max-per-client", "idle", "cert", "submission",
		"dns-stale", "host-concurrency", "check-sender", "check-sender-wait", "suppress", "files", "memory", "shaping",
	} {
		assert.Contains(t, string(out), "\n  -"+flag+" ")
	}
	for line := range strings.Lines(string(out)) {
		assert.LessOrEqual(t, len(line), 130)
	}
}

// A mistake on the command line is told with its flag and what to write, before anything is touched.
func TestMistakes(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { taken.Close() })
	noPEM := writeFile(t, "ca.pem", "no certificate")
	routes := writeFile(t, "routes", "*@a.test smpt://isp\n*@b.test hold\n*@b.test hold\n")
	for name, tc := range map[string]struct {
		flags []string
		code  int
		want  []string
	}{
		"unknown flag":      {[]string{"-lsten", "x"}, 2, []string{"-lsten"}},
		"no flag":           {[]string{"serve"}, 2, []string{`"serve" is no flag`}},
		"several":           {[]string{"-max-recipients", "0", "-retry", "5m,x", "-idle", "1ms"}, 2, []string{"-max-recipients: 0", `-retry: "x"`, "-idle: 1ms"}},
		"listen":            {[]string{"-listen", "2525"}, 2, []string{"-listen", "HOST:PORT"}},
		"listen in use":     {[]string{"-listen", taken.Addr().String()}, 1, []string{"-listen", "in use"}},
		"console in use":    {[]string{"-console", taken.Addr().String()}, 1, []string{"-console", "in use"}},
		"hostname":          {[]string{"-hostname", "my_host"}, 2, []string{"-hostname", `"my_host" is no host name`}},
		"hostname address":  {[]string{"-hostname", "192.0.2.1"}, 2, []string{"-hostname"}},
		"hostname empty":    {[]string{"-hostname", "a..b"}, 2, []string{"-hostname"}},
		"relay-from":        {[]string{"-relay-from", "127.0.0.0/8,10/8"}, 2, []string{`-relay-from: "10/8" is no network`}},
		"relay-from none":   {[]string{"-relay-from", ""}, 2, []string{"-relay-from"}},
		"relay-from host":   {[]string{"-relay-from", "192.0.2.5/24"}, 2, []string{"-relay-from: 192.0.2.5/24", "192.0.2.0/24", "192.0.2.5/32"}},
		"two queues":        {[]string{"-spool", "/nowhere/spool", "-queue", "disk:/nowhere/disk"}, 2, []string{"-queue: -spool /nowhere/spool would not be used"}},
		"routes":            {[]string{"-routes", routes}, 1, []string{routes + ":1:", routes + ":3:"}},
		"routes missing":    {[]string{"-routes", "/nowhere/routes"}, 1, []string{"-routes: ", "/nowhere/routes"}},
		"ca missing":        {[]string{"-ca", "/nowhere/ca.pem"}, 2, []string{"-ca", "/nowhere/ca.pem"}},
		"shaping missing":   {[]string{"-shaping", "/nowhere/sites"}, 2, []string{"-shaping: ", "/nowhere/sites"}},
		"shaping":           {[]string{"-shaping", routes}, 2, []string{"-shaping: ", routes + ":1: ", routes + ":3: "}},
		"ca without PEM":    {[]string{"-ca", noPEM}, 2, []string{"-ca", "no certificate in PEM form"}},
		"postgres":          {[]string{"-queue", "postgres://localhost/mail"}, 2, []string{"-queue: postgres is not built in yet"}},
		"queue":             {[]string{"-queue", "redis://localhost"}, 2, []string{"-queue", "disk:DIR"}},
		"dns":               {[]string{"-dns", "resolver.test"}, 2, []string{"-dns", "IP address"}},
		"dns-stale":         {[]string{"-dns-stale", "4d"}, 2, []string{"-dns-stale: 4d is too long"}},
		"suppress":          {[]string{"-suppress", "soon"}, 2, []string{`-suppress: "soon" is no time`}},
		"dns-stale unread":  {[]string{"-dns-stale", "long"}, 2, []string{`-dns-stale: "long" is no time`}},
		"host-concurrency":  {[]string{"-host-concurrency", "0"}, 2, []string{"-host-concurrency: 0"}},
		"check-sender":      {[]string{"-check-sender", "yes"}, 2, []string{`-check-sender: "yes"`, "null-mx, exists or no"}},
		"sender wait":       {[]string{"-check-sender-wait", "2h"}, 2, []string{"-check-sender-wait", "1ms to 1m"}},
		"smtp-port":         {[]string{"-smtp-port", "70000"}, 2, []string{"-smtp-port"}},
		"max-size":          {[]string{"-max-size", "5MB"}, 2, []string{"-max-size", "50MiB"}},
		"files":             {[]string{"-files", "10"}, 2, []string{"-files: 10 is not within 64"}},
		"memory":            {[]string{"-memory", "10MiB"}, 2, []string{"-memory", "512MiB", "at least 64MiB"}},
		"memory unread":     {[]string{"-memory", "much"}, 2, []string{"-memory", `"much"`}},
		"lifetime":          {[]string{"-lifetime", "0"}, 2, []string{"-lifetime"}},
		"delay-after":       {[]string{"-delay-after", "-5m"}, 2, []string{"-delay-after"}},
		"log not writable":  {[]string{"-log", "/nowhere/log"}, 1, []string{"/nowhere/log"}},
		"transcript likely": {[]string{"-transcript", "/nowhere/transcript"}, 1, []string{"/nowhere/transcript"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := launch(t, tc.flags...)
			assert.Equal(t, tc.code, r.wait())
			for _, want := range tc.want {
				assert.Contains(t, r.text(), want)
			}
			assert.NoDirExists(t, r.spool, "nothing was touched")
		})
	}
}

func TestQueueURL(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "elsewhere")
	r := start(t, "-queue", "disk:"+dir)
	r.hello().send(letter("x"), "a@src.test", "b@dst.test")
	r.stop()
	assert.DirExists(t, filepath.Join(dir, "log"))
	assert.NoDirExists(t, r.spool)

	r = start(t, "-queue", "memory:", "-console", "127.0.0.1:0")
	r.hello().send(letter("x"), "a@src.test", "b@dst.test")
	assert.EqualValues(t, 1, r.metric("relayd_queue_messages"))
	r.stop()
	_, err := os.Stat(r.spool)
	assert.ErrorIs(t, err, os.ErrNotExist)
}

// What is allowed and odd is told at the start, with what the relay works with.
func TestDoubts(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.hello().send(letter("waits"), "a@src.test", "b@dst.test")
	r.stop()
	for _, word := range []string{"-hostname", "delay", "console"} {
		assert.NotContains(t, r.text(), word)
	}

	r = start(t, "-spool", r.spool, "-routes", writeFile(t, "routes", "*@a.test  hold\n*@b.test  hold\n"), "-hostname", "vm",
		"-lifetime", "4h", "-console", "0.0.0.0:0")
	assert.Regexp(t, `^\{"time":"[^"]*","level":"INFO","msg":"listening","smtp":"127.0.0.1:\d+","hostname":"vm","spool":"`+r.spool+`","messages":1,"routes":2\}`, r.text())
	for _, doubt := range []string{`named "vm", without a dot: set -hostname`, "no delay will ever be reported", "anybody who reaches the console"} {
		r.waitLog(func(l map[string]any) bool {
			text, _ := l["msg"].(string)
			return l["level"] == "WARN" && strings.Contains(text, doubt)
		})
	}
}
