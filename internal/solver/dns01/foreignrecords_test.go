package dns01

import (
	"errors"
	"slices"
	"testing"

	"github.com/perennial-pki/perennial/acme"
	"github.com/perennial-pki/perennial/internal/solver/dns01/resolver"
)

func TestWhatStandsBesideARecordIsForeign(t *testing.T) {
	for what, test := range map[string]struct {
		answers []resolver.Answer
		values  []string
		ours    bool
	}{
		"nothing":                            {answers: []resolver.Answer{{}}},
		"ours alone":                         {answers: []resolver.Answer{{Values: []string{"ours"}}}, ours: true},
		"an empty value":                     {answers: []resolver.Answer{{Values: []string{""}}}},
		"another at one of the servers":      {answers: []resolver.Answer{{Values: []string{"ours"}}, {Values: []string{"ours", "theirs"}}}, values: []string{"theirs"}, ours: true},
		"the same at both":                   {answers: []resolver.Answer{{Values: []string{"b", "a"}}, {Values: []string{"a", "b"}}}, values: []string{"a", "b"}},
		"what a server that fails has known": {answers: []resolver.Answer{{Values: []string{"theirs"}, Err: errors.New("lame")}}},
	} {
		if values, ours := foreignValues("ours", test.answers); !slices.Equal(values, test.values) || ours != test.ours {
			t.Errorf("%s: %q, ours: %v", what, values, ours)
		}
	}
	for value, want := range map[string]bool{acme.DNS01Value("token.thumbprint"): true, "v=spf1 -all": false, "": false, "AAAA": false} {
		if isChallengeValue(value) != want {
			t.Errorf("%q: %v", value, !want)
		}
	}
}
