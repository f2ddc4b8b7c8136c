package egress

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// shortest is the minimum length of a secret that Without removes: shorter ones occur everywhere.
const shortest = 4

// Truncate returns the beginning of an untrusted text: at most so many bytes, and whole characters
// only.
func Truncate(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// SingleLine makes an untrusted text fit for one line of output, of so many bytes at most.
func SingleLine(s string, most int) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(s, ""))
	return strings.TrimSpace(Truncate(s, most))
}

// Redact replaces the secrets in a text, in each encoding in which they may appear.
func Redact(s string, secrets ...string) string {
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
