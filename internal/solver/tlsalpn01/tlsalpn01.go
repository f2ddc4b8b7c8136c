// Package tlsalpn01 answers TLS-ALPN-01 challenges, RFC 8737, from the process itself. A site
// behind it can share the port: all other connections are relayed unmodified.
package tlsalpn01

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver"
	"github.com/perennial-pki/perennial/pki"
)

const (
	// byServerName is the field index of TLS-ALPN-01 Challenges by the server name that the CA asks
	// for.
	byServerName = "spec.dnsName"

	checkTimeout = 10 * time.Second
	readTimeout  = 5 * time.Second
	// maxName is how long a DNS name can be.
	maxName = 253
)

// Solver answers TLS-ALPN-01 challenges.
type Solver struct {
	// Cache has the Challenges, and Live reads them from the API server.
	Cache, Live client.Reader
	// Namespace limits the solver to the Challenges of one namespace. If empty, all count.
	Namespace string
	// Listens says that Serve runs.
	Listens bool
	// Site connects to the sites of challenges for the self-check.
	Site solver.Site
	// Now returns the time at which a new challenge certificate begins, and from which waits are
	// counted.
	Now func() time.Time

	reads solver.ReadLimiter
}

// AddIndexes adds the index that answering needs.
func AddIndexes(ctx context.Context, indexer client.FieldIndexer) error {
	err := indexer.IndexField(ctx, &cmacme.Challenge{}, byServerName, func(o client.Object) []string {
		if name := ServerName(o.(*cmacme.Challenge)); name != "" {
			return []string{name}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("index Challenges by server name: %w", err)
	}
	return nil
}

// ServerName returns the server name that the CA sends, or "" if the Challenge is of another type.
func ServerName(ch *cmacme.Challenge) string {
	if ch.Spec.Type != cmacme.ACMEChallengeTypeTLSALPN01 {
		return ""
	}
	name, err := acme.TLSALPN01ServerName(identifier(ch))
	if err != nil {
		return ""
	}
	return pki.ComparableDNSName(name)
}

func identifier(ch *cmacme.Challenge) acme.Identifier {
	if addr, err := netip.ParseAddr(ch.Spec.DNSName); err == nil {
		return acme.IP(addr)
	}
	return acme.DNS(pki.ComparableDNSName(ch.Spec.DNSName))
}

// certificate returns the certificate that answers for a server name. Of several challenges for it
// only one is presented at a time.
func (s *Solver) certificate(ctx context.Context, name string) (*tls.Certificate, error) {
	name = pki.ComparableDNSName(name)
	var list cmacme.ChallengeList
	if err := s.Cache.List(ctx, &list, client.MatchingFields{byServerName: name}, client.UnsafeDisableDeepCopy,
		client.DisableReadYourWritesConsistency); err != nil {
		return nil, err
	}
	asked := furthest(list.Items, name)
	if len(list.Items) != 1 { // the cache may lag behind the leader
		ctx, cancel := context.WithTimeout(ctx, readTimeout)
		defer cancel()
		if end, ok := s.reads.Begin(ctx, s.Now); ok {
			unknown := len(list.Items) == 0
			err := s.Live.List(ctx, &list, solver.ListOptionsForHost(s.Namespace, name)...)
			asked = furthest(list.Items, name)
			end(unknown && asked != nil)
			if err != nil {
				return nil, err
			}
		}
	}
	if asked == nil {
		return nil, fmt.Errorf("there is no challenge for %q", name)
	}
	return acme.TLSALPN01Certificate(identifier(asked), asked.Spec.Key, s.Now())
}

// furthest returns the challenge for a server name that is presented, nil if there is none.
func furthest(all []cmacme.Challenge, name string) (asked *cmacme.Challenge) {
	for i := range all {
		if ch := &all[i]; ServerName(ch) == name && (asked == nil || progress(ch) > progress(asked)) {
			asked = ch
		}
	}
	return asked
}

// progress orders the challenges for one name. The status says Processing before the challenge is
// presented, and Presented only after the pass that may already have asked the CA to look.
func progress(ch *cmacme.Challenge) int {
	switch {
	case ch.Status.Presented:
		return 2
	case ch.Status.Processing:
		return 1
	}
	return 0
}

// Capacity is one: the CA sends no token, so a handshake can be answered in only one way.
func (s *Solver) Capacity(*cmacme.Challenge) int { return 1 }

// Place is the site with its port, so that it differs from the name of any DNS record.
func (s *Solver) Place(_ context.Context, ch *cmacme.Challenge) (string, error) {
	return strings.ToLower(address(ch)), nil
}

// PresentAlong does what Present does, because there are never others.
func (s *Solver) PresentAlong(
	ctx context.Context,
	issuer *signer.Issuer,
	ch *cmacme.Challenge,
	_ []*cmacme.Challenge,
) error {
	return s.Present(ctx, issuer, ch)
}

// Present creates nothing, because the listener answers from the Challenge itself.
func (s *Solver) Present(context.Context, *signer.Issuer, *cmacme.Challenge) error {
	return s.Answered()
}

// Answered returns an error if this process does not listen for challenges.
func (s *Solver) Answered() error {
	if !s.Listens {
		return fault.Misconfiguredf(
			"NotAnswered",
			"this controller answers no TLS-ALPN-01 challenges: start it with --tlsalpn01-listen-address",
		)
	}
	return nil
}

// CleanUp has nothing to do.
func (s *Solver) CleanUp(context.Context, *signer.Issuer, *cmacme.Challenge) error { return nil }

// Check makes the handshake that the ACME server will.
func (s *Solver) Check(ctx context.Context, _ *signer.Issuer, ch *cmacme.Challenge) (solver.CheckResult, error) {
	views, err := s.Look(ctx, ch)
	if err != nil {
		return solver.CheckResult{}, err
	}
	return solver.EvaluateSite(address(ch), views, ch, s.Now()), nil
}

func address(ch *cmacme.Challenge) string { return net.JoinHostPort(ch.Spec.DNSName, "443") }

// Look makes the handshake with each address of the site.
func (s *Solver) Look(ctx context.Context, ch *cmacme.Challenge) ([]solver.EndpointView, error) {
	if err := limiter.Acquire(ctx, solver.TargetOf(ch)); err != nil {
		return nil, err
	}
	defer limiter.Release(ctx)
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	sum := sha256.Sum256([]byte(ch.Spec.Key))
	want, err := asn1.Marshal(sum[:])
	if err != nil {
		return nil, err
	}
	return s.Site.Views(ctx, ch.Spec.DNSName, func(ctx context.Context, dial solver.Dial) solver.EndpointView {
		return probe(ctx, dial, address(ch), ServerName(ch), want)
	}), nil
}

// probe makes a handshake with an address and describes the result.
func probe(ctx context.Context, dial solver.Dial, address, name string, want []byte) solver.EndpointView {
	state, err := handshake(ctx, dial, address, name, acme.TLSALPN01Protocol)
	var no *net.OpError
	switch {
	case errors.As(err, &no) && no.Op == "dial":
		return solver.EndpointView{Shows: fmt.Sprintf("cannot be connected to: %s", err)}
	case err != nil:
		listener := "what listens there"
		if other, err := handshake(ctx, dial, address, name); err == nil {
			listener += fmt.Sprintf(", with the certificate of %s,", holder(other.PeerCertificates[0]))
		}
		return solver.EndpointView{
			Shows: fmt.Sprintf(
				"does not answer the protocol %s: %s: %s must pass such connections on to the controller",
				acme.TLSALPN01Protocol,
				err,
				listener,
			),
		}
	}
	leaf := state.PeerCertificates[0]
	if state.NegotiatedProtocol != acme.TLSALPN01Protocol {
		return solver.EndpointView{
			Shows: fmt.Sprintf(
				"answers, but does not speak %s: another server, with the certificate of %s, receives the connections",
				acme.TLSALPN01Protocol,
				holder(leaf),
			),
		}
	}
	for _, e := range leaf.Extensions {
		if e.Id.Equal(acme.TLSALPN01Extension()) && e.Critical && bytes.Equal(e.Value, want) {
			return solver.EndpointView{Matches: true}
		}
	}
	return solver.EndpointView{
		Shows: fmt.Sprintf(
			"speaks %s, but proves something else, for %s: another ACME client answers there",
			acme.TLSALPN01Protocol,
			holder(leaf),
		),
	}
}

// handshake offers protocols, or none.
func handshake(
	ctx context.Context,
	dial solver.Dial,
	address, name string,
	protocols ...string,
) (tls.ConnectionState, error) {
	conn, err := dial(ctx, "tcp", address)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	client := tls.Client(conn, &tls.Config{
		ServerName: name, NextProtos: protocols, MinVersion: tls.VersionTLS12,
		InsecureSkipVerify: true, // the proof is the content of the certificate, not its issuer
	})
	if err := client.HandshakeContext(ctx); err != nil {
		return tls.ConnectionState{}, err
	}
	return client.ConnectionState(), nil
}

// holder returns the names in a certificate, for messages.
func holder(leaf *x509.Certificate) string {
	const few = 3
	names := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		names = append(names, leaf.Subject.CommonName)
	}
	for i, n := range names[:min(len(names), few)] {
		names[i] = fmt.Sprintf("%q", n[:min(len(n), maxName)])
	}
	if len(names) > few {
		return fmt.Sprintf("%s and %d more names", strings.Join(names[:few], ", "), len(names)-few)
	}
	return strings.Join(names, ", ")
}
