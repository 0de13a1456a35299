package route_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/sortie-mail/sortie/route"
)

func ExampleParse() {
	routes, err := route.Parse("routes", strings.NewReader(`
*@aol.com   smtp://mail.isp.example
*           direct
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	text, _ := routes.Explain(context.Background(), route.Query{Sender: "me@example.org", Recipient: "you@aol.com"})
	fmt.Print(text)
	// Output:
	// mail from <me@example.org> to <you@aol.com>
	//   by routes:2: *@aol.com
	//   1. through smtp://mail.isp.example, with TLS where it is offered
}

// All mail goes through one smarthost, whose password is in a vault.
func ExampleParseRoute() {
	password := "s3cr3t" // from the vault
	r, err := route.ParseRoute("submission://mail.isp.example tls=verified")
	if err != nil {
		fmt.Println(err)
		return
	}
	r.Hops[0].User, r.Hops[0].Secret = "me", route.NewSecret("vault:isp", password)
	var router route.Router = r // as it is, for queue.Runner
	fmt.Println(router)
	// Output:
	// submission://me@mail.isp.example tls=verified secret=vault:isp
}

func ExampleParse_mistakes() {
	_, err := route.Parse("routes", strings.NewReader("aol.com  smtp:[mail.isp.example]\n*  driect\n"))
	fmt.Println(err)
	// Output:
	// routes:1:1: "aol.com": a pattern has an @: write *@aol.com for the domain, *@*.aol.com for its subdomains
	// routes:1:10: "smtp:[mail.isp.example]": unknown hop: write smtp://mail.isp.example
	// routes:2:4: "driect": unknown hop: did you mean direct?
}
