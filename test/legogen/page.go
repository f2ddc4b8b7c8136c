package main

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// page is the documentation.
func page(all []*provider, version string) []byte {
	b := &bytes.Buffer{}
	fmt.Fprintf(b, `<!-- Written by test/legogen: do not edit. -->
# DNS providers

%d providers of [lego](https://go-acme.github.io/lego/dns/) (%s), for a solver's `+"`dns01.provider`"+`; [Other providers](acme/dns01-other-providers.md) says how. What each setting means, and how to
get credentials, is told on lego's page of the provider; the third column is what the setting is called there.

Settings that are marked **secret** stand in the Secret, the others there or in `+"`config`"+`. Those that are needed are marked so as far as lego's source tells;
some need one of several.

- *one at a time*: the service has only one value at a name, or lego takes all away, so challenges for the same name (as a wildcard and its apex are) wait for each other, and
  whatever else stands at the name is lost. A value that may be another ACME client's is waited for, until the Challenge is five minutes old; what is lost is named in an event before.
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
	b.WriteString(".")
	for _, n := range sorted(closed) {
		fmt.Fprintf(b, " %s cannot be used, because %s: use a webhook for it, or `exec` on one machine.", n, closed[n])
	}
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
