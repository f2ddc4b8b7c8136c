package ratelimit

import (
	"fmt"
	"strings"
	"time"
)

// Message says until when an order waits, for which limit, and what would help.
func (d Decision) Message() string {
	waits := "waits until " + stamp(d.Until) + ": "
	spent := func(what string) string {
		s := fmt.Sprintf("the limit of %d %s in %s is spent", d.Limit.Count, what, span(d.Limit.Period))
		if d.Share > 0 {
			s = fmt.Sprintf("the namespace has its share, %d, of the limit of %d %s in %s, which other namespaces use, too",
				d.Share, d.Limit.Count, what, span(d.Limit.Period))
		}
		if d.Ahead > 0 {
			s += fmt.Sprintf(", and %d wait before it", d.Ahead)
		}
		return s
	}
	switch d.Kind {
	case NewOrders:
		return waits + spent("new orders of account "+d.Subject) + help[NewOrders]
	case Domain:
		return waits + spent("certificates for "+d.Subject+" and names below it") + help[Domain]
	case ExactSet:
		return waits + spent("certificates for exactly these names") + help[ExactSet]
	case Validations:
		return waits + spent("failed validations of "+d.Subject) + help[Validations]
	case Paused:
		if d.Underway {
			return fmt.Sprintf("%s is paused, as its last %d validations failed, and another order tries it now: "+
				"see it again at %s", d.Subject, d.Failures, stamp(d.Until))
		}
		if d.Failures == 0 { // by the CA
			return fmt.Sprintf("paused by the CA, asked again at %s, or by perennial renew: %s",
				stamp(d.Until), d.Detail)
		}
		return fmt.Sprintf("%s is paused until %s, as its last %d validations failed, the last at %s: %s. "+
			"It is tried once a day. Mend it, and then: perennial renew",
			d.Subject, stamp(d.Until), d.Failures, stamp(d.Since), strings.TrimSuffix(d.Detail, "."))
	}
	return waits + fmt.Sprintf("the CA refused it at %s: %s", stamp(d.Since), strings.TrimSuffix(d.Detail, ".")) +
		help[d.RefusedFor]
}

// help says what would help when a limit is spent.
var help = map[Reason]string{
	NewOrders: ". Fewer certificates with more names each, or an issuer with another account, would help",
	Domain: ". A wildcard in the place of many names, fewer certificates with more names each, " +
		"or an issuer of another CA, would help",
	ExactSet:    ". One name more or less, or an issuer of another CA, would help: see why it is issued so often",
	Validations: ". Mend what they failed for, or use an issuer with another account",
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// span formats a duration: 7 days, 3 hours.
func span(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		if n := d / u.unit; d%u.unit == 0 && n > 0 {
			if n == 1 {
				return "1 " + u.name
			}
			return fmt.Sprintf("%d %ss", n, u.name)
		}
	}
	return d.String()
}
