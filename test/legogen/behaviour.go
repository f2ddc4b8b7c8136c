package main

import (
	"go/ast"
	"go/token"
	"go/types"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/tools/go/packages"
)

// behaviour derives from the source of a provider's methods the properties that Perennial must
// know.
func (p *provider) behaviour(q *packages.Package) {
	for _, file := range q.Syntax {
		p.literals(file)
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv == nil || f.Body == nil {
				continue
			}
			switch f.Name.Name {
			case "Sequential":
				p.exclusive = true
			case "CleanUp":
				p.cleanUp(q, f)
			}
		}
	}
}

// cleanUp reads from CleanUp and Present which records a provider removes, and how it finds them.
func (p *provider) cleanUp(q *packages.Package, f *ast.FuncDecl) {
	present := function(q, receiver(f), "Present")
	if present == nil || delegates(f) {
		return
	}
	if !names(f) {
		p.exclusive = true
	}
	if p.usesDomain(q, f) || p.usesDomain(q, present) {
		p.byDomain = true
	}
	kept := indexed(q, present, true)
	for name := range indexed(q, f, false) {
		if kept[name] {
			p.stateful = true
		}
	}
}

// delegates reports whether a method only calls that of another provider.
func delegates(f *ast.FuncDecl) bool {
	found := false
	ast.Inspect(f.Body, func(n ast.Node) bool {
		if c, ok := n.(*ast.CallExpr); ok {
			if sel, ok := c.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == f.Name.Name {
				found = true
			}
		}
		return true
	})
	return found
}

// names reports whether a CleanUp identifies one of several values: by the value, or by the token
// for which its Present stored an ID.
func names(f *ast.FuncDecl) bool {
	found := false
	ast.Inspect(f.Body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			found = found || n.Sel.Name == "Value" && isIdent(n.X, "info")
		case *ast.CallExpr:
			for _, a := range n.Args {
				found = found || isIdent(a, "info")
			}
		case *ast.IndexExpr:
			found = found || isIdent(n.Index, "token")
		}
		return true
	})
	return found
}

// usesDomain reports whether a method derives the name of the record from the domain of the
// certificate, which ignores CNAMEs.
func (p *provider) usesDomain(q *packages.Package, f *ast.FuncDecl) bool {
	found := false
	ast.Inspect(f.Body, func(n ast.Node) bool {
		c, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if sel, ok := c.Fun.(*ast.SelectorExpr); ok &&
			(isIdent(sel.X, "fmt") || isIdent(sel.X, "log") || isIdent(sel.X, "slog") || sel.Sel.Name == "GetChallengeInfo") {
			return true
		}
		for _, a := range c.Args {
			found = found || isIdent(a, "domain") && isParameter(q, f, a.(*ast.Ident))
		}
		return true
	})
	return found
}

// indexed returns the maps of the receiver, at any depth, that a method writes or reads.
func indexed(q *packages.Package, f *ast.FuncDecl, write bool) map[string]bool {
	found := map[string]bool{}
	written := map[ast.Expr]bool{}
	ast.Inspect(f.Body, func(n ast.Node) bool {
		if a, ok := n.(*ast.AssignStmt); ok {
			for _, l := range a.Lhs {
				written[l] = true
			}
		}
		i, ok := n.(*ast.IndexExpr)
		if !ok || written[i] != write {
			return true
		}
		sel, ok := i.X.(*ast.SelectorExpr)
		if !ok || !isIdent(sel.X, f.Recv.List[0].Names[0].Name) {
			return true
		}
		if _, ok := q.TypesInfo.TypeOf(i.X).Underlying().(*types.Map); ok {
			found[sel.Sel.Name] = true
		}
		return true
	})
	return found
}

func isIdent(e ast.Expr, name string) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == name
}

func isParameter(q *packages.Package, f *ast.FuncDecl, id *ast.Ident) bool {
	for _, list := range f.Type.Params.List {
		for _, n := range list.Names {
			if q.TypesInfo.Defs[n] == q.TypesInfo.Uses[id] {
				return true
			}
		}
	}
	return false
}

// whole are words that indicate a replacement of a whole record set or zone.
var whole = regexp.MustCompile(`^(?i)(put|patch|methodput|methodpatch|replace|overwrite|upsert)$`)

// literals reads the string literals of the source: the hosts of the service, and whether it
// replaces whole sets.
func (p *provider) literals(file *ast.File) {
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			p.replaces = p.replaces || isIdent(n.X, "http") && whole.MatchString(n.Sel.Name)
		case *ast.BasicLit:
			text, err := strconv.Unquote(n.Value)
			if n.Kind != token.STRING || err != nil {
				return true
			}
			p.replaces = p.replaces || whole.MatchString(text)
			at, err := url.Parse(text)
			if err != nil || at.Scheme != "https" && at.Scheme != "http" {
				return true
			}
			host := strings.ToLower(at.Hostname())
			if _, err := netip.ParseAddr(
				host,
			); err != nil && strings.Contains(host, ".") && !strings.ContainsAny(host, "%{<") &&
				!slices.Contains(p.hosts, host) {
				p.hosts = append(p.hosts, host)
			}
		}
		return true
	})
}

func receiver(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return ""
	}
	t := f.Recv.List[0].Type
	if s, ok := t.(*ast.StarExpr); ok {
		t = s.X
	}
	return t.(*ast.Ident).Name
}

func function(q *packages.Package, of, name string) *ast.FuncDecl {
	for _, file := range q.Syntax {
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == name && receiver(f) == of {
				return f
			}
		}
	}
	return nil
}
