package reason

import "slices"

// How many words may stand between two parts of a phrase.
const (
	wideGap   = 12 // where it has a *
	narrowGap = 3  // where it has a ~
)

// An element is a part of a phrase: a word, a gap, or a group.
type element struct {
	word   string
	number uint32      // of the word
	gap    int         // words that may stand here, for a gap
	group  [][]element // the alternatives, of which one may be empty
}

// A set is places between the words of a text, from before the first to behind the last. Phrases are looked for in all
// places at once: an element leads from a set of places to the set of those that it may end at. The time for a phrase is
// that of its elements, whatever the text.
type set [(maxWords + 1 + 63) / 64]uint64

// words is a text, or the names in it, by where each word stands.
type words struct {
	places  []uint16 // by the number of a word, 1 + its index in sets; 0 is a word that is not there
	sets    []set    // where a word begins
	there   []uint32 // the words that are there
	every   set      // where any word begins
	blocks  int      // how much of a set is in use
	found   []uint32 // by phrase, twice the reading in which it was last looked for, and 1 if it was there
	reading uint32
}

// take notes where the words stand. The number 0 is a word that no phrase has.
func (w *words) take(numbers []uint32, vocabulary, phrases int) {
	for _, n := range w.there {
		w.places[n] = 0
	}
	w.there, w.sets, w.every = w.there[:0], w.sets[:0], set{}
	if len(w.places) <= vocabulary || len(w.found) < phrases {
		w.places, w.found, w.reading = make([]uint16, vocabulary+1), make([]uint32, phrases), 0
	}
	if w.reading += 2; w.reading == 0 {
		clear(w.found)
		w.reading = 2
	}
	w.blocks = len(numbers)/64 + 1
	for i, n := range numbers {
		bit := uint64(1) << (i % 64)
		w.every[i/64] |= bit
		if n == 0 {
			continue
		}
		if w.places[n] == 0 {
			w.there = append(w.there, n)
			w.sets = append(w.sets, set{})
			w.places[n] = uint16(len(w.sets))
		}
		w.sets[w.places[n]-1][i/64] |= bit
	}
}

// has reports whether a phrase is there. It looks once.
func (w *words) has(phrase uint32, elements []element) bool {
	if w.found[phrase]&^1 == w.reading {
		return w.found[phrase]&1 == 1
	}
	_, there := w.follow(elements, w.every)
	w.found[phrase] = w.reading
	if there {
		w.found[phrase]++
	}
	return there
}

// follow leads from places over elements, and reports whether there is any way.
func (w *words) follow(elements []element, at set) (set, bool) {
	for i := range elements {
		e := &elements[i]
		any := true
		switch {
		case e.gap > 0:
			w.spread(&at, e.gap)
		case e.group == nil:
			any = w.step(&at, e.number)
		default:
			at, any = w.branch(e.group, at)
		}
		if !any {
			return at, false
		}
	}
	return at, true
}

// branch leads over one alternative or another.
func (w *words) branch(group [][]element, at set) (all set, any bool) {
	for _, alternative := range group {
		if len(alternative) > 0 && alternative[0].word != "" && w.places[alternative[0].number] == 0 {
			continue // most are left here
		}
		if one, there := w.follow(alternative, at); there {
			any = true
			for b := range w.blocks {
				all[b] |= one[b]
			}
		}
	}
	return all, any
}

// step leads over one word.
func (w *words) step(at *set, word uint32) bool {
	place := w.places[word]
	if place == 0 {
		return false
	}
	begin := &w.sets[place-1]
	carry, any := uint64(0), uint64(0)
	for b := range w.blocks {
		v := at[b] & begin[b]
		at[b] = v<<1 | carry
		carry = v >> 63
		any |= v
	}
	return any != 0
}

// spread leads over up to gap words.
func (w *words) spread(at *set, gap int) {
	for step := 1; gap > 0; step *= 2 {
		n := min(step, gap)
		for b := w.blocks - 1; b > 0; b-- {
			at[b] |= at[b]<<n | at[b-1]>>(64-n)
		}
		at[0] |= at[0] << n
		gap -= n
	}
}

// A phraseBook collects phrases and the words that they have.
type phraseBook struct {
	phrases [][]element
	known   map[string]uint32 // by their text
	uses    map[uint32]int    // phrases that have a word, by its number
}

func newPhraseBook() *phraseBook {
	return &phraseBook{known: map[string]uint32{}, uses: map[uint32]int{}}
}

// add puts a phrase in and gives its number. The same text is the same phrase.
func (b *phraseBook) add(text string, elements []element, number func(word string) uint32) uint32 {
	if n, ok := b.known[text]; ok {
		return n
	}
	n := uint32(len(b.phrases))
	b.known[text] = n
	b.phrases = append(b.phrases, b.numbered(elements, number))
	return n
}

func (b *phraseBook) numbered(elements []element, number func(word string) uint32) []element {
	list := slices.Clone(elements)
	for i := range list {
		e := &list[i]
		if e.word != "" {
			e.number = number(e.word)
			b.uses[e.number]++
		}
		e.group = slices.Clone(e.group)
		for j, alternative := range e.group {
			e.group[j] = b.numbered(alternative, number)
		}
	}
	return list
}

// key is the words of which one must be in every text that a phrase is found in: those that the fewest phrases have. It is nil
// where the elements may all be missing.
func (b *phraseBook) key(elements []element) (best []uint32) {
	cost := func(words []uint32) (n int) {
		for _, w := range words {
			n += b.uses[w]
		}
		return n
	}
	for _, e := range elements {
		var one []uint32
		switch {
		case e.gap > 0:
		case e.group == nil:
			one = []uint32{e.number}
		default:
			one = b.groupKey(e.group)
		}
		if one != nil && (best == nil || cost(one) < cost(best)) {
			best = one
		}
	}
	return best
}

func (b *phraseBook) groupKey(group [][]element) (all []uint32) {
	for _, alternative := range group {
		one := b.key(alternative)
		if one == nil {
			return nil
		}
		all = append(all, one...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
