package order

import (
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/perennial-pki/perennial/internal/account"
	"github.com/perennial-pki/perennial/internal/fault"
)

// reached notes, in the field of a status that says since when the server does not answer, what became of an exchange with it.
func reached(since **metav1.Time, now time.Time, err error) {
	var api apierrors.APIStatus
	if errors.As(err, &api) {
		return // that was another server
	}
	switch fault.Of(account.Fault("", now, err)).Class {
	case fault.Misconfigured:
		return // it was not asked
	case fault.Refused:
	default:
		if err != nil {
			if *since == nil {
				at := metav1.NewTime(now.Truncate(time.Second))
				*since = &at
			}
			return
		}
	}
	*since = nil
}
