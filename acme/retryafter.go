package acme

import (
	"net/http"
	"strconv"
	"time"
)

// maxRetryAfter is the longest accepted wait. The slowest rate limit of a public CA takes a week to
// refill.
const maxRetryAfter = 31 * 24 * time.Hour

// parseRetryAfter reads a Retry-After field, RFC 9110 section 10.2.3: seconds, or a date. The
// result is between now and 31 days from now; ok is false if there is none.
func parseRetryAfter(s string, now time.Time) (at time.Time, ok bool) {
	if s == "" || len(s) > 64 {
		return time.Time{}, false
	}
	if seconds, err := strconv.ParseUint(s, 10, 64); err == nil {
		if seconds > uint64(maxRetryAfter/time.Second) {
			return now.Add(maxRetryAfter), true
		}
		return now.Add(time.Duration(seconds) * time.Second), true
	}
	at, err := http.ParseTime(s)
	if err != nil {
		return time.Time{}, false
	}
	if at.Before(now) {
		at = now
	}
	if last := now.Add(maxRetryAfter); at.After(last) {
		at = last
	}
	return at, true
}
