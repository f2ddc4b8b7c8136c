// Package tlsalpn01 answers TLS-ALPN-01 challenges, RFC 8737, from the process itself, on a port that the site behind it can share:
// every connection that does not ask for a challenge is passed on unread.
package tlsalpn01

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/asn1"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver"
)

const (
	// byServerName is the field index of TLS-ALPN-01 Challenges by the server name that the CA asks for.
	byServerName = "spec.dnsName"

	checkTimeout = 10 * time.Second
	readTimeout  = 5 * time.Second
)

// Solver answers TLS-ALPN-01 challenges.
type Solver struct {
	// Cache has the Challenges, and Live reads them from the API server.
	Cache, Live client.Reader
	// Listens says that Serve runs.
	Listens bool
	// Dial connects for the self-check. A net.Dialer's if nil.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Now is the clock.
	Now func() time.Time

	reads solver.Reads
}

// AddIndexes adds the index that answering needs.
func AddIndexes(ctx context.Context, indexer client.FieldIndexer) error {
	err := indexer.IndexField(ctx, &cmacme.Challenge{}, byServerName, func(o client.Object) []string {
		if name := serverName(o.(*cmacme.Challenge)); name != "" {
			return []string{name}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("index Challenges by server name: %w", err)
	}
	return nil
}

// serverName is what the CA asks for, or "" if the Challenge is of another type.
func serverName(ch *cmacme.Challenge) string {
	if ch.Spec.Type != cmacme.ACMEChallengeTypeTLSALPN01 {
		return ""
	}
	name, err := acme.TLSALPN01ServerName(identifier(ch))
	if err != nil {
		return ""
	}
	return strings.ToLower(name)
}

func identifier(ch *cmacme.Challenge) acme.Identifier {
	if addr, err := netip.ParseAddr(ch.Spec.DNSName); err == nil {
		return acme.IP(addr)
	}
	return acme.DNS(ch.Spec.DNSName)
}

// certificate returns the certificate that answers for a server name.
func (s *Solver) certificate(ctx context.Context, name string) (*tls.Certificate, error) {
	name = strings.ToLower(name)
	var list cmacme.ChallengeList
	if err := s.Cache.List(ctx, &list, client.MatchingFields{byServerName: name}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	if len(list.Items) == 0 && s.reads.Allow(s.Now()) { // the cache of a replica may lag behind what the leader wrote
		ctx, cancel := context.WithTimeout(ctx, readTimeout)
		defer cancel()
		if err := s.Live.List(ctx, &list); err != nil {
			return nil, err
		}
	}
	for i := range list.Items {
		if ch := &list.Items[i]; serverName(ch) == name {
			return acme.TLSALPN01Certificate(identifier(ch), ch.Spec.Key, s.Now())
		}
	}
	return nil, fmt.Errorf("there is no challenge for %q", name)
}

// Present has nothing to do: the Challenge itself is what is answered from.
func (s *Solver) Present(context.Context, *signer.Issuer, *cmacme.Challenge) error {
	if !s.Listens {
		return fault.Misconfiguredf("NotAnswered", "this controller answers no TLS-ALPN-01 challenges: start it with --tlsalpn01-listen-address")
	}
	return nil
}

// CleanUp has nothing to do.
func (s *Solver) CleanUp(context.Context, *signer.Issuer, *cmacme.Challenge) error { return nil }

// Check makes the handshake that the ACME server will.
func (s *Solver) Check(ctx context.Context, _ *signer.Issuer, ch *cmacme.Challenge) (solver.Sight, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	dial := s.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	address := net.JoinHostPort(ch.Spec.DNSName, "443")
	conn, err := dial(ctx, "tcp", address)
	if err != nil {
		if solver.LeftToCA(err, ch, s.Now()) {
			return solver.Sight{Visible: true}, nil
		}
		return solver.Sight{Why: fmt.Sprintf("%s cannot be connected to: %s", address, err)}, nil
	}
	defer conn.Close()
	client := tls.Client(conn, &tls.Config{
		ServerName: serverName(ch), NextProtos: []string{acme.TLSALPN01Protocol}, MinVersion: tls.VersionTLS12,
		InsecureSkipVerify: true, // the certificate proves by what it says, not by who signed it
	})
	if err := client.HandshakeContext(ctx); err != nil {
		return solver.Sight{Why: fmt.Sprintf("%s does not answer the protocol %s: %s. What listens there must pass such connections on to the controller",
			address, acme.TLSALPN01Protocol, err)}, nil
	}
	state := client.ConnectionState()
	if state.NegotiatedProtocol != acme.TLSALPN01Protocol {
		return solver.Sight{Why: fmt.Sprintf("%s answers, but does not speak %s: another server receives the connections", address, acme.TLSALPN01Protocol)}, nil
	}
	sum := sha256.Sum256([]byte(ch.Spec.Key))
	want, err := asn1.Marshal(sum[:])
	if err != nil {
		return solver.Sight{}, err
	}
	for _, e := range state.PeerCertificates[0].Extensions {
		if e.Id.Equal(acme.TLSALPN01Extension()) && e.Critical && bytes.Equal(e.Value, want) {
			return solver.Sight{Visible: true}, nil
		}
	}
	return solver.Sight{Why: fmt.Sprintf("%s speaks %s, but proves something else: another ACME client answers there", address, acme.TLSALPN01Protocol)}, nil
}
