package observe

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/perennial-pki/perennial/acme"
	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	cmmeta "github.com/perennial-pki/perennial/api/meta/v1"
	"github.com/perennial-pki/perennial/internal/version"
)

// namespace is cert-manager's prefix, so that its dashboards and alerts work.
const namespace = "certmanager"

// own is the prefix of metrics that cert-manager does not have.
const own = "perennial"

// Metrics counts what the controllers do. Objects collects the state of objects, which is not
// counted but read from the cache.
type Metrics struct {
	syncs, syncErrors *prometheus.CounterVec
	eventsDropped     prometheus.Counter
	issued            *prometheus.HistogramVec
	failed            *prometheus.CounterVec
	acmeRequests      *prometheus.CounterVec
	acmeDuration      *prometheus.SummaryVec
}

// NewMetrics returns Metrics that are registered with r.
func NewMetrics(r prometheus.Registerer, c clock.PassiveClock) *Metrics {
	m := &Metrics{
		syncs: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: "controller_sync_call_count",
			Help: "Number of passes of a controller over an object."}, []string{"controller"}),
		syncErrors: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: "controller_sync_error_count",
			Help: "Number of times that looking at an object ended with an error."}, []string{"controller"}),
		eventsDropped: prometheus.NewCounter(prometheus.CounterOpts{Namespace: own, Name: "events_dropped_total",
			Help: "Events that were not written, because too many waited or the API server refused them."}),
		issued: prometheus.NewHistogramVec(
			prometheus.HistogramOpts{
				Namespace: own,
				Name:      "certificate_issuance_duration_seconds",
				Help:      "Time from the creation of a CertificateRequest until its certificate is stored.",
				Buckets: []float64{
					.05,
					.1,
					.25,
					.5,
					1,
					2.5,
					5,
					10,
					30,
					60,
					300,
					1800,
				},
			},
			[]string{"issuer_name", "issuer_kind", "issuer_group"},
		),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: own,
			Name:      "certificate_issuance_failures_total",
			Help:      "Issuances that failed, by the reason of the failure.",
		}, []string{"issuer_name", "issuer_kind", "issuer_group", "reason"}),
		acmeRequests: prometheus.NewCounterVec(
			prometheus.CounterOpts{Namespace: namespace, Name: "http_acme_client_request_count",
				Help: "Requests to ACME servers. The status is 999 if there was no reply."},
			acmeLabels,
		),
		acmeDuration: prometheus.NewSummaryVec(
			prometheus.SummaryOpts{
				Namespace:  namespace,
				Name:       "http_acme_client_request_duration_seconds",
				Help:       "Time that ACME servers took to reply.",
				Objectives: map[float64]float64{.5: .05, .9: .01, .99: .001},
			},
			acmeLabels,
		),
	}
	r.MustRegister(m.syncs, m.syncErrors, m.eventsDropped, m.issued, m.failed, m.acmeRequests, m.acmeDuration,
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: namespace,
			Name:      "clock_time_seconds",
			Help:      "The controller's clock, in seconds since 1970. Deprecated: use clock_time_seconds_gauge.",
		}, func() float64 { return float64(c.Now().Unix()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Name: "clock_time_seconds_gauge",
			Help: "The controller's clock, in seconds since 1970."}, func() float64 { return float64(c.Now().Unix()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: own, Name: "build_info",
			Help: "Always 1. The labels say which build runs.",
			ConstLabels: prometheus.Labels{
				"version": version.Get(), "revision": version.Commit(), "goversion": runtime.Version(),
			}}, func() float64 { return 1 }),
	)
	return m
}

// EventDropped counts an event that was given up.
func (m *Metrics) EventDropped() { m.eventsDropped.Inc() }

// Issued counts an issuance that took d.
func (m *Metrics) Issued(issuer cmmeta.IssuerReference, d time.Duration) {
	m.issued.WithLabelValues(issuer.Name, issuer.KindOrDefault(), issuer.GroupOrDefault()).Observe(d.Seconds())
}

// IssuanceFailed counts an issuance that failed. Reason is one word.
func (m *Metrics) IssuanceFailed(issuer cmmeta.IssuerReference, reason string) {
	m.failed.WithLabelValues(issuer.Name, issuer.KindOrDefault(), issuer.GroupOrDefault(), reason).Inc()
}

var acmeLabels = []string{"scheme", "host", "action", "method", "status"}

// acmeActions maps the actions of an ACME client to cert-manager's names.
var acmeActions = map[string]string{
	"directory":     "discover",
	"newNonce":      "new_nonce",
	"newAccount":    "register",
	"account":       "get_reg",
	"keyChange":     "account_key_rollover",
	"newOrder":      "authorize_order",
	"order":         "get_order",
	"orders":        "list_orders",
	"authorization": "get_authorization",
	"newAuthz":      "authorize",
	"challenge":     "accept_challenge",
	"finalize":      "create_order_cert",
	"certificate":   "fetch_cert",
	"revokeCert":    "revoke_cert",
	"renewalInfo":   "get_renewal_info",
}

// noReply is the status of a request that got no reply.
const noReply = 999

