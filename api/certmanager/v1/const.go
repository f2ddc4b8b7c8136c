package v1

import "time"

// Lifetimes of certificates.
const (
	// MinimumCertificateDuration is the shortest lifetime that may be asked for.
	// Perennial's own: cert-manager's is one hour.
	MinimumCertificateDuration = time.Minute

	// DefaultCertificateDuration is the lifetime asked for when spec.duration is left out.
	DefaultCertificateDuration = 90 * 24 * time.Hour

	// MinimumRenewBefore is the least time between renewal and expiry that may be asked for,
	// of certificates that live an hour or more.
	MinimumRenewBefore = 5 * time.Minute

	// ShortLivedDuration is the lifetime below which MinimumShortLivedRenewBefore takes the
	// place of MinimumRenewBefore. Perennial's own.
	ShortLivedDuration = time.Hour

	// MinimumShortLivedRenewBefore is the least time between renewal and expiry of
	// certificates that live less than ShortLivedDuration. Perennial's own.
	MinimumShortLivedRenewBefore = 10 * time.Second

	// DefaultRenewBefore was once the time between renewal and expiry.
	//
	// Deprecated: certificates are renewed when a third of their lifetime is left.
	DefaultRenewBefore = 30 * 24 * time.Hour
)

// What Vault issuers use where their spec leaves something out.
const (
	// DefaultVaultTokenAuthSecretKey is the entry of the Secret that holds a Vault token.
	DefaultVaultTokenAuthSecretKey = "token"

	// DefaultVaultKubernetesAuthMountPath is where Vault's Kubernetes auth method is mounted;
	// /login is appended to it.
	DefaultVaultKubernetesAuthMountPath = "/v1/auth/kubernetes"

	// DefaultVaultClientCertificateAuthMountPath is where Vault's TLS certificate auth
	// method is mounted; /login is appended to it.
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
	// KeystorePassword is the customary entry for the password in a Secret made for it.
	KeystorePassword = "keystorePassword"
)
