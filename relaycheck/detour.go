package relaycheck

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/sortie-mail/sortie/dsn/reason"
	"github.com/sortie-mail/sortie/route"
)

// An origin is the entry of the routing file that led mail somewhere. The zero value is none.
type origin struct {
	pattern, file string
	line          int
}

// originOf keeps nothing of the table alive.
func originOf(r *route.Route) origin {
	return origin{strings.Clone(r.Pattern), strings.Clone(r.File), r.Line}
}

// String is where it stands, for a sentence: "line 5 of routes (*@aol.com)".
func (o origin) String() string {
	pattern := clean(o.pattern, maxSaid)
	if o.file == "" {
		return "the entry " + pattern
	}
	return fmt.Sprintf("line %d of %s (%s)", o.line, clean(o.file, maxSaid), pattern)
}

// wins reports whether an entry with a pattern cannot be added beside it, or would not be asked: it has that very pattern, or it
// is for one address, and that goes before domains.
func (o origin) wins(pattern string) bool {
	if !parses(o.pattern) {
		return false
	}
	text, _ := strings.CutPrefix(o.pattern, "from:")
	whole := text != "*" && !strings.HasPrefix(text, "mx:") && !strings.HasPrefix(text, "*@")
	return whole || !parses(o.pattern, pattern)
}

// parses reports whether a routing file may have these patterns. It may have none twice.
func parses(patterns ...string) bool {
	text := strings.Join(patterns, " direct\n") + " direct\n"
	if strings.Count(text, "\n") != len(patterns) {
		return false
	}
	table, err := route.Parse("", strings.NewReader(text))
	return err == nil && table.Len() == len(patterns)
}

// A change is what to do to the routing file, so that mail takes another way.
type change struct {
	replace []origin
	by      []string // lines in the place of those
	add     []string // lines to add
}

// set gives a pattern a way: in the place of an entry among those that led the mail here, or by a new one. Nothing is told that a
// routing file could not have.
func (c *change) set(pattern, way string, known ...origin) {
	if !parses(pattern) {
		return
	}
	if i := slices.IndexFunc(known, func(o origin) bool { return o.wins(pattern) }); i >= 0 {
		if !slices.Contains(c.replace, known[i]) {
			c.replace = append(c.replace, known[i])
			c.by = append(c.by, known[i].pattern+" "+way)
		}
		return
	}
	c.add = append(c.add, pattern+" "+way)
}

func (c *change) empty() bool { return len(c.by)+len(c.add) == 0 }

// steps are the change for people: why says what for, in words that a colon follows, and note what else there is to say.
func (c *change) steps(why, note string) (steps []Step) {
	line := func(lines []string) string {
		if len(lines) == 1 {
			return "this line"
		}
		return "these lines"
	}
	if len(c.by) > 0 {
		names := make([]string, len(c.replace))
		for i, o := range c.replace {
			names[i] = o.String()
		}
		do := fmt.Sprintf("%s: replace %s by %s.%s", why, strings.Join(names, " and "), line(c.by), note)
		steps, why = append(steps, Step{Who: you, Do: do, Lines: c.by}), "For the rest of it"
	}
	if len(c.add) > 0 {
		do := fmt.Sprintf("%s: add %s to the routing file.%s", why, line(c.add), note)
		steps = append(steps, Step{Who: you, Do: do, Lines: c.add})
	}
	return steps
}

// back is the step that undoes the change.
func (c *change) back() Step {
	do := "When it accepts mail again, take what was added for it out of the routing file."
	switch {
	case len(c.by) > 0 && len(c.add) > 0:
		do = "When it accepts mail again, take what was added for it out of the routing file, and put back what was replaced."
	case len(c.by) > 0:
		do = "When it accepts mail again, put back what was replaced in the routing file."
	}
	return Step{Who: you, Do: do}
}

// ispNote says what to put into lines that have the default smarthost.
func ispNote(smarthost string) string {
	if smarthost != defaultSmarthost {
		return ""
	}
	return " Put the name of your ISP's mail server in place of mail.isp.example."
}

// detourChange sends the place's mail through a smarthost: by the recipients' domains, and where several share the provider also
// by its MX hosts.
func (e *entry) detourChange(smarthost string) *change {
	c := &change{}
	var known []origin
	for _, domain := range e.sortedDomains() {
		from := e.domains[domain]
		known = append(known, from)
		c.set("*@"+domain, smarthost, from)
	}
	if len(e.domains) == 1 && !e.more {
		return c
	}
	const others = " # and all other domains with its mail servers"
	same := slices.DeleteFunc(known, func(o origin) bool { return !strings.HasPrefix(o.pattern, "mx:") })
	if e.below {
		c.set("mx:*."+e.name, smarthost+others, same...)
	}
	if e.at && !strings.HasPrefix(e.name, "[") {
		c.set("mx:"+e.name, smarthost+others, same...)
	}
	return c
}

// meanwhileSmarthost is advice to take another way.
var meanwhileSmarthost = regexp.MustCompile(`(?:, and|\. Meanwhile,) route [^.]*smarthost[^.]*\.`)

// advice is what a verdict tells the administrator, without the advice to take another way where there is one already.
func (e *entry) advice() string {
	if e.detour == "" && e.failed == "" && !e.smarthost {
		return e.verdict.Admin
	}
	return meanwhileSmarthost.ReplaceAllString(e.verdict.Admin, ".")
}

// leads reports whether one of the links of a refusal leads to the provider or the list concerned: all do but those to what is
// told of its classes wherever they are met.
func leads(v *reason.Verdict) bool {
	general := (*reason.Rules)(nil).Explain(v.Classes...).Links
	return slices.ContainsFunc(v.Links, func(l reason.Link) bool { return !slices.Contains(general, l) })
}
