package shape_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/sortie-mail/sortie/deliver/shape"
)

// A program that delivers by itself asks before each attempt, and tells what became of it.
func ExampleShaper() {
	rules, err := shape.Parse("own", strings.NewReader("partner *.partner.example connections=2\n"))
	if err != nil {
		fmt.Println(err)
		return
	}
	shaper := &shape.Shaper{Rules: rules}
	site := rules.Site([]string{"mx1.partner.example", "mx2.partner.example"})
	if verdict, _ := shaper.Begin(site); verdict == shape.Go {
		start := time.Now()
		// … and here it delivers
		shaper.End(site, shape.Result{News: shape.SlowDown, Began: start, Words: "421 4.7.0 Slow down"})
	}
	for _, s := range shaper.Sites() {
		fmt.Printf("%s gets %d of %d at once: %s\n", s.Site, s.Limit, s.Limits.Connections, s.Why)
	}
	// Output:
	// partner gets 1 of 2 at once: 421 4.7.0 Slow down
}
