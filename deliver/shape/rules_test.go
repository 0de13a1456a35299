package shape_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver/shape"
)

// Each rule is one that a real host matches: what MX records named when the rule was written.
func TestEachRuleMatchesARealHost(t *testing.T) {
	real := map[string][]string{
		"google":         {"gmail-smtp-in.l.google.com", "alt4.aspmx.l.google.com", "aspmx2.googlemail.com", "smtp.google.com"},
		"outlook":        {"outlook-com.olc.protection.outlook.com", "hotmail-com.olc.protection.outlook.com"},
		"office365":      {"contoso-com.mail.protection.outlook.com", "contoso-com.o-v1.mx.microsoft"},
		"yahoo":          {"mta5.am0.yahoodns.net", "mx-aol.mail.gm0.yahoodns.net", "al-ip4-mx-vip1.prodigy.net"},
		"yahoo-japan":    {"mx1.mail.yahoo.co.jp"},
		"apple":          {"mx01.mail.icloud.com", "mx02.mail.icloud.com"},
		"comcast":        {"mx1a1.comcast.net", "mx2.comcast.net"},
		"gmx":            {"mx00.emig.gmx.net", "mx01.gmx.net", "mx-ha02.web.de", "mx00.gmx.com"},
		"mail.com":       {"mx00.mail.com", "mx01.mail.com"},
		"t-online":       {"mx00.t-online.de", "mx03.t-online.de"},
		"ionos":          {"mx00.kundenserver.de", "mx01.ionos.de", "mx00.ionos.com", "mx00.1and1.com", "mx00.perfora.net"},
		"freenet":        {"emig.freenet.de", "mx.freenet.de"},
		"orange":         {"smtp-in.orange.fr", "smtp-in.wanadoo.fr"},
		"sfr":            {"smtp-in.sfr.fr", "smtp-in.neuf.fr"},
		"free":           {"mx1.free.fr", "mx2.free.fr"},
		"laposte":        {"smtpz4.laposte.net"},
		"ovh":            {"mx0.mail.ovh.net", "mx1.ovh.net", "mx0.mail.ovh.ca"},
		"gandi":          {"spool.mail.gandi.net", "fb.mail.gandi.net"},
		"kpn":            {"mx1.dlp.kpnmail.nl"},
		"libero":         {"smtp-in.libero.it", "smtp-in.iol.it", "smtp-in.virgilio.it"},
		"aruba":          {"mx.aruba.it", "mxavas.aruba.it"},
		"tim":            {"smtp.tim.it"},
		"bt":             {"mx.bt.lon5.cpcloud.co.uk"},
		"virgin":         {"mx.mnd.ukmail.virginmedia.com"},
		"onet":           {"mx.poczta.onet.pl"},
		"wp":             {"mx.wp.pl", "mx.tlen.pl"},
		"interia":        {"mx.interia.pl"},
		"seznam":         {"mx1.seznam.cz"},
		"mail.ru":        {"mxs.mail.ru", "emx.mail.ru"},
		"yandex":         {"mx.yandex.ru", "mx.yandex.net"},
		"rambler":        {"inmx.rambler.ru"},
		"qq":             {"mx1.qq.com", "mxbiz1.qq.com"},
		"netease":        {"163mx01.mxmail.netease.com", "mx.qiye.163.com"},
		"sina":           {"freemx1.sinamail.sina.com.cn"},
		"alibaba":        {"mx1.qiye.aliyun.com", "mxn.mxhichina.com"},
		"naver":          {"mx1.naver.com"},
		"daum":           {"mx1.hanmail.net", "mx.daum.net"},
		"docomo":         {"mfsmax.docomo.ne.jp"},
		"au":             {"mx.au.com", "lsean.ezweb.ne.jp"},
		"softbank":       {"mx.softbank.ne.jp", "mx.i.softbank.jp"},
		"netvigator":     {"mx1.netvigator.com"},
		"rediffmail":     {"mx.rediffmail.com"},
		"cox":            {"mx.east.cox.net"},
		"spectrum":       {"mx0.charter.net", "pkvw-mx.msg.pkvw.co.charter.net", "mx.rr.com"},
		"cloudfilter":    {"cxr.mx.a.cloudfilter.net"},
		"centurylink":    {"mx.centurylink.net", "mx.zimbra.synacor.com"},
		"videotron":      {"mx.videotron.ca"},
		"bell":           {"mxmta.owm.bell.net", "mx.bellnexxia.net"},
		"fastmail":       {"in1-smtp.messagingengine.com", "in2-smtp.messagingengine.com"},
		"proton":         {"mail.protonmail.ch", "mailsec.protonmail.ch"},
		"zoho":           {"mx.zoho.com", "mx2.zoho.eu", "mx.zoho.in", "smtpin.zohomail.com"},
		"rackspace":      {"mx1.emailsrvr.com"},
		"godaddy":        {"mailstore1.secureserver.net", "smtp.secureserver.net"},
		"namecheap":      {"mx1.privateemail.com", "eforward1.registrar-servers.com"},
		"hostinger":      {"mx1.hostinger.com"},
		"titan":          {"mx1.titan.email"},
		"migadu":         {"aspmx1.migadu.com"},
		"mailbox.org":    {"mxext1.mailbox.org"},
		"posteo":         {"mx01.posteo.de"},
		"amazon":         {"inbound-smtp.eu-west-1.amazonaws.com"},
		"cloudflare":     {"route1.mx.cloudflare.net"},
		"improvmx":       {"mx1.improvmx.com"},
		"mimecast-us":    {"us-smtp-inbound-1.mimecast.com"},
		"mimecast-eu":    {"eu-smtp-inbound-2.mimecast.com"},
		"mimecast-de":    {"de-smtp-inbound-1.mimecast.com"},
		"mimecast-au":    {"au-smtp-inbound-1.mimecast.com"},
		"mimecast-za":    {"za-smtp-inbound-1.mimecast.co.za"},
		"mimecast":       {"usb-smtp-inbound-1.mimecast.com", "je-smtp-inbound-1.mimecast-offshore.com"},
		"barracuda":      {"d12345a.ess.barracudanetworks.com"},
		"proofpoint":     {"mxa-00123401.gslb.pphosted.com", "mx1-us1.ppe-hosted.com"},
		"messagelabs":    {"cluster1.us.messagelabs.com"},
		"cisco":          {"mx1.hc1234-56.iphmx.com"},
		"trendmicro":     {"example.in.tmes.trendmicro.com", "in.hes.trendmicro.eu"},
		"sophos":         {"mx-01-us-east-2.prod.hydra.sophos.com", "asp.reflexion.net"},
		"hornetsecurity": {"mx01.hornetsecurity.com", "mx23a.antispameurope.com"},
		"spamexperts":    {"mx1.antispamcloud.com", "mx1.spamexperts.com"},
	}
	var rules *shape.Rules
	for site, hosts := range real {
		for _, host := range hosts {
			assert.Equal(t, site, rules.Site([]string{host}), host)
			assert.Equal(t, site, rules.Site([]string{strings.ToUpper(host) + "."}), host)
		}
		assert.Equal(t, site, rules.Site(hosts), "all of them are one site")
		assert.Positive(t, rules.Limits(site).Connections)
	}
	named := slices.DeleteFunc(rules.Sites(), func(s string) bool { return s == "default" || s == "smarthost" })
	for _, site := range named {
		assert.Contains(t, real, site, "a rule that nothing is known to match")
	}
}

