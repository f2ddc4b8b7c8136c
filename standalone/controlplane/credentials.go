package controlplane

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

const (
	caLifetime   = 10 * 365 * 24 * time.Hour
	leafLifetime = 365 * 24 * time.Hour
	// A certificate whose remaining lifetime is shorter than this is replaced. The check runs at each
	// start and twice a day.
	renewBefore = 60 * 24 * time.Hour

	clusterIPRange  = "10.96.0.0/16"
	firstClusterIP  = "10.96.0.1" // of the Service "kubernetes"
	frontProxyName  = "front-proxy-client"
	credentialCheck = 12 * time.Hour
)

// credentials are the files that authenticate the parts of the control plane to each other and to
// the user.
type credentials struct {
	caPEM  []byte
	caCert string

	servingCert, servingKey string
	adminCert, adminKey     string
	kubeconfig              string

	// kube-apiserver uses these to forward the identity of a user to aggregated API servers.
	frontProxyCA, frontProxyCert, frontProxyKey string

	serviceAccountKey string // private
	serviceAccountPub string
}

// ensureCredentials creates missing files, renews those near expiry, and keeps the rest.
func ensureCredentials(dir string, port int, now time.Time) (*credentials, error) {
	pki := filepath.Join(dir, "pki")
	if err := os.MkdirAll(pki, 0o700); err != nil {
		return nil, fmt.Errorf("create directory of keys: %w", err)
	}
	file := func(name string) string { return filepath.Join(pki, name) }
	c := &credentials{
		caCert:      file("ca.crt"),
		servingCert: file("apiserver.crt"),
		servingKey:  file("apiserver.key"),
		adminCert:   file("admin.crt"),
		adminKey:    file("admin.key"),
		kubeconfig:  filepath.Join(dir, "kubeconfig"),
		frontProxyCA: file(
			"front-proxy-ca.crt",
		),
		frontProxyCert:    file("front-proxy-client.crt"),
		frontProxyKey:     file("front-proxy-client.key"),
		serviceAccountKey: file("service-accounts.key"),
		serviceAccountPub: file("service-accounts.pub"),
	}

	ca, err := ensurePair(c.caCert, file("ca.key"), nil, caTemplate("perennial-ca"), now)
	if err != nil {
		return nil, err
	}
	c.caPEM = ca.certPEM
	if _, err := ensurePair(c.servingCert, c.servingKey, ca, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{
			"localhost",
			"kubernetes",
			"kubernetes.default",
			"kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local",
		},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1).To4(), net.IPv6loopback, net.ParseIP(firstClusterIP).To4()},
	}, now); err != nil {
		return nil, err
	}
	admin, err := ensurePair(c.adminCert, c.adminKey, ca, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kubernetes-admin", Organization: []string{"system:masters"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, now)
	if err != nil {
		return nil, err
	}

	// This is a separate CA, because the holder of a certificate from it can act as any user.
	proxyCA, err := ensurePair(
		c.frontProxyCA,
		file("front-proxy-ca.key"),
		nil,
		caTemplate("perennial-front-proxy-ca"),
		now,
	)
	if err != nil {
		return nil, err
	}
	if _, err := ensurePair(c.frontProxyCert, c.frontProxyKey, proxyCA, &x509.Certificate{
		Subject:     pkix.Name{CommonName: frontProxyName},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, now); err != nil {
		return nil, err
	}

	if err := ensureServiceAccountKey(c.serviceAccountKey, c.serviceAccountPub); err != nil {
		return nil, err
	}
	return c, writeKubeconfig(c.kubeconfig, port, ca.certPEM, admin)
}

func caTemplate(name string) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true}
}

// pair is a certificate and its key, each in a file.
type pair struct {
	cert            *x509.Certificate
	key             crypto.Signer
	certPEM, keyPEM []byte
}

// ensurePair reads the pair, and replaces it if it is missing, damaged, near expiry, not signed by
// this CA (nil: self-signed), or different from the template.
func ensurePair(certFile, keyFile string, ca *pair, template *x509.Certificate, now time.Time) (*pair, error) {
	if p, err := readPair(certFile, keyFile); err == nil && p.serves(ca, template, now) {
		return p, nil
	} else if err != nil && errors.Is(err, fs.ErrPermission) {
		return nil, err
	}
	p, err := newPair(ca, template, now)
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", certFile, err)
	}
	// A crash between the two writes leaves a mismatched pair; the next start detects and replaces it.
	if err := writeFile(keyFile, p.keyPEM); err != nil {
		return nil, err
	}
	return p, writeFile(certFile, p.certPEM)
}

