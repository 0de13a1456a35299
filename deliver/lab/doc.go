// Package lab is a small internet of your own: a DNS server, mail servers that behave as badly as you tell them to, a
// certificate authority, and the mail that arrived, for tests and demonstrations of anything that sends mail.
//
// The types to know are [Internet], which holds the zones and the servers; [Server], one mail server with its
// mailbox and its transcript; [Behaviour], what a server does instead of accepting everything ([Refuse], [Hang], [Drop],
// [Greylist], [Script] and others, and [Offer] for its extensions, TLS and logins); and [Message], a mail that arrived.
//
//	net, err := lab.New(lab.Options{})
//	if err != nil { … }
//	defer net.Close()
//	err = net.Zone("aol.test", "@ MX 10 mx\nmx A 192.0.2.10")
//	mx := net.Server("mx.aol.test")                            // at 192.0.2.10:25
//	mx.Behave(lab.Refuse(lab.AtRcpt, "554 5.7.1 We do not like your address"))
//	… // send with net.DNS() as the DNS server and net.Dial as the dialer
//	mx.Behave()                                                // accepts again
//	msgs, err := mx.WaitMail(ctx, 1)
//
// What came is in the [Message]; what was said is in the [Server.Transcript], octet by octet in a [Tap]. With
// [Options.Latency] hosts are as far away as you like, and [Server.RoundTrips] counts what that costs a client.
//
// Addresses are fictive: [Internet.Dial] leads 192.0.2.10:25 to whichever server has the name that the zones give that
// address to, and never leaves the machine. Servers for programs that cannot be given a dialer listen on a loopback
// address that you choose ([Internet.Listen]).
//
// By default everything runs over real sockets on loopback. With [Options.InMemory] connections are buffers in memory
// that work in a testing/synctest bubble: the Internet must then be made and closed inside the bubble, and days of
// retries pass in milliseconds.
//
// The package knows nothing of Sortie's own deliverer, so that it can test any client.
package lab