// ACMEExchange counts a request to an ACME server.
func (m *Metrics) ACMEExchange(e acme.Exchange) {
	action, known := acmeActions[e.Action]
	if !known {
		action = "unnamed_action"
	}
	if e.Status == 0 {
		e.Status = noReply
	}
	labels := []string{e.Scheme, e.Host, action, e.Method, strconv.Itoa(e.Status)}
	m.acmeRequests.WithLabelValues(labels...).Inc()
	m.acmeDuration.WithLabelValues(labels...).Observe(e.Duration.Seconds())
}

// An object is reconciled again so long after a conflict, by when the cache should have the other
// write. If its watch lags, the time doubles with each conflict in a row.
const conflictRetry, lastConflictRetry = 20 * time.Millisecond, 5 * time.Second

// Instrument returns a reconciler that does what r does, counts it under the name of the
// controller, and logs an error when it changes. A pass that failed is repeated with the queue's
// back-off. A conflict is no error: another client wrote the object between the read and the write,
// so the object is reconciled again.
func Instrument[R comparable](
	m *Metrics,
	controller string,
	r reconcile.TypedReconciler[R],
) reconcile.TypedReconciler[R] {
	syncs, failures := m.syncs.WithLabelValues(controller), m.syncErrors.WithLabelValues(controller)
	failed := &errorLog[R]{last: map[R]string{}}
	conflicts := workqueue.NewTypedItemExponentialFailureRateLimiter[R](conflictRetry, lastConflictRetry)
	return reconcile.TypedFunc[R](func(ctx context.Context, request R) (reconcile.Result, error) {
		syncs.Inc()
		result, err := r.Reconcile(ctx, request)
		if apierrors.IsConflict(err) {
			return reconcile.Result{RequeueAfter: conflicts.When(request)}, nil
		}
		conflicts.Forget(request)
		switch {
		case err == nil:
			failed.succeeded(request)
			return result, nil
		case errors.Is(ctx.Err(), context.Canceled):
			return reconcile.Result{}, nil // the process ends
		}
		failures.Inc()
		failed.failed(ctx, request, err)
		// With an error controller-runtime would log each retry. This is its retry without the line.
		//lint:ignore SA1019 an interval of our own would reset the queue's back-off
		return reconcile.Result{Requeue: true}, nil
	})
}

// ObjectCollector is a prometheus.Collector of the state of Certificates, Challenges and issuers.
// It reads them from a cache at each scrape, so it needs no memory of its own and has no series of
// deleted objects.
type ObjectCollector struct {
	Reader client.Reader
	// ClusterScoped says that the controller also serves ClusterIssuers.
	ClusterScoped bool
	// Limit is how long a scrape may take.
	Limit time.Duration
	Clock clock.PassiveClock
}

var (
	certificateLabels = []string{"name", "namespace", "issuer_name", "issuer_kind", "issuer_group"}

	readyStatus = desc(
		namespace,
		"certificate_ready_status",
		"1 for the status of the Ready condition of a Certificate, 0 for the others.",
		"name",
		"namespace",
		"condition",
		"issuer_name",
		"issuer_kind",
		"issuer_group",
	)
	expirationTime = desc(
		namespace,
		"certificate_expiration_timestamp_seconds",
		"When the certificate in the Secret expires, in seconds since 1970.",
		certificateLabels...)
	notAfterTime = desc(
		namespace,
		"certificate_not_after_timestamp_seconds",
		"When the certificate in the Secret expires, in seconds since 1970.",
		certificateLabels...)
	notBeforeTime = desc(
		namespace,
		"certificate_not_before_timestamp_seconds",
		"When the certificate in the Secret becomes valid, in seconds since 1970.",
		certificateLabels...)
	renewalTime = desc(
		namespace,
		"certificate_renewal_timestamp_seconds",
		"When the certificate is to be renewed, in seconds since 1970. 0 if there is no such time.",
		certificateLabels...)
	failedAttempts = desc(
		own,
		"certificate_failed_issuance_attempts",
		"How often in a row issuance failed.",
		certificateLabels...)

	issuerReady = desc(
		namespace,
		"issuer_ready_status",
		"1 for the status of the Ready condition of an Issuer, 0 for the others.",
		"name",
		"namespace",
		"condition",
	)
	challengeStatus = desc(
		namespace,
		"certificate_challenge_status",
		"1 for the state of a Challenge, 0 for the others. The reason is without its details.",
		"status",
		"domain",
		"reason",
		"processing",
		"name",
		"namespace",
		"type",
	)

	clusterIssuerReady = desc(
		namespace,
		"clusterissuer_ready_status",
		"1 for the status of the Ready condition of a ClusterIssuer, 0 for the others.",
		"name",
		"condition",
	)
)

func desc(prefix, name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(prefix, "", name), help, labels, nil)
}

// Describe implements prometheus.Collector.
func (o *ObjectCollector) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		readyStatus, expirationTime, notAfterTime, notBeforeTime, renewalTime, failedAttempts, issuerReady,
		clusterIssuerReady, challengeStatus,
	} {
		c <- d
	}
}

