package signer

import (
	"maps"
	"slices"
	"testing"
)

func TestLabelsByWhichToolsClaimAreNotCopied(t *testing.T) {
	labels := map[string]string{
		"app.kubernetes.io/instance": "my-app", "argocd.argoproj.io/instance": "my-app",
		"applyset.kubernetes.io/part-of": "applyset-1",
		"objectset.rio.cattle.io/hash":   "1", "kapp.k14s.io/app": "1", "kapp.k14s.io/association": "v1.1",
		"kustomize.toolkit.fluxcd.io/name": "apps",
		"helm.toolkit.fluxcd.io/namespace": "apps", "addonmanager.kubernetes.io/mode": "Reconcile",
		"configsync.gke.io/declared-version": "v1",
		"app.kubernetes.io/name":             "shop", "app": "shop", "team": "web", "instance": "a",
	}
	got := slices.Sorted(maps.Keys(CopiedLabels(labels)))
	if want := []string{"app", "app.kubernetes.io/name", "instance", "team"}; !slices.Equal(got, want) {
		t.Errorf("copied are %v, want %v", got, want)
	}
	if CopiedLabels(map[string]string{"app.kubernetes.io/instance": "a"}) != nil {
		t.Error("of nothing there is something left")
	}
}

func TestDeferrals(t *testing.T) {
	d := Deferral{Fields: []string{"spec.uris", "spec.acmeProfile"}, Revision: 3}
	differences := []string{"spec.dnsNames", "spec.uris"}
	if got := DeferralOf(map[string]string{DeferredAnnotation: d.String()}).Now(differences, 3); !slices.Equal(got,
		[]string{"spec.dnsNames"}) {
		t.Errorf("at the revision that is there: %v", got)
	}
	for name, value := range map[string]string{"the next revision": "spec.uris@2", "nothing": "",
		"what cannot be read": "spec.uris@three", "no revision": "spec.uris"} {
		if got := DeferralOf(map[string]string{DeferredAnnotation: value}).Now(differences, 3); !slices.Equal(got,
			differences) {
			t.Errorf("%s defers: %v", name, got)
		}
	}
}
