package dns01

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/perennial-pki/perennial/internal/fault"
)

// tsigAlgorithms are the names that cert-manager's API has for those of RFC 8945 section 6.
var tsigAlgorithms = map[string]string{
	"": dns.HmacMD5, "HMACMD5": dns.HmacMD5, "HMACSHA1": dns.HmacSHA1, "HMACSHA256": dns.HmacSHA256, "HMACSHA512": dns.HmacSHA512,
}

// tsigFudge is by how many seconds the clocks may differ.
const tsigFudge = 300

// rfc2136 changes records by dynamic updates, RFC 2136, signed with TSIG, RFC 8945, if there is a key.
type rfc2136 struct {
	nameserver string // host:port, or host
	protocol   string // udp or tcp; udp if empty
	key        string // with a dot at its end; empty if unsigned
	algorithm  string
	secret     string // base64
	dial       func(ctx context.Context, network, address string) (net.Conn, error)
	now        func() time.Time
}

// configure checks what was set. The messages name the fields of the API.
func (p *rfc2136) configure(keyName, algorithm string) error {
	if _, _, err := net.SplitHostPort(p.nameserver); err != nil {
		p.nameserver = net.JoinHostPort(strings.Trim(p.nameserver, "[]"), "53")
	}
	if p.protocol == "" {
		p.protocol = "udp"
	}
	if keyName == "" {
		return nil
	}
	p.key = fqdn(keyName)
	var known bool
	if p.algorithm, known = tsigAlgorithms[strings.ToUpper(algorithm)]; !known {
		return fault.Misconfiguredf("InvalidSolver", "dns01.rfc2136.tsigAlgorithm: %q is none of HMACMD5, HMACSHA1, HMACSHA256, HMACSHA512", algorithm)
	}
	if _, err := base64.StdEncoding.DecodeString(p.secret); err != nil {
		return fault.Misconfiguredf("InvalidSolver", "dns01.rfc2136.tsigSecretSecretRef: the secret is not base64, as tsig-keygen prints it")
	}
	return nil
}

func (p *rfc2136) Present(ctx context.Context, r Record) error {
	return p.update(ctx, r, func(m *dns.Msg, rr dns.RR) { m.Insert([]dns.RR{rr}) })
}

func (p *rfc2136) CleanUp(ctx context.Context, r Record) error {
	return p.update(ctx, r, func(m *dns.Msg, rr dns.RR) { m.Remove([]dns.RR{rr}) })
}

// update sends one change of one record. Adding what is there and removing what is not are no errors, section 3.4.2.
func (p *rfc2136) update(ctx context.Context, r Record, change func(m *dns.Msg, rr dns.RR)) error {
	m := new(dns.Msg)
	m.SetUpdate(r.Zone)
	change(m, &dns.TXT{
		Hdr: dns.RR_Header{Name: r.FQDN, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: uint32(r.TTL / time.Second)},
		Txt: []string{r.Value},
	})
	client := dns.Client{Net: p.protocol, UDPSize: udpSize}
	if p.key != "" {
		m.SetTsig(p.key, p.algorithm, tsigFudge, p.now().Unix())
		client.TsigSecret = map[string]string{p.key: p.secret}
	}
	answer, err := exchangeOver(ctx, p.dial, p.protocol, p.nameserver, m, client)
	if err != nil {
		return fault.Transientf("PresentError", "update %s at %s: %w", r.Zone, p.nameserver, err)
	}
	switch answer.Rcode {
	case dns.RcodeSuccess:
		return nil
	case dns.RcodeServerFailure:
		return fault.Transientf("PresentError", "update %s at %s: it answers SERVFAIL", r.Zone, p.nameserver)
	case dns.RcodeRefused, dns.RcodeNotAuth, dns.RcodeNotZone:
		return fault.Misconfiguredf("PresentError", "%s refuses to update zone %s (%s): allow %s to change TXT records there", p.nameserver, r.Zone,
			dns.RcodeToString[answer.Rcode], p.who())
	}
	return fault.Transientf("PresentError", "update %s at %s: it answers %s", r.Zone, p.nameserver, dns.RcodeToString[answer.Rcode])
}

func (p *rfc2136) who() string {
	if p.key == "" {
		return "updates that are not signed, or set tsigKeyName,"
	}
	return fmt.Sprintf("the TSIG key %q", strings.TrimSuffix(p.key, "."))
}
