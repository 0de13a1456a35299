package reason

import (
	_ "embed"
	"fmt"
	"os"
	"slices"
	"sync"
)

//go:embed rules.txt
var embeddedText string

// Rules are how replies become verdicts. A nil *Rules is the embedded rules. Rules do not change once they are read and are safe
// for concurrent use.
type Rules struct {
	files []*file // the first decides

	rules     []rule
	words     dictionary
	phrases   int                 // how many there are
	bySaid    [][]uint32          // rules that a word in the text may make decide, by its number
	byName    [][]uint32          // the same for the words of URLs and names
	bySite    map[string][]uint32 // rules that ask for a provider and for no words
	others    []uint32
	about     map[string]about // by classes
	lists     []list
	providers []providerSpec
	readings  sync.Pool // of *reading
}

// A list is a blocklist, with the phrases that name it.
type list struct {
	name    string
	phrases []phrase
	links   []Link
}

// A rule is a ruleSpec that is ready to decide.
type rule struct {
	conditions []condition
	verdict    Verdict
	namesList  bool // the verdict says which blocklist the reply names
}

var embedded = sync.OnceValue(func() *Rules {
	f, err := parseFile("rules.txt", embeddedText, nil)
	if err != nil {
		panic("reason: the embedded rules: " + err.Error()) // a test reads them
	}
	return build([]*file{f})
})

// ReadFile reads rules files of one's own, which decide before the embedded rules, an earlier file before a later one. The
// format is described at the top of the embedded file, rules.txt. All mistakes of a file are in the error, an [Errors].
func ReadFile(paths ...string) (*Rules, error) {
	var r *Rules
	for i := len(paths) - 1; i >= 0; i-- {
		text, err := os.ReadFile(paths[i])
		if err != nil {
			return nil, fmt.Errorf("reason: %w", err)
		}
		if r, err = r.Extend(paths[i], string(text)); err != nil {
			return nil, err
		}
	}
	if r == nil {
		return embedded(), nil
	}
	return r, nil
}

// Parse reads the text of a rules file, which decides before the embedded rules; name stands in errors and verdicts.
func Parse(name, text string) (*Rules, error) { return (*Rules)(nil).Extend(name, text) }

// Extend gives rules of which those in text decide first, then those of r, which does not change. What text says about a class
// replaces what r says of it, field by field. All mistakes are in the error, an [Errors].
func (r *Rules) Extend(name, text string) (*Rules, error) {
	if r == nil {
		r = embedded()
	}
	f, err := parseFile(name, text, r.files[len(r.files)-1])
	if err != nil {
		return nil, err
	}
	return build(append([]*file{f}, r.files...)), nil
}

// build makes rules of files.
func build(files []*file) *Rules {
	r := &Rules{files: files, bySite: map[string][]uint32{}, words: dictionary{numbers: map[string]uint32{}}}
	r.describe()
	book := newPhraseBook()
	var specs []*ruleSpec
	for _, f := range files {
		for i := range f.lists {
			r.list(&f.lists[i], book)
		}
		for i := range f.rules {
			specs = append(specs, &f.rules[i])
			r.compile(&f.rules[i], book)
		}
		r.providers = append(r.providers, f.providers...)
	}
	r.bySaid, r.byName = make([][]uint32, r.words.count+1), make([][]uint32, r.words.count+1)
	for i, spec := range specs {
		r.file(uint32(i), spec, book)
	}
	r.phrases = len(book.phrases)
	r.words.finish(files[len(files)-1].words)
	return r
}

// describe gathers what the files say about classes.
func (r *Rules) describe() {
	r.about = map[string]about{}
	for _, f := range r.files {
		for key, a := range f.about {
			merged := r.about[key]
			merged.fill(a)
			r.about[key] = merged
		}
	}
}

// explain is what is said about classes: where nothing is said of all together, what is said of the likeliest.
func (r *Rules) explain(classes []Class) about {
	a := r.about[joinClasses(classes)]
	first := r.about[string(classes[0])]
	a.fill(&first)
	return a
}

func (r *Rules) list(spec *listSpec, book *phraseBook) {
	l := list{name: spec.name, links: spec.links}
	for _, words := range spec.words {
		l.phrases = append(l.phrases, r.phrase(&words, book))
	}
	r.lists = append(r.lists, l)
}

func (r *Rules) phrase(spec *phraseSpec, book *phraseBook) phrase {
	n := book.add(spec.text, spec.sequence, r.words.number)
	return phrase{n, book.phrases[n]}
}

// compile makes a rule ready. What is quickly answered is asked first.
func (r *Rules) compile(spec *ruleSpec, book *phraseBook) {
	one := rule{conditions: slices.Clone(spec.conditions), verdict: r.template(spec)}
	one.namesList = one.verdict.Matter == MatterAddress || one.verdict.Is(Blocklisted)
	for i := range spec.phrases {
		p := r.phrase(&spec.phrases[i], book)
		var c condition = saysCondition(p)
		if spec.phrases[i].name {
			c = namesCondition(p)
		}
		if spec.phrases[i].not {
			c = notCondition{c}
		}
		one.conditions = append(one.conditions, c)
	}
	r.rules = append(r.rules, one)
}

// file puts a rule where it is found: under words of which a text must have one, or under its providers.
func (r *Rules) file(n uint32, spec *ruleSpec, book *phraseBook) {
	for _, p := range spec.phrases {
		if p.not {
			continue
		}
		index := r.bySaid
		if p.name {
			index = r.byName
		}
		for _, word := range book.key(book.phrases[book.known[p.text]]) {
			index[word] = append(index[word], n)
		}
		return
	}
	for _, site := range spec.sites {
		r.bySite[site] = append(r.bySite[site], n)
	}
	if len(spec.sites) == 0 {
		r.others = append(r.others, n)
	}
}

// template is the verdict of a rule before the reply adds to it.
func (r *Rules) template(spec *ruleSpec) Verdict {
	a := r.explain(spec.classes)
	return Verdict{
		Classes:    spec.classes,
		Confidence: spec.confidence,
		Matter:     orElse(orElse(spec.matter, a.matter), MatterUnknown),
		Retry:      orElse(orElse(spec.retry, a.retry), RetryNormal),
		Sender:     a.sender,
		Admin:      a.admin,
		Links:      a.links,
		Rule:       spec.where,
		List:       spec.list,
	}
}
