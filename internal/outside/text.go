package outside

import "strings"

// Short is the beginning of a text of others, of so many bytes at most, without a part of a character.
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
