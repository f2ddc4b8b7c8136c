package resolver

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/perennial-pki/perennial/internal/egress"
)

const (
	// timeout bounds finding a zone, and asking all of its servers.
	timeout = 20 * time.Second
	// exchangeTimeout bounds one question to one server.
	exchangeTimeout = 3 * time.Second
	// MaxUDPSize is the size that UDP answers may have: it is not fragmented on any usual path.
	MaxUDPSize = 1232
	// maxCNAMEs is how long a chain of CNAMEs may be.
	maxCNAMEs = 10
	// maxServers and maxAddresses are how many servers of a zone, and addresses of a server, are
	// asked.
	maxServers, maxAddresses = 16, 4
	// maxDoH bounds an answer over HTTPS: a DNS message is not longer.
	maxDoH = 64 << 10
	// maxCuts is how many delegations below the zone that was found first are followed.
	maxCuts = 4
	// stagger is the delay before the next server of a zone is asked, too, as in RFC 8305 section 5.
	// patience is that delay for recursive servers, which have to ask others. It is longer, because
	// the next one may have another view of the DNS.
	stagger, patience = 250 * time.Millisecond, time.Second
	// aliasTimeout bounds the query for a CNAME, so that time is left for the next step if no server
	// of the zone answers.
	aliasTimeout = 5 * time.Second
)

// exchange asks one server over UDP and, if the answer is truncated or missing, over TCP. A failure
// code is an error, and a negative answer is not.
func (r *Resolver) exchange(ctx context.Context, address, name string, kind uint16, recursion bool) (*dns.Msg, error) {
	q := new(dns.Msg)
	q.SetQuestion(name, kind)
	q.RecursionDesired = recursion
	q.SetEdns0(MaxUDPSize, false)
	m, err := r.send(ctx, address, q)
	if err == nil && (m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented) {
		q.Extra = nil // an old server, RFC 6891 section 7
		m, err = r.send(ctx, address, q)
	}
	if err == nil && m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		err = RCode(m.Rcode)
	}
	if err == nil {
		err = CheckReply(m, q)
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s for %s of %s: %w", address, dns.TypeToString[kind], strings.TrimSuffix(name, "."), err)
	}
	return m, nil
}

// An RCode is the error of a server that answers with a failure code.
type RCode int

// Error names the code.
func (r RCode) Error() string {
	return "it answers " + cmp.Or(dns.RcodeToString[int(r)], fmt.Sprintf("RCODE %d", int(r)))
}

// lame is the error of a server that does not have the zone that is delegated to it.
type lame string

// Error says what the server lacks.
func (zone lame) Error() string {
	return "it is no authoritative server of " + strings.TrimSuffix(string(zone), ".")
}

// CheckReply returns an error if an answer does not match the query.
func CheckReply(m, q *dns.Msg) error {
	if !m.Response || m.Opcode != q.Opcode || len(m.Question) != 1 ||
		!strings.EqualFold(m.Question[0].Name, q.Question[0].Name) ||
		m.Question[0].Qtype != q.Question[0].Qtype ||
		m.Question[0].Qclass != q.Question[0].Qclass {
		return errors.New("it answers another question")
	}
	return nil
}

// send sends a query and returns the whole answer.
func (r *Resolver) send(ctx context.Context, address string, q *dns.Msg) (*dns.Msg, error) {
	if strings.HasPrefix(address, "https://") {
		return exchangeHTTPS(ctx, cmp.Or(r.HTTPS, defaultHTTPSClient), address, q)
	}
	if m, err := r.over(ctx, "udp", address, q); err == nil && !m.Truncated {
		return m, nil
	}
	return r.over(ctx, "tcp", address, q)
}

func (r *Resolver) over(ctx context.Context, network, address string, q *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	return Exchange(ctx, DialWithin(r.Reach, r.Dial), network, address, q, dns.Client{Net: network, UDPSize: MaxUDPSize})
}

// DialWithin returns a dial function that connects only within reach.
func DialWithin(reach egress.Reach, dial Dial) Dial {
	if dial == nil {
		return reach.Dialer().DialContext
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if _, err := netip.ParseAddrPort(address); err == nil {
			if err := reach.Check(address); err != nil {
				return nil, err
			}
		}
		return dial(ctx, network, address)
	}
}

// Exchange sends a message over a new connection. If the signature of the answer is wrong, it
// returns both the answer and an error.
func Exchange(
	ctx context.Context,
	dial Dial,
	network, address string,
	q *dns.Msg,
	client dns.Client,
) (*dns.Msg, error) {
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	conn, err := dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { // the library supports only deadlines
		if errors.Is(ctx.Err(), context.Canceled) {
			conn.Close()
		}
	})()
	c := &dns.Conn{Conn: conn, UDPSize: MaxUDPSize}
	m, _, err := client.ExchangeWithConnContext(ctx, q, c)
	return m, err
}

// requestError returns the reason why a request failed, without the URL, which the message has
// already.
func requestError(err error) error {
	err = egress.NoReplyReason(err)
	if untrusted := new(tls.CertificateVerificationError); errors.As(err, &untrusted) {
		return fmt.Errorf("%w: SSL_CERT_FILE in the controller's environment names a file of CAs to trust", err)
	}
	return err
}
