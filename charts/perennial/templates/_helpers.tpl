{{/*
Blocks of values that an older release did not have are missing with --reuse-values: they get their defaults.
Every template begins with this.
*/}}
{{- define "perennial.defaults" -}}
{{- include "perennial.fill" (dict "values" .Values "defaults" (.Files.Get "files/values.yaml" | fromYaml)) -}}
{{- end }}

{{- define "perennial.fill" -}}
{{- $values := .values -}}
{{- range $key, $default := .defaults -}}
{{- if kindIs "map" $default -}}
{{- if kindIs "map" (get $values $key) -}}
{{- include "perennial.fill" (dict "values" (get $values $key) "defaults" $default) -}}
{{- else -}}
{{- $_ := set $values $key $default -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "perennial.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{/* The name of the objects: the release's, if that has the chart's name in it. */}}
{{- define "perennial.fullname" -}}
{{- $name := include "perennial.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "perennial.namespace" -}}
{{- default .Release.Namespace .Values.namespace -}}
{{- end }}

{{- define "perennial.serviceAccount" -}}
{{- if .Values.serviceAccount.name -}}
{{- .Values.serviceAccount.name -}}
{{- else if not .Values.serviceAccount.create -}}
default
{{- else if .Values.certManagerNames -}}
cert-manager
{{- else -}}
{{- printf "%s-controller" (include "perennial.fullname" .) -}}
{{- end -}}
{{- end }}

{{/* The namespace of the Secrets of ClusterIssuers, and of what the controller stores. */}}
{{- define "perennial.clusterResourceNamespace" -}}
{{- if .Values.watchNamespace -}}
{{- .Values.watchNamespace -}}
{{- else -}}
{{- default (include "perennial.namespace" .) .Values.clusterResourceNamespace -}}
{{- end -}}
{{- end }}

{{- define "perennial.leaseNamespace" -}}
{{- default .Values.global.leaderElection.namespace .Values.watchNamespace -}}
{{- end }}

{{/* The prefix of the names of roles. There is one installation for the whole cluster, so that its names are fixed. */}}
{{- define "perennial.roles" -}}
{{- if .Values.watchNamespace -}}
{{- printf "%s-controller" (include "perennial.fullname" .) -}}
{{- else -}}
perennial-controller
{{- end -}}
{{- end }}

{{- define "perennial.selector" -}}
app.kubernetes.io/name: {{ include "perennial.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
{{- end }}

{{- define "perennial.labels" -}}
app.kubernetes.io/name: {{ include "perennial.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | replace "+" "-" | trunc 63 | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "-" | trunc 63 | trimSuffix "-" }}
{{- with .Values.global.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The image of a map with registry, repository, name, tag and digest, as in .Values.image. */}}
{{- define "perennial.image" -}}
{{- $image := .image -}}
{{- $root := .root -}}
{{- $registry := default $root.Values.imageRegistry $image.registry -}}
{{- $repository := $image.repository -}}
{{- if $root.Values.imageNamespace -}}
{{- $repository = printf "%s/%s" $root.Values.imageNamespace (default "perennial" $image.name) -}}
{{- end -}}
{{- with $registry -}}{{- . -}}/{{- end -}}
{{- $repository -}}
{{- if $image.digest -}}
@{{- $image.digest -}}
{{- else -}}
:{{- default $root.Chart.AppVersion $image.tag | replace "+" "-" -}}
{{- end -}}
{{- end }}

{{/* The image of solver pods: that of the controller, with what acmesolver.image says otherwise. */}}
{{- define "perennial.solverImage" -}}
{{- $image := deepCopy .Values.image -}}
{{- range $key := list "registry" "repository" "tag" "digest" -}}
{{- with get $.Values.acmesolver.image $key -}}
{{- $_ := set $image $key . -}}
{{- end -}}
{{- end -}}
{{- include "perennial.image" (dict "root" . "image" $image) -}}
{{- end }}

{{- define "perennial.crds" -}}
{{- if kindIs "bool" .Values.installCRDs -}}
{{- if .Values.installCRDs -}}true{{- end -}}
{{- else if .Values.crds.enabled -}}true
{{- end -}}
{{- end }}

{{/* Whether the API server has MutatingAdmissionPolicies. A beta is never used: it would block later upgrades. */}}
{{- define "perennial.mutating" -}}
{{- $mutating := .Values.admissionPolicies.mutating | toString -}}
{{- if or (eq $mutating "true") (and (eq $mutating "auto") (semverCompare ">=1.36.0-0" .Capabilities.KubeVersion.Version)) -}}true
{{- end -}}
{{- end }}

{{- define "perennial.pods" -}}
{{- if or .Values.http01.pods (eq .Values.http01.solverMode "Pod") -}}true{{- end -}}
{{- end }}

{{- define "perennial.http01" -}}
{{- if and .Values.http01.enabled (not .Values.global.rbac.disableHTTPChallengesRole) -}}true{{- end -}}
{{- end }}

{{/* Annotations of objects that stay when the release is uninstalled, also for Argo CD. */}}
{{- define "perennial.kept" -}}
helm.sh/resource-policy: keep
argocd.argoproj.io/sync-options: Prune=false
{{- end }}

{{/* How many pods there are at least. */}}
{{- define "perennial.replicas" -}}
{{- if kindIs "invalid" .Values.replicaCount -}}1{{- else -}}{{- int .Values.replicaCount -}}{{- end -}}
{{- end }}

{{/* Names that extraObjects made for cert-manager's chart refer to. */}}
{{- define "cert-manager.name" -}}{{- include "perennial.name" . -}}{{- end }}
{{- define "cert-manager.fullname" -}}{{- include "perennial.fullname" . -}}{{- end }}
{{- define "cert-manager.namespace" -}}{{- include "perennial.namespace" . -}}{{- end }}
{{- define "cert-manager.serviceAccountName" -}}{{- include "perennial.serviceAccount" . -}}{{- end }}
