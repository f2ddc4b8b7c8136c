package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/deploy"
	"github.com/perennial-pki/perennial/test/dnsserver"
	"github.com/perennial-pki/perennial/test/pebble"
)

const tsigName, tsigSecret = "bench", "YmVuY2htYXJrLXNlY3JldC1vZi10c2lnLWtleS1sb25n"

// acmeServer measures certificates of an ACME server: one, ten and a hundred in parallel, by DNS-01
// and by HTTP-01, and then a long series in sequence.
func (b *bench) acmeServer(ctx context.Context) error {
	names, err := dnsserver.Start(
		dnsserver.Options{Zones: []string{"bench.example.com"}, KeyName: tsigName, Secret: tsigSecret},
	)
	if err != nil {
		return err
	}
	defer names.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	site := listener.Addr().String()
	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	var exchanges counter
	ca, err := pebble.Start(pebble.Options{Resolver: names.Addr, HTTPPort: port, Wrap: exchanges.wrap})
	if err != nil {
		return err
	}
	defer ca.Close()
	if err := b.admin.Create(
		ctx,
		&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: deploy.Namespace, Name: "tsig"},
			StringData: map[string]string{"key": tsigSecret},
		},
	); err != nil {
		return err
	}
	issuers := map[string]cmacme.ACMEChallengeSolver{
		"dns-01": {
			DNS01: &cmacme.ACMEChallengeSolverDNS01{
				Nameservers: []string{names.Addr},
				RFC2136: &cmacme.ACMEIssuerDNS01ProviderRFC2136{
					Nameserver: names.Addr, TSIGKeyName: tsigName, TSIGAlgorithm: "HMACSHA256",
					TSIGSecret: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "tsig"}, Key: "key"},
				},
			},
		},
		// Port 80 of these names is not on this machine, so there is no self-check.
		"http-01": {
			HTTP01:                 &cmacme.ACMEChallengeSolverHTTP01{Ingress: &cmacme.ACMEChallengeSolverHTTP01Ingress{}},
			WaitInsteadOfSelfCheck: &metav1.Duration{},
		},
	}
	p, err := b.start(ctx, "--http01-listen-address="+site)
	if err != nil {
		return err
	}
	defer p.stop()
	fmt.Println("ECDSA certificates of Pebble, without its sleep before a validation, and with its Retry-After at 0")
	fmt.Println()
	fmt.Printf(
		"  %-12s %12s %12s %12s %12s %16s %16s\n",
		"",
		"all Ready",
		"p50",
		"p99",
		"CPU each",
		"API writes each",
		"exchanges each",
	)
	if err := b.acmeIssuers(ctx, ca, issuers); err != nil {
		return err
	}
	runs := []struct {
		kind string
		n    int
	}{
		{"dns-01", 1}, {"dns-01", 10}, {"dns-01", 100}, {"http-01", 1}, {"http-01", 10}, {"http-01", 100},
		{"dns-01", b.line},
	}
	for i, run := range runs {
		if run.n == 0 {
			continue
		}
		if err := b.measureACME(ctx, p, &exchanges, run.kind, fmt.Sprintf("acme-%d", i), run.n); err != nil {
			return err
		}
	}
	fmt.Println()
	for _, l := range exchanges.lines() {
		fmt.Printf("    %s\n", l)
	}
	fmt.Println()
	return b.besideOneThatHangs(ctx, names.Addr, ca)
}

// acmeIssuers creates an issuer for each solver, and waits until they are ready.
func (b *bench) acmeIssuers(
	ctx context.Context,
	ca *pebble.Server,
	issuers map[string]cmacme.ACMEChallengeSolver,
) error {
	for kind, solver := range issuers {
		issuer := &cmapi.ClusterIssuer{ObjectMeta: metav1.ObjectMeta{Name: kind}}
		issuer.Spec.ACME = &cmacme.ACMEIssuer{
			Server: ca.Directory, CABundle: ca.CABundle, Solvers: []cmacme.ACMEChallengeSolver{solver},
			PrivateKey: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: kind}},
		}
		if err := b.admin.Create(ctx, issuer); err != nil {
			return err
		}
		if err := b.issuerReady(ctx, issuer); err != nil {
			return err
		}
	}
	return nil
}

