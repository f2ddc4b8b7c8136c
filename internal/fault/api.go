package fault

import (
	"errors"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// RefusedByAPI reports whether the API server refuses a request until a user changes something: a
// quota, an admission policy, a right, the object itself.
func RefusedByAPI(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	code := status.Status().Code
	return code >= http.StatusBadRequest && code < http.StatusInternalServerError && code != http.StatusConflict &&
		code != http.StatusTooManyRequests
}

// NextAttempt is how a message ends if the work queue tries again with its back-off. It names no
// time, as each time would be a write of a Challenge, its Order, the request and the Certificate.
const NextAttempt = ". It is tried again within 2 minutes"

// Retried returns the text of an error after which the work queue tries again with its back-off:
// what failed, what to do if the API server refuses it, and when the next attempt is.
func Retried(err error) string {
	text := strings.TrimSuffix(err.Error(), ".")
	if RefusedByAPI(err) {
		text += ". Change what refuses it"
	}
	return text + NextAttempt
}

// unnamed is an error of the API server without the name of its object.
type unnamed struct {
	text string
	err  error
}

func (e *unnamed) Error() string { return e.text }
func (e *unnamed) Unwrap() error { return e.err }

// Unnamed returns an error of the API server about an object without the object's name, for the
// users of namespaces other than the object's. The rest of the API server's words stays: for
// example, `secrets "pair" is forbidden: User ... cannot get ...` becomes
// `forbidden: User ... cannot get ...`.
func Unnamed(err error, name string) error {
	if err == nil {
		return nil
	}
	// What wraps the words of the API server, such as the URL of the request, may have the name, too.
	text := innermost(err).Error()
	if status := apierrors.APIStatus(nil); errors.As(err, &status) {
		text = status.(error).Error()
	}
	quoted := `"` + name + `"`
	if _, after, found := strings.Cut(text, quoted+" is "); found {
		text = after
	}
	// As in `secrets "pair" not found`, `(get secrets pair)` and `namespaces/a/secrets/pair`.
	text = strings.NewReplacer(" "+quoted, "", quoted, "", " "+name+")", ")", "/"+name, "").Replace(text)
	return &unnamed{text, err}
}

// innermost returns the error at the end of a chain.
func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}
