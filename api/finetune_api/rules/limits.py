"""Least and greatest amounts, and fields that exclude or need one another."""

from decimal import Decimal

from finetune_api import quantities
from finetune_api.kinds.finetunejob.spec import (
    EvaluationInterval,
    FineTuneJobSpec,
    LoraVariant,
    MethodKind,
    Quantization,
)
from finetune_api.rules.rule import Rule, build_list, build_match, when
from finetune_api.tasks import TASKS

MIN_EPOCHS = "0.01"
"""A guess at the least that trains anything: a step over 100 rows of a batch of 1."""
MAX_EPOCHS = 50
"""The range users of hosted fine-tuning services know: 1 to 50."""
MIN_LEARNING_RATE = "1e-9"
"""Below it a step is lost in the rounding of 32-bit weights (a unit in the last place is 1.2e-7 of a weight)."""
MIN_CPU, MAX_CPU = "100m", "4096"
"""Least: a pod with less takes minutes to import its libraries. Greatest: more than any machine has."""
MIN_MEMORY, MAX_MEMORY = "512Mi", "64Ti"
"""Least: the interpreter with PyTorch and transformers alone holds about 400 MiB (measured)."""
MIN_SCRATCH, MAX_SCRATCH = "256Mi", "1Pi"
"""Least: a guess at the smallest model with its rows."""


def _build_quantity_rule(field: str, pattern: str, least: str, most: str) -> Rule:
    """Bound a quantity; one without the form of a quantity is left to the field's own rule."""
    path = f"self.resources.{field}"
    formed = f"(type({path}) == string ? {build_match(path, pattern)} : {path} >= 0)"
    value = f"quantity(string({path}))"
    inside = f"{value}.compareTo(quantity('{least}')) >= 0 && {value}.compareTo(quantity('{most}')) <= 0"
    ends = quantities.parse_quantity(least), quantities.parse_quantity(most)

    def find(spec: FineTuneJobSpec) -> str | None:
        text = str(getattr(spec.resources, field))
        return when(not ends[0] <= quantities.parse_quantity(text) <= ends[1], text)

    return Rule(f"resources.{field}", f"!{formed} || ({inside})", f"must be from {least} to {most}", find)


def _find_unknown_metric(spec: FineTuneJobSpec) -> str | None:
    metric = spec.evaluation.best_metric
    return when(bool(metric) and spec.task in TASKS and metric not in TASKS[spec.task].metrics, metric)


def _find_unknown_role(spec: FineTuneJobSpec) -> str | None:
    if spec.task not in TASKS:
        return None
    roles = TASKS[spec.task].roles
    unknown = (role for dataset in spec.data for role in dataset.columns if role not in roles)
    return next((when(True, role) for role in unknown), None)


def _find_shared_column(spec: FineTuneJobSpec) -> str | None:
    for dataset in spec.data:
        names = list(dataset.columns.values())
        shared = next((name for index, name in enumerate(names) if name in names[:index]), None)
        if shared is not None:
            return when(True, shared)
    return None


def _find_full_split(spec: FineTuneJobSpec) -> str | None:
    total = Decimal(spec.split.validation) + Decimal(spec.split.test)
    return f"{spec.split.validation} with test {spec.split.test}" if total >= 1 else None


_METRIC_CEL = " && ".join(
    f"(self.task != '{task}' || self.evaluation.bestMetric in {build_list(['', *facts.metrics])})"
    for task, facts in TASKS.items()
)
_ROLE_CEL = " && ".join(
    f"(self.task != '{task}' || self.data.all(d, d.columns.all(role, role in {build_list(list(facts.roles))})))"
    for task, facts in TASKS.items()
)
_IS_EPOCHS = build_match("self.training.epochs", quantities.POSITIVE_DECIMAL_PATTERN)
_IS_RATE = build_match("self.training.learningRate", quantities.POSITIVE_DECIMAL_PATTERN)
_IS_SPLIT = " && ".join(
    build_match(f"self.split.{part}", quantities.FRACTION_PATTERN) for part in ("validation", "test")
)

RULES: tuple[Rule, ...] = (
    Rule(
        "method.quantization",
        "self.method.quantization == 'None' || self.method.kind == 'LoRA'",
        "must be None unless method.kind is LoRA: only a frozen base can be quantized",
        lambda spec: when(
            spec.method.quantization != Quantization.NONE and spec.method.kind != MethodKind.LORA,
            spec.method.quantization,
        ),
    ),
    Rule(
        "method.lora.variant",
        "self.method.lora.variant != 'DoRA' || self.method.quantization != 'Int8' || self.resources.gpus > 0",
        "must be Standard or RSLoRA with quantization Int8 on the CPU (resources.gpus 0): "
        "the int8 kernels lose their scales under DoRA there; NF4 works",
        lambda spec: when(
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
        lambda spec: when(
            spec.training.epochs is not None and spec.training.max_steps is not None, spec.training.max_steps
        ),
    ),
    Rule(
        "training.epochs",
        f"!has(self.training.epochs) || !{_IS_EPOCHS} || "
        f"(double(self.training.epochs) >= {MIN_EPOCHS} && double(self.training.epochs) <= {MAX_EPOCHS}.0)",
        f"must be from {MIN_EPOCHS} to {MAX_EPOCHS}",
        lambda spec: when(
            spec.training.epochs is not None and not float(MIN_EPOCHS) <= float(spec.training.epochs) <= MAX_EPOCHS,
            spec.training.epochs,
        ),
    ),
    Rule(
        "training.learningRate",
        f"!has(self.training.learningRate) || !{_IS_RATE} || "
        f"(double(self.training.learningRate) >= {MIN_LEARNING_RATE} && double(self.training.learningRate) <= 1.0)",
        f'must be from {MIN_LEARNING_RATE} to 1; common values lie between "1e-5" and "1e-2"',
        lambda spec: when(
            spec.training.learning_rate is not None
            and not float(MIN_LEARNING_RATE) <= float(spec.training.learning_rate) <= 1,
            spec.training.learning_rate,
        ),
    ),
    Rule(
        "training.batchSize",
        "self.training.batchSize >= self.resources.gpus",
        "must be at least resources.gpus: each GPU takes samples of every step",
        lambda spec: when(spec.training.batch_size < spec.resources.gpus, spec.training.batch_size),
    ),
    Rule(
        "evaluation.everySteps",
        "has(self.evaluation.everySteps) == (self.evaluation.every == 'Steps')",
        "must be given where evaluation.every is Steps, and only there",
        lambda spec: when(
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
        "data",
        "self.data.all(d, d.columns.all(a, d.columns.all(b, a == b || d.columns[a] != d.columns[b])))",
        "must map each role to a column of its own in columns",
        _find_shared_column,
    ),
    Rule(
        "split.validation",
        f"!({_IS_SPLIT}) || double(self.split.validation) + double(self.split.test) < 1.0",
        "must leave rows to train on: validation and test together below 1",
        _find_full_split,
    ),
    _build_quantity_rule("cpu", quantities.CPU_PATTERN, MIN_CPU, MAX_CPU),
    _build_quantity_rule("memory", quantities.BYTES_PATTERN, MIN_MEMORY, MAX_MEMORY),
    _build_quantity_rule("scratch", quantities.BYTES_PATTERN, MIN_SCRATCH, MAX_SCRATCH),
)
