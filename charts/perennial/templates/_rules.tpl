{{/* What the controller may do, and no more, by feature. Every integration test runs it with exactly this. */}}

{{- define "perennial.rules.certificates" }}
- apiGroups: [cert-manager.io]
  resources: [certificates, certificaterequests, issuers]
  verbs: [get, list, watch]
- apiGroups: [cert-manager.io]
  resources: [certificates/status, certificaterequests/status, issuers/status]
  verbs: [patch]
- apiGroups: [cert-manager.io]
  resources: [certificaterequests]
  verbs: [create, delete]
# To be named as the owner of other objects, where the API server checks that.
- apiGroups: [cert-manager.io]
  resources: [certificates/finalizers, certificaterequests/finalizers]
  verbs: [update]
# Certificates are stored in Secrets, and the keys of CAs and the passwords of keystores are read from there. Only the
# metadata of other Secrets is watched.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{- define "perennial.rules.cluster-issuers" }}
- apiGroups: [cert-manager.io]
  resources: [clusterissuers]
  verbs: [get, list, watch]
- apiGroups: [cert-manager.io]
  resources: [clusterissuers/status]
  verbs: [patch]
{{- end }}

{{- define "perennial.rules.acme" }}
- apiGroups: [acme.cert-manager.io]
  resources: [orders, challenges]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [acme.cert-manager.io]
  resources: [orders/status, challenges/status]
  verbs: [patch]
- apiGroups: [acme.cert-manager.io]
  resources: [orders/finalizers, challenges/finalizers]
  verbs: [update]
{{- end }}

{{- define "perennial.rules.ingresses" }}
# Annotated Ingresses get Certificates, and an annotation with the problems of those.
- apiGroups: [cert-manager.io]
  resources: [certificates]
  verbs: [create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [get, list, watch, patch]
- apiGroups: [networking.k8s.io]
  resources: [ingresses/finalizers]
  verbs: [update]
{{- end }}

{{- define "perennial.rules.gateways" }}
- apiGroups: [gateway.networking.k8s.io]
  resources: [gateways, listenersets]
  verbs: [get, list, watch, patch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [gateways/finalizers, listenersets/finalizers]
  verbs: [update]
- apiGroups: [gateway.networking.k8s.io]
  resources: [referencegrants]
  verbs: [get, list, watch]
{{- end }}

{{- define "perennial.rules.http01" }}
# What leads the requests of a CA to the controller.
- apiGroups: [""]
  resources: [services]
  verbs: [get, create, patch, delete]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [discovery.k8s.io] # where it is checked before an EndpointSlice names addresses of another namespace
  resources: [endpointslices/restricted]
  verbs: [create]
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [create, delete]
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, create, patch, delete]
{{- end }}

{{- define "perennial.rules.http01-pods" }}
- apiGroups: [""]
  resources: [pods]
  verbs: [get, create, patch, delete]
{{- end }}

{{- define "perennial.rules.approval" }}
- apiGroups: [cert-manager.io]
  resources: [signers]
  verbs: [approve]
  {{- with .Values.approveSignerNames }}
  resourceNames:
  {{- range . }}
  - {{ . | quote }}
  {{- end }}
  {{- end }}
{{- end }}

{{- define "perennial.rules.certificatesigningrequests" }}
- apiGroups: [certificates.k8s.io]
  resources: [certificatesigningrequests]
  verbs: [get, list, watch]
- apiGroups: [certificates.k8s.io]
  resources: [certificatesigningrequests/status]
  verbs: [patch]
- apiGroups: [certificates.k8s.io]
  resources: [signers]
  resourceNames: ["issuers.cert-manager.io/*", "clusterissuers.cert-manager.io/*"]
  verbs: [sign]
- apiGroups: [authorization.k8s.io]
  resources: [subjectaccessreviews]
  verbs: [create]
{{- end }}

{{- define "perennial.rules.injection" }}
# The metadata of all objects is watched. Those with an annotation are read, and their caBundle is written.
- apiGroups: [admissionregistration.k8s.io]
  resources: [mutatingwebhookconfigurations, validatingwebhookconfigurations]
  verbs: [get, list, watch, patch]
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  verbs: [get, list, watch, patch]
- apiGroups: [apiregistration.k8s.io]
  resources: [apiservices]
  verbs: [get, list, watch, patch]
{{- end }}

{{- define "perennial.rules.trust" }}
- apiGroups: [perennial.dev]
  resources: [trustbundles]
  verbs: [get, list, watch]
- apiGroups: [perennial.dev]
  resources: [trustbundles/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [namespaces]
  verbs: [list, watch]
- apiGroups: [""] # also the counts of requests to CAs
  resources: [configmaps]
  verbs: [get, list, watch, create, patch, delete]
{{- end }}

{{- define "perennial.rules.external-issuers" }}
# Whether an external issuer changed or became Ready since it refused a request. They hold no secrets. The controller
# also reads other kinds of issuers, where a ClusterRole for them is bound to it.
- apiGroups: [awspca.cert-manager.io, cas-issuer.jetstack.io, certmanager.step.sm, cert-manager.k8s.cloudflare.com, jetstack.io,
    ejbca-issuer.keyfactor.com, command-issuer.keyfactor.com, adcs.certmanager.csf.nokia.com]
  resources: ["*"]
  verbs: [get]
{{- end }}

{{- define "perennial.rules.cluster" }}
# The verb "act" lets the controller alone write what Orders and Challenges ask for: see the admission policies.
- apiGroups: [perennial.dev]
  resources: [controllers]
  verbs: [act]
# ClusterIssuers are used only while the admission policies are enforced.
- apiGroups: [admissionregistration.k8s.io]
  resources: [validatingadmissionpolicies, validatingadmissionpolicybindings]
  verbs: [get, list, watch]
# Whether the Gateway API is installed.
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  verbs: [get, list, watch]
- apiGroups: [""] # whether a namespace is being deleted
  resources: [namespaces]
  verbs: [get]
{{- if not .Values.watchNamespace }}
# The names of the resources of external issuers, in an annotation of this namespace, for perennial-approval-external.
- apiGroups: [""]
  resources: [namespaces]
  resourceNames: [default]
  verbs: [patch]
{{- end }}
{{- end }}

{{- define "perennial.rules.limits" }}
- apiGroups: [""] # the counts of requests to CAs
  resources: [configmaps]
  verbs: [get, list, watch, create, patch, delete]
{{- end }}

{{- define "perennial.rules.leader-election" }}
# One controller works at a time. cert-manager's uses the same Lease, so that the two exclude each other.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [cert-manager-controller]
  verbs: [get, update, patch]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
{{- end }}
