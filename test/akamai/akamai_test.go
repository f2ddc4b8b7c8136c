package akamai

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/akamai/AkamaiOPEN-edgegrid-golang/v13/pkg/edgegrid"
)

// The simulated API accepts the signatures of Akamai's own library.
func TestRequestsSignedByAkamaisLibraryAreTaken(t *testing.T) {
	a := &API{Host: "akab-1.luna.akamaiapis.net", ClientToken: "client", ClientSecret: "secret", AccessToken: "access"}
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
		for _, secret := range []string{"secret", "another"} {
			body := []byte(`{"name": "a.example.com"}`)
			r, err := http.NewRequestWithContext(
				t.Context(),
				method,
				"https://"+a.Host+"/config-dns/v2/zones/example.com?search=a%20b",
				bytes.NewReader(body),
			)
			if err != nil {
				t.Fatal(err)
			}
			config, err := edgegrid.New(func(c *edgegrid.Config) {
				c.Host, c.ClientToken, c.ClientSecret = a.Host, a.ClientToken, secret
				c.AccessToken, c.MaxBody = a.AccessToken, edgegrid.MaxBodySize
			})
			if err != nil {
				t.Fatal(err)
			}
			config.SignRequest(r)
			if body, err = io.ReadAll(r.Body); err != nil {
				t.Fatal(err)
			}
			err = a.Verify(r, body)
			if (err == nil) != (secret == "secret") || err != nil && !strings.Contains(err.Error(), "signature") {
				t.Errorf("%s with %s: %v", method, secret, err)
			}
			if err == nil && a.Verify(r, body) == nil {
				t.Error("a request is taken twice")
			}
		}
	}
}
