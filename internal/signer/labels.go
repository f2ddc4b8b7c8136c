package signer

import (
	"slices"
	"strings"
)

// Tools for deployment claim by these labels: what bears one and is not in their manifests is shown
// as drift, or pruned. Certificates of Ingresses and Gateways, requests, Orders and Challenges are
// made from objects that have such labels, and are not in the manifests.
var (
	claimingLabels   = []string{"app.kubernetes.io/instance"} // Argo CD's by default
	claimingPrefixes = []string{
		"argocd.argoproj.io/",
		"applyset.kubernetes.io/",  // kubectl apply --applyset --prune
		"objectset.rio.cattle.io/", // k3s, Rancher Fleet
		"kapp.k14s.io/",
		"kustomize.toolkit.fluxcd.io/", "helm.toolkit.fluxcd.io/",
		"addonmanager.kubernetes.io/",
		"configsync.gke.io/",
	}
)

// Claims reports whether tools claim objects by a label.
func Claims(label string) bool {
	return slices.Contains(claimingLabels, label) ||
		slices.ContainsFunc(claimingPrefixes, func(prefix string) bool { return strings.HasPrefix(label, prefix) })
}

// CopiedLabels returns the labels that what is made of an object has, too: all but those by which
// tools claim objects.
func CopiedLabels(labels map[string]string) map[string]string {
	var copied map[string]string
	for key, value := range labels {
		if Claims(key) {
			continue
		}
		if copied == nil {
			copied = map[string]string{}
		}
		copied[key] = value
	}
	return copied
}
