package http01

import (
	"context"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	cmacme "github.com/perennial-pki/perennial/api/acme/v1"
)

func challenge(host string) *cmacme.Challenge {
	return &cmacme.Challenge{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "c", UID: "1"},
		Spec: cmacme.ChallengeSpec{
			DNSName: host,
			Token:   "token",
			Key:     "token.thumbprint",
			Solver: cmacme.ACMEChallengeSolver{
				HTTP01: &cmacme.ACMEChallengeSolverHTTP01{Ingress: &cmacme.ACMEChallengeSolverHTTP01Ingress{}},
			},
		},
	}
}

func rule(host string, paths ...string) networkingv1.IngressRule {
	r := networkingv1.IngressRule{Host: host}
	for _, p := range paths {
		if r.HTTP == nil {
			r.HTTP = &networkingv1.HTTPIngressRuleValue{}
		}
		r.HTTP.Paths = append(
			r.HTTP.Paths,
			networkingv1.HTTPIngressPath{
				Path:    p,
				Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "web"}},
			},
		)
	}
	return r
}

func TestAnIngressIsEditedAndAfterwardsAsItWas(t *testing.T) {
	for name, test := range map[string]struct {
		host  string
		rules []networkingv1.IngressRule
		want  int // rules with the path
	}{
		"no rules":                      {"a.example.com", nil, 1},
		"a rule for the host":           {"a.example.com", []networkingv1.IngressRule{rule("b.example.com", "/"), rule("a.example.com", "/", "/x")}, 2},
		"two rules for the host":        {"a.example.com", []networkingv1.IngressRule{rule("a.example.com", "/"), rule("a.example.com", "/x")}, 2},
		"a rule for another host":       {"a.example.com", []networkingv1.IngressRule{rule("b.example.com", "/")}, 2},
		"a rule for the default only":   {"a.example.com", []networkingv1.IngressRule{rule("a.example.com")}, 2},
		"an address, which has no host": {"192.0.2.1", []networkingv1.IngressRule{rule("", "/")}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			ch := challenge(test.host)
			before := copyRules(test.rules)
			with, changed := withPath(test.rules, ch)
			if !changed || len(with) != test.want {
				t.Errorf("got %+v", with)
			}
			if _, changed := withPath(with, ch); changed {
				t.Error("it is changed again")
			}
			after, changed := withoutPath(with, ch)
			if !changed || !equality.Semantic.DeepEqual(after, before) || !equality.Semantic.DeepEqual(test.rules, before) {
				t.Errorf("afterwards it is %+v", after)
			}
			if _, changed := withoutPath(after, ch); changed {
				t.Error("it is changed after it was as it was")
			}
		})
	}
}

func TestSlicesOfTheReplicas(t *testing.T) {
	slice := func(family discoveryv1.AddressType, ready bool, addresses ...string) discoveryv1.EndpointSlice {
		s := discoveryv1.EndpointSlice{AddressType: family, Ports: []discoveryv1.EndpointPort{
			{Name: ptr.To("metrics"), Port: ptr.To[int32](9402)}, {Name: ptr.To("http"), Port: ptr.To[int32](8089)},
		}}
		for _, a := range addresses {
			s.Endpoints = append(
				s.Endpoints,
				discoveryv1.Endpoint{Addresses: []string{a}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
					NodeName: ptr.To("node"), TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: "p"}},
			)
		}
		return s
	}
	got := slicesOf(challenge("a.example.com"), []discoveryv1.EndpointSlice{
		slice(
			discoveryv1.AddressTypeIPv4,
			true,
			"192.0.2.2",
			"192.0.2.1",
		),
		slice(discoveryv1.AddressTypeIPv6, true, "2001:db8::1"),
		slice(discoveryv1.AddressTypeIPv4, false, "192.0.2.3"),
		slice(discoveryv1.AddressTypeFQDN, true, "a.example.com"),
	}, false)
	if len(got) != 2 || got[0].AddressType != discoveryv1.AddressTypeIPv4 || len(got[0].Endpoints) != 2 ||
		got[0].Endpoints[0].Addresses[0] != "192.0.2.1" ||
		*got[0].Ports[0].Port != 8089 ||
		got[1].Endpoints[0].TargetRef == nil ||
		*got[1].Endpoints[0].NodeName != "node" {
		t.Errorf("got %+v", got)
	}
	for _, e := range got[0].Endpoints {
		if !*e.Conditions.Ready || !*e.Conditions.Serving || len(e.Addresses) != 1 {
			t.Errorf("an endpoint is %+v", e)
		}
	}
	without := slicesOf(
		challenge("a.example.com"),
		[]discoveryv1.EndpointSlice{slice(discoveryv1.AddressTypeIPv4, true, "192.0.2.1")},
		true,
	)
	if without[0].Endpoints[0].TargetRef != nil {
		t.Error("the pod is named")
	}
	if s := serviceOf(
		challenge("a"),
		nil,
	); s.Spec.IPFamilyPolicy == nil || *s.Spec.IPFamilyPolicy != corev1.IPFamilyPolicyPreferDualStack ||
		len(s.Spec.Selector) > 0 {
		t.Errorf("the Service is %+v", s.Spec)
	}
}

