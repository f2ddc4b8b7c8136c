package resolver

import (
	"fmt"
	"strings"

	"github.com/perennial-pki/perennial/pki"
)

// FQDN returns the canonical form of a name with a dot at its end.
func FQDN(name string) string {
	return pki.ComparableDNSName(name) + "."
}

// Under reports whether a name is an apex or below it. Both end with a dot.
func Under(name, apex string) bool {
	return apex == "." || name == apex || strings.HasSuffix(name, "."+apex)
}

// Quote lists TXT values in a message. It shortens long values and long lists.
func Quote(values []string) string {
	if len(values) == 0 {
		return "no TXT record"
	}
	const few = 3
	var parts []string
	for _, v := range values[:min(len(values), few)] {
		if len(v) > 64 {
			v = v[:64] + "…"
		}
		parts = append(parts, fmt.Sprintf("%q", v))
	}
	if len(values) > few {
		parts = append(parts, fmt.Sprintf("and %d more", len(values)-few))
	}
	return strings.Join(parts, ", ")
}
