package signer

import (
	"bytes"
	"context"
	"fmt"

	"k8s.io/utils/clock"

	"github.com/perennial-pki/perennial/internal/fault"
	"github.com/perennial-pki/perennial/pki"
)

// Judged returns signers whose certificates are judged as clients would judge them. A request for
// what clients would refuse fails.
func Judged(set Set, limits pki.Limits, clock clock.PassiveClock) Set {
	judged := Set{}
	for kind, s := range set {
		judged[kind] = &judge{Signer: s, limits: limits, clock: clock}
	}
	return judged
}

// judge judges what another signer signs.
type judge struct {
	Signer
	limits pki.Limits
	clock  clock.PassiveClock
}

// Sign implements [Signer].
func (j *judge) Sign(ctx context.Context, issuer *Issuer, r Request) (Answer, error) {
	answer, err := j.Signer.Sign(ctx, issuer, r)
	if err != nil || len(answer.Certificate) == 0 {
		return answer, err
	}
	if err := j.judge(issuer, r, answer); err != nil {
		reason := "InvalidCertificate"
		if defect := pki.DefectOf(err); defect != "" {
			reason = string(defect)
		}
		return Answer{}, fault.Refusedf(reason,
			"%s cannot sign this: clients would refuse the certificate, as %w", issuer, err)
	}
	return answer, nil
}

// judge returns an error if clients would refuse the certificate of an answer.
func (j *judge) judge(issuer *Issuer, r Request, answer Answer) error {
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
