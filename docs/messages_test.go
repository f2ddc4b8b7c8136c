package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// hole is what stands in a text of the code for what is filled in.
const hole = "\x00"

var (
	verb = regexp.MustCompile(`%[-+#0-9.\[\]]*[a-zA-Z]`)
	// filledIn is what stands in a message of the documentation for that: dots, words in capitals,
	// numbers, fields, and words that the code has as values. What follows a comma or a colon may be
	// of another text.
	filledIn = regexp.MustCompile("\\.\\.\\.|[\"();`]|, |: |\\b[A-Z][A-Z_]+\\b|" +
		"\\b[a-zA-Z0-9]+(\\.[a-zA-Z0-9]+)+\\b|\\b[a-z]*[0-9][a-z0-9]*\\b|acme-tls/|" +
		"\\b(Issuer|HTTPRoute|Cloudflare|DigitalOcean|Google|Azure|Akamai|Cloud DNS)\\b")
	// others are the words of Go's own library.
	others = []string{"signed by unknown authority", "failed to verify certificate"}
	option = regexp.MustCompile("`--([a-z0-9-]+)")
	// elsewhere are flags of other programs, and those of which the code has parts.
	elsewhere = []string{
		"as", "cacert", "context", "force-conflicts", "kubeconfig", "enable-mutatingwebhookconfigurations-injectable",
	}
	spans = regexp.MustCompile("`([^`]+)`")
	word  = regexp.MustCompile(`\b[a-z]+\b`)
)

// messages are the messages that a page explains. Below a heading that begins with "Messages", each
// item of a list begins with messages in code spans and a colon at the end of a line; the rest of
// the item explains them.
func messages(t *testing.T, text string) []string {
	t.Helper()
	var found []string
	explains, item := false, ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if item != "" && (line == "" || strings.HasPrefix(line, "- ")) {
			t.Errorf("the messages of this item end with no colon at the end of a line: %s", item)
			item = ""
		}
		switch {
		case strings.HasPrefix(line, "#"):
			explains, item = strings.HasPrefix(strings.TrimLeft(line, "# "), "Messages"), ""
		case strings.HasPrefix(line, "- `") && explains:
			item = line
		case item != "":
			item += " " + line
		}
		if item != "" && strings.HasSuffix(line, "`:") {
			for _, span := range spans.FindAllStringSubmatch(item, -1) {
				found = append(found, span[1])
			}
			item = ""
		}
	}
	return found
}

// told are the fixed words of each message that pages explain, by the message.
func told(t *testing.T, pattern string) map[string][]string {
	t.Helper()
	all := messages(t, read(t, pattern))
	rows := map[string][]string{}
	for _, message := range all {
		for _, words := range filledIn.Split(message, -1) {
			words = strings.Trim(words, " .,:-")
			if strings.Contains(words, " ") && !slices.Contains(others, words) {
				rows[message] = append(rows[message], words)
			}
		}
	}
	return rows
}

// constant is the text of an expression, with holes for what is not constant.
func constant(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		if text, err := strconv.Unquote(e.Value); err == nil {
			return verb.ReplaceAllString(text, hole)
		}
	case *ast.BinaryExpr:
		return constant(e.X) + constant(e.Y)
	}
	return hole
}

// code calls visit for each node of what is not a test below these directories.
func code(t *testing.T, visit func(files *token.FileSet, n ast.Node) bool, dirs ...string) {
	t.Helper()
	files := token.NewFileSet()
	for _, dir := range dirs {
		err := filepath.WalkDir(filepath.Join("..", dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" ||
				strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, "_gen.go") ||
				strings.HasSuffix(filepath.Dir(path), "test") { // helpers of tests, such as accounttest
				return err
			}
			parsed, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(parsed, func(n ast.Node) bool { return visit(files, n) })
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// texts are all texts of the code, with holes around each.
func texts(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	code(t, func(_ *token.FileSet, n ast.Node) bool {
		if e, ok := n.(ast.Expr); ok {
			all.WriteString(hole + constant(e) + hole)
		}
		return true
	}, "acme", "api", "internal", "pki", "standalone")
	return all.String()
}

func TestEachMessageThatIsExplainedExists(t *testing.T) {
	all := texts(t)
	for pattern, least := range map[string]int{"acme/*.md": 200, "*.md": 30} {
		rows := told(t, pattern)
		if len(rows) < least {
			t.Errorf("%s has only %d messages: has the list another form?", pattern, len(rows))
		}
		for row, words := range rows {
			for _, w := range words {
				if !strings.Contains(all, w) {
					t.Errorf("docs/%s explains %q, but no text of the code has %q", pattern, row, w)
				}
			}
		}
	}
}

// TestEachReasonThatIsExplainedExists reads the lists below headings that begin with "Reasons".
// Their items begin with reasons in code spans and a colon.
func TestEachReasonThatIsExplainedExists(t *testing.T) {
	all, n := texts(t), 0
	explains := false
	for line := range strings.Lines(read(t, "*.md") + read(t, "acme/*.md")) {
		if strings.HasPrefix(line, "#") {
			explains = strings.HasPrefix(strings.TrimLeft(line, "# "), "Reasons")
		}
		names, _, found := strings.Cut(line, ": ")
		if !explains || !found || !strings.HasPrefix(line, "- `") {
			continue
		}
		for _, span := range spans.FindAllStringSubmatch(names, -1) {
			n++
			if reason := span[1]; !strings.Contains(reason, " ") && !strings.Contains(all, hole+reason+hole) {
				t.Errorf("a page explains the reason %s, which the code does not have", reason)
			}
		}
	}
	if n < 30 {
		t.Errorf("only %d reasons were read: have the lists another form?", n)
	}
}

func TestEachFlagThatIsExplainedExists(t *testing.T) {
	all, n := texts(t), 0
	for _, page := range pages(t) {
		for _, m := range option.FindAllStringSubmatch(page, -1) {
			n++
			if name := m[1]; !slices.Contains(elsewhere, name) && !strings.Contains(all, hole+name+hole) {
				t.Errorf("a page explains --%s, which is no flag", name)
			}
		}
	}
	if n < 100 {
		t.Errorf("only %d flags were read: are they in code spans?", n)
	}
}

func TestEachErrorOfAnACMEIssuanceIsExplained(t *testing.T) {
	var words []string
	for _, w := range told(t, "acme/*.md") {
		words = append(words, w...)
	}
	code(t, func(files *token.FileSet, n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		f, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if of, ok := f.X.(*ast.Ident); !ok || of.Name != "fault" || !strings.HasSuffix(f.Sel.Name, "f") {
			return true
		}
		// With less than three words of its own, it is another's.
		format := slices.IndexFunc(call.Args, func(e ast.Expr) bool { return len(word.FindAllString(constant(e), -1)) > 2 })
		if format < 0 {
			return true
		}
		text := constant(call.Args[format])
		if !slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) }) {
			t.Errorf("%s: docs/acme does not explain %q", files.Position(call.Pos()), strings.ReplaceAll(text, hole, "..."))
		}
		return true
	}, "internal/account", "internal/ratelimit", "internal/challenge", "internal/order", "internal/signer/acme",
		"internal/solver")
}
