package order

import (
	"testing"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

func TestTransitionsAreLogged(t *testing.T) {
	for name, test := range map[string]struct {
		was, is cmacme.OrderStatus
		want    string
	}{
		"the CA accepts it":    {cmacme.OrderStatus{}, cmacme.OrderStatus{URL: "x", State: cmacme.Pending}, "order accepted by the CA"},
		"the CA processes it":  {cmacme.OrderStatus{URL: "x", State: cmacme.Ready}, cmacme.OrderStatus{URL: "x", State: cmacme.Processing}, "order processing at the CA"},
		"the CA has issued":    {cmacme.OrderStatus{URL: "x", State: cmacme.Pending}, cmacme.OrderStatus{URL: "x", State: cmacme.Valid}, "order valid"},
		"it fails before that": {cmacme.OrderStatus{}, cmacme.OrderStatus{State: cmacme.Errored}, "order errored"},
		"another reason":       {cmacme.OrderStatus{State: cmacme.Pending}, cmacme.OrderStatus{State: cmacme.Pending, Reason: "x"}, ""},
		"finished as it was":   {cmacme.OrderStatus{State: cmacme.Valid}, cmacme.OrderStatus{State: cmacme.Valid, Reason: "x"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := transition(&test.was, &test.is); got != test.want {
				t.Errorf("it logs %q, not %q", got, test.want)
			}
		})
	}
}
