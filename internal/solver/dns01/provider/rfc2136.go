package provider

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/egress"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver/dns01/resolver"
)

const tsigField = "dns01.rfc2136.tsigSecretSecretRef"

var rfc2136Service = service{
	field:      "rfc2136",
	configured: func(s *spec) bool { return s.RFC2136 != nil },
	check:      func(_ *Factory, _ *signer.Issuer, s *spec) error { return checkTSIG(s.RFC2136) },
	references: func(s *spec) []reference {
		if s.RFC2136.TSIGKeyName == "" {
			return nil
		}
		return []reference{referenceTo(tsigField, s.RFC2136.TSIGSecret)}
	},
	checkCredential: func(_ *signer.Issuer, _, value string) error { return checkTSIGSecret(value) },
	open: func(_ context.Context, f *Factory, r request, c credentials) (Provider, error) {
		settings := r.spec().RFC2136
		p := &rfc2136{
			nameserver: settings.Nameserver,
			protocol:   strings.ToLower(string(settings.Protocol)),
			secret:     c[tsigField],
			dial:       resolver.DialWithin(f.Reach(r.issuer.Kind), f.Dial),
			now:        f.Now,
		}
		return p, p.configure(settings.TSIGKeyName, settings.TSIGAlgorithm)
	},
	endpoint: func(s *spec) string { return "the name server " + s.RFC2136.Nameserver },
}

// tsigAlgorithms maps the names in cert-manager's API to those of RFC 8945 section 6.
var tsigAlgorithms = map[string]string{
	"":           dns.HmacMD5,
	"HMACMD5":    dns.HmacMD5,
	"HMACSHA1":   dns.HmacSHA1,
	"HMACSHA256": dns.HmacSHA256,
	"HMACSHA512": dns.HmacSHA512,
}

// tsigFudge is the maximum difference of the clocks in seconds.
const tsigFudge = 300

// tsig computes MACs with a key in base64. The library's own leaves out HMAC-MD5, which is the
// default of the API and of old servers.
type tsig string

// Generate computes the MAC of a message.
func (key tsig) Generate(msg []byte, t *dns.TSIG) ([]byte, error) {
	secret, err := base64.StdEncoding.DecodeString(string(key))
	if err != nil {
		return nil, err
	}
	hashes := map[string]func() hash.Hash{
		dns.HmacMD5:    md5.New,
		dns.HmacSHA1:   sha1.New,
		dns.HmacSHA256: sha256.New,
		dns.HmacSHA512: sha512.New,
	}
	algorithm, known := hashes[dns.CanonicalName(t.Algorithm)]
	if !known {
		return nil, dns.ErrKeyAlg
	}
	h := hmac.New(algorithm, secret)
	h.Write(msg)
	return h.Sum(nil), nil
}

// Verify returns an error if the MAC of a message is wrong.
func (key tsig) Verify(msg []byte, t *dns.TSIG) error {
	want, err := key.Generate(msg, t)
	if err != nil {
		return err
	}
	if got, err := hex.DecodeString(t.MAC); err != nil || !hmac.Equal(want, got) {
		return dns.ErrSig
	}
	return nil
}

// rfc2136 changes records by dynamic updates, RFC 2136, signed with TSIG, RFC 8945, if there is a
// key.
type rfc2136 struct {
	nameserver string // host:port, or host
	protocol   string // udp or tcp; udp if empty
	key        string // with a dot at its end; empty if unsigned
	algorithm  string
	secret     string // base64
	dial       resolver.Dial
	now        func() time.Time
}

// checkTSIG returns an error if a solver's settings are wrong.
func checkTSIG(c *cmacme.ACMEIssuerDNS01ProviderRFC2136) error {
	if _, known := tsigAlgorithms[strings.ToUpper(c.TSIGAlgorithm)]; c.TSIGKeyName != "" && !known {
		return fault.Misconfiguredf(
			"InvalidSolver",
			"dns01.rfc2136.tsigAlgorithm: %.60q is none of HMACMD5, HMACSHA1, HMACSHA256, HMACSHA512",
			c.TSIGAlgorithm,
		)
	}
	return nil
}

