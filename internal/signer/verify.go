package signer

import (
	"bytes"
	"context"
	"fmt"

	"k8s.io/utils/clock"

	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/pki"
)

// WithVerification returns signers whose certificates are judged as clients would judge them. A
// request for what clients would refuse fails.
func WithVerification(set ByType, limits pki.Limits, clock clock.PassiveClock) ByType {
	judged := ByType{}
	for kind, s := range set {
		judged[kind] = &verifier{Signer: s, limits: limits, clock: clock}
	}
	return judged
}

// verifier judges what another signer signs.
type verifier struct {
	Signer
	limits pki.Limits
	clock  clock.PassiveClock
}

// Sign implements [Signer].
func (j *verifier) Sign(ctx context.Context, issuer *Issuer, r Request) (Result, error) {
	answer, err := j.Signer.Sign(ctx, issuer, r)
	if err != nil || len(answer.Certificate) == 0 {
		return answer, err
	}
	if err := j.judge(issuer, r, answer); err != nil {
		reason := "InvalidCertificate"
		if defect := pki.DefectOf(err); defect != "" {
			reason = string(defect)
		}
		return Result{}, fault.Refusedf(reason,
			"%s cannot sign this: clients would refuse the certificate, as %w", issuer, err)
	}
	return answer, nil
}

// verifier returns an error if clients would refuse the certificate of an answer.
func (j *verifier) judge(issuer *Issuer, r Request, answer Result) error {
	chain, err := j.limits.DecodeChainPEM(answer.Certificate)
	if err != nil {
		return err
	}
	asked := pki.Asked{CSR: r.CSR, IsCA: r.IsCA, Usages: r.Usages, UsagesByCA: issuer.Type() == TypeACME}
	issued := pki.Issued{Chain: chain}
	// The CA of an ACME issuer is the top of the chain. It may be an expired root that an older root
	// has cross-signed.
	if issuer.Type() != TypeACME && len(bytes.TrimSpace(answer.CA)) > 0 {
		if issued.CAs, err = j.limits.DecodeBundlePEM(answer.CA); err != nil {
			return fmt.Errorf("its CA cannot be read: %w", err)
		}
	}
	_, err = pki.Judge(asked, issued, j.clock.Now())
	return err
}
