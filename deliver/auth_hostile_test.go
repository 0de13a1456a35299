package deliver_test

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sortie-mail/sortie/deliver"
	"github.com/sortie-mail/sortie/deliver/lab"
	"github.com/sortie-mail/sortie/route"
)

var base64Runs = regexp.MustCompile(`[A-Za-z0-9+/_-]{6,}`)

// givesAway reports whether a secret can be read out of a text: as it is, as JSON, or in any piece of base64 of it.
func givesAway(text, secret string) bool {
	if strings.Contains(text, secret) || strings.Contains(strings.ReplaceAll(text, `\/`, "/"), secret) {
		return true
	}
	for _, run := range base64Runs.FindAllString(text, -1) {
		run = strings.NewReplacer("-", "+", "_", "/").Replace(run)
		for skip := range 4 {
			piece := run[min(skip, len(run)):]
			plain, _ := base64.RawStdEncoding.DecodeString(piece[:len(piece)-len(piece)%4])
			if strings.Contains(string(plain), secret) || strings.Contains(strings.ReplaceAll(string(plain), `\/`, "/"), secret) {
				return true
			}
		}
	}
	return false
}

// A host is the far end of a connection, by hand.
type host struct {
	t     *testing.T
	r     *bufio.Reader
	w     net.Conn
	first string // what came with AUTH, decoded
	heard []string
}

func (h *host) say(lines string) {
	_, _ = h.w.Write([]byte(strings.ReplaceAll(lines, "\n", "\r\n") + "\r\n"))
}

func (h *host) hear() string {
	line, _ := h.r.ReadString('\n')
	line = strings.TrimRight(line, "\r\n")
	h.heard = append(h.heard, line)
	return line
}

// ask sends a challenge and gives the answer, decoded.
func (h *host) ask(challenge string) string {
	h.say("334 " + base64Of(challenge))
	return h.decode(h.hear())
}

func (h *host) decode(line string) string {
	text, err := base64.StdEncoding.DecodeString(line)
	if err != nil && line != "" {
		h.t.Errorf("the client said %q within a login", line)
	}
	return string(text)
}

// against delivers by a route to a host that offers mechanisms and goes on as told once it has heard AUTH. What the client
// says after it must be nothing, or QUIT.
func against(t *testing.T, w *world, r route.Route, offer string, then func(*host)) deliver.Outcome {
	t.Helper()
	require.NoError(t, w.Zone("isp.test", "mail A 192.0.2.50"))
	done := make(chan []string, 1)
	w.d.Dial = func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			h := &host{t: t, r: bufio.NewReader(far), w: far}
			h.say("220 isp")
			h.hear()
			h.say("250-isp\n250 AUTH " + offer)
			words := strings.Fields(h.hear())
			if len(words) > 2 {
				h.first = h.decode(words[2])
			}
			then(h)
			for line := h.hear(); line != ""; line = h.hear() {
				h.say("250 ok")
			}
			done <- h.heard
		}()
		return near, nil
	}
	o := w.one(t, r)
	require.NoError(t, w.d.Close())
	for _, line := range <-done {
		require.NotContains(t, line, "MAIL FROM")
	}
	shut(t, w, nil, o)
	return o
}

// scramAnswer plays an honest server of SCRAM-SHA-256 up to the client's proof, but for what the test changes.
type scramAnswer struct {
	nonce      func(client string) string
	salt       string
	iterations string
	first      string // all of the first message, with %s for the nonce
}

func (a scramAnswer) message(h *host) string {
	_, client, _ := strings.Cut(h.first, ",r=")
	nonce := client + "server"
	if a.nonce != nil {
		nonce = a.nonce(client)
	}
	if a.first != "" {
		return strings.ReplaceAll(a.first, "%s", nonce)
	}
	if a.salt == "" {
		a.salt = base64Of("salt")
	}
	if a.iterations == "" {
		a.iterations = "4096"
	}
	return "r=" + nonce + ",s=" + a.salt + ",i=" + a.iterations
}

