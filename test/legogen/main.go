// legogen writes what internal/solver/dns01/lego knows of lego's DNS providers, and the page of the documentation that lists them, from
// lego's source as the go.mod names it. It runs nothing of lego: what it needs is constant in the source.
package main

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/constant"
	"go/format"
	"go/parser"
	"go/token"
	"go/types"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/tools/go/packages"
)

const (
	module = "github.com/go-acme/lego/v5"
	dns    = module + "/providers/dns/"
)

// allowed are the modules that a provider may import beside the standard library and lego.
var allowed = []string{
	"golang.org/x/", "github.com/miekg/dns", "github.com/cenkalti/backoff/", "github.com/google/go-querystring/", "github.com/pquerna/otp",
	"github.com/hashicorp/go-retryablehttp",
}

var (
	// native are providers that Perennial has itself, by the name in lego.
	native = map[string]string{
		"acmedns": "acmeDNS", "azuredns": "azureDNS", "cloudflare": "cloudflare", "digitalocean": "digitalocean", "dnsupdate": "rfc2136",
		"edgedns": "akamai", "gcloud": "cloudDNS", "route53": "route53",
	}
	// ours are done by Perennial in the way of lego: theirs read the terminal, or can hang.
	ours = []string{"exec", "manual"}
	// local are for the machine's owner only.
	local = []string{"exec", "manual", "httpreq"}
	// gone are services that exist no more, of which lego keeps the name.
	gone = []string{"stackpath"}
	// closed have something that only lego itself can set, from its environment.
	closed = []string{"plesk"}
	// single put a record set in the place of the one that is there, although their CleanUp names a value.
	single = []string{"nifcloud"}
	// oneRecord have one TXT value for a whole account or domain, at whatever name below it.
	oneRecord = []string{"duckdns", "myaddr"}
	// logged name the domain of the certificate to their log only.
	logged = []string{"cloudns", "variomedia"}
	// under are settings with an address that is asked by a client of the provider's own, by the domain that it has to be in.
	under = map[string]string{"otc.IdentityEndpoint": ".otc.t-systems.com"}
	// spelled are names of settings that do not follow from those of the fields.
	spelled = map[string]string{"APIkey": "apiKey", "OAuthToken": "oauthToken"}
	// ignored are fields that set nothing here: the check of the record, deadlines and order are Perennial's.
	ignored = []string{"PropagationTimeout", "PollingInterval", "SequenceInterval", "HTTPClient", "Debug"}
	// transport are fields that Perennial's HTTP client obeys: the provider would make one of its own.
	transport = []string{"InsecureSkipVerify", "TLSCert", "TLSKey"}

	secret = regexp.MustCompile(`(?i)(key|token|secret|password|credentials|signature)$`)
)

type setting struct {
	field, name string
	kind        string // text, number, flag, address, pairs, lists
	elem        string // of lists: string or int64
	def, env    string
	secret      bool
	required    bool
}

type provider struct {
	name, title, url          string
	settings                  []setting
	fields                    []string // of ignored, which the Config has
	stateful, exclusive, wide bool
	byDomain                  bool
	pkg                       *packages.Package
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("legogen: ")
	code := flag.String("code", "../internal/solver/dns01/lego/providers_gen.go", "where the table goes")
	check := flag.String("test", "../internal/solver/dns01/lego/providers_gen_test.go", "where the table of defaults for the test goes")
	docs := flag.String("docs", "../docs/dns-providers.md", "where the page goes")
	flag.Parse()
	if err := run(*code, *check, *docs); err != nil {
		log.Fatal(err)
	}
}

func run(code, check, docs string) error {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Version}} {{.Dir}}", module).Output()
	if err != nil {
		return fmt.Errorf("find lego: %w", err)
	}
	version, dir, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	names, err := candidates(dir)
	if err != nil {
		return err
	}
	all, err := load(dir, names)
	if err != nil {
		return err
	}
	source, err := format.Source(table(all))
	if err != nil {
		return fmt.Errorf("format: %w", err)
	}
	tests, err := format.Source(defaults(all))
	if err != nil {
		return fmt.Errorf("format: %w", err)
	}
	return errors.Join(os.WriteFile(code, source, 0o644), os.WriteFile(check, tests, 0o644), os.WriteFile(docs, page(all, version), 0o644))
}

