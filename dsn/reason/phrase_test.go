package reason

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"
)

// TestPhraseModel compares the search in sets of places with one that tries every place and every way.
func TestPhraseModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		numbers := rapid.SliceOfN(rapid.Uint32Range(0, 3), 0, 200).Draw(t, "text")
		phrase := drawSequence(t, 3)
		if shape(phrase) != "" {
			t.Skip("no phrase")
		}
		var w words
		w.take(numbers, 3, 1)
		want := false
		for i := range numbers {
			want = want || len(tryAll(phrase, numbers, i)) > 0
		}
		assert.Equal(t, want, w.has(0, phrase))
		assert.Equal(t, want, w.has(0, phrase), "asked again")
	})
}

// TestWordsAreForgotten proves that nothing of one text is found in the next.
func TestWordsAreForgotten(t *testing.T) {
	var w words
	phrase := []element{{word: "a", number: 1}}
	w.take([]uint32{0, 1}, 2, 1)
	assert.True(t, w.has(0, phrase))
	w.take([]uint32{2, 0}, 2, 1)
	assert.False(t, w.has(0, phrase))
	w.reading = ^uint32(0) - 1
	w.found[0] = 1
	w.take([]uint32{2}, 2, 1)
	assert.False(t, w.has(0, phrase), "after the count of readings has begun again")
}

func drawSequence(t *rapid.T, depth int) (list []element) {
	for range rapid.IntRange(0, 4).Draw(t, "elements") {
		switch kind := rapid.IntRange(0, 4).Draw(t, "kind"); {
		case kind == 0:
			list = append(list, element{gap: rapid.SampledFrom([]int{narrowGap, wideGap}).Draw(t, "gap")})
		case kind == 1 && depth > 0:
			e := element{group: [][]element{}}
			for range rapid.IntRange(1, 3).Draw(t, "alternatives") {
				e.group = append(e.group, drawSequence(t, depth-1))
			}
			list = append(list, e)
		default:
			list = append(list, element{word: "w", number: rapid.Uint32Range(1, 3).Draw(t, "word")})
		}
	}
	return list
}

// tryAll gives the places that elements may lead to from one place.
func tryAll(elements []element, text []uint32, at int) map[int]bool {
	if len(elements) == 0 {
		return map[int]bool{at: true}
	}
	ends := map[int]bool{}
	next := func(at int) {
		for end := range tryAll(elements[1:], text, at) {
			ends[end] = true
		}
	}
	switch e := elements[0]; {
	case e.gap > 0:
		for n := 0; n <= e.gap && at+n <= len(text); n++ {
			next(at + n)
		}
	case e.group == nil:
		if at < len(text) && text[at] == e.number {
			next(at + 1)
		}
	default:
		for _, alternative := range e.group {
			for end := range tryAll(alternative, text, at) {
				next(end)
			}
		}
	}
	return ends
}

// TestKey proves that no text that has a phrase lacks all words of its key.
func TestKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		phrase := drawSequence(t, 3)
		if shape(phrase) != "" {
			t.Skip("no phrase")
		}
		numbers := rapid.SliceOfN(rapid.Uint32Range(0, 3), 0, 30).Draw(t, "text")
		book := newPhraseBook()
		book.uses = map[uint32]int{1: 1, 2: 5, 3: 9}
		var w words
		w.take(numbers, 3, 1)
		key := book.key(phrase)
		assert.NotEmpty(t, key)
		if !w.has(0, phrase) {
			return
		}
		for _, n := range key {
			if w.places[n] > 0 {
				return
			}
		}
		t.Fatalf("%v has %v and no word of %v", numbers, phrase, key)
	})
}
