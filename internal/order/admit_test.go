package order

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

// challenges makes so many of an issuer in a namespace, the first so many of which are under way. They are younger than those made before.
func challenges(all []*cmacme.Challenge, namespace, issuer string, n, underWay int) []*cmacme.Challenge {
	for i := range n {
		ch := &cmacme.Challenge{ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: fmt.Sprintf("%s-%d", issuer, i), CreationTimestamp: metav1.NewTime(time.Unix(int64(len(all)), 0)),
		}}
		ch.Spec.IssuerRef = cmmeta.IssuerReference{Name: issuer, Kind: "ClusterIssuer"}
		ch.Status.Presented = i < underWay
		all = append(all, ch)
	}
	return all
}

func TestWhoIsNext(t *testing.T) {
	flood := challenges(nil, "a", "le", 1000, 50)
	for name, test := range map[string]struct {
		all  []*cmacme.Challenge
		most int
		want string
	}{
		"all, if there is room":                     {challenges(nil, "a", "le", 3, 0), 60, "a/le-0 a/le-1 a/le-2"},
		"nobody, if there is none":                  {challenges(nil, "a", "le", 3, 2), 2, ""},
		"the longest waiting of one":                {challenges(nil, "a", "le", 5, 2), 4, "a/le-2 a/le-3"},
		"another namespace before one that floods":  {challenges(flood, "b", "le", 2, 0), 53, "b/le-0 b/le-1 a/le-50"},
		"another issuer before one that hangs":      {challenges(challenges(nil, "a", "hangs", 100, 59), "a", "works", 1, 0), 60, "a/works-0"},
		"in turn, if none has any":                  {challenges(challenges(nil, "a", "le", 3, 0), "b", "le", 3, 0), 4, "a/le-0 b/le-0 a/le-1 b/le-1"},
		"nobody, if more are under way than may be": {challenges(nil, "a", "le", 9, 8), 4, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, ch := range admitted(test.all, test.most) {
				got = append(got, ch.Namespace+"/"+ch.Name)
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestACAThatHangsHasFewWorkers(t *testing.T) {
	var l lanes
	now := time.Unix(0, 0)
	var leave []func()
	for range 4 {
		f, ok := l.enter("hangs", 4, now)
		if !ok {
			t.Fatal("there is room")
		}
		leave = append(leave, f)
	}
	if _, ok := l.enter("hangs", 4, now); ok {
		t.Error("there is no more room than for four")
	}
	if _, ok := l.enter("works", 4, now); !ok {
		t.Error("another CA has its own lane")
	}
	leave[0]()
	leave[1]()
	leave[1]() // twice is once
	if _, ok := l.enter("hangs", 4, now.Add(3*time.Second)); ok {
		t.Error("two that take long are enough")
	}
	leave[2]()
	if _, ok := l.enter("hangs", 4, now.Add(3*time.Second)); !ok {
		t.Error("one more may try")
	}
	leave[3]()
	if len(l.of["hangs"]) != 1 {
		t.Errorf("there are %d under way", len(l.of["hangs"]))
	}
}
