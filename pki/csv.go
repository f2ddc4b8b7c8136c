package pki

import (
	"encoding/csv"
	"fmt"
	"strings"
)

// maxCSVSize is the maximum total size of the annotations of a Kubernetes object, in bytes.
const maxCSVSize = 256 << 10

// JoinCSV writes values as one line of comma-separated values (RFC 4180), the form of the names of
// a certificate in cert-manager's annotations. It returns an empty string for no values, and for a
// single empty value.
func JoinCSV(values []string) (string, error) {
	if len(values) == 0 {
		return "", nil
	}
	var line strings.Builder
	w := csv.NewWriter(&line)
	if err := w.Write(values); err != nil {
		return "", fmt.Errorf("write comma-separated values: %w", err)
	}
	w.Flush()
	return strings.TrimSuffix(line.String(), "\n"), nil
}

// SplitCSV is the inverse of [JoinCSV]. The line must hold at least one value and be
// exactly one record; more than 256 KiB are refused.
func SplitCSV(line string) ([]string, error) {
	if len(line) > maxCSVSize {
		return nil, fmt.Errorf("read comma-separated values: %d bytes are more than the limit of %d", len(line), maxCSVSize)
	}
	records, err := csv.NewReader(strings.NewReader(line)).ReadAll()
	switch {
	case err != nil:
		return nil, fmt.Errorf("read comma-separated values: %w", err)
	case len(records) == 0:
		return nil, fmt.Errorf("read comma-separated values: there are none")
	case len(records) > 1:
		return nil, fmt.Errorf("read comma-separated values: there are %d lines, write one", len(records))
	}
	return records[0], nil
}
