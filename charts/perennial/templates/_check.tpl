{{/* Refuses what cannot work, before anything is installed. Each message says what to do. */}}
{{- define "perennial.check" -}}
{{- include "perennial.checkImage" (dict "value" "image" "image" (include "perennial.image" (dict "root" . "image" .Values.image))) -}}
{{- include "perennial.checkImage" (dict "value" "acmesolver.image" "image" (include "perennial.solverImage" .)) -}}
{{- if not (has (.Values.admissionPolicies.mutating | toString) (list "auto" "true" "false")) -}}
{{- fail (printf "admissionPolicies.mutating is %q: set it to auto, true or false" (.Values.admissionPolicies.mutating | toString)) -}}
{{- end -}}
{{- include "perennial.checkInstalled" . -}}
{{- end }}

{{- define "perennial.checkImage" -}}
{{- if regexMatch "(^|/)jetstack/cert-manager" .image -}}
{{- fail (printf "%s is %s, which is cert-manager's: remove repository, tag and digest from %s (and imageRegistry and imageNamespace), or set them to those of Perennial's image" .value .image .value) -}}
{{- end -}}
{{- end }}

{{/*
What the cluster has already. Offline, lookup finds nothing. An installation for one namespace that brings no
CustomResourceDefinitions may be made without the right to read the cluster's objects.
*/}}
{{- define "perennial.checkInstalled" -}}
{{- if or (not .Values.watchNamespace) (include "perennial.crds" .) -}}
{{- $binding := lookup "rbac.authorization.k8s.io/v1" "ClusterRoleBinding" "" "perennial-controller:certificates" -}}
{{- if $binding -}}
{{- $release := get (default dict $binding.metadata.annotations) "meta.helm.sh/release-name" -}}
{{- $namespace := get (default dict $binding.metadata.annotations) "meta.helm.sh/release-namespace" -}}
{{- if and $release (or (ne $release .Release.Name) (ne $namespace .Release.Namespace)) -}}
{{- fail (printf "Perennial serves the whole cluster already, as the release %s in the namespace %s: upgrade that release, or uninstall it first" $release $namespace) -}}
{{- end -}}
{{- end -}}
{{- $crd := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "certificates.cert-manager.io" -}}
{{- if $crd -}}
{{- $annotations := default dict $crd.metadata.annotations -}}
{{- $labels := default dict $crd.metadata.labels -}}
{{- $owner := get $annotations "meta.helm.sh/release-name" -}}
{{- $in := get $annotations "meta.helm.sh/release-namespace" -}}
{{- include "perennial.checkCertManager" (dict "owner" $owner "namespace" (default "cert-manager" $in)) -}}
{{- $installed := get $labels "app.kubernetes.io/version" -}}
{{- if and (include "perennial.crds" .) (eq (get $labels "app.kubernetes.io/name") (include "perennial.name" .)) (regexMatch "^v?[0-9]+\\.[0-9]+\\.[0-9]+$" $installed) -}}
{{- $ours := get (.Files.Get "files/crds/cert-manager.io_certificates.yaml" | fromYaml).metadata.labels "app.kubernetes.io/version" -}}
{{- if semverCompare (printf ">%s" $ours) $installed -}}
{{- fail (printf "the CustomResourceDefinitions in the cluster are of version %s, and those of this chart of version %s: install a later chart, or set crds.enabled to false to keep them as they are" $installed $ours) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "perennial.checkCertManager" -}}
{{- range (lookup "apps/v1" "Deployment" .namespace "").items -}}
{{- $labels := default dict .metadata.labels -}}
{{- if and (eq (get $labels "app.kubernetes.io/name") "cert-manager") (eq (get $labels "app.kubernetes.io/component") "controller") (gt (int .spec.replicas) 0) -}}
{{- fail (printf "cert-manager runs in this cluster: stop it with \"kubectl scale --replicas=0 --namespace %s deployment %s\", then install again with --take-ownership --force-conflicts (Helm 3: --take-ownership); see docs/migrate-from-cert-manager.md" .metadata.namespace .metadata.name) -}}
{{- end -}}
{{- end -}}
{{- end }}
