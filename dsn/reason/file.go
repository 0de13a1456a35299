package reason

// A file is a rules file as it was read.
type file struct {
	rules     []ruleSpec
	about     map[string]*about // by classes, as they are written: "open-relay,open-proxy"
	lists     []listSpec
	providers []providerSpec
	lets      map[string]string // alternatives by name
	words     *vocabulary
}

// ruleSpec is a rule as it stands in its file.
type ruleSpec struct {
	where      string // file:line
	classes    []Class
	phrases    []phraseSpec
	conditions []condition // all others
	sites      []string    // of a site condition that must hold
	confidence float64
	matter     Matter
	retry      Retry
	list       string
}

// phraseSpec is a phrase and where it is asked for.
type phraseSpec struct {
	text      string
	sequence  []element
	name, not bool // in a URL or a name, and not in the text
}

// about is what is said about a class, or about several that are possible together.
type about struct {
	matter        Matter
	retry         Retry
	sender, admin string
	links         []Link
}

// listSpec is a blocklist.
type listSpec struct {
	name  string
	words []phraseSpec
	links []Link
}

// providerSpec is the pages of a provider for those who run mail servers.
type providerSpec struct {
	name  string
	sites siteCondition
	links []Link
}

// fill takes from other what a does not say.
func (a *about) fill(other *about) {
	if other == nil {
		return
	}
	a.matter = orElse(a.matter, other.matter)
	a.retry = orElse(a.retry, other.retry)
	a.sender = orElse(a.sender, other.sender)
	a.admin = orElse(a.admin, other.admin)
	if len(a.links) == 0 {
		a.links = other.links
	}
}

func orElse[T ~string](s, other T) T {
	if s == "" {
		return other
	}
	return s
}
