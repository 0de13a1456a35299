package memory

// maxPassed is how many turns in a row go to higher tiers while a lane of a lower one is ready.
const maxPassed = 8

// rings are the lanes that are ready, by tier: in each the one that has waited for longest is first. The zero value is ready.
type rings struct {
	ready  [tiers][]slot
	passed [tiers]int // turns that went to other tiers while this one had a lane
	last   uint64     // number of the newest slot
}

// A slot is a lane's place in a ring. A lane that moved to a higher tier leaves its old one behind, which counts for nothing.
type slot struct {
	lane   *lane
	number uint64
}

// add puts a lane at the end of a tier's ring, out of wherever it stood in another.
func (r *rings) add(l *lane, t tier) {
	r.last++
	l.place, l.in, l.slot = inRing, t, r.last
	r.ready[t] = append(r.ready[t], slot{l, r.last})
}

// next takes out the lane whose turn it is; nil where none is ready. Of the tiers it is the highest one's, unless another was
// passed over often enough.
func (r *rings) next() *lane {
	chosen := tiers
	for t := range tiers {
		r.tidy(t)
		switch {
		case len(r.ready[t]) == 0:
			r.passed[t] = 0
		case chosen == tiers || (r.passed[t] >= maxPassed && r.passed[t] > r.passed[chosen]):
			chosen = t
		}
	}
	if chosen == tiers {
		return nil
	}
	for t := range tiers {
		r.passed[t]++
	}
	r.passed[chosen] = 0
	l := r.ready[chosen][0].lane
	r.drop(chosen)
	l.place = nowhere
	return l
}

// tidy drops what lanes that moved have left at the head of a ring.
func (r *rings) tidy(t tier) {
	for len(r.ready[t]) > 0 {
		if s := r.ready[t][0]; s.lane.place == inRing && s.lane.slot == s.number {
			return
		}
		r.drop(t)
	}
}

func (r *rings) drop(t tier) {
	r.ready[t][0] = slot{}
	r.ready[t] = r.ready[t][1:]
}

// empty reports that no lane is ready.
func (r *rings) empty() bool {
	for t := range tiers {
		if r.tidy(t); len(r.ready[t]) > 0 {
			return false
		}
	}
	return true
}

// ready puts a lane where it has its turn.
func (x *Index) ready(l *lane, now instant) { x.rings.add(l, x.tier(l, now)) }

// promote moves a lane that is ready to a higher tier, because of an entry that is due at once.
func (x *Index) promote(l *lane, e *entry) {
	if l.place != inRing || e.wait != 0 {
		return
	}
	if t := tierOf(x.messageOf(e).priority); t < l.in {
		x.rings.add(l, t)
	}
}
