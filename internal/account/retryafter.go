package account

import (
	"time"

	"github.com/perennial-pki/perennial/internal/fault"
)

// Limit is the time until which the CA takes no requests of an account about an object. A pass
// before that time, such as the one after the write that reports the limit, sends no request. The
// zero value is no limit. It is not kept across a restart, which costs one request.
type Limit struct {
	account string
	until   time.Time
}

// Note remembers the time that the error of an exchange names. Other outcomes change nothing.
func (l *Limit) Note(account string, now time.Time, err error) {
	if err == nil {
		return
	}
	if f := fault.Of(Classify("", now, err)); f.Class == fault.Limited {
		*l = Limit{account, f.Until}
	}
}

// Wait returns how long the account must wait before its next request. It is not positive if there
// is no wait.
func (l *Limit) Wait(account string, now time.Time) time.Duration {
	if l.account != account {
		return 0
	}
	return l.until.Sub(now)
}
