package outside

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// shortest is how long a secret must be to be looked for in texts: shorter ones would be found
// everywhere.
const shortest = 4

// Short is the beginning of a text of others, of so many bytes at most, without a part of a
// character.
func Short(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// Line makes a text of others fit for one line of ours, of so many bytes at most.
func Line(s string, most int) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(s, ""))
	return strings.TrimSpace(Short(s, most))
}

// Without is a text in which no secret stands, in whatever way texts have it.
func Without(s string, secrets ...string) string {
	var all []string
	for _, secret := range secrets {
		if len(secret) >= shortest {
			quoted := strconv.Quote(secret)
			all = append(all, secret, url.QueryEscape(secret), url.PathEscape(secret), quoted[1:len(quoted)-1])
		}
	}
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) }) // one may be part of another
	for _, secret := range all {
		s = strings.ReplaceAll(s, secret, "***")
	}
	return s
}
