package renewal

import (
	"crypto/x509"
	"math/big"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
)

const day = 24 * time.Hour

// monday is a Monday at midnight.
var monday = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)

func validFor(life time.Duration) *x509.Certificate {
	return &x509.Certificate{NotBefore: monday, NotAfter: monday.Add(life), SerialNumber: big.NewInt(7)}
}

func duration(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }

func weekly(zone, cron string, length time.Duration) *cmapi.CertificateRenewal {
	return &cmapi.CertificateRenewal{
		Policy:  "RenewBefore",
		Windows: []cmapi.CertificateRenewalWindows{{Timezone: zone, Cron: cron, WindowDuration: duration(length)}},
	}
}

func TestRenewalIsBetweenAnEarliestAndALatestTime(t *testing.T) {
	for name, test := range map[string]struct {
		life     time.Duration
		spec     cmapi.CertificateSpec
		from, to time.Duration // after the beginning; the latest is without jitter
	}{
		"a third before the end by default":    {life: 90 * day, from: 60*day - 12*time.Hour, to: 60 * day},
		"jitter is a fiftieth of a short life": {life: 100 * time.Minute, from: 64 * time.Minute, to: 67 * time.Minute},
		"renewBefore": {
			life: 90 * day, spec: cmapi.CertificateSpec{RenewBefore: duration(10 * day)}, from: 80*day - 12*time.Hour,
			to: 80 * day},
		"renewBefore of nearly all the life is capped": {
			life: 100 * day, spec: cmapi.CertificateSpec{RenewBefore: duration(99 * day)}, from: 10 * day,
			to: 10*day + 12*time.Hour},
		"so it is with minutes": {
			life: time.Hour, spec: cmapi.CertificateSpec{RenewBefore: duration(time.Hour - time.Second)}, from: 6 * time.Minute,
			to: 6*time.Minute + 72*time.Second},
		"and with a percentage": {
			life: 100 * day, spec: cmapi.CertificateSpec{RenewBeforePercentage: ptr.To(int32(99))}, from: 10 * day,
			to: 10*day + 12*time.Hour},
		"the most that is followed": {
			life: 100 * day, spec: cmapi.CertificateSpec{RenewBefore: duration(80 * day)}, from: 19*day + 12*time.Hour,
			to: 20 * day},
		"a percentage of 100 means a third": {
			life: 90 * day, spec: cmapi.CertificateSpec{RenewBeforePercentage: ptr.To(int32(100))}, from: 60*day - 12*time.Hour,
			to: 60 * day},
		"renewBefore less than nothing means a third": {
			life: 90 * day, spec: cmapi.CertificateSpec{RenewBefore: duration(-day)}, from: 60*day - 12*time.Hour, to: 60 * day},
		"a window is none before a tenth": {
			life: 100 * day, spec: cmapi.CertificateSpec{RenewBefore: duration(99 * day),
				Renewal: weekly("", "0 12 * * 1", time.Hour)}, from: 10 * day, to: 17 * day},
		"renewBefore longer than the life means a third": {
			life: 6 * day, spec: cmapi.CertificateSpec{RenewBefore: duration(30 * day)}, from: 4*day - 3*time.Hour, to: 4 * day},
		"renewBeforePercentage is the part that is left": {
			life: 100 * day, spec: cmapi.CertificateSpec{RenewBeforePercentage: ptr.To(int32(25))}, from: 75*day - 12*time.Hour,
			to: 75 * day},
		"nearly the whole life still leaves time to be in use": {
			life: time.Hour, spec: cmapi.CertificateSpec{RenewBefore: duration(59 * time.Minute)}, from: 6 * time.Minute,
			to: 6*time.Minute + 72*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			spread := map[time.Time]bool{}
			for _, uid := range []types.UID{"a", "b", "c", "d", "e"} {
				s := Plan(Inputs{Leaf: validFor(test.life), Spec: &test.spec, UID: uid})
				if again := Plan(Inputs{Leaf: validFor(test.life), Spec: &test.spec, UID: uid}); again != s {
					t.Errorf("asked twice: %v and %v", s, again)
				}
				after := s.At.Sub(monday)
				if after < test.from || after > test.to {
					t.Errorf("renewal after %s, want between %s and %s", after, test.from, test.to)
				}
				spread[s.At] = true
			}
			if len(spread) < 4 {
				t.Errorf("five certificates are renewed at %d times only", len(spread))
			}
		})
	}
}