func TestAnIngressFollowsItsSolver(t *testing.T) {
	ch := challenge("a.example.com")
	ch.Spec.Solver.HTTP01.Ingress = &cmacme.ACMEChallengeSolverHTTP01Ingress{
		Class:       ptr.To("nginx"),
		ServiceType: corev1.ServiceTypeClusterIP,
		IngressTemplate: &cmacme.ACMEChallengeSolverHTTP01IngressTemplate{
			ACMEChallengeSolverHTTP01IngressObjectMeta: cmacme.ACMEChallengeSolverHTTP01IngressObjectMeta{
				Annotations: map[string]string{
					"nginx.ingress.kubernetes.io/whitelist-source-range": "192.0.2.0/24",
				},
				Labels: map[string]string{"team": "shop"},
			},
		},
	}
	o := ingressOf(ch)
	if o.Annotations["kubernetes.io/ingress.class"] != "nginx" ||
		o.Annotations["nginx.ingress.kubernetes.io/whitelist-source-range"] != "192.0.2.0/24" ||
		o.Labels["team"] != "shop" ||
		o.Labels[cmacme.SolverIdentificationLabelKey] != "true" ||
		*o.Spec.Rules[0].HTTP.Paths[0].PathType != networkingv1.PathTypeExact {
		t.Errorf("the Ingress is %+v", o)
	}
	if s := serviceOf(ch, nil); s.Spec.Type != corev1.ServiceTypeClusterIP {
		t.Errorf("the Service is of type %s", s.Spec.Type)
	}
}

func TestAPathThatLeadsElsewhereIsCorrectedAndGoesInAnyCase(t *testing.T) {
	ch := challenge("a.example.com")
	before := []networkingv1.IngressRule{rule("a.example.com", "/")}
	with, _ := withPath(before, ch)
	elsewhere := copyRules(with)
	elsewhere[0].HTTP.Paths[1].Backend.Service.Name = "cm-acme-http-solver-x7z2k" // as cert-manager's, which has begun it
	if got, changed := withPath(elsewhere, ch); !changed || !equality.Semantic.DeepEqual(got, with) {
		t.Errorf("it is %+v", got)
	}
	if got, changed := withoutPath(elsewhere, ch); !changed || !equality.Semantic.DeepEqual(got, before) {
		t.Errorf("afterwards it is %+v", got)
	}
}

// TestAnIngressThatOthersEditAtTheSameTimeHasBoth has an owner that is a little faster each time,
// as other challenges on the same Ingress are.
func TestAnIngressThatOthersEditAtTheSameTimeHasBoth(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	web := &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec:       networkingv1.IngressSpec{Rules: []networkingv1.IngressRule{rule("a.example.com", "/")}},
	}
	times, slower := 0, true
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(web).WithInterceptorFuncs(interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch,
			options ...client.PatchOption) error {
			if slower {
				slower = false
				times++
				is := &networkingv1.Ingress{}
				if err := c.Get(ctx, client.ObjectKeyFromObject(o), is); err != nil {
					return err
				}
				is.Spec.Rules = append(is.Spec.Rules, rule(fmt.Sprintf("owner-%d.example.com", times), "/"))
				if err := c.Update(ctx, is); err != nil {
					return err
				}
			}
			return c.Patch(ctx, o, p, options...)
		},
	}).Build()
	s := &Solver{Direct: c}
	ch := challenge("a.example.com")
	ch.Spec.Solver.HTTP01.Ingress.Name = "web"
	hosts := func() (all []string) {
		is := &networkingv1.Ingress{}
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(web), is); err != nil {
			t.Fatal(err)
		}
		for _, r := range is.Spec.Rules {
			all = append(all, fmt.Sprint(r.Host, len(r.HTTP.Paths)))
		}
		return all
	}
	if err := s.edit(t.Context(), ch, withPath); err != nil {
		t.Fatal(err)
	}
	if got := hosts(); !slices.Equal(got, []string{"a.example.com2", "owner-1.example.com1"}) {
		t.Errorf("it has %v", got)
	}
	slower = true
	// This process does not use Ingresses, but the previous one did.
	if err := s.CleanUp(t.Context(), nil, ch); err != nil {
		t.Fatal(err)
	}
	if got := hosts(); !slices.Equal(got, []string{"a.example.com1", "owner-1.example.com1", "owner-2.example.com1"}) {
		t.Errorf("afterwards it has %v", got)
	}
}

// TestChallengesThatShareAnIngressLeaveEachOthersPathsAlone has hosts with rules of their own and
// without.
func TestChallengesThatShareAnIngressLeaveEachOthersPathsAlone(t *testing.T) {
	rules := []networkingv1.IngressRule{rule("a.example.com", "/"), rule("*.example.com", "/")}
	var all []*cmacme.Challenge
	for _, host := range []string{"a.example.com", "b.example.com", "c.example.com", "a.example.com"} {
		ch := challenge(host)
		ch.UID, ch.Spec.Token = types.UID(fmt.Sprint("uid-", len(all))), fmt.Sprint("token-", len(all))
		all = append(all, ch)
		var changed bool
		if rules, changed = withPath(rules, ch); !changed {
			t.Errorf("%s: nothing changed", host)
		}
	}
	for _, ch := range all {
		if got, changed := withPath(rules, ch); changed {
			t.Errorf("%s: what stands is moved: %+v", ch.Spec.DNSName, got)
		}
	}
}
