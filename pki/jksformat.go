package pki

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // the format has no other
	"crypto/subtle"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// The format of Java's own keystores: sun.security.provider.JavaKeyStore and KeyProtector.

// The numbers of the format.
const (
	jksMagic      = 0xFEEDFEED
	jksVersion1   = 1
	jksVersion2   = 2
	jksPrivateKey = 1
	jksTrusted    = 2
	jksDigestSize = sha1.Size
	jksSaltSize   = 20
)

// jksType is the type of certificates that cert-manager writes. Java reads "X509" like "X.509".
const jksType = "X509"

var oidJKSKeyProtector = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 42, 2, 17, 1, 1}

// jksEntry is a private key with its chain or, without a key, a trusted certificate.
type jksEntry struct {
	alias string
	made  time.Time
	key   []byte // protected by the password, nil for a trusted certificate
	certs [][]byte
}

// protectedKey is the form of a private key in a keystore.
type protectedKey struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte // salt, key and digest
}

// jksPassword returns a password in UTF-16, as in Java's memory. The digest and the protection of
// keys use this form.
func jksPassword(password string) ([]byte, error) {
	if !utf8.ValidString(password) {
		return nil, &PasswordError{"has bytes that are not UTF-8, which Java cannot be given"}
	}
	var data []byte
	for _, c := range utf16.Encode([]rune(password)) {
		data = binary.BigEndian.AppendUint16(data, c)
	}
	return data, nil
}

// jksStream encrypts and decrypts a key: each block of the key is combined with a hash of the one
// before.
func jksStream(password, salt, key []byte) []byte {
	out := make([]byte, len(key))
	block := salt
	for at := 0; at < len(key); at += sha1.Size {
		block = jksHash(password, block)
		subtle.XORBytes(out[at:min(at+sha1.Size, len(key))], key[at:], block)
	}
	return out
}

func jksHash(parts ...[]byte) []byte {
	hash := sha1.New() //nolint:gosec // the format has no other
	for _, p := range parts {
		hash.Write(p)
	}
	return hash.Sum(nil)
}

func protectJKSKey(password, key []byte) ([]byte, error) {
	salt := make([]byte, jksSaltSize)
	if _, err := rand.Read(salt); err != nil {
		return nil, err
	}
	data := slices.Concat(salt, jksStream(password, salt, key), jksHash(password, key))
	return asn1.Marshal(protectedKey{pkix.AlgorithmIdentifier{Algorithm: oidJKSKeyProtector,
		Parameters: asn1.NullRawValue}, data})
}

func unprotectJKSKey(password, der []byte) ([]byte, error) {
	var p protectedKey
	if unmarshalAll(der, &p) != nil || !p.Algorithm.Algorithm.Equal(oidJKSKeyProtector) ||
		len(p.Data) < jksSaltSize+jksDigestSize {
		return nil, errMalformed
	}
	salt, rest := p.Data[:jksSaltSize], p.Data[jksSaltSize:]
	key := jksStream(password, salt, rest[:len(rest)-jksDigestSize])
	if !bytes.Equal(jksHash(password, key), rest[len(rest)-jksDigestSize:]) {
		return nil, errNoPassword
	}
	return key, nil
}

// jksDigest protects a keystore against changes.
func jksDigest(password, data []byte) []byte {
	return jksHash(password, []byte("Mighty Aphrodite"), data)
}

// writeJKS writes a keystore. Entries are in the order of their aliases.
func writeJKS(entries []jksEntry, password []byte) ([]byte, error) {
	slices.SortStableFunc(entries, func(a, b jksEntry) int { return cmp.Compare(a.alias, b.alias) })
	var w []byte
	number := func(n uint32) { w = binary.BigEndian.AppendUint32(w, n) }
	text := func(s string) {
		w = append(binary.BigEndian.AppendUint16(w, uint16(len(s))),
			s...)
	} //nolint:gosec // checked below
	sized := func(b []byte) { number(uint32(len(b))); w = append(w, b...) } //nolint:gosec // of DER
	number(jksMagic)
	number(jksVersion2)
	number(uint32(len(entries))) //nolint:gosec // as many as certificates
	for _, e := range entries {
		if len(e.alias) > 0xffff {
			return nil, errors.New("an alias is longer than 65535 bytes")
		}
		tag := uint32(jksTrusted)
		if e.key != nil {
			tag = jksPrivateKey
		}
		number(tag)
		text(e.alias)
		w = binary.BigEndian.AppendUint64(w, uint64(e.made.UnixMilli())) //nolint:gosec // as Java has it
		if e.key != nil {
			sized(e.key)
			number(uint32(len(e.certs))) //nolint:gosec // as many as certificates
		}
		for _, cert := range e.certs {
			text(jksType)
			sized(cert)
		}
	}
	return append(w, jksDigest(password, w)...), nil
}

// readJKS reads a keystore. It checks every length in data against the rest of data.
func readJKS(data []byte) (entries []jksEntry, err error) {
	if err := checkSize(data, maxKeystoreSize); err != nil {
		return nil, err
	}
	s := jksScanner{rest: data}
	if s.uint32() != jksMagic {
		return nil, errors.New("it is not a JKS keystore")
	}
	version := s.uint32()
	if version != jksVersion1 && version != jksVersion2 {
		return nil, fmt.Errorf("it is a JKS keystore of the unknown version %d", version)
	}
	for n := s.uint32(); n > 0 && !s.failed; n-- {
		tag := s.uint32()
		e := jksEntry{alias: string(s.bytes(uint32(s.uint16())))}
		s.bytes(8) // time of creation
		certs := uint32(1)
		switch tag {
		case jksPrivateKey:
			e.key = s.bytes(s.uint32())
			certs = s.uint32()
		case jksTrusted:
		default:
			return nil, errMalformed
		}
		for ; certs > 0 && !s.failed; certs-- {
			if version == jksVersion2 {
				s.bytes(uint32(s.uint16())) // type
			}
			e.certs = append(e.certs, s.bytes(s.uint32()))
		}
		entries = append(entries, e)
	}
	if s.failed || len(s.rest) != jksDigestSize {
		return nil, errMalformed
	}
	return entries, nil
}

// jksScanner reads lengths. After one that exceeds the input it has failed and returns zeros.
type jksScanner struct {
	rest   []byte
	failed bool
}

func (s *jksScanner) bytes(n uint32) []byte {
	if s.failed || uint64(n) > uint64(len(s.rest)) {
		s.failed = true
		return nil
	}
	value := s.rest[:n:n]
	s.rest = s.rest[n:]
	return value
}

func (s *jksScanner) uint16() uint16 {
	if value := s.bytes(2); value != nil {
		return binary.BigEndian.Uint16(value)
	}
	return 0
}

func (s *jksScanner) uint32() uint32 {
	if value := s.bytes(4); value != nil {
		return binary.BigEndian.Uint32(value)
	}
	return 0
}
