package signer

import (
	"slices"
	"strings"
)

// Deployment tools claim objects by these labels. They report or prune an object that has such a
// label and is not in their manifests. Objects that the controller makes are not in the manifests,
// so they must not copy these labels from the objects that they are made for.
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

// ClaimsOwnership reports whether deployment tools claim objects by a label.
func ClaimsOwnership(label string) bool {
	return slices.Contains(claimingLabels, label) ||
		slices.ContainsFunc(claimingPrefixes, func(prefix string) bool { return strings.HasPrefix(label, prefix) })
}

// CopiedLabels returns the labels that an object passes on to those made for it: all but those by
// which deployment tools claim objects.
func CopiedLabels(labels map[string]string) map[string]string {
	var copied map[string]string
	for key, value := range labels {
		if ClaimsOwnership(key) {
			continue
		}
		if copied == nil {
			copied = map[string]string{}
		}
		copied[key] = value
	}
	return copied
}
