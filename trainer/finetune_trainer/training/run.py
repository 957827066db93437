"""The torch part of the train stage, top to bottom: load, compare, train, choose, evaluate, save the model.

Reads local files and writes local files; fetching and publishing are the recipe's. Import it late: it brings torch.
"""

import contextlib
import dataclasses
import logging
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from finetune_api import artifacts
from finetune_api.errors import GPUFault
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec, MethodKind, Precision, Quantization
from finetune_api.kinds.finetunejob.status import ResolvedKey
from finetune_api.run import RunConfig
from finetune_api.tasks import TASKS
from finetune_trainer import rank_environment, tasks
from finetune_trainer.batches import dataset
from finetune_trainer.batches.collate import Batching, Padding
from finetune_trainer.batches.dataset import Rows
from finetune_trainer.checkpoints.best import BestWeights
from finetune_trainer.checkpoints.state import Figures, Position
from finetune_trainer.evaluation.evaluator import Evaluator
from finetune_trainer.evaluation.report import EvaluationReport
from finetune_trainer.model import facts as base_model
from finetune_trainer.model import fit, gguf_unpack, load, method, save
from finetune_trainer.model.structure import ModelStructure, inspect_structure
from finetune_trainer.model.tokenizer import choose_pad_id, load_tokenizer
from finetune_trainer.planning import memory, plan
from finetune_trainer.planning.plan import Plan
from finetune_trainer.publishing import card
from finetune_trainer.publishing.card import CardFacts
from finetune_trainer.tasks import TaskHead, TaskPreparation
from finetune_trainer.telemetry import prometheus
from finetune_trainer.telemetry.progress import ProgressLog
from finetune_trainer.training import ranks
from finetune_trainer.training.arguments import build_arguments
from finetune_trainer.training.checkpointing import Checkpointing
from finetune_trainer.training.trainer import FineTuneTrainer

if TYPE_CHECKING:
    from finetune_trainer.stages.train_inputs import Inputs

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trained:
    """What the training gave; its files lie in the folder it was told."""

    step: int
    is_early_stopped: bool
    report: EvaluationReport
    resolved: dict[str, str]
    peak_bytes: int
    num_tokens: int
    """Trained on over all attempts, padding excluded."""
    seconds: float
    """Of training over all attempts."""


@dataclass(frozen=True, slots=True)
class _Setup:
    """What every phase needs: the run, its choices, its rows."""

    config: RunConfig
    inputs: "Inputs"
    scratch: Path
    chosen: Plan
    device: torch.device
    precision: Precision
    task: TaskPreparation
    head: TaskHead
    splits: dict[str, Rows]
    evaluated_split: str
    checkpointing: Checkpointing

    @property
    def spec(self) -> FineTuneJobSpec:
        return self.config.spec

    @property
    def is_autocast(self) -> bool:
        return load.is_autocast(self.spec, self.precision, self.task)

    @property
    def evaluated_rows(self) -> Rows:
        return self.splits[self.evaluated_split]

    @property
    def is_writer(self) -> bool:
        """Whether this rank writes files and shows progress."""
        return rank_environment.get_rank() == 0


@dataclass(frozen=True, slots=True)
class _Subject:
    """The model that is trained, with what belongs to it."""

    model: Any
    structure: ModelStructure
    tokenizer: Any
    batching: Batching
    evaluator: Evaluator


@dataclass(frozen=True, slots=True)
class _Fitted:
    """How the loop ended; the best weights are in the model."""

    last_step: int
    published_step: int
    is_early_stopped: bool
    num_tokens: int


OpenCheckpointing = Callable[[torch.device], Checkpointing]
"""Told of this rank's device, once that is chosen."""


def unpack_base(config: RunConfig, inputs: "Inputs") -> None:
    """Turn a base model in one file into a folder that all ranks load; one in a folder stays as it is.

    Raises:
        ModelError: the file doesn't hold all weights of a known architecture.
    """
    if inputs.gguf_file is not None:
        _quieten_libraries()
        gguf_unpack.unpack(inputs.base, inputs.gguf_file, config.spec.model)


