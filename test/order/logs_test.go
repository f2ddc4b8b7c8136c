package order_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// controllerLog is the log of a controller at its default level.
type controllerLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *controllerLog) logger() logr.Logger {
	return funcr.New(func(prefix, args string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lines = append(l.lines, prefix+" "+args)
	}, funcr.Options{})
}

// with returns the lines that contain each of the words.
func (l *controllerLog) with(words ...string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
line:
	for _, line := range l.lines {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue line
			}
		}
		found = append(found, line)
	}
	return found
}

// about returns the lines about the object of a kind, and of those that it made, by their name.
func (l *controllerLog) about(name string) string { return strings.Join(l.with(`"`+name), "\n") }

func TestTheLogTellsTheStoryOfAnIssuance(t *testing.T) {
	story := &controllerLog{}
	r := start(t, pebble.Options{}, func(o *controller.Options) { o.Log = story.logger() })
	r.issuer()
	r.ready(r.certificate("site", "site.example.com"))
	r.eventually("the Challenge is gone", r.noChallenges)
	for _, step := range []string{
		"issuer ready", "issuance begun", "request approved", "order accepted by the CA", "challenge presented",
		"challenge visible", "challenge accepted by the CA", "challenge valid", "order valid", "request issued",
		"certificate issued and stored", "certificate ready",
	} {
		if lines := story.with(`"msg"="`+step+`"`, r.namespace); len(lines) != 1 {
			t.Errorf("%d lines about the step %q, not one: %q", len(lines), step, lines)
		}
	}
	if lines := story.with(`"msg"="certificate issued and stored"`, `"duration"=`, `"renewalTime"=`); len(lines) != 1 {
		t.Errorf("no line says how long the issuance took and when the renewal is: %q", story.with("issued and stored"))
	}
	if t.Failed() {
		t.Log(story.about("site"))
	}
}

// A reader of the log alone finds the cause of each of three issuances that are stuck.
func TestTheLogTellsWhyAnIssuanceIsStuck(t *testing.T) {
	clock, story := &cluster.Clock{}, &controllerLog{}
	r := start(t, pebble.Options{}, ownMachine, func(o *controller.Options) { o.Clock, o.Log = clock, story.logger() })

	_, address := r.powerDNS("good-key")
	r.create(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "powerdns"},
		StringData: map[string]string{"apiKey": "good-key", "host": address},
	})
	provider := func(secret string) func(*cmacme.ACMEIssuer) {
		return func(spec *cmacme.ACMEIssuer) {
			r.byProvider("pdns", "")(spec)
			spec.Solvers[0].DNS01.Provider.SecretRef = &cmmeta.LocalObjectReference{Name: secret}
		}
	}
	r.names.Hide("_acme-challenge.unseen-0.example.com", true)
	r.ask(r.issuerOf(r.namespace, "hidden", provider("powerdns")), "unseen", 1)
	r.ask(r.issuerOf(r.namespace, "no-secret", provider("not-there")), "keyless", 1)
	limited := r.issuerOf(r.namespace, "limited", func(spec *cmacme.ACMEIssuer) {
		spec.RateLimits = &cmacme.ACMERateLimits{
			NewOrdersPerAccount: &cmacme.ACMERateLimit{Count: 1, Period: &metav1.Duration{Duration: 3 * time.Hour}},
		}
	})
	r.ready(r.ask(limited, "first", 1)[0])
	r.ask(limited, "second", 1)

	for name, words := range map[string][]string{
		"unseen-0":  {"challenge waits", "_acme-challenge.unseen-0.example.com", r.names.Addr, "until"},
		"keyless-0": {"request waits", `"issuer"="no-secret"`},
		"no-secret": {"issuer not ready", "not-there"},
		"second-0":  {"order waits", "the limit of 1 new orders", "until"},
	} {
		r.eventually("the log says why "+name+" waits", func() bool {
			clock.Step(time.Second)
			return len(story.with(append(words, `"`+name)...)) > 0
		})
	}
}