func readPair(certFile, keyFile string) (*pair, error) {
	var p pair
	var err error
	if p.certPEM, err = os.ReadFile(certFile); err != nil {
		return nil, err
	}
	if p.keyPEM, err = os.ReadFile(keyFile); err != nil {
		return nil, err
	}
	certBlock, _ := pem.Decode(p.certPEM)
	if certBlock == nil {
		return nil, fmt.Errorf("%s holds no PEM", certFile)
	}
	if p.cert, err = x509.ParseCertificate(certBlock.Bytes); err != nil {
		return nil, fmt.Errorf("%s: %w", certFile, err)
	}
	if p.key, err = decodeKey(keyFile, p.keyPEM); err != nil {
		return nil, err
	}
	return &p, nil
}

func decodeKey(file string, data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM", file)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	signer, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: is not an ECDSA key", file)
	}
	return signer, nil
}

func (p *pair) serves(ca *pair, want *x509.Certificate, now time.Time) bool {
	if ca == nil {
		ca = p
	}
	public, ok := p.key.Public().(*ecdsa.PublicKey)
	return ok && public.Equal(p.cert.PublicKey) &&
		now.Add(renewBefore).Before(p.cert.NotAfter) &&
		p.cert.CheckSignatureFrom(ca.cert) == nil &&
		p.cert.IsCA == want.IsCA &&
		p.cert.Subject.CommonName == want.Subject.CommonName &&
		slices.Equal(p.cert.Subject.Organization, want.Subject.Organization) &&
		slices.Equal(p.cert.DNSNames, want.DNSNames) &&
		slices.EqualFunc(p.cert.IPAddresses, want.IPAddresses, net.IP.Equal)
}

func newPair(ca *pair, template *x509.Certificate, now time.Time) (*pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := *template
	t.NotBefore = now.Add(-time.Hour) // allows for clocks that were set back
	t.BasicConstraintsValid = true
	if t.IsCA {
		t.NotAfter = now.Add(caLifetime)
		t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	} else {
		t.NotAfter = now.Add(leafLifetime)
		t.KeyUsage = x509.KeyUsageDigitalSignature
		if t.NotAfter.After(ca.cert.NotAfter) {
			t.NotAfter = ca.cert.NotAfter
		}
	}
	parent, signer := &t, crypto.Signer(key)
	if ca != nil {
		parent, signer = ca.cert, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, &t, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	p := &pair{key: key, certPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
	if p.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	p.keyPEM, err = encodeKey(key)
	return p, err
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ensureServiceAccountKey never replaces an existing key: a new key would invalidate every token.
func ensureServiceAccountKey(keyFile, pubFile string) error {
	data, err := os.ReadFile(keyFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return fmt.Errorf("make %s: %w", keyFile, err)
		}
		if data, err = encodeKey(key); err != nil {
			return fmt.Errorf("make %s: %w", keyFile, err)
		}
		if err := writeFile(keyFile, data); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("key of service accounts: %w", err)
	}
	key, err := decodeKey(keyFile, data)
	if err != nil {
		return fmt.Errorf(
			"key of service accounts: %w (remove the file to have a new one made; all tokens of service accounts end with it)",
			err,
		)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return fmt.Errorf("key of service accounts: %w", err)
	}
	return writeFile(pubFile, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// writeKubeconfig embeds everything, so that the file works wherever it is copied.
func writeKubeconfig(path string, port int, caPEM []byte, admin *pair) error {
	const name = "perennial"
	content, err := clientcmd.Write(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{name: {
			Server:                   "https://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
			CertificateAuthorityData: caPEM,
		}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{"kubernetes-admin": {
			ClientCertificateData: admin.certPEM,
			ClientKeyData:         admin.keyPEM,
		}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: "kubernetes-admin"}},
		CurrentContext: name,
	})
	if err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	return writeFile(path, bytes.TrimLeft(content, "\n"))
}

// keepCredentials renews certificates while the process runs, which may be for years:
// kube-apiserver and the clients of AdminConfig reload changed files. The returned function stops
// the renewal.
func keepCredentials(ctx context.Context, dir string, port int) func() {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(credentialCheck)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-ticker.C:
				if _, err := ensureCredentials(dir, port, now); err != nil {
					klog.ErrorS(err, "Renewing the control plane's certificates failed; trying again later", "in", credentialCheck)
				}
			}
		}
	}()
	return func() { cancel(); <-done }
}
