package shape

import (
	_ "embed"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Limits are what one site gets from one source address. Zero fields are no limit.
type Limits struct {
	Connections int  `json:"connections,omitempty"` // at once, idle ones included
	Messages    int  `json:"messages,omitempty"`    // on a connection
	Recipients  int  `json:"recipients,omitempty"`  // in a transaction
	PerSecond   Rate `json:"per_second,omitempty"`  // messages
	PerMinute   Rate `json:"per_minute,omitempty"`
	PerHour     Rate `json:"per_hour,omitempty"`
}

// A Rate is a number of messages in a time. A tenth of it may go at once.
type Rate int

// over gives l with what other says instead.
func (l Limits) over(other Limits) Limits {
	for _, f := range []struct{ mine, others *int }{
		{&l.Connections, &other.Connections},
		{&l.Messages, &other.Messages},
		{&l.Recipients, &other.Recipients},
		{(*int)(&l.PerSecond), (*int)(&other.PerSecond)},
		{(*int)(&l.PerMinute), (*int)(&other.PerMinute)},
		{(*int)(&l.PerHour), (*int)(&other.PerHour)},
	} {
		if *f.others != 0 {
			*f.mine = *f.others
		}
	}
	return l
}

// without makes what is unlimited zero.
func (l Limits) without() Limits {
	for _, n := range []*int{
		&l.Connections, &l.Messages, &l.Recipients, (*int)(&l.PerSecond), (*int)(&l.PerMinute), (*int)(&l.PerHour),
	} {
		*n = max(*n, 0)
	}
	return l
}

// rates are the limits in a time.
func (l *Limits) rates() [3]bucket {
	return [3]bucket{newBucket(l.PerSecond, time.Second), newBucket(l.PerMinute, time.Minute), newBucket(l.PerHour, time.Hour)}
}

// What a rules file calls the sites that have no rule of their own.
const (
	defaultName   = "default"
	smarthostName = "smarthost"
)

// Rules know sites by the names of their hosts, and what each gets. They do not change; a nil *Rules is the embedded rules. They
// are safe for concurrent use.
type Rules struct {
	limits map[string]Limits // by name of the site
	exact  map[string]string // name of a host → name of its site
	below  map[string]string // domain → name of the site of all hosts below it
}

//go:embed sites.txt
var embedded string

var embeddedRules = sync.OnceValue(func() *Rules {
	r, err := parse("sites.txt", strings.NewReader(embedded), &Rules{})
	if err != nil {
		panic(err) // a test reads it
	}
	return r
})

func (r *Rules) orEmbedded() *Rules {
	if r == nil {
		return embeddedRules()
	}
	return r
}

// Sites gives the names of the sites that have a rule, in order.
func (r *Rules) Sites() []string {
	return slices.Sorted(maps.Keys(r.orEmbedded().limits))
}

// Limits gives what a site gets, by the name that Site, Smarthost or From gave it.
func (r *Rules) Limits(site string) Limits {
	r = r.orEmbedded()
	name, _, _ := strings.Cut(site, from)
	l := r.limits[defaultName]
	if host, isSmarthost := hostOf(name); isSmarthost {
		l = l.over(r.limits[smarthostName])
		name = r.provider(host)
	}
	return l.over(r.limits[name]).without()
}

// provider gives the name of the site to which a host belongs by a rule; "" where there is none.
func (r *Rules) provider(host string) string {
	if name := r.exact[host]; name != "" {
		return name
	}
	for {
		_, parent, ok := strings.Cut(host, ".")
		if !ok {
			return ""
		}
		if name := r.below[parent]; name != "" {
			return name
		}
		host = parent
	}
}
