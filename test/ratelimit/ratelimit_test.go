// Package ratelimit_test keeps ledgers of ACME servers' limits in a real Kubernetes API.
package ratelimit_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/perennial-pki/perennial/acme"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/ratelimit"
	"github.com/perennial-pki/perennial/test/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

const directory = "https://acme.example/directory"

// process returns the ledgers of one process, with the permissions of the controller. Each write
// calls wrote, which may refuse it.
func process(t *testing.T, namespace string, wrote func() error) *ratelimit.Ledgers {
	t.Helper()
	c, err := client.NewWithWatch(cluster.Config(t), client.Options{Scheme: controller.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	c = interceptor.NewClient(c, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.CreateOption) error {
			if err := wrote(); err != nil {
				return err
			}
			return c.Create(ctx, o, options...)
		},
		Patch: func(
			ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, options ...client.PatchOption,
		) error {
			if err := wrote(); err != nil {
				return err
			}
			return c.Patch(ctx, o, p, options...)
		},
	})
	return &ratelimit.Ledgers{
		Client: c, Namespace: namespace, Clock: clock.RealClock{}, Events: &record.FakeRecorder{},
		Orders: func(context.Context, string) ([]ratelimit.OrderRecord, error) { return nil, nil },
	}
}

func order(id string, limit int64) ratelimit.Request {
	return ratelimit.Request{
		ID:          id,
		Namespace:   "shop",
		Name:        id,
		Account:     directory + "/acct/1",
		Identifiers: []acme.Identifier{acme.DNS(id + ".example.com")},
		Limits:      ratelimit.Limits{NewOrders: ratelimit.Limit{Count: limit, Period: time.Hour}},
		Created:     time.Now(),
	}
}

// stored returns the content of the ConfigMap.
func stored(t *testing.T, namespace string) string {
	t.Helper()
	var list corev1.ConfigMapList
	if err := cluster.Admin(t).List(t.Context(), &list, client.InNamespace(namespace)); err != nil {
		t.Fatal(err)
	}
	for _, c := range list.Items {
		if c.Annotations["perennial.dev/acme-directory"] == directory {
			return c.Data["ledger"]
		}
	}
	return ""
}

func TestWhatAnOrderSpendsIsWrittenBeforeItMayBeSentAndManyShareOneWrite(t *testing.T) {
	namespace := cluster.Namespace(t)
	var writes atomic.Int32
	first, release := make(chan struct{}), make(chan struct{})
	b := process(t, namespace, func() error {
		if writes.Add(1) == 1 {
			close(first)
			<-release
		}
		return nil
	})
	const n = 100
	var group sync.WaitGroup
	ask := func(i int) {
		id := fmt.Sprintf("order-%d-", i)
		v, err := b.For(directory).Admit(t.Context(), order(id, n))
		if err != nil || !v.Allowed {
			t.Errorf("%s: %+v, %v", id, v, err)
		}
		if !strings.Contains(stored(t, namespace), id) {
			t.Errorf("%s may be sent, and is not written", id)
		}
	}
	group.Go(func() { ask(0) })
	<-first
	for i := 1; i < n; i++ {
		group.Go(func() { ask(i) })
	}
	close(release)
	group.Wait()
	if got := writes.Load(); got >= n {
		t.Errorf("there were %d writes", got)
	}
	if v, err := process(
		t,
		namespace,
		func() error { return nil },
	).For(directory).
		Admit(t.Context(), order("one more", n)); err != nil ||
		v.Allowed != true {
		// Unknown orders have ended while the process was down: they have used what they reserved.
		if v.Kind != ratelimit.NewOrders {
			t.Errorf("%+v, %v", v, err)
		}
	} else {
		t.Error("after a restart nothing is spent")
	}
}

func TestTwoProcessesLoseNothingOfEachOther(t *testing.T) {
	namespace := cluster.Namespace(t)
	var group sync.WaitGroup
	for p := range 2 {
		b := process(t, namespace, func() error { return nil })
		for i := range 10 {
			group.Go(func() {
				send(t, b, fmt.Sprintf("order-%d-%d-", p, i))
			})
		}
	}
	group.Wait()
	text := stored(t, namespace)
	// The objects of the orders of one are unknown to the other, so they count as spent there: one way
	// or the other all are in it.
	open := strings.Count(text, `"name":"order-`)
	if open == 20 {
		return
	}
	after := process(t, namespace, func() error { return nil })
	allowed := 0
	for i := range 100 {
		v, err := after.For(directory).Admit(t.Context(), order(fmt.Sprintf("after-%d", i), 100))
		if err != nil {
			t.Fatal(err)
		}
		if v.Allowed {
			allowed++
		}
	}
	if allowed > 80 {
		t.Errorf("20 orders of 100 were sent, and %d more may be:\n%s", allowed, text)
	}
}

// send has an order admitted, when the other process is slower.
func send(t *testing.T, b *ratelimit.Ledgers, id string) {
	for {
		v, err := b.For(directory).Admit(t.Context(), order(id, 100))
		if err != nil && fault.Of(err).Class == fault.Transient {
			continue // the other was faster each time
		}
		if err != nil || !v.Allowed {
			t.Errorf("%s: %+v, %v", id, v, err)
		}
		return
	}
}