def train(
    config: RunConfig, inputs: "Inputs", scratch: Path, output: Path, open_checkpointing: "OpenCheckpointing"
) -> Trained:
    """Train the model and leave model folder, evaluation.json and metrics.csv in `output`.

    Args:
        config: of the run.
        inputs: fetched and verified.
        scratch: local disk.
        output: empty folder; rank 0 alone writes it. The metrics table is there even when the training fails.
        open_checkpointing: gives what saves this training's state, and the state it goes on from.

    Raises:
        FineTuneError: the model doesn't fit, the loss is not finite, or a signal came.
    """
    _quieten_libraries()
    setup = _set_up(config, inputs, scratch, open_checkpointing)
    # The arguments come first: making them joins the ranks to one group.
    arguments = build_arguments(
        setup.spec,
        setup.chosen,
        scratch,
        has_validation=len(setup.splits["validation"]) > 0,
        is_cpu=setup.device.type == "cpu",
    )
    transformers.set_seed(setup.spec.training.seed)
    with _phase("load"):
        subject = _load(setup)
    with load.without_cache(subject.model), _packing(setup, subject):
        # Before the first step every method still gives the base model: adapters begin at zero.
        with _phase("evaluate"):
            base = _evaluate_base(setup, subject)
        with _phase("train"):
            fitted = _fit(setup, subject, arguments, output)
        with _phase("evaluate"):
            tuned = _evaluate(setup, subject, "tuned")
    with _phase("evaluate"):
        report = _build_report(setup, subject, base, tuned)
    if setup.is_writer:
        _save(setup, subject, fitted, report, output)
    resolved = inputs.prepared.resolved | _describe_choices(setup, subject)
    return Trained(
        step=fitted.last_step,
        is_early_stopped=fitted.is_early_stopped,
        report=report,
        resolved=resolved,
        peak_bytes=_measure_peak(setup.device),
        num_tokens=fitted.num_tokens,
        seconds=setup.checkpointing.measure_seconds(),
    )


def _quieten_libraries() -> None:
    """Send the libraries' warnings through our log, which leaves out the cosmetic ones; no bars."""
    transformers.utils.logging.disable_default_handler()
    transformers.utils.logging.enable_propagation()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_warning()


def _set_up(config: RunConfig, inputs: "Inputs", scratch: Path, open_checkpointing: "OpenCheckpointing") -> _Setup:
    device = _find_device(config.spec)
    chosen = plan.parse_plan(inputs.prepared.resolved)
    task = tasks.find_preparation(config.spec.task)
    splits = {name: dataset.load_rows(inputs.data / f"{name}.parquet", task.TOKENS) for name in artifacts.SPLITS}
    return _Setup(
        config=config,
        inputs=inputs,
        scratch=scratch,
        chosen=_fit_to_device(config.spec, inputs, chosen, device, splits),
        device=device,
        precision=load.decide_precision(chosen.precision, device),
        task=task,
        head=tasks.build_head(config.spec, inputs.prepared.labels),
        splits=splits,
        # Rows nobody has seen, if there are any; with train alone there are no figures, only samples.
        evaluated_split=next((name for name in ("test", "validation") if len(splits[name])), "train"),
        checkpointing=open_checkpointing(device),
    )


def _fit_to_device(
    spec: FineTuneJobSpec, inputs: "Inputs", chosen: Plan, device: torch.device, splits: dict[str, Rows]
) -> Plan:
    """Lower the micro-batch to what this GPU's memory holds; the prepare stage has not seen the GPU."""
    if device.type == "cpu":
        return chosen
    facts = base_model.load_facts(inputs.base, None, spec.model)
    facts = fit.complete_facts(facts, inspect_structure(inputs.base, None, spec, tasks.find_preparation(spec.task)))
    longest = max(max(split.lengths, default=0) for split in splits.values())
    available = torch.cuda.get_device_properties(device).total_memory
    tokens, _ = memory.plan_micro_batch(facts, spec, tasks.find_preparation(spec.task), longest, available)
    return dataclasses.replace(chosen, micro_batch_tokens=tokens)


