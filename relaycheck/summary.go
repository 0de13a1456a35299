package relaycheck

import (
	"slices"
	"time"
)

// A Summary is what an administrator opens first: everything that is known to be wrong, the worst first, and what to do about
// it. It is a value: JSON carries all of it, String and WriteText write it for a terminal.
type Summary struct {
	Host     string    `json:"host"`           // the server that it is about
	At       time.Time `json:"at"`             // when it was made
	Since    time.Time `json:"since,omitzero"` // since when deliveries were seen: what was before is not known; zero where none were
	Severity Severity  `json:"severity"`       // the worst of the findings'
	Findings []Finding `json:"findings"`       // the worst first, then in the order of their ids
	First    []Step    `json:"first"`          // what to do first
}

// maxFirst is how many steps come first.
const maxFirst = 3

// Summarize makes a summary of a server at a time. The findings come from anywhere: [AuditPolicy], [Refusals], other checks.
// What one of them tells about the possibilities of another is put there, so that a refusal as an open relay says what the
// server's own rules say to that.
func Summarize(host string, at time.Time, findings ...Finding) Summary {
	s := Summary{Host: host, At: at, Findings: []Finding{}}
	for _, f := range findings {
		if f.ID == sinceID {
			s.Since = f.First
			continue
		}
		s.Findings = append(s.Findings, f)
	}
	sortFindings(s.Findings)
	for i := range s.Findings {
		f := &s.Findings[i]
		f.Possibilities = slices.Clone(f.Possibilities)
		for j := range f.Possibilities {
			f.Possibilities[j].learn(s.Findings)
		}
		s.Severity = max(s.Severity, f.Severity)
	}
	s.First = firstSteps(s.Findings)
	return s
}

// learn takes over what findings tell about a possibility.
func (p *Possibility) learn(all []Finding) {
	known := slices.Clone(p.Known)
	for i := range all {
		for _, clue := range all[i].Clues {
			if clue.Class == p.Class && !slices.Contains(known, clue.Text) {
				known = append(known, clue.Text)
			}
		}
	}
	p.Known = known
}

// firstSteps are the first steps against the worst findings. What a clue says is behind one of them comes before it: mail
// that takes another way out of an open relay only gets that way blocked too.
func firstSteps(all []Finding) []Step {
	steps, done := []Step{}, map[int]bool{}
	add := func(i int) {
		f := &all[i]
		if f.Severity < Warning || done[i] || len(steps) == maxFirst {
			return
		}
		step := Step{Who: you, Do: "Look into this: " + f.Title + "."} // a check of the host's own may not know what to do
		if len(f.Remedy) > 0 {
			step = f.Remedy[0]
		}
		steps, done[i] = append(steps, step), true
	}
	for i := range all {
		for j := range all {
			if all[i].Severity >= Warning && all[j].confirms(&all[i]) {
				add(j)
			}
		}
		add(i)
	}
	return steps
}

// confirms reports whether a finding speaks for a possibility of another.
func (f *Finding) confirms(other *Finding) bool {
	return slices.ContainsFunc(f.Clues, func(c Clue) bool {
		return c.Confirms && slices.ContainsFunc(other.Possibilities, func(p Possibility) bool { return p.Class == c.Class })
	})
}
