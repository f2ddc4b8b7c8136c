package dns01

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/perennial-pki/perennial/internal/fault"
)

// updatable is a server that takes signed updates of the zone example.com.
type updatable struct {
	address string
	hash    func() hash.Hash
	// answers is the error of the TSIG with which each update is answered, if not 0.
	answers uint16

	mu     sync.Mutex
	values []string
}

// all returns the records of the zone.
func (u *updatable) all() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.values)
}

const tsigSecret = "c2VjcmV0"

func (u *updatable) Generate(msg []byte, _ *dns.TSIG) ([]byte, error) {
	secret, err := base64.StdEncoding.DecodeString(tsigSecret)
	if err != nil {
		return nil, err
	}
	h := hmac.New(u.hash, secret)
	h.Write(msg)
	return h.Sum(nil), nil
}

func (u *updatable) Verify(msg []byte, t *dns.TSIG) error {
	want, err := u.Generate(msg, t)
	if err != nil {
		return err
	}
	if t.MAC != hex.EncodeToString(want) {
		return dns.ErrSig
	}
	return nil
}

func (u *updatable) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	t := q.IsTsig()
	code := u.answers
	if code == 0 && w.TsigStatus() != nil {
		code = dns.RcodeBadSig
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case code != 0:
		m.Rcode = dns.RcodeNotAuth
	case len(q.Question) != 1 || q.Question[0].Name != "example.com.":
		m.Rcode = dns.RcodeNotAuth
	default:
		for _, rr := range q.Ns {
			if value := rr.(*dns.TXT).Txt[0]; rr.Header().Class == dns.ClassNONE {
				u.values = slices.DeleteFunc(u.values, func(v string) bool { return v == value })
			} else if !slices.Contains(u.values, value) {
				u.values = append(u.values, value)
			}
		}
	}
	if t != nil {
		m.SetTsig(t.Hdr.Name, t.Algorithm, 300, int64(t.TimeSigned))
		m.IsTsig().Error = code
	}
	_ = w.WriteMsg(m)
}

func (u *updatable) start(t *testing.T, protocol string) {
	t.Helper()
	accept := func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }
	server := &dns.Server{Handler: u, TsigProvider: u, MsgAcceptFunc: accept}
	if protocol == "tcp" {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server.Listener, u.address = listener, listener.Addr().String()
	} else {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server.PacketConn, u.address = conn, conn.LocalAddr().String()
	}
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	go func() { _ = server.ActivateAndServe() }()
	<-started
	t.Cleanup(func() { _ = server.Shutdown() })
}

func (u *updatable) provider(t *testing.T, protocol, algorithm, secret string) *rfc2136 {
	t.Helper()
	p := &rfc2136{nameserver: u.address, protocol: protocol, secret: secret, now: time.Now}
	if err := p.configure("Key", algorithm); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestUpdatesAreSignedByEachAlgorithm(t *testing.T) {
	for _, protocol := range []string{"udp", "tcp"} {
		for algorithm, hash := range map[string]func() hash.Hash{"": md5.New, "HMACMD5": md5.New, "hmacsha1": sha1.New, "HMACSHA256": sha256.New, "HMACSHA512": sha512.New} {
			t.Run(protocol+" "+algorithm, func(t *testing.T) {
				u := &updatable{hash: hash, values: []string{"somebody else's"}}
				u.start(t, protocol)
				p := u.provider(t, protocol, algorithm, tsigSecret)
				// The server may have the zone above the one that DNS shows.
				r := Record{FQDN: "_acme-challenge.www.example.com.", Zone: "www.example.com.", Value: "ours", TTL: time.Minute}
				for range 2 {
					if err := p.Present(t.Context(), r); err != nil {
						t.Fatal(err)
					}
				}
				if got := u.all(); !slices.Equal(got, []string{"somebody else's", "ours"}) {
					t.Errorf("it has %q", got)
				}
				for range 2 {
					if err := p.CleanUp(t.Context(), r); err != nil {
						t.Fatal(err)
					}
				}
				if got := u.all(); !slices.Equal(got, []string{"somebody else's"}) {
					t.Errorf("afterwards it has %q", got)
				}
			})
		}
	}
}

func TestWhatAServerRefusesToUpdate(t *testing.T) {
	for name, test := range map[string]struct {
		secret  string
		answers uint16
		zone    string
		says    string
	}{
		"with another secret":   {"b3RoZXI=", 0, "example.com.", "(BADSIG): the server has another secret"},
		"with a key it has not": {tsigSecret, dns.RcodeBadKey, "example.com.", "(BADKEY): let the server know this key"},
		"when a clock is wrong": {tsigSecret, dns.RcodeBadTime, "example.com.", "(BADTIME): the clocks"},
		"in a zone that it has not": {tsigSecret, 0, "example.org.", "does not have the zone example.org (NOTAUTH): let " +
			"dns01.rfc2136.nameserver be the primary server of that zone"},
	} {
		t.Run(name, func(t *testing.T) {
			u := &updatable{hash: sha256.New, answers: test.answers}
			u.start(t, "udp")
			err := u.provider(t, "udp", "HMACSHA256", test.secret).
				Present(t.Context(), Record{FQDN: "_acme-challenge." + test.zone, Zone: test.zone, Value: "v", TTL: time.Minute})
			if fault.Of(err).Class != fault.Misconfigured || !strings.Contains(err.Error(), test.says) ||
				strings.Contains(err.Error(), test.secret) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestEveryNameServerThatTheAPITakesIsAnAddress(t *testing.T) {
	for given, want := range map[string]string{
		"ns1.example.com": "ns1.example.com:53", "ns1.example.com:5353": "ns1.example.com:5353", "ns1.example.com:": "ns1.example.com:53",
		" 192.0.2.1:53 ": "192.0.2.1:53", " ns1.example.com ": "ns1.example.com:53", "[2001:db8::1]": "[2001:db8::1]:53", "[2001:db8::1]:": "[2001:db8::1]:53",
	} {
		p := &rfc2136{nameserver: given}
		if err := p.configure("", ""); err != nil || p.nameserver != want {
			t.Errorf("%q: %q, %v", given, p.nameserver, err)
		}
	}
}
