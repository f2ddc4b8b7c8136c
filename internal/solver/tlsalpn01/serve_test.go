package tlsalpn01

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/solver"
)

// answering is a Solver with a challenge for a.example.com. It counts how often it reads past its
// cache.
func answering(t *testing.T) (*Solver, *atomic.Int32) {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := cmacme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	ch := challenge("a.example.com")
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(ch).
		WithIndex(&cmacme.Challenge{}, byServerName,
			func(o client.Object) []string { return []string{ServerName(o.(*cmacme.Challenge))} }).
		Build()
	reads := &atomic.Int32{}
	live := interceptor.NewClient(
		c,
		interceptor.Funcs{
			List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, o ...client.ListOption) error {
				reads.Add(1)
				return c.List(ctx, list, o...)
			},
		},
	)
	now := time.Now()
	return &Solver{Cache: c, Live: live, Listens: true, Now: func() time.Time { return now }}, reads
}

func challenge(name string) *cmacme.Challenge {
	return &cmacme.Challenge{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "c"}, Spec: cmacme.ChallengeSpec{
		Type: cmacme.ACMEChallengeTypeTLSALPN01, DNSName: name, Key: "token.thumbprint",
	}}
}

// listen serves until the test ends, and returns the address.
func listen(t *testing.T, l *Listener) string {
	t.Helper()
	l.Log = logr.Discard()
	if l.Solver == nil {
		l.Solver, _ = answering(t)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("it ended with %v", err)
		}
	})
	return listener.Addr().String()
}

// changed sends the first write in another way.
type changed struct {
	net.Conn
	once   sync.Once
	change func(hello []byte) [][]byte
}

func (c *changed) Write(p []byte) (int, error) {
	parts := [][]byte{p}
	c.once.Do(func() { parts = c.change(p) })
	for _, part := range parts {
		if _, err := c.Conn.Write(part); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// ways are the ways in which a ClientHello can arrive.
func ways() map[string]func([]byte) [][]byte {
	return map[string]func([]byte) [][]byte{
		"at once": func(hello []byte) [][]byte { return [][]byte{hello} },
		"byte by byte": func(hello []byte) (parts [][]byte) {
			for b := range slices.Chunk(hello, 1) {
				parts = append(parts, b)
			}
			return parts
		},
		"over many records": func(hello []byte) (parts [][]byte) {
			for body := range slices.Chunk(hello[5:], 50) { // RFC 8446 section 5.1
				parts = append(parts, append([]byte{hello[0], hello[1], hello[2], 0, byte(len(body))}, body...))
			}
			return parts
		},
	}
}

func TestASiteReceivesConnectionsThatAreForNoChallenge(t *testing.T) {
	site := httptest.NewUnstartedServer(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "the site") }),
	)
	site.TLS = &tls.Config{NextProtos: []string{"acme-tls/1", "h2", "http/1.1"}}
	site.StartTLS()
	t.Cleanup(site.Close)
	address := listen(t, &Listener{PassthroughTo: site.Listener.Addr().String()})
	theirs := site.Certificate().Raw
	for way, change := range ways() {
		for what, protocols := range map[string][]string{
			"no protocol": nil, "http/1.1": {"http/1.1"}, "h2": {"h2", "http/1.1"}, "acme-tls/1 and another": {"acme-tls/1", "h2"}, "another and acme-tls/1": {"http/1.1", "acme-tls/1"},
			"acme-tls/1": {"acme-tls/1"}, "acme-tls/1 twice": {"acme-tls/1", "acme-tls/1"},
		} {
			t.Run(what+" "+way, func(t *testing.T) {
				conn, err := net.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				c := tls.Client(
					&changed{Conn: conn, change: change},
					&tls.Config{
						ServerName:         "a.example.com",
						NextProtos:         protocols,
						InsecureSkipVerify: true,
						CurvePreferences:   []tls.CurveID{tls.X25519},
					},
				) // a short one
				if err := c.HandshakeContext(t.Context()); err != nil {
					t.Fatal(err)
				}
				leaf := c.ConnectionState().PeerCertificates[0]
				if ours := what == "acme-tls/1"; bytes.Equal(leaf.Raw, theirs) == ours {
					t.Errorf("it is answered with the certificate of %v", leaf.DNSNames)
				}
			})
		}
	}
}

func TestWhatIsPassedOnIsNotChanged(t *testing.T) {
	site, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { site.Close() })
	address := listen(t, &Listener{PassthroughTo: site.Addr().String()})
	hello := recordedHello(t, "b.example.com", "h2")
	ways := ways()
	ways["with a name that this listener does not understand"] = func(hello []byte) [][]byte {
		return [][]byte{bytes.Replace(hello, []byte("b.example.com"), []byte("b.example.co."), 1)}
	}
	sent := append(slices.Clone(hello), "and what follows, of which nothing is understood"...)
	for way, change := range ways {
		t.Run(way, func(t *testing.T) { checkPassedOn(t, site, address, append(change(hello), sent[len(hello):])) })
	}
}

