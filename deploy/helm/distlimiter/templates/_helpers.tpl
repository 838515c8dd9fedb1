{{- define "name" -}}
{{- .Values.nameOverride | default .Release.Name | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "labels" -}}
{{ include "selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "name" .) }}
{{- else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- define "rulesConfigMap" -}}
{{- if .Values.rulesConfigMap }}{{ .Values.rulesConfigMap }}
{{- else if .Values.rules }}{{ include "name" . }}-rules{{ end }}
{{- end }}

{{- /* What would be deployed and not work as meant. */}}
{{- define "check" -}}
{{- range include "variables" . | fromYamlArray }}
{{- if hasKey $.Values.env .name }}
{{- fail (printf "env.%s: the chart sets this variable by a value of its own: give that value, and leave the variable out of env" .name) }}
{{- end }}
{{- end }}
{{- with .Values }}
{{- if and (not .redis.url) (gt (int .replicas) 1) }}
{{- fail (printf "replicas: %d with counters in memory would each grant the whole limit: set redis.url, or replicas: 1" (int .replicas)) }}
{{- end }}
{{- if and (not .redis.url) .autoscaling.enabled }}
{{- fail "autoscaling.enabled: replicas with counters in memory would each grant the whole limit: set redis.url" }}
{{- end }}
{{- if and .answers.ruleHeader (not .answers.headers) (not .env.LIMIT_RESPONSE_HEADERS_ENABLED) }}
{{- fail "answers.ruleHeader names one of the headers that answers.headers adds: set that too" }}
{{- end }}
{{- if and .grpc.clientCASecret (not .grpc.tlsSecret) }}
{{- fail "grpc.clientCASecret: clients can be verified over TLS only: set grpc.tlsSecret" }}
{{- end }}
{{- end }}
{{- end }}
