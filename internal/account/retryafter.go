package account

import (
	"time"

	"github.com/perennial-pki/perennial/internal/fault"
)

// Limit is until when nothing is asked about an object for an account, as the CA said. Anything
// that happens before, such as the write that reports the limit, is no reason to ask. The zero
// value is no limit. It is not kept across a restart, which costs one request.
type Limit struct {
	account string
	until   time.Time
}

// Note remembers the time that the error of an exchange names. Other outcomes change nothing.
func (l *Limit) Note(account string, now time.Time, err error) {
	if err == nil {
		return
	}
	if f := fault.Of(Fault("", now, err)); f.Class == fault.Limited {
		*l = Limit{account, f.Until}
	}
}

// Wait is how long it is until the account may ask again. It is not positive if it may.
func (l *Limit) Wait(account string, now time.Time) time.Duration {
	if l.account != account {
		return 0
	}
	return l.until.Sub(now)
}