func TestRenewalWaitsForItsWindow(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		life     time.Duration
		renewal  *cmapi.CertificateRenewal
		from, to time.Time
		err      string
	}{
		"into the last window before": {life: 90 * day, renewal: weekly("", "0 2 * * 6", 4*time.Hour),
			from: time.Date(2026, 7, 25, 2, 0, 0, 0, time.UTC), to: time.Date(2026, 7, 25, 4, 0, 0, 0, time.UTC)},
		"in the time zone of the window": {life: 90 * day, renewal: weekly("Europe/Berlin", "0 2 * * 6", 4*time.Hour),
			from: time.Date(2026, 7, 25, 2, 0, 0, 0, berlin), to: time.Date(2026, 7, 25, 4, 0, 0, 0, berlin)},
		"a window that is always open changes nothing": {life: 90 * day, renewal: weekly("", "0 * * * *", time.Hour),
			from: monday.Add(60*day - 12*time.Hour), to: monday.Add(60 * day)},
		"into the first after, if there is none before": {life: 30 * day, renewal: weekly("", "0 0 25 6 *", day),
			from: time.Date(2026, 6, 25, 0, 0, 0, 0, time.UTC), to: time.Date(2026, 6, 25, 12, 0, 0, 0, time.UTC)},
		"at its time, with an error, if there is none at all": {life: 30 * day, renewal: weekly("", "0 0 25 12 *", day),
			from: monday.Add(20*day - 15*time.Hour), to: monday.Add(20 * day), err: "no window of spec.renewal.windows"},
		"never, if renewal is disabled": {life: 30 * day, renewal: &cmapi.CertificateRenewal{Policy: "Disabled"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := Plan(Inputs{Leaf: validFor(test.life), Spec: &cmapi.CertificateSpec{Renewal: test.renewal}, UID: "uid"})
			if test.from.IsZero() != s.At.IsZero() || s.At.Before(test.from) || s.At.After(test.to) {
				t.Errorf("renewal at %s, want between %s and %s", s.At, test.from, test.to)
			}
			if test.err == "" && s.WindowErr != nil ||
				test.err != "" && (s.WindowErr == nil || !strings.Contains(s.WindowErr.Error(), test.err)) {
				t.Errorf("error %v, want %q", s.WindowErr, test.err)
			}
		})
	}
}

