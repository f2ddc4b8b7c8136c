package account

import (
	"errors"
	"net/http"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/perennial-pki/perennial/acme"
	"github.com/perennial-pki/perennial/internal/fault"
)

func TestNoteReachability(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	before, at := metav1.NewTime(now.Add(-time.Hour)), metav1.NewTime(now)
	for name, test := range map[string]struct {
		was  *metav1.Time
		err  error
		want *metav1.Time
	}{
		"it answers":                               {nil, nil, nil},
		"it answers again":                         {&before, nil, nil},
		"there is no way to it":                    {nil, errors.New("connection refused"), &at},
		"there still is none":                      {&before, errors.New("connection refused"), &before},
		"it is broken":                             {nil, &acme.Problem{Status: http.StatusInternalServerError}, &at},
		"it wants to be left alone":                {nil, &acme.Problem{Status: http.StatusServiceUnavailable, RetryAfter: now.Add(time.Minute)}, &at},
		"that it limits us is an answer":           {&before, &acme.Problem{Status: http.StatusTooManyRequests}, nil},
		"what it refuses is an answer":             {&before, &acme.Problem{Status: http.StatusForbidden, Type: acme.ProblemUnauthorized}, nil},
		"it was not asked, and was not there":      {&before, fault.Misconfiguredf("", "no account"), &before},
		"it was not asked, and was there":          {nil, fault.Misconfiguredf("", "no account"), nil},
		"the Kubernetes API says nothing about it": {nil, apierrors.NewInternalError(errors.New("etcd")), nil},
		"nor does it of one that was not there":    {&before, apierrors.NewInternalError(errors.New("etcd")), &before},
	} {
		t.Run(name, func(t *testing.T) {
			since := test.was
			NoteReachability(&since, now, test.err)
			if (since == nil) != (test.want == nil) || since != nil && !since.Equal(test.want) {
				t.Errorf("since %v, want %v", since, test.want)
			}
		})
	}
}
