package order

import (
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/ratelimit"
)

func TestWhatAnOrderSaysOfWhenItEnded(t *testing.T) {
	created := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	later := metav1.NewTime(created.Add(time.Hour))
	key := p256(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    created.Add(192 * time.Hour),
		NotAfter:     created.AddDate(0, 3, 0),
		DNSNames:     []string{"www.example.com"},
	}
	leaf := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: sign(t, template, template, key.Public(), key).Raw})
	for name, test := range map[string]struct {
		status cmacme.OrderStatus
		want   time.Time
	}{
		"when its certificate begins":                        {cmacme.OrderStatus{State: cmacme.Valid, URL: "x", Certificate: leaf}, created.Add(192 * time.Hour)},
		"unknown, if that cannot be read":                    {cmacme.OrderStatus{State: cmacme.Valid, URL: "x", Certificate: []byte("?")}, time.Time{}},
		"when it failed":                                     {cmacme.OrderStatus{State: cmacme.Invalid, URL: "x", FailureTime: &later}, later.Time},
		"when it was asked for, if its names are paused":     {cmacme.OrderStatus{PausedUntil: &later}, created},
		"unknown, if it is open":                             {cmacme.OrderStatus{State: cmacme.Pending, URL: "x"}, time.Time{}},
		"unknown, if it is open, and its names were paused":  {cmacme.OrderStatus{State: cmacme.Pending, URL: "x", PausedUntil: &later}, time.Time{}},
		"when it failed, if its names are paused since then": {cmacme.OrderStatus{State: cmacme.Invalid, URL: "x", FailureTime: &later, PausedUntil: &later}, later.Time},
	} {
		t.Run(name, func(t *testing.T) {
			o := &cmacme.Order{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(created)}, Status: test.status}
			if got := whenOf(o); !got.Equal(test.want) {
				t.Errorf("%s", got)
			}
		})
	}
}

func TestAnOrderThatWaitsForLongLooksAgainWhetherThoseBeforeItHaveLeft(t *testing.T) {
	now := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	for wait, want := range map[time.Duration]time.Duration{time.Minute: time.Minute, 14 * 24 * time.Hour: lineAgain} {
		err := postponed(ratelimit.Decision{Kind: ratelimit.Domain, Until: now.Add(wait), Ahead: 50})
		if d := Decide(
			Observation{Now: now, Order: &cmacme.Order{}, Done: Admit, Err: err},
		); d.Err != nil ||
			d.Again != want {
			t.Errorf("of %s it waits %s, %v", wait, d.Again, d.Err)
		}
	}
}
