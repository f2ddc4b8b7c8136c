package manifests

import (
	"errors"
	"strings"
	"testing"
)

func TestTheObjectsOfAFileAreFoundWithTheirLines(t *testing.T) {
	content := `# a comment
apiVersion: v1
kind: Namespace
metadata:
  name: a
--- # the second
apiVersion: v1
kind: ConfigMap
metadata: {name: b, namespace: a}
data:
  text: |
    ---
    --- this is text
---

---
# nothing here
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: c}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: d}}
---
{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "e"}}
`
	for _, ending := range []string{"\n", "\r\n"} {
		documents, err := parse("file", []byte(strings.ReplaceAll(content, "\n", ending)))
		if err != nil {
			t.Fatal(err)
		}
		want := []struct {
			name string
			line int
		}{{"a", 1}, {"b", 7}, {"c", 22}, {"d", 25}, {"e", 27}}
		if len(documents) != len(want) {
			t.Fatalf("found %d objects, want %d", len(documents), len(want))
		}
		for i, w := range want {
			if d := documents[i]; d.object.GetName() != w.name || d.line != w.line {
				t.Errorf("object %d is %s in line %d, want %s in line %d", i, d.object.GetName(), d.line, w.name, w.line)
			}
		}
	}
}

func TestWhatIsWrongWithAFileIsSaidWithItsLine(t *testing.T) {
	good := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n"
	for name, test := range map[string]struct {
		content string
		line    int
		says    string
	}{
		"no YAML":                         {good + "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b\ndata: {}\n", 7, "did not find expected"},
		"a tab":                           {"apiVersion: v1\nkind: ConfigMap\nmetadata:\n\tname: a\n", 4, "cannot start any token"},
		"a field that stands there twice": {good + "apiVersion: v1\nkind: ConfigMap\nkind: Secret\nmetadata: {name: b}\n", 7, `"kind" already set in map`},
		"text instead of an object":       {good + "\n\njust text\n", 7, "cannot unmarshal"},
		"a list instead of an object":     {"- a\n- b\n", 1, "cannot unmarshal"},
		"no apiVersion":                   {good + "kind: ConfigMap\nmetadata: {name: b}\n", 5, "apiVersion is missing"},
		"an apiVersion that is none":      {"apiVersion: a/b/c\nkind: ConfigMap\nmetadata: {name: b}\n", 1, "unexpected GroupVersion string"},
		"no kind":                         {"apiVersion: v1\nmetadata: {name: b}\n", 1, "kind is missing"},
		"no metadata":                     {"apiVersion: v1\nkind: ConfigMap\n", 1, "metadata is missing"},
		"no name":                         {"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  labels: {}\n", 3, "metadata.name is missing"},
		"a name that is a number":         {"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  labels: {}\n  name: 1\n", 5, "metadata.name is missing"},
		"a namespace that is a number":    {"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  namespace: 1\n", 5, "metadata.namespace must be text"},
		"an item of a list without kind": {"apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  " +
			"metadata: {name: a}\n- apiVersion: v1\n  metadata: {name: b}\n", 7, "items[1]: kind is missing"},
		"a list in a list": {"apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: List, items: " +
			"[]}\n", 4, "items[0] is a List within a List"},
		"a list without items": {"apiVersion: v1\nkind: List\n", 1, "items is missing"},
		"too large":            {strings.Repeat("# comment\n", maxFile/10+1), 1, "larger than 4 MiB"},
		"too many documents":   {strings.Repeat("apiVersion: v1\nkind: A\nmetadata: {name: a}\n---\n", maxDocuments+1), 4*maxDocuments + 1, "more than 10000 documents"},
	} {
		t.Run(name, func(t *testing.T) {
			documents, err := parse("file", []byte(test.content))
			var e *parseError
			if !errors.As(err, &e) {
				t.Fatalf("found %d objects, error %v", len(documents), err)
			}
			if e.line != test.line || !strings.Contains(e.Error(), test.says) {
				t.Errorf("line %d: %v\nwant %d: …%s…", e.line, e, test.line, test.says)
			}
		})
	}
}

func TestTheLineOfAFieldIsFound(t *testing.T) {
	const text = `apiVersion: v1
kind: Thing
metadata:
  labels:
    example.com/a: b
spec:
  names:
    - one
    - two
  flow: {a: 1, b: [x, y]}
`
	for path, want := range map[string]int{
		"":                               11,
		"spec":                           16,
		"spec.names":                     17,
		"spec.names[1]":                  19,
		"spec.names[7]":                  17,
		"spec.absent.deeper":             16,
		"spec.flow.b[1]":                 20,
		"metadata.labels[example.com/a]": 15,
		"metadata.labels":                14,
		"absent":                         11,
		"[":                              11,
		"spec..names[":                   17,
	} {
		if got := lineOf(11, []byte(text), path); got != want {
			t.Errorf("%q is in line %d, want %d", path, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"apiVersion: v1\nkind: A\nmetadata: {name: a}\n---\n# x\n---\n",
		"apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: A, metadata: {name: b}}]",
		"--- {a: b}\n...\n%YAML 1.2\n", "a: &a [*a]", "? a\n: b", "\xff\xfe", "a: !!binary x", "\t",
		`{"apiVersion":"v1","kind":"A","metadata":{"name":"a","namespace":1}}`,
	} {
		f.Add([]byte(seed), "spec.names[0]")
	}
	f.Fuzz(func(t *testing.T, content []byte, path string) {
		lines := strings.Count(string(content), "\n") + 1
		documents, err := parse("file", content)
		if err != nil {
			var e *parseError
			if !errors.As(err, &e) {
				t.Fatalf("an error without a line: %v", err)
			}
			if len(documents) > 0 {
				t.Error("objects of a file that is not to be trusted")
			}
			return
		}
		for _, d := range documents {
			if d.line < 1 || d.line > lines {
				t.Errorf("line %d of %d", d.line, lines)
			}
			if d.object.GetKind() == "" || d.object.GetAPIVersion() == "" || d.object.GetName() == "" {
				t.Errorf("an object that says too little: %v", d.object)
			}
			if _, err := d.object.MarshalJSON(); err != nil {
				t.Errorf("cannot be sent: %v", err)
			}
			if d.text != nil {
				lineOf(d.line, d.text, path)
			}
		}
	})
}
