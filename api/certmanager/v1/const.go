package v1

import "time"

// Lifetimes of certificates.
const (
	// MinimumCertificateDuration is the shortest lifetime that a Certificate can request. Perennial's
	// own: cert-manager's is one hour.
	MinimumCertificateDuration = time.Minute

	// DefaultCertificateDuration is the requested lifetime when spec.duration is left out.
	DefaultCertificateDuration = 90 * 24 * time.Hour

	// MinimumRenewBefore is the smallest allowed spec.renewBefore of certificates that live an hour or
	// more.
	MinimumRenewBefore = 5 * time.Minute

	// ShortLivedDuration is the lifetime below which MinimumShortLivedRenewBefore takes the
	// place of MinimumRenewBefore. Perennial's own.
	ShortLivedDuration = time.Hour

	// MinimumShortLivedRenewBefore is the smallest allowed spec.renewBefore of certificates that live
	// less than ShortLivedDuration. Perennial's own.
	MinimumShortLivedRenewBefore = 10 * time.Second

	// DefaultRenewBefore was the time between renewal and expiry in old releases of cert-manager.
	//
	// Deprecated: certificates are renewed when a third of their lifetime is left.
	DefaultRenewBefore = 30 * 24 * time.Hour
)

// Defaults of Vault issuers.
const (
	// DefaultVaultTokenAuthSecretKey is the entry of the Secret that holds a Vault token.
	DefaultVaultTokenAuthSecretKey = "token"

	// DefaultVaultKubernetesAuthMountPath is the mount path of Vault's Kubernetes auth method; /login
	// is appended to it.
	DefaultVaultKubernetesAuthMountPath = "/v1/auth/kubernetes"

	// DefaultVaultClientCertificateAuthMountPath is the mount path of Vault's TLS certificate auth
	// method; /login is appended to it.
	DefaultVaultClientCertificateAuthMountPath = "/v1/auth/cert"
)

// Entries of a Certificate's Secret that hold its keystores.
const (
	// PKCS12SecretKey holds the key and the chain, PKCS#12.
	PKCS12SecretKey = "keystore.p12"
	// PKCS12TruststoreKey holds the CA certificates, PKCS#12.
	PKCS12TruststoreKey = "truststore.p12"
	// JKSSecretKey holds the key and the chain, Java KeyStore.
	JKSSecretKey = "keystore.jks"
	// JKSTruststoreKey holds the CA certificates, Java KeyStore.
	JKSTruststoreKey = "truststore.jks"
	// KeystorePassword is the conventional name of the entry that holds the password, in a Secret for
	// it.
	KeystorePassword = "keystorePassword"
)
