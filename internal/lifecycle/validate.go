package lifecycle

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/perennial-pki/perennial/internal/renewal"
	"github.com/perennial-pki/perennial/internal/revocation"
	"github.com/perennial-pki/perennial/pki"
)

// An RSA key of more than largestQuickRSA bits takes up to a minute to generate. A certificate that
// lives for less than leastLifeOfLargeRSA would keep a core busy with that alone.
const (
	largestQuickRSA     = 4096
	leastLifeOfLargeRSA = time.Hour
)

// check returns what is wrong with the spec and the API server does not check.
func (d *decider) check(why *violation) error {
	spec := &d.Certificate.Spec
	// Invalid windows never let a valid certificate expire.
	if spec.Renewal != nil && why.reason != reasonRenewing {
		if err := renewal.CheckWindows(spec.Renewal.Windows); err != nil {
			return err
		}
	}
	ks, _ := keySpec(spec)
	if life := spec.DurationOrDefault(); isRSA(ks) && ks.Size > largestQuickRSA && life < leastLifeOfLargeRSA {
		return fmt.Errorf("spec.privateKey.size: an RSA key of %d bits takes long to generate, and the certificate is to "+
			"live for %s only: "+
			"set size to %d or less, or duration to %s or more", ks.Size, life, largestQuickRSA, leastLifeOfLargeRSA)
	}
	if err := d.checkNames(); err != nil {
		return err
	}
	return d.Limits.CheckRequest(requestOf(spec), ks)
}

// checkNames finds a name in a Certificate from before the API server refused it that can be no DNS
// name. None is certified anew. One that the present certificate has is certified again: the
// certificate may serve by its other names.
func (d *decider) checkNames() error {
	var certified []string
	if len(d.present.chain) > 0 {
		certified = pki.DNSNames(d.present.chain[0].DNSNames)
	}
	for i, name := range d.Certificate.Spec.DNSNames {
		if err := pki.CheckDNSName(name); err != nil && !slices.Contains(certified, pki.ComparableDNSName(name)) {
			return fmt.Errorf("spec.dnsNames[%d]: %.300q %w", i, name, err)
		}
	}
	return nil
}

func isRSA(ks pki.KeySpec) bool { return ks.Algorithm == pki.RSA || ks.Algorithm == "" }

// keptKey returns the private key that the spec keeps for the next certificate. It is nil for a new
// one, also if the present one is compromised. The violation says that the spec forbids both.
func keptKey(o *Observation, p pair) (pair, *violation) {
	if !reuseKey(&o.Certificate.Spec) || p.key == nil || revocation.Compromised(o.Secret, p.key) {
		return pair{}, nil
	}
	ks, _ := keySpec(&o.Certificate.Spec)
	if differences := ks.Differences(p.key.Public()); len(differences) > 0 {
		return pair{}, &violation{reasonCannotRegenerateKey, fmt.Sprintf(
			"User intervention required: the private key in Secret %q does not match %v, and spec.privateKey.rotationPolicy "+
				"Never forbids a new one: "+
				"set it to Always, or delete the entry %s of the Secret",
			o.Certificate.Spec.SecretName, differences, corev1.TLSPrivateKeyKey)}
	}
	return p, nil
}

// unreadableKey reports that the private key that the spec keeps cannot be read. Then neither it
// nor a new one can be used.
func unreadableKey(o *Observation, p pair) *violation {
	if !reuseKey(&o.Certificate.Spec) || p.key != nil || o.Secret == nil {
		return nil
	}
	stored := o.Secret.Data[corev1.TLSPrivateKeyKey]
	if len(stored) == 0 {
		return nil
	}
	_, err := o.Limits.DecodeKeyPEM(stored)
	if err == nil {
		return nil
	}
	return &violation{reasonCannotRegenerateKey, fmt.Sprintf(
		"User intervention required: the private key in Secret %q cannot be read, and spec.privateKey.rotationPolicy Never "+
			"forbids a new one: %v. "+
			"Store it unencrypted, as PEM in PKCS #1, PKCS #8 or SEC 1 form, set rotationPolicy to Always, or delete the "+
			"entry %s of the Secret",
		o.Certificate.Spec.SecretName, err, corev1.TLSPrivateKeyKey)}
}
