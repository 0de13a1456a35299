package reason

// A vocabulary is the words that rules know. The embedded rules decide which words mean the same and which mean nothing; all
// rules and all replies are read with it.
type vocabulary struct {
	same map[string]string // the word that stands for others
	skip map[string]bool   // words that are left out
}

// canonical is the word that stands for a word, "" for one that is left out.
func (v *vocabulary) canonical(word string) string {
	if v.skip[word] {
		return ""
	}
	if same, ok := v.same[word]; ok {
		return same
	}
	return word
}

// A dictionary numbers the words of all phrases, so that a text is read in numbers.
type dictionary struct {
	numbers map[string]uint32 // of every form of a word; skipped words have the number skipped
	count   int
}

// skipped is the number of words that are left out.
const skipped = ^uint32(0)

// number is the number of a canonical word.
func (d *dictionary) number(word string) uint32 {
	n, ok := d.numbers[word]
	if !ok {
		d.count++
		n = uint32(d.count)
		d.numbers[word] = n
	}
	return n
}

// finish adds the other forms of the words that have a number.
func (d *dictionary) finish(v *vocabulary) {
	for word, same := range v.same {
		if n, ok := d.numbers[same]; ok {
			d.numbers[word] = n
		}
	}
	for word := range v.skip {
		d.numbers[word] = skipped
	}
}

// look reads words of a text as numbers: 0 is a word that no phrase has.
func (d *dictionary) look(t *text, words []span, into []uint32) []uint32 {
	for _, s := range words {
		n := uint32(0)
		if s.to > s.from {
			n = d.numbers[string(t.word(s))]
		}
		if n != skipped {
			into = append(into, n)
		}
	}
	return into
}
