package renewalinfo

import (
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/perennial-pki/perennial/acme"
	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
)

func TestWhenToAskAgain(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	window := acme.Window{Start: now.AddDate(0, 2, 0), End: now.AddDate(0, 2, 2)}
	told := func(in time.Duration) acme.RenewalInfo {
		i := acme.RenewalInfo{SuggestedWindow: window}
		if in != 0 {
			i.RetryAfter = now.Add(in)
		}
		return i
	}
	failed := func(d time.Duration) *cmapi.CertificateACMEARIStatus {
		then := metav1.NewTime(now.Add(-d))
		due := metav1.NewTime(now)
		return &cmapi.CertificateACMEARIStatus{
			LastChecked:     &then,
			NextCheck:       &due,
			LastError:       "x",
			SuggestedWindow: &cmapi.ACMERenewalWindow{Start: &due, End: &due},
		}
	}
	for name, test := range map[string]struct {
		was  *cmapi.CertificateACMEARIStatus
		info acme.RenewalInfo
		err  error
		want time.Duration
	}{
		"as the server says":                    {nil, told(6 * time.Hour), nil, 6 * time.Hour},
		"it says nothing":                       {nil, told(0), nil, 6 * time.Hour},
		"it says a second":                      {nil, told(time.Second), nil, time.Minute},
		"it says a year":                        {nil, told(365 * 24 * time.Hour), nil, 24 * time.Hour},
		"it cannot be reached":                  {nil, acme.RenewalInfo{}, errors.New("no route"), time.Minute},
		"it could not be reached before either": {failed(time.Minute), acme.RenewalInfo{}, errors.New("no route"), 2 * time.Minute},
		"for long":                              {failed(5 * time.Hour), acme.RenewalInfo{}, errors.New("no route"), 6 * time.Hour},
		"it is broken":                          {nil, acme.RenewalInfo{}, &acme.Problem{Status: 500}, time.Minute},
		"it does not know the certificate":      {nil, acme.RenewalInfo{}, &acme.Problem{Status: 404}, 6 * time.Hour},
		"what it says makes no sense":           {nil, acme.RenewalInfo{}, &acme.ProtocolError{}, 6 * time.Hour},
		"it is busy, and says until when":       {nil, acme.RenewalInfo{}, &acme.Problem{Status: 503, RetryAfter: now.Add(time.Hour)}, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			got := after(test.was, test.info, test.err, "account", now)
			if wait := got.NextCheck.Sub(now); wait != test.want {
				t.Errorf("in %s", wait)
			}
			if (got.LastError != "") != (test.err != nil) {
				t.Errorf("the error is %q", got.LastError)
			}
			if test.err == nil && !got.SuggestedWindow.Start.Time.Equal(window.Start) ||
				test.was != nil && got.SuggestedWindow == nil {
				t.Errorf("the window is %+v", got.SuggestedWindow)
			}
		})
	}
}

func TestWhatIsKnownOutlivesAFailure(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	info := acme.RenewalInfo{
		SuggestedWindow: acme.Window{Start: now.AddDate(0, 2, 0), End: now.AddDate(0, 2, 2)},
		ExplanationURL:  "https://ca.example.com/why",
	}
	first := after(nil, info, nil, "account 1", now)
	failed := after(first, acme.RenewalInfo{}, errors.New("no route"), "account 2", now.Add(6*time.Hour))
	if !failed.SuggestedWindow.Start.Time.Equal(info.SuggestedWindow.Start) ||
		failed.ExplanationURL != info.ExplanationURL ||
		failed.LastError != "no route" {
		t.Errorf("after a failure: %+v", failed)
	}
	again := after(failed, acme.RenewalInfo{SuggestedWindow: info.SuggestedWindow}, nil, "account 2", now.Add(7*time.Hour))
	if again.LastError != "" || again.ExplanationURL != "" {
		t.Errorf("after an answer: %+v", again)
	}
	if first.Account != "account 1" || again.Account != "account 1" {
		t.Errorf("the certificate was issued to %q, and then to %q", first.Account, again.Account)
	}
	// The record about the certificates before stays with any answer.
	before := &cmapi.CertificateACMEARIStatus{AtOnce: &cmapi.ACMERenewalAtOnce{Renewals: 2}}
	for _, err := range []error{nil, errors.New("no route")} {
		if next := after(before, info, err, "account 2", now); next.AtOnce == nil || next.AtOnce.Renewals != 2 {
			t.Errorf("after %v: %+v", err, next)
		}
	}
	// If an earlier version has not recorded the account, it is the present one.
	if noted := after(&cmapi.CertificateACMEARIStatus{}, info, nil, "account 2", now); noted.Account != "account 2" {
		t.Errorf("the account is %q", noted.Account)
	}
}

func TestTheClockMayHaveBeenAheadWhenTheNextQuestionWasSet(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for in, want := range map[time.Duration]time.Duration{
		-time.Hour: 0, time.Hour: time.Hour, 24 * time.Hour: 24 * time.Hour, 365 * 24 * time.Hour: 0,
	} {
		next := metav1.NewTime(now.Add(in))
		if got := untilNext(&cmapi.CertificateACMEARIStatus{NextCheck: &next}, now); got != want {
			t.Errorf("set to be in %s, it is asked in %s, not in %s", in, got, want)
		}
	}
	if got := untilNext(nil, now); got != 0 {
		t.Errorf("nothing is known, and it is asked in %s", got)
	}
}