def _find_device(spec: FineTuneJobSpec) -> torch.device:
    """Choose this rank's device.

    Raises:
        GPUFault: the pod was promised a GPU and torch sees none.
    """
    if spec.resources.gpus == 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise GPUFault(
            f"spec.resources.gpus ({spec.resources.gpus}) must be visible in the pod; torch sees no GPU",
            "check the node's driver and device plugin; set resources.gpus to 0 to train on the CPU",
        )
    device = torch.device("cuda", rank_environment.get_local_rank())
    torch.cuda.set_device(device)
    return device


def _load(setup: _Setup) -> _Subject:
    """Load base model and tokenizer, add the head and what the method trains."""
    inputs = setup.inputs
    loaded = load.load_base(
        inputs.base,
        setup.spec,
        task=setup.task,
        labels=inputs.prepared.labels,
        precision=setup.precision,
        device=setup.device,
        num_embeddings=setup.chosen.num_embeddings,
    )
    tokenizer = load_tokenizer(inputs.base, None, setup.spec.model)
    padding = Padding(choose_pad_id(tokenizer, loaded.model.config), is_left=loaded.structure.reads_last)
    tuned = method.apply_method(loaded, setup.spec, setup.task)
    if not getattr(loaded.model, "is_quantized", False):
        tuned.to(setup.device)
    batching = Batching(padding, setup.chosen.micro_batch_tokens, setup.chosen.is_packed)
    evaluator = Evaluator(setup.head, batching, setup.device, setup.is_autocast)
    return _Subject(tuned, loaded.structure, tokenizer, batching, evaluator)


def _evaluate_base(setup: _Setup, subject: _Subject) -> Figures | None:
    """Score the held-out rows with the base model, once in a run; None where nobody asked for it."""
    if setup.checkpointing.restored is None and setup.spec.evaluation.compare_with_base:
        setup.checkpointing.base = _evaluate(setup, subject, "base")
    return setup.checkpointing.base


def _evaluate(setup: _Setup, subject: _Subject, which: str) -> Figures | None:
    """Score the held-out rows; None where there are none."""
    if setup.evaluated_split == "train":
        return None
    doing = f"evaluation of the {which} model"
    began = time.monotonic()
    scores = subject.evaluator.evaluate(subject.model, setup.evaluated_rows, doing)
    figures = scores.compute()
    prometheus.record_loss(figures["loss"], setup.evaluated_split)
    text = " ".join(f"{name}={value:.4f}" for name, value in figures.items())
    logger.info("%s: split=%s seconds=%.1f %s", doing, setup.evaluated_split, time.monotonic() - began, text)
    return Figures(metrics=figures, confusion=scores.compute_confusion())


def _fit(setup: _Setup, subject: _Subject, arguments: Any, output: Path) -> _Fitted:
    """Run the loop, or what is left of it, and put the best weights back."""
    spec, chosen = setup.spec, setup.chosen
    if ranks.count_ranks() > 1:
        batch = subject.evaluator.collate(setup.splits["train"], [0], is_packed=chosen.is_packed)
        unused = ranks.freeze_unused(subject.model, setup.head, batch, is_autocast=setup.is_autocast)
        if unused:
            logger.warning("%d weights are not trained, no row goes through them: %s …", len(unused), unused[0])
    stopping_rule = spec.training.early_stopping
    best = BestWeights(
        setup.scratch / "best.safetensors",
        is_greater_better=TASKS[spec.task].metrics[chosen.best_metric],
        patience=stopping_rule.patience if stopping_rule else None,
        min_delta=float(stopping_rule.min_delta) if stopping_rule else 0.0,
    )
    progress = ProgressLog(chosen.total_steps, is_terminal=setup.is_writer and sys.stderr.isatty())
    trainer = FineTuneTrainer(
        subject.model,
        arguments,
        rows=setup.splits["train"],
        validation=setup.splits["validation"],
        head=setup.head,
        batching=subject.batching,
        is_autocast=setup.is_autocast,
        evaluator=subject.evaluator,
        best=best,
        best_metric=chosen.best_metric,
        batch_size=spec.training.batch_size,
        progress=progress,
        checkpointing=setup.checkpointing,
    )
    progress.start()
    try:
        trainer.run()
    finally:
        progress.stop()
        if setup.is_writer:
            progress.save_table(output / artifacts.METRICS_TABLE)
    if not setup.checkpointing.is_finished:
        best.restore(subject.model, is_strict=setup.checkpointing.has_same_ranks)
    last_step = trainer.state.global_step
    setup.checkpointing.mark(Position(step=last_step, is_finished=True))
    published_step = last_step if best.step is None else best.step
    return _Fitted(last_step, published_step, trainer.is_early_stopped, trainer.num_tokens)


