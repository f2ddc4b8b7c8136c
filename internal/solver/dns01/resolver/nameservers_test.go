package resolver

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/perennial-pki/perennial/internal/solver/dns01/internal/dnstest"
)

func TestServersOverHTTPS(t *testing.T) {
	const media = "application/dns-message"
	good := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		q := new(dns.Msg)
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != media || q.Unpack(body) != nil || q.Id != 0 {
			t.Errorf("%s %q %x", r.Method, r.Header, body)
		}
		w.Header().Set("Content-Type", media)
		for _, b := range dnstest.Records(t, false, soa, name+" 60 IN TXT "+value)(q, true) {
			_, _ = w.Write(b)
		}
	}
	elsewhere := httptest.NewServer(
		http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }),
	)
	defer elsewhere.Close()
	for title, test := range map[string]struct {
		handler http.HandlerFunc
		says    string
	}{
		"have the value": {handler: good},
		"that do not end": {handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", media)
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		}, says: "the answer is too long"},
		"that drip": {handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", media)
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, says: "deadline exceeded"},
		"that speak another language": {handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			fmt.Fprint(w, "<html>")
		}, says: "it does not answer with application/dns-message: is that the URL of a DNS server?"},
		"that say nothing": {handler: func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", media) }, says: "ask https://"},
		"that make noise": {handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", media)
			fmt.Fprint(w, strings.Repeat("\xc0\x0c", 100))
		}, says: "ask https://"},
		"that fail": {handler: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, says: "status 502"},
		"that lead elsewhere": {handler: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		}, says: "status 307: it redirects"},
		"that cut their answer off": {handler: func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			q := new(dns.Msg)
			if err := q.Unpack(body); err != nil {
				t.Error(err)
			}
			m := new(dns.Msg).SetReply(q)
			m.Truncated = true
			w.Header().Set("Content-Type", media)
			_, _ = w.Write(dnstest.Packed(t, m)[0])
		}, says: "the answer is cut off"},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewTLSServer(test.handler)
			t.Cleanup(server.Close)
			client := server.Client()
			client.CheckRedirect = defaultHTTPSClient.CheckRedirect
			r := &Resolver{Nameservers: []string{server.URL + "/dns-query"}, RecursiveOnly: true, HTTPS: client}
			answers, err := r.Ask(t.Context(), record)
			if err != nil {
				t.Fatal(err)
			}
			seen := Judge(record, answers, time.Time{}, time.Now())
			if seen.Visible != (test.says == "") || !strings.Contains(seen.Why, test.says) {
				t.Errorf("got %+v", seen)
			}
			_, _, err = r.Locate(t.Context(), name, true)
			if (err == nil) != (test.says == "") {
				t.Errorf("locate: %v", err)
			}
		})
	}
}

func TestWhichNameserversCanBeNamed(t *testing.T) {
	for given, want := range map[string]string{
		"192.0.2.53":                        "192.0.2.53:53",
		"192.0.2.53:5353":                   "192.0.2.53:5353",
		"2001:db8::53":                      "[2001:db8::53]:53",
		"[2001:db8::53]":                    "[2001:db8::53]:53",
		"dns.example.com":                   "dns.example.com:53",
		"https://dns.example.com/dns-query": "https://dns.example.com/dns-query",

		"http://dns.example.com/dns-query":         `the DNS server "http://dns.example.com/dns-query" must be host:port, or a URL such as https://`,
		"tls://dns.example.com":                    `the DNS server "tls://dns.example.com" must be`,
		"https:///dns-query":                       "must be host:port, or a URL",
		"https://dns.example.com/dns-query{?dns}":  "must be host:port, or a URL",
		"https://dns.example.com:port/":            "must be host:port, or a URL",
		"https://user:secret@dns.example.com/a@b":  "must not have credentials",
		"https://user:secret@dns.example.com:port": "must be host:port, or a URL",
	} {
		got, err := ParseNameservers([]string{given})
		if err != nil {
			got = []string{err.Error()}
		}
		if strings.Contains(got[0], "secret") || !strings.Contains(got[0], want) || err == nil && got[0] != want {
			t.Errorf("%s: got %s, want %s", given, got[0], want)
		}
	}
}
