package docs

import (
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// major is the part of a module's path that says its major version.
var major = regexp.MustCompile(`[/.]v[0-9]+$`)

// listed are the modules in each table of docs/dependencies.md, by its title. A row names the first
// in full, and those beside it by their last part.
func listed(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	tables, title := map[string][]string{}, ""
	for line := range strings.Lines(string(text)) {
		if name, found := strings.CutPrefix(line, "## "); found {
			title = strings.TrimSpace(name)
		}
		row, found := strings.CutPrefix(line, "| ")
		names, _, _ := strings.Cut(row, " | ")
		if !found || strings.HasSuffix(names, "not modules") || strings.HasPrefix(row, "| ") {
			continue
		}
		last := ""
		for name := range strings.SplitSeq(names, ", ") {
			if host, _, _ := strings.Cut(name, "/"); !strings.Contains(host, ".") {
				name = path.Dir(last) + "/" + name
			}
			last = name
			tables[title] = append(tables[title], name)
		}
	}
	return tables
}

func TestEachDirectDependencyIsListed(t *testing.T) {
	tables := listed(t)
	required := map[string]bool{}
	files := map[string]string{
		"Root module": "../go.mod", "standalone/": "../standalone/go.mod", "test/": "../test/go.mod",
		"test/peers/helm": "../test/peers/helm/go.mod", "test/peers/nfpm": "../test/peers/nfpm/go.mod",
	}
	for title, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			module, version, found := strings.Cut(strings.TrimSpace(line), " ")
			if !found || !strings.HasPrefix(version, "v") || strings.HasPrefix(module, "github.com/perennial-pki/") {
				continue
			}
			module = major.ReplaceAllString(module, "")
			required[module] = true
			names := slices.Concat(tables[title], tables["Root module"]) // which the others use, too
			named := slices.ContainsFunc(names, func(name string) bool {
				return within(name, module) || within(module, name)
			})
			if !strings.HasSuffix(version, "// indirect") && !named {
				t.Errorf("docs/dependencies.md does not say what %s is for, in the table of %s", module, title)
			}
		}
	}
	for title, names := range tables {
		for _, name := range names {
			there := false
			for module := range required {
				there = there || within(name, module) || within(module, name)
			}
			if !there {
				t.Errorf("docs/dependencies.md has %s in the table of %s, which is no dependency", name, title)
			}
		}
	}
}

// within reports whether a path is another one, or below it.
func within(name, above string) bool {
	return name == above || strings.HasPrefix(name, above+"/")
}