// measureACME issues n certificates in a namespace, and prints what they cost.
func (b *bench) measureACME(
	ctx context.Context, p *process, exchanges *counter, kind, namespace string, n int,
) error {
	if err := b.quiet(ctx); err != nil {
		return err
	}
	before, err := b.requests(ctx)
	if err != nil {
		return err
	}
	asked := exchanges.total()
	cpu, err := p.cpu()
	if err != nil {
		return err
	}
	took, all, err := b.issue(ctx, cmmeta.IssuerReference{Name: kind, Kind: "ClusterIssuer"}, namespace, n)
	if err != nil {
		return err
	}
	if err := b.quiet(ctx); err != nil {
		return err
	}
	after, err := b.requests(ctx)
	if err != nil {
		return err
	}
	used, err := p.cpu()
	if err != nil {
		return err
	}
	fmt.Printf(
		"  %-12s %10.2f s %10.2f s %10.2f s %9.1f ms %16.1f %16.1f\n",
		fmt.Sprintf("%s %d", kind, n),
		all.Seconds(),
		quantile(took, .5).Seconds(),
		quantile(took, .99).Seconds(),
		(used-cpu).Seconds()*1000/float64(n),
		acmeWrites(after.since(before).counts)/float64(n)-1,
		float64(exchanges.total()-asked)/float64(n),
	)
	return nil
}

// acmeWrites counts the writes of objects of certificates and of ACME.
func acmeWrites(counts map[string]float64) (writes float64) {
	for key, count := range counts {
		verb, resource, _ := strings.Cut(key, " ")
		if slices.Contains(writeVerbs, verb) &&
			(slices.Contains(ofCertificates, resource) || slices.Contains(ofACME, resource)) {
			writes += count
		}
	}
	return writes
}

// besideOneThatHangs measures certificates in sequence: first without other load, then while
// another CA with 60 challenges hangs, and then while a DNS service also hangs, with 60
// certificates of the same CA.
func (b *bench) besideOneThatHangs(ctx context.Context, resolver string, works *pebble.Server) error {
	const runs, others = 20, 60
	one := func(namespace string) (median time.Duration, goroutines float64, err error) {
		return b.oneAfterTheOther(ctx, namespace, runs)
	}
	alone, before, err := one("alone")
	if err != nil {
		return err
	}
	fmt.Printf("One certificate by DNS-01 after the other, while others hang under %d\n\n", others)
	fmt.Printf(
		"  median alone                          %8.0f ms            %.0f goroutines of the controller\n",
		alone.Seconds()*1000,
		before,
	)
	beside := func(name, text string) error {
		median, goroutines, err := one("beside-" + name)
		if err != nil {
			return err
		}
		fmt.Printf(
			"  median beside %-24s%8.0f ms   %+4.0f %%   %.0f\n",
			text,
			median.Seconds()*1000,
			100*(median.Seconds()/alone.Seconds()-1),
			goroutines,
		)
		return nil
	}

	hanging := &hangingCA{release: make(chan struct{})}
	ca, err := pebble.Start(pebble.Options{Resolver: resolver, Wrap: hanging.wrap})
	if err != nil {
		return err
	}
	defer ca.Close()
	defer close(hanging.release)
	// The CA hangs at the validation, when all challenges are presented.
	err = b.hangingIssuer(ctx, "hangs", others, cmacme.ACMEIssuer{
		Server: ca.Directory, CABundle: ca.CABundle,
		Solvers: []cmacme.ACMEChallengeSolver{
			{
				HTTP01: &cmacme.ACMEChallengeSolverHTTP01{
					Ingress: &cmacme.ACMEChallengeSolverHTTP01Ingress{},
				},
				WaitInsteadOfSelfCheck: &metav1.Duration{Duration: 20 * time.Second},
			},
		},
	})
	if err != nil {
		return err
	}
	if err := b.allPresented(ctx, "hangs", others); err != nil {
		return err
	}
	hanging.hangs.Store(true)
	err = wait.PollUntilContextTimeout(
		ctx,
		100*time.Millisecond,
		time.Minute,
		true,
		func(context.Context) (bool, error) { return hanging.hung.Load() > 0, nil },
	)
	if err != nil {
		return fmt.Errorf("the CA is not asked to look at the challenges: %w", err)
	}
	if err := beside("ca", "the CA that hangs"); err != nil {
		return err
	}

	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, and no program answers
	if err != nil {
		return err
	}
	defer silent.Close()
	err = b.hangingIssuer(ctx, "silent", others, cmacme.ACMEIssuer{
		Server:   works.Directory,
		CABundle: works.CABundle,
		Solvers: []cmacme.ACMEChallengeSolver{
			{
				DNS01: &cmacme.ACMEChallengeSolverDNS01{
					Nameservers: []string{resolver},
					RFC2136: &cmacme.ACMEIssuerDNS01ProviderRFC2136{
						Nameserver: silent.Addr().String(), Protocol: "TCP",
					},
				},
			},
		},
	})
	if err != nil {
		return err
	}
	if err := beside("dns", "a DNS service, too"); err != nil {
		return err
	}
	fmt.Println()
	return nil
}

