package acme

import (
	"net/url"
	"slices"
	"strings"
)

// Link is a link to another resource, RFC 8288.
type Link struct {
	// URL is absolute. Its origin is checked only when it is used.
	URL string
	// Rel is the relation: alternate, next, up, index or terms-of-service.
	Rel string
}

// maxLinks is the maximum number of links to read from a reply.
const maxLinks = 32

// parseLinks reads Link fields. It skips invalid links.
func parseLinks(fields []string, base *url.URL) []Link {
	var links []Link
	for _, s := range fields {
		if len(s) > 16<<10 {
			continue
		}
		for len(links) < maxLinks {
			_, rest, found := strings.Cut(s, "<")
			if !found {
				break
			}
			target, rest, found := strings.Cut(rest, ">")
			if !found {
				break
			}
			params, next := parameters(rest)
			s = next
			u, err := base.Parse(strings.TrimSpace(target))
			if err != nil || len(target) > maxURL {
				continue
			}
			// A relation may name several types.
			for _, rel := range strings.Fields(params["rel"]) {
				if l := (Link{URL: u.String(), Rel: strings.ToLower(rel)}); !slices.Contains(links, l) && len(links) < maxLinks {
					links = append(links, l)
				}
			}
		}
	}
	return links
}

// parameters reads what follows the target of a link up to the comma that ends it. Commas and
// semicolons in quotes end nothing.
func parameters(s string) (params map[string]string, rest string) {
	params = map[string]string{}
	end := len(s)
	var parts []string
	from, quoted := 0, false
scan:
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && c == ';':
			parts = append(parts, s[from:i])
			from = i + 1
		case !quoted && c == ',':
			end = i
			break scan
		}
	}
	parts = append(parts, s[min(from, end):end])
	for _, p := range parts {
		name, value, found := strings.Cut(p, "=")
		if !found {
			continue
		}
		name = strings.ToLower(strings.TrimSpace(name))
		if _, twice := params[name]; !twice { // the first counts, section 3.3
			params[name] = strings.ReplaceAll(strings.Trim(strings.TrimSpace(value), `"`), `\`, "")
		}
	}
	if end < len(s) {
		rest = s[end+1:]
	}
	return params, rest
}

// related returns the URLs of the links of a relation.
func (r Reply) related(rel string) []string {
	var urls []string
	for _, l := range r.Links {
		if l.Rel == rel {
			urls = append(urls, l.URL)
		}
	}
	return urls
}
