{{- define "finetune-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* At most 63 characters: it becomes a label value and a Service's name. */}}
{{- define "finetune-operator.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "finetune-operator.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "finetune-operator.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "finetune-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "finetune-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "finetune-operator.labels" -}}
{{ include "finetune-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: finetune-operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "finetune-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "finetune-operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* A digest wins over a tag: both together would let a reader believe the tag. */}}
{{- define "finetune-operator.image" -}}
{{- $repository := required "image.repository must name the operator image; set for instance --set image.repository=registry.example.com/finetune-operator" .Values.image.repository }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* What the operator may do to the objects of a namespace, in a ClusterRole or in Roles: what its cluster.py needs. */}}
{{- define "finetune-operator.rules" -}}
- apiGroups: [finetune.dev]
  resources: [finetunejobs]
  verbs: [get, list, watch]
- apiGroups: [finetune.dev]
  resources: [finetunejobs/status]
  verbs: [patch]
# blockOwnerDeletion on child Jobs needs it where OwnerReferencesPermissionEnforcement is on.
- apiGroups: [finetune.dev]
  resources: [finetunejobs/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# list: why a Job can't create its pods stands only in an Event.
- apiGroups: [""]
  resources: [events]
  verbs: [create, list]
{{- end }}

{{/*
Not empty where the ValidatingAdmissionPolicy is wanted and the API server can have it. `helm template` knows no cluster:
it then lists API versions without their kinds, and the chart's minimum has had this one for a minor release.
*/}}
{{- define "finetune-operator.hasAdmissionPolicy" -}}
{{- if .Values.admissionPolicy.enabled }}
{{- $versions := .Capabilities.APIVersions }}
{{- if or ($versions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy") (not ($versions.Has "apps/v1/Deployment")) }}
{{- "yes" }}
{{- end }}
{{- end }}
{{- end }}

{{/* CEL: whether a name (an expression) matches one of the patterns in the variable of a name. */}}
{{- define "finetune-operator.matches" -}}
variables.{{ index . 1 }}.exists(pattern, {{ index . 0 }}.matches("^" + pattern.replace(".", "[.]").replace("*", "[^/]*") + "$"))
{{- end }}

{{/* CEL: a list with the refusal of a name, or an empty one. Takes the field, the name (an expression), its kind, the patterns. */}}
{{- define "finetune-operator.refusal" -}}
({{ index . 1 }} == "" || {{ include "finetune-operator.matches" (list (index . 1) (index . 3)) }} ? []
      : ["{{ index . 0 }} (" + {{ index . 1 }} + ") must match one of the {{ index . 2 }} this operator allows: "
      + (variables.{{ index . 3 }}.size() == 0 ? "none" : variables.{{ index . 3 }}.join(", ")) + "; or leave it empty"])
{{- end }}

{{/* A rule for name resolution, wherever the cluster's DNS runs: on the node, in any namespace, under any label. */}}
{{- define "finetune-operator.dnsRule" -}}
- ports:
  {{- range .Values.networkPolicy.dnsPorts }}
  - port: {{ . }}
    protocol: UDP
  - port: {{ . }}
    protocol: TCP
  {{- end }}
{{- end }}

{{- define "finetune-operator.metricsTokenFile" -}}
/run/finetune/metrics/token
{{- end }}

{{/* HARMLESS_VARIABLES of the operator's jobs/policies/admission.py, a name a line; a test compares both. */}}
{{- define "finetune-operator.harmlessVariables" -}}
CUBLAS_WORKSPACE_CONFIG
CUDA_DEVICE_MAX_CONNECTIONS
CUDA_LAUNCH_BLOCKING
LANG
LC_ALL
MKL_NUM_THREADS
NCCL_ALGO
NCCL_DEBUG
NCCL_DEBUG_SUBSYS
NCCL_IB_DISABLE
NCCL_IB_HCA
NCCL_P2P_DISABLE
NCCL_P2P_LEVEL
NCCL_PROTO
NCCL_SHM_DISABLE
NCCL_SOCKET_IFNAME
NVIDIA_TF32_OVERRIDE
OMP_NUM_THREADS
OMP_PROC_BIND
OMP_WAIT_POLICY
OPENBLAS_NUM_THREADS
PYTORCH_ALLOC_CONF
PYTORCH_CUDA_ALLOC_CONF
TOKENIZERS_PARALLELISM
TORCH_CPP_LOG_LEVEL
TORCH_DISTRIBUTED_DEBUG
TORCH_LOGS
TORCH_NCCL_TRACE_BUFFER_SIZE
TORCH_SHOW_CPP_STACKTRACES
TRANSFORMERS_VERBOSITY
TZ
{{- end }}
