//go:build linux

package resolve_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/resolve"
)

// unbound starts NLnet Labs' Unbound, a recursive server of another make, with some configuration, and returns its address. Where it is
// missing, the test is skipped; with SORTIE_INTEROP=1 it fails.
func unbound(t *testing.T, configuration string) string {
	t.Helper()
	program, err := exec.LookPath("unbound")
	if err != nil {
		program, err = exec.LookPath("/usr/sbin/unbound")
	}
	if err != nil {
		require.NotEqual(t, "1", os.Getenv("SORTIE_INTEROP"), "unbound is not installed, and SORTIE_INTEROP=1 promised it")
		t.Skip("unbound is not installed")
	}
	for range 5 { // the port may be taken by somebody else in between
		addr, output := startUnbound(t, program, configuration)
		if addr != "" {
			return addr
		}
		require.Contains(t, output, "Address already in use")
	}
	require.Fail(t, "no port for unbound")
	return ""
}

const unboundBase = `server:
	interface: 127.0.0.1
	port: %d
	username: "%s"
	directory: "%s"
	chroot: ""
	pidfile: ""
	use-syslog: no
	logfile: ""
	log-servfail: yes
	val-log-level: 2
	num-threads: 1
	do-not-query-localhost: no
	local-zone: "ready.example." static
	local-data: "ready.example. A 192.0.2.1"
%s
remote-control:
	control-enable: no
`

// startUnbound returns the address of a server that answers, or what it said before it ended. It runs as nobody if the test runs as root.
func startUnbound(t *testing.T, program, configuration string) (addr, output string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := l.Addr().(*net.TCPAddr).Port
	require.NoError(t, l.Close())
	username := ""
	if os.Getuid() == 0 {
		username = "nobody"
	}
	directory := t.TempDir()
	file := filepath.Join(directory, "unbound.conf")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, unboundBase, port, username, directory, configuration), 0o600))

	var said bytes.Buffer
	cmd := exec.Command(program, "-d", "-c", file)
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("unbound said:\n%s", said.String())
		}
	})
	addr = fmt.Sprintf("127.0.0.1:%d", port)
	r := &resolve.Resolver{Servers: []string{addr}, Timeout: 100 * time.Millisecond, CacheSize: -1}
	for range 600 {
		if _, err := r.LookupAddr(t.Context(), "ready.example"); err == nil {
			return addr, ""
		}
		select {
		case <-ended:
			return "", said.String()
		case <-time.After(100 * time.Millisecond):
		}
	}
	require.Fail(t, "unbound does not answer within a minute")
	return "", ""
}

// localZone writes records as configuration of Unbound.
func localZone(lines ...string) string {
	var b strings.Builder
	b.WriteString("\tlocal-zone: \"plain.example.\" static\n")
	b.WriteString("\tlocal-data: \"plain.example. 900 SOA ns.plain.example. hostmaster.plain.example. 1 7200 900 86400 300\"\n")
	for _, line := range lines {
		fmt.Fprintf(&b, "\tlocal-data: '%s'\n", line)
	}
	return b.String()
}

