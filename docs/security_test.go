package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// named is how docs/security.md names a test: its package's directory and its function.
var named = regexp.MustCompile("`([a-z0-9/]+)\\.((?:Test|Fuzz)[A-Za-z0-9]+)`")

func TestEachThreatNamesATestThatExists(t *testing.T) {
	text, err := os.ReadFile("security.md")
	if err != nil {
		t.Fatal(err)
	}
	packages := map[string]string{} // the text of all tests of a directory
	rows := 0
	for item := range strings.SplitSeq(string(text), "\n- **") {
		threat, _, _ := strings.Cut(item, "**")
		if !strings.HasSuffix(threat, ".") {
			continue // not a threat
		}
		rows++
		tests := named.FindAllStringSubmatch(item, -1)
		if len(tests) == 0 {
			t.Errorf("no test is named for: %s", threat)
		}
		for _, test := range tests {
			dir, name := test[1], test[2]
			if _, read := packages[dir]; !read {
				packages[dir] = testsOf(t, dir)
			}
			if !strings.Contains(packages[dir], "\nfunc "+name+"(") {
				t.Errorf("%s has no test %s", dir, name)
			}
		}
	}
	if rows < 25 {
		t.Errorf("only %d threats were read: has the list another form?", rows)
	}
}

// testsOf returns the text of all tests of a directory.
func testsOf(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, file := range files {
		code, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(code)
	}
	return all.String()
}
