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

{{- /* The seconds of a duration such as 1m30s. */}}
{{- define "seconds" -}}
{{- $sum := 0.0 }}
{{- range regexFindAll "[0-9.]+[a-z]+" . -1 }}
{{- $unit := get (dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0) (regexFind "[a-z]+" .) }}
{{- $sum = addf $sum (mulf (regexFind "[0-9.]+" . | float64) $unit) }}
{{- end }}
{{- $sum }}
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
{{- with .shutdown }}
{{- /* After the delay and the timeout the last counts and spans take up to 5 s. */}}
{{- $needed := addf (include "seconds" .delay | float64) (include "seconds" .timeout | float64) 5 | ceil | int }}
{{- if lt (int .gracePeriodSeconds) $needed }}
{{- fail (printf "shutdown.gracePeriodSeconds: the pod would be killed after %d s, before it has stopped: the delay of %s and the timeout of %s need %d" (int .gracePeriodSeconds) .delay .timeout $needed) }}
{{- end }}
{{- end }}
{{- if and .grpc.clientCASecret (not .grpc.tlsSecret) }}
{{- fail "grpc.clientCASecret: clients can be verified over TLS only: set grpc.tlsSecret" }}
{{- end }}
{{- end }}
{{- end }}