// std: R2 R3 R4 R5 R10
func TestUnboundPlain(t *testing.T) {
	lines := []string{
		"plain.example. 300 MX 20 MX2.plain.example.", "plain.example. 300 MX 10 mx1.plain.example.",
		"mx1.plain.example. 300 A 192.0.2.1", "mx1.plain.example. 300 AAAA 2001:db8::1",
		"null.plain.example. 300 MX 0 .", "nomx.plain.example. 300 A 192.0.2.7",
		"alias.plain.example. 300 CNAME plain.example.", "a.plain.example. 300 CNAME b.plain.example.", "b.plain.example. 300 CNAME a.plain.example.",
		`text.plain.example. 300 TXT "v=spf1 " "-all"`, "xn--bcher-kva.plain.example. 300 MX 10 mx1.plain.example.",
	}
	for i := range 300 {
		lines = append(lines, fmt.Sprintf("many.plain.example. 300 MX %d a-host-with-a-long-name-%d.plain.example.", i, i))
		lines = append(lines, fmt.Sprintf("host.plain.example. 300 A 192.0.2.%d", i%200))
	}
	server := unbound(t, localZone(lines...)+`
	local-data-ptr: "192.0.2.1 MX1.plain.example"
	local-zone: "refused.example." refuse
	local-zone: "silent.example." deny
`)
	r := &resolve.Resolver{Servers: []string{server}, Timeout: time.Second, Attempts: 1}
	ctx := t.Context()
	t.Run("MX", func(t *testing.T) { checkUnboundMX(t, r) })
	t.Run("MX, mixed case", func(t *testing.T) { checkUnboundMX(t, far(server)) })
	t.Run("others", func(t *testing.T) {
		addrs, err := r.LookupAddr(ctx, "mx1.plain.example")
		require.NoError(t, err)
		assert.Equal(t, "[2001:db8::1 192.0.2.1]", fmt.Sprint(addrs))
		addrs, err = r.LookupAddr(ctx, "host.plain.example")
		require.NoError(t, err)
		assert.Len(t, addrs, resolve.MaxRecords)
		texts, err := r.LookupTXT(ctx, "text.plain.example")
		require.NoError(t, err)
		assert.Equal(t, []string{"v=spf1 -all"}, texts)
		names, err := r.LookupPTR(ctx, netip.MustParseAddr("192.0.2.1"))
		require.NoError(t, err)
		assert.Equal(t, []string{"mx1.plain.example"}, names)
	})
	t.Run("failures", func(t *testing.T) {
		for name, says := range map[string]string{
			"refused.example": "REFUSED", "silent.example": "no answer", "a.plain.example": "CNAME loop",
		} {
			_, err := r.LookupMX(ctx, name)
			requireTemporary(t, err)
			assert.Contains(t, err.Error(), says)
		}
		_, err := r.LookupMX(ctx, "gone.plain.example")
		var failure *resolve.Error
		require.ErrorAs(t, err, &failure)
		assert.True(t, failure.NotFound)
	})
}

func checkUnboundMX(t *testing.T, r *resolve.Resolver) {
	for domain, want := range map[string]string{
		"Plain.Example.":        "[{mx1.plain.example 10} {mx2.plain.example 20}]",
		"alias.plain.example":   "[{mx1.plain.example 10} {mx2.plain.example 20}]",
		"null.plain.example":    "[{ 0}]",
		"nomx.plain.example":    "[]",
		"bücher.plain.example":  "[{mx1.plain.example 10}]",
		"BÜCHER.plain.example.": "[{mx1.plain.example 10}]",
	} {
		got, err := r.LookupMX(t.Context(), domain)
		require.NoError(t, err, domain)
		if len(got) == 2 && got[0].Preference == 20 {
			got[0], got[1] = got[1], got[0] // a server may turn its answers
		}
		assert.Equal(t, want, fmt.Sprint(got), domain)
	}
	answer, err := r.Lookup(t.Context(), "many.plain.example", dns.TypeMX)
	require.NoError(t, err, "over TCP")
	assert.Len(t, answer.Records, resolve.MaxRecords)
	assert.Equal(t, 300-resolve.MaxRecords, answer.Dropped)
	for _, mx := range answer.MX() {
		assert.Less(t, mx.Preference, uint16(resolve.MaxRecords))
	}
}

