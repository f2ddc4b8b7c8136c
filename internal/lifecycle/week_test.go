package lifecycle

import (
	"crypto"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
	"github.com/perennial-pki/perennial/internal/earlyissuance"
	"github.com/perennial-pki/perennial/internal/signer"
	"github.com/perennial-pki/perennial/pki"
)

// mostCounted is the bound: so many issuances of a Certificate start before its renewal time in an
// hour, at most, and mostRevoked if it is revoked.
const mostCounted, mostRevoked = 9, 13

// TestInAWeekNoCertificateIsIssuedMoreOftenThanTheBound runs Decide for a week of random specs,
// answers, edits, deletions, overwritten Secrets, restarts and clock jumps. Some of what happens is
// repeated as soon as it can be, as by tools that fight.
func TestInAWeekNoCertificateIsIssuedMoreOftenThanTheBound(t *testing.T) {
	t.Parallel()
	worst, most, total, early, jumps := 0, 0, 0, 0, 0
	for seed := range 24 {
		w := newWeek(t, uint64(seed))
		w.run()
		total += len(w.requests)
		early += len(w.early)
		jumps += len(w.jumps)
		for i, at := range w.early {
			bound := mostCounted
			if w.revoked {
				bound = mostRevoked
			}
			if n := within(w.early, i); n > bound*(1+len(between(w.jumps, at, at.Add(time.Hour)))) {
				t.Errorf("seed %d (%s): %d issuances before the renewal time in the hour from %s", seed, w.fight, n, at)
			} else if len(between(w.jumps, at, at.Add(time.Hour))) == 0 {
				worst = max(worst, n)
			}
		}
		if w.shortest < 10*time.Hour {
			continue // it is renewed more often than once in an hour anyway
		}
		for i, at := range w.requests {
			if len(between(w.jumps, at, at.Add(time.Hour))) == 0 {
				most = max(most, within(w.requests, i))
			}
		}
	}
	t.Logf("%d issuances, of which %d before the renewal time; at most %d of these in an hour, and %d in all of a "+
		"Certificate that lives for ten hours or more; %d clock jumps",
		total, early, worst, most, jumps)
	if most > mostRevoked+2 {
		t.Errorf("%d issuances in an hour", most)
	}
	if early < 1000 || jumps < 40 || worst < 4 {
		t.Error("the weeks were too quiet to say anything")
	}
}

// within is how many times there are in the hour that begins with the ith.
func within(times []time.Time, i int) int {
	return len(between(times, times[i], times[i].Add(time.Hour)))
}

func between(times []time.Time, from, to time.Time) []time.Time {
	var in []time.Time
	for _, at := range times {
		if !at.Before(from) && at.Before(to) {
			in = append(in, at)
		}
	}
	return in
}

// week is a Certificate and what happens to it.
type week struct {
	*scene
	random  *rand.Rand
	real    time.Time     // what Now would be if the clock were right
	ahead   time.Duration // of the clock
	fight   string        // what is done again and again
	revoked bool          // whether it was once
	serial  int

	all      []*cmapi.CertificateRequest
	answers  map[types.UID]time.Time // when each is answered
	keyring  map[types.UID]crypto.Signer
	keys     []crypto.Signer
	answered []byte // the certificate before
	lives    []time.Duration
	shortest time.Duration // of those that were asked for, or given

	requests, early, jumps []time.Time
}

var fights = []string{"", "overwrite", "overwrite with what is due", "delete the Secret", "edit", "ask", "revoke",
	"delete requests", "delete keys", "make anew", "change the issuer", "all"}

func newWeek(t *testing.T, seed uint64) *week {
	w := &week{scene: newScene(t), random: rand.New(rand.NewPCG(seed, 7)), real: created,
		answers: map[types.UID]time.Time{}, keyring: map[types.UID]crypto.Signer{}}
	w.fight = fights[int(seed)%len(fights)]
	if w.one(2) {
		w.external()
	}
	for range 8 {
		key, err := pki.KeySpec{Algorithm: pki.Ed25519}.Generate(nil)
		if err != nil {
			t.Fatal(err)
		}
		w.keys = append(w.keys, key)
	}
	w.Certificate.Spec.PrivateKey.Algorithm = cmapi.Ed25519KeyAlgorithm
	if w.one(4) {
		w.Certificate.Spec.PrivateKey.RotationPolicy = cmapi.RotationPolicyNever
	}
	w.lives = []time.Duration{24 * time.Hour, 7 * day, 90 * day}
	if w.one(3) {
		w.lives = append(w.lives, 3*time.Minute, time.Hour)
	}
	w.shortest = 100 * day
	w.edit()
	return w
}

func (w *week) one(in int) bool { return w.random.IntN(in) == 0 }

func (w *week) upTo(d time.Duration) time.Duration { return time.Duration(w.random.Int64N(int64(d))) }

func (w *week) key() crypto.Signer { return w.keys[w.random.IntN(len(w.keys))] }

