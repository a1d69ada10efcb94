{{- /* Names are fixed: a cluster has one mesh, and pods refer to it by name. */ -}}

{{- define "weir.labels" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: weir
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "weir.selector" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end -}}

{{- /* An image whose empty parts are those of .Values.image. */ -}}
{{- define "weir.image" -}}
{{- $base := .root.Values.image -}}
{{- printf "%s/%s:%s" (.image.registry | default $base.registry) .image.repository (.image.tag | default $base.tag | default .root.Chart.AppVersion) -}}
{{- end -}}

{{- define "weir.pullPolicy" -}}
{{- .image.pullPolicy | default .root.Values.image.pullPolicy | default "IfNotPresent" -}}
{{- end -}}

{{- define "weir.control" -}}
{{- printf "weir-control-plane.%s.svc.%s" .Release.Namespace .Values.clusterDomain -}}
{{- end -}}

{{- /* Where spans go: a collector, the chart's Jaeger, or the control plane. */ -}}
{{- define "weir.otlp" -}}
{{- if .Values.tracing.endpoint -}}
{{- .Values.tracing.endpoint -}}
{{- else if .Values.tracing.jaeger.install -}}
{{- printf "http://weir-jaeger.%s.svc.%s:4317" .Release.Namespace .Values.clusterDomain -}}
{{- else -}}
{{- printf "http://%s:4317" (include "weir.control" .) -}}
{{- end -}}
{{- end -}}

{{- /* Of a container that needs nothing of the kernel. */ -}}
{{- define "weir.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "weir.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .user }}
runAsGroup: {{ .user }}
fsGroup: {{ .user }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- /* Pods of a Deployment prefer different nodes. */ -}}
{{- define "weir.apart" -}}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "weir.selector" . | nindent 12 }}
{{- end -}}

{{- define "weir.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* Namespaces that are never in the mesh. */ -}}
{{- define "weir.outside" -}}
- kube-system
- {{ .Release.Namespace }}
{{- end -}}

{{- /* A variable's text: Helm's numbers are 1e+06 otherwise. */ -}}
{{- define "weir.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- end -}}

{{- /* As the sidecar and the injector write it. */ -}}
{{- define "weir.accessLog" -}}
{{- $log := .Values.router.accessLog -}}
{{- if kindIs "bool" $log }}{{ ternary "-" "off" $log }}{{ else }}{{ $log }}{{ end -}}
{{- end -}}