// unboundValidating is Unbound in front of zones that are signed, signed badly, signed in the past, and not signed.
func unboundValidating(t *testing.T) string {
	data := []string{
		"@ 300 IN MX 10 mx.@", "mx.@ 300 IN A 192.0.2.1", "_25._tcp.mx.@ 300 IN TLSA 3 1 1 " + strings.Repeat("ab", 32),
		"alias.@ 300 IN CNAME mx.@", "away.@ 300 IN CNAME mx.insecure.example.", "text.@ 300 IN TXT hello",
	}
	now := time.Now()
	zones := []*signedZone{
		newSignedZone(t, "signed.example.", now, data),
		newSignedZone(t, "bogus.example.", now, data),
		newSignedZone(t, "expired.example.", now.Add(-30*24*time.Hour), data),
		newSignedZone(t, "insecure.example.", now, data),
	}
	zones[1].spoil = true
	authority := listen(t, func(network string, query *dns.Msg) []byte {
		for _, z := range zones {
			if dns.IsSubDomain(z.origin, query.Question[0].Name) {
				return fit(t, z.answer(t, query), network)
			}
		}
		return rcode(t, dns.RcodeRefused)(network, query)
	})
	host, port, err := net.SplitHostPort(authority)
	require.NoError(t, err)
	var anchors, stubs strings.Builder
	for _, z := range zones {
		if z.origin != "insecure.example." {
			fmt.Fprintf(&anchors, "\ttrust-anchor: \"%s\"\n", strings.ReplaceAll(z.key.ToDS(dns.SHA256).String(), "\t", " "))
		}
		fmt.Fprintf(&stubs, "stub-zone:\n\tname: \"%s\"\n\tstub-addr: %s@%s\n", z.origin, host, port)
	}
	return unbound(t, "\tmodule-config: \"validator iterator\"\n"+anchors.String()+stubs.String())
}

// What a validating server says of its answers arrives: authenticated, not authenticated, and bogus, which is no answer at all.
func TestUnboundDNSSEC(t *testing.T) {
	server := unboundValidating(t)
	const secure, insecure, absent, missing, failed = "secure", "insecure", "secure, none", "secure, no such name", "temporary"
	tests := []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"signed.example", dns.TypeMX, secure},
		{"mx.signed.example", dns.TypeA, secure},
		{"_25._tcp.mx.signed.example", dns.TypeTLSA, secure},
		{"alias.signed.example", dns.TypeA, secure},
		{"away.signed.example", dns.TypeA, insecure},
		{"text.signed.example", dns.TypeTXT, secure},
		{"mx.signed.example", dns.TypeAAAA, absent},
		{"_25._tcp.gone.signed.example", dns.TypeTLSA, missing},
		{"gone.signed.example", dns.TypeMX, missing},
		{"insecure.example", dns.TypeMX, insecure},
		{"away.insecure.example", dns.TypeA, insecure},
		{"bogus.example", dns.TypeMX, failed},
		{"gone.bogus.example", dns.TypeMX, failed},
		{"_25._tcp.mx.bogus.example", dns.TypeTLSA, failed},
		{"expired.example", dns.TypeMX, failed},
	}
	says := func(answer resolve.Answer, err error) string {
		var failure *resolve.Error
		switch {
		case err == nil && !answer.Secure && len(answer.Records) > 0:
			return insecure
		case err == nil && answer.Secure && len(answer.Records) > 0:
			return secure
		case err == nil && answer.Secure:
			return absent
		case assert.ErrorAs(t, err, &failure) && failure.NotFound && answer.Secure:
			return missing
		case failure.Temporary() && strings.Contains(err.Error(), "SERVFAIL"):
			return failed
		}
		return fmt.Sprintf("%+v, %v", answer, err)
	}
	r := &resolve.Resolver{Servers: []string{server}}
	for _, tt := range tests {
		t.Run(tt.name+" "+dns.TypeToString[tt.qtype], func(t *testing.T) {
			for range 2 { // the second from the cache
				assert.Equal(t, tt.want, says(r.Lookup(t.Context(), tt.name, tt.qtype)))
			}
		})
	}
	for _, trust := range []bool{false, true} {
		t.Run(fmt.Sprintf("far away, trusted: %v", trust), func(t *testing.T) {
			r := far(server)
			r.TrustAD = trust
			answer, err := r.Lookup(t.Context(), "signed.example", dns.TypeMX)
			require.NoError(t, err)
			assert.Equal(t, trust, answer.Secure)
		})
	}
}
