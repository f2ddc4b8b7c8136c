package observe

import (
	"context"
	"strings"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"
)

// longWait is the wait that is worth a line at the default level.
const longWait = time.Minute

// Waiting is an object that waits.
type Waiting struct {
	// Step is the constant message of the line, such as "order waits".
	Step         string
	Reason       string
	Created, Now time.Time
	// Until is the time of the next look, zero if only an event ends the wait.
	Until time.Time
	// Logged is the reason that the default level of the log has. LogWait sets it.
	Logged *string
}

// LogWait logs why an object waits and until when, at V(1). A wait that lasts has one line at the
// default level for each reason, so that the log shows what an issuance is stuck on.
func LogWait(ctx context.Context, w Waiting) {
	if w.Reason == "" {
		return
	}
	logger := log.FromContext(ctx)
	lasts := w.Now.Sub(w.Created) > longWait || w.Until.Sub(w.Now) > longWait
	if lasts && withoutDigits(*w.Logged) != withoutDigits(w.Reason) {
		*w.Logged = w.Reason
	} else {
		logger = logger.V(1)
	}
	values := []any{"reason", w.Reason, "age", Seconds(w.Now.Sub(w.Created))}
	if !w.Until.IsZero() {
		values = append(values, "until", w.Until.UTC().Format(time.RFC3339))
	}
	logger.Info(w.Step, values...)
}

// Seconds is a duration as the log shows it.
func Seconds(d time.Duration) string { return d.Round(time.Second).String() }

// withoutDigits is for the comparison of texts that may differ in times and ports.
func withoutDigits(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, s)
}

// errorLog logs the errors of the passes of a controller. An error of an object has one line, not
// one for each retry.
type errorLog[R comparable] struct {
	mu   sync.Mutex
	last map[R]string // by object, until a pass succeeds
}

// failed logs an error that the last pass of the object did not return.
func (l *errorLog[R]) failed(ctx context.Context, object R, err error) {
	text := withoutDigits(err.Error())
	l.mu.Lock()
	known := l.last[object] == text
	l.last[object] = text
	l.mu.Unlock()
	if known {
		log.FromContext(ctx).V(1).Info("pass failed again", "error", err.Error())
		return
	}
	log.FromContext(ctx).Error(err, "pass failed; it is retried")
}

func (l *errorLog[R]) succeeded(object R) {
	l.mu.Lock()
	delete(l.last, object)
	l.mu.Unlock()
}
