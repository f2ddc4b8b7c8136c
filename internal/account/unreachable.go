package account

import (
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/limiter"
)

// NoteReachability updates since, the time from which a server has not answered, after an exchange
// that ended with err.
func NoteReachability(since **metav1.Time, now time.Time, err error) {
	switch asked, answers := reachable(now, err); {
	case asked && answers:
		*since = nil
	case asked && *since == nil:
		at := metav1.NewTime(now.Truncate(time.Second))
		*since = &at
	}
}

// reachable reports whether a server was asked, and whether it answers.
func reachable(now time.Time, err error) (asked, answers bool) {
	var api apierrors.APIStatus
	if limiter.IsBusy(err) || errors.As(err, &api) {
		return false, false
	}
	if err == nil || errors.Is(err, ErrRecovered) {
		return true, true
	}
	switch failure := fault.Of(Classify("", now, err)); failure.Class {
	case fault.Misconfigured:
		return false, false
	case fault.Limited:
		// A spent limit, or a paused name, is an answer: a rehearsal waits for that.
		return true, failure.Reason != fault.Busy
	default:
		return true, failure.Class == fault.Refused
	}
}
