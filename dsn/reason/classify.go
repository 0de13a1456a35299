package reason

import (
	"slices"
	"strings"
)

// Classify uses the embedded rules.
func Classify(in Input) Verdict { return (*Rules)(nil).Classify(in) }

// Classify says why a server refused. It never fails: what no rule knows is [Unknown]. It reads the first 4 KiB of a reply.
func (r *Rules) Classify(in Input) Verdict {
	if r == nil {
		r = embedded()
	}
	look, _ := r.readings.Get().(*reading)
	if look == nil {
		look = &reading{}
	}
	defer r.readings.Put(look)
	look.take(&in)
	look.numbers = r.words.look(&look.text, look.words, look.numbers[:0])
	look.said.take(look.numbers, r.words.count, r.phrases)
	look.numbers = r.words.look(&look.text, look.names, look.numbers[:0])
	look.named.take(look.numbers, r.words.count, r.phrases)
	if n := r.decide(look); n < uint32(len(r.rules)) {
		return r.verdict(&r.rules[n], look, &in)
	}
	v := r.Explain(Unknown)
	v.Confidence = 0
	v.Links = addRemote(slices.Clip(v.Links), look.links, in.Host)
	return v
}

// Explain says what a class means where there is no reply: whose matter it is, whether trying again helps, and what sender
// and administrator can do. Several classes are one that has several explanations, the likeliest first.
func (r *Rules) Explain(classes ...Class) Verdict {
	if r == nil {
		r = embedded()
	}
	if len(classes) == 0 {
		classes = []Class{Unknown}
	}
	v := r.template(&ruleSpec{classes: slices.Clone(classes), confidence: 1})
	v.Links = slices.Clone(v.Links)
	return v
}

// take reads what is asked about.
func (r *reading) take(in *Input) {
	r.reset(in.Reply.Code)
	r.read(in.Reply.Lines)
	if r.code >= 200 && r.status.class > 0 {
		r.status.class = r.code / 100 // RFC 3463, section 2, and RFC 2034, section 4: the reply code decides
	}
	r.stage = in.Stage
	r.host = strings.ToLower(strings.TrimSuffix(in.Host, "."))
	r.site = strings.ToLower(in.Site)
}

// decide is the first rule of which all conditions hold; the number of rules if there is none.
func (r *Rules) decide(look *reading) uint32 {
	best := uint32(len(r.rules))
	for _, word := range look.said.there {
		best = r.first(r.bySaid[word], best, look)
	}
	for _, word := range look.named.there {
		best = r.first(r.byName[word], best, look)
	}
	if len(r.bySite) > 0 {
		best = r.first(r.bySite[look.site], best, look)
		for at := look.host; at != ""; _, at, _ = strings.Cut(at, ".") {
			best = r.first(r.bySite[at], best, look)
		}
	}
	return r.first(r.others, best, look)
}

// first is the first of the listed rules that holds, if it comes before best.
func (r *Rules) first(list []uint32, best uint32, look *reading) uint32 {
	for _, n := range list {
		if n >= best {
			return best
		}
		if r.rules[n].holds(look) {
			return n
		}
	}
	return best
}

func (o *rule) holds(look *reading) bool {
	for _, c := range o.conditions {
		if !c.holds(look) {
			return false
		}
	}
	return true
}

// verdict is what a rule says of a reply.
func (r *Rules) verdict(decided *rule, look *reading, in *Input) Verdict {
	v := decided.verdict
	v.Classes = slices.Clone(v.Classes)
	if v.Retry == RetryNever && look.code/100 == 4 {
		v.Retry = RetryNormal // the server itself says that it may help
	}
	class := v.Links
	v.Links = nil
	if decided.namesList && v.List == "" {
		v.List = r.listed(look)
	}
	if v.List != "" {
		v.Links = append(v.Links, r.pages(v.List)...)
	}
	if v.Matter.about() {
		for i := range r.providers {
			if p := &r.providers[i]; p.sites.holds(look) {
				v.Links = append(v.Links, p.links...)
			}
		}
	}
	v.Links = addRemote(append(v.Links, class...), look.links, in.Host)
	return v
}

// about reports whether a provider's pages for those who run mail servers may help.
func (m Matter) about() bool {
	return m != MatterMailbox && m != MatterDomain && m != MatterNetwork && m != MatterUnknown
}

// listed is the first blocklist that a reply names, in its text or in a URL or a name.
func (r *Rules) listed(look *reading) string {
	for i := range r.lists {
		for _, p := range r.lists[i].phrases {
			if look.said.has(p.number, p.elements) || look.named.has(p.number, p.elements) {
				return r.lists[i].name
			}
		}
	}
	return ""
}

// pages are the links of a blocklist.
func (r *Rules) pages(list string) []Link {
	for i := range r.lists {
		if r.lists[i].name == list {
			return r.lists[i].links
		}
	}
	return nil
}
