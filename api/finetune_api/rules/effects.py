"""An option that would have no effect is never accepted: whoever wrote it expects one.

The API server fills in defaults before it evaluates rules, so an option at its default passes everywhere. Every rule
here is made from a list: in which context, which options, what their defaults are.
"""

from collections.abc import Callable
from decimal import Decimal

from finetune_api.kinds.finetunejob.spec import (
    FineTuneJobSpec,
    Lora,
    MethodKind,
    OmittedTurns,
    RowsWithoutTarget,
    Scheduler,
    Split,
    Training,
)
from finetune_api.kinds.pods import Resources
from finetune_api.quantities import FRACTION_PATTERN
from finetune_api.rules.rule import Rule, build_list, build_match, when
from finetune_api.tasks import TASKS

LABELLED_TASKS = tuple(task for task, facts in TASKS.items() if "label" in facts.roles)
CONVERSING_TASKS = tuple(task for task, facts in TASKS.items() if "messages" in facts.roles)
_LORA = Lora()
_SPLIT = Split()
_ALL_LINEAR = "all-linear"
_HAS_VALIDATION_FILE = "self.data.all(d, has(d.validation))"
_HAS_TEST_FILE = "self.data.all(d, has(d.test))"
_SPLITS_NOTHING = f"({_HAS_VALIDATION_FILE} && ({_HAS_TEST_FILE} || self.split.test.matches('^0([.]0*)?$')))"
_HAS_VALIDATION_ROWS = f"({_HAS_VALIDATION_FILE} || !self.split.validation.matches('^0([.]0*)?$'))"
_HAS_TEST_ROWS = f"({_HAS_TEST_FILE} || !self.split.test.matches('^0([.]0*)?$'))"


def has_validation_rows(spec: FineTuneJobSpec) -> bool:
    """Tell whether rows are kept to choose the weights by."""
    return _has_validation_file(spec) or Decimal(spec.split.validation) > 0


def _has_validation_file(spec: FineTuneJobSpec) -> bool:
    return all(item.validation is not None for item in spec.data)


def _has_test_file(spec: FineTuneJobSpec) -> bool:
    return all(item.test is not None for item in spec.data)


def _splits_nothing(spec: FineTuneJobSpec) -> bool:
    return _has_validation_file(spec) and (_has_test_file(spec) or Decimal(spec.split.test) == 0)


def _has_test_rows(spec: FineTuneJobSpec) -> bool:
    return _has_test_file(spec) or Decimal(spec.split.test) > 0


def _build_lora_rule(field: str, cel_default: str, read: Callable[[Lora], object]) -> Rule:
    default = read(_LORA)

    def find(spec: FineTuneJobSpec) -> str | None:
        value = read(spec.method.lora)
        return when(spec.method.kind != MethodKind.LORA and value != default, value)

    return Rule(
        f"method.lora.{field}",
        f"self.method.kind == 'LoRA' || self.method.lora.{field} == {cel_default}",
        f"must be left at its default ({default}) unless method.kind is LoRA: it has no effect elsewhere",
        find,
    )


_LORA_RULES = (
    _build_lora_rule("rank", str(_LORA.rank), lambda lora: lora.rank),
    _build_lora_rule("alpha", str(_LORA.alpha), lambda lora: lora.alpha),
    _build_lora_rule("dropout", f"'{_LORA.dropout}'", lambda lora: lora.dropout),
    _build_lora_rule("targetModules", build_list(_LORA.target_modules), lambda lora: ",".join(lora.target_modules)),
    _build_lora_rule("variant", f"'{_LORA.variant}'", lambda lora: str(lora.variant)),
)

