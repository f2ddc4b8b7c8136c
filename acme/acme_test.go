package acme

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// server is an ACME server that says what a test wants it to say.
type server struct {
	*httptest.Server
	mu      sync.Mutex
	nonce   int
	handler http.HandlerFunc // of everything but the directory and nonces
	// directory has more to say in the directory.
	directory map[string]any
	nonces    []string // those of the signed requests, in order
}

func newServer(t *testing.T, handler func(s *server, w http.ResponseWriter, r *http.Request)) (*server, *Client) {
	t.Helper()
	s := &server{}
	s.handler = func(w http.ResponseWriter, r *http.Request) { handler(s, w, r) }
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.nonce++
		w.Header().Set("Replay-Nonce", "nonce"+strconv.Itoa(s.nonce))
		s.mu.Unlock()
		switch r.URL.Path {
		case "/dir":
			w.Header().Del("Replay-Nonce")
			directory := map[string]any{
				"newNonce": s.URL + "/nonce", "newAccount": s.URL + "/account", "newOrder": s.URL + "/new-order",
				"renewalInfo": s.URL + "/ari/", "keyChange": s.URL + "/key-change",
			}
			for k, v := range s.directory {
				directory[k] = v
			}
			_ = json.NewEncoder(w).Encode(directory)
		case "/nonce":
		default:
			if r.Method == http.MethodPost {
				s.mu.Lock()
				s.nonces = append(s.nonces, header(t, r).Nonce)
				s.mu.Unlock()
			}
			s.handler(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s, &Client{Directory: s.URL + "/dir", HTTP: s.Client(), Now: func() time.Time { return now }}
}

func header(t *testing.T, r *http.Request) protected {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	var m jws
	var p protected
	if err := json.Unmarshal(body, &m); err != nil {
		t.Errorf("request %q: %v", body, err)
		return p
	}
	raw, err := base64.RawURLEncoding.DecodeString(m.Protected)
	if err == nil {
		err = json.Unmarshal(raw, &p)
	}
	if err != nil {
		t.Errorf("protected header: %v", err)
	}
	return p
}

func problem(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

var testKey = sync.OnceValue(func() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
})

func (s *server) account() Account { return Account{URL: s.URL + "/acct/1", Key: testKey()} }

const pendingOrder = `{"status":"pending","identifiers":[{"type":"dns","value":"a.example"}],"authorizations":["URL/authz/1"],"finalize":"URL/fin/1"}`

func TestARefusedNonceIsReplacedByTheOneOfTheRefusal(t *testing.T) {
	refusals := 3
	s, c := newServer(t, func(s *server, w http.ResponseWriter, r *http.Request) {
		if refusals--; refusals >= 0 {
			problem(w, 400, `{"type":"urn:ietf:params:acme:error:badNonce"}`)
			return
		}
		w.Header().Set("Location", s.URL+"/order/1")
		w.WriteHeader(201)
		_, _ = io.WriteString(w, strings.ReplaceAll(pendingOrder, "URL", s.URL))
	})
	o, err := c.NewOrder(t.Context(), s.account(), OrderRequest{Identifiers: []Identifier{DNS("a.example")}})
	if err != nil {
		t.Fatal(err)
	}
	if o.URL != s.URL+"/order/1" || o.Status != StatusPending {
		t.Errorf("got %+v", o)
	}
	// The first comes from newNonce; each refusal brings the next.
	if got := strings.Join(s.nonces, " "); got != "nonce2 nonce3 nonce4 nonce5" {
		t.Errorf("nonces %s", got)
	}
}

func TestAServerThatRefusesEveryNonceIsNotAskedForEver(t *testing.T) {
	s, c := newServer(t, func(_ *server, w http.ResponseWriter, _ *http.Request) {
		problem(w, 400, `{"type":"urn:ietf:params:acme:error:badNonce"}`)
	})
	_, err := c.Order(t.Context(), s.account(), s.URL+"/order/1")
	if !IsProblem(err, ProblemBadNonce) || len(s.nonces) != maxNonceTries {
		t.Errorf("after %d tries: %v", len(s.nonces), err)
	}
}

func TestWhatIsNotTrusted(t *testing.T) {
	order := func(change func(body string, s *server) string) func(s *server, w http.ResponseWriter, r *http.Request) {
		return func(s *server, w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, change(strings.ReplaceAll(pendingOrder, "URL", s.URL), s))
		}
	}
	for name, test := range map[string]struct {
		handler func(s *server, w http.ResponseWriter, r *http.Request)
		want    string
	}{
		"a redirect": {func(s *server, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, s.URL+"/elsewhere", http.StatusTemporaryRedirect)
		}, "redirects are not followed"},
		"a reply without end": {func(_ *server, w http.ResponseWriter, _ *http.Request) {
			chunk := bytes.Repeat([]byte("x"), 64<<10)
			for range 64 {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}, "larger than 512 KiB"},
		"an authorization on another host": {order(func(body string, s *server) string {
			return strings.Replace(body, s.URL+"/authz/1", "https://169.254.169.254/authz/1", 1)
		}), "not on a host that the directory names"},
		"a finalize URL in clear text": {order(func(body string, s *server) string {
			return strings.Replace(body, s.URL+"/fin/1", "http"+strings.TrimPrefix(s.URL, "https")+"/fin/1", 1)
		}), "not an https URL"},
		"a status that no order has": {order(func(body string, _ *server) string {
			return strings.Replace(body, "pending", "maybe", 1)
		}), `"maybe" is no status of an order`},
		"a body that ends early": {order(func(body string, _ *server) string { return body[:len(body)/2] }), "not the JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			s, c := newServer(t, test.handler)
			_, err := c.Order(t.Context(), s.account(), s.URL+"/order/1")
			var p *ProtocolError
			if !errors.As(err, &p) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestAStoredURLOfAnotherHostIsNotAsked(t *testing.T) {
	s, c := newServer(t, nil)
	_, err := c.Order(t.Context(), s.account(), "https://other.example/order/1")
	var foreign *ForeignURLError
	if !errors.As(err, &foreign) || !strings.Contains(err.Error(), "not on a host that the directory names") {
		t.Error(err)
	}
}

func TestAHostThatTheDirectoryNamesMayBeAsked(t *testing.T) {
	s, c := newServer(t, func(s *server, w http.ResponseWriter, _ *http.Request) {
		body := strings.ReplaceAll(pendingOrder, "URL", s.URL)
		_, _ = io.WriteString(w, strings.Replace(body, s.URL+"/authz", "https://authz.example:8443/authz", 1))
	})
	s.directory = map[string]any{"revokeCert": "https://AUTHZ.example:8443/revoke"}
	o, err := c.Order(t.Context(), s.account(), s.URL+"/order/1")
	if err != nil || o.Authorizations[0] != "https://authz.example:8443/authz/1" {
		t.Errorf("%v %v", o, err)
	}
}

func TestAnAuthorizationCanComeBeforeAnOrder(t *testing.T) {
	s, c := newServer(t, func(s *server, w http.ResponseWriter, r *http.Request) {
		if url := header(t, r).URL; url != s.URL+"/new-authz" {
			t.Errorf("it is asked at %s", url)
		}
		w.Header().Set("Location", "/authz/7")
		w.WriteHeader(201)
		_, _ = io.WriteString(w, `{"status":"pending","identifier":{"type":"dns","value":"a.example"},"challenges":[]}`)
	})
	var no *UnsupportedError
	if _, err := c.NewAuthorization(t.Context(), s.account(), DNS("a.example")); !errors.As(err, &no) {
		t.Errorf("without it in the directory: %v", err)
	}
	s.directory = map[string]any{"newAuthz": s.URL + "/new-authz"}
	c = &Client{Directory: c.Directory, HTTP: c.HTTP, Now: c.Now}
	z, err := c.NewAuthorization(t.Context(), s.account(), DNS("a.example"))
	if err != nil || z.URL != s.URL+"/authz/7" || z.Identifier != DNS("a.example") {
		t.Errorf("%+v, %v", z, err)
	}
}

func TestAReplyThatDripsIsNotWaitedFor(t *testing.T) {
	s, c := newServer(t, func(_ *server, w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		_, _ = io.WriteString(w, "{")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done() // until the client goes
	})
	if _, err := c.FetchDirectory(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Timeout = 100 * time.Millisecond
	if _, err := c.Order(t.Context(), s.account(), s.URL+"/order/1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestAProblemSaysWhatTheServerSaid(t *testing.T) {
	s, c := newServer(t, func(_ *server, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "120")
		w.Header().Add("Link", `<https://ca.example/tos>;rel="terms-of-service"`)
		problem(
			w,
			429,
			`{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many\u0007 certificates","subproblems":[
			{"type":"urn:ietf:params:acme:error:caa","detail":"CAA forbids","identifier":{"type":"dns","value":"a.example"}}]}`,
		)
	})
	_, err := c.NewOrder(t.Context(), s.account(), OrderRequest{})
	var p *Problem
	if !errors.As(err, &p) {
		t.Fatal(err)
	}
	if want := "newOrder: 429 urn:ietf:params:acme:error:rateLimited: too many  certificates: a.example: " +
		"urn:ietf:params:acme:error:caa: CAA forbids"; err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
	if !p.RetryAfter.Equal(now.Add(2*time.Minute)) || p.Status != 429 || p.TermsOfService != "https://ca.example/tos" {
		t.Errorf("got %+v", p)
	}
}

func TestAnErrorThatIsNoProblemDocumentIsOneNevertheless(t *testing.T) {
	s, c := newServer(t, func(_ *server, w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "<html>bad gateway", http.StatusBadGateway)
	})
	_, err := c.Order(t.Context(), s.account(), s.URL+"/order/1")
	if err == nil || err.Error() != "order: Bad Gateway (HTTP status 502)" {
		t.Error(err)
	}
	// That there is no directory says where.
	s, c = newServer(t, func(_ *server, w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) })
	c.Directory = s.URL + "/nothing"
	_, err = c.Order(t.Context(), s.account(), s.URL+"/order/1")
	if p := new(
		Problem,
	); !errors.As(err, &p) ||
		err.Error() != "order: directory: Not Found (HTTP status 404), at "+s.URL+"/nothing" {
		t.Error(err)
	}
}

func TestRetryAfter(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"0": 0, "3": 3 * time.Second, "1000000000": maxRetryAfter, "99999999999999999999": -1, "-1": -1, "": -1, "soon": -1,
		"Sun, 01 Nov 2026 12:01:00 GMT": time.Minute, "Sun, 01 Nov 2020 12:01:00 GMT": 0, "Fri, 31 Dec 9999 23:59:59 GMT": maxRetryAfter,
	} {
		at, ok := parseRetryAfter(in, now)
		if ok != (want >= 0) || ok && !at.Equal(now.Add(want)) {
			t.Errorf("%q: %v %v", in, at, ok)
		}
	}
}

// TestARetryAfterIsByTheClockOfTheServer uses a client whose clock is ahead or behind.
func TestARetryAfterIsByTheClockOfTheServer(t *testing.T) {
	for name, test := range map[string]struct {
		ahead      time.Duration
		retryAfter string
		wait       time.Duration
	}{
		"ahead":              {time.Hour, now.Add(2 * time.Minute).UTC().Format(http.TimeFormat), 2 * time.Minute},
		"behind":             {-time.Hour, now.Add(2 * time.Minute).UTC().Format(http.TimeFormat), 2 * time.Minute},
		"ahead, and seconds": {time.Hour, "120", 2 * time.Minute},
		"the past":           {-time.Hour, now.Add(-time.Minute).UTC().Format(http.TimeFormat), 0},
		"a year":             {time.Hour, now.AddDate(1, 0, 0).UTC().Format(http.TimeFormat), maxRetryAfter},
	} {
		t.Run(name, func(t *testing.T) {
			s, c := newServer(t, func(_ *server, w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
				w.Header().Set("Retry-After", test.retryAfter)
				problem(w, 429, `{"type":"urn:ietf:params:acme:error:rateLimited"}`)
			})
			ours := now.Add(test.ahead)
			c.Now = func() time.Time { return ours }
			_, err := c.NewOrder(t.Context(), s.account(), OrderRequest{})
			var p *Problem
			if !errors.As(err, &p) || p.RetryAfter.Sub(ours) != test.wait {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestLinks(t *testing.T) {
	base, _ := url.Parse("https://ca.example/cert/1")
	got := parseLinks([]string{
		`<https://ca.example/dir>;rel="index"`,
		`</cert/1/1>; title="a, b; c"; rel="alternate" , <2>;rel=alternate;rel=next`, `nonsense`, `<x`, `<y>;rel`,
	}, base)
	want := []Link{
		{"https://ca.example/dir", "index"},
		{"https://ca.example/cert/1/1", "alternate"},
		{"https://ca.example/cert/2", "alternate"},
	}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %v, want %v", got[i], want[i])
		}
	}
}

func TestSignaturesVerify(t *testing.T) {
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	rsaKey, _ := rsa.GenerateKey(rand.Reader, 2048)
	for name, key := range map[string]crypto.Signer{"ES256": testKey(), "ES384": p384, "RS256": rsaKey} {
		t.Run(name, func(t *testing.T) {
			body, err := signJWS(protected{URL: "https://ca.example/x", Nonce: "n"}, []byte("{}"), key)
			if err != nil {
				t.Fatal(err)
			}
			var m jws
			if err := json.Unmarshal(body, &m); err != nil {
				t.Fatal(err)
			}
			signature, _ := base64.RawURLEncoding.DecodeString(m.Signature)
			alg, _ := algorithmOf(key.Public())
			h := alg.hash.New()
			h.Write([]byte(m.Protected + "." + m.Payload))
			ok := false
			switch pub := key.Public().(type) {
			case *ecdsa.PublicKey:
				half := len(signature) / 2
				ok = ecdsa.Verify(pub, h.Sum(nil), new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:]))
			case *rsa.PublicKey:
				ok = rsa.VerifyPKCS1v15(pub, crypto.SHA256, h.Sum(nil), signature) == nil
			}
			if !ok || alg.name != name {
				t.Errorf("%s does not verify", alg.name)
			}
		})
	}
}

// The example of RFC 7638 section 3.1.
func TestThumbprintOfTheRFC(t *testing.T) {
	n, _ := base64.RawURLEncoding.DecodeString(
		"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjB" +
			"ZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8" +
			"KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_" +
			"xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
	)
	got, err := Thumbprint(&rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537})
	if err != nil || got != "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs" {
		t.Errorf("%s %v", got, err)
	}
}

// The example of RFC 9773 section 4.1.
func TestCertIDOfTheRFC(t *testing.T) {
	aki, _ := base64.RawURLEncoding.DecodeString("aYhba4dGQEHhs3uEe6CuLN4ByNQ")
	serial, _ := new(big.Int).SetString("8765432100", 16)
	got, err := CertID(
		&x509.Certificate{AuthorityKeyId: aki, SerialNumber: new(big.Int).SetBytes([]byte{0x87, 0x65, 0x43, 0x21})},
	)
	if err != nil || got != "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE" {
		t.Errorf("%s %v", got, err)
	}
	if _, err := CertID(&x509.Certificate{SerialNumber: serial}); err == nil {
		t.Error("a certificate without an authority key identifier has an ID")
	}
}

func TestServerNamesOfTLSALPN01(t *testing.T) {
	for value, want := range map[Identifier]string{
		DNS("A.example"):              "a.example",
		{IdentifierIP, "192.0.2.10"}:  "10.2.0.192.in-addr.arpa",
		{IdentifierIP, "2001:db8::1"}: "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
		{IdentifierIP, "not-address"}: "",
	} {
		got, err := TLSALPN01ServerName(value)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%v: %s %v", value, got, err)
		}
	}
}

func TestRenewalInfo(t *testing.T) {
	body := `{"suggestedWindow":{"start":"2026-11-02T00:00:00Z","end":"2026-11-03T00:00:00Z"},"explanationURL":"https://ca.example/why"}`
	_, c := newServer(t, func(_ *server, w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ari/aki.serial" {
			t.Errorf("asked %s", r.URL.Path)
		}
		w.Header().Set("Retry-After", "21600")
		_, _ = io.WriteString(w, body)
	})
	info, err := c.RenewalInfo(t.Context(), "aki.serial")
	if err != nil || info.SuggestedWindow.End.Sub(info.SuggestedWindow.Start) != 24*time.Hour ||
		info.ExplanationURL == "" ||
		!info.RetryAfter.Equal(now.Add(6*time.Hour)) {
		t.Errorf("%+v %v", info, err)
	}
	body = `{"suggestedWindow":{"start":"2026-11-03T00:00:00Z","end":"2026-11-02T00:00:00Z"}}`
	if _, err := c.RenewalInfo(t.Context(), "aki.serial"); err == nil {
		t.Error("a window that ends before its start passed")
	}
	// RFC 3339 cannot represent the year 10000, so a status with it could not be stored.
	body = `{"suggestedWindow":{"start":"2026-11-02T00:00:00Z","end":"9999-12-31T23:59:59-10:00"}}`
	if info, err := c.RenewalInfo(t.Context(), "aki.serial"); err == nil {
		t.Errorf("a window until %s passed", info.SuggestedWindow.End.UTC())
	}
}

