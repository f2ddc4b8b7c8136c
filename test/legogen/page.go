package main

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// page returns the documentation page.
func page(all []*provider, version string) []byte {
	b := &bytes.Buffer{}
	fmt.Fprintf(b, `<!-- Written by test/legogen: do not edit. -->
# DNS providers

This page lists the %d providers of [lego](https://go-acme.github.io/lego/dns/) (%s) that a solver can name in
`+"`dns01.provider`"+`. [Other providers](acme/dns01-other-providers.md) shows how to use one.

For the meaning of the settings, and for credentials, see lego's page of the provider. The third column has lego's name
of the setting. Put settings marked **secret** into the Secret, and others there or into `+"`config`"+`. A setting is
marked as needed if lego's source shows it. Some providers need one of several settings.

- *one at a time*: the service holds only one value at a name, or lego removes all. Challenges for the same name, such
  as those of a wildcard and its apex, take turns. Other values at the name are lost. If a value may be that of another
  ACME client, the controller waits until the Challenge is five minutes old. An event first names what will be lost.
- *finds by memory*: only the process that created the record can remove it. After a restart, the controller creates the
  record again to remove it. A service that then has it twice may keep one, and an event names it.
- *without CNAME*: the record must be at a name that begins with `+"`_acme-challenge`"+`.

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

perenniald has three more providers. In a cluster, they would let every user with the right to write Issuers run
programs or reach into the network.

### exec

Runs a program, as lego does: ` + "`PROGRAM present NAME VALUE`, and `PROGRAM cleanup NAME VALUE`" + `. NAME ends with a
dot. The program has two minutes. *one at a time*

| setting | | in lego |
|---|---|---|
| ` + "`program`" + ` | needed; its path, absolute | EXEC_PATH |
| ` + "`mode`" + ` | ` + "`RAW`: the arguments are `present -- DOMAIN TOKEN KEYAUTH`" + ` | EXEC_MODE |

### manual

You create the record. The Challenge and an event name it. The controller waits for it as for every record, and another
event tells you when you can remove it. No settings.
`)
	sections := func(these []*provider) {
		for _, p := range these {
			p.writeSection(b)
		}
	}
	mine := func(p *provider) bool { return slices.Contains(local, p.name) }
	sections(slices.DeleteFunc(slices.Clone(all), func(p *provider) bool { return !mine(p) }))
	b.WriteString("\n## Everywhere\n")
	sections(slices.DeleteFunc(slices.Clone(all), mine))
	return b.Bytes()
}

// writeSection writes what users read about a provider.
func (p *provider) writeSection(b *bytes.Buffer) {
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
		return
	}
	b.WriteString("\n\n| setting | | in lego |\n|---|---|---|\n")
	for _, s := range p.settings {
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", s.name, strings.Join(s.about(), ", "), s.env)
	}
}

// formats are how users write the settings that are no text, by kind.
var formats = map[string]string{
	"number":  "number",
	"flag":    "true or false",
	"address": "URL",
	"pairs":   "`name:value,name:value`",
	"lists":   "`name:id:id,name:id`",
}

// about says what a setting is, in a table's cell.
func (s setting) about() (about []string) {
	if s.secret {
		about = append(about, "**secret**")
	}
	if s.required {
		about = append(about, "needed")
	}
	if f := formats[s.kind]; f != "" {
		about = append(about, f)
	}
	if s.def != "" {
		about = append(about, "`"+s.def+"` if left out")
	}
	return about
}

func sorted[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, cmp.Compare[string])
	return keys
}
