package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/constant"
	"go/types"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// secret are the names of fields that hold secrets.
var secret = regexp.MustCompile(`(?i)(key|token|secret|password|credentials|signature)$`)

// config finds the settings: the fields of Config, with the defaults and variables of
// NewDefaultConfig and NewDNSProvider.
func (p *provider) config() error {
	named, ok := types.Unalias(p.pkg.Types.Scope().Lookup("Config").Type()).(*types.Named)
	if !ok {
		return errors.New("its Config is no type")
	}
	s := named.Underlying().(*types.Struct)
	at := map[string]int{}
	for i := range s.NumFields() {
		f := s.Field(i)
		if !f.Exported() {
			continue
		}
		if slices.Contains(ignored, f.Name()) {
			p.fields = append(p.fields, f.Name())
			continue
		}
		set := setting{field: f.Name(), name: lower(f.Name())}
		switch t := f.Type().String(); {
		case t == "string":
			set.kind, set.secret = "text", secret.MatchString(f.Name())
		case t == "int", t == "int64":
			set.kind, set.elem = "number", t
		case t == "bool":
			set.kind = "flag"
		case t == "*net/url.URL":
			set.kind = "address"
		case t == "map[string]string":
			set.kind, set.secret = "pairs", true
		case strings.HasPrefix(t, "map[string]*") && strings.HasSuffix(t, ".Seq"):
			set.kind = "lists"
			of := p.pkg.Types.Scope().Lookup("NewSeq").Type().(*types.Signature).Params().At(0).Type().(*types.Slice)
			set.elem = of.Elem().String()
		default:
			return fmt.Errorf("field %s is a %s", f.Name(), t)
		}
		at[set.field] = len(p.settings)
		p.settings = append(p.settings, set)
	}
	for _, name := range []string{"NewDefaultConfig", "NewDNSProvider"} {
		f := function(p.pkg, "", name)
		if f == nil {
			return fmt.Errorf("it has no %s", name)
		}
		ast.Inspect(f.Body, func(n ast.Node) bool {
			var field string
			var value ast.Expr
			switch n := n.(type) {
			case *ast.KeyValueExpr:
				if id, ok := n.Key.(*ast.Ident); ok {
					field, value = id.Name, n.Value
				}
			case *ast.AssignStmt:
				if sel, ok := n.Lhs[0].(*ast.SelectorExpr); ok && len(n.Rhs) == 1 {
					if id, ok := sel.X.(*ast.Ident); ok && id.Name == "config" {
						field, value = sel.Sel.Name, n.Rhs[0]
					}
				}
			}
			i, known := at[field]
			if !known {
				return true
			}
			def, env, required := p.value(f, value, 0)
			set := &p.settings[i]
			if def != "" {
				set.def = def
			}
			if env != "" {
				set.env, set.required = env, required
			}
			return true
		})
	}
	for i := range p.settings {
		if s := &p.settings[i]; s.def != "" && s.def != "0" && s.def != "false" {
			s.required = false
		} else {
			s.def = ""
		}
	}
	return nil
}

// value finds the default in an expression, and the variable that lego reads.
func (p *provider) value(in *ast.FuncDecl, e ast.Expr, depth int) (def, env string, required bool) {
	if tv, ok := p.pkg.TypesInfo.Types[e]; ok && tv.Value != nil {
		if tv.Value.Kind() == constant.String {
			return constant.StringVal(tv.Value), "", false
		}
		return tv.Value.ExactString(), "", false
	}
	str := func(e ast.Expr) string {
		if tv := p.pkg.TypesInfo.Types[e]; tv.Value != nil && tv.Value.Kind() == constant.String {
			return constant.StringVal(tv.Value)
		}
		return ""
	}
	switch e := e.(type) {
	case *ast.IndexExpr: // values[EnvToken]
		return "", str(e.Index), true
	case *ast.CallExpr:
		if sel, ok := e.Fun.(*ast.SelectorExpr); ok && len(e.Args) > 0 {
			if id, ok := sel.X.(*ast.Ident); ok && id.Name == "env" && strings.HasPrefix(sel.Sel.Name, "Get") {
				env = str(e.Args[0])
				if len(e.Args) > 1 {
					def, _, _ = p.value(in, e.Args[1], depth)
				}
				return def, env, false
			}
		}
		for _, a := range e.Args { // url.Parse(...), env.ParsePairs(...)
			if def, env, required = p.value(in, a, depth); def != "" || env != "" {
				return def, env, required
			}
		}
	case *ast.Ident:
		if depth > 3 {
			return
		}
		ast.Inspect(in.Body, func(n ast.Node) bool { // the first assignment to it
			a, ok := n.(*ast.AssignStmt)
			if !ok || env != "" || def != "" || len(a.Rhs) != 1 {
				return true
			}
			if id, ok := a.Lhs[0].(*ast.Ident); ok && id.Name == e.Name {
				def, env, required = p.value(in, a.Rhs[0], depth+1)
			}
			return true
		})
	}
	return def, env, required
}

// lower returns the name of a setting: the name of the field in the style of Kubernetes.
func lower(field string) string {
	if s := spelled[field]; s != "" {
		return s
	}
	r := []rune(field)
	n := 0
	for n < len(r) && unicode.IsUpper(r[n]) {
		n++
	}
	if n > 1 && n < len(r) {
		n--
	}
	return strings.ToLower(string(r[:n])) + string(r[n:])
}
