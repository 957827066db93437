"""The prepare stage, top to bottom: probe, check the model, fetch, read, tokenize, report, upload. Read this first.

It finds everything that can be wrong before a GPU is held, and never touches one. The last object it writes is
prepared.json, whose digest the operator hands to the train stage; without that nothing here has happened.
"""

import functools
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_api import artifacts, quantities, validation, wording
from finetune_api.artifacts import FileEntry, InputEntry, PreparedManifest, S3Address
from finetune_api.errors import ConfigError, DataError, FineTuneError
from finetune_api.exits import ExitCode
from finetune_api.kinds.finetunejob.spec import (
    FineTuneJobSpec,
    OmittedTurns,
    Quantization,
    RowsWithoutTarget,
    SpecialTokensInText,
)
from finetune_api.kinds.finetunejob.status import MAX_WARNINGS, DataStatus, MemoryStatus, ResolvedKey
from finetune_api.kinds.status_fields import build_message
from finetune_api.run import RunConfig, Stage, TerminationMessage
from finetune_trainer import signals, storage, tasks
from finetune_trainer.checkpoints import schedule
from finetune_trainer.data import deadlines, report, sources, tokenized_files
from finetune_trainer.data import findings as findings_of
from finetune_trainer.data import splits as splits_of_rows
from finetune_trainer.data.findings import BadRowsError, Findings
from finetune_trainer.data.samples import Remark, Sample, TokenizedRow
from finetune_trainer.data.sources import LocalFile
from finetune_trainer.data.splits import Splits
from finetune_trainer.data.tokenized_files import TokenCounts
from finetune_trainer.model import facts as base_model
from finetune_trainer.model import files as model_files
from finetune_trainer.model import fit, input_ids, special_tokens
from finetune_trainer.model.facts import ModelFacts
from finetune_trainer.model.structure import ModelStructure
from finetune_trainer.model.tokenizer import load_tokenizer
from finetune_trainer.planning import memory, plan
from finetune_trainer.stages import preflight, probe
from finetune_trainer.stages.probe import Listing
from finetune_trainer.storage import Store
from finetune_trainer.tasks import TaskPreparation
from finetune_trainer.telemetry import prometheus, server

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Model:
    """What the rows are prepared for."""

    facts: ModelFacts
    structure: ModelStructure
    tokenizer: "PreTrainedTokenizerBase"


def run(config: RunConfig, scratch: Path) -> TerminationMessage:
    """Run the prepare stage.

    Args:
        config: of the run.
        scratch: local disk; what an earlier container left there is removed.

    Returns:
        The end of the stage, with the digest of prepared.json.

    Raises:
        FineTuneError: whatever is wrong, with its field, file or line; Interrupted when a signal came.
    """
    # Before transformers is imported: it reads this once.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    server.start(Stage.PREPARE)
    spec = config.spec
    _check_spec(spec)
    layout = artifacts.build_run_layout(spec.output.uri, config.job.uid)
    folder = layout.prepared(config.job.attempt)
    store = storage.open_store(spec.storage)

    prometheus.record_phase("check")
    listing = probe.probe_addresses(store, spec, layout, config.job.attempt)
    prometheus.record_phase("fetch")
    base = _make_empty(scratch / "model")
    with model_files.fetch_behind(store, listing.model, base, _make_empty(scratch / "weights")) as pending:
        facts, tokenizer = _check_model(spec, base, listing.model.gguf_file)
        with preflight.inspect_behind(spec, base, listing.model.gguf_file) as structure:
            files, inputs, warnings = _fetch_data(store, spec, listing, _make_empty(scratch / "data"))
            model = build_model(spec, facts, structure.wait(), tokenizer)
        warnings += listing.model.warnings

        prometheus.record_phase("read")
        try:
            prepared = prepare_rows(spec, model, files, warnings, _make_empty(scratch / "prepared"))
        except BadRowsError as error:
            raise _publish_findings(store, folder, error) from error
        entries = pending.wait()
    model_files.check_pin(spec.model, entries, listing.model.gguf_file)
    return _publish(config, store, folder, prepared, [_build_input(spec.model.uri, entries), *inputs])


