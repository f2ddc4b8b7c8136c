package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

// challenges makes so many of an issuer in a namespace, the first so many of which are under way.
// They are younger than those made before.
func challenges(all []*cmacme.Challenge, namespace, issuer string, n, underWay int) []*cmacme.Challenge {
	for i := range n {
		ch := &cmacme.Challenge{ObjectMeta: metav1.ObjectMeta{
			Namespace:         namespace,
			Name:              fmt.Sprintf("%s-%d", issuer, i),
			CreationTimestamp: metav1.NewTime(time.Unix(int64(len(all)), 0)),
		}}
		ch.Spec.IssuerRef = cmmeta.IssuerReference{Name: issuer, Kind: "ClusterIssuer"}
		ch.Status.Presented = i < underWay
		all = append(all, ch)
	}
	return all
}

func TestNext(t *testing.T) {
	flood := challenges(nil, "a", "le", 1000, 50)
	for name, test := range map[string]struct {
		all  []*cmacme.Challenge
		most int
		want string
	}{
		"all, if there is room":                     {challenges(nil, "a", "le", 3, 0), 60, "a/le-0 a/le-1 a/le-2"},
		"none, if there is none":                    {challenges(nil, "a", "le", 3, 2), 2, ""},
		"the longest waiting of one":                {challenges(nil, "a", "le", 5, 2), 4, "a/le-2 a/le-3"},
		"another namespace before one that floods":  {challenges(flood, "b", "le", 2, 0), 53, "b/le-0 b/le-1 a/le-50"},
		"another issuer before one that hangs":      {challenges(challenges(nil, "a", "hangs", 100, 59), "a", "works", 1, 0), 60, "a/works-0"},
		"in turn, if none has any":                  {challenges(challenges(nil, "a", "le", 3, 0), "b", "le", 3, 0), 4, "a/le-0 b/le-0 a/le-1 b/le-1"},
		"none, if more are in progress than may be": {challenges(nil, "a", "le", 9, 8), 4, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := Snapshot{Entries: entries(test.all), Max: test.most, Capacity: unlimited, Queued: never, Idle: never}
			if got := names(c.Next()); got != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func entries(all []*cmacme.Challenge) (list []Entry) {
	for _, ch := range all {
		list = append(list, Entry{Challenge: ch})
	}
	return list
}

func never(*cmacme.Challenge) bool { return false }

func unlimited(*cmacme.Challenge) int { return 0 }

func TestIdleChallengesKeepNoOthersFromBeginning(t *testing.T) {
	// The first ten of twenty are set up, and all places are taken.
	all := challenges(challenges(nil, "a", "le", 20, 10), "b", "le", 2, 0)
	few := func(from, to int) func(*cmacme.Challenge) bool {
		return func(ch *cmacme.Challenge) bool { return slices.Contains(all[from:to], ch) }
	}
	for name, test := range map[string]struct {
		inLine, idle func(*cmacme.Challenge) bool
		want         string
	}{
		"none, as long as all make progress":        {never, never, ""},
		"as many as make no progress, others first": {never, few(0, 3), "b/le-0 b/le-1 a/le-10"},
		"none that waits for a slot":                {few(10, 19), few(0, 3), "b/le-0 b/le-1 a/le-19"},
		"as many as may be at once, if the rest makes no progress": {never, few(0, 10), "b/le-0 b/le-1 a/le-10 a/le-11 " +
			"a/le-12 a/le-13 a/le-14 a/le-15 a/le-16 a/le-17"},
	} {
		t.Run(name, func(t *testing.T) {
			c := Snapshot{Entries: entries(all), Max: 10, Capacity: unlimited, Queued: test.inLine, Idle: test.idle}
			if got := names(c.Next()); got != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func names(all []*cmacme.Challenge) string {
	var list []string
	for _, ch := range all {
		list = append(list, ch.Namespace+"/"+ch.Name)
	}
	return strings.Join(list, " ")
}

func TestNextWhereSlotsAreFew(t *testing.T) {
	// Each is younger than those before it, and is written as namespace/name place state.
	type line []string
	for name, test := range map[string]struct {
		line  line
		room  int
		most  int
		begun map[string]string
		tried map[string]int64 // seconds; the n-th challenge was made at n
		rests string
		// unproven is the challenge that nothing proves the controller to have made.
		unproven string
		had      map[string]int64 // namespace and place, and seconds
		want     string
		// behind lists the challenges that the last one waits for.
		behind string
	}{
		"one after the other":                                           {line: line{"a/1 x", "b/2 x", "c/3 x"}, room: 1, want: "a/1", behind: "a/1 b/2"},
		"two at once, if there is room for two":                         {line: line{"a/1 x", "b/2 x", "c/3 x"}, room: 2, want: "a/1 b/2", behind: "a/1 b/2"},
		"any number, if there is room for any":                          {line: line{"a/1 x", "b/2 x", "c/3 x"}, want: "a/1 b/2 c/3"},
		"other places do not matter":                                    {line: line{"a/1 x presented", "b/2 y", "c/3 z"}, room: 1, want: "b/2 c/3"},
		"one that is presented has its place":                           {line: line{"b/2 x", "a/1 x presented", "c/3 x"}, room: 1, want: "", behind: "a/1 b/2"},
		"one that is valid has it until it is cleaned up":               {line: line{"a/1 x presented,valid", "c/3 x"}, room: 1, want: "", behind: "a/1"},
		"one that was cleaned up has none":                              {line: line{"a/1 x valid", "c/3 x"}, room: 1, want: "c/3"},
		"one that is being deleted has it until it is gone":             {line: line{"a/1 x presented,deleted", "c/3 x"}, room: 1, want: "", behind: "a/1"},
		"one that is deleted and was never presented has none":          {line: line{"a/1 x deleted", "c/3 x"}, room: 1, want: "c/3"},
		"one that may stand has it while it is taken away":              {line: line{"a/1 x begun,valid", "c/3 x"}, room: 1, begun: map[string]string{"a/1": "x"}, want: "", behind: "a/1"},
		"one that cannot be removed does not keep others from it":       {line: line{"a/1 x begun,deleted", "c/3 x"}, room: 1, want: "c/3"},
		"one that may stand and goes on has to take its turn":           {line: line{"c/3 x", "a/1 x begun"}, room: 1, want: "c/3", behind: "c/3"},
		"one that is being presented has it before it is known":         {line: line{"a/1 x", "b/2", "c/3 x"}, room: 1, begun: map[string]string{"b/2": "x"}, want: "", behind: "b/2 a/1"},
		"it has one place, not two, once it is known":                   {line: line{"a/1 x presented", "c/3 x"}, room: 2, begun: map[string]string{"a/1": "x"}, want: "c/3"},
		"one whose place is not known may find it out":                  {line: line{"a/1 x presented", "b/2"}, room: 1, want: "b/2"},
		"one that was begun in vain lets others pass":                   {line: line{"a/1 x", "b/2 x", "c/3 x"}, room: 1, tried: map[string]int64{"a/1": 9}, want: "b/2", behind: "b/2"},
		"of those begun in vain the one that waits longest":             {line: line{"a/1 x", "b/2 x"}, room: 1, tried: map[string]int64{"a/1": 9, "b/2": 8}, want: "b/2"},
		"none waits for one that was begun in vain and rests":           {line: line{"a/1 x", "b/2 x", "c/3 x"}, room: 1, tried: map[string]int64{"a/1": 1}, rests: "a/1", want: "b/2", behind: "b/2"},
		"one that rests is not to begin":                                {line: line{"a/1 x"}, room: 1, rests: "a/1", want: ""},
		"those at a full place do not keep others from beginning":       {line: line{"a/1 x presented", "a/2 x", "a/3 x", "a/4"}, room: 1, most: 2, want: "a/4"},
		"one at its place, if not all may begin that could":             {line: line{"a/1 x", "b/2 x", "b/3 y", "b/4 y"}, room: 1, most: 1, want: "a/1", behind: "b/3"},
		"none, if no more than are in progress may be at once":          {line: line{"a/1 x presented", "b/2 y"}, room: 1, most: 1, want: ""},
		"one of another namespace after one that has been there":        {line: line{"b/1 x", "a/2 x"}, room: 1, want: "b/1", behind: "b/1"},
		"a namespace that had its turn after one that had none":         {line: line{"a/1 x", "a/2 x", "b/3 x"}, room: 1, had: map[string]int64{"a x": 9}, want: "b/3", behind: ""},
		"of those that had their turn, the one that had it longest ago": {line: line{"a/1 x", "b/2 x"}, room: 1, had: map[string]int64{"a x": 9, "b x": 8}, want: "b/2"},
		"a namespace that had its turn at another place":                {line: line{"a/1 x", "b/2 x"}, room: 1, had: map[string]int64{"a y": 9}, want: "a/1", behind: "a/1"},
		"one whose status may be forged has no place":                   {line: line{"evil/1 x presented", "c/3 x"}, unproven: "evil/1", room: 1, want: "c/3"},
		"nor while it is being deleted":                                 {line: line{"evil/1 x presented,deleted", "c/3 x"}, unproven: "evil/1", room: 1, want: "c/3"},
		"nor does it count of those at once":                            {line: line{"evil/1 y presented", "c/3 x"}, unproven: "evil/1", room: 1, most: 1, want: "c/3"},
		"one that waits behind another namespace says so":               {line: line{"b/1 x presented", "c/2 x", "a/3 x"}, room: 1, had: map[string]int64{"a x": 9}, want: "", behind: "b/1 c/2"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.most == 0 {
				test.most = 60
			}
			c := Snapshot{
				Max: test.most, Capacity: func(*cmacme.Challenge) int { return test.room },
				Turns: map[Slot]time.Time{}, Queued: never, Idle: never,
			}
			for n, text := range test.line {
				words := append(strings.Split(text, " "), "", "")
				ch := challengeOf(words[0], words[1], words[2], time.Unix(int64(n), 0))
				e := Entry{Challenge: ch, Resting: test.rests == words[0], Unproven: test.unproven == words[0]}
				e.Place, e.Presenting = test.begun[words[0]]
				if at, failed := test.tried[words[0]]; failed {
					e.Failed = time.Unix(at, 0)
				}
				c.Entries = append(c.Entries, e)
			}
			for k, at := range test.had {
				namespace, place, _ := strings.Cut(k, " ")
				c.Turns[Slot{place, namespace}] = time.Unix(at, 0)
			}
			if got := names(c.Next()); got != test.want {
				t.Errorf("next are %q, not %q", got, test.want)
			}
			if got := names(c.Ahead(c.Entries[len(c.Entries)-1].Challenge)); got != test.behind {
				t.Errorf("the last one is behind %q, not %q", got, test.behind)
			}
		})
	}
}

// challengeOf makes a Challenge of its namespace/name, its place and its states, which commas
// separate.
func challengeOf(key, place, states string, created time.Time) *cmacme.Challenge {
	ch := &cmacme.Challenge{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(created)}}
	ch.Namespace, ch.Name, _ = strings.Cut(key, "/")
	ch.Status.EffectiveName = place
	for state := range strings.SplitSeq(states, ",") {
		switch state {
		case "presented":
			ch.Status.Presented = true
		case "begun":
			ch.Status.Processing = true
		case "valid":
			ch.Status.State = cmacme.Valid
		case "deleted":
			ch.DeletionTimestamp = &metav1.Time{Time: time.Unix(10, 0)}
		}
	}
	return ch
}