// configure sets the address and the key. The settings have been checked, and the secret has not.
func (p *rfc2136) configure(keyName, algorithm string) error {
	// As in cert-manager, there may be space around it, and a colon without a port.
	host, port, err := net.SplitHostPort(strings.TrimSpace(p.nameserver))
	if err != nil {
		host = strings.Trim(strings.TrimSpace(p.nameserver), "[]")
	}
	p.nameserver = net.JoinHostPort(host, cmp.Or(port, "53"))
	if p.protocol == "" {
		p.protocol = "udp"
	}
	if keyName == "" {
		return nil
	}
	p.key, p.algorithm = resolver.FQDN(keyName), tsigAlgorithms[strings.ToUpper(algorithm)]
	return checkTSIGSecret(p.secret)
}

// checkTSIGSecret returns an error if a secret is not base64.
func checkTSIGSecret(secret string) error {
	if _, err := base64.StdEncoding.DecodeString(secret); err != nil {
		return fault.Misconfiguredf(
			"InvalidSolver",
			"dns01.rfc2136.tsigSecretSecretRef: the secret is not base64, as tsig-keygen prints it",
		)
	}
	return nil
}

// Present adds the record. It keeps the TTL of those at the name.
func (p *rfc2136) Present(ctx context.Context, r Record) error {
	r.TTL = p.ttl(ctx, r)
	return p.update(ctx, r, func(m *dns.Msg, rr dns.RR) { m.Insert([]dns.RR{rr}) })
}

// CleanUp removes the record.
func (p *rfc2136) CleanUp(ctx context.Context, r Record) error {
	return p.update(ctx, r, func(m *dns.Msg, rr dns.RR) { m.Remove([]dns.RR{rr}) })
}

// ttl returns the TTL of the existing values at the name, if there are any. All values of a name
// have one TTL, RFC 2181 section 5.2, so another TTL would change theirs.
func (p *rfc2136) ttl(ctx context.Context, r Record) time.Duration {
	answer, err := p.ask(ctx, r.FQDN)
	if err != nil || !answer.Authoritative {
		return r.TTL
	}
	for _, rr := range answer.Answer {
		if h := rr.Header(); h.Rrtype == dns.TypeTXT && resolver.FQDN(h.Name) == r.FQDN {
			return time.Duration(h.Ttl) * time.Second
		}
	}
	return r.TTL
}

// ask asks the server itself for the values at a name.
func (p *rfc2136) ask(ctx context.Context, name string) (*dns.Msg, error) {
	q := new(dns.Msg).SetQuestion(name, dns.TypeTXT)
	q.RecursionDesired = false
	q.SetEdns0(resolver.MaxUDPSize, false)
	client := dns.Client{Net: p.protocol, UDPSize: resolver.MaxUDPSize}
	answer, err := resolver.Exchange(ctx, p.dial, p.protocol, p.nameserver, q, client)
	if err == nil {
		err = resolver.CheckReply(answer, q)
	}
	return answer, err
}

// update sends one change of one record. It tries the zone by DNS first, and then the names above,
// because the server may have other zones than the controller sees.
func (p *rfc2136) update(ctx context.Context, r Record, change func(m *dns.Msg, rr dns.RR)) error {
	var first error
	for _, apex := range apexes(r) {
		zone := resolver.FQDN(apex)
		if first != nil && zone != r.FQDN && p.delegates(ctx, r.FQDN, zone) {
			break
		}
		code, err := p.updateZone(ctx, zone, r, change)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
		if code != dns.RcodeNotAuth && code != dns.RcodeNotZone {
			break
		}
	}
	return first
}

// delegates reports whether the server delegates the zone of a name to other servers. The server
// would accept an update nevertheless, but no resolver could see it.
func (p *rfc2136) delegates(ctx context.Context, name, zone string) bool {
	answer, err := p.ask(ctx, name)
	return err == nil && !answer.Authoritative && resolver.ZoneCut(answer, name, zone) != zone
}

