// Package shape says how much mail a site gets at once, and how fast. A site is a set of MX hosts: many domains share one
// provider, and what a provider takes from an address of ours it takes from all of them together.
//
// The types to know are [Rules], which name sites and know what the large providers take; [Shaper], which lets attempts begin,
// learns from what became of them, and shows what it decided and why; and [State], which is what it shows.
//
//	shaper := new(shape.Shaper)                                           // with the embedded rules
//	site := shaper.Rules.Site([]string{"gmail-smtp-in.l.google.com"}) // "google"
//	if verdict, again := shaper.Begin(site); verdict == shape.Go {
//		start := time.Now()
//		… // deliver
//		shaper.End(site, shape.Result{News: shape.Took, Began: start})
//	}
//
// # What it learns
//
// A site begins with a few attempts at once and earns one more with each success, as far as its rule goes. Where it refuses
// all mail for now, it has half as many. Where it asks for less (421, "too many connections", "slow down") it also gets its
// mail further apart, and both recover gently: one more at once every ten seconds, and a quarter less apart. A site that cannot be reached is
// left alone, for longer each time, and then asked by one attempt: when that is answered, the others follow, few at first. What
// a host says about a recipient or a message says nothing about its site.
//
// # Rules
//
// Rules are data: the file sites.txt, whose format is described at its top. Hosts write rules of their own, which win over the
// embedded ones field by field, and read them with [ReadFile] or [Parse]:
//
//	google                             connections=5                # what a known site gets
//	partner    *.partner.example       connections=2 rate=100/h     # a site of one's own
//	default                            connections=10               # every other one
package shape
