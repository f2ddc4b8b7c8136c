// Package acme signs with an ACME server, by way of an Order, which package order brings to its certificate.
package acme

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/revocation"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

const (
	// maxStem is how much of a request's name is in the name of its Order.
	maxStem = 52
	// maxOrders is how many Orders a request may have, one after the other: another is made at once if one has lapsed, which is nobody's fault. A CA
	// whose orders always lapse is not asked in a loop.
	maxOrders = 3
)

// Signer signs for issuers of type acme.
type Signer struct {
	Client   client.Client
	Accounts *account.Accounts
	// DNS01 says what is wrong with a solver's settings. Not all that is shows there.
	DNS01  func(*signer.Issuer, *cmacme.ACMEChallengeSolverDNS01) error
	Limits pki.Limits
	Clock  clock.PassiveClock
}

// References returns the Secrets of the account. Those of the solvers are read when a challenge needs them.
func (*Signer) References(spec *cmapi.IssuerConfig) []string {
	names := []string{spec.ACME.PrivateKey.Name}
	if b := spec.ACME.ExternalAccountBinding; b != nil {
		names = append(names, b.Key.Name)
	}
	return names
}

// Check sees to it that the issuer has an account, and looks at its solvers.
func (s *Signer) Check(ctx context.Context, issuer *signer.Issuer) (signer.Readiness, error) {
	wrong := s.wrong(issuer)
	status, err := s.Accounts.Register(ctx, issuer)
	if err != nil {
		return signer.Readiness{Solvers: wrong}, err
	}
	return signer.Readiness{
		Reason: "ACMEAccountRegistered", Message: "The ACME account was registered with the ACME server", ACME: status, Solvers: wrong,
	}, nil
}

// maxWrong is how many solvers are named that have something wrong.
const maxWrong = 5

// wrong is what is wrong with the solvers of an issuer.
func (s *Signer) wrong(issuer *signer.Issuer) string {
	var all []string
	for i, c := range issuer.GetSpec().ACME.Solvers {
		if c.DNS01 == nil || s.DNS01 == nil || len(all) == maxWrong {
			continue
		}
		if err := s.DNS01(issuer, c.DNS01); err != nil {
			all = append(all, fmt.Sprintf("spec.acme.solvers[%d]: %s", i, err))
		}
	}
	return strings.Join(all, "; ")
}

// Sign makes the Order of the request, and answers with its certificate when that is there.
func (s *Signer) Sign(ctx context.Context, issuer *signer.Issuer, r signer.Request) (signer.Answer, error) {
	for n := 1; ; n++ {
		answer, lapsed, err := s.sign(ctx, issuer, r, n)
		if !lapsed || n == maxOrders {
			return answer, err
		}
	}
}

// sign is Sign with the n-th Order of the request. It reports whether that one has lapsed.
func (s *Signer) sign(ctx context.Context, issuer *signer.Issuer, r signer.Request, n int) (answer signer.Answer, lapsed bool, err error) {
	desired, err := orderFor(issuer, r, n)
	if err != nil {
		return answer, false, err
	}
	order := &cmacme.Order{}
	err = s.Client.Get(ctx, client.ObjectKeyFromObject(desired), order)
	switch {
	case apierrors.IsNotFound(err):
		if err := s.leave(ctx, r); err != nil {
			return answer, false, err
		}
		if err := s.Client.Create(ctx, desired); err != nil && !apierrors.IsAlreadyExists(err) {
			return answer, false, fault.Transientf("OrderCreatingError", "create Order %s/%s: %w", desired.Namespace, desired.Name, err)
		}
		answer = waiting(desired)
		answer.Created = fmt.Sprintf("Created Order resource %s/%s", desired.Namespace, desired.Name)
		return answer, false, nil
	case err != nil:
		return answer, false, fault.Transientf("OrderGetError", "get Order %s/%s: %w", desired.Namespace, desired.Name, err)
	}
	owner := metav1.GetControllerOf(order)
	if owner == nil || owner.UID != r.Owner.UID || !bytes.Equal(order.Spec.Request, desired.Spec.Request) {
		// Of a request of the same name that is gone, and whose garbage is not collected yet.
		if err := s.Client.Delete(ctx, order, client.Preconditions{UID: &order.UID}); client.IgnoreNotFound(err) != nil {
			return answer, false, fault.Transientf("OrderGetError", "delete Order %s/%s of an earlier request: %w", order.Namespace, order.Name, err)
		}
		answer = waiting(desired)
		answer.Again = s.Clock.Now().Add(time.Second) // deletion of what we do not own is not watched
		return answer, false, nil
	}
	switch order.Status.State {
	case cmacme.Valid:
		answer.Certificate = order.Status.Certificate
		if chain, err := s.Limits.DecodeChainPEM(order.Status.Certificate); err == nil { // package order has checked it
			answer.CA = issuer.CAFromChain(chain)
		}
		return answer, false, nil
	case cmacme.Invalid, cmacme.Errored, cmacme.Expired:
		answer.Paused = paused(order)
		return answer, order.Status.State == cmacme.Expired, fault.Refusedf("OrderFailed", "Failed to wait for order resource %q to become ready: order is in %q state: %s",
			order.Name, order.Status.State, order.Status.Reason)
	}
	return waiting(order), false, nil
}