func TestExchangesAreObserved(t *testing.T) {
	s, c := newServer(t, func(_ *server, w http.ResponseWriter, _ *http.Request) { problem(w, 404, `{}`) })
	var seen []string
	c.Observe = func(e Exchange) { seen = append(seen, e.Method+" "+e.Action+" "+strconv.Itoa(e.Status)) }
	_, _ = c.Order(t.Context(), s.account(), s.URL+"/order/1")
	if got := strings.Join(seen, ", "); got != "GET directory 200, HEAD newNonce 200, POST order 404" {
		t.Error(got)
	}
}

func FuzzReplies(f *testing.F) {
	from := origins{"https://ca.example:443"}
	for _, seed := range []string{
		strings.ReplaceAll(pendingOrder, "URL", "https://ca.example"), `{"newNonce":"https://ca.example/n"}`, `[]`, `{"status":"valid"}`,
		`{"status":"pending","identifier":{"type":"dns","value":"a"},"challenges":[{"type":"http-01","url":"https://ca.example/c","token":"t"}]}`,
		`{"type":"x","subproblems":[{"identifier":null},{}],"status":"9"}`, `{"suggestedWindow":{"start":"2026-11-03T00:00:00Z"}}`,
		`{"status":"valid","contact":["mailto:a@ca.example"],"orders":"https://ca.example/orders","URL":"https://ca.example/2"}`,
		`{"orders":["https://ca.example/order/1","https://other.example/order/2"]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		checkDirectory(t, body)
		if o, err := parseOrder(body, from); err == nil && from.check(o.Finalize) != nil {
			t.Error("an order of another origin passed")
		}
		if a, err := parseAccount(body); err == nil && (a.URL != "" || a.Key != nil) {
			t.Errorf("the body says that the account is %s", a.URL)
		}
		l, err := parseOrders(body, from)
		if err == nil && slices.ContainsFunc(l.Orders, func(u string) bool { return from.check(u) != nil }) {
			t.Errorf("orders of another origin passed: %q", l.Orders)
		}
		checkTokens(t, body, from)
		if p := parseProblem(400, "application/json", body, nil); strings.ContainsAny(p.Error(), "\n\r\x1b\x00") {
			t.Errorf("%q", p.Error())
		}
		if i, err := parseRenewalInfo(body); err == nil && !i.SuggestedWindow.End.After(i.SuggestedWindow.Start) {
			t.Error("an empty window passed")
		}
	})
}

func checkDirectory(t *testing.T, body []byte) {
	if d, err := parseDirectory("https://ca.example/dir", body); err == nil {
		for _, u := range []string{d.NewNonce, d.NewAccount, d.NewOrder} {
			if err := d.origins.check(u); err != nil {
				t.Error(err)
			}
		}
	}
}

func checkTokens(t *testing.T, body []byte, from origins) {
	if z, err := parseAuthorization(body, from); err == nil {
		for _, ch := range z.Challenges {
			if ch.Type == ChallengeHTTP01 && strings.ContainsAny(ch.Token, "/.%") {
				t.Errorf("token %q", ch.Token)
			}
		}
	}
}

func FuzzFields(f *testing.F) {
	for _, seed := range []string{"3", "-1", "Sun, 01 Nov 2026 12:01:00 GMT", `<a>;rel="next", <b>; rel=up`, `<`, `<a>;rel="\`} {
		f.Add(seed)
	}
	base, _ := url.Parse("https://ca.example/")
	f.Fuzz(func(t *testing.T, s string) {
		if at, ok := parseRetryAfter(s, now); ok && (at.Before(now) || at.Sub(now) > maxRetryAfter) {
			t.Errorf("%q: %v", s, at)
		}
		if len(parseLinks([]string{s, s}, base)) > maxLinks {
			t.Error("too many links")
		}
		if validNonce(s) && len(s) > maxNonce {
			t.Error("a nonce without end")
		}
	})
}
