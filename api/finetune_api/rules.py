"""Rules across the fields of a spec, each once: as a CEL expression for the API server, as Python for all else.

A contract test sends the same objects through both and compares. A rule must not raise; it sees a spec whose single
fields are valid. What later versions will allow is refused here by name, so that nothing is ever ignored.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from finetune_api.kinds.finetunejob.spec import (
    EvaluationInterval,
    FineTuneJobSpec,
    LoraVariant,
    MethodKind,
    Quantization,
)
from finetune_api.tasks import TASKS

MAX_EPOCHS = 50
"""The range users of hosted fine-tuning services know: 1 to 50."""
RESERVED_VARIABLE_PATTERN = "^(FINETUNE_|PYTHON|LD_|AWS_ENDPOINT_URL|BROWSER$)"
"""Variables that would undo what the operator or its administrator decided: our own, those that run other code in an
allowed image, and those that send data to another store than storage.endpointURL."""
SECRET_NAME_PATTERN = "(?i)(key|token|secret|password|credential)"  # noqa: S105 - a pattern for names, not a secret


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: it holds when `find` returns None, else `find` gives the value to show.

    Attributes:
        path: the field to blame, below `spec`, as the API spells it.
        cel: the same rule in CEL, on `spec` as `self`.
        message: `must …; what to do`.
        reason: Kubernetes' reason for the refusal.
    """

    path: str
    cel: str
    message: str
    find: Callable[[FineTuneJobSpec], str | None]
    reason: str = "FieldValueInvalid"


def _when(broken: bool, value: object) -> str | None:
    return str(value) if broken else None


def _find_refused_toleration(spec: FineTuneJobSpec) -> str | None:
    for item in spec.placement.tolerations:
        if (item.operator == "Exists" and item.value) or (item.operator == "Equal" and not item.key):
            return f"key {item.key!r}, operator {item.operator}, value {item.value!r}"
    return None


def _inside(inner: str, outer: str) -> bool:
    return f"{inner.rstrip('/')}/".startswith(f"{outer.rstrip('/')}/")


def _data_uris(spec: FineTuneJobSpec) -> list[str]:
    parts = (part for dataset in spec.data for part in (dataset.train, dataset.validation, dataset.test))
    return [part.uri for part in parts if part is not None]


def _find_output_overlap(spec: FineTuneJobSpec) -> str | None:
    output = spec.output.uri
    return _when(any(_inside(output, uri) or _inside(uri, output) for uri in _data_uris(spec)), output)


def _find_unknown_metric(spec: FineTuneJobSpec) -> str | None:
    metric = spec.evaluation.best_metric
    return _when(bool(metric) and spec.task in TASKS and metric not in TASKS[spec.task].metrics, metric)


def _find_unknown_role(spec: FineTuneJobSpec) -> str | None:
    if spec.task not in TASKS:
        return None
    roles = TASKS[spec.task].roles
    return next((role for dataset in spec.data for role in dataset.columns if role not in roles), None)


def _find_full_split(spec: FineTuneJobSpec) -> str | None:
    total = float(spec.split.validation) + float(spec.split.test)
    return _when(total >= 1.0, f"{spec.split.validation} with test {spec.split.test}")


def _find_secret_variable(spec: FineTuneJobSpec) -> str | None:
    return next((item.name for item in spec.trainer.env if re.search(SECRET_NAME_PATTERN, item.name)), None)


def _find_reserved_variable(spec: FineTuneJobSpec) -> str | None:
    return next((item.name for item in spec.trainer.env if re.search(RESERVED_VARIABLE_PATTERN, item.name)), None)


def _quoted(names: list[str]) -> str:
    return "[" + ", ".join(f"'{name}'" for name in names) + "]"


_TASK_NAMES = [task.value for task in TASKS]
_METRIC_CEL = " && ".join(
    f"(self.task != '{task}' || self.evaluation.bestMetric in {_quoted(['', *facts.metrics])})"
    for task, facts in TASKS.items()
)
_ROLE_CEL = " && ".join(
    f"(self.task != '{task}' || self.data.all(d, d.columns.all(role, role in {_quoted(list(facts.roles))})))"
    for task, facts in TASKS.items()
)


