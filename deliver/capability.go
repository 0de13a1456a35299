package deliver

import (
	"strconv"
	"strings"

	"github.com/sortie-mail/sortie/dsn"
)

// capabilities are what a host offered in its answer to EHLO (RFC 5321, section 4.1.1.1).
type capabilities struct {
	pipelining, eightBit, utf8, dsn, startTLS, size, chunking, binary, requireTLS, priority, deliverBy bool

	maxSize int64 // 0 is not said
	minBy   int64 // seconds (RFC 2852, section 3); 0 is not said
	auth    []string

	// What RFC 9422 limits; 0 is not said.
	maxMails   int // transactions on a connection
	maxRcpt    int // recipients in a transaction
	maxDomains int // their domains
}

func parseCapabilities(ehlo dsn.Reply) (c capabilities) {
	if len(ehlo.Lines) == 0 {
		return c
	}
	for _, line := range ehlo.Lines[1:] {
		words := strings.Fields(strings.ToUpper(line))
		if len(words) == 0 {
			continue
		}
		// "AUTH=LOGIN" is what servers said before RFC 2554 settled it, and some still do.
		if rest, ok := strings.CutPrefix(words[0], "AUTH="); ok {
			words = append([]string{"AUTH", rest}, words[1:]...)
		}
		c.add(words[0], words[1:])
	}
	return c
}

func (c *capabilities) add(keyword string, params []string) {
	switch keyword {
	case "PIPELINING":
		c.pipelining = true
	case "8BITMIME":
		c.eightBit = true
	case "SMTPUTF8":
		c.utf8 = true
	case "DSN":
		c.dsn = true
	case "STARTTLS":
		c.startTLS = true
	case "CHUNKING":
		c.chunking = true
	case "BINARYMIME":
		c.binary = true
	case "REQUIRETLS":
		c.requireTLS = true
	case "MT-PRIORITY":
		c.priority = true
	case "DELIVERBY":
		c.deliverBy, c.minBy = true, number(params)
	case "SIZE":
		c.size, c.maxSize = true, number(params)
	case "LIMITS":
		c.limits(params)
	case "AUTH":
		c.auth = append(c.auth, params...)
	}
}

// number is the first parameter where it is a number, and 0 where it is none.
func number(params []string) int64 {
	if len(params) == 0 {
		return 0
	}
	n, err := strconv.ParseInt(params[0], 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// limits reads what a host says it takes (RFC 9422, section 3).
func (c *capabilities) limits(params []string) {
	for _, p := range params {
		name, value, _ := strings.Cut(p, "=")
		n := int(min(number([]string{value}), 1<<20))
		switch name {
		case "RCPTMAX":
			c.maxRcpt = n
		case "RCPTDOMAINMAX":
			c.maxDomains = n
		case "MAILMAX":
			c.maxMails = n
		}
	}
}
