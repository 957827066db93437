"""Cells of the sweep over architectures: a model type, what it is trained for, how; each runs through both real stages.

A cell ends in one of three ways. *Trained*: what was published, loaded in plain transformers and peft with the code of
its model card, gives the figures of its report, and nothing of the base has changed but what the run means to change.
*Refused*: the prepare stage says why, in words that a user can act on. *Fault*: anything else.
"""

import contextlib
import gc
import json
import logging
import math
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet
import tiny_architectures
import torch
import transformers
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from safetensors.torch import load_file
from torch.nn import functional

from finetune_api import artifacts, run
from finetune_api.exits import ExitCode
from finetune_api.kinds.finetunejob.status import ResolvedKey
from finetune_api.run import RunConfig, TerminationMessage
from finetune_trainer.pod import rank
from finetune_trainer.stages import prepare, train
from finetune_trainer.telemetry import libraries

MAX_LENGTH = 60
PURPOSES = ("classify", "language")
METHODS: dict[str, dict[str, Any]] = {
    "Full": {"kind": "Full"},
    "HeadOnly": {"kind": "HeadOnly"},
    "LoRA": {"kind": "LoRA"},
    "LoRA Int8": {"kind": "LoRA", "quantization": "Int8"},
    "LoRA NF4": {"kind": "LoRA", "quantization": "NF4"},
}
# The two tasks of language models share everything but their rows: each is tried with a part of the methods.
_LANGUAGE_TASKS = {
    "Full": "CausalLM",
    "HeadOnly": "InstructionTuning",
    "LoRA": "InstructionTuning",
    "LoRA Int8": "CausalLM",
    "LoRA NF4": "InstructionTuning",
}
TOLERANCE, QUANTIZED_TOLERANCE = 1e-5, 1e-3
"""Of logits and losses, relative to their size where that is above 1."""

_CHANGED_BY_CLASSES = frozenset({"architectures", "id2label", "label2id", "problem_type"})
_WRITER = frozenset({"transformers_version"})

_OF_TINY_MODELS = re.compile(
    r"original_max_position_embeddings field must be less than|The explicitly set RoPE scaling factor"
)
"""Sizes that a real model hasn't; anything else that libraries say and the product would show is a fault."""


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One run of the sweep."""

    model_type: str
    purpose: str
    method: str

    def __str__(self) -> str:
        return f"{self.model_type}, {self.purpose}, {self.method}"

    @property
    def task(self) -> str:
        return "SequenceClassification" if self.purpose == "classify" else _LANGUAGE_TASKS[self.method]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a cell ended."""

    ending: str
    """`trained`, `refused` or `fault`."""
    details: list[str] = field(default_factory=list)
    """The words of the refusal, or everything that is wrong."""