def _check_spec(spec: FineTuneJobSpec) -> None:
    errors = [str(error) for error in validation.validate_spec(spec)]
    if errors:
        raise ConfigError("; ".join(errors), "correct the fields named; a changed run is a new FineTuneJob.")


def _make_empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _fetch_data(
    store: Store, spec: FineTuneJobSpec, listing: Listing, scratch: Path
) -> tuple[dict[str, list[LocalFile]], list[InputEntry], list[str]]:
    """Fetch the data files; return them by split, what was read, and warnings."""
    files: dict[str, list[LocalFile]] = {}
    inputs: list[InputEntry] = []
    warnings: list[str] = []
    for split, path, uri in probe.list_data_addresses(spec):
        chosen, warned = sources.select_data_files(listing.data[split], path, uri)
        entries = store.fetch_files(chosen, scratch / split, signals.build_progress(model_files.FETCHING))
        files[split] = [LocalFile(scratch / split / file.name, file.name) for file in chosen]
        inputs.append(_build_input(uri, entries))
        warnings += warned
    return files, inputs, warnings


def _build_input(uri: str, entries: list[FileEntry]) -> InputEntry:
    digest = f"sha256:{artifacts.compute_digest(entries)}"
    return InputEntry(uri=uri, digest=digest, files=len(entries), size=sum(entry.size for entry in entries))


def _check_model(
    spec: FineTuneJobSpec, folder: Path, gguf_file: str | None
) -> tuple[ModelFacts, "PreTrainedTokenizerBase"]:
    facts = base_model.load_facts(folder, gguf_file, spec.model)
    tokenizer = load_tokenizer(folder, gguf_file, spec.model)
    fit.check_task(facts, spec, tasks.find_fitting_tasks(facts))
    return facts, tokenizer


