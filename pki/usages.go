package pki

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
)

// usage is one of the 23 words of spec.usages and its bit (RFC 5280 section 4.2.1.3) or purpose
// (section 4.2.1.12).
type usage struct {
	word     string
	bit      x509.KeyUsage
	extended bool
	purpose  x509.ExtKeyUsage // if extended
}

// usages has two words for the same meaning in two cases; [FormatUsages] writes the first one.
var usages = [...]usage{
	{word: "digital signature", bit: x509.KeyUsageDigitalSignature},
	{word: "signing", bit: x509.KeyUsageDigitalSignature},
	{word: "content commitment", bit: x509.KeyUsageContentCommitment},
	{word: "key encipherment", bit: x509.KeyUsageKeyEncipherment},
	{word: "data encipherment", bit: x509.KeyUsageDataEncipherment},
	{word: "key agreement", bit: x509.KeyUsageKeyAgreement},
	{word: "cert sign", bit: x509.KeyUsageCertSign},
	{word: "crl sign", bit: x509.KeyUsageCRLSign},
	{word: "encipher only", bit: x509.KeyUsageEncipherOnly},
	{word: "decipher only", bit: x509.KeyUsageDecipherOnly},

	{word: "any", extended: true, purpose: x509.ExtKeyUsageAny},
	{word: "server auth", extended: true, purpose: x509.ExtKeyUsageServerAuth},
	{word: "client auth", extended: true, purpose: x509.ExtKeyUsageClientAuth},
	{word: "code signing", extended: true, purpose: x509.ExtKeyUsageCodeSigning},
	{word: "email protection", extended: true, purpose: x509.ExtKeyUsageEmailProtection},
	{word: "s/mime", extended: true, purpose: x509.ExtKeyUsageEmailProtection},
	{word: "ipsec end system", extended: true, purpose: x509.ExtKeyUsageIPSECEndSystem},
	{word: "ipsec tunnel", extended: true, purpose: x509.ExtKeyUsageIPSECTunnel},
	{word: "ipsec user", extended: true, purpose: x509.ExtKeyUsageIPSECUser},
	{word: "timestamping", extended: true, purpose: x509.ExtKeyUsageTimeStamping},
	{word: "ocsp signing", extended: true, purpose: x509.ExtKeyUsageOCSPSigning},
	{word: "microsoft sgc", extended: true, purpose: x509.ExtKeyUsageMicrosoftServerGatedCrypto},
	{word: "netscape sgc", extended: true, purpose: x509.ExtKeyUsageNetscapeServerGatedCrypto},
}

const defaultKeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment

// ParseUsages translates the words of spec.usages. Without words, it returns the default, digital
// signature and key encipherment. Extended usages keep the order of the words, each once. The error
// names the first unknown word.
func ParseUsages(words []string) (x509.KeyUsage, []x509.ExtKeyUsage, error) {
	if len(words) == 0 {
		return defaultKeyUsage, nil, nil
	}
	var bits x509.KeyUsage
	var purposes []x509.ExtKeyUsage
	for i, word := range words {
		n := slices.IndexFunc(usages[:], func(u usage) bool { return u.word == word })
		switch {
		case n < 0:
			return 0, nil, fmt.Errorf("spec.usages[%d]: %q is not a known usage", i, word)
		case !usages[n].extended:
			bits |= usages[n].bit
		case !slices.Contains(purposes, usages[n].purpose):
			purposes = append(purposes, usages[n].purpose)
		}
	}
	return bits, purposes, nil
}

// KeyUsages is [ParseUsages], plus the usage cert sign if isCA is true.
func KeyUsages(words []string, isCA bool) (x509.KeyUsage, []x509.ExtKeyUsage, error) {
	bits, purposes, err := ParseUsages(words)
	if err == nil && isCA {
		bits |= x509.KeyUsageCertSign
	}
	return bits, purposes, err
}

