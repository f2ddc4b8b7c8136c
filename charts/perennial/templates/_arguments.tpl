{{/* The arguments of the container. Those of the user come last, so that they count. */}}
{{- define "perennial.arguments" -}}
- controller
- {{ printf "--cluster-resource-namespace=%s" (include "perennial.clusterResourceNamespace" .) | quote }}
- {{ printf "--leader-election-namespace=%s" (include "perennial.leaseNamespace" .) | quote }}
{{- with .Values.watchNamespace }}
- {{ printf "--namespace=%v" . | quote }}
{{- end }}
{{- if .Values.config }}
- --config=/etc/perennial/config.yaml
{{- end }}
{{- $level := int .Values.global.logLevel }}
{{- if ge $level 5 }}
- --v=4
{{- else if ge $level 3 }}
- --v=1
{{- end }}
{{- with .Values.global.leaderElection.leaseDuration }}
- {{ printf "--leader-election-lease-duration=%v" . | quote }}
{{- end }}
{{- with .Values.global.leaderElection.renewDeadline }}
- {{ printf "--leader-election-renew-deadline=%v" . | quote }}
{{- end }}
{{- with .Values.global.leaderElection.retryPeriod }}
- {{ printf "--leader-election-retry-period=%v" . | quote }}
{{- end }}
{{- $off := list }}
{{- if .Values.disableAutoApproval }}{{ $off = append $off "certificaterequests-approver" }}{{ end }}
{{- if not .Values.trust.enabled }}{{ $off = append $off "trustbundles" }}{{ end }}
{{- if not .Values.cainjector.enabled }}{{ $off = append $off "cainjector" }}{{ end }}
{{- if .Values.watchNamespace }}{{ $off = concat $off (list "certificatesigningrequests" "cainjector") | uniq }}{{ end }}
{{- with $off }}
- {{ printf "--controllers=*,-%s" (join ",-" .) | quote }}
{{- end }}
{{- if include "perennial.http01" . }}
- --http01-listen-address=:{{ .Values.http01.port }}
- --http01-service={{ include "perennial.namespace" . }}/{{ include "perennial.fullname" . }}-http01
- {{ printf "--http01-solver-mode=%s" .Values.http01.solverMode | quote }}
- {{ printf "--acme-http01-solver-image=%s" (include "perennial.solverImage" .) | quote }}
{{- end }}
{{- if .Values.tlsalpn01.enabled }}
- --tlsalpn01-listen-address=:{{ .Values.tlsalpn01.port }}
{{- with .Values.tlsalpn01.passthroughTo }}
- {{ printf "--tlsalpn01-passthrough-to=%v" . | quote }}
{{- end }}
{{- end }}
{{- if .Values.enableCertificateOwnerRef }}
- --enable-certificate-owner-ref=true
{{- end }}
{{- with .Values.featureGates }}
- {{ printf "--feature-gates=%v" . | quote }}
{{- end }}
{{- with .Values.dns01RecursiveNameservers }}
- {{ printf "--dns01-recursive-nameservers=%v" . | quote }}
{{- end }}
{{- if .Values.dns01RecursiveNameserversOnly }}
- --dns01-recursive-nameservers-only=true
{{- end }}
{{- with .Values.maxConcurrentChallenges }}
- {{ printf "--max-concurrent-challenges=%v" . | quote }}
{{- end }}
{{- with .Values.ingressShim.defaultIssuerName }}
- {{ printf "--default-issuer-name=%v" . | quote }}
{{- end }}
{{- with .Values.ingressShim.defaultIssuerKind }}
- {{ printf "--default-issuer-kind=%v" . | quote }}
{{- end }}
{{- with .Values.ingressShim.defaultIssuerGroup }}
- {{ printf "--default-issuer-group=%v" . | quote }}
{{- end }}
{{- range .Values.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}
