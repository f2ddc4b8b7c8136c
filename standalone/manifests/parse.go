package manifests

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/perennial-pki/perennial/standalone/internal/ownership"
)

const (
	maxFile      = 4 << 20
	maxDocuments = 10_000
)

// A document is an object and its position in a file.
type document struct {
	file   string
	line   int // of the document's first line in the file
	text   []byte
	object *unstructured.Unstructured
}

// key identifies an object, independent of its API version.
type key struct {
	schema.GroupKind
	namespace, name string
}

func (d *document) key() key {
	return key{d.object.GroupVersionKind().GroupKind(), d.object.GetNamespace(), d.object.GetName()}
}

// A parseError is an error at a line of a file.
type parseError struct {
	line int
	err  error
}

func (e *parseError) Error() string { return e.err.Error() }
func (e *parseError) Unwrap() error { return e.err }

// yamlLine finds the line number, relative to the document, in messages of the YAML parser.
var yamlLine = regexp.MustCompile(`\bline (\d+): `)

// parse returns the objects of a file, which may hold several documents. An error is always a
// *parseError and means that the whole file must be ignored.
func parse(file string, content []byte) ([]*document, error) {
	if len(content) > maxFile {
		return nil, &parseError{1, fmt.Errorf("the file is larger than %d MiB", maxFile>>20)}
	}
	var documents []*document
	for _, part := range split(content) {
		if blank(part.text) {
			continue
		}
		if len(documents) >= maxDocuments {
			return nil, &parseError{part.line, fmt.Errorf("the file has more than %d documents", maxDocuments)}
		}
		found, err := parseDocument(file, part.line, part.text)
		if err != nil {
			return nil, err
		}
		documents = append(documents, found...)
	}
	return documents, nil
}

type part struct {
	line int
	text []byte
}

// split splits a file at the lines that begin a document. Inside a block of text, such a line is
// indented.
func split(content []byte) []part {
	parts := []part{{line: 1}}
	line := 1
	for l := range bytes.Lines(content) {
		if bytes.HasPrefix(l, []byte("---")) && (len(l) == 3 || bytes.ContainsAny(l[3:4], " \t\r\n")) {
			parts = append(parts, part{line: line + 1})
			// Text after the dashes belongs to the document; usually it is empty or a comment.
			if rest := bytes.TrimSpace(l[3:]); len(rest) > 0 && rest[0] != '#' {
				parts[len(parts)-1] = part{line: line, text: append([]byte("   "), l[3:]...)}
			}
		} else {
			last := &parts[len(parts)-1]
			last.text = append(last.text, l...)
		}
		line++
	}
	return parts
}

// blank reports whether a document has only comments.
func blank(text []byte) bool {
	for l := range bytes.Lines(text) {
		l = bytes.TrimSpace(l)
		if len(l) > 0 && l[0] != '#' && !bytes.HasPrefix(l, []byte("%")) && !bytes.Equal(l, []byte("...")) {
			return false
		}
	}
	return true
}

// leading is the number of blank and comment lines at the start.
func leading(text []byte) int {
	n := 0
	for l := range bytes.Lines(text) {
		if !blank(l) {
			return n
		}
		n++
	}
	return 0
}

// parseDocument reads one YAML document that begins at a line of a file. A List yields one document
// for each item.
func parseDocument(file string, line int, text []byte) ([]*document, error) {
	var content map[string]any
	if err := sigsyaml.UnmarshalStrict(text, &content); err != nil {
		return nil, yamlError(err, line, text)
	}
	if content == nil {
		return nil, nil
	}
	d := &document{file: file, line: line, text: text, object: &unstructured.Unstructured{Object: content}}
	if err := d.checkType(); err != nil {
		return nil, err
	}
	if d.object.GetKind() == "List" && d.object.GetAPIVersion() == "v1" {
		return d.items()
	}
	if err := d.checkMetadata(); err != nil {
		return nil, err
	}
	return []*document{d}, nil
}

// yamlError is the error of a document that is not YAML, at the line that the parser names.
func yamlError(err error, line int, text []byte) error {
	message := strings.TrimPrefix(err.Error(), "error converting YAML to JSON: ")
	at := line + leading(text)
	if m := yamlLine.FindStringSubmatchIndex(message); m != nil {
		if n, err := strconv.Atoi(message[m[2]:m[3]]); err == nil {
			at = line + n - 1
			message = message[:m[0]] + message[m[1]:]
		}
	}
	return &parseError{at, errors.New(strings.Join(strings.Fields(message), " "))}
}

// wrong is an error about a field, at its line.
func (d *document) wrong(path, format string, args ...any) error {
	return &parseError{lineOf(d.line, d.text, path), fmt.Errorf(format, args...)}
}

func (d *document) checkType() error {
	for _, field := range []string{"apiVersion", "kind"} {
		if s, ok := d.object.Object[field].(string); !ok || s == "" {
			return d.wrong(field, "%s is missing", field)
		}
	}
	if _, err := schema.ParseGroupVersion(d.object.GetAPIVersion()); err != nil {
		return d.wrong("apiVersion", "apiVersion: %v", err)
	}
	return nil
}

func (d *document) checkMetadata() error {
	metadata, ok := d.object.Object["metadata"].(map[string]any)
	if !ok {
		return d.wrong("metadata", "metadata is missing")
	}
	if name, ok := metadata["name"].(string); !ok || name == "" {
		return d.wrong("metadata.name", "metadata.name is missing")
	}
	if ns, ok := metadata["namespace"]; ok {
		if _, ok := ns.(string); !ok {
			return d.wrong("metadata.namespace", "metadata.namespace must be text")
		}
	}
	return nil
}

