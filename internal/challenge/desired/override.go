package desired

import (
	"slices"
	"strings"

	"k8s.io/utils/ptr"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
	"github.com/perennial-pki/perennial/internal/fault"
)

// override follows the annotations by which a Certificate says through which Ingress or Gateway its
// HTTP-01 challenges are answered.
func override(solver *cmacme.ACMEChallengeSolver, order *cmacme.Order) error {
	if solver.HTTP01 == nil {
		return nil
	}
	a := order.Annotations
	if ingress := solver.HTTP01.Ingress; ingress != nil {
		var set []string
		for _, o := range []struct {
			key   string
			write func(string)
		}{
			{cmacme.ACMECertificateHTTP01IngressNameOverride, func(v string) { ingress.Name = v }},
			{cmacme.ACMECertificateHTTP01IngressClassOverride, func(v string) { ingress.Class = &v }},
			{cmacme.ACMECertificateHTTP01IngressClassNameOverride, func(v string) { ingress.IngressClassName = &v }},
		} {
			if v, found := a[o.key]; found {
				ingress.Name, ingress.Class, ingress.IngressClassName = "", nil, nil
				o.write(v)
				set = append(set, o.key)
			}
		}
		if len(set) > 1 {
			return fault.Misconfiguredf(
				"Annotations",
				"the Certificate has the annotations %s: keep one of them",
				strings.Join(set, " and "),
			)
		}
	}
	route := solver.HTTP01.GatewayHTTPRoute
	if route == nil {
		return nil
	}
	name, named := a[cmacme.ACMECertificateHTTP01ParentRefName]
	kind, kinded := a[cmacme.ACMECertificateHTTP01ParentRefKind]
	if named != kinded {
		return fault.Misconfiguredf("Annotations", "the Certificate has one of the annotations %s and %s: set "+
			"both, or none",
			cmacme.ACMECertificateHTTP01ParentRefName, cmacme.ACMECertificateHTTP01ParentRefKind)
	}
	if named {
		namespace := order.Namespace
		if v := a[cmacme.ACMECertificateHTTP01ParentRefNamespace]; v != "" {
			namespace = v
		}
		// The issuer may name the same parent, and which of its listeners.
		if !slices.ContainsFunc(route.ParentRefs, func(p cmacme.ParentReference) bool {
			return p.Name == name && ptr.Deref(p.Namespace, order.Namespace) == namespace && ptr.Deref(p.Kind, "Gateway") == kind
		}) {
			// With the group that the API server would fill in, or the Challenge would differ from what is
			// asked for.
			group := "gateway.networking.k8s.io"
			route.ParentRefs = append(route.ParentRefs, cmacme.ParentReference{
				Group: &group, Kind: &kind, Namespace: &namespace, Name: name})
		}
	}
	if len(route.ParentRefs) == 0 {
		return fault.Misconfiguredf(
			"NoParent",
			"the HTTPRoute of the solver has no parent: set parentRefs, or annotate the Gateway itself",
		)
	}
	return nil
}
