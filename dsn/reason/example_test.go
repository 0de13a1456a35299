package reason_test

import (
	"fmt"

	"github.com/sortie-mail/sortie/dsn"
	"github.com/sortie-mail/sortie/dsn/reason"
)

func ExampleClassify() {
	reply, _ := dsn.ParseReply("554-RTR:BB The IP address you are using to connect to AOL is either open to\n" +
		"554-the free relaying of e-mail, is serving as an open proxy, or is a dynamic\n" +
		"554 (residential) IP address.")
	v := reason.Classify(reason.Input{Reply: reply, Stage: "greeting", Host: "mailin-01.mx.aol.com", Site: "aol.com"})
	fmt.Println(v.Classes)
	fmt.Println(v.Matter, v.Blocked(), v.Retry)
	fmt.Println(v.Sender)
	// Output:
	// [open-relay open-proxy dynamic-address]
	// our address true slowly
	// The recipient's provider refuses mail from our server. You can do nothing about it; the administrator of the sending server must act.
}

func ExampleParse() {
	rules, err := reason.Parse("our-rules", `
# Our partner's gateway says so when it wants to be asked first.
filtered   site=partner.example "ask (bob|ann) first"
`)
	if err != nil {
		fmt.Println(err)
		return
	}
	reply, _ := dsn.ParseReply("550 Please ask Ann first, thank you.")
	v := rules.Classify(reason.Input{Reply: reply, Site: "partner.example"})
	fmt.Println(v.Class(), "by", v.Rule)
	// Output:
	// filtered by our-rules:3
}

func ExampleParse_mistakes() {
	_, err := reason.Parse("our-rules", `
user-unkown  code=55 "nobody"
policy       mailbox is full
`)
	fmt.Println(err)
	// Output:
	// our-rules:2:1: "user-unkown": unknown class: did you mean user-unknown?
	// our-rules:2:19: "55": a reply code has three digits, of which the last ones may be x: write for instance 550 or 5xx
	// our-rules:3:14: "mailbox": unknown condition: write a phrase in double quotes, or a condition such as code=5xx
	// our-rules:3:22: "is": unknown condition: write a phrase in double quotes, or a condition such as code=5xx
	// our-rules:3:25: "full": unknown condition: write a phrase in double quotes, or a condition such as code=5xx
}

func ExampleRules_Explain() {
	v := (*reason.Rules)(nil).Explain(reason.Greylisted)
	fmt.Println(v.Retry+":", v.Sender)
	// Output:
	// soon: The recipient's server asks unknown senders to come again. This is done for you, and usually takes minutes.
}
