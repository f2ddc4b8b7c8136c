package chart

import (
	"encoding/json"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A value is an entry of values.yaml with a comment that begins with "# --".
type value struct{ path, fallback, text string }

// valuesTable returns the table of all values, in their order.
func valuesTable(text []byte) (string, error) {
	values, err := parseValues(text)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("| Value | Default | Meaning |\n|---|---|---|\n")
	for _, v := range values {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", v.path, v.fallback, strings.ReplaceAll(v.text, "|", `\|`))
	}
	return b.String(), nil
}

// parseValues returns the values of a file. Each must have a comment, or be a map of such.
func parseValues(text []byte) ([]value, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	if len(document.Content) != 1 || document.Content[0].Kind != yaml.MappingNode {
		return nil, fmt.Errorf("not a map")
	}
	return valuesOf("", document.Content[0])
}

func valuesOf(prefix string, m *yaml.Node) ([]value, error) {
	var all []value
	for i := 0; i+1 < len(m.Content); i += 2 {
		key, node := m.Content[i], m.Content[i+1]
		path := prefix + key.Value
		text := description(key.HeadComment)
		if text != "" {
			fallback, err := defaultOf(node)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			all = append(all, value{path: path, fallback: fallback, text: text})
			if node.Kind != yaml.MappingNode || !described(node) {
				continue
			}
		} else if node.Kind != yaml.MappingNode || len(node.Content) == 0 {
			return nil, fmt.Errorf("%s has no comment: begin one with # --", path)
		}
		below, err := valuesOf(path+".", node)
		if err != nil {
			return nil, err
		}
		all = append(all, below...)
	}
	return all, nil
}

// described reports whether an entry of a map has a comment.
func described(m *yaml.Node) bool {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if description(m.Content[i].HeadComment) != "" {
			return true
		}
	}
	return false
}

// description returns the text of a comment, from "# --" on, as one line.
func description(comment string) string {
	_, text, found := strings.Cut("\n"+comment, "\n# -- ")
	if !found {
		return ""
	}
	var words []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "#"))
		words = append(words, line)
	}
	return strings.Join(words, " ")
}

// defaultOf returns a default as it stands in a table.
func defaultOf(node *yaml.Node) (string, error) {
	var v any
	if err := node.Decode(&v); err != nil {
		return "", err
	}
	if v == nil {
		return "", nil
	}
	text, err := json.Marshal(v)
	return "`" + string(text) + "`", err
}
