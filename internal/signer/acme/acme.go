// Package acme signs with an ACME server: it creates an Order, and package order gets the
// certificate.
package acme

import (
	"bytes"
	"cmp"
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
	"github.com/perennial-pki/perennial/internal/limiter"
	"github.com/perennial-pki/perennial/internal/revocation"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/internal/solver/dns01"
	"github.com/perennial-pki/perennial/internal/solver/dns01/provider"
	"github.com/perennial-pki/perennial/internal/solver/http01"
	"github.com/perennial-pki/perennial/internal/solver/tlsalpn01"
	"github.com/perennial-pki/perennial/pki"
)

const (
	// maxStem is how many bytes of a request's name are in the name of its Order.
	maxStem = 52
	// maxOrders is how many Orders a request may have, one after the other. If an order lapses without
	// a failed proof, another one is made at once. The limit keeps a CA with orders that always lapse
	// from being asked in a loop.
	maxOrders = 3
	// webhookAgain is how often the controller checks whether the API server has the webhook of a
	// solver.
	webhookAgain = 15 * time.Second
)

// Signer signs for issuers of type acme.
type Signer struct {
	Client   client.Client
	Accounts *account.Accounts
	// DNS01 checks the settings and Secrets of solvers.
	DNS01 *dns01.Solver
	// HTTP01 and TLSALPN01 answer such challenges, nil if another process handles Challenges.
	HTTP01    *http01.Solver
	TLSALPN01 *tlsalpn01.Solver
	Limits    pki.Limits
	Clock     clock.PassiveClock
}