func TestNames(t *testing.T) {
	tests := []struct {
		hosts  []string
		source string
		want   string
	}{
		{[]string{"mx.example.com"}, "", "mx.example.com"},
		{[]string{"MX.Example.com."}, "192.0.2.7", "mx.example.com from 192.0.2.7"},
		{[]string{"mx2.example.com", "mx1.example.com"}, "", "(mx1|mx2).example.com"},
		{[]string{"mx1.example.com", "mx2.example.com", "mx1.example.com"}, "", "(mx1|mx2).example.com"},
		{[]string{"mx.a.example", "mx.b.example"}, "", "(mx.a|mx.b).example"},
		{[]string{"mx.a.example", "b.test"}, "", "(b.test|mx.a.example)"},
		{[]string{"example.com", "mx.example.com"}, "", "(example|mx.example).com"},
		{[]string{"[192.0.2.1]"}, "", "[192.0.2.1]"},
		{[]string{"[IPv6:2001:db8::1]"}, "2001:db8::7", "[ipv6-2001-db8--1] from 2001:db8::7"},
		{[]string{"aspmx.l.google.com", "mx.example.com"}, "", "(aspmx.l.google|mx.example).com"}, // not Google: a stranger's MX record can name anything
		{[]string{"aspmx.l.google.com", "mta5.am0.yahoodns.net"}, "", "(aspmx.l.google.com|mta5.am0.yahoodns.net)"},
		{nil, "", "none"},
	}
	var rules *shape.Rules
	for _, test := range tests {
		assert.Equal(t, test.want, shape.From(rules.Site(test.hosts), test.source))
	}
	assert.Equal(t, "mail.isp.test:587", shape.Smarthost("", "Mail.ISP.test", "587"))
	assert.Equal(t, "ann@corp.test@mail.isp.test:587 from 192.0.2.7", shape.From(shape.Smarthost("ann@corp.test", "mail.isp.test", "587"), "192.0.2.7"))
	assert.Equal(t, "[2001:db8::1]:25", shape.Smarthost("", "2001:db8::1", "25"))
	assert.Equal(t, "unix:/run/lmtp", shape.Smarthost("", "/run/lmtp", ""))
	assert.Equal(t, 50, rules.Limits("ann@corp.test@mail.isp.test:587 from 192.0.2.7").Connections)
}

