package memory

import "strings"

// SenderOf is a hash of who a reverse-path stands for: that of a list is another for each message and each recipient (VERP and
// the like), and so only what comes before the first "+" or "=" or a number after a hyphen counts of its local part. The null
// sender is 0, and the only one.
func SenderOf(address string) uint32 {
	if address == "" {
		return 0
	}
	at := max(strings.LastIndexByte(address, '@'), 0)
	local := address[:at]
	for i := 1; i < len(local); i++ {
		if c := local[i]; c == '+' || c == '=' || (local[i-1] == '-' && '0' <= c && c <= '9') {
			local = local[:i]
			break
		}
	}
	h := hash(hash(2166136261, local), address[at:])
	return max(h, 1)
}

// hash is FNV-1a without regard to the case of ASCII letters.
func hash(h uint32, s string) uint32 {
	for i := range len(s) {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		h = (h ^ uint32(c)) * 16777619
	}
	return h
}

// flows is how many senders of one priority have turns of their own in a lane; more share them.
const flows = 64

// flowOf is the flow of a sender. The null sender has one for itself: reports are no one's burst.
func flowOf(sender uint32) uint8 {
	if sender == 0 {
		return 0
	}
	return uint8(1 + sender%(flows-1))
}