def _as_folder(uri: str) -> str:
    return f"({uri}.endsWith('/') ? {uri} : {uri} + '/')"


_OVERLAP_CEL = " && ".join(
    f"self.data.all(d, {guard}(!{_as_folder('self.output.uri')}.startsWith({_as_folder(f'd.{part}.uri')}) "
    f"&& !{_as_folder(f'd.{part}.uri')}.startsWith({_as_folder('self.output.uri')})))"
    for part, guard in (
        ("train", ""),
        ("validation", "!has(d.validation) || "),
        ("test", "!has(d.test) || "),
    )
)

RULES: tuple[Rule, ...] = (
    Rule(
        "task",
        f"self.task in {_quoted(_TASK_NAMES)}",
        f"must be one of {', '.join(_TASK_NAMES)}: this version has no other task yet",
        lambda spec: _when(spec.task not in TASKS, spec.task),
        "FieldValueForbidden",
    ),
    Rule(
        "method.quantization",
        "self.method.quantization == 'None' || self.method.kind == 'LoRA'",
        "must be None unless method.kind is LoRA: only a frozen base can be quantized",
        lambda spec: _when(
            spec.method.quantization != Quantization.NONE and spec.method.kind != MethodKind.LORA,
            spec.method.quantization,
        ),
    ),
    Rule(
        "method.lora.variant",
        "self.method.lora.variant != 'DoRA' || self.method.quantization != 'Int8' || self.resources.gpus > 0",
        "must be Standard or RSLoRA with quantization Int8 on the CPU (resources.gpus 0): "
        "the int8 kernels lose their scales under DoRA there; NF4 works",
        lambda spec: _when(
            spec.method.lora.variant == LoraVariant.DORA
            and spec.method.quantization == Quantization.INT8
            and spec.resources.gpus == 0,
            spec.method.lora.variant,
        ),
    ),
    Rule(
        "training.maxSteps",
        "!(has(self.training.epochs) && has(self.training.maxSteps))",
        "must be absent where epochs is given; keep one of the two",
        lambda spec: _when(
            spec.training.epochs is not None and spec.training.max_steps is not None, spec.training.max_steps
        ),
    ),
    Rule(
        "training.epochs",
        f"!has(self.training.epochs) || double(self.training.epochs) <= {MAX_EPOCHS}.0",
        f"must be at most {MAX_EPOCHS}",
        lambda spec: _when(float(spec.training.epochs or 0) > MAX_EPOCHS, spec.training.epochs),
    ),
    Rule(
        "training.learningRate",
        "!has(self.training.learningRate) || double(self.training.learningRate) <= 1.0",
        'must be at most 1; common values lie between "1e-5" and "1e-2"',
        lambda spec: _when(float(spec.training.learning_rate or 0) > 1, spec.training.learning_rate),
    ),
    Rule(
        "training.earlyStopping",
        "!has(self.training.earlyStopping) || self.evaluation.every != 'End'",
        "must be absent where evaluation.every is End: there is nothing to stop early on",
        lambda spec: _when(
            spec.training.early_stopping is not None and spec.evaluation.every == EvaluationInterval.END, "given"
        ),
    ),
    Rule(
        "evaluation.everySteps",
        "has(self.evaluation.everySteps) == (self.evaluation.every == 'Steps')",
        "must be given where evaluation.every is Steps, and only there",
        lambda spec: _when(
            (spec.evaluation.every_steps is not None) != (spec.evaluation.every == EvaluationInterval.STEPS),
            spec.evaluation.every_steps if spec.evaluation.every_steps is not None else "absent",
        ),
    ),
    Rule(
        "evaluation.bestMetric",
        _METRIC_CEL,
        "must be a metric of the task: "
        + "; ".join(f"{task} has {', '.join(facts.metrics)}" for task, facts in TASKS.items()),
        _find_unknown_metric,
    ),
    Rule(
        "data",
        _ROLE_CEL,
        "must map only roles of the task in columns: "
        + "; ".join(f"{task} has {', '.join(facts.roles)}" for task, facts in TASKS.items()),
        _find_unknown_role,
    ),
    Rule(
        "split.validation",
        "double(self.split.validation) + double(self.split.test) < 1.0",
        "must leave rows to train on: validation and test together below 1",
        _find_full_split,
    ),
    Rule(
        "output.uri",
        _OVERLAP_CEL,
        "must lie outside the data, and the data outside of it; choose another folder",
        _find_output_overlap,
    ),
    Rule(
        "trainer.env",
        f"!self.trainer.env.exists(e, e.name.matches('{SECRET_NAME_PATTERN}'))",
        "must not carry variables named like secrets: anybody who reads the job reads them; use storage.secretName",
        _find_secret_variable,
        "FieldValueForbidden",
    ),
    Rule(
        "trainer.env",
        f"!self.trainer.env.exists(e, e.name.matches('{RESERVED_VARIABLE_PATTERN}'))",
        "must not set FINETUNE_*, PYTHON*, LD_*, AWS_ENDPOINT_URL* or BROWSER: these are the operator's to decide; "
        "a store is named by storage.endpointURL",
        _find_reserved_variable,
        "FieldValueForbidden",
    ),
    Rule(
        "placement.tolerations",
        "self.placement.tolerations.all(t, t.operator == 'Exists' ? t.value == '' : t.key != '')",
        "must each have a key, or operator Exists, which takes no value: Kubernetes accepts no other pod",
        _find_refused_toleration,
    ),
    Rule(
        "method.preference",
        "!has(self.method.preference)",
        "must be absent: this version has no task Preference yet",
        lambda spec: _when(spec.method.preference is not None, spec.method.preference),
        "FieldValueForbidden",
    ),
    Rule(
        "model.uri",
        "!self.model.uri.startsWith('hf://')",
        "must begin with s3://: this version does not read from the Hugging Face Hub yet; copy the model to S3",
        lambda spec: _when(spec.model.uri.startswith("hf://"), spec.model.uri),
        "FieldValueForbidden",
    ),
    Rule(
        "data",
        "size(self.data) <= 1",
        "must have one item: this version does not mix data sets yet",
        lambda spec: _when(len(spec.data) > 1, f"{len(spec.data)} items"),
        "FieldValueForbidden",
    ),
    Rule(
        "data",
        "self.data.all(d, d.instruction == '' && d.weight == '1')",
        "must leave instruction empty and weight 1: this version has neither yet",
        lambda spec: _when(any(item.instruction or item.weight != "1" for item in spec.data), "instruction or weight"),
        "FieldValueForbidden",
    ),
    Rule(
        "output.merge",
        "!self.output.merge",
        "must be false: this version publishes adapters unmerged",
        lambda spec: _when(spec.output.merge, "true"),
        "FieldValueForbidden",
    ),
    Rule(
        "resources.nodes",
        "self.resources.nodes == 1",
        "must be 1: this version trains on one node",
        lambda spec: _when(spec.resources.nodes != 1, spec.resources.nodes),
        "FieldValueForbidden",
    ),
    Rule(
        "runPolicy.checkpoint",
        "!has(self.runPolicy.checkpoint)",
        "must be absent: this version has no periodic checkpoints yet; an interrupted attempt starts anew",
        lambda spec: _when(spec.run_policy.checkpoint is not None, "given"),
        "FieldValueForbidden",
    ),
)

IMMUTABLE_FIELDS = (
    "task",
    "model",
    "data",
    "split",
    "method",
    "training",
    "evaluation",
    "output",
    "storage",
    "resources",
    "placement",
    "trainer",
)
"""What defines a run; a changed run is a new FineTuneJob."""
IMMUTABLE_RUN_POLICY_FIELDS = ("backoffLimit", "pendingDeadlineSeconds", "checkpoint")