// Whatever stands in DNS, a name is short and of letters that a log can have, and other hosts have another.
func TestNamesOfStrangeHosts(t *testing.T) {
	var rules *shape.Rules
	long := make([]string, 100)
	for i := range long {
		long[i] = strings.Repeat("x", i+1) + ".example.com"
	}
	other := slices.Clone(long)
	other[99] = "y.example.com"
	names := map[string]bool{}
	for _, hosts := range [][]string{long, other, {"a\x00b.test"}, {"a\nb.test"}, {"a b.test"}, {"ä.test"}, {"a|b.test"}, {"a.test", "b\r.test"}, {""}} {
		name := rules.Site(hosts)
		assert.LessOrEqual(t, len(name), 130)
		assert.Empty(t, strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789.-_?|()[]~"), "%q", name)
		assert.False(t, names[name], "%q stands for other hosts too", name)
		names[name] = true
	}
}

func TestOwnRulesWin(t *testing.T) {
	rules, err := shape.Parse("own", strings.NewReader(`
# ours
google                                   connections=5 rate=10/s,100/min,1000/h
partner  mx.partner.test *.partner.net   connections=2 messages=3 recipients=4 rate=none
yahoo    *.google.com                    connections=none   # theirs now
tiny     mx.tiny.google.com
default                                  connections=7 recipients=50
smarthost                                recipients=9
esp      smtp.esp.test                   connections=1000
`))
	require.NoError(t, err)
	assert.Equal(t, shape.Limits{Connections: 5, Messages: 50, Recipients: 100, PerSecond: 10, PerMinute: 100, PerHour: 1000}, rules.Limits("google"))
	assert.Equal(t, rules.Limits("google"), rules.Limits("google from 192.0.2.7"), "each source address has all of it")
	assert.Equal(t, "partner", rules.Site([]string{"mx.partner.test", "a.b.partner.net"}))
	assert.Equal(t, shape.Limits{Connections: 2, Messages: 3, Recipients: 4}, rules.Limits("partner"))
	assert.Equal(t, "yahoo", rules.Site([]string{"aspmx.l.google.com"}))
	assert.Equal(t, "tiny", rules.Site([]string{"mx.tiny.google.com"}), "what says more counts")
	assert.Equal(t, shape.Limits{Messages: 20, Recipients: 50}, rules.Limits("yahoo"))
	assert.Equal(t, shape.Limits{Connections: 7, Recipients: 50}, rules.Limits("mx.other.test"))
	assert.Equal(t, shape.Limits{Connections: 50, Recipients: 9}, rules.Limits("mail.isp.test:25"))
	assert.Equal(t, shape.Limits{Connections: 1000, Recipients: 9}, rules.Limits("u@smtp.esp.test:587"))
	var embedded *shape.Rules
	assert.Equal(t, 20, embedded.Limits("google").Connections, "the embedded ones are as they were")
}

func TestMistakesInRules(t *testing.T) {
	tests := []struct{ text, want string }{
		{"google connections=0", `own:1: "connections=0": write a number from 1 to 1000000, or none`},
		{"google connections=many", `own:1: "connections=many": write a number from 1 to 1000000, or none`},
		{"google connexions=1", `own:1: "connexions=1": there is no such limit: write connections=, messages=, recipients= or rate=`},
		{"\n\ngoogle rate=5", `own:3: "rate=5": write a number of messages and a time, like rate=10/s or rate=100/min,1000/h, or rate=none`},
		{"google rate=5/day", "like rate=10/s"},
		{"google rate=,", "like rate=10/s"},
		{"google *.google.*", `own:1: "*.google.*": this is neither a limit, like connections=10, nor hosts: write mx.example.com, or *.example.com`},
		{"google *", "neither a limit"},
		{"a mx.test\nb mx.test", `own:2: "mx.test": this pattern stands in line 1 already`},
		{"a connections=1\na messages=1", `own:2: "a": this site has a rule in line 1 already: write all of it in one line`},
		{"default *.test connections=1", `own:1: "*.test": default is every site without a rule and has no patterns`},
		{"*.google.com connections=1", `own:1: "*.google.com": this is no name of a site`},
		{"mail.isp.test:25 connections=1", "this is no name of a site"},
		{"Google connections=1", "letters in lower case"},
		{"a rate=0/s\nb messages=-1", "own:2:"}, // all of them are told
	}
	for _, test := range tests {
		_, err := shape.Parse("own", strings.NewReader(test.text))
		require.Error(t, err, test.text)
		assert.Contains(t, err.Error(), test.want)
		var one *shape.Error
		require.True(t, errors.As(err, &one))
		assert.Equal(t, "own", one.File)
		assert.Positive(t, one.Line)
	}
	_, err := shape.Parse("own", strings.NewReader(strings.Repeat("? ?\n", 10_000)))
	require.Error(t, err)
	assert.Less(t, len(err.Error()), 20_000, "of a file of another kind not every line is told")
	for _, text := range []string{strings.Repeat("x", 1<<20), strings.Repeat("# comment\n", 1<<19)} {
		_, err = shape.Parse("own", strings.NewReader(text))
		require.Error(t, err, "it is bounded")
	}
}

func TestReadFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "sites")
	require.NoError(t, os.WriteFile(name, []byte("google connections=3\n"), 0o600))
	rules, err := shape.ReadFile(name)
	require.NoError(t, err)
	assert.Equal(t, 3, rules.Limits("google").Connections)
	_, err = shape.ReadFile(name + "x")
	require.ErrorIs(t, err, os.ErrNotExist)
	assert.Contains(t, err.Error(), name+"x")
}

// Whatever a file holds, it is read or refused with a line, and what was read gives limits that make sense.
func FuzzParse(f *testing.F) {
	text, err := os.ReadFile("sites.txt")
	require.NoError(f, err)
	f.Add(string(text), "mx.example.com")
	f.Add("google connections=5 rate=10/s,none\n", "a.google.com")
	f.Add("a *.b c.d connections=none # x\ndefault messages=1", "x.b")
	f.Fuzz(func(t *testing.T, text, host string) {
		rules, err := shape.Parse("fuzz", strings.NewReader(text))
		if err != nil {
			assert.Contains(t, err.Error(), "fuzz")
			return
		}
		for _, site := range append(rules.Sites(), rules.Site([]string{host}), shape.Smarthost("u", host, "25")) {
			l := rules.Limits(site)
			for _, n := range []int{l.Connections, l.Messages, l.Recipients, int(l.PerSecond), int(l.PerMinute), int(l.PerHour)} {
				assert.GreaterOrEqual(t, n, 0)
			}
		}
	})
}