// items are the documents of a List.
func (d *document) items() ([]*document, error) {
	items, ok := d.object.Object["items"].([]any)
	if !ok {
		return nil, d.wrong("items", "items is missing")
	}
	var documents []*document
	for i, item := range items {
		path := fmt.Sprintf("items[%d]", i)
		at := lineOf(d.line, d.text, path)
		if content, ok := item.(map[string]any); ok && content["kind"] == "List" {
			return nil, &parseError{at, fmt.Errorf("%s is a List within a List", path)}
		}
		found, err := parseItem(d.file, at, item)
		if err != nil {
			return nil, &parseError{at, fmt.Errorf("%s: %w", path, err)}
		}
		documents = append(documents, found...)
	}
	return documents, nil
}

func parseItem(file string, at int, item any) ([]*document, error) {
	written, err := sigsyaml.Marshal(item)
	if err != nil {
		return nil, err
	}
	found, err := parseDocument(file, at, written)
	for _, d := range found {
		d.line, d.text = at, nil // the text is not that of the file
	}
	return found, err
}

// lineOf returns the line of a field in the file, or of its closest parent that is in the file.
func lineOf(start int, text []byte, path string) int {
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil || len(root.Content) == 0 {
		return start
	}
	node := root.Content[0]
	line := start + node.Line - 1
	for _, step := range steps(path) {
		if node.Kind == yaml.AliasNode {
			node = node.Alias
		}
		var next *yaml.Node
		switch node.Kind {
		case yaml.MappingNode:
			for i := 0; i+1 < len(node.Content); i += 2 {
				if node.Content[i].Value == step {
					line, next = start+node.Content[i].Line-1, node.Content[i+1]
				}
			}
		case yaml.SequenceNode:
			if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(node.Content) {
				next = node.Content[i]
				line = start + next.Line - 1
			}
		}
		if next == nil {
			break
		}
		node = next
	}
	return line
}

// steps splits a path in the notation of the API server: spec.dnsNames[0], metadata.labels[a.b/c].
func steps(path string) []string {
	var out []string
	for path != "" {
		switch i := strings.IndexAny(path, ".["); {
		case i == 0 && path[0] == '[':
			end := strings.IndexByte(path, ']')
			if end < 0 {
				return append(out, path[1:])
			}
			out = append(out, strings.Trim(path[1:end], `"`))
			path = strings.TrimPrefix(path[end+1:], ".")
		case i < 0:
			return append(out, path)
		default:
			if i > 0 {
				out = append(out, path[:i])
			}
			if path[i] == '.' {
				i++
			}
			path = path[i:]
		}
	}
	return out
}

// A file is the content of a file, or the error of reading it.
type file struct {
	path      string
	content   []byte
	documents []*document
	err       *parseError
}

// Check returns an error if the manifests of a directory cannot be read, or if another user can
// change the directory or one below it: manifests decide which commands the user of perenniald
// runs.
func Check(dir string) error {
	_, _, err := readDir(dir)
	return err
}

// extensions are the file name extensions of manifests.
var extensions = []string{".yaml", ".yml", ".json"}

// readDir reads the manifests of a directory and those below it, in the order of their paths. It
// ignores names that begin with a dot. The error is about a directory: then the set of manifests is
// unknown. A file that another user can change has an error of its own, like one that cannot be
// parsed.
func readDir(dir string) (files []*file, dirs []string, err error) {
	r := &reader{seen: map[string]bool{}}
	if err := r.read(dir); err != nil {
		return nil, r.dirs, err
	}
	slices.SortFunc(r.files, func(a, b *file) int { return strings.Compare(a.path, b.path) })
	return r.files, r.dirs, nil
}

// reader reads a directory and those below it.
type reader struct {
	seen  map[string]bool // visited directories, to stop at cycles of links
	files []*file
	dirs  []string
}

func (r *reader) read(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	if r.seen[real] {
		return nil
	}
	r.seen[real] = true
	r.dirs = append(r.dirs, dir)
	if err := ownership.Check(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		if err := r.entry(filepath.Join(dir, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) entry(path string) error {
	info, err := os.Stat(path) // through links: mounted configuration consists of them
	switch {
	case errors.Is(err, fs.ErrNotExist): // just deleted, or a dangling link
	case err != nil:
		return err
	case info.IsDir():
		return r.read(path)
	case info.Mode().IsRegular() && slices.Contains(extensions, strings.ToLower(filepath.Ext(path))):
		if f := readFile(path); f != nil {
			r.files = append(r.files, f)
		}
	}
	return nil
}

// readFile returns nil if the file no longer exists.
func readFile(path string) *file {
	f := &file{path: path}
	if err := ownership.Check(path); err != nil {
		f.err = &parseError{0, fmt.Errorf("not applied: %w", err)}
		return f
	}
	in, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		defer in.Close()
		f.content, err = io.ReadAll(io.LimitReader(in, maxFile+1))
	}
	if err != nil {
		var pathError *fs.PathError
		if errors.As(err, &pathError) {
			err = pathError.Err
		}
		f.err = &parseError{0, fmt.Errorf("cannot be read: %w", err)}
		return f
	}
	f.documents, err = parse(path, f.content)
	errors.As(err, &f.err)
	return f
}