// signature is what a server that knows the password answers to a proof.
func signature(h *host, first, final string) string {
	salted, err := pbkdf2.Key(sha256.New, password, []byte("salt"), 4096, 32)
	if err != nil {
		h.t.Error(err)
	}
	mac := func(key []byte, text string) []byte {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(text))
		return m.Sum(nil)
	}
	without, _, _ := strings.Cut(final, ",p=")
	return "v=" + base64Of(string(mac(mac(salted, "Server Key"), strings.TrimPrefix(h.first, "n,,")+","+first+","+without)))
}

// A host that is not what it says, or wants to know too much, gets nothing by SCRAM: no mail, and nothing to try passwords
// on beyond what the protocol must show.
//
// std: C16
func TestHostsThatCheatInSCRAM(t *testing.T) {
	t.Setenv("PASSWORD", password)
	early := func(a scramAnswer) func(*host) {
		return func(h *host) {
			if answer := h.ask(a.message(h)); answer != "" {
				h.t.Errorf("it proved the password: %q", answer)
			}
		}
	}
	late := func(end func(h *host, good string)) func(*host) {
		return func(h *host) {
			first := scramAnswer{}.message(h)
			end(h, signature(h, first, h.ask(first)))
		}
	}
	tests := map[string]struct {
		then  func(*host)
		words string
		quiet bool // a protocol error, and no alarm
	}{
		"another nonce":                        {then: early(scramAnswer{nonce: func(string) string { return "another" }}), words: "nonce"},
		"our nonce alone":                      {then: early(scramAnswer{nonce: func(c string) string { return c }}), words: "nonce"},
		"a nonce before it":                    {then: early(scramAnswer{nonce: func(c string) string { return "x" + c }}), words: "nonce"},
		"no salt":                              {then: early(scramAnswer{first: "r=%s,s=,i=4096"}), words: "cannot be understood"},
		"salt of junk":                         {then: early(scramAnswer{salt: "!!!"}), words: "salt"},
		"an extension that must be understood": {then: early(scramAnswer{first: "m=x,r=%s,s=AAAA,i=4096"}), words: "cannot be understood"},
		"another order":                        {then: early(scramAnswer{first: "s=AAAA,r=%s,i=4096"}), words: "cannot be understood"},
		"nothing":                              {then: func(h *host) { h.ask("") }, words: "cannot be understood"},
		"the end first":                        {then: func(h *host) { h.ask("v=AAAA") }, words: "cannot be understood"},
		"no proof at all":                      {then: func(h *host) { h.say("235 welcome") }, words: "took the login without proof"},
		"no proof after ours":                  {then: late(func(h *host, _ string) { h.say("235 welcome") }), words: "took the login without proof"},
		"a wrong proof":                        {then: late(func(h *host, _ string) { h.ask("v=" + base64Of(strings.Repeat("x", 32))); h.say("235 ok") }), words: "signature of SCRAM-SHA-256 is wrong"},
		"a proof too short":                    {then: late(func(h *host, good string) { h.ask(good[:10]); h.say("235 ok") }), words: "signature of SCRAM-SHA-256 is wrong"},
		"no and yes":                           {then: late(func(h *host, _ string) { h.ask("e=invalid-proof"); h.say("235 ok") }), words: "took the login without proof"},
		"one more":                             {then: late(func(h *host, good string) { h.ask(good); h.ask("more") }), words: "unexpected server challenge", quiet: true},
		"a challenge after success":            {then: late(func(h *host, good string) { h.ask(good); h.say("235 ok\n334 AAAA") }), quiet: true},
	}
	for _, n := range []string{"0", "1", "4095", "1000001", "2147483648", "99999999999999999999", "+4096", "04096", "x"} {
		tests["iterations "+n] = struct {
			then  func(*host)
			words string
			quiet bool
		}{then: early(scramAnswer{iterations: n}), words: "iterations"}
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				o := against(t, w, by(t, "smtp://user@mail.isp.test secret=env:PASSWORD tls=none"), "SCRAM-SHA-256 PLAIN", tt.then)
				require.Equal(t, deliver.TempFail, o.Result)
				require.Equal(t, !tt.quiet, o.RouteTrouble, "%v", o)
				require.Contains(t, o.Detail, tt.words)
				if tt.words != "" {
					require.Equal(t, deliver.StageAuth, o.Stage)
				}
			})
		})
	}
}