// TestACertificateIsInUseForAWhileBeforeItIsRenewed renews a certificate again and again, from many
// moments of a week on. It must not be renewed in the next moment, also if it was issued in one of
// its windows, or by a CA with a wrong clock.
func TestACertificateIsInUseForAWhileBeforeItIsRenewed(t *testing.T) {
	for name, test := range map[string]struct {
		life    time.Duration
		behind  time.Duration // how far the clock of the CA is behind
		renewal *cmapi.CertificateRenewal
		least   time.Duration // until the tenth renewal
	}{
		"without windows":    {life: 90 * day, behind: time.Hour, least: 400 * day},
		"in a weekly window": {life: 90 * day, behind: time.Hour, renewal: weekly("", "0 2 * * 6", 4*time.Hour), least: 400 * day},
		"in a weekly window that comes once in its life": {life: 6 * day, behind: time.Hour, renewal: weekly("", "0 2 * * 6", 4*time.Hour), least: 8 * day},
		"in a window for a weekend":                      {life: 6 * day, behind: time.Hour, renewal: weekly("", "0 0 * * 6", 2*day), least: 8 * day},
		"in a yearly window":                             {life: 90 * day, behind: time.Hour, renewal: weekly("", "0 2 3 6 *", 4*time.Hour), least: 200 * day},
		"in a daily window, one that lives for an hour":  {life: time.Hour, renewal: weekly("", "0 2 * * *", 4*time.Hour), least: 4 * time.Hour},
		"of a CA whose clock is 80 days behind":          {life: 90 * day, behind: 80 * day, least: 8 * time.Hour},
		"of a CA whose clock is nearly its life behind":  {life: 6 * day, behind: 5 * day, renewal: weekly("", "0 2 * * 6", 4*time.Hour), least: 8 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			for begin := range 7 * 24 * 2 {
				now := monday.Add(time.Duration(begin) * 30 * time.Minute)
				first := now
				for n := range int64(10) {
					cert := &x509.Certificate{
						NotBefore:    now.Add(-test.behind),
						NotAfter:     now.Add(test.life - test.behind),
						SerialNumber: big.NewInt(int64(begin)*100 + n),
					}
					spec := &cmapi.CertificateSpec{Renewal: test.renewal}
					if at := Plan(Inputs{Leaf: cert, Spec: spec, UID: "uid", Requested: now}).At; at.After(now) {
						now = at
					}
				}
				if now.Sub(first) < test.least {
					t.Fatalf("issued at %s, it was renewed ten times in %s", first, now.Sub(first))
				}
			}
		})
	}
}

func TestADueRenewalWaitsForTheNextWindowUnlessTheEndIsNear(t *testing.T) {
	// Saturdays from 2 to 6
	spec := &cmapi.CertificateSpec{Renewal: weekly("", "0 2 * * 6", 4*time.Hour)}
	for name, test := range map[string]struct{ now, want time.Time }{
		"inside of the window":           {now: time.Date(2026, 7, 25, 5, 59, 0, 0, time.UTC)},
		"after it, the next one":         {now: time.Date(2026, 7, 25, 6, 1, 0, 0, time.UTC), want: time.Date(2026, 8, 1, 2, 0, 0, 0, time.UTC)},
		"when the next is too late, now": {now: time.Date(2026, 8, 22, 7, 0, 0, 0, time.UTC)},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Postponed(validFor(90*day), spec, test.now); !got.Equal(test.want) {
				t.Errorf("postponed to %s, want %s", got, test.want)
			}
		})
	}
}

func TestTheLeavesOfAReplacedCAAreRenewedSoonAndNotAllAtOnce(t *testing.T) {
	replaced := monday.Add(10 * day)
	ca := &cmapi.CAIssuerStatus{Since: metav1.NewTime(replaced), NotAfter: metav1.NewTime(monday.Add(3650 * day))}
	spec := &cmapi.CertificateSpec{Duration: duration(90 * day)}
	times := map[time.Time]bool{}
	for _, uid := range []types.UID{"a", "b", "c", "d"} {
		s := Plan(Inputs{Leaf: validFor(90 * day), Spec: spec, UID: uid, CA: ca})
		if after := s.At.Sub(replaced); after < 0 || after > maxRotation {
			t.Errorf("renewal %s after the CA was replaced, want at most %s", after, maxRotation)
		}
		times[s.At] = true
	}
	if len(times) < 3 {
		t.Errorf("four leaves are renewed at %d times only", len(times))
	}
	s := Plan(Inputs{Leaf: validFor(90 * day), Spec: spec, UID: "a", CA: ca, SignedByCA: true})
	if s.At.Sub(monday) < 59*day || s.Capped {
		t.Errorf("a leaf of the CA in use: %+v", s)
	}
	ca.NotAfter = metav1.NewTime(monday.Add(30 * day))
	s = Plan(Inputs{Leaf: validFor(30 * day), Spec: spec, UID: "a", CA: ca, SignedByCA: true})
	if !s.At.IsZero() || !s.Capped {
		t.Errorf("a leaf that ends with its CA: %+v, want no renewal", s)
	}
}

