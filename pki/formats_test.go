package pki

import (
	"slices"
	"strings"
	"testing"
)

func TestCombinedPEMHasAnEmptyLineBetweenKeyAndChain(t *testing.T) {
	if got, want := string(CombinedPEM([]byte("key\n"), []byte("chain\n"))), "key\n\nchain\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCSV(t *testing.T) {
	for name, test := range map[string]struct {
		values []string
		line   string
	}{
		"one value":                {[]string{"example.com"}, "example.com"},
		"several values":           {[]string{"a", "b", "c"}, "a,b,c"},
		"a comma is quoted":        {[]string{"10 Downing Street, Westminster", "Manchester"}, `"10 Downing Street, Westminster",Manchester`},
		"a quote is doubled":       {[]string{`the "best"`}, `"the ""best"""`},
		"an empty value in a list": {[]string{"a", "", "b"}, "a,,b"},
		"a space at the start":     {[]string{" a"}, `" a"`},
		"a line break":             {[]string{"a\nb"}, "\"a\nb\""},
	} {
		t.Run(name, func(t *testing.T) {
			line, err := JoinCSV(test.values)
			if err != nil || line != test.line {
				t.Errorf("JoinCSV gives %q, %v, want %q", line, err, test.line)
			}
			values, err := SplitCSV(test.line)
			if err != nil || !slices.Equal(values, test.values) {
				t.Errorf("SplitCSV gives %q, %v, want %q", values, err, test.values)
			}
		})
	}

	for name, values := range map[string][]string{"no values": nil, "one empty value": {""}} {
		t.Run(name+" is an empty line, as cert-manager writes it", func(t *testing.T) {
			if line, err := JoinCSV(values); line != "" || err != nil {
				t.Errorf("got %q, %v", line, err)
			}
		})
	}
	for name, test := range map[string]struct{ line, want string }{
		"an empty string has no values": {"", "there are none"},
		"two lines":                     {"a\nb", "there are 2 lines"},
		"a quote that is not closed":    {`"a`, "read comma-separated values"},
		"more than annotations can be":  {strings.Repeat("a", maxCSVSize+1), "more than the limit"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := SplitCSV(test.line)
			wantError(t, err, test.want)
		})
	}
}

func FuzzSplitCSV(f *testing.F) {
	for _, seed := range []string{"", "a,b", `"a,b",c`, "a\nb", `"`, "\r\n", `a"b`, `""`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		values, err := SplitCSV(line)
		if err != nil {
			return
		}
		if slices.Equal(values, []string{""}) || strings.Contains(line, "\r") {
			return // one empty value is written like none, and \r\n is read like \n
		}
		joined, err := JoinCSV(values)
		if err != nil {
			t.Fatalf("cannot write %q: %v", values, err)
		}
		again, err := SplitCSV(joined)
		if err != nil || !slices.Equal(again, values) {
			t.Fatalf("%q became %q: %v", values, again, err)
		}
	})
}
