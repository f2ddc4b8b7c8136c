package renewal

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
)

// Postponed returns when a renewal that is due may happen, if its windows demand a later time than
// now: the beginning of the next window, unless the certificate would be too near to its end then.
// It is zero if the renewal may happen now.
func Postponed(cert *x509.Certificate, spec *cmapi.CertificateSpec, now time.Time) time.Time {
	if spec.Renewal == nil || len(spec.Renewal.Windows) == 0 {
		return time.Time{}
	}
	windows, err := parseWindows(spec.Renewal.Windows)
	if err != nil {
		return time.Time{}
	}
	var next time.Time
	for _, w := range windows {
		if start := w.latestStart(now.Add(-w.length), now); !start.IsZero() {
			return time.Time{} // inside
		}
		if start := w.cron.Next(now); !start.IsZero() && (next.IsZero() || start.Before(next)) {
			next = start
		}
	}
	backstop := cert.NotAfter.Add(-cert.NotAfter.Sub(cert.NotBefore) / backstopFraction)
	if next.IsZero() || !next.Before(backstop) {
		return time.Time{}
	}
	return next
}

// intoWindow moves a renewal time into the latest window before it, but to no moment before
// earliest, or else into the first window after it that begins before notAfter. Inside a window it
// takes a moment of the first half, which stable in [0, 1) chooses. The window after at is
// preferred to the one before it if only the later one lies between from and to, which may be zero.
func intoWindow(
	at, earliest, notAfter, from, to time.Time,
	spec []cmapi.CertificateRenewalWindows,
	stable float64,
) (time.Time, error) {
	windows, err := parseWindows(spec)
	if err != nil {
		return time.Time{}, err
	}
	var before, after time.Time
	for _, w := range windows {
		if start := w.latestStart(earliest.Add(-w.length), at); !start.IsZero() {
			if at.Before(start.Add(w.length)) {
				return at, nil
			}
			if t := w.moment(start, stable); t.After(earliest) && t.After(before) {
				before = t
			}
		}
		if start := w.cron.Next(at); !start.IsZero() {
			if t := w.moment(start, stable); t.Before(notAfter) && (after.IsZero() || t.Before(after)) {
				after = t
			}
		}
	}
	switch {
	case before.Before(from) && !after.IsZero() && after.Before(to):
		return after, nil
	case !before.IsZero():
		return before, nil
	case !after.IsZero():
		return after, nil
	}
	return time.Time{}, fmt.Errorf(
		"no window of spec.renewal.windows lies between %s and %s: the certificate will be renewed at %s, outside of them",
		stamp(earliest),
		stamp(notAfter),
		stamp(at),
	)
}

// window is a recurring time.
type window struct {
	cron   cron.Schedule
	length time.Duration
}

func (w window) moment(start time.Time, stable float64) time.Time {
	return start.Add(time.Duration(stable * float64(w.length) / 2))
}

// latestStart returns the last start in (from, to], or zero.
func (w window) latestStart(from, to time.Time) time.Time {
	next := w.cron.Next(from)
	if next.IsZero() || next.After(to) {
		return time.Time{}
	}
	// There is a start in (low, to], and none in (high, to].
	low, high := from, to
	for high.Sub(low) > time.Second {
		middle := low.Add(high.Sub(low) / 2)
		if t := w.cron.Next(middle); t.IsZero() || t.After(to) {
			high = middle
		} else {
			low = middle
		}
	}
	return w.cron.Next(low)
}

// cronParser knows the five fields minute, hour, day of month, month and day of week, and no @daily
// or seconds.
var cronParser = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)

// maxCron is the longest cron expression that is parsed. Lists of all minutes, hours, days and
// months fit.
const maxCron = 512

// CheckWindows returns what is wrong with the windows of a spec. The error names the field.
func CheckWindows(spec []cmapi.CertificateRenewalWindows) error {
	_, err := parseWindows(spec)
	return err
}

func parseWindows(spec []cmapi.CertificateRenewalWindows) ([]window, error) {
	var windows []window
	for i, s := range spec {
		w, err := parseWindow(s)
		if err != nil {
			return nil, fmt.Errorf("spec.renewal.windows[%d].%w", i, err)
		}
		windows = append(windows, w)
	}
	return windows, nil
}

// parseWindow reads a window. Its error begins with the name of the field.
func parseWindow(s cmapi.CertificateRenewalWindows) (window, error) {
	zone := s.Timezone
	if zone == "" {
		zone = "UTC"
	}
	location, err := time.LoadLocation(zone)
	if err != nil || zone == "Local" {
		return window{}, fmt.Errorf(
			"timezone: %q is no time zone: write a name of the IANA database, such as Europe/Berlin",
			s.Timezone,
		)
	}
	if strings.Contains(s.Cron, "TZ=") {
		return window{}, errors.New("cron: the time zone belongs into the field timezone")
	}
	if len(s.Cron) > maxCron {
		return window{}, fmt.Errorf("cron: longer than %d characters", maxCron)
	}
	parsed, err := cronParser.Parse(s.Cron)
	if err != nil {
		return window{}, fmt.Errorf(
			"cron: %q: %w; write minute, hour, day of month, month and day of week, such as \"0 2 * * 6\"",
			s.Cron,
			err,
		)
	}
	parsed.(*cron.SpecSchedule).Location = location
	if parsed.Next(time.Unix(0, 0)).IsZero() {
		return window{}, fmt.Errorf("cron: %q is a date that never comes", s.Cron)
	}
	if s.WindowDuration == nil || s.WindowDuration.Duration <= 0 {
		return window{}, errors.New("windowDuration: must be more than 0, such as 2h")
	}
	return window{cron: parsed, length: s.WindowDuration.Duration}, nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