// candidates are the names of the providers that import nothing but what is allowed.
func candidates(dir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(dir, "providers/dns"))
	if err != nil {
		return nil, err
	}
	imports := map[string][]string{}
	var of func(path string) error
	of = func(path string) error {
		if _, seen := imports[path]; seen {
			return nil
		}
		imports[path] = nil
		files, err := filepath.Glob(filepath.Join(dir, strings.TrimPrefix(path, module), "*.go"))
		if err != nil {
			return err
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			for _, i := range f.Imports {
				name, err := strconv.Unquote(i.Path.Value)
				if err != nil {
					return err
				}
				imports[path] = append(imports[path], name)
				if strings.HasPrefix(name, dns) {
					if err := of(name); err != nil {
						return err
					}
				}
			}
		}
		return nil
	}
	var clean func(path string, seen map[string]bool) bool
	clean = func(path string, seen map[string]bool) bool {
		if seen[path] {
			return true
		}
		seen[path] = true
		for _, i := range imports[path] {
			switch first, _, _ := strings.Cut(i, "/"); {
			case strings.HasPrefix(i, dns):
				if !clean(i, seen) {
					return false
				}
			case strings.HasPrefix(i, module), !strings.Contains(first, "."):
			case !slices.ContainsFunc(allowed, func(a string) bool { return strings.HasPrefix(i, a) }):
				return false
			}
		}
		return true
	}
	var names []string
	for _, e := range entries {
		name := e.Name()
		if !e.IsDir() || name == "internal" || native[name] != "" || slices.Contains(gone, name) || slices.Contains(closed, name) || slices.Contains(ours, name) {
			continue
		}
		if err := of(dns + name); err != nil {
			return nil, err
		}
		if clean(dns+name, map[string]bool{}) {
			names = append(names, name)
		}
	}
	return names, nil
}

