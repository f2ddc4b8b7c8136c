package main

import (
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/tools/go/packages"
)

// candidates returns the names of the providers that import only allowed packages.
func candidates(dir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(dir, "providers/dns"))
	if err != nil {
		return nil, err
	}
	g := importGraph{dir: dir, imports: map[string][]string{}}
	var names []string
	for _, e := range entries {
		name := e.Name()
		if !e.IsDir() || name == "internal" || native[name] != "" || slices.Contains(gone, name) || closed[name] != "" ||
			slices.Contains(ours, name) {
			continue
		}
		if err := g.read(dns + name); err != nil {
			return nil, err
		}
		if g.onlyAllowed(dns+name, map[string]bool{}) {
			names = append(names, name)
		}
	}
	return names, nil
}

// importGraph has the imports of each package of lego's providers that was read.
type importGraph struct {
	dir     string
	imports map[string][]string
}

// read reads the imports of a package, and of the packages below dns that it imports.
func (g importGraph) read(path string) error {
	if _, seen := g.imports[path]; seen {
		return nil
	}
	g.imports[path] = nil
	files, err := filepath.Glob(filepath.Join(g.dir, strings.TrimPrefix(path, module), "*.go"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		names, err := importsOf(file)
		if err != nil {
			return err
		}
		g.imports[path] = append(g.imports[path], names...)
	}
	for _, name := range g.imports[path] {
		if !strings.HasPrefix(name, dns) {
			continue
		}
		if err := g.read(name); err != nil {
			return err
		}
	}
	return nil
}

func importsOf(file string) ([]string, error) {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, i := range f.Imports {
		name, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

// onlyAllowed reports whether a package needs no module that is not in allowed.
func (g importGraph) onlyAllowed(path string, seen map[string]bool) bool {
	if seen[path] {
		return true
	}
	seen[path] = true
	for _, i := range g.imports[path] {
		switch first, _, _ := strings.Cut(i, "/"); {
		case strings.HasPrefix(i, dns):
			if !g.onlyAllowed(i, seen) {
				return false
			}
		case strings.HasPrefix(i, module), !strings.Contains(first, "."):
		case !slices.ContainsFunc(allowed, func(a string) bool { return strings.HasPrefix(i, a) }):
			return false
		}
	}
	return true
}

func load(dir string, names []string) ([]*provider, error) {
	var paths []string
	for _, n := range names {
		paths = append(paths, dns+n+"/...")
	}
	paths = append(paths, dns+"internal/...")
	loaded, err := packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedSyntax | packages.NeedTypes | packages.NeedTypesInfo |
			packages.NeedImports | packages.NeedFiles | packages.NeedCompiledGoFiles | packages.NeedExportFile,
	}, paths...)
	if err != nil {
		return nil, err
	}
	by := map[string]*packages.Package{}
	for _, p := range loaded {
		if len(p.Errors) == 0 {
			by[p.PkgPath] = p
		}
	}
	var all []*provider
	var unread []string
	for _, n := range names {
		pkg := by[dns+n]
		if pkg == nil {
			return nil, fmt.Errorf("package %s cannot be loaded", n)
		}
		p := &provider{name: n, pkg: pkg}
		if err := errors.Join(p.about(filepath.Join(dir, "providers/dns", n, n+".toml")), p.config()); err != nil {
			return nil, fmt.Errorf("%s: %w", n, err)
		}
		// Some delegate the work to a subpackage or a sibling package.
		seen := map[string]bool{}
		var walk func(*packages.Package)
		walk = func(q *packages.Package) {
			if q == nil || seen[q.PkgPath] || !strings.HasPrefix(q.PkgPath, dns) {
				return
			}
			seen[q.PkgPath] = true
			p.behaviour(q)
			for path := range q.Imports {
				walk(by[path])
			}
		}
		walk(pkg)
		p.byDomain = p.byDomain && !slices.Contains(logged, n)
		p.wide = slices.Contains(oneRecord, n)
		p.wholeZone = slices.Contains(wholeZones, n)
		p.exclusive = p.exclusive || p.wide || slices.Contains(single, n)
		if p.replaces && !p.exclusive && !slices.Contains(keeping, n) {
			unread = append(unread, n)
		}
		slices.Sort(p.hosts)
		all = append(all, p)
	}
	if len(unread) > 0 {
		return nil, fmt.Errorf(
			"%s may put a record set in the place of the one that is there: read Present and CleanUp, and add each to "+
				"keeping or to single",
			strings.Join(unread, ", "),
		)
	}
	return all, nil
}

var entry = regexp.MustCompile(`^(Name|URL) = ["'](.*)["']`)

// about reads title and address from lego's description.
func (p *provider) about(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		switch m := entry.FindStringSubmatch(line); {
		case m == nil:
		case m[1] == "Name":
			p.title = m[2]
		default:
			p.url = m[2]
		}
	}
	if p.title == "" {
		return errors.New("it has no title")
	}
	return nil
}
