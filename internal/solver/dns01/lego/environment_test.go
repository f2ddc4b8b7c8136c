package lego

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-acme/lego/v5/challenge"
)

func TestNothingComesFromTheEnvironment(t *testing.T) {
	var seen sync.Map // what was asked for by a variable
	poisoned := httptest.NewServer(
		http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen.Store("an endpoint: "+r.URL.String(), true) }),
	)
	defer poisoned.Close()
	file := filepath.Join(t.TempDir(), "poison")
	if err := os.WriteFile(file, []byte("poison"), 0o600); err != nil {
		t.Fatal(err)
	}
	poisonVariables(t, poisoned.URL, file)
	// These use their own client with a fixed address, or work only for names of one domain.
	aside := []string{"manageengine", "nicru", "omglol", "servercow"}
	for i := range kinds {
		k := &kinds[i]
		if slices.Contains(aside, k.name) {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			asked := 0
			service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked++
				body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
				checkNotPoisoned(t, poisoned.URL, r.URL.String(), fmt.Sprint(r.Header), string(body))
				w.WriteHeader(http.StatusNotFound)
			}))
			defer service.Close()
			to, err := url.Parse(service.URL)
			if err != nil {
				t.Fatal(err)
			}
			v := givenSettings(t, k, service.URL)
			stub, err := startDNSStub()
			if err != nil {
				t.Fatal(err)
			}
			p := &Provider{
				kind:  k,
				now:   time.Now,
				ended: map[string]*call{},
				made:  map[string]time.Time{},
				gone:  map[string]time.Time{},
				backend: &adapter{
					kind: k, stub: stub, make: func() (challenge.Provider, error) {
						return k.make(v, &http.Client{Transport: rewrite{to}, Timeout: 5 * time.Second})
					},
				},
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			err = p.backend.present(ctx, record("www.example.com", "token"))
			if asked == 0 {
				t.Errorf("its service was not asked: %v", err)
			}
		})
	}
	seen.Range(func(what, _ any) bool { t.Errorf("by a variable lego came to %v", what); return true })
}

// poisonVariables sets all variables that lego knows.
func poisonVariables(t *testing.T, url, file string) {
	t.Helper()
	contains := func(v string, parts ...string) bool {
		return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(v, part) })
	}
	count := 0
	for _, list := range variables {
		for _, v := range list {
			switch {
			case contains(v, "URL", "ENDPOINT", "HOST", "SERVER"):
				t.Setenv(v, url)
			case strings.HasSuffix(v, "TTL"), contains(v, "TIMEOUT", "INTERVAL"):
				t.Setenv(v, "66666")
			default:
				t.Setenv(v, "poison")
				t.Setenv(v+"_FILE", file)
			}
			count++
		}
	}
	if count < 500 {
		t.Fatalf("only %d variables are known", count)
	}
}

// checkNotPoisoned checks that no part of a request is from a variable.
func checkNotPoisoned(t *testing.T, url string, parts ...string) {
	for _, part := range parts {
		if strings.Contains(part, "poison") || strings.Contains(part, "66666") || strings.Contains(part, url) {
			t.Errorf("a variable arrived: %s", part)
		}
	}
}

// givenSettings returns settings of each form, with the address of a service.
func givenSettings(t *testing.T, k *kind, service string) values {
	t.Helper()
	v, err := k.read(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	given := map[form]string{
		address: service,
		number:  "300",
		pairs:   "www:given,www.example.com:given,_acme-challenge.www.example.com:given",
		lists:   "www.example.com:1:2,_acme-challenge.www.example.com:1:2",
	}
	for _, s := range k.settings {
		if _, found := v[s.name]; found && s.in == "" || s.name == "tlsCert" || s.name == "tlsKey" || s.form == flag {
			continue
		}
		value, ok := given[s.form]
		switch lower := strings.ToLower(s.name); {
		case ok:
		case strings.Contains(lower, "url"), strings.Contains(lower, "endpoint"), strings.Contains(lower, "server"),
			lower == "hostname":
			value = service
		case s.name == "zoneName":
			value = "example.com"
		default:
			value = "given"
		}
		v[s.name] = value
	}
	return v
}

func TestDefaultsAreThoseOfLego(t *testing.T) {
	for _, list := range variables {
		for _, v := range list {
			if value, found := os.LookupEnv(v); found { // the environment of the test may have one
				t.Setenv(v, value)
				os.Unsetenv(v)
			}
		}
	}
	for i := range kinds {
		k := &kinds[i]
		v, err := k.read(nil, nil)
		if err != nil {
			t.Errorf("%s: %v", k.name, err)
			continue
		}
		config := reflect.ValueOf(inLego[k.name]()).Elem()
		for _, s := range k.settings {
			field := config.FieldByName(fields[k.name][s.name])
			if field.IsZero() {
				continue // some are in NewDNSProvider
			}
			want := fmt.Sprint(field.Interface())
			if got := v[s.name]; got != want {
				t.Errorf("%s: %s is %q here, and %q in lego", k.name, s.name, got, want)
			}
		}
	}
}

func first[T any](v T, _ error) T { return v }
