package order_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/controller"
	"github.com/perennial-pki/perennial/test/cluster"
	"github.com/perennial-pki/perennial/test/pebble"
)

// pit is a server that accepts connections and packets, and never answers.
type pit struct {
	t    *testing.T
	addr string

	mu                sync.Mutex
	open, most, heard int
}

func newPit(t *testing.T) *pit {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	p := &pit{t: t, addr: listener.Addr().String()}
	packets, err := net.ListenPacket("udp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { packets.Close() })
	go func() {
		buffer := make([]byte, 1<<16)
		for {
			if _, _, err := packets.ReadFrom(buffer); err != nil {
				return
			}
			p.note(0, 1)
		}
	}()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			p.note(1, 1)
			go func() {
				defer conn.Close()
				defer p.note(-1, 0)
				buffer := make([]byte, 1<<10)
				for { // until the client stops waiting
					if _, err := conn.Read(buffer); err != nil {
						return
					}
				}
			}()
		}
	}()
	return p
}

func (p *pit) note(open, heard int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open += open
	p.heard += heard
	p.most = max(p.most, p.open)
}

// holds waits until a client waits for an answer.
func (p *pit) holds() {
	p.t.Helper()
	cluster.Eventually(p.t, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.open == 0 {
			return cluster.NotYet("no request waits for the server that never answers; it was asked %d times", p.heard)
		}
		return nil
	})
}

// waited returns the maximum number of clients that waited at once.
func (p *pit) waited() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.most
}

// issuerOf creates an issuer of the rig's CA, unless changed, in a namespace, with its own account.
func (r *rig) issuerOf(namespace, name string, change ...func(*cmacme.ACMEIssuer)) *cmapi.Issuer {
	r.t.Helper()
	issuer := &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	issuer.Spec.ACME = &cmacme.ACMEIssuer{
		Server:     r.ca.Directory,
		CABundle:   r.ca.CABundle,
		PrivateKey: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: name}},
		Solvers: []cmacme.ACMEChallengeSolver{
			{HTTP01: &cmacme.ACMEChallengeSolverHTTP01{Ingress: &cmacme.ACMEChallengeSolverHTTP01Ingress{}}},
		},
	}
	for _, f := range change {
		f(issuer.Spec.ACME)
	}
	if err := r.admin.Create(r.t.Context(), issuer); err != nil {
		r.t.Fatal(err)
	}
	return issuer
}

// ask requests certificates for a number of names from an issuer.
func (r *rig) ask(issuer *cmapi.Issuer, name string, n int) (all []*cmapi.Certificate) {
	r.t.Helper()
	for i := range n {
		crt := &cmapi.Certificate{
			ObjectMeta: metav1.ObjectMeta{Namespace: issuer.Namespace, Name: fmt.Sprintf("%s-%d", name, i)},
			Spec: cmapi.CertificateSpec{
				SecretName: fmt.Sprintf(
					"%s-%d",
					name,
					i,
				),
				DNSNames:   []string{fmt.Sprintf("%s-%d.example.com", name, i)},
				IssuerRef:  cmmeta.IssuerReference{Name: issuer.Name},
				PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
			},
		}
		if err := r.admin.Create(r.t.Context(), crt); err != nil {
			r.t.Fatal(err)
		}
		all = append(all, crt)
	}
	return all
}

// wait waits until there is the given number of Challenges for names with the prefix.
func (r *rig) wait(prefix string, n int) {
	r.t.Helper()
	cluster.Eventually(r.t, func() error {
		var list cmacme.ChallengeList
		if err := r.admin.List(r.t.Context(), &list); err != nil {
			return err
		}
		there := 0
		for _, ch := range list.Items {
			if strings.HasPrefix(ch.Spec.DNSName, prefix) {
				there++
			}
		}
		if there < n {
			return cluster.NotYet("there are %d challenges of %s:\n%s", there, prefix, r.story())
		}
		return nil
	})
}

// stillOpen checks that none of the certificates was issued.
func (r *rig) stillOpen(all []*cmapi.Certificate) {
	r.t.Helper()
	for _, crt := range all {
		if err := r.admin.Get(r.t.Context(), client.ObjectKeyFromObject(crt), crt); err != nil {
			r.t.Fatal(err)
		}
		if c := cmapi.GetCertificateCondition(
			&crt.Status,
			cmapi.CertificateConditionReady,
		); c != nil &&
			c.Status == cmmeta.ConditionTrue {
			r.t.Errorf("%s is Ready, although no server answers for it", crt.Name)
		}
	}
}

