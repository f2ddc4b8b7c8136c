// Package pebble runs Pebble, Let's Encrypt's small ACME server, in this process, so that tests,
// benchmarks and the quickstart have a CA that speaks the real protocol on a real socket.
package pebble

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/core"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

// Options set the behavior of the CA. The zero value is a CA without simulated faults.
type Options struct {
	// Resolver is the host:port of the CA's DNS server. That of the system if empty.
	Resolver string
	// HTTPPort and TLSPort are the ports for validation. 80 and 443 if zero.
	HTTPPort, TLSPort int
	// RejectNonces and ReuseAuthorizations are percentages.
	RejectNonces, ReuseAuthorizations int
	// AlternateRoots is the number of alternate chains.
	AlternateRoots int
	Profiles       map[string]ca.Profile
	// ExternalAccounts are the MAC keys, base64url, by key ID, of external accounts. If there are any,
	// new accounts need one.
	ExternalAccounts map[string]string
	// RetryAfter of authorizations and orders, in seconds.
	RetryAfter int
	// OrdersPerPage of the list of orders. Pebble's own if zero.
	OrdersPerPage int
	// Wrap, if set, wraps the server's handler, to simulate faults.
	Wrap func(http.Handler) http.Handler
	// Log receives Pebble's log. Discarded if nil.
	Log io.Writer
}

// Server is a running CA.
type Server struct {
	// Directory is the URL of the directory.
	Directory string
	// CABundle is the certificate that a client must trust to connect to the server, PEM.
	CABundle []byte

	server   *http.Server
	frontend wfe.WebFrontEndImpl
	store    *db.MemoryStore
	roots    int
}

// environment protects the environment variables by which Pebble gets some of the options. Pebble
// reads them when it is created, and they belong to the whole process.
var environment sync.Mutex

// Start starts a CA on a free port of 127.0.0.1.
func Start(o Options) (*Server, error) {
	if o.HTTPPort == 0 {
		o.HTTPPort = 80
	}
	if o.TLSPort == 0 {
		o.TLSPort = 443
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	if len(o.Profiles) == 0 {
		o.Profiles = map[string]ca.Profile{"default": {Description: "The default profile"}}
	}
	logger := log.New(o.Log, "", 0)
	store := db.NewMemoryStore()
	for id, key := range o.ExternalAccounts {
		if err := store.AddExternalAccountKeyByID(id, key); err != nil {
			return nil, err
		}
	}
	frontend, err := frontend(o, logger, store)
	if err != nil {
		return nil, err
	}
	certificate, bundle, err := serverCertificate()
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	handler := oneAtATime(replaceable(frontend.Handler(), store))
	if o.Wrap != nil {
		handler = o.Wrap(handler)
	}
	s := &Server{
		Directory: "https://" + listener.Addr().
			String() +
			wfe.DirectoryPath,
		CABundle: bundle,
		frontend: frontend,
		store:    store,
		roots:    1 + o.AlternateRoots,
		server: &http.Server{
			Handler:   handler,
			ErrorLog:  logger,
			TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
		},
	}
	go s.server.ServeTLS(listener, "", "") //nolint:errcheck // ends with Close
	return s, nil
}

func frontend(o Options, logger *log.Logger, store *db.MemoryStore) (wfe.WebFrontEndImpl, error) {
	environment.Lock()
	defer environment.Unlock()
	set := map[string]string{
		"PEBBLE_VA_NOSLEEP":      "1",
		"PEBBLE_WFE_NONCEREJECT": strconv.Itoa(o.RejectNonces),
		"PEBBLE_AUTHZREUSE":      strconv.Itoa(o.ReuseAuthorizations),
	}
	if o.OrdersPerPage > 0 {
		set["PEBBLE_WFE_ORDERS_PER_PAGE"] = strconv.Itoa(o.OrdersPerPage)
	}
	for name, value := range set {
		was, found := os.LookupEnv(name)
		if err := os.Setenv(name, value); err != nil {
			return wfe.WebFrontEndImpl{}, err
		}
		defer func() {
			if found {
				os.Setenv(name, was)
			} else {
				os.Unsetenv(name)
			}
		}()
	}
	authority := ca.New(logger, store, "", "ecdsa", o.AlternateRoots, 1, o.Profiles)
	validator := va.New(logger, o.HTTPPort, o.TLSPort, false, o.Resolver, store)
	made := wfe.New(
		logger,
		store,
		validator,
		authority,
		[]string{"pebble.letsencrypt.org"},
		false,
		len(o.ExternalAccounts) > 0,
		o.RetryAfter,
		o.RetryAfter,
	)
	// Pebble's percentage is off by one: it reuses one percent more than the setting, even for 0.
	percent := reflect.ValueOf(&made).Elem().FieldByName("authzReusePercent")
	*(*int)(unsafe.Pointer(percent.UnsafeAddr())) = o.ReuseAuthorizations - 1
	return made, nil
}

// replaceable makes Pebble find the orders of all certificates that a renewal replaces. Pebble
// looks for the serial number in its DER form, which can begin with a zero byte, but stores it
// without that byte, so that some certificates could not be replaced.
func replaceable(h http.Handler, store *db.MemoryStore) http.Handler {
	const path = "/certZ/"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if id, found := strings.CutPrefix(r.URL.Path, path); found && len(id) > 0 && id[0] >= '8' {
			if _, err := store.GetOrderByIssuedSerial("00" + id); err != nil {
				if order, err := store.GetOrderByIssuedSerial(id); err == nil {
					_ = store.AddOrderByIssuedSerial(&core.Order{ // has a certificate
						ID: order.ID, AccountID: order.AccountID, Order: order.Order, CertificateObject: &core.Certificate{ID: "00" + id},
					})
				}
			}
		}
		h.ServeHTTP(w, r)
	})
}