// updateZone sends the change to one zone. Adding an existing record or removing a missing one is
// no error, section 3.4.2. The code is NOTAUTH or NOTZONE only if the server does not have the
// zone, and not if it refuses the signature.
func (p *rfc2136) updateZone(
	ctx context.Context,
	zone string,
	r Record,
	change func(m *dns.Msg, rr dns.RR),
) (code int, err error) {
	m := new(dns.Msg)
	m.SetUpdate(zone)
	change(m, &dns.TXT{
		Hdr: dns.RR_Header{Name: r.FQDN, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: uint32(r.TTL / time.Second)},
		Txt: []string{r.Value},
	})
	client := dns.Client{Net: p.protocol, UDPSize: resolver.MaxUDPSize}
	if p.key != "" {
		m.SetTsig(p.key, p.algorithm, tsigFudge, p.now().Unix())
		client.TsigProvider = tsig(p.secret)
	}
	answer, err := resolver.Exchange(ctx, p.dial, p.protocol, p.nameserver, m, client)
	if answer != nil && answer.IsTsig() != nil && answer.IsTsig().Error != dns.RcodeSuccess {
		return dns.RcodeRefused, fault.Misconfiguredf(
			"PresentError",
			"%s does not accept what is signed with the TSIG key %q (%s): %s",
			p.nameserver,
			strings.TrimSuffix(p.key, "."),
			dns.RcodeToString[int(answer.IsTsig().Error)],
			tsigAdvice(answer.IsTsig().Error),
		)
	}
	apex := strings.TrimSuffix(zone, ".")
	if egress.IsBlockedAddress(err) {
		return dns.RcodeServerFailure, fault.Misconfiguredf("PresentError", "update the zone %s at %s: %w: %s", apex,
			p.nameserver, err, egress.BlockedAddressAdvice)
	}
	if err != nil && (answer == nil || !errors.Is(err, dns.ErrAuth)) { // NOTAUTH
		return dns.RcodeServerFailure, fault.Transientf(
			"PresentError",
			"update the zone %s at %s: %w",
			apex,
			p.nameserver,
			err,
		)
	}
	switch answer.Rcode {
	case dns.RcodeSuccess:
		return answer.Rcode, nil
	case dns.RcodeNotAuth, dns.RcodeNotZone:
		return answer.Rcode, fault.Misconfiguredf(
			"PresentError",
			"%s does not have the zone %s (%s): let dns01.rfc2136.nameserver be the primary server of that zone",
			p.nameserver,
			apex,
			dns.RcodeToString[answer.Rcode],
		)
	case dns.RcodeRefused:
		return answer.Rcode, fault.Misconfiguredf(
			"PresentError",
			"%s refuses to update the zone %s (REFUSED): let it allow %s to change TXT records there, or, if it is a "+
				"secondary of that zone, "+
				"let dns01.rfc2136.nameserver be the primary",
			p.nameserver,
			apex,
			p.client(),
		)
	}
	return answer.Rcode, fault.Transientf(
		"PresentError",
		"update the zone %s at %s: it answers %s",
		apex,
		p.nameserver,
		dns.RcodeToString[answer.Rcode],
	)
}

// tsigAdvice says what to do about an error of RFC 8945 section 5.3.
func tsigAdvice(code uint16) string {
	switch int(code) {
	case dns.RcodeBadKey:
		return "let the server know this key, with this algorithm, or correct tsigKeyName or tsigAlgorithm"
	case dns.RcodeBadTime:
		return "the clocks of the controller and the server differ by more than five minutes"
	default:
		return "the server has another secret, or another algorithm, for it: correct the Secret of tsigSecretSecretRef, " +
			"or tsigAlgorithm"
	}
}

// client names the sender of updates for messages.
func (p *rfc2136) client() string {
	if p.key == "" {
		return "updates that are not signed (or set tsigKeyName)"
	}
	return fmt.Sprintf("the TSIG key %q", strings.TrimSuffix(p.key, "."))
}