RULES: tuple[Rule, ...] = (
    *_LORA_RULES,
    Rule(
        "method.lora.targetModules",
        f"size(self.method.lora.targetModules) == 1 || !('{_ALL_LINEAR}' in self.method.lora.targetModules)",
        f"must be {_ALL_LINEAR} alone or names of layers: beside {_ALL_LINEAR} a name has no effect",
        lambda spec: when(
            len(spec.method.lora.target_modules) > 1 and _ALL_LINEAR in spec.method.lora.target_modules,
            ",".join(spec.method.lora.target_modules),
        ),
    ),
    Rule(
        "split.validation",
        f"!{_HAS_VALIDATION_FILE} || self.split.validation == '{_SPLIT.validation}'",
        f"must be left at its default ({_SPLIT.validation}) where a validation file is given: nothing is split off",
        lambda spec: when(
            _has_validation_file(spec) and spec.split.validation != _SPLIT.validation, spec.split.validation
        ),
    ),
    Rule(
        "split.test",
        f"!{_HAS_TEST_FILE} || self.split.test == '{_SPLIT.test}'",
        f"must be left at its default ({_SPLIT.test}) where a test file is given: nothing is split off",
        lambda spec: when(_has_test_file(spec) and spec.split.test != _SPLIT.test, spec.split.test),
    ),
    Rule(
        "split.stratify",
        f"self.split.stratify || self.task in {build_list([task.value for task in LABELLED_TASKS])}",
        "must be left at its default (true) for a task without labels: it has no effect there",
        lambda spec: when(not spec.split.stratify and spec.task not in LABELLED_TASKS, spec.split.stratify),
    ),
    Rule(
        "split.stratify",
        f"self.split.stratify || !{_SPLITS_NOTHING}",
        "must be left at its default (true) where nothing is split off: it has no effect there",
        lambda spec: when(not spec.split.stratify and _splits_nothing(spec), spec.split.stratify),
    ),
    Rule(
        "training.rowsWithoutTarget",
        "self.training.rowsWithoutTarget == 'Refuse' "
        f"|| !(self.task in {build_list([task.value for task in LABELLED_TASKS])})",
        "must be left at its default (Refuse) for a task with labels: the label of a row is always learned",
        lambda spec: when(
            spec.training.rows_without_target != RowsWithoutTarget.REFUSE and spec.task in LABELLED_TASKS,
            spec.training.rows_without_target,
        ),
    ),
    Rule(
        "training.omittedTurns",
        "self.training.omittedTurns == 'Refuse' "
        f"|| self.task in {build_list([task.value for task in CONVERSING_TASKS])}",
        f"must be left at its default (Refuse) unless task is {' or '.join(CONVERSING_TASKS)}: others have no turns",
        lambda spec: when(
            spec.training.omitted_turns != OmittedTurns.REFUSE and spec.task not in CONVERSING_TASKS,
            spec.training.omitted_turns,
        ),
    ),
    Rule(
        "training.warmupFraction",
        "self.training.scheduler != 'constant' "
        f"|| !{build_match('self.training.warmupFraction', FRACTION_PATTERN)} "
        f"|| double(self.training.warmupFraction) in [0.0, {Training().warmup_fraction}]",
        f"must be left at its default ({Training().warmup_fraction}) with scheduler constant, which has no warm-up; "
        "use constant_with_warmup",
        lambda spec: when(
            spec.training.scheduler == Scheduler.CONSTANT
            and Decimal(spec.training.warmup_fraction) not in (0, Decimal(Training().warmup_fraction)),
            spec.training.warmup_fraction,
        ),
    ),
    Rule(
        "training.earlyStopping",
        "!has(self.training.earlyStopping) || self.evaluation.every != 'End'",
        "must be absent where evaluation.every is End: there is nothing to stop early on",
        lambda spec: "given" if spec.training.early_stopping is not None and spec.evaluation.every == "End" else None,
    ),
    Rule(
        "training.earlyStopping",
        f"!has(self.training.earlyStopping) || {_HAS_VALIDATION_ROWS}",
        "must be absent where split.validation is 0 and no validation file is given: it needs rows to go by",
        lambda spec: "given" if spec.training.early_stopping is not None and not has_validation_rows(spec) else None,
    ),
    Rule(
        "evaluation.bestMetric",
        f"self.evaluation.bestMetric == '' || {_HAS_VALIDATION_ROWS}",
        "must be empty where split.validation is 0 and no validation file is given: no checkpoint can be chosen",
        lambda spec: when(
            bool(spec.evaluation.best_metric) and not has_validation_rows(spec), spec.evaluation.best_metric
        ),
    ),
    Rule(
        "evaluation.every",
        f"self.evaluation.every == 'Epoch' || {_HAS_VALIDATION_ROWS}",
        "must be left at its default (Epoch) where split.validation is 0 and no validation file is given: "
        "there are no rows to evaluate on while training",
        lambda spec: when(spec.evaluation.every != "Epoch" and not has_validation_rows(spec), spec.evaluation.every),
    ),
    Rule(
        "evaluation.compareWithBase",
        f"self.evaluation.compareWithBase || {_HAS_VALIDATION_ROWS} || {_HAS_TEST_ROWS}",
        "must be left at its default (true) where neither validation nor test rows are kept: it has no effect there",
        lambda spec: when(
            not spec.evaluation.compare_with_base and not has_validation_rows(spec) and not _has_test_rows(spec),
            spec.evaluation.compare_with_base,
        ),
    ),
    Rule(
        "evaluation.everySteps",
        "!has(self.evaluation.everySteps) || !has(self.training.maxSteps) "
        "|| self.evaluation.everySteps <= self.training.maxSteps",
        "must be at most training.maxSteps, or it is never reached; use every: End",
        lambda spec: when(
            spec.evaluation.every_steps is not None
            and spec.training.max_steps is not None
            and spec.evaluation.every_steps > spec.training.max_steps,
            spec.evaluation.every_steps,
        ),
    ),
    Rule(
        "runPolicy.checkpoint.everySeconds",
        "!has(self.runPolicy.checkpoint.everySeconds) "
        "|| self.runPolicy.checkpoint.everySeconds < self.runPolicy.activeDeadlineSeconds",
        "must be below runPolicy.activeDeadlineSeconds, or the run ends before the first checkpoint",
        lambda spec: when(
            spec.run_policy.checkpoint.every_seconds is not None
            and spec.run_policy.checkpoint.every_seconds >= spec.run_policy.active_deadline_seconds,
            spec.run_policy.checkpoint.every_seconds,
        ),
    ),
    Rule(
        "resources.gpuResource",
        f"self.resources.gpus > 0 || self.resources.gpuResource == '{Resources().gpu_resource}'",
        f"must be left at its default ({Resources().gpu_resource}) where resources.gpus is 0: it has no effect there",
        lambda spec: when(
            spec.resources.gpus == 0 and spec.resources.gpu_resource != Resources().gpu_resource,
            spec.resources.gpu_resource,
        ),
    ),
)
