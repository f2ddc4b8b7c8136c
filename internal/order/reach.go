package order

import (
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/internal/lane"
)

// reached notes, in the field of a status that says since when the server does not answer, what became of an exchange with it.
func reached(since **metav1.Time, now time.Time, err error) {
	var api apierrors.APIStatus
	if lane.Is(err) || errors.As(err, &api) {
		return // that was another server, or none
	}
	switch failure := fault.Of(account.Fault("", now, err)); {
	case err == nil:
	case failure.Class == fault.Misconfigured:
		return // it was not asked
	case failure.Class == fault.Limited && failure.Reason != fault.Busy:
		// A limit that is spent, or a name that is paused, is an answer: whoever rehearses waits for that.
	case failure.Class != fault.Refused:
		if *since == nil {
			at := metav1.NewTime(now.Truncate(time.Second))
			*since = &at
		}
		return
	}
	*since = nil
}
