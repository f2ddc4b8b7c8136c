package dnstest

import (
	"crypto/hmac"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// A Primary is a server that takes signed updates of the zone example.com.
type Primary struct {
	// Address is host:port, after Start.
	Address string
	// Hash is that of the TSIG key.
	Hash func() hash.Hash
	// TSIGError is the error with which each update is answered, if not 0.
	TSIGError uint16
	// Values are the values of the records, of any name.
	Values []string

	mu sync.Mutex
}

// All returns the values of the zone.
func (u *Primary) All() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.Values)
}

// TSIGSecret is the secret of the TSIG key, in base64.
const TSIGSecret = "c2VjcmV0"

// Generate computes the MAC of a message.
func (u *Primary) Generate(msg []byte, _ *dns.TSIG) ([]byte, error) {
	secret, err := base64.StdEncoding.DecodeString(TSIGSecret)
	if err != nil {
		return nil, err
	}
	h := hmac.New(u.Hash, secret)
	h.Write(msg)
	return h.Sum(nil), nil
}

// Verify checks the MAC of a message.
func (u *Primary) Verify(msg []byte, t *dns.TSIG) error {
	want, err := u.Generate(msg, t)
	if err != nil {
		return err
	}
	if t.MAC != hex.EncodeToString(want) {
		return dns.ErrSig
	}
	return nil
}

// ServeDNS carries an update out.
func (u *Primary) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	t := q.IsTsig()
	code := u.TSIGError
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
				u.Values = slices.DeleteFunc(u.Values, func(v string) bool { return v == value })
			} else if !slices.Contains(u.Values, value) {
				u.Values = append(u.Values, value)
			}
		}
	}
	if t != nil {
		m.SetTsig(t.Hdr.Name, t.Algorithm, 300, int64(t.TimeSigned))
		m.IsTsig().Error = code
	}
	_ = w.WriteMsg(m)
}

// Start starts the server over UDP or TCP, until the test ends.
func (u *Primary) Start(t *testing.T, protocol string) {
	t.Helper()
	accept := func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }
	server := &dns.Server{Handler: u, TsigProvider: u, MsgAcceptFunc: accept}
	if protocol == "tcp" {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server.Listener, u.Address = listener, listener.Addr().String()
	} else {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server.PacketConn, u.Address = conn, conn.LocalAddr().String()
	}
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	go func() { _ = server.ActivateAndServe() }()
	<-started
	t.Cleanup(func() { _ = server.Shutdown() })
}
