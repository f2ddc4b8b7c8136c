package v1

import (
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
)

// CertificateKeystores says which keystores are written to the Secret.
type CertificateKeystores struct {
	// Java KeyStore.
	// +optional
	JKS *JKSKeystore `json:"jks,omitempty"`

	// PKCS#12 (RFC 7292).
	// +optional
	PKCS12 *PKCS12Keystore `json:"pkcs12,omitempty"`
}

// JKSKeystore has the settings of the Java KeyStore.
//
// +kubebuilder:validation:XValidation:rule=`has(self.password) != (has(self.passwordSecretRef) && self.passwordSecretRef.name != "")`,message=`exactly one of password and passwordSecretRef must be set`,fieldPath=`.password`
// +kubebuilder:validation:XValidation:rule=`!has(self.password) || self.password != ""`,message=`password must not be empty`,fieldPath=`.password`
type JKSKeystore struct {
	// Whether the key and the chain are written to keystore.jks and, if the issuer returned a CA, its
	// certificates to truststore.jks.
	Create bool `json:"create"`

	// Name of the entry in the keystore. "certificate" if left out.
	// +optional
	Alias *string `json:"alias,omitempty"`

	// The Secret, in the same namespace, and its entry that hold the password.
	// Either this or password.
	// +optional
	PasswordSecretRef cmmeta.SecretKeySelector `json:"passwordSecretRef,omitempty"`

	// The password itself, not empty. Either this or passwordSecretRef.
	// +optional
	Password *string `json:"password,omitempty"`
}

// PKCS12Keystore has the settings of the PKCS#12 keystore.
//
// +kubebuilder:validation:XValidation:rule=`has(self.password) != (has(self.passwordSecretRef) && self.passwordSecretRef.name != "")`,message=`exactly one of password and passwordSecretRef must be set`,fieldPath=`.password`
// +kubebuilder:validation:XValidation:rule=`!has(self.password) || self.password != ""`,message=`password must not be empty`,fieldPath=`.password`
type PKCS12Keystore struct {
	// Whether the key and the chain are written to keystore.p12 and, if the issuer returned a CA, its
	// certificates to truststore.p12.
	Create bool `json:"create"`

	// Algorithms that the keystore is encrypted with, by age.
	// LegacyRC2, if left out: RC2 and SHA-1, which OpenSSL 3 and Java 20 do not read without more.
	// LegacyDES: triple DES and SHA-1, which almost everything reads.
	// Modern2023: AES-256 and SHA-256.
	// Modern2026: AES-256, and PBMAC1 for integrity (RFC 9579), which needs OpenSSL 3.4 or Java 26.
	// +optional
	Profile PKCS12Profile `json:"profile,omitempty"`

	// The Secret, in the same namespace, and its entry that hold the password.
	// Either this or password.
	// +optional
	PasswordSecretRef cmmeta.SecretKeySelector `json:"passwordSecretRef,omitempty"`

	// The password itself, not empty. Either this or passwordSecretRef.
	// +optional
	Password *string `json:"password,omitempty"`
}

// PKCS12Profile is a set of algorithms for a PKCS#12 keystore.
// +kubebuilder:validation:Enum=LegacyRC2;LegacyDES;Modern2023;Modern2026
type PKCS12Profile string

const (
	LegacyRC2PKCS12Profile  PKCS12Profile = "LegacyRC2"
	LegacyDESPKCS12Profile  PKCS12Profile = "LegacyDES"
	Modern2023PKCS12Profile PKCS12Profile = "Modern2023"
	Modern2026PKCS12Profile PKCS12Profile = "Modern2026"
)
