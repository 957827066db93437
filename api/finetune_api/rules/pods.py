"""What a pod would be refused for, and what it must not be given whatever the administrator allows."""

import re

from finetune_api.kinds.field_types import LABEL_KEY_PATTERN
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_api.rules.rule import Rule, build_match, when

RESERVED_VARIABLE_PATTERN = (
    "^(FINETUNE_|PYTHON|LD_|GCONV_|BROWSER$|KUBERNETES_"
    "|AWS_(ENDPOINT|CONFIG|SHARED|PROFILE|DEFAULT|REGION|ROLE|WEB|CONTAINER|EC2))"
)
"""Variables that would undo what the operator or its administrator decided: our own, those that run other code in an
allowed image, and those that send data to another store than storage.endpointURL or take another identity. Which others
a job may set is the administrator's to say (policies/admission in the operator)."""
SECRET_NAME_PATTERN = "(?i)(key|tokens?(_|$)|secret|password|credential)"  # noqa: S105 - a pattern for names, not a secret
SYSTEM_PRIORITY_PREFIX = "system-"
"""Priority classes of Kubernetes itself, above every other:
https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/"""


def _find_refused_toleration(spec: FineTuneJobSpec) -> str | None:
    for item in spec.placement.tolerations:
        if (item.operator == "Exists" and item.value) or (item.operator == "Equal" and not item.key):
            return f"key {item.key!r}, operator {item.operator}, value {item.value!r}"
    return None


def _find_bad_label_key(spec: FineTuneJobSpec) -> str | None:
    keys = spec.placement.node_selector
    return next((when(True, key) for key in keys if not key or not re.fullmatch(LABEL_KEY_PATTERN, key)), None)


def _find_variable(spec: FineTuneJobSpec, pattern: str) -> str | None:
    return next((item.name for item in spec.trainer.env if re.search(pattern, item.name)), None)


RULES: tuple[Rule, ...] = (
    Rule(
        "trainer.env",
        f"!self.trainer.env.exists(e, {build_match('e.name', SECRET_NAME_PATTERN)})",
        "must not carry variables named like secrets: anybody who reads the job reads them; use storage.secretName",
        lambda spec: _find_variable(spec, SECRET_NAME_PATTERN),
        "FieldValueForbidden",
    ),
    Rule(
        "trainer.env",
        f"!self.trainer.env.exists(e, {build_match('e.name', RESERVED_VARIABLE_PATTERN)})",
        "must not set FINETUNE_*, PYTHON*, LD_*, GCONV_*, KUBERNETES_*, BROWSER, or what tells AWS's libraries the "
        "endpoint, region or identity: these are the operator's to decide; a store is named by storage.endpointURL",
        lambda spec: _find_variable(spec, RESERVED_VARIABLE_PATTERN),
        "FieldValueForbidden",
    ),
    Rule(
        "placement.nodeSelector",
        f"self.placement.nodeSelector.all(k, k != '' && {build_match('k', LABEL_KEY_PATTERN)})",
        "must have keys of labels: letters, digits, -, _ and ., perhaps after a domain and /",
        _find_bad_label_key,
    ),
    Rule(
        "placement.tolerations",
        "self.placement.tolerations.all(t, t.operator == 'Exists' ? t.value == '' : t.key != '')",
        "must each have a key, or operator Exists, which takes no value: Kubernetes accepts no other pod",
        _find_refused_toleration,
    ),
    Rule(
        "placement.priorityClassName",
        f"!self.placement.priorityClassName.matches('^{SYSTEM_PRIORITY_PREFIX}[a-z0-9]')",
        f"must not begin with {SYSTEM_PRIORITY_PREFIX}: these classes are Kubernetes' own and preempt every other pod",
        lambda spec: when(
            spec.placement.priority_class_name.startswith(SYSTEM_PRIORITY_PREFIX), spec.placement.priority_class_name
        ),
        "FieldValueForbidden",
    ),
    Rule(
        "resources.gpuResource",
        "!self.resources.gpuResource.contains('kubernetes.io/')",
        "must be a device plugin's resource: those of kubernetes.io are Kubernetes' own",
        lambda spec: when("kubernetes.io/" in spec.resources.gpu_resource, spec.resources.gpu_resource),
    ),
)
