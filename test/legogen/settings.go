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
		set, err := p.settingOf(f)
		if err != nil {
			return err
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
			field, value := assigned(n)
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
	p.settleDefaults()
	return nil
}

// settingOf returns the setting that a field of a provider's Config becomes.
func (p *provider) settingOf(f *types.Var) (setting, error) {
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
		return set, fmt.Errorf("field %s is a %s", f.Name(), t)
	}
	return set, nil
}

// assigned returns the field of a Config to which a node gives a value.
func assigned(n ast.Node) (field string, value ast.Expr) {
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
	return field, value
}

// settleDefaults has no setting needed that has a default.
func (p *provider) settleDefaults() {
	for i := range p.settings {
		if s := &p.settings[i]; s.def != "" && s.def != "0" && s.def != "false" {
			s.required = false
		} else {
			s.def = ""
		}
	}
}

// value finds the default in an expression, and the variable that lego reads.
func (p *provider) value(in *ast.FuncDecl, e ast.Expr, depth int) (def, env string, required bool) {
	if tv := p.pkg.TypesInfo.Types[e]; tv.Value != nil {
		if s := p.constantText(e); s != "" || tv.Value.Kind() == constant.String {
			return s, "", false
		}
		return tv.Value.ExactString(), "", false
	}
	switch e := e.(type) {
	case *ast.IndexExpr: // values[EnvToken]
		return "", p.constantText(e.Index), true
	case *ast.CallExpr:
		if isEnvGet(e) {
			if len(e.Args) > 1 {
				def, _, _ = p.value(in, e.Args[1], depth)
			}
			return def, p.constantText(e.Args[0]), false
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
		if first := firstAssigned(in, e.Name); first != nil {
			return p.value(in, first, depth+1)
		}
	}
	return def, env, required
}

// constantText returns the value of a constant string, or "".
func (p *provider) constantText(e ast.Expr) string {
	if tv := p.pkg.TypesInfo.Types[e]; tv.Value != nil && tv.Value.Kind() == constant.String {
		return constant.StringVal(tv.Value)
	}
	return ""
}

// isEnvGet reports whether a call is env.Get…(name, …).
func isEnvGet(call *ast.CallExpr) bool {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || len(call.Args) == 0 || !strings.HasPrefix(sel.Sel.Name, "Get") {
		return false
	}
	id, ok := sel.X.(*ast.Ident)
	return ok && id.Name == "env"
}

// firstAssigned returns what a function first assigns to a variable.
func firstAssigned(in *ast.FuncDecl, name string) (value ast.Expr) {
	ast.Inspect(in.Body, func(n ast.Node) bool {
		a, ok := n.(*ast.AssignStmt)
		if !ok || value != nil || len(a.Rhs) != 1 {
			return true
		}
		if id, ok := a.Lhs[0].(*ast.Ident); ok && id.Name == name {
			value = a.Rhs[0]
		}
		return true
	})
	return value
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