// FormatUsages is the inverse of [ParseUsages]. It writes purposes without a word as OIDs.
func FormatUsages(ku x509.KeyUsage, eku []x509.ExtKeyUsage) []string {
	var words []string
	for i, u := range usages {
		if !u.extended && ku&u.bit != 0 && (i == 0 || usages[i-1].bit != u.bit) {
			words = append(words, u.word)
		}
	}
	for _, purpose := range eku {
		n := slices.IndexFunc(usages[:], func(u usage) bool { return u.extended && u.purpose == purpose })
		if n < 0 {
			words = append(words, purpose.OID().String())
			continue
		}
		words = append(words, usages[n].word)
	}
	return words
}

// usageExtensions returns the usages in the extensions of a request. present says whether it has at
// least one of the two extensions; the values of a missing one are zero. unknown are extended
// usages that the standard library does not know.
type usageExtensions struct {
	bits     x509.KeyUsage
	purposes []x509.ExtKeyUsage
	unknown  []asn1.ObjectIdentifier
	present  bool
}

func requestedUsages(csr *x509.CertificateRequest) (u usageExtensions, err error) {
	if ext := findExtension(csr.Extensions, oidKeyUsage); ext != nil {
		u.present = true
		if u.bits, err = parseKeyUsage(ext.Value); err != nil {
			return usageExtensions{}, err
		}
	}
	if ext := findExtension(csr.Extensions, oidExtKeyUsage); ext != nil {
		u.present = true
		if u.purposes, u.unknown, err = parseExtKeyUsage(ext.Value); err != nil {
			return usageExtensions{}, err
		}
	}
	return u, nil
}

// marshalKeyUsage encodes a named bit list: bit 0 is the most significant bit of the first
// octet, and zero bits at the end are left out (X.690 section 11.2.2).
func marshalKeyUsage(usage x509.KeyUsage) ([]byte, error) {
	var list asn1.BitString
	for i := range 9 {
		if usage&(1<<i) == 0 {
			continue
		}
		for len(list.Bytes) <= i/8 {
			list.Bytes = append(list.Bytes, 0)
		}
		list.Bytes[i/8] |= 0x80 >> (i % 8)
		list.BitLength = i + 1
	}
	return asn1.Marshal(list)
}

func parseKeyUsage(der []byte) (usage x509.KeyUsage, err error) {
	var list asn1.BitString
	if rest, err := asn1.Unmarshal(der, &list); err != nil || len(rest) != 0 {
		return 0, errors.New("the key usage extension is malformed")
	}
	for i := range 9 {
		if list.At(i) != 0 {
			usage |= 1 << i
		}
	}
	return usage, nil
}

// marshalExtKeyUsage encodes purposes in their order. All come from [ParseUsages], so all
// have an OID.
func marshalExtKeyUsage(purposes []x509.ExtKeyUsage) ([]byte, error) {
	oids := make([]asn1.ObjectIdentifier, len(purposes))
	for i, purpose := range purposes {
		oid, err := parseOID(purpose.OID().String())
		if err != nil {
			return nil, err
		}
		oids[i] = oid
	}
	return asn1.Marshal(oids)
}

func parseExtKeyUsage(der []byte) (known []x509.ExtKeyUsage, unknown []asn1.ObjectIdentifier, err error) {
	var oids []asn1.ObjectIdentifier
	if rest, err := asn1.Unmarshal(der, &oids); err != nil || len(rest) != 0 {
		return nil, nil, errors.New("the extended key usage extension is malformed")
	}
	for _, oid := range oids {
		if purpose, ok := purposeOf(oid); ok {
			known = append(known, purpose)
		} else {
			unknown = append(unknown, oid)
		}
	}
	return known, unknown, nil
}

func purposeOf(oid asn1.ObjectIdentifier) (x509.ExtKeyUsage, bool) {
	for purpose := x509.ExtKeyUsageAny; purpose <= x509.ExtKeyUsageMicrosoftKernelCodeSigning; purpose++ {
		if purpose.OID().EqualASN1OID(oid) {
			return purpose, true
		}
	}
	return 0, false
}