// References returns the Secrets of the account and of the solvers.
func (*Signer) References(spec *cmapi.IssuerConfig) []string {
	names := []string{spec.ACME.PrivateKey.Name}
	if b := spec.ACME.ExternalAccountBinding; b != nil {
		names = append(names, b.Key.Name)
	}
	for _, c := range spec.ACME.Solvers {
		if c.DNS01 != nil {
			names = append(names, provider.SecretNames(c.DNS01)...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Check first checks everything that needs no CA, and reports all problems at once. If there is
// none, it makes sure that the issuer has an account.
func (s *Signer) Check(ctx context.Context, issuer *signer.Issuer) (signer.Readiness, error) {
	r := signer.Readiness{Reason: "ACMEAccountRegistered", Message: "The ACME account was registered with the ACME server"}
	local, err := s.Accounts.CheckLocal(ctx, issuer)
	if err != nil {
		return r, err
	}
	solvers, err := s.checkSolvers(ctx, issuer)
	if err != nil {
		return r, err
	}
	r.Solvers, r.Again = solvers.problem, solvers.again
	if len(local.Wrong) > 0 {
		return r, together(local.Wrong[0], append(local.Wrong, solvers.unusable)...)
	}
	registered, err := s.Accounts.Register(ctx, issuer)
	if limiter.IsBusy(err) {
		return r, err
	}
	r.ACME = registered.Status
	if err != nil {
		if r.UnreachableReason = account.UnreachableReason(err); r.UnreachableReason != "" {
			r.Unreachable = err
		}
		return r, together(err, err, local.Binding, solvers.unusable)
	}
	if registered.Outage != nil {
		r.Unreachable, r.UnreachableReason = registered.Outage, cmp.Or(account.UnreachableReason(registered.Outage),
			signer.ReasonUnreachable)
	}
	return r, solvers.unusable
}

// together returns an error with the class and reason of the first, and the texts of all, each
// once.
func together(first error, all ...error) error {
	var texts []string
	for _, err := range all {
		if err != nil && !slices.Contains(texts, err.Error()) {
			texts = append(texts, err.Error())
		}
	}
	f := *fault.Of(first)
	f.Missing = missing(all)
	if len(texts) > 1 {
		f.Err = joined{strings.Join(texts, "; "), f.Err}
	}
	return &f
}

// missing reports whether missing objects are the only problem.
func missing(all []error) bool {
	return !slices.ContainsFunc(all, func(err error) bool { return err != nil && !fault.Of(err).Missing })
}

// joined is an error with the texts of several errors.
type joined struct {
	text string
	error
}

func (j joined) Error() string { return j.text }
func (j joined) Unwrap() error { return j.error }

// maxWrong is how many faults of solvers are reported.
const maxWrong = 10

// solverCheck is what is wrong with the solvers of an issuer.
type solverCheck struct {
	// problem is all of it.
	problem *signer.SolverProblem
	// unusable is set if there are solvers, and none can be used.
	unusable error
	// again is after which time to check again what is not watched, zero for never.
	again time.Duration
}

// checkSolvers checks the solvers of an issuer. The error is that of a Secret that could not be
// read.
func (s *Signer) checkSolvers(ctx context.Context, issuer *signer.Issuer) (solverCheck, error) {
	spec := issuer.GetSpec().ACME
	if len(spec.Solvers) == 0 {
		return solverCheck{problem: &signer.SolverProblem{Reason: "NoSolvers",
				Message: "spec.acme.solvers is empty: the CA can only issue for names " +
					"that need no proof, as it knows them by an external account or from elsewhere. For all other names, add " +
					"a solver"}},
			nil
	}
	var all []string
	var faults []error
	usable, again := 0, time.Duration(0)
	for i, c := range spec.Solvers {
		wrong, err := s.checkSolver(ctx, issuer, &spec.Solvers[i])
		switch {
		case err != nil:
			return solverCheck{}, err
		case len(wrong) == 0:
			usable++
		case c.DNS01 != nil && c.DNS01.Webhook != nil:
			again = webhookAgain
		}
		faults = append(faults, wrong...)
		for _, err := range wrong {
			all = append(all, fmt.Sprintf("spec.acme.solvers[%d]: %s", i, err))
		}
	}
	if len(all) == 0 {
		return solverCheck{}, nil
	}
	if n := len(all); n > maxWrong {
		all = append(all[:maxWrong], fmt.Sprintf("and %d more", n-maxWrong))
	}
	check := solverCheck{again: again, problem: &signer.SolverProblem{Reason: signer.ReasonInvalidSolver,
		Message: strings.Join(all, "; ")}}
	if usable == 0 {
		check.unusable = &fault.Error{
			Class: fault.Misconfigured, Reason: signer.ReasonInvalidSolver, Missing: missing(faults),
			Err: fmt.Errorf("no solver can be used: %s", check.problem.Message),
		}
	}
	return check, nil
}

// checkSolver returns what is wrong with one solver.
func (s *Signer) checkSolver(ctx context.Context, issuer *signer.Issuer,
	c *cmacme.ACMEChallengeSolver) (wrong []error, err error) {
	var unanswered error
	switch {
	case c.DNS01 != nil:
		return s.DNS01.Verify(ctx, issuer, c.DNS01)
	case c.TLSALPN01 != nil && s.TLSALPN01 != nil:
		unanswered = s.TLSALPN01.Answered()
	case c.HTTP01 != nil && s.HTTP01 != nil:
		unanswered = s.HTTP01.Answered(c.HTTP01)
	}
	if unanswered != nil {
		wrong = append(wrong, unanswered)
	}
	return wrong, nil
}

// Sign makes the Order of the request, and returns its certificate when it is there.
func (s *Signer) Sign(ctx context.Context, issuer *signer.Issuer, r signer.Request) (signer.Result, error) {
	for n := 1; ; n++ {
		answer, lapsed, err := s.sign(ctx, issuer, r, n)
		if !lapsed || n == maxOrders {
			return answer, err
		}
	}
}

// sign is Sign with the n-th Order of the request. It reports whether that one has lapsed.
func (s *Signer) sign(
	ctx context.Context,
	issuer *signer.Issuer,
	r signer.Request,
	n int,
) (answer signer.Result, lapsed bool, err error) {
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
			return answer, false, fault.Transientf(
				"OrderCreatingError",
				"create Order %s/%s: %w",
				desired.Namespace,
				desired.Name,
				err,
			)
		}
		answer = waiting(desired)
		answer.Created = fmt.Sprintf("Created Order resource %s/%s", desired.Namespace, desired.Name)
		return answer, false, nil
	case err != nil:
		return answer, false, fault.Transientf("OrderGetError", "get Order %s/%s: %w", desired.Namespace, desired.Name, err)
	}
	owner := metav1.GetControllerOf(order)
	if owner == nil || owner.UID != r.Owner.UID || !bytes.Equal(order.Spec.Request, desired.Spec.Request) {
		// The Order is that of a deleted request of the same name. The garbage collector has not deleted
		// it yet.
		if err := s.Client.Delete(ctx, order, client.Preconditions{UID: &order.UID}); client.IgnoreNotFound(err) != nil {
			return answer, false, fault.Transientf(
				"OrderGetError",
				"delete Order %s/%s of an earlier request: %w",
				order.Namespace,
				order.Name,
				err,
			)
		}
		answer = waiting(desired)
		answer.Again = s.Clock.Now().Add(time.Second) // its deletion is not watched
		return answer, false, nil
	}
	switch order.Status.State {
	case cmacme.Valid:
		answer.Certificate = order.Status.Certificate
		if chain, err := s.Limits.DecodeChainPEM(order.Status.Certificate); err == nil {
			// Package order has checked the chain.
			answer.CA = issuer.CAFromChain(chain)
		}
		return answer, false, nil
	case cmacme.Invalid, cmacme.Errored, cmacme.Expired:
		answer.Paused = paused(order)
		return answer, order.Status.State == cmacme.Expired, fault.Refusedf(
			"OrderFailed",
			"Failed to wait for order resource %q to become ready: order is in %q state: %s",
			order.Name,
			order.Status.State,
			order.Status.Reason,
		)
	}
	return waiting(order), false, nil
}

// leave deletes the unfinished Orders of a request before another one is made: the issuer has other
// settings now, such as another profile, and the CA would issue a certificate for each Order.
func (s *Signer) leave(ctx context.Context, r signer.Request) error {
	var open cmacme.OrderList
	if err := s.Client.List(
		ctx,
		&open,
		client.MatchingFields{signer.ByRequestUID: string(r.Owner.UID)},
		client.UnsafeDisableDeepCopy,
	); err != nil {
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

// waiting returns the answer while there is no certificate. It changes only with the reason of the
// Order: each change is written into the request, and from there into the Certificate. The Order
// itself shows its progress.
func waiting(order *cmacme.Order) signer.Result {
	state := cmacme.Pending
	if order.Status.Reason != "" && order.Status.State != cmacme.Unknown {
		state = order.Status.State
	}
	text := fmt.Sprintf("Waiting on certificate issuance from order %s/%s: %q", order.Namespace, order.Name, state)
	if order.Status.Reason != "" {
		text += ": " + order.Status.Reason
	}
	return signer.Result{Pending: text, Unreachable: order.Status.UnreachableSince != nil, Paused: paused(order)}
}

// paused says that names of the order are paused, if they are.
func paused(order *cmacme.Order) string {
	if order.Status.PausedUntil == nil {
		return ""
	}
	return order.Status.Reason
}

// orderFor returns the n-th Order of a request. It is the same in each pass.
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
			Namespace: r.Namespace, Labels: signer.CopiedLabels(r.Labels), Annotations: maps.Clone(r.Annotations),
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
	if uid, _ := revocation.ParseRevokeFor(order); uid != "" {
		order.Finalizers = []string{revocation.Finalizer}
	}
	order.Spec.Request = pki.EncodeCSRPEM(csr.Raw)
	return order, nil
}

// orderable returns an error if no ACME server can issue what the CSR asks for.
func orderable(csr *x509.CertificateRequest, isCA bool) error {
	names := pki.DNSNames(csr.DNSNames)
	for _, ip := range csr.IPAddresses {
		names = append(names, ip.String())
	}
	cn := csr.Subject.CommonName
	switch {
	case isCA:
		return fault.Refusedf(
			"InvalidOrder",
			"ACME servers issue no CA certificates: leave spec.isCA out, or use an issuer of type ca",
		)
	case len(names) == 0:
		return fault.Refusedf("InvalidOrder", "an ACME certificate needs at least one of spec.dnsNames and spec.ipAddresses")
	case len(csr.URIs) > 0 || len(csr.EmailAddresses) > 0:
		return fault.Refusedf(
			"InvalidOrder",
			"ACME servers certify DNS names and IP addresses alone: leave spec.uris and spec.emailAddresses out",
		)
	case cn != "" && !slices.Contains(names, pki.ComparableDNSName(pki.ComparableIP(cn))):
		return fault.Refusedf(
			"InvalidOrder",
			"The CSR PEM requests a commonName that is not present in the list of dnsNames or ipAddresses. "+
				"If a commonName is set, ACME requires that the value is also present in the list of dnsNames or ipAddresses: "+
				"%q does not exist in %q",
			cn,
			names,
		)
	}
	return nil
}

// orderName returns the name that cert-manager gives an Order: the request's, and a hash of the
// spec without the CSR. So the controller continues with an Order of cert-manager after a
// migration. From the second Order on, the hash includes n.
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
