package egress

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func TestWhatAServiceSaysOfAnErrorAndNothingElse(t *testing.T) {
	for what, test := range map[string]struct{ body, says string }{
		"a page":                         {"<html>secret</html>", ""},
		"other entries":                  {`{"password": "secret", "data": {"message": "secret"}}`, ""},
		"a list":                         {`["secret"]`, ""},
		"a text":                         {`"secret"`, ""},
		"a problem of RFC 9457":          {`{"type": "about:blank", "title": "Not Found", "detail": "no such zone"}`, "Not Found: no such zone"},
		"a text in error":                {`{"error": "bad_txt"}`, "bad_txt"},
		"an object in error":             {`{"error": {"code": 3, "message": "no such zone", "more": "secret"}}`, "no such zone"},
		"an error of OAuth":              {`{"error": "invalid_client", "error_description": "unknown client"}`, "invalid_client: unknown client"},
		"the same in several":            {`{"error": "no", "message": "no"}`, "no"},
		"a status of the Kubernetes API": {`{"kind": "Status", "message": "forbidden", "reason": "Forbidden"}`, "forbidden"},
		"entries of other types":         {`{"message": 3, "error": ["secret"], "title": null}`, ""},
	} {
		if got := ErrorText([]byte(test.body)); got != test.says {
			t.Errorf("%s: %q", what, got)
		}
	}
}

func TestWhatSpeaksAnotherProtocolIsNotQuoted(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	banner := ""
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte(banner))
			_, _ = conn.Read(make([]byte, 4<<10))
			conn.Close()
		}
	}()
	for what, test := range map[string]struct{ banner, scheme, says string }{
		"a server that greets":   {"SSH-2.0-secret\r\n", "http", "it does not answer as an HTTP server does"},
		"a server that errs":     {"-ERR secret\r\n", "http", "it does not answer as an HTTP server does"},
		"a header that is none":  {"HTTP/1.1 200 OK\r\nsecret\r\n\r\n", "http", "it does not answer as an HTTP server does"},
		"a server that ends":     {"", "http", "it closes the connection without an answer"},
		"a server without TLS":   {"HTTP/1.1 400 secret\r\n\r\n", "https", "it does not answer as an HTTP server does"},
		"a port without servers": {"", "refused", "connection refused"},
	} {
		banner = test.banner
		url := test.scheme + "://" + listener.Addr().String()
		if test.scheme == "refused" {
			url = "http://127.0.0.1:1"
		}
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.DisableKeepAlives = true
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = (&http.Client{Transport: transport}).Do(request) //nolint:bodyclose // there is none
		if err == nil {
			t.Fatalf("%s: it is answered", what)
		}
		if got := NoReplyReason(err).Error(); !strings.Contains(got, test.says) || strings.Contains(got, "secret") {
			t.Errorf("%s: %s", what, got)
		}
	}
}

func TestHostsThatAnIssuerNamesAreNotThisMachine(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	get := func(reach Reach, proxy *url.URL, to string) error {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, to, nil)
		if err != nil {
			t.Fatal(err)
		}
		base := http.DefaultTransport.(*http.Transport).Clone()
		base.Proxy = http.ProxyURL(proxy)
		response, err := (&http.Client{Transport: reach.Transport(base)}).Do(request)
		if err == nil {
			response.Body.Close()
		}
		return err
	}
	if err := get(Egress{}.Of(false), nil, server.URL); !IsBlockedAddress(NoReplyReason(err)) {
		t.Errorf("an Issuer: %v", err)
	}
	for name, reach := range map[string]Reach{"a ClusterIssuer": Egress{}.Of(true),
		"of whom the machine is": Egress{OwnMachine: true}.Of(false)} {
		if err := get(reach, nil, server.URL); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A proxy may have any address, but must not connect to a refused one either.
	proxy, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	if err := get(Egress{}.Of(false), proxy, "http://ca.example.com"); err != nil {
		t.Errorf("by a proxy: %v", err)
	}
	for _, host := range []string{"169.254.169.254", "169.254.169.254.", "169.254.43518", "0xA9FEA9FE", "2852039166",
		"0251.0376.0251.0376", "１６９。２５４。169.254", "[::ffff:a9fe:a9fe]", "127.1", "localhost.", "a.LocalHost"} {
		if err := get(Egress{}.Of(false), proxy, "http://"+host); !IsBlockedAddress(err) {
			t.Errorf("%s by a proxy: %v", host, err)
		}
	}
	for _, host := range []string{"192.0.2.1", "3221225985", "127.0.0.1.example.com", "0x7f.example.com", "08",
		"1.2.3.4.5", "4294967296", "256.1", "b\u00fccher.example"} {
		if err := get(Egress{}.Of(false), proxy, "http://"+host); err != nil {
			t.Errorf("%s by a proxy: %v", host, err)
		}
	}
}

func FuzzProblem(f *testing.F) {
	f.Add([]byte(`{"error": {"message": "no"}, "title": "Not Found"}`))
	f.Add([]byte(`<html>`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if text := ErrorText(body); len(text) > len(body)*3 { // of invalid UTF-8
			t.Errorf("%d bytes of %d", len(text), len(body))
		}
	})
}
