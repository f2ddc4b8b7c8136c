// Package acmedns simulates an acme-dns server with one account. It speaks the real protocol; a
// real DNS server answers for its names.
package acmedns

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/perennial-pki/perennial/test/dnsserver"
)

// Server is the API of a server. Like the real one, it keeps two values, and an update replaces the
// older one.
type Server struct {
	User, Password string
	// FullDomain is the name that the server answers for. The account's subdomain is its first label.
	FullDomain string
	// DNS receives the values once they are shown.
	DNS *dnsserver.Server

	mu      sync.Mutex
	rows    [2]string // the older first
	shown   bool
	updates int
}

// Accounts returns the registration of the account in the form of a Secret's entry for a name.
func (s *Server) Accounts(name string) string {
	return fmt.Sprintf(`{%q: {"username": %q, "password": %q, "fulldomain": %q, "subdomain": %q, "allowfrom": []}}`,
		name, s.User, s.Password, s.FullDomain, s.subdomain())
}

func (s *Server) subdomain() string {
	label, _, _ := strings.Cut(s.FullDomain, ".")
	return label
}

// Show publishes the values on the DNS server from now on.
func (s *Server) Show() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shown = true
	s.show()
}

// Updates is the number of updates.
func (s *Server) Updates() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.updates
}

func (s *Server) show() {
	if s.shown {
		s.DNS.SetTXT(s.FullDomain, slices.DeleteFunc(slices.Clone(s.rows[:]), func(v string) bool { return v == "" })...)
	}
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var update struct{ Subdomain, TXT string }
	refused := ""
	switch err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&update); {
	case r.URL.Path != "/update" || r.Method != http.MethodPost:
		http.NotFound(w, r)
		return
	case err != nil || r.Header.Get("X-Api-User") != s.User || r.Header.Get("X-Api-Key") != s.Password ||
		update.Subdomain != s.subdomain():
		refused = "forbidden"
	case len(update.TXT) != 43:
		refused = "bad_txt"
	}
	w.Header().Set("Content-Type", "application/json")
	if refused != "" {
		w.WriteHeader(map[string]int{"forbidden": http.StatusUnauthorized, "bad_txt": http.StatusBadRequest}[refused])
		fmt.Fprintf(w, `{"error": %q}`, refused)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows, s.updates = [2]string{s.rows[1], update.TXT}, s.updates+1
	s.show()
	fmt.Fprintf(w, `{"txt": %q}`, update.TXT)
}
