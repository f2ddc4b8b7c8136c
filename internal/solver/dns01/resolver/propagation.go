package resolver

import (
	"fmt"
	"strings"
	"time"

	"github.com/perennial-pki/perennial/internal/solver"
)

// UnreachableDelay is how long an unreachable server delays a challenge. The ACME server may be
// able to reach it, or not.
const UnreachableDelay = time.Minute

// Judge decides whether the ACME server will see a record that was created at since. Every server
// must have it. A server that answers without it always blocks. A server that cannot be reached
// blocks for a minute.
func Judge(r Record, answers []Answer, since, now time.Time) solver.CheckResult {
	if len(answers) == 0 {
		return solver.CheckResult{Why: fmt.Sprintf("no name server of %s is known", r.Zone)}
	}
	var without, silent []string
	have := 0
	for _, a := range answers {
		name := a.Name()
		switch {
		case a.Err != nil:
			silent = append(silent, fmt.Sprintf("%s cannot be reached: %s", name, a.Err))
		case r.In(a.Values):
			have++
		default:
			text := fmt.Sprintf("%s still answers %s", name, Quote(a.Values))
			if a.Alias != "" {
				text += fmt.Sprintf(
					", as a CNAME leads from there to %s: if that is on purpose, set dns01.cnameStrategy to Follow",
					strings.TrimSuffix(a.Alias, "."),
				)
			}
			without = append(without, text)
		}
	}
	patient := since.IsZero() || now.Before(since.Add(UnreachableDelay))
	if len(without) == 0 && have > 0 && (len(silent) == 0 || !patient) {
		return solver.CheckResult{Visible: true}
	}
	if found := answers[0].Server != answers[0].Address; found && have == 0 && len(without) == 0 && !patient {
		silent = append(silent, adviceBlocked)
	}
	return solver.CheckResult{
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