def build_model(
    spec: FineTuneJobSpec, facts: ModelFacts, structure: ModelStructure, tokenizer: "PreTrainedTokenizerBase"
) -> Model:
    """Bring together what is known of the model, after checking that it can be trained as the spec says.

    Raises:
        FineTuneError: it can't.
    """
    fit.check_structure(structure, spec)
    return Model(fit.complete_facts(facts, structure), structure, tokenizer)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the stage made, in `folder`."""

    folder: Path
    labels: list[str]
    data: DataStatus
    predicted_bytes: int
    resolved: dict[str, str]
    warnings: list[str]


def prepare_rows(
    spec: FineTuneJobSpec,
    model: Model,
    files: Mapping[str, Sequence[LocalFile]],
    earlier: Sequence[str],
    folder: Path,
) -> Prepared:
    """Read, check and tokenize the rows, decide what the spec left open, and write the report."""
    task = tasks.find_preparation(spec.task)
    splits = splits_of_rows.read_splits(spec, task, files)
    warnings = [*earlier, *fit.describe_left_out(model.structure, spec)]
    if splits.labels:
        splits.labels, warned = fit.order_labels(model.structure, splits.labels, spec.model)
        warnings += warned
    rows = splits.rows
    overlaps = report.find_overlaps(splits.facts, rows)
    warnings += [*splits.warnings, *report.check_overlaps(splits.facts, overlaps, rows)]
    warnings += _check_validation(spec, len(rows["validation"]))

    prometheus.record_phase("tokenize")
    first = next(sample for split, sample in splits.iterate() if split == "train")
    checking = deadlines.start(functools.partial(task.check_tokenizer, model.tokenizer, splits.columns))
    rendering = deadlines.wait(checking, first.place)
    label_ids = {label: index for index, label in enumerate(splits.labels)}

    def tokenize(samples: Sequence[Sample]) -> list[TokenizedRow]:
        tokenized = task.tokenize_batch(samples, model.tokenizer, spec.training.max_length, label_ids)
        return input_ids.fit_rows(samples, tokenized, model.structure, model.tokenizer, spec.method.kind)

    watch = special_tokens.Watch(model.tokenizer, spec.training.special_tokens_in_text)
    if spec.training.special_tokens_in_text == SpecialTokensInText.TEXT:
        special_tokens.read_as_text(model.tokenizer)
    # Also sets the tokenizer's truncation once, before several threads use it and it may not change any more.
    example = deadlines.wait(deadlines.start(functools.partial(tokenize, [first])), first.place)[0]
    columns = tokenized_files.build_columns(example, task.TOKENS, task.TARGETS)
    findings = Findings()
    counts = tokenized_files.save_splits(
        folder,
        watch.iterate(splits.iterate(), findings),
        tokenize,
        columns,
        findings,
        is_dropping=spec.training.rows_without_target == RowsWithoutTarget.DROP,
        is_omitting=spec.training.omitted_turns == OmittedTurns.WARN,
    )
    findings.raise_if_any()
    if not counts["train"].lengths:
        raise DataError(
            f"spec.training.maxLength ({spec.training.max_length}) must leave a token to learn of some training rows;"
            " it leaves none",
            f"set it to {counts['train'].longest}, which keeps all of them whole.",
        )
    summaries = {split: report.build_split(splits.facts, members, counts[split]) for split, members in rows.items()}
    warnings += [*watch.build_warnings(), *report.build_warnings(splits.facts, rows, summaries, counts)]

    choice = _choose(spec, task, model, splits, counts)
    resolved, warnings = choice.resolved | rendering, warnings + choice.warnings
    document = {
        "version": report.VERSION,
        "task": spec.task,
        "model": {"type": model.facts.model_type, "parameters": model.facts.num_parameters, "dtype": model.facts.dtype},
        "columns": splits.columns,
        "unusedColumns": splits.unused,
        "labels": splits.labels,
        "splits": summaries,
        "overlaps": {pair: len(shared) for pair, shared in overlaps.items()},
        "example": report.build_example(first, task.build_segments(example), model.tokenizer),
        "resolved": resolved,
        "warnings": warnings,
    }
    (folder / artifacts.REPORT).write_bytes(report.build_document(document))
    return Prepared(folder, splits.labels, _build_status(counts), choice.predicted_bytes, resolved, warnings)


def _check_validation(spec: FineTuneJobSpec, num_rows: int) -> list[str]:
    """Warn when there are no rows to choose the weights by."""
    if num_rows:
        return []
    return [
        f"spec.split.validation ({spec.split.validation}): without validation rows the best weights can't be told; the"
        " last ones are published"
    ]


@dataclass(frozen=True, slots=True)
class _Choice:
    resolved: dict[str, str]
    predicted_bytes: int
    warnings: list[str]


def _choose(
    spec: FineTuneJobSpec, task: TaskPreparation, model: Model, splits: Splits, counts: Mapping[str, TokenCounts]
) -> _Choice:
    """Decide what the spec left open, and how much memory that will take."""
    facts, num_quantized = model.facts, len(model.structure.quantized)
    longest = max(max(split.lengths, default=0) for split in counts.values())
    # A GPU's memory is known only on its node, where no pod of this stage runs.
    available = int(quantities.parse_quantity(spec.resources.memory)) if spec.resources.gpus == 0 else None
    tokens, prediction = memory.plan_micro_batch(facts, spec, task, longest, available)
    is_packed = spec.training.packing and task.is_packable(facts.model_type)
    warnings = []
    if spec.training.packing and not is_packed:
        warnings.append(
            f"spec.training.packing (true) is not proven for {spec.task} with a model of type {facts.model_type}: rows"
            " are padded, those of like length together"
        )
    if available is not None and prediction.peak > available:
        needed = quantities.build_quantity(prediction.peak)
        warnings.append(f"spec.resources.memory ({spec.resources.memory}) may be too small: about {needed} is needed")
    num_rows = len(counts["train"].lengths)
    resolved = plan.build_choices(spec, num_rows, tokens, is_packed=is_packed) | {
        "columns": ", ".join(f"{role}={column}" for role, column in splits.columns.items()),
        "format": splits.file_format,
    }
    checkpoint_bytes = schedule.predict_bytes(memory.count_trainable(facts, spec))
    resolved[ResolvedKey.CHECKPOINT_SIZE] = quantities.build_quantity(checkpoint_bytes)
    warnings += schedule.warn_of_notice(checkpoint_bytes)
    if spec.method.quantization != Quantization.NONE:
        resolved[ResolvedKey.QUANTIZED_LAYERS] = str(num_quantized)
    if any(Remark.ADDED_EMBEDDINGS in counted.remarks for counted in counts.values()):
        resolved[ResolvedKey.EMBEDDINGS] = str(input_ids.count_tokens(model.tokenizer))
    if splits.labels:
        resolved["labels"] = str(len(splits.labels))
    return _Choice(resolved, prediction.peak, warnings)


def _build_status(counts: Mapping[str, TokenCounts]) -> DataStatus:
    return DataStatus(
        train_rows=len(counts["train"].lengths),
        validation_rows=len(counts["validation"].lengths),
        test_rows=len(counts["test"].lengths),
        train_tokens=counts["train"].num_tokens,
        truncated_rows=sum(split.num_truncated for split in counts.values()),
    )


def _publish_findings(store: Store, folder: S3Address, error: BadRowsError) -> FineTuneError:
    """Upload what is wrong with the rows, so that all of it can be read, not only what a message holds."""
    document = {"version": report.VERSION, "errors": error.findings, "totalErrors": error.total}
    address = folder.join(artifacts.REPORT)
    try:
        store.put_bytes(address, report.build_document(document))
    except FineTuneError as failure:
        logger.warning("the list of bad rows could not be uploaded: %s", failure)
        return error
    return DataError(error.message, f"{error.remedy} Up to {findings_of.MAX_FINDINGS} errors are listed in {address}")


def _publish(
    config: RunConfig, store: Store, folder: S3Address, prepared: Prepared, inputs: list[InputEntry]
) -> TerminationMessage:
    """Upload the prepared files, prepared.json last."""
    doing = "the upload of the prepared rows"
    entries = store.upload_folder(prepared.folder, folder, signals.build_progress(doing))
    signals.check(doing)
    rows = [entry for entry in entries if entry.path.endswith(".parquet")]
    data = prepared.data.model_copy(
        update={
            "digest": f"sha256:{artifacts.compute_digest(rows)}",
            "report_uri": str(folder.join(artifacts.REPORT)),
        }
    )
    kept = [build_message(warning) for warning in wording.keep_first(prepared.warnings, MAX_WARNINGS)]
    manifest = PreparedManifest(
        uid=config.job.uid,
        attempt=config.job.attempt,
        run_digest=build_run_digest(config, inputs, prepared.resolved),
        files=entries,
        inputs=inputs,
        data=data,
        labels=prepared.labels,
        resolved=prepared.resolved,
        warnings=kept,
    )
    content = manifest.model_dump_json(indent=1).encode()
    store.put_bytes(folder.join(artifacts.PREPARED), content)
    for warning in prepared.warnings:
        logger.warning("%s", warning)
    return TerminationMessage(
        stage=config.stage,
        attempt=config.job.attempt,
        exit_code=ExitCode.OK,
        reason="Completed",
        message=f"prepared rows: {data.train_rows} train, {data.validation_rows} validation, {data.test_rows} test",
        prepared_sha256=hashlib.sha256(content).hexdigest(),
        run_digest=manifest.run_digest,
        data=data,
        memory=MemoryStatus(predicted_peak=quantities.build_quantity(prepared.predicted_bytes)),
        resolved=prepared.resolved,
        warnings=kept,
    )


def build_run_digest(config: RunConfig, inputs: Sequence[InputEntry], resolved: Mapping[str, str]) -> str:
    """Digest everything that decides the result: the same inputs give the same digest, wherever they lie.

    Addresses, storage, placement, retries, names and the split into micro-batches don't count; contents do.
    """
    spec = config.spec
    relevant = {
        "task": spec.task,
        "data": [
            {"instruction": item.instruction, "weight": item.weight, "columns": item.columns} for item in spec.data
        ],
        "split": spec.split.model_dump(mode="json"),
        "method": spec.method.model_dump(mode="json"),
        "training": spec.training.model_dump(mode="json"),
        "evaluation": spec.evaluation.model_dump(mode="json"),
        "merge": spec.output.merge,
        "gpus": [spec.resources.gpus, spec.resources.nodes],
        "env": [item.model_dump(mode="json") for item in spec.trainer.env],
        "resolved": {
            key: resolved[key] for key in (ResolvedKey.LEARNING_RATE, ResolvedKey.TOTAL_STEPS, ResolvedKey.BEST_METRIC)
        },
        "inputs": [item.digest for item in inputs],
        "splits": [path for _, path, _ in probe.list_data_addresses(spec)],
        "image": config.image,
    }
    text = json.dumps(relevant, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