// Collect implements prometheus.Collector.
func (o *ObjectCollector) Collect(c chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), o.Limit)
	defer cancel()
	// Stale by a moment is fine here: do not wait for our own writes.
	options := []client.ListOption{
		client.UnsafeDisableDeepCopy,
		&client.ListOptions{DisableReadYourWritesConsistency: true},
	}

	var certificates cmapi.CertificateList
	if err := o.Reader.List(ctx, &certificates, options...); err != nil {
		c <- prometheus.NewInvalidMetric(readyStatus, err)
	}
	for i := range certificates.Items {
		collectCertificate(c, &certificates.Items[i], o.Clock.Now())
	}
	var challenges cmacme.ChallengeList
	if err := o.Reader.List(ctx, &challenges, options...); err != nil {
		c <- prometheus.NewInvalidMetric(challengeStatus, err)
	}
	for i := range challenges.Items {
		collectChallenge(c, &challenges.Items[i])
	}
	var issuers cmapi.IssuerList
	if err := o.Reader.List(ctx, &issuers, options...); err != nil {
		c <- prometheus.NewInvalidMetric(issuerReady, err)
	}
	for i := range issuers.Items {
		issuer := &issuers.Items[i]
		collectReady(c, issuerReady, issuerStatus(issuer), []string{issuer.Name, issuer.Namespace})
	}
	if !o.ClusterScoped {
		return
	}
	var clusterIssuers cmapi.ClusterIssuerList
	if err := o.Reader.List(ctx, &clusterIssuers, options...); err != nil {
		c <- prometheus.NewInvalidMetric(clusterIssuerReady, err)
	}
	for i := range clusterIssuers.Items {
		issuer := &clusterIssuers.Items[i]
		collectReady(c, clusterIssuerReady, issuerStatus(issuer), []string{issuer.Name})
	}
}

func issuerStatus(issuer cmapi.GenericIssuer) cmmeta.ConditionStatus {
	if c := cmapi.GetIssuerCondition(issuer.GetStatus(), cmapi.IssuerConditionReady); c != nil {
		return c.Status
	}
	return cmmeta.ConditionUnknown
}

func collectCertificate(c chan<- prometheus.Metric, crt *cmapi.Certificate, now time.Time) {
	ref := crt.Spec.IssuerRef
	issuer := []string{ref.Name, ref.KindOrDefault(), ref.GroupOrDefault()}
	ready := cmmeta.ConditionUnknown
	if condition := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionReady); condition != nil {
		ready = condition.Status
	}
	if end := crt.Status.NotAfter; end != nil && now.After(end.Time) && ready == cmmeta.ConditionTrue {
		ready = cmmeta.ConditionFalse // the status could not be written
	}
	collectReady(c, readyStatus, ready, []string{crt.Name, crt.Namespace}, issuer...)

	labels := append([]string{crt.Name, crt.Namespace}, issuer...)
	for d, t := range map[*prometheus.Desc]*metav1.Time{
		expirationTime: crt.Status.NotAfter, notAfterTime: crt.Status.NotAfter, notBeforeTime: crt.Status.NotBefore, renewalTime: crt.Status.RenewalTime,
	} {
		value := 0.0
		if t != nil {
			value = float64(t.Unix())
		}
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	attempts := 0.0
	if crt.Status.FailedIssuanceAttempts != nil {
		attempts = float64(*crt.Status.FailedIssuanceAttempts)
	}
	c <- prometheus.MustNewConstMetric(failedAttempts, prometheus.GaugeValue, attempts, labels...)
}

// challengeStates are the states that a Challenge can have. A new Challenge has none.
var challengeStates = []cmacme.State{
	"",
	cmacme.Ready,
	cmacme.Valid,
	cmacme.Pending,
	cmacme.Processing,
	cmacme.Invalid,
	cmacme.Expired,
	cmacme.Errored,
}

// maxReason is how long the reason of a Challenge may be in a label.
const maxReason = 60

func collectChallenge(c chan<- prometheus.Metric, ch *cmacme.Challenge) {
	// The text after the colon differs each time: a time, an answer, what a server says. Each would be
	// another series.
	reason, _, _ := strings.Cut(ch.Status.Reason, ":")
	if reason = strings.ToValidUTF8(reason, ""); len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "")
	}
	for _, state := range challengeStates {
		value := 0.0
		if state == ch.Status.State {
			value = 1
		}
		c <- prometheus.MustNewConstMetric(challengeStatus, prometheus.GaugeValue, value,
			string(state), ch.Spec.DNSName, reason, strconv.FormatBool(ch.Status.Processing), ch.Name, ch.Namespace,
			string(ch.Spec.Type))
	}
}

// collectReady sends a series for each status a condition can have.
func collectReady(
	c chan<- prometheus.Metric,
	d *prometheus.Desc,
	is cmmeta.ConditionStatus,
	before []string,
	after ...string,
) {
	for _, status := range []cmmeta.ConditionStatus{cmmeta.ConditionTrue, cmmeta.ConditionFalse, cmmeta.ConditionUnknown} {
		value := 0.0
		if status == is {
			value = 1
		}
		labels := append(append(append([]string{}, before...), string(status)), after...)
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
}
