package dns01

import (
	"fmt"
	"strings"
	"time"

	"github.com/perennial-pki/perennial/internal/solver"
)

// silence is how long an unreachable server delays a challenge. The ACME server may be able to
// reach it, or not.
const silence = time.Minute

// Answer is the answer of one name server, from the first of its addresses that answered.
type Answer struct {
	// Server is the name, and Address is the address that was asked last.
	Server, Address string
	// Values are the TXT values at the name. They count only if Err is nil.
	Values []string
	// Alias is the target of a CNAME at the name, if there is one.
	Alias string
	// Err is set if no address answered.
	Err error
}

// who returns the name of the server, and the address that answered, for messages.
func (a Answer) who() string {
	who := strings.TrimSuffix(a.Server, ".")
	if a.Address != "" && a.Address != a.Server {
		who += " (" + a.Address + ")"
	}
	return who
}

// Judge decides whether the ACME server will see a record that was created at since. Every server
// must have it. A server that answers without it always blocks. A server that cannot be reached
// blocks for a minute.
func Judge(r Record, answers []Answer, since, now time.Time) solver.Sight {
	if len(answers) == 0 {
		return solver.Sight{Why: fmt.Sprintf("no name server of %s is known", r.Zone)}
	}
	var without, silent []string
	have := 0
	for _, a := range answers {
		who := a.who()
		switch {
		case a.Err != nil:
			silent = append(silent, fmt.Sprintf("%s cannot be reached: %s", who, a.Err))
		case r.in(a.Values):
			have++
		default:
			text := fmt.Sprintf("%s still answers %s", who, quoted(a.Values))
			if a.Alias != "" {
				text += fmt.Sprintf(
					", as a CNAME leads from there to %s: if that is on purpose, set dns01.cnameStrategy to Follow",
					strings.TrimSuffix(a.Alias, "."),
				)
			}
			without = append(without, text)
		}
	}
	patient := since.IsZero() || now.Before(since.Add(silence))
	if len(without) == 0 && have > 0 && (len(silent) == 0 || !patient) {
		return solver.Sight{Visible: true}
	}
	if found := answers[0].Server != answers[0].Address; found && have == 0 && len(without) == 0 && !patient {
		silent = append(silent, barred)
	}
	return solver.Sight{
		Lost: have == 0 && len(without) > 0,
		Why: fmt.Sprintf(
			"of the %d name servers of %s, %d have the TXT record of %s; %s",
			len(answers),
			strings.TrimSuffix(r.Zone, "."),
			have,
			strings.TrimSuffix(r.FQDN, "."),
			strings.Join(append(without, silent...), "; "),
		),
	}
}
