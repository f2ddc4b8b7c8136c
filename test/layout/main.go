// Command layout checks the layout of Go files: at most 600 lines a file, 120 columns a line of
// code and 100 columns a line of comment. It ignores generated files, and lines that cannot be
// broken or that read better unbroken: rows of tables, raw strings, struct tags and markers.
package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"unicode/utf8"
)

const (
	maxLines   = 600
	maxColumns = 120
	maxComment = 100
)

func main() {
	wrong := 0
	for _, path := range os.Args[1:] {
		source, err := os.ReadFile(path)
		if err == nil {
			var found []string
			found, err = check(path, source)
			for _, f := range found {
				fmt.Println(f)
			}
			wrong += len(found)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
	}
	if wrong > 0 {
		os.Exit(1)
	}
}

// check returns the violations in a file, each as file:line: text.
func check(path string, source []byte) ([]string, error) {
	files := token.NewFileSet()
	f, err := parser.ParseFile(files, path, source, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	if ast.IsGenerated(f) {
		return nil, nil
	}
	lines := strings.Split(strings.TrimSuffix(string(source), "\n"), "\n")
	var wrong []string
	if len(lines) > maxLines {
		wrong = append(
			wrong,
			fmt.Sprintf("%s:%d: the file has %d lines, more than %d: split it", path, maxLines+1, len(lines), maxLines),
		)
	}
	whole := unbroken(files, f)
	for i, line := range lines {
		columns, most := utf8.RuneCountInString(line), maxColumns
		if text := strings.TrimSpace(line); strings.HasPrefix(text, "// ") {
			most = maxComment
			if strings.HasPrefix(text, "// +") || !strings.Contains(text[3:], " ") || strings.HasPrefix(text, "// https://") {
				continue
			}
		}
		if columns > most && !whole[i+1] {
			wrong = append(wrong, fmt.Sprintf("%s:%d: the line has %d columns, more than %d", path, i+1, columns, most))
		}
	}
	return wrong, nil
}

// unbroken are the lines that may be long.
func unbroken(files *token.FileSet, f *ast.File) map[int]bool {
	lines := map[int]bool{}
	mark := func(n ast.Node) {
		for i := files.Position(n.Pos()).Line; i <= files.Position(n.End()).Line; i++ {
			lines[i] = true
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BasicLit:
			if n.Kind == token.STRING && n.Value[0] == '`' {
				mark(n)
			}
		case *ast.ImportSpec:
			mark(n)
		case *ast.CompositeLit:
			for _, row := range rows(files, n) {
				mark(row)
			}
		}
		return true
	})
	return lines
}

// rows are the elements of a list or map that each have their own line.
func rows(files *token.FileSet, list *ast.CompositeLit) []ast.Expr {
	switch list.Type.(type) {
	case *ast.ArrayType, *ast.MapType:
	default:
		return nil
	}
	var all []ast.Expr
	last := files.Position(list.Lbrace).Line
	for _, e := range list.Elts {
		begins, ends := files.Position(e.Pos()).Line, files.Position(e.End()).Line
		if begins == ends && begins > last {
			all = append(all, e)
		}
		last = ends
	}
	return all
}
