package dns01

import (
	"errors"
	"slices"
	"testing"

	"github.com/perennial-pki/perennial/acme"
)

func TestWhatStandsBesideARecordIsForeign(t *testing.T) {
	record := Record{Value: "ours"}
	for what, test := range map[string]struct {
		answers []Answer
		values  []string
		ours    bool
	}{
		"nothing":                            {answers: []Answer{{}}},
		"ours alone":                         {answers: []Answer{{Values: []string{"ours"}}}, ours: true},
		"an empty value":                     {answers: []Answer{{Values: []string{""}}}},
		"another at one of the servers":      {answers: []Answer{{Values: []string{"ours"}}, {Values: []string{"ours", "theirs"}}}, values: []string{"theirs"}, ours: true},
		"the same at both":                   {answers: []Answer{{Values: []string{"b", "a"}}, {Values: []string{"a", "b"}}}, values: []string{"a", "b"}},
		"what a server that fails has known": {answers: []Answer{{Values: []string{"theirs"}, Err: errors.New("lame")}}},
	} {
		if values, ours := foreign(record, test.answers); !slices.Equal(values, test.values) || ours != test.ours {
			t.Errorf("%s: %q, ours: %v", what, values, ours)
		}
	}
	for value, want := range map[string]bool{acme.DNS01Value("token.thumbprint"): true, "v=spf1 -all": false, "": false, "AAAA": false} {
		if challengeValue(value) != want {
			t.Errorf("%q: %v", value, !want)
		}
	}
}