// checkPassedOn sends the parts of a message to an address, and checks that they reach a site, and
// its answer the sender.
func checkPassedOn(t *testing.T, site net.Listener, address string, parts [][]byte) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var all []byte
	for _, part := range parts {
		all = append(all, part...)
		if _, err := conn.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	at, err := site.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	got, err := io.ReadAll(at)
	if err != nil || !bytes.Equal(got, all) {
		t.Errorf("of %d bytes %d came, or others: %v", len(all), len(got), err)
	}
	if _, err := at.Write([]byte("an answer")); err != nil { // though the visitor has said all
		t.Fatal(err)
	}
	at.Close()
	if got, err := io.ReadAll(conn); err != nil || string(got) != "an answer" {
		t.Errorf("the answer is %q, %v", got, err)
	}
}

// recordedHello is a ClientHello, a short one: the curve keeps the large shares of post-quantum
// exchanges out.
func recordedHello(t testing.TB, name string, protocols ...string) []byte {
	t.Helper()
	w := &written{}
	_ = tls.Client(w, &tls.Config{ServerName: name, NextProtos: protocols, InsecureSkipVerify: true,
		CurvePreferences: []tls.CurveID{tls.X25519}}).
		Handshake()
	if len(w.all) == 0 {
		t.Fatal("there is no ClientHello")
	}
	return w.all
}

// written is a connection without a peer.
type written struct {
	net.Conn
	all []byte
}

func (w *written) Write(p []byte) (int, error)      { w.all = append(w.all, p...); return len(p), nil }
func (*written) Read([]byte) (int, error)           { return 0, io.EOF }
func (*written) Close() error                       { return nil }
func (*written) SetDeadline(time.Time) error        { return nil }
func (*written) SetReadDeadline(time.Time) error    { return nil }
func (*written) SetWriteDeadline(t time.Time) error { return nil }

// closed waits until the other side has closed a connection.
func closed(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		t.Error("the connection stays open")
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func TestASilentConnectionIsClosedSoon(t *testing.T) {
	site, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { site.Close() })
	hello := recordedHello(t, "a.example.com", "h2")
	for name, first := range map[string][]byte{"nothing": nil, "half of a ClientHello": hello[:len(hello)/2],
		"no TLS": []byte("GET / HTTP/1.1\r\n\r\n")} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial(
				"tcp",
				listen(t, &Listener{PassthroughTo: site.Addr().String(), patience: 20 * time.Millisecond}),
			)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write(first); err != nil {
				t.Fatal(err)
			}
			closed(t, conn)
		})
	}
}

func TestAClientHelloWithoutEndIsNotRead(t *testing.T) {
	conn, err := net.Dial("tcp", listen(t, &Listener{}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		body := make([]byte, 16<<10)
		copy(body, []byte{1, 0xff, 0xff, 0xff}) // a ClientHello of 16 MiB
		record := append([]byte{22, 3, 1, byte(len(body) >> 8), byte(len(body) & 0xff)}, body...)
		for range 1 << 10 {
			if _, err := conn.Write(record); err != nil {
				return
			}
		}
	}()
	closed(t, conn)

	// The library allows 64 KiB, which may come in records of one byte, each with a header of five.
	drip := &records{body: []byte{1, 0, 0xff, 0xf0}}
	if hello, _, err := clientHello(t.Context(), drip, time.Minute); hello != nil || err == nil {
		t.Errorf("got a ClientHello %v, and the error %v", hello, err)
	}
	if drip.read > maxHello+(1<<10) {
		t.Errorf("%d bytes were read", drip.read)
	}
}

// records is a connection from which a handshake message comes in records of one byte. After body
// it is zeros.
type records struct {
	net.Conn
	body []byte
	rest []byte // of the current record
	read int
}

func (*records) SetReadDeadline(time.Time) error { return nil }

func (r *records) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		next := byte(0)
		if len(r.body) > 0 {
			next, r.body = r.body[0], r.body[1:]
		}
		r.rest = []byte{22, 3, 1, 0, 1, next}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	r.read += n
	return n, nil
}

func TestManySilentConnectionsKeepOutNoOther(t *testing.T) {
	address := listen(t, &Listener{most: 3, patience: time.Hour})
	var silent []net.Conn
	for range 5 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		silent = append(silent, conn)
	}
	closed(t, silent[0])
	closed(t, silent[1])
	conn, err := tls.Dial(
		"tcp",
		address,
		&tls.Config{ServerName: "A.example.com", NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true},
	)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestOfSeveralChallengesForANameThatIsAnsweredWhichIsPresented(t *testing.T) {
	for name, status := range map[string]cmacme.ChallengeStatus{
		"presented":                     {Presented: true, Processing: true},
		"being presented, in this pass": {Processing: true},
	} {
		t.Run(name, func(t *testing.T) { answersForOneOfSeveral(t, status) })
	}
}