def _build_report(setup: _Setup, subject: _Subject, base: Figures | None, tuned: Figures | None) -> EvaluationReport:
    return EvaluationReport(
        task=setup.spec.task,
        split=setup.evaluated_split,
        rows=len(setup.evaluated_rows) if tuned else 0,
        precision=setup.precision,
        quantization=setup.spec.method.quantization,
        base=base.metrics if base else None,
        tuned=tuned.metrics if tuned else {},
        labels=setup.inputs.prepared.labels,
        base_confusion=base.confusion if base else None,
        tuned_confusion=tuned.confusion if tuned else None,
        samples=subject.evaluator.build_samples(subject.model, setup.evaluated_rows),
    )


def _save(setup: _Setup, subject: _Subject, fitted: _Fitted, report: EvaluationReport, output: Path) -> None:
    """Write everything that is published but the manifest."""
    folder = output / artifacts.MODEL_FOLDER
    save.save_model(subject.model, setup.spec, folder)
    subject.tokenizer.save_pretrained(folder)
    facts = CardFacts(
        prepared=setup.inputs.prepared,
        report=report,
        dtype=load.choose_dtype(setup.spec, setup.precision),
        structure=subject.structure,
        gguf_file=setup.inputs.gguf_file,
        step=fitted.published_step,
        is_early_stopped=fitted.is_early_stopped,
    )
    (folder / artifacts.MODEL_CARD).write_text(card.build_card(setup.config, facts), encoding="utf-8")
    text = report.model_dump_json(indent=1, exclude_none=True)
    (output / artifacts.EVALUATION).write_text(text + "\n", encoding="utf-8")


def _describe_choices(setup: _Setup, subject: _Subject) -> dict[str, str]:
    """Name what only this stage could decide."""
    is_cpu = setup.device.type == "cpu"
    found = {
        ResolvedKey.PRECISION.value: setup.precision.value,
        ResolvedKey.MICRO_BATCH_TOKENS.value: str(setup.chosen.micro_batch_tokens),
        ResolvedKey.DEVICE.value: "cpu" if is_cpu else torch.cuda.get_device_name(setup.device),
        ResolvedKey.TRAINABLE_PARAMETERS.value: str(method.count_trainable(subject.model)),
        ResolvedKey.CHECKPOINT_SECONDS.value: setup.checkpointing.describe_interval(),
    }
    if setup.spec.method.quantization != Quantization.NONE:
        found[ResolvedKey.QUANTIZED_LAYERS.value] = str(load.count_quantized(subject.model))
    if setup.spec.method.kind == MethodKind.LORA:
        found[ResolvedKey.TARGET_MODULES.value] = ", ".join(method.find_target_modules(subject.model))
    return found


def _measure_peak(device: torch.device) -> int:
    """Measure the most memory this process has held: of its GPU, else of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _packing(setup: _Setup, subject: _Subject) -> contextlib.AbstractContextManager[None]:
    """Let the model take packed rows if the plan says so; the samples of the report go through it as users load it."""
    if not setup.chosen.is_packed:
        return contextlib.nullcontext()
    return setup.head.packing(subject.model)


@contextlib.contextmanager
def _phase(name: str) -> Iterator[None]:
    prometheus.record_phase(name)
    began = time.monotonic()
    yield
    logger.info("phase %s took %.1f s", name, time.monotonic() - began)