// edit changes the spec.
func (w *week) edit() {
	spec := &w.Certificate.Spec
	w.Certificate.Generation++
	life := w.lives[w.random.IntN(len(w.lives))]
	spec.Duration, w.life = duration(life), life
	if w.one(3) { // the issuer has a limit of its own
		w.life = min(life, 12*time.Hour)
	}
	w.shortest = min(w.shortest, w.life)
	spec.DNSNames = []string{fmt.Sprintf("web%d.example.com", w.random.IntN(3))}
	spec.RenewBefore, spec.RenewBeforePercentage, spec.Renewal = nil, nil, nil
	switch w.random.IntN(4) {
	case 0:
		spec.RenewBefore = duration(time.Duration(w.random.Float64() * 1.2 * float64(life)))
	case 1:
		spec.RenewBeforePercentage = ptr.To(int32(w.random.IntN(120) - 10))
	case 2:
		spec.Renewal = weekly("", "0 2 * * *", 4*time.Hour)
	}
}

// run lets a week pass.
func (w *week) run() {
	next := func() time.Duration { return w.upTo(8 * time.Hour) }
	if w.fight != "" {
		next = func() time.Duration { return w.upTo(15 * time.Minute) }
	}
	disturb := w.real.Add(next())
	for end := w.real.Add(7 * day); w.real.Before(end); {
		w.Now = w.real.Add(w.ahead)
		w.observe()
		d := Decide(w.Observation)
		w.act(d)
		w.fightBack(d)
		at := disturb
		if !d.Again.IsZero() {
			at = earlier(at, d.Again.Add(-w.ahead))
		}
		for _, answer := range w.answers {
			at = earlier(at, answer)
		}
		if d.Request != nil || d.StoreKey != nil || d.Apply != nil || len(d.DeleteRequests) > 0 {
			at = w.real // the watch reports it
		}
		w.real = w.real.Add(max(at.Sub(w.real), time.Millisecond))
		w.Now = w.real.Add(w.ahead)
		w.answer()
		if !w.real.Before(disturb) {
			w.disturb()
			disturb = w.real.Add(next())
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// observe finds the requests, as the reconciler does.
func (w *week) observe() {
	w.Current, w.Next, w.Old, w.KeyInMemory = nil, nil, nil, nil
	for _, cr := range w.all {
		switch revisionOf(cr) {
		case w.revision():
			if w.revision() > 0 && metav1.IsControlledBy(cr, w.Certificate) {
				w.Current = cr
			}
		case w.revision() + 1:
			w.Next, w.KeyInMemory = cr, w.keyring[cr.UID]
		default:
			w.Old = append(w.Old, cr)
		}
	}
	w.Issuances.History = w.Issuances.History.At(w.Now)
}

// act carries out a decision.
func (w *week) act(d *Decision) {
	w.Helper()
	w.all = slices.DeleteFunc(w.all, func(cr *cmapi.CertificateRequest) bool {
		gone := slices.Contains(d.DeleteRequests, cr)
		if gone {
			delete(w.answers, cr.UID)
			delete(w.keyring, cr.UID)
		}
		return gone
	})
	var key crypto.Signer
	if s := d.StoreKey; s != nil {
		if key = s.Key; key == nil {
			key = w.key()
		}
		w.scene.key = key
		kept := w.KeySecrets
		w.stored()
		w.KeySecrets = append(w.KeySecrets, kept...)
	}
	if n := d.Request; n != nil {
		w.request(n, key)
	}
	if d.Apply != nil && d.Apply.Key == nil {
		d.Apply.Key = key
	}
	for id := range w.keyring {
		if w.Next != nil && w.Next.UID == id && d.ForgetKey == w.Next.Name {
			delete(w.keyring, id)
		}
	}
	if d.Issued != nil && !w.Issuances.Started.IsZero() {
		w.Issuances.Due = time.Time{}
		if at := d.Status.RenewalTime; at != nil {
			w.Issuances.Due = at.Time
		}
	}
	w.carryOut(d)
}

func (w *week) request(n *NewRequest, key crypto.Signer) {
	w.Helper()
	if n.Key != nil {
		key = n.Key
	}
	memory := key == nil
	if memory {
		key = w.key()
	}
	w.serial++
	cr := w.requestFor(n.Revision, key)
	cr.UID = types.UID(strconv.Itoa(w.serial))
	if n.Attempt > 1 {
		cr.Annotations[attemptAnnotation] = strconv.Itoa(n.Attempt)
	}
	if n.ManualTrigger != "" {
		cr.Annotations[signer.ManualTriggerAnnotation] = n.ManualTrigger
	}
	if memory {
		w.keyring[cr.UID] = key
	}
	w.all = append(w.all, cr)
	w.requests = append(w.requests, w.real)
	if n.Counts != "" {
		w.early = append(w.early, w.real)
		w.Issuances.History = w.Issuances.Count(n.Counts, w.Now)
	}
	w.Issuances.Latest = earlyissuance.Latest{Started: w.Now}
	if !w.one(12) { // otherwise it is never answered
		w.answers[cr.UID] = w.real.Add(w.upTo(20 * time.Second))
	}
}

// answer lets the issuer answer the requests that are due.
func (w *week) answer() {
	w.Helper()
	for _, cr := range w.all {
		at, waits := w.answers[cr.UID]
		if !waits || w.real.Before(at) {
			continue
		}
		delete(w.answers, cr.UID)
		csr, err := pki.DecodeCSRPEM(cr.Spec.Request)
		if err != nil {
			w.Fatal(err)
		}
		signs := w.keys[slices.IndexFunc(w.keys,
			func(k crypto.Signer) bool { return pki.SamePublicKey(k.Public(), csr.PublicKey) })]
		now := w.Now
		switch w.random.IntN(10) {
		case 0:
			w.fail(cr)
			continue
		case 1:
			signs = w.key() // often another
		case 2:
			w.Now = now.Add(-w.life - time.Hour) // expired
		case 3:
			w.Now = w.real // by the clock of the issuer
		}
		cr.Status.Certificate = pki.EncodeCertificatePEM(w.certificateFor(signs))
		if w.one(10) && w.answered != nil {
			cr.Status.Certificate = w.answered // stale
		}
		w.answered = cr.Status.Certificate
		w.Now = now
		cmapi.SetCertificateRequestCondition(&cr.Status, now, cmapi.CertificateRequestCondition{Type: "Ready", Status: "True",
			Reason: "Issued"})
	}
}

func (w *week) fail(cr *cmapi.CertificateRequest) {
	cr.Status.FailureTime = ptr.To(metav1.NewTime(w.Now))
	cmapi.SetCertificateRequestCondition(&cr.Status, w.Now, cmapi.CertificateRequestCondition{Type: "Ready",
		Status: "False", Reason: "Failed", Message: "the CA said no"})
}

// disturb does something random to the Certificate, its objects or its process.
func (w *week) disturb() {
	kinds := fights[1 : len(fights)-1]
	often := 4 // how often this is called, by the day
	if w.fight != "" {
		often = 24
	}
	switch w.random.IntN(8) {
	case 0:
		if !w.one(often) {
			return
		}
		w.ahead = 0
		if w.one(2) {
			w.ahead = w.upTo(80*day) - 40*day
		}
		w.jumps = append(w.jumps, w.real)
	case 1: // the process is started anew
		if !w.one(often / 4) {
			return
		}
		w.Issuances.Latest = earlyissuance.Latest{}
		clear(w.keyring)
	case 2, 3:
		w.do(kinds[w.random.IntN(len(kinds))])
	default:
		if w.fight == "all" {
			w.do(kinds[w.random.IntN(len(kinds))])
		} else if w.fight != "" {
			w.do(w.fight)
		}
	}
}

// fightBack undoes an issuance at once, as a tool with a watch does.
func (w *week) fightBack(d *Decision) {
	if d.Issued != nil && w.fight != "" && w.fight != "all" || d.Request != nil && w.fight == "delete requests" {
		w.do(w.fight)
	}
}

func (w *week) do(what string) {
	switch what {
	case "overwrite", "overwrite with what is due":
		if w.Secret == nil {
			return
		}
		now := w.Now
		if what != "overwrite" {
			w.Now = now.Add(-w.life)
		}
		w.scene.key = w.key()
		w.Secret = w.Secret.DeepCopy()
		w.Secret.Data["tls.key"], _ = pki.EncodeKeyPEM(w.scene.key, pki.PKCS8)
		w.Secret.Data["tls.crt"] = pki.EncodeCertificatePEM(w.certificateFor(w.scene.key))
		w.Now = now
	case "delete the Secret":
		w.Secret = nil
	case "edit":
		w.edit()
	case "ask":
		w.Certificate = w.Certificate.DeepCopy()
		w.issuingBecause(string(earlyissuance.Triggered))
	case "revoke":
		w.Certificate = w.Certificate.DeepCopy()
		w.issuingBecause(string(earlyissuance.Revoked))
		w.revoked = true
	case "delete requests":
		w.all = nil
		clear(w.answers)
	case "delete keys":
		w.KeySecrets = nil
	case "make anew":
		w.serial++
		w.Certificate = w.Certificate.DeepCopy()
		w.Certificate.UID, w.Certificate.CreationTimestamp = types.UID("web"+strconv.Itoa(w.serial)), metav1.NewTime(w.Now)
		w.Certificate.Status = cmapi.CertificateStatus{}
		w.all, w.KeySecrets = nil, nil
		clear(w.answers)
		if w.one(2) {
			w.Secret = nil
		}
	case "change the issuer":
		if w.Issuer != nil {
			w.Issuer.GenericIssuer.(*cmapi.Issuer).Generation++
		}
	}
}