@dataclass(frozen=True, slots=True)
class Bench:
    """A folder that stands for the buckets: models are built once, rows are the same for all."""

    root: Path

    def __post_init__(self) -> None:
        rows = list(_make_rows())
        for purpose, build in (("classify", _build_review), ("texts", _build_text), ("prompts", _build_answer)):
            folder = self.root / "data" / purpose
            folder.mkdir(parents=True, exist_ok=True)
            for split, chosen in (("train", rows[:16]), ("validation", rows[16:24]), ("test", rows[24:32])):
                text = "".join(json.dumps(build(*row)) + "\n" for row in chosen)
                (folder / f"{split}.jsonl").write_text(text)

    def get_model(self, model_type: str) -> Path:
        """Return the folder of a type's tiny model; built whole or not at all."""
        folder = self.root / "models" / model_type
        if not folder.exists():
            partial = folder.with_name(f"{model_type}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tiny_architectures.build_model(model_type, partial).rename(folder)
        return folder

    def find(self, uri: str) -> Path:
        """Return the folder that an address stands for."""
        address = artifacts.parse_s3_uri(uri)
        return self.root / address.bucket / address.key

    def build_config(self, cell: Cell) -> RunConfig:
        """Return the prepare stage's configuration."""
        folder = {"SequenceClassification": "classify", "CausalLM": "texts"}.get(cell.task, "prompts")
        splits = {split: {"uri": f"s3://data/{folder}/{split}.jsonl"} for split in ("train", "validation", "test")}
        spec = {
            "task": cell.task,
            "model": {"uri": f"s3://models/{cell.model_type}/"},
            "data": [{"name": "rows", **splits}],
            "output": {"uri": f"s3://runs/{cell.model_type}/{cell.purpose}/{cell.method.replace(' ', '-')}"},
            "resources": {"gpus": 0, "memory": "4Gi"},
            "method": METHODS[cell.method],
            "training": {
                "batchSize": 8,
                "maxSteps": 2,
                "learningRate": "1e-2",
                "warmupFraction": "0",
                "maxLength": MAX_LENGTH,
            },
        }
        job = {"namespace": "sweep", "name": "cell", "uid": "uid", "attempt": 1}
        return RunConfig.model_validate({"job": job, "stage": "prepare", "image": "trainer:test", "spec": spec})


@contextlib.contextmanager
def open_bench(root: Path) -> Iterator[Bench]:
    """Open a bench in this process: with the environment of a pod and one thread."""
    saved = dict(os.environ)
    os.environ |= {
        run.STORE_FOLDER_VARIABLE: str(root),
        "FINETUNE_METRICS_PORT": "0",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    torch.set_num_threads(1)
    try:
        yield Bench(root)
    finally:
        os.environ.clear()
        os.environ.update(saved)


def _make_rows() -> Iterator[tuple[str, str]]:
    """Give sentences of three to nine words, no two alike, and a label that a word gives away."""
    words = ("film", "story", "plot", "word", "house", "people", "land", "building", "old", "man", "his", "dog")
    for index in range(32):
        label = ("positive", "negative")[index % 2]
        body = " ".join(words[(index * 5 + place * (1 + index % 4)) % len(words)] for place in range(index * 5 % 7))
        yield f"the {('wonderful', 'dull')[index % 2]} film {index} {body}".strip(), label


def _build_review(text: str, label: str) -> dict[str, str]:
    return {"text": text, "label": label}


def _build_text(text: str, label: str) -> dict[str, str]:
    return {"text": f"{text} is {label}"}


def _build_answer(text: str, label: str) -> dict[str, str]:
    return {"prompt": text, "completion": f" {label} {text.rsplit(maxsplit=1)[-1]}"}


def run_cell(bench: Bench, cell: Cell, scratch: Path) -> Outcome:
    """Run both stages and look at what they leave."""
    bench.get_model(cell.model_type)
    config = bench.build_config(cell)
    with _listening() as said:
        prepared = _run(prepare, config, scratch / "prepare")
        if prepared.exit_code in (ExitCode.DATA, ExitCode.CONFIG):
            return Outcome("refused", [f"{prepared.reason}: {prepared.message}; {prepared.remedy}"])
        if prepared.exit_code != ExitCode.OK:
            return _fault("prepare", prepared)
        document = config.model_dump(mode="json", by_alias=True, exclude_none=True)
        document |= {"stage": "train", "prepared": {"attempt": 1, "sha256": prepared.prepared_sha256}}
        end = _run(train, RunConfig.model_validate(document), scratch / "train")
    if end.exit_code != ExitCode.OK:
        return _fault("train", end)
    layout = artifacts.build_run_layout(config.spec.output.uri, config.job.uid)
    folders = [bench.find(end.artifacts_uri or "").parent, bench.find(f"{layout.prepared(1)}/")]
    with _listening() as said_on_loading:
        resolved = {"prepared": prepared.resolved or {}, "resolved": end.resolved or {}}
        faults = Published(bench, cell, *folders, **resolved).find_faults()
    is_whole = cell.method in ("Full", "HeadOnly")
    faults += [f"said in the stages: {text}" for text in said if not _is_load_report(text)]
    faults += [f"said on loading: {text}" for text in said_on_loading if is_whole or not _is_load_report(text)]
    gc.collect()
    return Outcome("fault", faults) if faults else Outcome("trained")


def _is_load_report(text: str) -> bool:
    """Tell whether words are transformers' list of weights that a base has too many or too few of.

    A base for another task always has some, and the trainer checks that they are heads; a published model never has.
    """
    return "LOAD REPORT" in text


def _run(stage: Any, config: RunConfig, scratch: Path) -> TerminationMessage:
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        message: TerminationMessage = stage.run(config, scratch)
    except Exception as error:  # what a rank does with it
        message = rank.build_failure(config, error)
        if message.exit_code == ExitCode.UNCLASSIFIED:
            frame = error.__traceback__
            while frame is not None and frame.tb_next is not None:
                frame = frame.tb_next
            where = f"{Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}" if frame else ""
            text = " ".join(str(error).split())[:300]
            message = message.model_copy(update={"message": f"{type(error).__name__}: {text} ({where})"})
    return message


def _fault(stage: str, message: TerminationMessage) -> Outcome:
    return Outcome("fault", [f"{stage} ends with {message.exit_code} {message.reason}: {message.message}"])


@contextlib.contextmanager
def _listening() -> Iterator[list[str]]:
    """Gather what libraries warn of, but for what the trainer keeps out of its log by name."""
    said: dict[str, None] = {}

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", record.getMessage()).split())
            # Of what is published, the report on loading is no cosmetic thing.
            if (libraries.keep(record) or _is_load_report(text)) and not _OF_TINY_MODELS.search(text):
                said[text[:400]] = None

    handler = Handler(logging.WARNING)
    loggers = [logging.getLogger(name) for name in ("transformers", "peft", "accelerate", "bitsandbytes")]
    levels = [logger.level for logger in loggers]
    # Each cell hears what is said once per process.
    transformers.utils.logging.warning_once.cache_clear()
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield_value: list[str] = []
            yield yield_value
        for item in caught:
            text = f"{item.category.__name__}: {' '.join(str(item.message).split())[:300]}"
            if not libraries.is_cosmetic(text) and not _OF_TINY_MODELS.search(text):
                said[text] = None
        yield_value += said
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


class Published:
    """What a run has published, beside the base it was made of."""

    def __init__(
        self,
        bench: Bench,
        cell: Cell,
        attempt: Path,
        rows: Path,
        *,
        prepared: Mapping[str, str],
        resolved: Mapping[str, str],
    ) -> None:
        self.cell, self.prepared, self.resolved = cell, prepared, resolved
        self.base, self.folder = bench.get_model(cell.model_type), attempt / "model"
        self.report = json.loads((attempt / "evaluation.json").read_text())
        self.rows = pyarrow.parquet.read_table(rows / f"{self.report['split']}.parquet").to_pylist()
        self.texts = [
            json.loads(line) for line in (bench.root / "data" / "classify" / "test.jsonl").read_text().splitlines()
        ]
        self.is_quantized = "quantization" in METHODS[cell.method]
        self.tolerance = QUANTIZED_TOLERANCE if self.is_quantized else TOLERANCE

    def find_faults(self) -> list[str]:
        """Return everything that isn't as the report, the base or the method says."""
        if len(self.rows) != 8 or len(self.report["samples"]) != 8:
            return [f"{len(self.rows)} rows and {len(self.report['samples'])} samples instead of 8"]
        try:
            loaded = self._load()
        except Exception as error:
            return [f"the card's code ends with {type(error).__name__}: {' '.join(str(error).split())[:300]}"]
        model, tokenizer = loaded["model"], loaded["tokenizer"]
        faults = self._compare_logits(model)
        if self.cell.purpose == "classify":
            faults += self._compare_labels(model)
            # Few bits round each batch differently; how it is padded is the same.
            faults += [] if self.is_quantized else self._compare_batch(model, tokenizer)
        faults += self._compare_quantized(model)
        faults += self._compare_config() if self.cell.method in ("Full", "HeadOnly") else []
        return faults + self._compare_weights()

    def _load(self) -> dict[str, Any]:
        card = (self.folder / "README.md").read_text(encoding="utf-8")
        [code] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        loaded: dict[str, Any] = {"BASE": str(self.base), "MODEL": str(self.folder)}
        exec(code, loaded)  # noqa: S102 - it is what is tested
        for module in loaded["model"].modules():
            if isinstance(module, Linear4bit):
                # Some processors compute NF4 in bfloat16 otherwise, which is right only to 1e-3.
                module.support_avx512bf16_for_cpu = False
        return loaded

    def _compare_logits(self, model: Any) -> list[str]:
        worst, total, count = 0.0, 0.0, 0
        for row, sample in zip(self.rows, self.report["samples"], strict=True):
            if row["input_ids"] != sample["inputIds"]:
                return ["the samples are other rows than the first of the split"]
            inputs = {"input_ids": torch.tensor([sample["inputIds"]])}
            if "tokenTypeIds" in sample:
                inputs["token_type_ids"] = torch.tensor([sample["tokenTypeIds"]])
            with torch.no_grad():
                logits = model(**inputs).logits[0].float()
            if "logits" in sample:
                worst = max(worst, _measure(logits, torch.tensor(sample["logits"])))
                losses = functional.cross_entropy(logits[None], torch.tensor([row["label"]]), reduction="none")
            else:
                tokens = torch.tensor([item["token"] for item in sample["last"]])
                worst = max(worst, _measure(logits[-1, tokens], torch.tensor([x["logit"] for x in sample["last"]])))
                labels = torch.tensor(row["labels"])[1:]
                losses = functional.cross_entropy(logits[:-1], labels, reduction="none")[labels != -100]
            total, count = total + float(losses.sum()), count + len(losses)
        faults = [f"logits differ from the samples' by {worst:.1e}"] if worst > self.tolerance else []
        loss, reported = total / count, self.report["tuned"]["loss"]
        if abs(loss - reported) > self.tolerance * max(1.0, abs(loss)):
            faults.append(f"the loss is {loss:.6f}, the report's {reported:.6f}")
        return faults

    def _compare_labels(self, model: Any) -> list[str]:
        wanted = dict(enumerate(self.report["labels"]))
        return [f"id2label is {model.config.id2label}, not {wanted}"] if model.config.id2label != wanted else []

    def _compare_batch(self, model: Any, tokenizer: Any) -> list[str]:
        """Compare the samples with a whole batch of texts, as a pipeline puts it through the model."""
        texts = [self.texts[row["row"]]["text"] for row in self.rows]
        if tokenizer.pad_token is None:
            return ["the tokenizer has no padding token: no pipeline can put two texts in a batch"]
        batch = tokenizer(texts, truncation=True, max_length=MAX_LENGTH, padding=True, return_tensors="pt")
        for index, sample in enumerate(self.report["samples"]):
            kept = batch["input_ids"][index][batch["attention_mask"][index].bool()].tolist()
            if kept != sample["inputIds"]:
                return [f"the tokenizer gives {kept} where the run had {sample['inputIds']}"]
        with torch.no_grad():
            logits = model(**batch).logits.float()
        worst = _measure(logits, torch.tensor([sample["logits"] for sample in self.report["samples"]]))
        # Another order of summation than one by one.
        return [f"logits of a padded batch differ from the samples' by {worst:.1e}"] if worst > 10 * TOLERANCE else []

    def _compare_quantized(self, model: Any) -> list[str]:
        found = str(sum(isinstance(module, (Linear4bit, Linear8bitLt)) for module in model.modules()))
        if self.is_quantized and found == "0":
            return ["no layer is quantized"]
        told = {resolved.get(ResolvedKey.QUANTIZED_LAYERS, "0") for resolved in (self.prepared, self.resolved)}
        return [f"{found} layers are quantized, the status says {', '.join(sorted(told))}"] if told != {found} else []

    def _compare_config(self) -> list[str]:
        allowed = _WRITER | (_CHANGED_BY_CLASSES if self.cell.purpose == "classify" else frozenset())
        allowed |= {"vocab_size"} if ResolvedKey.EMBEDDINGS in self.resolved else frozenset()
        faults = []
        # How text is generated is nothing to a classifier, which publishes none.
        for name in ("config.json", "generation_config.json")[: 1 if self.cell.purpose == "classify" else 2]:
            base, tuned = (_load_json(folder / name) for folder in (self.base, self.folder))
            faults += [f"{name}: {text}" for text in _compare_keys(base, tuned, allowed)]
        return faults

    def _compare_weights(self) -> list[str]:
        tuned = _load_weights(self.folder)
        if self.cell.method.startswith("LoRA"):
            still = [name for name, weight in tuned.items() if "lora_B" in name and not bool(weight.any())]
            layers = sorted({name.partition(".lora_B")[0].rpartition(".")[2] for name in still})
            return [f"adapters have learned nothing: {', '.join(layers)}"] if layers else []
        base = _load_weights(self.base)
        # A head's class may keep the body one level deeper.
        pairs = {name: base.get(name, base.get(name.partition(".")[2])) for name in tuned}
        changed = [
            name for name, before in pairs.items() if before is not None and not torch.equal(before, tuned[name])
        ]
        if self.cell.method == "HeadOnly":
            frozen = [name for name in changed if re.search(r"\.\d+\.", name)]
            return [f"layers of the body have changed: {', '.join(frozen[:3])}"] if frozen else []
        return [] if changed else ["no weight of the base has changed"]


def _measure(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the largest difference, relative to the largest size where that is above 1; infinite where it is none."""
    difference = float((found - wanted).abs().max()) / max(1.0, float(wanted.abs().max()))
    return float("inf") if math.isnan(difference) else difference


def _load_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _load_weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: weight for path in folder.glob("*.safetensors") for name, weight in load_file(path).items()}


def _without_dtype(value: Any) -> Any:
    """Leave out of a part's configuration what it is loaded in, which transformers writes beside that of the whole."""
    return {name: item for name, item in value.items() if name != "dtype"} if isinstance(value, dict) else value


def _compare_keys(base: Mapping[str, Any], tuned: Mapping[str, Any], allowed: frozenset[str]) -> list[str]:
    faults = []
    for key in sorted({*base, *tuned} - allowed):
        before, after = _without_dtype(base.get(key)), _without_dtype(tuned.get(key))
        if before != after and not (key == "pad_token_id" and before is None):
            faults.append(f"{key} is {after} instead of {before}")
    return faults