// oneAtATime handles the requests one after the other. Pebble takes the locks of its store and of
// authorizations in both orders: the handler of an authorization reads the store, and the store
// reads the authorizations of an order. While a third request waits to write, two such requests
// block each other, and then all others, for ever.
func oneAtATime(h http.Handler) http.Handler {
	var mu sync.Mutex
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		h.ServeHTTP(w, r)
	})
}

// Close stops the CA. It forgets everything.
func (s *Server) Close() error { return s.server.Close() }

// ExpireOrder expires an order by its ID, the last element of its URL. It reports whether there is
// such an order.
func (s *Server) ExpireOrder(id string) bool {
	order := s.store.GetOrderByID(id)
	if order == nil {
		return false
	}
	order.Lock()
	defer order.Unlock()
	order.ExpiresDate = time.Now().Add(-time.Second)
	order.Expires = order.ExpiresDate.UTC().Format(time.RFC3339)
	return true
}

// ExpireAuthorization expires an authorization by its ID or that of one of its challenges. It
// reports whether there is such an authorization.
func (s *Server) ExpireAuthorization(id string) bool {
	authorization := s.store.GetAuthorizationByID(id)
	if challenge := s.store.GetChallengeByID(id); challenge != nil {
		authorization = challenge.Authz
	}
	if authorization == nil {
		return false
	}
	authorization.Lock()
	defer authorization.Unlock()
	authorization.ExpiresDate = time.Now().Add(-time.Second)
	authorization.Expires = authorization.ExpiresDate.UTC().Format(time.RFC3339)
	return true
}

// OrderOf returns the ID of the order of a challenge.
func (s *Server) OrderOf(challenge string) string {
	if c := s.store.GetChallengeByID(challenge); c != nil {
		return c.Authz.Order.ID
	}
	return ""
}

// Client returns an HTTP client that trusts the server.
func (s *Server) Client() *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CABundle)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
}

// Roots returns the roots of the issued certificates: that of the default chain, then those of the
// others.
func (s *Server) Roots() ([]*x509.Certificate, error) {
	var roots []*x509.Certificate
	for i := range s.roots {
		w := &recorder{header: http.Header{}}
		r, err := http.NewRequest(http.MethodGet, fmt.Sprintf("https://pebble%s%d", wfe.RootCertPath, i), nil)
		if err != nil {
			return nil, err
		}
		s.frontend.ManagementHandler().ServeHTTP(w, r)
		block, _ := pem.Decode(w.body.Bytes())
		if block == nil {
			return nil, fmt.Errorf("no root %d", i)
		}
		root, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		roots = append(roots, root)
	}
	return roots, nil
}

// recorder records a reply without a network.
type recorder struct {
	header http.Header
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
func (r *recorder) WriteHeader(int)             {}

func serverCertificate() (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(
			1,
		),
		Subject:               pkix.Name{CommonName: "pebble"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.AddDate(1, 0, 0),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	bundle := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, bundle, nil
}