func load(dir string, names []string) ([]*provider, error) {
	var paths []string
	for _, n := range names {
		paths = append(paths, dns+n+"/...")
	}
	paths = append(paths, dns+"internal/...")
	loaded, err := packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedSyntax | packages.NeedTypes | packages.NeedTypesInfo | packages.NeedImports | packages.NeedFiles | packages.NeedCompiledGoFiles | packages.NeedExportFile,
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
	for _, n := range names {
		pkg := by[dns+n]
		if pkg == nil {
			return nil, fmt.Errorf("package %s cannot be loaded", n)
		}
		p := &provider{name: n, pkg: pkg}
		if err := errors.Join(p.about(filepath.Join(dir, "providers/dns", n, n+".toml")), p.config()); err != nil {
			return nil, fmt.Errorf("%s: %w", n, err)
		}
		// Some leave the work to a package below or beside them.
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
		p.exclusive = p.exclusive || p.wide || slices.Contains(single, n)
		all = append(all, p)
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

// config finds the settings: the fields of Config, with the defaults and variables of NewDefaultConfig and NewDNSProvider.
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

// behaviour reads from the methods what Perennial has to reckon with.
func (p *provider) behaviour(q *packages.Package) {
	for _, file := range q.Syntax {
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv == nil || f.Body == nil {
				continue
			}
			switch f.Name.Name {
			case "Sequential":
				p.exclusive = true
			case "CleanUp":
				present := function(q, receiver(f), "Present")
				if present == nil || delegates(f) {
					continue
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

// names reports whether a CleanUp says which of several values it means: by the value, or by the token that its Present kept an ID for.
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

// usesDomain reports whether a method makes the name of the record from the domain of the certificate, and so disregards CNAMEs.
func (p *provider) usesDomain(q *packages.Package, f *ast.FuncDecl) bool {
	found := false
	ast.Inspect(f.Body, func(n ast.Node) bool {
		c, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if sel, ok := c.Fun.(*ast.SelectorExpr); ok && (isIdent(sel.X, "fmt") || isIdent(sel.X, "log") || isIdent(sel.X, "slog") || sel.Sel.Name == "GetChallengeInfo") {
			return true
		}
		for _, a := range c.Args {
			found = found || isIdent(a, "domain") && isParameter(q, f, a.(*ast.Ident))
		}
		return true
	})
	return found
}

// indexed are the maps of the receiver, at any depth, that a method writes to, or that it reads.
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

// lower is the name of a setting: that of the field, as Kubernetes spells names.
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

const header = "// Code generated by test/legogen; DO NOT EDIT.\n\n//lint:file-ignore SA1019 Settings that lego has replaced stay for those who use them.\n\npackage lego\n\n"

// table is the Go source of the providers.
func table(all []*provider) []byte {
	b := bytes.NewBufferString(header)
	fmt.Fprintf(b, "import (\n\t\"net/http\"\n\n\t%q\n", module+"/challenge")
	for _, p := range all {
		fmt.Fprintf(b, "\t%q\n", dns+p.name)
	}
	b.WriteString(")\n\n// elsewhere are the names in lego of what Perennial has a solver of its own for.\nvar elsewhere = map[string]string{\n")
	for _, n := range sorted(native) {
		fmt.Fprintf(b, "\t%q: %q,\n", n, native[n])
	}
	b.WriteString("}\n\n// kinds are lego's providers, by name in order.\nvar kinds = [...]kind{\n")
	for _, p := range all {
		fmt.Fprintf(b, "\t{\n\t\tname: %q,\n\t\tsettings: []setting{", p.name)
		for _, s := range p.settings {
			fmt.Fprintf(b, "\n\t\t\t{name: %q, form: %s", s.name, s.kind)
			if s.secret {
				b.WriteString(", secret: true")
			}
			if s.def != "" {
				fmt.Fprintf(b, ", def: %q", s.def)
			}
			if in := under[p.name+"."+s.field]; in != "" {
				fmt.Fprintf(b, ", in: %q", in)
			}
			b.WriteString("},")
		}
		if len(p.settings) > 0 {
			b.WriteString("\n\t\t")
		}
		b.WriteString("},\n")
		for _, f := range []struct {
			name string
			set  bool
		}{
			{"stateful", p.stateful}, {"exclusive", p.exclusive}, {"wide", p.wide}, {"byDomain", p.byDomain}, {"local", slices.Contains(local, p.name)},
		} {
			if f.set {
				fmt.Fprintf(b, "\t\t%s: true,\n", f.name)
			}
		}
		client := "c"
		if !slices.Contains(p.fields, "HTTPClient") {
			client = "_"
		}
		fmt.Fprintf(b, "\t\tmake: func(s values, %s *http.Client) (challenge.Provider, error) {\n\t\t\treturn %s.NewDNSProviderConfig(&%s.Config{\n", client, p.name, p.name)
		for _, s := range p.settings {
			if slices.Contains(transport, s.field) {
				continue
			}
			value := fmt.Sprintf("s.%s(%q)", s.kind, s.name)
			switch {
			case s.elem == "int64" && s.kind == "number":
				value = "int64(" + value + ")"
			case s.kind == "lists":
				value = fmt.Sprintf("sequences(s, %q, %s, %s.NewSeq)", s.name, map[string]string{"string": "asText", "int64": "asNumber"}[s.elem], p.name)
			}
			fmt.Fprintf(b, "\t\t\t\t%s: %s,\n", s.field, value)
		}
		for _, f := range p.fields {
			switch f {
			case "HTTPClient":
				b.WriteString("\t\t\t\tHTTPClient: c,\n")
			case "PropagationTimeout":
				b.WriteString("\t\t\t\tPropagationTimeout: callLimit,\n")
			case "PollingInterval":
				b.WriteString("\t\t\t\tPollingInterval: pollInterval,\n")
			}
		}
		b.WriteString("\t\t\t})\n\t\t},\n\t},\n")
	}
	b.WriteString("}\n")
	return b.Bytes()
}

// defaults is the Go source of what the tests compare with lego itself.
func defaults(all []*provider) []byte {
	b := bytes.NewBufferString(header)
	b.WriteString("import (\n")
	for _, p := range all {
		fmt.Fprintf(b, "\t%q\n", dns+p.name)
	}
	b.WriteString(")\n\n// inLego makes the configurations that lego makes from the environment.\nvar inLego = map[string]func() any{\n")
	for _, p := range all {
		call := p.name + ".NewDefaultConfig()"
		if p.pkg.Types.Scope().Lookup("NewDefaultConfig").Type().(*types.Signature).Results().Len() > 1 {
			call = "first(" + call + ")"
		}
		fmt.Fprintf(b, "\t%q: func() any { return %s },\n", p.name, call)
	}
	b.WriteString("}\n\n// fields are the fields of the configurations by the names of the settings.\nvar fields = map[string]map[string]string{\n")
	for _, p := range all {
		fmt.Fprintf(b, "\t%q: {", p.name)
		for _, s := range p.settings {
			fmt.Fprintf(b, "%q: %q, ", s.name, s.field)
		}
		b.WriteString("},\n")
	}
	b.WriteString("}\n\n// variables are those of the environment that lego reads for the settings.\nvar variables = map[string][]string{\n")
	for _, p := range all {
		fmt.Fprintf(b, "\t%q: {", p.name)
		for _, v := range constants(p.pkg) {
			fmt.Fprintf(b, "%q, ", v)
		}
		b.WriteString("},\n")
	}
	b.WriteString("}\n")
	return b.Bytes()
}

// constants are the values of the exported constants that are named Env....
func constants(q *packages.Package) []string {
	var all []string
	for _, n := range q.Types.Scope().Names() {
		if c, ok := q.Types.Scope().Lookup(n).(*types.Const); ok && strings.HasPrefix(n, "Env") && c.Val().Kind() == constant.String {
			all = append(all, constant.StringVal(c.Val()))
		}
	}
	return all
}

// page is the documentation.
func page(all []*provider, version string) []byte {
	b := &bytes.Buffer{}
	fmt.Fprintf(b, `<!-- Written by test/legogen: do not edit. -->
# DNS providers

%d providers of [lego](https://go-acme.github.io/lego/dns/) (%s), for a solver's `+"`dns01.provider`"+`; [acme.md](acme.md#other-providers) says how. What each setting means, and how to
get credentials, is told on lego's page of the provider; the third column is what the setting is called there.

Settings that are marked **secret** stand in the Secret, the others there or in `+"`config`"+`. Those that are needed are marked so as far as lego's source tells;
some need one of several.

- *one at a time*: the service has only one value at a name, so challenges for the same name (as a wildcard and its apex are) wait for each other, and
  whatever else stands at the name is lost.
- *finds by memory*: what CleanUp needs is known only to the process that made the record. After a restart the record is made once more, so that it can
  be removed; a service that has it twice then may keep one, which an event names.
- *without CNAME*: the record can only be at a name that begins with `+"`_acme-challenge`"+`.

Perennial has solvers of its own for `, len(all)+len(ours), version)
	for i, n := range sorted(native) {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(b, "%s (`dns01.%s`)", n, native[n])
	}
	fmt.Fprintf(b, ". %s cannot be used: lego takes its address from the environment alone.", strings.Join(closed, ", "))
	b.WriteString(`

## On one machine only

perenniald knows three more ways, which would let whoever may write an Issuer in a cluster run programs or reach into the network:

### exec

Runs a program, as lego does: ` + "`PROGRAM present NAME VALUE`, and `PROGRAM cleanup NAME VALUE`" + `. NAME ends with a dot. It has two minutes. *one at a time*

| setting | | in lego |
|---|---|---|
| ` + "`program`" + ` | needed; its path, absolute | EXEC_PATH |
| ` + "`mode`" + ` | ` + "`RAW`: the arguments are `present -- DOMAIN TOKEN KEYAUTH`" + ` | EXEC_MODE |

### manual

Somebody makes the record: the Challenge, and an event, say which. It is waited for as for every record, and when it is of no use any more another event says
so. No settings.
`)
	sections := func(these []*provider) {
		for _, p := range these {
			title := p.title
			if strings.HasPrefix(p.url, "http") { // others are within lego's own pages
				title = fmt.Sprintf("[%s](%s)", p.title, p.url)
			}
			fmt.Fprintf(b, "\n### %s\n\n%s; [in lego](https://go-acme.github.io/lego/dns/%s/).", p.name, title, p.name)
			for _, f := range []struct {
				text string
				set  bool
			}{{"one at a time", p.exclusive}, {"finds by memory", p.stateful}, {"without CNAME", p.byDomain}} {
				if f.set {
					fmt.Fprintf(b, " *%s*", f.text)
				}
			}
			if len(p.settings) == 0 {
				b.WriteString(" No settings.\n")
				continue
			}
			b.WriteString("\n\n| setting | | in lego |\n|---|---|---|\n")
			for _, s := range p.settings {
				var about []string
				if s.secret {
					about = append(about, "**secret**")
				}
				if s.required {
					about = append(about, "needed")
				}
				switch s.kind {
				case "number":
					about = append(about, "number")
				case "flag":
					about = append(about, "true or false")
				case "address":
					about = append(about, "URL")
				case "pairs":
					about = append(about, "`name:value,name:value`")
				case "lists":
					about = append(about, "`name:id:id,name:id`")
				}
				if s.def != "" {
					about = append(about, "`"+s.def+"` if left out")
				}
				fmt.Fprintf(b, "| `%s` | %s | %s |\n", s.name, strings.Join(about, ", "), s.env)
			}
		}
	}
	mine := func(p *provider) bool { return slices.Contains(local, p.name) }
	sections(slices.DeleteFunc(slices.Clone(all), func(p *provider) bool { return !mine(p) }))
	b.WriteString("\n## Everywhere\n")
	sections(slices.DeleteFunc(slices.Clone(all), mine))
	return b.Bytes()
}

func sorted[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, cmp.Compare[string])
	return keys
}