// oneAfterTheOther issues certificates by DNS-01, each when the one before it is issued.
func (b *bench) oneAfterTheOther(
	ctx context.Context, namespace string, runs int,
) (median time.Duration, goroutines float64, err error) {
	var took []time.Duration
	for i := range runs {
		issuer := cmmeta.IssuerReference{Name: "dns-01", Kind: "ClusterIssuer"}
		t, _, err := b.issue(ctx, issuer, fmt.Sprintf("%s-%d", namespace, i), 1)
		if err != nil {
			return 0, 0, err
		}
		took = append(took, t...)
	}
	slices.Sort(took)
	goroutines, err = gauge(ctx, "go_goroutines")
	return quantile(took, .5), goroutines, err
}

// hangingIssuer creates an issuer, and requests certificates from it.
func (b *bench) hangingIssuer(ctx context.Context, name string, n int, spec cmacme.ACMEIssuer) error {
	spec.PrivateKey = cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: name}}
	issuer := &cmapi.ClusterIssuer{ObjectMeta: metav1.ObjectMeta{Name: name}}
	issuer.Spec.ACME = &spec
	if err := b.admin.Create(ctx, issuer); err != nil {
		return err
	}
	if err := b.issuerReady(ctx, issuer); err != nil {
		return err
	}
	if err := b.namespace(ctx, name); err != nil {
		return err
	}
	return b.each(ctx, n, func(ctx context.Context, c client.Client, i int) error {
		return c.Create(ctx, certificate(cmmeta.IssuerReference{Name: name, Kind: "ClusterIssuer"}, name, i))
	})
}

// hangingCA is a CA that answers no more when hangs is set, until it is released.
type hangingCA struct {
	hangs   atomic.Bool
	hung    atomic.Int32
	release chan struct{}
}

func (c *hangingCA) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.hangs.Load() {
			c.hung.Add(1)
			select {
			case <-c.release:
			case <-r.Context().Done():
			}
		}
		h.ServeHTTP(w, r)
	})
}

// allPresented waits until all challenges of a namespace are presented.
func (b *bench) allPresented(ctx context.Context, namespace string, others int) error {
	setUp := 0
	err := wait.PollUntilContextTimeout(
		ctx,
		100*time.Millisecond,
		time.Minute,
		true,
		func(ctx context.Context) (bool, error) {
			var list cmacme.ChallengeList
			if err := b.admin.List(ctx, &list, client.InNamespace(namespace)); err != nil {
				return false, err
			}
			setUp = 0
			for _, ch := range list.Items {
				if ch.Status.Presented {
					setUp++
				}
			}
			return setUp == others, nil
		},
	)
	if err != nil {
		return fmt.Errorf("%d of %d challenges are set up: %w", setUp, others, err)
	}
	return nil
}

func (b *bench) issuerReady(ctx context.Context, issuer *cmapi.ClusterIssuer) error {
	err := wait.PollUntilContextTimeout(
		ctx,
		50*time.Millisecond,
		time.Minute,
		true,
		func(ctx context.Context) (bool, error) {
			err := b.admin.Get(ctx, client.ObjectKeyFromObject(issuer), issuer)
			return err == nil &&
				slices.ContainsFunc(
					issuer.Status.Conditions,
					func(c cmapi.IssuerCondition) bool { return c.Type == "Ready" && c.Status == "True" },
				), err
		},
	)
	if err != nil {
		return fmt.Errorf("the issuer %s does not become ready: %w", issuer.Name, err)
	}
	return nil
}

var ofACME = []string{"orders", "orders/status", "challenges", "challenges/status"}

// counter counts the requests to a server by method and the first part of the path.
type counter struct {
	n  atomic.Int64
	mu sync.Mutex
	by map[string]int
}

func (c *counter) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.n.Add(1)
		first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		c.mu.Lock()
		if c.by == nil {
			c.by = map[string]int{}
		}
		c.by[r.Method+" "+first]++
		c.mu.Unlock()
		h.ServeHTTP(w, r)
	})
}

func (c *counter) total() int64 { return c.n.Load() }

func (c *counter) lines() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var lines []string
	for k, n := range c.by {
		lines = append(lines, fmt.Sprintf("%-40s %8d", k, n))
	}
	slices.Sort(lines)
	return lines
}