// An honest host is believed: the tests above fail for what they change alone.
//
// std: C16
func TestAnHonestHostOfSCRAM(t *testing.T) {
	t.Setenv("PASSWORD", password)
	for name, tt := range map[string]struct {
		end   func(h *host, good string)
		stage deliver.Stage
		words string
	}{
		"takes it": {func(h *host, good string) { h.ask(good); h.say("235 ok"); h.hear(); h.say("550 no more") }, deliver.StageMail, ""},
		"says more than it must": {
			func(h *host, good string) { h.ask(good + ",x=y"); h.say("235 ok"); h.hear(); h.say("550 no more") }, deliver.StageMail, "",
		},
		"refuses": {func(h *host, _ string) { h.say("535 5.7.8 no") }, deliver.StageAuth, ""},
		"refuses and says why": {
			func(h *host, _ string) { h.ask("e=invalid-proof"); h.say("535 5.7.8 no") }, deliver.StageAuth, "of the login the host said invalid-proof",
		},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, w *world) {
				mailed := false
				o := againstMail(t, w, func(h *host) {
					first := scramAnswer{}.message(h)
					tt.end(h, signature(h, first, h.ask(first)))
					mailed = strings.HasPrefix(h.heard[len(h.heard)-1], "MAIL")
				})
				require.Equal(t, tt.stage, o.Stage, "%v", o)
				require.Equal(t, tt.words, o.Detail)
				require.Equal(t, tt.stage == deliver.StageMail, mailed)
				require.Equal(t, tt.stage == deliver.StageAuth, o.RouteTrouble)
			})
		})
	}
}

// againstMail is against, for a host that may hear MAIL.
func againstMail(t *testing.T, w *world, then func(*host)) deliver.Outcome {
	t.Helper()
	return against(t, w, by(t, "smtp://user@mail.isp.test secret=env:PASSWORD tls=none"), "SCRAM-SHA-256", func(h *host) {
		then(h)
		for i, line := range h.heard {
			h.heard[i] = strings.Replace(line, "MAIL FROM", "mail", 1)
		}
	})
}

// An answer to an empty challenge could be used again by whoever has it.
//
// std: C16
func TestAnEmptyChallengeOfCRAMIsNotAnswered(t *testing.T) {
	t.Setenv("PASSWORD", password)
	inMemory(t, func(t *testing.T, w *world) {
		o := against(t, w, by(t, "smtp://user@mail.isp.test secret=env:PASSWORD tls=none"), "CRAM-MD5", func(h *host) {
			if answer := h.ask(""); answer != "" {
				h.t.Errorf("it answered %q", answer)
			}
		})
		require.True(t, o.RouteTrouble, "%v", o)
		require.Contains(t, o.Detail, "challenge is empty")
	})
}

// A host that has refused a token and then says yes is not believed.
//
// std: C16
func TestHostsThatContradictThemselvesAboutATokenAreNotBelieved(t *testing.T) {
	for _, mechanism := range []string{"XOAUTH2", "OAUTHBEARER"} {
		inMemory(t, func(t *testing.T, w *world) {
			w.d.Token = tokens(true)
			o := against(t, w, submission("user", inTheClear), mechanism, func(h *host) { h.ask(`{"status":"400"}`); h.say("235 ok") })
			require.True(t, o.RouteTrouble, "%v", o)
			require.Contains(t, o.Detail, "refused the access token, and then said that it is good")
		})
	}
}