const many = 40

// worksBeside makes an issuer wait for many names that never answer, while it or another issuer
// issues for three that do.
func (r *rig) worksBeside(dead *pit, hangs, works *cmapi.Issuer) {
	r.t.Helper()
	hang := r.ask(hangs, "dead", many)
	r.wait("dead-", many)
	dead.holds()
	for _, crt := range r.ask(works, "works", 3) {
		r.ready(crt)
	}
	dead.holds()
	r.stillOpen(hang)
}

func TestSitesThatNeverAnswerStopNoOtherSiteOfTheSameIssuer(t *testing.T) {
	for kind, solver := range map[string]cmacme.ACMEChallengeSolver{
		"HTTP-01":     {HTTP01: &cmacme.ACMEChallengeSolverHTTP01{Ingress: &cmacme.ACMEChallengeSolverHTTP01Ingress{}}},
		"TLS-ALPN-01": {TLSALPN01: &cmacme.ACMEChallengeSolverTLSALPN01{}},
	} {
		t.Run(kind, func(t *testing.T) {
			dead := newPit(t)
			r := start(t, pebble.Options{}, func(o *controller.Options) {
				alive := o.Dial
				o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
					if strings.HasPrefix(address, "dead-") {
						return (&net.Dialer{}).DialContext(ctx, network, dead.addr)
					}
					return alive(ctx, network, address)
				}
			})
			issuer := r.issuerOf(
				r.namespace,
				"pebble",
				func(spec *cmacme.ACMEIssuer) { spec.Solvers = []cmacme.ACMEChallengeSolver{solver} },
			)
			r.worksBeside(dead, issuer, issuer)
		})
	}
}

func TestNameServersThatNeverAnswerStopNoOtherIssuer(t *testing.T) {
	dead := newPit(t)
	r := start(t, pebble.Options{})
	solve := r.byDNS("")
	works := r.issuerOf(r.namespace, "works", solve)
	hangs := r.issuerOf(r.namespace, "hangs", func(spec *cmacme.ACMEIssuer) {
		spec.Solvers = []cmacme.ACMEChallengeSolver{{DNS01: &cmacme.ACMEChallengeSolverDNS01{
			Nameservers: []string{dead.addr}, RFC2136: &cmacme.ACMEIssuerDNS01ProviderRFC2136{Nameserver: dead.addr},
		}}}
	})
	r.worksBeside(dead, hangs, works)
}

func TestAServerForUpdatesThatNeverAnswersStopsNoOtherSolver(t *testing.T) {
	dead := newPit(t)
	r := start(t, pebble.Options{})
	solve := r.byDNS("")
	issuer := r.issuerOf(r.namespace, "pebble", func(spec *cmacme.ACMEIssuer) {
		solve(spec)
		broken := spec.Solvers[0].DeepCopy()
		broken.DNS01.RFC2136.Nameserver, broken.DNS01.RFC2136.Protocol = dead.addr, "TCP"
		broken.Selector = &cmacme.CertificateDNSNameSelector{DNSNames: []string{}}
		for i := range many {
			broken.Selector.DNSNames = append(broken.Selector.DNSNames, fmt.Sprintf("dead-%d.example.com", i))
		}
		spec.Solvers = append(spec.Solvers, *broken)
	})
	r.worksBeside(dead, issuer, issuer)
	// The end of one may be seen after the beginning of the next.
	if most := dead.waited(); most > 2*controller.DefaultWorkers {
		t.Errorf("%d waited for one server at once", most)
	}
}

func TestANamespaceFullOfIssuersThatHangStopsNoOther(t *testing.T) {
	dead := newPit(t)
	r := start(t, pebble.Options{})
	hostile := cluster.Namespace(t)
	for i := range 100 {
		r.issuerOf(
			hostile,
			fmt.Sprintf("hangs-%d", i),
			func(spec *cmacme.ACMEIssuer) { spec.Server = fmt.Sprintf("https://%s/%d", dead.addr, i) },
		)
	}
	dead.holds()
	issuer := r.issuerOf(r.namespace, "pebble")
	for _, crt := range r.ask(issuer, "works", 3) {
		r.ready(crt)
	}
	dead.holds()
	if most := dead.waited(); most > 50 { // as above
		t.Errorf("%d of 100 hanging CAs were waited for at once", most)
	}
}