func TestAnOrderIsNotSentWhileWhatItSpendsCannotBeWritten(t *testing.T) {
	namespace := cluster.Namespace(t)
	broken := true
	b := process(t, namespace, func() error {
		if broken {
			return fmt.Errorf("the disk is full")
		}
		return nil
	})
	_, err := b.For(directory).Admit(t.Context(), order("order-1-", 1))
	if err == nil || fault.Of(err).Class != fault.Transient ||
		!strings.Contains(err.Error(), "cannot save the rate-limit usage of "+directory) ||
		strings.Contains(err.Error(), namespace) {
		t.Fatalf("%v", err)
	}
	broken = false
	// Asked again it goes, and has spent once.
	if v, err := b.For(directory).Admit(t.Context(), order("order-1-", 1)); err != nil || !v.Allowed {
		t.Fatalf("%+v, %v", v, err)
	}
	// Without limits nothing is written.
	b = process(t, cluster.Namespace(t), func() error { return fmt.Errorf("a write") })
	if v, err := b.For(directory).Admit(t.Context(), order("order-2-", 0)); err != nil || !v.Allowed {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestWhichRepliesKeepAllAwayFromACA(t *testing.T) {
	hour := time.Now().Add(time.Hour)
	for name, test := range map[string]struct {
		reply acme.Exchange
		span  time.Duration // from about now; none if zero
	}{
		"it is busy, and says until when":            {acme.Exchange{Action: "newOrder", Status: 503, RetryAfter: hour}, time.Hour},
		"it is busy, and does not say until when":    {acme.Exchange{Action: "newOrder", Status: 503}, 0},
		"it limits the directory":                    {acme.Exchange{Action: "directory", Status: 429, RetryAfter: hour}, time.Hour},
		"it limits nonces":                           {acme.Exchange{Action: "newNonce", Status: 429, RetryAfter: hour}, time.Hour},
		"it limits nonces, and says the past":        {acme.Exchange{Action: "newNonce", Status: 429, RetryAfter: hour.Add(-2 * time.Hour)}, time.Second},
		"it limits nonces, and says no time":         {acme.Exchange{Action: "newNonce", Status: 429}, time.Minute},
		"it limits orders, which is by account":      {acme.Exchange{Action: "newOrder", Status: 429, RetryAfter: hour}, 0},
		"it limits renewal information, and no more": {acme.Exchange{Action: "renewalInfo", Status: 429, RetryAfter: hour}, 0},
		"it does so with the status of a busy one":   {acme.Exchange{Action: "renewalInfo", Status: 503, RetryAfter: hour}, 0},
		"it answers":         {acme.Exchange{Action: "directory", Status: 200, RetryAfter: hour}, 0},
		"it does not answer": {acme.Exchange{Action: "directory"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			namespace := cluster.Namespace(t)
			now := clocktesting.NewFakePassiveClock(hour.Add(-time.Hour))
			b := process(t, namespace, func() error { return nil })
			b.Clock = now
			ca := b.For(directory)
			if err := ca.Available(t.Context()); err != nil {
				t.Fatal(err)
			}
			ca.Observe(test.reply)
			err := ca.Available(t.Context())
			if test.span == 0 {
				if err != nil {
					t.Errorf("no order may be sent: %v", err)
				}
				return
			}
			if f := fault.Of(err); err == nil || f.Class != fault.Limited || !f.Until.Equal(now.Now().Add(test.span)) {
				t.Fatalf("it says %v", err)
			}
			now.SetTime(now.Now().Add(test.span))
			if err := ca.Available(t.Context()); err != nil {
				t.Errorf("when the time has come: %v", err)
			}
		})
	}
}

// TestACAIsLeftAloneForADayAtMostAfterAClockWasAhead makes a CA refuse requests for an hour while
// the clock is a year ahead.
func TestACAIsLeftAloneForADayAtMostAfterAClockWasAhead(t *testing.T) {
	namespace := cluster.Namespace(t)
	start := time.Now()
	now := clocktesting.NewFakePassiveClock(start.AddDate(1, 0, 0))
	process := func() *ratelimit.CALedger {
		b := process(t, namespace, func() error { return nil })
		b.Clock = now
		ctx, end := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = b.Start(ctx) }()
		t.Cleanup(func() { end(); <-done })
		return b.For(directory)
	}
	ca := process()
	if err := ca.Available(t.Context()); err != nil {
		t.Fatal(err)
	}
	ca.Observe(acme.Exchange{Action: "newOrder", Status: 503, RetryAfter: now.Now().Add(time.Hour)})
	if err := ca.ValidationFailed(t.Context(), ratelimit.FailedValidation{
		Account: directory + "/acct/1", Identifier: acme.DNS("www.example.com"), Detail: "no",
	}); err != nil { // which writes it
		t.Fatal(err)
	}
	now.SetTime(start)
	for when, ca := range map[string]*ratelimit.CALedger{"before a restart": ca, "after it": process()} {
		err := ca.Available(t.Context())
		if until := fault.Of(err); err != nil && until.Until.Sub(start) > ratelimit.MaxRetryAfter {
			t.Errorf("%s: %v", when, err)
		}
	}
}

// ledgers returns the names of the ConfigMaps in a namespace, by directory.
func ledgers(t *testing.T, namespace string) map[string]string {
	t.Helper()
	var list corev1.ConfigMapList
	if err := cluster.Admin(t).List(t.Context(), &list, client.InNamespace(namespace)); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, c := range list.Items {
		if d := c.Annotations["perennial.dev/acme-directory"]; d != "" {
			all[d] = c.Name
		}
	}
	return all
}

// TestALedgerIsThatOfTheWholeURL puts the ConfigMap of another CA at the name of this CA's, because
// a tenant may find a URL with the same short digest.
func TestALedgerIsThatOfTheWholeURL(t *testing.T) {
	namespace := cluster.Namespace(t)
	b := process(t, namespace, func() error { return nil })
	if v, err := b.For(directory).Admit(t.Context(), order("first", 5)); err != nil || !v.Allowed {
		t.Fatalf("%+v, %v", v, err)
	}
	const other = "https://tenant.example/directory"
	theirs := &corev1.ConfigMap{}
	admin := cluster.Admin(t)
	if err := admin.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: ledgers(t, namespace)[directory]},
		theirs); err != nil {
		t.Fatal(err)
	}
	theirs.Annotations["perennial.dev/acme-directory"] = other
	if err := admin.Update(t.Context(), theirs); err != nil {
		t.Fatal(err)
	}
	// Another process finds nothing of its CA, and leaves the other one's alone.
	b = process(t, namespace, func() error { return nil })
	if v, err := b.For(directory).Admit(t.Context(), order("second", 1)); err != nil || !v.Allowed {
		t.Fatalf("%+v, %v", v, err)
	}
	all := ledgers(t, namespace)
	if len(all) != 2 || all[other] != theirs.Name || all[directory] == theirs.Name {
		t.Errorf("the ConfigMaps are %v", all)
	}
	is := &corev1.ConfigMap{}
	if err := admin.Get(t.Context(), client.ObjectKeyFromObject(theirs), is); err != nil ||
		is.Data["ledger"] != theirs.Data["ledger"] {
		t.Errorf("that of the other CA has changed: %v, %v", is.Data, err)
	}
	// A third one finds what is spent.
	b = process(t, namespace, func() error { return nil })
	b.Orders = func(context.Context, string) ([]ratelimit.OrderRecord, error) {
		return []ratelimit.OrderRecord{{Request: order("second", 1), Sent: true}}, nil
	}
	if v, err := b.For(directory).Admit(t.Context(), order("third", 1)); err != nil || v.Allowed {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestALedgerInWhichNothingIsSpentIsRemoved uses many CAs of tenants.
func TestALedgerInWhichNothingIsSpentIsRemoved(t *testing.T) {
	namespace := cluster.Namespace(t)
	now := clocktesting.NewFakePassiveClock(time.Now())
	run := func() *ratelimit.Ledgers {
		b := process(t, namespace, func() error { return nil })
		b.Clock = now
		return b
	}
	b := run()
	for i := range 5 {
		d := fmt.Sprintf("https://ca-%d.example/directory", i)
		a := order(fmt.Sprintf("o-%d", i), 5)
		if v, err := b.For(d).Admit(t.Context(), a); err != nil || !v.Allowed {
			t.Fatalf("%+v, %v", v, err)
		}
		switch i {
		case 0:
			b.Finished(a.ID, false) // it gives back what it had reserved
		case 1:
			b.Accepted(a.ID)
			b.Finished(a.ID, true)
		}
	}
	until := func(what string, want ...string) {
		t.Helper()
		cluster.Eventually(t, func() error {
			all := ledgers(t, namespace)
			for _, d := range want {
				if all[d] == "" {
					return cluster.NotYet("%s: the ConfigMaps are %v", what, all)
				}
			}
			if len(all) != len(want) {
				return cluster.NotYet("%s: the ConfigMaps are %v", what, all)
			}
			return nil
		})
	}
	until("one order has failed", "https://ca-1.example/directory", "https://ca-2.example/directory",
		"https://ca-3.example/directory", "https://ca-4.example/directory")

	// After a restart the objects of the open orders are gone, and an hour later so is what they have
	// spent.
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	b = run()
	go func() { done <- b.Start(ctx) }()
	cluster.Eventually(t, func() error {
		var list corev1.ConfigMapList
		if err := cluster.Admin(t).List(t.Context(), &list, client.InNamespace(namespace)); err != nil {
			return err
		}
		for _, c := range list.Items {
			if strings.Contains(c.Data["ledger"], `"orders"`) {
				return cluster.NotYet("%s", c.Data["ledger"])
			}
		}
		return nil
	})
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	now.SetTime(now.Now().Add(2 * time.Hour))
	ctx, stop = context.WithCancel(t.Context())
	defer stop()
	go func() { done <- run().Start(ctx) }()
	until("all is over")
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