func FuzzWindow(f *testing.F) {
	f.Add("Europe/Berlin", "0 2 * * 6")
	f.Add("", "*/5 1-3,7 * JAN-MAR MON")
	f.Add("Local", "TZ=UTC 0 0 * * *")
	f.Add("UTC", "0 0 29 2 *")
	f.Fuzz(func(t *testing.T, zone, cron string) {
		w, err := parseWindow(
			cmapi.CertificateRenewalWindows{Timezone: zone, Cron: cron, WindowDuration: duration(time.Hour)},
		)
		if err != nil {
			return
		}
		from, to := monday, monday.Add(400*day)
		if last := w.latestStart(from, to); !last.IsZero() {
			if last.After(to) || !last.After(from) {
				t.Errorf("the latest start in (%s, %s] is %s", from, to, last)
			}
			if next := w.cron.Next(last); !next.IsZero() && !next.After(to) {
				t.Errorf("%s is not the latest start: %s comes after it", last, next)
			}
		}
	})
}

func TestTheMomentOfASuggestionIsChosenOnce(t *testing.T) {
	cert := validFor(90 * day)
	window := func(from time.Duration) *cmapi.CertificateACMEARIStatus {
		start, end := metav1.NewTime(cert.NotBefore.Add(from)), metav1.NewTime(cert.NotBefore.Add(from+43*time.Hour))
		return &cmapi.CertificateACMEARIStatus{SuggestedWindow: &cmapi.ACMERenewalWindow{Start: &start, End: &end}}
	}
	at := func(uid types.UID, w *cmapi.CertificateACMEARIStatus) time.Time {
		return Plan(Inputs{Leaf: cert, Spec: &cmapi.CertificateSpec{}, UID: uid, Suggested: w}).At
	}
	first := at("a", window(60*day))
	if again := at("a", window(60*day)); !again.Equal(first) {
		t.Errorf("the same window: first %s, then %s", first, again)
	}
	if moved := at("a", window(60*day+time.Hour)); moved.Sub(first) == time.Hour {
		t.Error("another window: the moment moved with it, and was not chosen anew")
	}
	moments := map[time.Time]bool{}
	for i := range 50 {
		m := at(types.UID(string(rune('a'+i))), window(60*day))
		if d := m.Sub(cert.NotBefore); d < 60*day || d > 60*day+43*time.Hour {
			t.Errorf("%s is outside of the window", m)
		}
		moments[m] = true
	}
	if len(moments) < 49 {
		t.Errorf("fifty certificates are renewed at %d moments only", len(moments))
	}
}

