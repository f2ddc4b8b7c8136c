package api_test

import (
	"testing"

	"github.com/cert-manager/cert-manager/pkg/util/cmapichecker"
)

// TestTheCheckOfCmctlSucceeds runs what "cmctl check api" runs: it expects that the requester of a
// CertificateRequest is written into it, and that one without a CSR is refused with the words of
// cert-manager's webhook.
func TestTheCheckOfCmctlSucceeds(t *testing.T) {
	check, err := cmapichecker.New(adminConfig(t), "default")
	if err != nil {
		t.Fatal(err)
	}
	if err := check.Check(t.Context()); err != nil {
		t.Error(err)
	}
}
