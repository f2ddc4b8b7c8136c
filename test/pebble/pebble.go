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

// Options say how the CA behaves. The zero value is a CA without whims.
type Options struct {
	// Resolver is host:port of the DNS server that the CA asks. The system's if empty.
	Resolver string
	// HTTPPort and TLSPort are where challenges are validated. 80 and 443 if zero.
	HTTPPort, TLSPort int
	// RejectNonces and ReuseAuthorizations are how many of a hundred.
	RejectNonces, ReuseAuthorizations int
	// AlternateRoots is how many other chains there are.
	AlternateRoots int
	Profiles       map[string]ca.Profile
	// ExternalAccounts are the MAC keys, base64url, by key ID, of external accounts. If there are any,
	// one is demanded.
	ExternalAccounts map[string]string
	// RetryAfter of authorizations and orders, in seconds.
	RetryAfter int
	// OrdersPerPage of the list of orders. Pebble's own if zero.
	OrdersPerPage int
	// Wrap, if set, is put around the server: it breaks what it wants to.
	Wrap func(http.Handler) http.Handler
	// Log is where Pebble's log goes. Nowhere if nil.
	Log io.Writer
}

// Server is a CA that runs.
type Server struct {
	// Directory is the URL of the directory.
	Directory string
	// CABundle has the certificate of the server itself, PEM: what a client must trust to speak with
	// it.
	CABundle []byte

	server   *http.Server
	frontend wfe.WebFrontEndImpl
	store    *db.MemoryStore
	roots    int
}

// environment is how Pebble is told some of the options. It is read while it is made, and is the
// whole process's.
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
	handler := replaceable(frontend.Handler(), store)
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
	// It reuses one more of a hundred than it is told to, and one where it is told to reuse none.
	percent := reflect.ValueOf(&made).Elem().FieldByName("authzReusePercent")
	*(*int)(unsafe.Pointer(percent.UnsafeAddr())) = o.ReuseAuthorizations - 1
	return made, nil
}

// replaceable has Pebble find the orders of all certificates that a renewal says it replaces. It
// looks for their serial number as DER has it, which begins with a zero byte if the number would
// else be negative, and stores it without: one certificate of 256 could not be replaced.
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

// Close stops the CA. It forgets everything.
func (s *Server) Close() error { return s.server.Close() }

// ExpireOrder has the time of an order be over, by its ID, with which the paths of its URLs end. It
// reports whether there is such an order.
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

// ExpireAuthorization has the time of an authorization be over, by its ID or that of a challenge of
// it. It reports whether there is such a one.
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

// OrderOf is the ID of the order that a challenge is for.
func (s *Server) OrderOf(challenge string) string {
	if c := s.store.GetChallengeByID(challenge); c != nil {
		return c.Authz.Order.ID
	}
	return ""
}

// Client is an HTTP client that trusts the server.
func (s *Server) Client() *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CABundle)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
}

// Roots are the roots of what is issued: the one of the default chain, and those of the others.
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

// recorder takes a reply without a network.
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