// leave deletes the Orders of a request that are not over, before another is made: the issuer asks for something else by now, such as another profile, and
// the CA would issue for each of them.
func (s *Signer) leave(ctx context.Context, r signer.Request) error {
	var open cmacme.OrderList
	if err := s.Client.List(ctx, &open, client.MatchingFields{signer.OpenOrders: string(r.Owner.UID)}, client.UnsafeDisableDeepCopy); err != nil {
		return fault.Transientf("OrderGetError", "list the Orders of the request: %w", err)
	}
	for i := range open.Items {
		order := &open.Items[i]
		if err := s.Client.Delete(ctx, order, client.Preconditions{UID: &order.UID}); client.IgnoreNotFound(err) != nil {
			return fault.Transientf("OrderGetError", "delete Order %s/%s: %w", order.Namespace, order.Name, err)
		}
	}
	return nil
}

// waiting is the answer while there is no certificate. It changes only if the Order has something to say: how far that is stands there, and
// each change here would be written into the request, and from there into the Certificate.
func waiting(order *cmacme.Order) signer.Answer {
	state := cmacme.Pending
	if order.Status.Reason != "" && order.Status.State != cmacme.Unknown {
		state = order.Status.State
	}
	text := fmt.Sprintf("Waiting on certificate issuance from order %s/%s: %q", order.Namespace, order.Name, state)
	if order.Status.Reason != "" {
		text += ": " + order.Status.Reason
	}
	return signer.Answer{Pending: text, Unreachable: order.Status.UnreachableSince != nil, Paused: paused(order)}
}

// paused says that names of the order are paused, if they are.
func paused(order *cmacme.Order) string {
	if order.Status.PausedUntil == nil {
		return ""
	}
	return order.Status.Reason
}

// orderFor returns the n-th Order of a request. It is the same whenever it is asked for.
func orderFor(issuer *signer.Issuer, r signer.Request, n int) (*cmacme.Order, error) {
	csr, spec := r.CSR, issuer.GetSpec().ACME
	if err := orderable(csr, r.IsCA); err != nil {
		return nil, err
	}
	var addresses []string
	for _, ip := range csr.IPAddresses {
		addresses = append(addresses, ip.String())
	}
	order := &cmacme.Order{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: r.Namespace, Labels: maps.Clone(r.Labels), Annotations: maps.Clone(r.Annotations),
			OwnerReferences: []metav1.OwnerReference{r.Owner},
		},
		Spec: cmacme.OrderSpec{
			IssuerRef:  r.IssuerRef,
			CommonName: csr.Subject.CommonName, DNSNames: csr.DNSNames, IPAddresses: addresses,
			Profile: spec.Profile, Replaces: r.Annotations[signer.ReplacesAnnotation],
		},
	}
	if profile := r.Annotations[signer.ProfileAnnotation]; profile != "" {
		order.Spec.Profile = profile
	}
	if order.Namespace == "" { // a Kubernetes CSR has none
		order.Namespace = issuer.SecretNamespace
	}
	if spec.EnableDurationFeature {
		order.Spec.Duration = r.Asked
	}
	name, err := orderName(r, order.Spec, n)
	if err != nil {
		return nil, err
	}
	order.Name = name
	if uid, _ := revocation.Wants(order); uid != "" {
		order.Finalizers = []string{revocation.Finalizer}
	}
	order.Spec.Request = pki.EncodeCSRPEM(csr.Raw)
	return order, nil
}

// orderable reports what no ACME server can certify.
func orderable(csr *x509.CertificateRequest, isCA bool) error {
	names := pki.DNSNames(csr.DNSNames)
	for _, ip := range csr.IPAddresses {
		names = append(names, ip.String())
	}
	cn := csr.Subject.CommonName
	switch {
	case isCA:
		return fault.Refusedf("InvalidOrder", "ACME servers issue no CA certificates: leave spec.isCA out, or use an issuer of type ca")
	case len(names) == 0:
		return fault.Refusedf("InvalidOrder", "an ACME certificate needs at least one of spec.dnsNames and spec.ipAddresses")
	case len(csr.URIs) > 0 || len(csr.EmailAddresses) > 0:
		return fault.Refusedf("InvalidOrder", "ACME servers certify DNS names and IP addresses alone: leave spec.uris and spec.emailAddresses out")
	case cn != "" && !slices.Contains(names, pki.ComparableDNSName(pki.ComparableIP(cn))):
		return fault.Refusedf("InvalidOrder", "The CSR PEM requests a commonName that is not present in the list of dnsNames or ipAddresses. "+
			"If a commonName is set, ACME requires that the value is also present in the list of dnsNames or ipAddresses: %q does not exist in %q", cn, names)
	}
	return nil
}

// orderName is the name that cert-manager gives an Order: the request's, and a hash of the spec without the CSR. Who changes over from
// cert-manager meanwhile goes on with the Order that is there. If it is not the first one, the hash is also of which one it is.
func orderName(r signer.Request, spec cmacme.OrderSpec, n int) (string, error) {
	var hashed any = spec
	stem := r.Name
	if len(r.Name) >= maxStem {
		// Two long names may begin alike.
		of := "certificateRequestName"
		if r.Owner.Kind != "CertificateRequest" {
			of = "certificateSigningRequestName"
		}
		hashed = map[string]any{of: r.Name, "spec": spec} // in the order of the keys
		stem = strings.TrimRight(r.Name[:maxStem], "-.")
	}
	text, err := json.Marshal(hashed)
	if err != nil {
		return "", err
	}
	h := fnv.New32()
	h.Write(text)
	if n > 1 {
		h.Write([]byte(strconv.Itoa(n)))
	}
	return fmt.Sprintf("%s-%d", stem, h.Sum32()), nil
}
