package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
)

// maxChainLength is the maximum number of different certificates that [OrderChain] accepts.
const maxChainLength = 1000

// OrderChain sorts the certificates that an issuer returned. chain begins with the leaf, and each
// certificate signed the one before it. It has no self-signed root, because clients that trust the
// root have it already (RFC 8446 section 4.4.2). root is that self-signed root or, if certs has
// none, the topmost certificate, which is then in chain too. A single certificate is always the
// chain; root is then nil unless the certificate is a self-signed CA.
//
// OrderChain drops duplicates. It fails if certs is empty, has more than 1000 certificates, or is
// not exactly one chain: a certificate is missing, superfluous or ambiguous.
func OrderChain(certs []*x509.Certificate) (chain []*x509.Certificate, root *x509.Certificate, err error) {
	links, err := linkChain(certs)
	if err != nil {
		return nil, nil, fmt.Errorf("order certificate chain: %w", err)
	}
	for link := links; link != nil; link = link.parent {
		chain = append(chain, link.cert)
	}
	top := len(chain) - 1
	switch {
	case isRoot(chain[top]):
		root = chain[top]
		if top > 0 {
			chain = chain[:top]
		}
	case top > 0:
		root = chain[top]
	}
	return chain, root, nil
}

// chainLink is a certificate with its neighbors in the chain.
type chainLink struct {
	cert   *x509.Certificate
	parent *chainLink
	child  *chainLink
}

// linkChain finds the issuer of each certificate and returns the leaf.
//
// It finds candidates by name, so that it verifies about one signature for each certificate. In
// hostile input, all names can be equal. In a real chain, that is true of a few at most, so the
// number of verifications is limited.
func linkChain(certs []*x509.Certificate) (*chainLink, error) {
	links, err := distinctLinks(certs)
	if err != nil {
		return nil, err
	}
	if err := linkIssuers(links); err != nil {
		return nil, err
	}
	var leaf *chainLink
	for _, link := range links {
		if link.child != nil {
			continue
		}
		if leaf != nil {
			return nil, fmt.Errorf("neither %s nor %s signed another of the certificates, so they are not one chain",
				describe(leaf.cert), describe(link.cert))
		}
		leaf = link
	}
	if leaf == nil {
		return nil, errors.New("the certificates sign each other in a ring")
	}
	// With one leaf and one child for each parent, the remaining certificates can only form a cycle
	// apart from the chain.
	n := 0
	for link := leaf; link != nil; link = link.parent {
		n++
	}
	if n != len(links) {
		return nil, errors.New("some certificates sign each other in a ring")
	}
	return leaf, nil
}

// distinctLinks returns a link for each certificate, without duplicates.
func distinctLinks(certs []*x509.Certificate) ([]*chainLink, error) {
	seen := make(map[string]bool, len(certs))
	links := make([]*chainLink, 0, len(certs))
	for i, cert := range certs {
		if cert == nil || len(cert.Raw) == 0 {
			return nil, fmt.Errorf("certificate %d is empty", i+1)
		}
		if seen[string(cert.Raw)] {
			continue
		}
		seen[string(cert.Raw)] = true
		if len(links) == maxChainLength {
			return nil, fmt.Errorf("there are more than %d certificates", maxChainLength)
		}
		links = append(links, &chainLink{cert: cert})
	}
	if len(links) == 0 {
		return nil, errors.New("there are no certificates")
	}
	return links, nil
}

// linkIssuers sets the parent and the child of each link.
func linkIssuers(links []*chainLink) error {
	bySubject := make(map[string][]*chainLink, len(links))
	for _, link := range links {
		bySubject[string(link.cert.RawSubject)] = append(bySubject[string(link.cert.RawSubject)], link)
	}
	checks := 4*len(links) + 16
	for _, link := range links {
		for _, candidate := range bySubject[string(link.cert.RawIssuer)] {
			if candidate == link {
				continue
			}
			if checks--; checks < 0 {
				return errors.New("too many certificates have the same subject")
			}
			if !SignedBy(link.cert, candidate.cert) {
				continue
			}
			// Two self-signed certificates of one name and key sign each other. Neither needs a parent, and
			// a parent would make the chain a cycle.
			if isRoot(link.cert) {
				break
			}
			if candidate.child != nil {
				return fmt.Errorf("%s and %s are both signed by %s, so they are not one chain",
					describe(candidate.child.cert), describe(link.cert), describe(candidate.cert))
			}
			link.parent, candidate.child = candidate, link
			break
		}
	}
	return nil
}

// describe names a certificate in an error, by its subject, which is untrusted text.
func describe(cert *x509.Certificate) string {
	const most = 100
	subject := cert.Subject.String()
	if subject == "" {
		return fmt.Sprintf("the certificate with serial number %x", cert.SerialNumber)
	}
	if len(subject) > most {
		subject = subject[:most] + "..."
	}
	return fmt.Sprintf("%q", subject)
}