func TestTheSuggestionOfTheCAIsFollowed(t *testing.T) {
	cert := validFor(90 * day)
	window := func(from, to time.Duration) *cmapi.CertificateACMEARIStatus {
		start, end := metav1.NewTime(cert.NotBefore.Add(from)), metav1.NewTime(cert.NotBefore.Add(to))
		return &cmapi.CertificateACMEARIStatus{SuggestedWindow: &cmapi.ACMERenewalWindow{Start: &start, End: &end}}
	}
	before := func(d time.Duration) cmapi.CertificateSpec {
		return cmapi.CertificateSpec{RenewBefore: &metav1.Duration{Duration: d}}
	}
	for name, test := range map[string]struct {
		spec      cmapi.CertificateSpec
		window    *cmapi.CertificateACMEARIStatus
		from, to  time.Duration // after the begin of the life
		overruled bool
	}{
		"inside of its window":                                          {cmapi.CertificateSpec{}, window(61*day, 63*day), 61 * day, 63 * day, false},
		"at once, after a revocation":                                   {cmapi.CertificateSpec{}, window(-2*time.Hour, -time.Hour), -2 * time.Hour, -time.Hour, false},
		"in the second half of the life, of a window that is all of it": {cmapi.CertificateSpec{}, window(0, 90*day), 45 * day, 72 * day, false},
		"at once, if the window ends in the first half":                 {cmapi.CertificateSpec{}, window(-2*time.Hour, 2*time.Hour), -2 * time.Hour, 2 * time.Hour, false},
		"not later than the backstop":                                   {cmapi.CertificateSpec{}, window(85*day, 86*day), 72 * day, 72 * day, false},
		"earlier, if renewBefore asks for it":                           {before(40 * day), window(61*day, 63*day), 49 * day, 50 * day, false},
		"not later, if renewBefore asks for it":                         {before(10 * day), window(61*day, 63*day), 61 * day, 63 * day, false},
		"not for more than half of the life":                            {before(60 * day), window(61*day, 63*day), 61 * day, 63 * day, true},
		"a little less than half of the life is followed":               {before(44 * day), window(61*day, 63*day), 45*day + 12*time.Hour, 46 * day, false},
		"half of the life is not":                                       {before(45 * day), window(61*day, 63*day), 61 * day, 63 * day, true},
		"nor is more than the whole":                                    {before(100 * day), window(61*day, 63*day), 61 * day, 63 * day, true},
		"nor half by percentage":                                        {cmapi.CertificateSpec{RenewBeforePercentage: ptr.To(int32(50))}, window(61*day, 63*day), 61 * day, 63 * day, true},
		"less by percentage is":                                         {cmapi.CertificateSpec{RenewBeforePercentage: ptr.To(int32(40))}, window(61*day, 63*day), 53 * day, 54 * day, false},
		"in a maintenance window inside of the suggestion":              {cmapi.CertificateSpec{Renewal: weekly("", "0 2 * * *", 4*time.Hour)}, window(60*day+6*time.Hour, 61*day+5*time.Hour), 61*day + 2*time.Hour, 61*day + 4*time.Hour, false},
		"in the one before, if there is none inside":                    {cmapi.CertificateSpec{Renewal: weekly("", "0 2 * * *", 4*time.Hour)}, window(60*day+7*time.Hour, 60*day+9*time.Hour), 60*day + 2*time.Hour, 60*day + 4*time.Hour, false},
		"not later than its end, for want of a maintenance window":      {cmapi.CertificateSpec{Renewal: weekly("", "0 2 25 8 *", 4*time.Hour)}, window(61*day, 62*day), 62 * day, 62 * day, false},
		"a window that has no length is no one":                         {cmapi.CertificateSpec{}, window(61*day, 61*day), 59 * day, 60 * day, false},
		"a window that ends before it begins is no one":                 {cmapi.CertificateSpec{}, window(63*day, 61*day), 59 * day, 60 * day, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := Plan(Inputs{Leaf: cert, Spec: &test.spec, UID: "uid", Suggested: test.window})
			if at := s.At.Sub(cert.NotBefore); at < test.from || at > test.to || s.Overruled != test.overruled {
				t.Errorf("after %.1f days, overruled: %v", at.Hours()/24, s.Overruled)
			}
			if again := Plan(Inputs{Leaf: cert, Spec: &test.spec, UID: "uid", Suggested: test.window}); again != s {
				t.Errorf("it moved to %v", again)
			}
		})
	}
}

