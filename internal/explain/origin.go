package explain

import (
	"cmp"
	"fmt"

	cmapi "github.com/perennial-pki/perennial/api/certmanager/v1"
)

// Origin is the Ingress, Gateway or ListenerSet that a Certificate is made for.
type Origin struct {
	Kind, Namespace, Name string
	// Problem is the value of its problem annotation. It is empty if there is none.
	Problem string
}

func (o *Origin) step() Step {
	s := Step{Kind: o.Kind, Name: o.Name, State: OK, Detail: "the Certificate is made for it"}
	if o.Problem != "" {
		s.State, s.Detail = Failed, o.Problem
	}
	return s
}

// originKind returns the kind of the object that the Certificate is made for, or "".
func originKind(o Objects) string {
	if o.Origin == nil {
		return ""
	}
	return o.Origin.Kind
}

// ExplainOrigin explains the state of an object and of the Certificates that are made for it.
func ExplainOrigin(o Origin, certificates []cmapi.Certificate) Report {
	r := Report{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name, Ready: o.Problem == "", Steps: []Step{}}
	own := o.step()
	own.Detail = cmp.Or(o.Problem, "nothing keeps it from being followed")
	r.Steps = append(r.Steps, own)
	var waiting *cmapi.Certificate
	for i := range certificates {
		crt := &certificates[i]
		ready := cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionReady)
		s := certificateStep(crt, ready, cmapi.GetCertificateCondition(&crt.Status, cmapi.CertificateConditionIssuing))
		if s.State != OK && waiting == nil {
			waiting = crt
		}
		r.Steps = append(r.Steps, s)
	}
	switch {
	case o.Problem != "":
		r.Summary, r.Next = "is not followed as it stands", "correct it: "+o.Problem
	case len(certificates) == 0:
		r.Ready = false
		r.Summary = "has no Certificates"
		r.Next = "annotate it with cert-manager.io/cluster-issuer or cert-manager.io/issuer, and name a Secret for each " +
			"host that is served by TLS. If it is so, see whether the controller runs"
	case waiting != nil:
		r.Ready = false
		r.Summary = fmt.Sprintf("waits for Certificate %q", waiting.Name)
		r.Next = fmt.Sprintf("perennial status certificate %s -n %s", waiting.Name, waiting.Namespace)
	default:
		r.Summary = "has its certificates"
	}
	return r
}