// Nor does such a host get the token into a log, however much it has to say about it.
//
// std: C16
func TestWhatATokenIsRefusedWithDoesNotShowIt(t *testing.T) {
	long := strings.Repeat("aVeryLongToken.", 40)
	for _, mechanism := range []string{"XOAUTH2", "OAUTHBEARER"} {
		for name, challenge := range map[string]string{
			"JSON": `{"status":"400","error_description":"not ` + long + `"}`, "words": "not " + long, "first words": long,
		} {
			for _, end := range []string{"235 ok", "535 5.7.8 no"} {
				t.Run(mechanism+" "+name+" "+end[:3], func(t *testing.T) {
					inMemory(t, func(t *testing.T, w *world) {
						w.d.Token = func(context.Context, route.Hop) (string, error) { return long, nil }
						o := against(t, w, submission("user", inTheClear), mechanism, func(h *host) {
							if h.first == "" { // it is longer than a command may be
								h.ask("")
							}
							h.ask(challenge)
							h.say(end)
						})
						require.True(t, o.RouteTrouble, "%v", o)
						for _, text := range []string{o.String(), o.Detail, w.said.String(), w.log.String()} {
							require.NotContains(t, text, "aVeryLongToken", "nor a piece of it")
						}
					})
				})
			}
		}
	}
}

// The same of a password in what a host of SCRAM-SHA-256 says, where it looks like a number, and where it is long.
//
// std: C16
func TestWhatSCRAMFailsWithDoesNotShowThePassword(t *testing.T) {
	long := strings.Repeat("aVeryLongPassword.", 10)
	for secret, then := range map[string]func(*host){
		"12345678": func(h *host) { h.ask(scramAnswer{iterations: "12345678"}.message(h)) },
		long:       func(h *host) { h.ask(scramAnswer{}.message(h)); h.ask("e=not " + long); h.say("535 5.7.8 no") },
	} {
		t.Setenv("PASSWORD", secret)
		inMemory(t, func(t *testing.T, w *world) {
			o := against(t, w, by(t, "smtp://user@mail.isp.test secret=env:PASSWORD tls=none"), "SCRAM-SHA-256", then)
			require.True(t, o.RouteTrouble, "%v", o)
			for _, text := range []string{o.String(), o.Detail, w.said.String(), w.log.String()} {
				require.NotContains(t, text, secret[:8])
			}
		})
	}
}

// Hosts may repeat what they heard, in any form and at any time. Nothing of it is kept or shown.
//
// std: C16
func TestHostsThatRepeatWhatTheyHeard(t *testing.T) {
	t.Setenv("PASSWORD", password)
	inJSON := func(s string) string {
		b, err := json.Marshal(map[string]string{"status": "400", "error_description": "not " + s})
		require.NoError(t, err)
		return string(b)
	}
	forms := map[string]func(string) string{
		"as it is": func(s string) string { return s },
		"base64":   base64Of, "base64 of more": func(s string) string { return base64Of("you said: " + s + "!") },
		"JSON": inJSON, "base64 of JSON": func(s string) string { return base64Of(inJSON(s)) },
		"PHP":           func(s string) string { return strings.ReplaceAll(inJSON(s), "/", `\/`) },
		"base64 of PHP": func(s string) string { return base64Of(strings.ReplaceAll(inJSON(s), "/", `\/`)) },
	}
	for form, wrap := range forms {
		for _, mechanism := range []string{"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "XOAUTH2", "OAUTHBEARER"} {
			t.Run(mechanism+" "+form, func(t *testing.T) {
				inMemory(t, func(t *testing.T, w *world) {
					secret := password
					r := by(t, "smtp://user@mail.isp.test secret=env:PASSWORD tls=none")
					if strings.Contains(mechanism, "AUTH") {
						secret, w.d.Token = token, tokens(true)
						r = submission("user", inTheClear)
					}
					var answer string
					o := against(t, w, r, mechanism, func(h *host) { answer = h.repeat(mechanism, secret, wrap) })
					require.Equal(t, deliver.TempFail, o.Result)
					require.Equal(t, 535, o.Reply.Code, "%v", o)
					require.NotEmpty(t, answer)
					require.NotContains(t, w.said.String()+o.String(), base64Of(answer), "nor the answer, on which passwords can be tried")
				})
			})
		}
	}
}