func TestACAThatAlwaysWantsRenewalAtOnceIsFollowedOnceAndThenEverLater(t *testing.T) {
	const life = 90 * day
	always := func(from, to time.Duration) func(begins, now time.Time) (start, end time.Time) {
		return func(begins, _ time.Time) (time.Time, time.Time) { return begins.Add(from), begins.Add(to) }
	}
	whenAsked := func(from, to time.Duration) func(begins, now time.Time) (start, end time.Time) {
		return func(_, now time.Time) (time.Time, time.Time) { return now.Add(from), now.Add(to) }
	}
	hours := func(n ...int) (all []time.Duration) {
		for _, h := range n {
			all = append(all, time.Duration(h)*time.Hour)
		}
		return all
	}
	for name, test := range map[string]struct {
		life, behind time.Duration // behind is how wrong the clock of the CA is
		suggests     func(begins, now time.Time) (start, end time.Time)
		// after is how long each certificate is in use, at least, and at most an hour longer.
		after []time.Duration
	}{
		"in a year that is over":                                   {life, 0, func(_, _ time.Time) (time.Time, time.Time) { return monday.AddDate(-2, 0, 0), monday.AddDate(-1, 0, 0) }, hours(0, 1, 2, 4, 8, 16, 24, 24, 24)},
		"before the certificate begins":                            {life, 0, always(-2*time.Hour, -time.Hour), hours(0, 1, 2, 4, 8, 16, 24, 24, 24)},
		"an hour ago, whenever it is asked":                        {life, 0, whenAsked(-time.Hour, -30*time.Minute), hours(0, 1, 2, 4, 8, 16, 24, 24, 24)},
		"soon, whenever it is asked":                               {life, 0, whenAsked(0, time.Hour), hours(0, 1, 2, 4, 8, 16, 24, 24, 24)},
		"by a clock that is ten days behind":                       {life, 10 * day, always(0, time.Hour), hours(0, 1, 2, 4, 8, 16, 24, 24, 24)},
		"by a clock that is ten days ahead":                        {life, -10 * day, always(-11*day, -10*day-time.Hour), hours(0, 1, 2, 4, 8, 16, 24, 24, 24)},
		"by a clock so far behind that little of the life is left": {life, 80 * day, always(60*day, 62*day), hours(0, 1, 2, 4, 8, 16, 24, 24, 24)},
		"of a certificate that lives for a day":                    {day, 0, always(-2*time.Hour, -time.Hour), hours(0, 1, 2, 3, 3, 3)},
		"not at once, but when two thirds are over":                {life, 0, always(60*day, 60*day+time.Hour), hours(1440, 1440, 1440)},
		"not at once, but when two thirds of a day are over":       {day, 0, always(15*time.Hour, 16*time.Hour), hours(15, 15, 15)},
		"not at once, but at some time of the whole life":          {100 * time.Hour, 0, always(50*time.Hour, 51*time.Hour), hours(50, 50, 50)},
		"not at once, but on the third day":                        {life, 0, always(3*day, 3*day+time.Hour), hours(72, 72, 72)},
	} {
		t.Run(name, func(t *testing.T) {
			now := monday
			var was cmapi.CertificateStatus
			var ari *cmapi.CertificateACMEARIStatus
			for n, want := range test.after {
				begins := now.Add(-test.behind)
				cert := &x509.Certificate{NotBefore: begins, NotAfter: begins.Add(test.life), SerialNumber: big.NewInt(int64(n))}
				issued := now
				if n > 0 {
					ari = &cmapi.CertificateACMEARIStatus{AtOnce: AtOnce(&was, ari, test.life, now)}
				} else {
					ari = &cmapi.CertificateACMEARIStatus{}
				}
				was = cmapi.CertificateStatus{
					NotBefore: ptr.To(metav1.NewTime(cert.NotBefore)),
					NotAfter:  ptr.To(metav1.NewTime(cert.NotAfter)),
				}
				now = whenRenewed(cert, ari, now, func(now time.Time) (time.Time, time.Time) { return test.suggests(begins, now) })
				if got := now.Sub(issued); got < want || got > want+time.Hour {
					t.Errorf("certificate %d is renewed after %s, want %s", n+1, got, want)
				}
			}
		})
	}
}

// whenRenewed returns when a certificate is renewed, if the CA is asked every six hours.
func whenRenewed(
	cert *x509.Certificate, ari *cmapi.CertificateACMEARIStatus, now time.Time,
	suggests func(now time.Time) (start, end time.Time),
) time.Time {
	for {
		start, end := suggests(now)
		ari.LastChecked = ptr.To(metav1.NewTime(now))
		ari.SuggestedWindow = &cmapi.ACMERenewalWindow{
			Start: ptr.To(metav1.NewTime(start)), End: ptr.To(metav1.NewTime(end)),
		}
		at := Plan(Inputs{Leaf: cert, Spec: &cmapi.CertificateSpec{}, UID: "uid", Suggested: ari}).At
		if !at.After(now.Add(6 * time.Hour)) {
			if at.After(now) {
				now = at
			}
			return now
		}
		now = now.Add(6 * time.Hour)
	}
}

