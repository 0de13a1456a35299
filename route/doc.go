// Package route decides where outgoing mail goes: to the recipient domain's mail exchangers, through a smarthost, or nowhere.
//
// The types to know are [Router], which decides; [Table], the standard Router, read from a routing file by [ReadFile] or
// [Parse]; [Reloader], a Table that follows its file; and [Route] with its [Hop] values, the decision.
//
//	routes, err := route.ReadFile("routes")
//	r, err := routes.Route(ctx, route.Query{Sender: "me@example.org", Recipient: "you@aol.com"})
//
// # The routing file
//
// One entry a line: a pattern, then hops separated by commas. Text after a # that begins a word is a comment. The file is in UTF-8, with
// lines of at most 16 KiB that end in LF or CRLF. Its mistakes are told all at once, each with line, column and what to write instead.
//
//	# pattern              hops
//	*@aol.com              smtp://mail.isp.example
//	*@*.gov                direct tls=verified
//	boss@corp.example      smtps://sortie@relay.example:465 secret=env:RELAY_PASSWORD
//	from:*@news.example    submission://u@bulk.example secret=file:/run/secrets/bulk
//	mx:*.yahoodns.net      smtp://mail.isp.example      # by the name of the recipient domain's MX host
//	*@old.example          reject "550 5.1.2 This domain has moved to new.example"
//	*@later.example        hold
//	*                      direct, on blocked smtp://mail.isp.example
//
// # Patterns
//
// The most specific pattern wins, and the order in the file does not matter. From high to low:
//
//	boss@corp.example      one recipient
//	from:ann@corp.example  one sender; from:<> is the null sender, of reports
//	*@corp.example         a recipient domain; not its subdomains
//	from:*@corp.example    a sender domain
//	*@*.gov                the subdomains of a domain at any depth, and not the domain itself; the longest wins
//	from:*@*.gov           the same for senders
//	mx:*.yahoodns.net      the name of an MX host of the recipient domain: that host, or *. the hosts below it
//	*                      everything else
//
// So *@aol.com covers aol.com and not mail.aol.com, and *@*.gov covers whitehouse.gov and www.nasa.gov and not gov: to
// cover a domain with its subdomains, write two entries. Without a matching entry mail goes direct. Two entries with
// the same pattern are an error. Domains are compared as A-labels and without regard to case: a pattern in
// Unicode and its punycode are the same. Local parts are compared octet for octet; the option case=ignore makes an
// entry's local part match in any case. One that holds a space, a comma, a colon or another character that SMTP wants quoted stands
// in double quotes, and matches addresses that are written so.
//
// # Hops
//
//	direct                       the recipient domain's MX hosts (RFC 5321, section 5)
//	smtp://[USER@]HOST[:PORT]    a smarthost; port 25, STARTTLS where offered
//	submission://…               port 587, STARTTLS required (RFC 6409)
//	smtps://…                    port 465, TLS from the start (RFC 8314)
//	lmtp://HOST:PORT             LMTP (RFC 2033), also lmtp://unix:/path
//	reject "5yz x.y.z text"      fail with that reply
//	hold                         keep until a person releases it, or the route changes
//	discard                      accept and forget
//
// A program that has one way for all mail, or finds ways elsewhere, reads such a list of hops with [ParseRoute];
// the Route is a Router, too.
//
// A smarthost's name is looked up as a host, or as a domain with the option mx=yes. Every hop but the first begins with
// the condition under which it is tried: "on blocked" (the refusal is about our address or its reputation), "on
// unreachable" (no connection to any host), "on tempfail" (any temporary failure) or "on any" (any failure).
//
// Options of a hop:
//
//	tls=none|opportunistic|required|verified|dane
//	                    what is asked of TLS (dane is not built in yet, and mail that asks for it waits; of the others
//	                    only verified makes sure that a password goes to the right host)
//	secret=env:NAME     the password of USER, or secret=file:PATH
//	auth=MECHANISM      log in by plain, login, cram-md5, scram-sha-256, xoauth2, oauthbearer or external, and by nothing else
//	                    that the host offers. With xoauth2 and oauthbearer the secret is an access token, or left out where
//	                    the program has a source of tokens; with external there is none, but a client certificate, and
//	                    USER may be left out. Without the option it is the safest that is offered and fits
//	source=ADDRESS      connect from this address, and to hosts of its family only; twice for one of each family
//	helo=NAME           greet with this name, and helo6=NAME where the connection is over IPv6
//	proxy=socks5://[USER@]HOST[:PORT]
//	                    connect through a SOCKS 5 server (port 1080); names are still looked up here
//	proxy-secret=env:NAME
//	                    the password of the proxy's USER, or proxy-secret=file:PATH
//	pipelining=no       one command at a time, for a host that loses commands sent together
//	chunking=no         DATA only, for a host that fails at BDAT
//	mx=yes              look a smarthost up by MX
//
// A secret is read with the file, and one that is missing is a mistake of the file; nothing that prints a route, a table or
// an error prints it. A program that has a password from elsewhere, a vault for one, puts it into a hop with [NewSecret].
package route
