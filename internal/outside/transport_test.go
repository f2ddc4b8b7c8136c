package outside

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
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
		if got := Problem([]byte(test.body)); got != test.says {
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
		if got := NoAnswer(err).Error(); !strings.Contains(got, test.says) || strings.Contains(got, "secret") {
			t.Errorf("%s: %s", what, got)
		}
	}
}

func TestHostsThatAnIssuerNamesAreNotThisMachine(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	get := func(ownMachine bool) error {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := (&http.Client{Transport: Transport(http.DefaultTransport.(*http.Transport).Clone(), ownMachine)}).Do(request)
		if err == nil {
			response.Body.Close()
		}
		return err
	}
	if err := get(false); !errors.Is(err, ErrInside) {
		t.Errorf("from a cluster: %v", err)
	}
	if err := get(true); err != nil {
		t.Errorf("of whom the machine is: %v", err)
	}
	for address, want := range map[string]bool{
		"127.0.0.1": true, "::1": true, "169.254.169.254": true, "fe80::1%eth0": true, "::ffff:127.0.0.1": true, "0.0.0.0": true, "fd00:ec2::254": true,
		"100.100.100.200": true, "168.63.129.16": true, "224.0.0.1": true, "10.0.0.1": false, "192.0.2.1": false, "2001:db8::1": false,
	} {
		if got := !Elsewhere(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}

func FuzzProblem(f *testing.F) {
	f.Add([]byte(`{"error": {"message": "no"}, "title": "Not Found"}`))
	f.Add([]byte(`<html>`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if text := Problem(body); len(text) > len(body)*3 { // of invalid UTF-8
			t.Errorf("%d bytes of %d", len(text), len(body))
		}
	})
}