func answersForOneOfSeveral(t *testing.T, status cmacme.ChallengeStatus) {
	s, _ := answering(t)
	for _, name := range []string{"a", "d", "e"} { // all but c
		ch := challenge("a.example.com")
		ch.Name, ch.Spec.Key = name, "token-"+name+".thumbprint"
		ch.Labels = map[string]string{cmacme.DomainLabelKey: solver.HashLabelValue("a.example.com")}
		if name == "d" {
			ch.Status = status
		}
		if err := s.Cache.(client.Client).Create(t.Context(), ch); err != nil {
			t.Fatal(err)
		}
		if place, err := s.Place(t.Context(), ch); s.Capacity(ch) != 1 || place != "a.example.com:443" || err != nil {
			t.Errorf("there is room for %d at %q, %v", s.Capacity(ch), place, err)
		}
	}
	s.Site = solver.Site{Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, listen(t, &Listener{Solver: s}))
	}}
	ch := challenge("a.example.com")
	ch.Spec.Key = "token-d.thumbprint"
	for range 20 {
		if seen, err := s.Check(t.Context(), nil, ch); err != nil || !seen.Visible {
			t.Fatalf("it sees %+v, %v", seen, err)
		}
	}
}

func TestStrangersMakeUsAskTheAPIServerSeldom(t *testing.T) {
	s, reads := answering(t)
	for i := range 50 {
		if _, err := s.certificate(t.Context(), fmt.Sprintf("n%d.example.com", i)); err == nil {
			t.Error("a name without a challenge has a certificate")
		}
	}
	if n := reads.Load(); n == 0 || n > 10 {
		t.Errorf("it was read %d times", n)
	}
}

func TestASiteIsLookedAtAsACAWould(t *testing.T) {
	other := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(other.Close)
	ours := listen(t, &Listener{})
	wrong, err := acme.TLSALPN01Certificate(acme.DNS("a.example.com"), "other.thumbprint", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	speaks := func(certificate tls.Certificate, protocols ...string) string {
		l, err := tls.Listen(
			"tcp",
			"127.0.0.1:0",
			&tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: protocols},
		)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() { _ = conn.(*tls.Conn).Handshake(); conn.Close() }()
			}
		}()
		return l.Addr().String()
	}
	for name, test := range map[string]struct {
		host, at string
		why      string // visible if empty
	}{
		"the proof": {"a.example.com", ours, ""},
		"a server with protocols": {"a.example.com", other.Listener.Addr().String(), "does not answer the protocol " +
			"acme-tls/1: remote error: tls: no application protocol: what listens there, with the certificate of " +
			"\"example.com\""},
		"a server without protocols": {"a.example.com", speaks(other.TLS.Certificates[0]), `a.example.com:443 answers, but does not speak acme-tls/1: another server, with the certificate of "example.com"`},
		"another ACME client":        {"a.example.com", speaks(*wrong, "acme-tls/1"), `proves something else, for "a.example.com"`},
		"unknown":                    {"a.example.com", "127.0.0.1:1", "cannot be connected to"},
		"a host without a challenge": {"b.example.com", ours, "does not answer the protocol acme-tls/1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Solver{Now: time.Now, Site: solver.Site{Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, network, test.at)
			}}}
			seen, err := s.Check(t.Context(), nil, challenge(test.host))
			if err != nil {
				t.Fatal(err)
			}
			if seen.Visible != (test.why == "") || !bytes.Contains([]byte(seen.Why), []byte(test.why)) {
				t.Errorf("got %+v", seen)
			}
		})
	}
}

func FuzzClientHello(f *testing.F) {
	hello := recordedHello(f, "a.example.com", "acme-tls/1")
	f.Add(hello)
	f.Add(recordedHello(f, "", "h2", "http/1.1"))
	f.Add(hello[:len(hello)-1])
	f.Add(append(slices.Clone(hello), hello...))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		hello, read, err := clientHello(context.Background(), &from{Reader: bytes.NewReader(sent)}, time.Minute)
		if err != nil {
			return
		}
		if hello == nil || !bytes.HasPrefix(sent, read) || len(read) > maxHello+(16<<10)+512 {
			t.Errorf("of %d bytes %d were read: %+v", len(sent), len(read), hello)
		}
	})
}

// from is a connection that is only read from.
type from struct {
	written
	io.Reader
}

func (f *from) Read(p []byte) (int, error) { return f.Reader.Read(p) }