// repeat plays a login of a mechanism to its refusal, with the secret in all that the host says. It gives the answer of
// the client that says most.
func (h *host) repeat(mechanism, secret string, wrap func(string) string) (answer string) {
	answer = h.first
	switch mechanism {
	case "LOGIN":
		h.ask(wrap(secret))
		answer = h.ask("Password:")
	case "CRAM-MD5":
		answer = h.ask(wrap(secret))
	case "SCRAM-SHA-256":
		answer = h.ask(scramAnswer{}.message(h))
		h.ask("e=" + wrap(secret))
	case "XOAUTH2", "OAUTHBEARER":
		dummy := h.ask(wrap(secret))
		if dummy != map[string]string{"OAUTHBEARER": "\x01"}[mechanism] {
			h.t.Errorf("answered %q to a refusal", dummy)
		}
	}
	h.say("535-5.7.8 you said " + wrap(secret) + "\n535 5.7.8 and " + base64Of(answer))
	return answer
}

// Answers that make no sense end in bounded time, whatever the mechanism.
//
// std: C16
func TestHostsThatMakeNoSenseInALogin(t *testing.T) {
	t.Setenv("PASSWORD", password)
	for _, mechanism := range []string{"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "XOAUTH2", "OAUTHBEARER"} {
		for name, then := range map[string]func(*host){
			"challenges without end": func(h *host) {
				for i := range 1000 {
					h.say("334 " + base64Of(fmt.Sprintf("challenge %d", i)))
					if h.hear() == "" && i > 10 {
						return
					}
				}
				h.t.Error("a thousand challenges were answered")
			},
			"a challenge that is not base64": func(h *host) { h.say("334 ?!") },
			"a huge challenge":               func(h *host) { h.say("334 " + strings.Repeat("A", 100_000)) },
			"lines without end":              func(h *host) { h.say(strings.Repeat("334-AAAA\n", 1000) + "334 AAAA") },
			"254":                            func(h *host) { h.say("254 fine") },
			"nothing but a code":             func(h *host) { h.say("334"); h.hear(); h.say("334") },
			"junk":                           func(h *host) { h.say("\x00\x01\x02") },
		} {
			t.Run(mechanism+" "+name, func(t *testing.T) {
				inMemory(t, func(t *testing.T, w *world) {
					r := by(t, "smtp://user@mail.isp.test secret=env:PASSWORD tls=none")
					if strings.Contains(mechanism, "AUTH") {
						w.d.Token, r = tokens(true), submission("user", inTheClear)
					}
					o := against(t, w, r, mechanism, then)
					require.Equal(t, deliver.TempFail, o.Result)
					require.Equal(t, deliver.StageAuth, o.Stage)
				})
			})
		}
	}
}

// A secret that is part of what hosts say in a login does not disturb it.
func TestPasswordsThatLookLikeChallenges(t *testing.T) {
	for _, secret := range []string{"Password:", "word", "name", "Username:", "UGFzc3dvcmQ6", "UGFz"} {
		t.Setenv("PASSWORD", secret)
		inMemory(t, func(t *testing.T, w *world) {
			ispWorld(t, w)
			w.Server("mail.isp.test:587", lab.Offer{Users: map[string]string{"user": secret}, Mechanisms: []string{"LOGIN"}, AuthInClear: true})
			o := w.one(t, by(t, "smtp://user@mail.isp.test:587 secret=env:PASSWORD tls=none"))
			require.Equal(t, deliver.Delivered, o.Result, "%v", o)
		})
	}
}
