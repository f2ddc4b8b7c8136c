package acme

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
)

// Directory says where the resources of a CA are, section 7.1.1. A field is empty if the CA does
// not offer the resource.
type Directory struct {
	NewNonce   string `json:"newNonce"`
	NewAccount string `json:"newAccount"`
	NewOrder   string `json:"newOrder"`
	NewAuthz   string `json:"newAuthz,omitempty"`
	RevokeCert string `json:"revokeCert,omitempty"`
	KeyChange  string `json:"keyChange,omitempty"`
	// RenewalInfo is the base of the URLs of RFC 9773.
	RenewalInfo string `json:"renewalInfo,omitempty"`
	Meta        Meta   `json:"meta"`

	origins origins
}

// Meta is the CA's metadata.
type Meta struct {
	// TermsOfService is the URL of the terms that an account agrees to.
	TermsOfService string `json:"termsOfService,omitempty"`
	Website        string `json:"website,omitempty"`
	// CAAIdentities are the names by which CAA records mean this CA, RFC 8659.
	CAAIdentities []string `json:"caaIdentities,omitempty"`
	// ExternalAccountRequired says that a new account needs an ExternalAccountBinding.
	ExternalAccountRequired bool `json:"externalAccountRequired,omitempty"`
	// Profiles are the certificate profiles that an order may ask for, by name, with a description or
	// its URL.
	Profiles map[string]string `json:"profiles,omitempty"`
}

// FetchDirectory returns the directory, fetching it if it is not known or an hour old.
func (c *Client) FetchDirectory(ctx context.Context) (Directory, error) {
	dir, err := c.directory(ctx)
	if err != nil {
		return Directory{}, err
	}
	return *dir, nil
}

func (c *Client) directory(ctx context.Context) (*Directory, error) {
	now := c.now()
	c.mu.Lock()
	dir, fetched := c.dir, c.fetched
	c.mu.Unlock()
	if dir != nil && now.Sub(fetched) < directoryLife {
		return dir, nil
	}
	// Two callers may fetch it at the same time. Neither waits for the other, because each has its own
	// deadline.
	m, err := c.exchange(ctx, "directory", http.MethodGet, c.Directory, nil, "application/json")
	if p := new(Problem); errors.As(err, &p) {
		return nil, fmt.Errorf("%w, at %s", err, c.Directory) // usually a misspelled URL
	}
	if err != nil {
		return nil, err
	}
	if dir, err = parseDirectory(c.Directory, m.body); err != nil {
		return nil, invalid("directory", c.Directory, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dir, c.fetched = dir, now
	return dir, nil
}

func parseDirectory(base string, body []byte) (*Directory, error) {
	var dir Directory
	if err := decode(body, &dir); err != nil {
		return nil, err
	}
	at, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	dir.origins = origins{origin(at)}
	for _, r := range []struct {
		name     string
		url      *string
		required bool
	}{
		{"newNonce", &dir.NewNonce, true}, {"newAccount", &dir.NewAccount, true}, {"newOrder", &dir.NewOrder, true},
		{"newAuthz", &dir.NewAuthz, false}, {"revokeCert", &dir.RevokeCert, false}, {"keyChange", &dir.KeyChange, false},
		{"renewalInfo", &dir.RenewalInfo, false},
	} {
		if *r.url == "" {
			if r.required {
				return nil, errors.New(r.name + " is missing")
			}
			continue
		}
		u, err := at.Parse(*r.url)
		if err != nil || u.Host == "" || u.Scheme != "https" || u.User != nil || len(*r.url) > maxURL {
			return nil, fmt.Errorf("%s is not an https URL", r.name)
		}
		*r.url = u.String()
		if o := origin(u); !slices.Contains(dir.origins, o) {
			dir.origins = append(dir.origins, o)
		}
	}
	return &dir, nil
}

// UnsupportedError says that the CA does not offer something.
type UnsupportedError struct{ Resource string }

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("the CA does not offer %s: its directory does not name it", e.Resource)
}

// unsupported is the error for a resource that the directory does not name.
func unsupported(resource string) error { return &UnsupportedError{resource} }
