package deliver

import (
	"strconv"
	"strings"

	"github.com/sortie-mail/sortie/dsn"
)

// capabilities are what a host offered in its answer to EHLO (RFC 5321, section 4.1.1.1).
type capabilities struct {
	pipelining, eightBit, utf8, dsn, startTLS, size bool

	maxSize int64 // 0 is not said
	auth    []string
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
	case "SIZE":
		c.size = true
		if len(params) > 0 {
			c.maxSize, _ = strconv.ParseInt(params[0], 10, 64)
		}
	case "AUTH":
		c.auth = append(c.auth, params...)
	}
}
