package main

import (
	"fmt"
	"regexp"
	"testing"

	"github.com/perennial-pki/perennial/pki"
)

// TestTheFlagForManyNamesExists takes the flag from the message about a request that is too large.
func TestTheFlagForManyNamesExists(t *testing.T) {
	var many pki.Request
	for n := range 2000 {
		many.DNSNames = append(many.DNSNames, fmt.Sprintf("host-%d.example.com", n))
	}
	err := pki.Limits{}.CheckRequest(many, pki.KeySpec{})
	if err == nil {
		t.Fatal("a request with 2000 names fits")
	}
	flags := regexp.MustCompile("--([a-z-]+)").FindAllStringSubmatch(err.Error(), -1)
	if len(flags) != 1 || command().Flags().Lookup(flags[0][1]) == nil {
		t.Errorf("perenniald does not have the flags %v of the message: %v", flags, err)
	}
	cmd := command()
	if err := cmd.ParseFlags([]string{"--max-certificate-size", "100000"}); err != nil {
		t.Fatal(err)
	}
	o := options{maxCertificate: 100000}
	if err := o.limits().CheckRequest(many, pki.KeySpec{}); err != nil {
		t.Error(err)
	}
}
