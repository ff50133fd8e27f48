{{/* The prefix of all names: the release's name, with the chart's name where it is not in it already. */}}
{{- define "cultivar.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Everything that belongs to the operator as a program. */}}
{{- define "cultivar.operatorName" -}}
{{- include "cultivar.fullname" . }}-operator
{{- end -}}

{{/*
The prefix of cluster-scoped objects. An operator that watches only some namespaces may have neighbours of the same
release name in other namespaces, so its own namespace is part of the name.
*/}}
{{- define "cultivar.clusterName" -}}
{{- if .Values.namespaces -}}
{{- include "cultivar.fullname" . }}-{{ .Release.Namespace }}
{{- else -}}
{{- include "cultivar.fullname" . -}}
{{- end -}}
{{- end -}}

{{- define "cultivar.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "cultivar.operatorName" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false: name an existing service account" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "cultivar.leaseName" -}}
{{- default (include "cultivar.operatorName" .) .Values.leaderElection.leaseName -}}
{{- end -}}

{{- define "cultivar.webhookConfiguration" -}}
{{- include "cultivar.clusterName" . -}}
{{- end -}}

{{- define "cultivar.webhookSecret" -}}
{{- default (printf "%s-webhook" (include "cultivar.fullname" .)) .Values.webhook.secretName -}}
{{- end -}}

{{/* The built-in store: its objects, and where it is reached. */}}
{{- define "cultivar.storeName" -}}
{{- include "cultivar.fullname" . }}-store
{{- end -}}

{{/*
The Secret with the store's root key. `cultivar-store` is what every namespace's own credentials are called, the
operator's namespace among them, so that name is not free.
*/}}
{{- define "cultivar.storeSecret" -}}
{{- $name := default (printf "%s-root" (include "cultivar.storeName" .)) .Values.store.secretName -}}
{{- if eq $name "cultivar-store" -}}
{{- fail "store.secretName is cultivar-store, which every namespace's own credentials are called: choose another name" -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "cultivar.image" -}}
{{- if .Values.image.digest -}}
{{- .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{- .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* What finds the operator's pods: never changes between versions. */}}
{{- define "cultivar.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "cultivar.storeSelectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: store
{{- end -}}

{{- define "cultivar.labels" -}}
{{ include "cultivar.selectorLabels" . }}
{{ include "cultivar.sharedLabels" . }}
{{- end -}}

{{- define "cultivar.storeLabels" -}}
{{ include "cultivar.storeSelectorLabels" . }}
{{ include "cultivar.sharedLabels" . }}
{{- end -}}

{{/* What all objects of the chart have, whichever program they belong to. */}}
{{- define "cultivar.sharedLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What the operator may do to namespaced objects: in every namespace, or in each watched one. */}}
{{- define "cultivar.operatorRules" -}}
- apiGroups: [cultivar.dev]
  resources: [experiments, pipelineruns]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [cultivar.dev]
  resources: [schedules, artifactstores, approvals]
  verbs: [get, list, watch]
# Its verdict is noted on it.
- apiGroups: [cultivar.dev]
  resources: [pipelines]
  verbs: [get, list, watch, patch]
- apiGroups: [cultivar.dev]
  resources: [experiments/status, pipelines/status, pipelineruns/status, schedules/status]
  verbs: [get, update, patch]
# What an owner reference with blockOwnerDeletion needs where OwnerReferencesPermissionEnforcement is on.
- apiGroups: [cultivar.dev]
  resources: [experiments/finalizers, pipelines/finalizers, pipelineruns/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
# Whether the LocalQueue of Kueue exists that an experiment names.
- apiGroups: [kueue.x-k8s.io]
  resources: [localqueues]
  verbs: [get]
# By which the workers of an experiment find each other; each goes with its Job.
- apiGroups: [""]
  resources: [services]
  verbs: [create]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
# Where outputs[].publish writes: ConfigMaps of its own, and those that are labelled for it.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, patch]
{{- if .Values.store.enabled }}
# A namespace's own credentials for the built-in store. Names cannot restrict `create`.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [cultivar-store]
  verbs: [get, update, patch]
{{- end }}
{{- if and .Values.images.resolve .Values.images.pullSecrets }}
# What a stage's pod pulls its image with, for asking its registry which image a tag means.
- apiGroups: [""]
  resources: [secrets]
  resourceNames: {{ toJson .Values.images.pullSecrets }}
  verbs: [get]
# Which of them a service account gives to its pods.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get]
{{- end }}
{{- end -}}
