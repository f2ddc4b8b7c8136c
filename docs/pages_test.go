package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

const (
	maxLines   = 250
	maxColumns = 120
)

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`^#+ (.+)`)
	// dropped is what an anchor has not of its heading.
	dropped = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
	// generated are pages that programs write.
	generated = []string{"dns-providers.md"}
	// banned are words that hide the subject of a sentence.
	banned = regexp.MustCompile(`(?i)\b(who|whom|whoever|nobody|somebody|anybody|tells\s+of|told\s+of|looked\s+at)\b`)
)

// pages are the pages for users, by their path from docs/.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{"../README.md": read(t, "../README.md")}
	for _, pattern := range []string{"*.md", "acme/*.md"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			all[name] = read(t, name)
		}
	}
	return all
}

// read returns the text of all files that match a pattern.
func read(t *testing.T, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %v, %d files", pattern, err, len(names))
	}
	var all strings.Builder
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
		all.WriteByte('\n')
	}
	return all.String()
}

// prose is a page without its code blocks.
func prose(text string) string {
	var b strings.Builder
	code := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			code = !code
		} else if !code {
			b.WriteString(line)
		}
	}
	return b.String()
}

// anchors are the names by which links lead to the headings of a page, as GitHub makes them.
func anchors(text string) map[string]bool {
	names := map[string]bool{}
	for line := range strings.Lines(prose(text)) {
		if m := heading.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			names[strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")] = true
		}
	}
	return names
}

func TestLinksLeadSomewhere(t *testing.T) {
	all := pages(t)
	for name, text := range all {
		for _, m := range link.FindAllStringSubmatch(prose(text), -1) {
			if strings.HasPrefix(m[1], "http") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			to := name
			if file != "" {
				to = filepath.Join(filepath.Dir(name), file)
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s links to %s, which does not exist", name, m[1])
			} else if anchor != "" && !anchors(all[to])[anchor] {
				t.Errorf("%s links to %s, which has no such heading", name, m[1])
			}
		}
	}
}

func TestEachPageIsReachableFromTheIndex(t *testing.T) {
	all := pages(t)
	reached := map[string]bool{"../README.md": true}
	for next := []string{"README.md"}; len(next) > 0; next = next[1:] {
		name := next[0]
		if _, page := all[name]; !page || reached[name] {
			continue
		}
		reached[name] = true
		for _, m := range link.FindAllStringSubmatch(prose(all[name]), -1) {
			file, _, _ := strings.Cut(m[1], "#")
			next = append(next, filepath.Join(filepath.Dir(name), file))
		}
	}
	for name := range all {
		if !reached[name] {
			t.Errorf("no page that the index leads to links to %s", name)
		}
	}
}

func TestPagesAreShort(t *testing.T) {
	for name, text := range pages(t) {
		if slices.Contains(generated, name) {
			continue
		}
		if n := strings.Count(text, "\n"); n > maxLines {
			t.Errorf("%s has %d lines, more than %d: split it by task", name, n, maxLines)
		}
		for i, line := range strings.Split(text, "\n") {
			if n := utf8.RuneCountInString(line); n > maxColumns {
				t.Errorf("%s:%d has %d columns, more than %d", name, i+1, n, maxColumns)
			}
		}
	}
}

func TestPagesUsePlainWords(t *testing.T) {
	for name, text := range pages(t) {
		if m := banned.FindString(spans.ReplaceAllString(prose(text), "")); m != "" {
			t.Errorf("%s says %q: name the user, the client or the program", name, strings.Join(strings.Fields(m), " "))
		}
	}
}