func TestWhatIsRememberedOfRenewalsAtOnce(t *testing.T) {
	now := monday.Add(50 * day)
	at := func(d time.Duration) *metav1.Time { return ptr.To(metav1.NewTime(now.Add(d))) }
	once := func(n int32, until time.Duration) *cmapi.ACMERenewalAtOnce {
		return &cmapi.ACMERenewalAtOnce{Renewals: n, Since: *at(-60 * day), NotBefore: *at(until)}
	}
	window := func(from, to time.Duration) *cmapi.ACMERenewalWindow {
		return &cmapi.ACMERenewalWindow{Start: at(from), End: at(to)}
	}
	for name, test := range map[string]struct {
		ari      *cmapi.CertificateACMEARIStatus
		renewals int32
		hold     time.Duration
	}{
		"nothing, if the CA does not say when to renew":   {nil, 0, 0},
		"nothing, if it could not be asked":               {&cmapi.CertificateACMEARIStatus{LastChecked: at(0)}, 0, 0},
		"nothing, if what it says is no window":           {&cmapi.CertificateACMEARIStatus{LastChecked: at(0), SuggestedWindow: window(-time.Hour, -2*time.Hour)}, 0, 0},
		"nothing of a renewal in its time":                {&cmapi.CertificateACMEARIStatus{LastChecked: at(-6 * time.Hour), SuggestedWindow: window(-time.Hour, time.Hour)}, 0, 0},
		"nothing, if that ends a row":                     {&cmapi.CertificateACMEARIStatus{LastChecked: at(-6 * time.Hour), SuggestedWindow: window(-time.Hour, time.Hour), AtOnce: once(3, 0)}, 0, 0},
		"a revocation":                                    {&cmapi.CertificateACMEARIStatus{LastChecked: at(0), SuggestedWindow: window(-2*time.Hour, -time.Hour)}, 1, time.Hour},
		"another, right after":                            {&cmapi.CertificateACMEARIStatus{LastChecked: at(0), SuggestedWindow: window(-2*time.Hour, -time.Hour), AtOnce: once(1, time.Minute)}, 2, 2 * time.Hour},
		"another, long after: that is the first of a row": {&cmapi.CertificateACMEARIStatus{LastChecked: at(0), SuggestedWindow: window(-2*time.Hour, -time.Hour), AtOnce: once(5, -40*day)}, 1, time.Hour},
		"the sixth waits for a day":                       {&cmapi.CertificateACMEARIStatus{LastChecked: at(0), SuggestedWindow: window(-2*time.Hour, -time.Hour), AtOnce: once(5, 0)}, 6, day},
		"the thousandth, too":                             {&cmapi.CertificateACMEARIStatus{LastChecked: at(0), SuggestedWindow: window(-2*time.Hour, -time.Hour), AtOnce: once(999, 0)}, 1000, day},
	} {
		t.Run(name, func(t *testing.T) {
			was := &cmapi.CertificateStatus{
				NotBefore: ptr.To(metav1.NewTime(monday)),
				NotAfter:  ptr.To(metav1.NewTime(monday.Add(90 * day))),
			}
			got := AtOnce(was, test.ari, 90*day, now)
			if (got == nil) != (test.renewals == 0) ||
				got != nil && (got.Renewals != test.renewals || !got.NotBefore.Time.Equal(now.Add(test.hold))) {
				t.Errorf("it is %+v", got)
			}
			if got != nil && (got.Renewals == 1) != got.Since.Time.Equal(now) {
				t.Errorf("it is so since %s", got.Since)
			}
		})
	}
}
