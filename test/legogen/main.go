// legogen generates the table of lego's DNS providers in internal/solver/dns01/lego and its
// documentation page, from the source of the lego version in go.mod. It does not run lego, because
// the data is constant in the source.
package main

import (
	"errors"
	"flag"
	"fmt"
	"go/format"
	"log"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/tools/go/packages"
)

const (
	module = "github.com/go-acme/lego/v5"
	dns    = module + "/providers/dns/"
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
	byDomain, wholeZone       bool
	hosts                     []string // in the source
	replaces                  bool     // whether it seems to replace whole sets or zones
	pkg                       *packages.Package
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("legogen: ")
	code := flag.String("code", "../internal/solver/dns01/lego/providers_gen.go", "where the table goes")
	check := flag.String(
		"test",
		"../internal/solver/dns01/lego/providers_gen_test.go",
		"where the table of defaults for the test goes",
	)
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
	return errors.Join(
		os.WriteFile(code, source, 0o644),
		os.WriteFile(check, tests, 0o644),
		os.WriteFile(docs, page(all, version), 0o644),
	)
}
